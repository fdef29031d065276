use super::*;
use crate::pressure::action::{CacheCut, Pace};
use crate::pressure::reading::FileReading;

mod flapping;
mod many;

const LIMIT_BYTES: u64 = 1_000_000;

/// The marks of the published flap set: 70, 80, 92 and 100 % of the limit.
fn marks() -> Thresholds {
    Thresholds::new(700_000, 800_000, 920_000, LIMIT_BYTES).expect("in order")
}

fn rules() -> Rules {
    Rules {
        thresholds: marks(),
        measure: Measure::Anonymous,
        dwell: Dwell::default(),
        need_bytes: 0,
    }
}

fn controller() -> Controller {
    Controller::new(rules())
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn sample(at: Duration, bytes: u64) -> Sample {
    Sample::of_counters(at, bytes)
}

/// Feeds the same bytes every 100 ms in `[from, to)` and keeps what changed or
/// was asked for, beside the share of the workers and the way of reading.
fn hold(
    controller: &mut Controller,
    from: Duration,
    to: Duration,
    bytes: u64,
) -> Vec<(Duration, Decision)> {
    let mut events = Vec::new();
    let mut at = from;
    while at < to {
        let decision = controller.observe(&sample(at, bytes));
        let only_shares = (decision.actions.iter())
            .all(|action| matches!(action, Action::LimitWorkers(_) | Action::ReadFiles(_)));
        if decision.change.is_some() || !only_shares {
            events.push((at, decision));
        }
        at += ms(100);
    }
    events
}

fn mode_after(controller: &mut Controller, at: Duration, bytes: u64) -> Mode {
    controller.observe(&sample(at, bytes)).mode
}

#[test]
fn one_high_sample_is_not_enough_and_two_in_a_row_are() {
    let mut c = controller();
    assert_eq!(mode_after(&mut c, ms(0), 800_000), Mode::Normal);
    assert_eq!(mode_after(&mut c, ms(50), 799_999), Mode::Normal);
    assert_eq!(mode_after(&mut c, ms(100), 800_000), Mode::Normal);
    assert_eq!(mode_after(&mut c, ms(150), 800_000), Mode::Aggressive);
}

#[test]
fn one_critical_sample_is_enough_from_any_mode() {
    let mut c = controller();
    let decision = c.observe(&sample(ms(0), 920_000));
    assert_eq!(decision.mode, Mode::Critical);
    let change = decision.change.expect("changed");
    assert_eq!((change.from, change.to), (Mode::Normal, Mode::Critical));

    let mut c = controller();
    hold(&mut c, ms(0), ms(200), 850_000);
    assert_eq!(c.mode(), Mode::Aggressive);
    assert_eq!(mode_after(&mut c, ms(200), 920_000), Mode::Critical);
}

#[test]
fn aggressive_ends_after_the_dwell_below_resume_and_not_between_the_marks() {
    let mut c = controller();
    hold(&mut c, ms(0), ms(200), 850_000);
    hold(&mut c, ms(200), secs(20), 700_000);
    assert_eq!(c.mode(), Mode::Aggressive);
    let events = hold(&mut c, secs(20), secs(25), 699_999);
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].0, secs(22));
    assert_eq!(events[0].1.mode, Mode::Normal);
}

#[test]
fn one_sample_above_resume_starts_the_dwell_anew() {
    let mut c = controller();
    hold(&mut c, ms(0), ms(200), 850_000);
    hold(&mut c, ms(200), ms(2100), 600_000);
    hold(&mut c, ms(2100), ms(2200), 700_000);
    hold(&mut c, ms(2200), ms(4200), 600_000);
    assert_eq!(c.mode(), Mode::Aggressive);
    assert_eq!(mode_after(&mut c, ms(4200), 600_000), Mode::Normal);
}

#[test]
fn critical_is_left_for_aggressive_only_however_low_the_measure() {
    let mut c = controller();
    mode_after(&mut c, ms(0), 990_000);
    let events = hold(&mut c, ms(100), secs(10), 0);
    let modes: Vec<_> = events
        .iter()
        .map(|(at, decision)| (*at, decision.mode))
        .collect();
    assert_eq!(modes, [(ms(2100), Mode::Aggressive)]);
}

#[test]
fn critical_lasts_while_the_measure_is_above_the_midpoint() {
    let mut c = controller();
    mode_after(&mut c, ms(0), 920_000);
    hold(&mut c, ms(100), secs(30), 860_000);
    assert_eq!(c.mode(), Mode::Critical);
    hold(&mut c, secs(30), ms(32_100), 859_999);
    assert_eq!(c.mode(), Mode::Aggressive);
}

#[test]
fn entering_aggressive_asks_for_relief_once_in_order() {
    let mut c = controller();
    let events = hold(&mut c, ms(0), ms(600), 850_000);
    assert_eq!(events.len(), 1);
    assert_eq!(
        events[0].1.actions,
        [
            Action::LimitWorkers(share(50)),
            Action::ReadFiles(FileReading::Near),
            Action::ReturnIdleSegments,
            Action::ShrinkPieceCache(CacheCut::Half),
            Action::CollectAll,
            Action::PaceCollections(Pace::EveryTenChunks),
            Action::ShrinkDatabase,
            Action::DropIdleContexts,
            Action::ReturnIdleSegments,
            Action::TrimMalloc,
        ]
    );
}

/// The share of so many percent.
fn share(percent: u8) -> WorkerShare {
    let mut share = Share::default();
    while share.get().percent() > percent {
        let at = 800_000 + (121_000 - u64::from(share.get().percent()) * 1_200);
        share.follow(ms(0), at, &marks(), None);
    }
    assert_eq!(share.get().percent(), percent);
    share.get()
}

#[test]
fn more_is_asked_for_while_relief_does_not_show() {
    let mut c = controller();
    hold(&mut c, ms(0), ms(200), 850_000);
    let events = hold(&mut c, ms(200), ms(1700), 850_000);
    let asked: Vec<_> = events
        .iter()
        .map(|(at, decision)| (*at, decision.actions.clone()))
        .collect();
    let emptied = vec![
        Action::ReturnIdleSegments,
        Action::ShrinkPieceCache(CacheCut::All),
        Action::CollectAll,
        Action::ShrinkDatabase,
        Action::ReturnIdleSegments,
    ];
    let again = vec![Action::ReturnIdleSegments];
    assert_eq!(
        asked,
        [
            (ms(600), emptied),
            (ms(1100), again.clone()),
            (ms(1600), again)
        ]
    );
}

#[test]
fn nothing_more_is_asked_for_while_relief_shows_or_the_measure_is_low() {
    let mut c = controller();
    hold(&mut c, ms(0), ms(200), 850_000);
    let fallen = hold(&mut c, ms(200), ms(700), 810_000);
    assert!(
        fallen.is_empty(),
        "fell by 5 % of the threshold: {fallen:?}"
    );
    let low = hold(&mut c, ms(700), ms(2000), 699_999);
    assert!(low.is_empty(), "below resume: {low:?}");
}

#[test]
fn malloc_is_not_trimmed_twice_within_thirty_seconds() {
    let trims = |decision: &Decision| decision.actions.contains(&Action::TrimMalloc);
    let mut c = controller();
    let entered = hold(&mut c, ms(0), ms(200), 850_000);
    assert!(trims(&entered[0].1));
    let critical = c.observe(&sample(secs(20), 950_000));
    assert_eq!(critical.mode, Mode::Critical);
    assert!(!trims(&critical));
    hold(&mut c, secs(21), secs(24), 0);
    assert_eq!(c.mode(), Mode::Aggressive);
    assert!(trims(&c.observe(&sample(secs(31), 950_000))));
}

#[test]
fn measure_chooses_the_size_that_counts() {
    let mapped = Sample {
        resident_bytes: 990_000,
        anonymous_bytes: 10_000,
        ..Sample::default()
    };
    assert_eq!(controller().observe(&mapped).mode, Mode::Normal);
    let mut by_rss = Controller::new(Rules {
        measure: Measure::Rss,
        ..rules()
    });
    assert_eq!(by_rss.observe(&mapped).mode, Mode::Critical);
}

#[test]
fn new_thresholds_apply_to_the_next_samples_and_keep_the_mode() {
    let mut c = controller();
    hold(&mut c, ms(0), ms(200), 850_000);
    let wider = Thresholds::new(1_400_000, 1_600_000, 1_800_000, 2_000_000).expect("in order");
    c.set_limits(wider, 0);
    assert_eq!(c.mode(), Mode::Aggressive);
    let events = hold(&mut c, ms(200), secs(4), 850_000);
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!((events[0].0, events[0].1.mode), (ms(2200), Mode::Normal));
    c.set_limits(marks(), 0);
    assert_eq!(mode_after(&mut c, secs(5), 850_000), Mode::Normal);
    assert_eq!(mode_after(&mut c, ms(5100), 850_000), Mode::Aggressive);
}

/// A sample with little in it and this much room around.
fn room(at: Duration, headroom_bytes: u64) -> Sample {
    Sample {
        headroom_bytes: Some(headroom_bytes),
        ..sample(at, 100_000)
    }
}

fn with_need(need_bytes: u64) -> Controller {
    Controller::new(Rules {
        need_bytes,
        ..rules()
    })
}

#[test]
fn little_room_around_us_counts_as_much_as_what_we_hold() {
    let mut c = with_need(1000);
    assert_eq!(c.observe(&room(ms(0), 2000)).mode, Mode::Normal);
    assert_eq!(c.observe(&room(ms(100), 1999)).mode, Mode::Normal);
    assert_eq!(c.observe(&room(ms(200), 1999)).mode, Mode::Aggressive);
    let critical = c.observe(&room(ms(300), 999));
    assert_eq!(critical.mode, Mode::Critical);
    let why = critical.change.expect("changed").why.to_string();
    assert_eq!(why, "999 B left around us, 1000 B wanted");
    assert_eq!(c.share(), WorkerShare::ALL, "caches go before workers");
    c.observe(&room(ms(400), 100));
    assert_eq!(c.share(), WorkerShare::ONE);

    for step in 5..60 {
        c.observe(&room(ms(step * 100), 1499));
    }
    assert_eq!(c.mode(), Mode::Critical, "1.5 times the need ends it");
    for step in 60..90 {
        c.observe(&room(ms(step * 100), 1500));
    }
    assert_eq!(c.mode(), Mode::Aggressive);
    for step in 90..800 {
        c.observe(&room(ms(step * 100), 2499));
    }
    assert_eq!(c.mode(), Mode::Aggressive, "2.5 times the need ends it");
    for step in 800..830 {
        c.observe(&room(ms(step * 100), 2500));
    }
    assert_eq!(c.mode(), Mode::Normal);
    assert_eq!(c.share(), WorkerShare::ALL);
}

#[test]
fn without_a_need_or_without_word_of_the_room_only_the_measure_counts() {
    let mut c = controller();
    assert_eq!(c.observe(&room(ms(0), 0)).mode, Mode::Normal);
    let mut c = with_need(1000);
    assert_eq!(c.observe(&sample(ms(0), 100_000)).mode, Mode::Normal);
}

#[test]
fn others_are_heeded_at_once_if_there_is_something_to_give() {
    let told = |bytes| Sample {
        notified: true,
        ..sample(ms(0), bytes)
    };
    assert_eq!(controller().observe(&told(479_999)).mode, Mode::Normal);
    assert_eq!(controller().observe(&told(480_000)).mode, Mode::Aggressive);
    let slow = Sample {
        notified: false,
        slow_reads: true,
        ..told(480_000)
    };
    assert_eq!(
        with_need(1000).observe(&slow).mode,
        Mode::Normal,
        "a slow disk"
    );
    let tight = |headroom_bytes| Sample {
        headroom_bytes: Some(headroom_bytes),
        ..slow
    };
    assert_eq!(with_need(1000).observe(&tight(4000)).mode, Mode::Normal);
    assert_eq!(with_need(1000).observe(&tight(3999)).mode, Mode::Aggressive);
    let killed = Sample {
        oom_killed: true,
        ..sample(ms(0), 0)
    };
    assert_eq!(controller().observe(&killed).mode, Mode::Critical);
}

#[test]
fn being_told_again_starts_the_dwell_anew() {
    let mut c = controller();
    hold(&mut c, ms(0), ms(200), 850_000);
    hold(&mut c, ms(200), ms(2100), 600_000);
    c.observe(&Sample {
        notified: true,
        ..sample(ms(2100), 600_000)
    });
    hold(&mut c, ms(2200), ms(4200), 600_000);
    assert_eq!(c.mode(), Mode::Aggressive);
    assert_eq!(mode_after(&mut c, ms(4200), 600_000), Mode::Normal);
}

#[test]
fn jobs_are_failed_when_nothing_is_left_to_give_for_ten_seconds() {
    let failed = |c: &mut Controller, from, to, bytes| {
        let events = hold(c, from, to, bytes);
        events
            .iter()
            .filter(|(_, decision)| decision.actions.contains(&Action::FailJobs))
            .map(|(at, _)| *at)
            .collect::<Vec<_>>()
    };
    let mut c = controller();
    assert_eq!(failed(&mut c, ms(0), secs(9), 990_000), []);
    assert_eq!(failed(&mut c, secs(9), ms(9100), 940_000), []);
    assert_eq!(
        failed(&mut c, ms(9100), secs(35), 950_000),
        [ms(19_100), ms(29_100)]
    );
}

#[test]
fn jobs_are_not_failed_while_something_is_on_its_way_back() {
    let mut c = controller();
    for step in 0..400 {
        let decision = c.observe(&Sample {
            in_flight_bytes: 1 << 20,
            ..sample(ms(step * 100), 990_000)
        });
        assert!(!decision.actions.contains(&Action::FailJobs));
    }
}

#[test]
fn the_share_of_the_workers_follows_the_measure_and_is_lifted_in_normal() {
    let mut c = controller();
    hold(&mut c, ms(0), ms(200), 800_000);
    assert_eq!((c.mode(), c.share()), (Mode::Aggressive, WorkerShare::ALL));
    mode_after(&mut c, ms(200), 895_000);
    assert_eq!((c.mode(), c.share()), (Mode::Aggressive, WorkerShare::ONE));
    let shares: Vec<_> = (300..2250)
        .step_by(50)
        .flat_map(|at| {
            let actions = c.observe(&sample(ms(at), 600_000)).actions;
            let is_share = |action: &Action| matches!(action, Action::LimitWorkers(_));
            let shares = actions.into_iter().filter(is_share);
            shares
                .map(move |action| (ms(at), action))
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(
        shares,
        [
            (ms(1200), Action::LimitWorkers(share(25))),
            (ms(2200), Action::LimitWorkers(share(50)))
        ]
    );
    let normal = hold(&mut c, ms(2250), ms(2400), 600_000);
    assert!(
        normal[0]
            .1
            .actions
            .contains(&Action::LimitWorkers(WorkerShare::ALL))
    );
    assert_eq!((c.mode(), c.share()), (Mode::Normal, WorkerShare::ALL));
}
