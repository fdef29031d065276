use super::*;
use crate::pressure::action::{CacheCut, Pace, Switch, Workers};

mod flapping;

const LIMIT_BYTES: u64 = 1_000_000;

/// The marks of the published flap set: 70, 80, 92 and 100 % of the limit.
fn marks() -> Thresholds {
    Thresholds::new(700_000, 800_000, 920_000, LIMIT_BYTES).expect("in order")
}

fn controller() -> Controller {
    Controller::new(marks(), Measure::Anonymous, Dwell::default())
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
/// was asked for.
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
        if decision.change.is_some() || !decision.actions.is_empty() {
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
            Action::LimitWorkers(Workers::Half),
            Action::DropPageCacheBehind(Switch::On),
            Action::DropIdleContexts,
            Action::ShrinkPieceCache(CacheCut::Half),
            Action::CollectAll,
            Action::PaceCollections(Pace::EveryTenChunks),
            Action::ShrinkDatabase,
            Action::ReturnIdleSegments,
            Action::TrimMalloc,
        ]
    );
}

#[test]
fn idle_segments_are_asked_for_again_while_relief_does_not_show() {
    let mut c = controller();
    hold(&mut c, ms(0), ms(200), 850_000);
    let events = hold(&mut c, ms(200), ms(1200), 850_000);
    let asked: Vec<_> = events
        .iter()
        .map(|(at, decision)| (*at, decision.actions.clone()))
        .collect();
    let again = vec![Action::ReturnIdleSegments];
    assert_eq!(asked, [(ms(600), again.clone()), (ms(1100), again)]);
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
fn sampling_quickens_towards_the_threshold() {
    let mut c = controller();
    for (bytes, millis) in [
        (0, 1000),
        (399_999, 1000),
        (400_000, 250),
        (639_999, 250),
        (640_000, 50),
    ] {
        assert_eq!(
            c.observe(&sample(ms(0), bytes)).next_sample_in,
            ms(millis),
            "{bytes} bytes"
        );
    }
    assert_eq!(sampling_interval(u64::MAX, &marks()), ms(50));
}

#[test]
fn measure_chooses_the_size_that_counts() {
    let mapped = Sample {
        at: ms(0),
        resident_bytes: 990_000,
        anonymous_bytes: 10_000,
        held_bytes: 0,
    };
    let mut by_anonymous = Controller::new(marks(), Measure::Anonymous, Dwell::default());
    assert_eq!(by_anonymous.observe(&mapped).mode, Mode::Normal);
    let mut by_rss = Controller::new(marks(), Measure::Rss, Dwell::default());
    assert_eq!(by_rss.observe(&mapped).mode, Mode::Critical);
}

#[test]
fn new_thresholds_apply_to_the_next_samples_and_keep_the_mode() {
    let mut c = controller();
    hold(&mut c, ms(0), ms(200), 850_000);
    let wider = Thresholds::new(1_400_000, 1_600_000, 1_800_000, 2_000_000).expect("in order");
    c.set_thresholds(wider);
    assert_eq!(c.mode(), Mode::Aggressive);
    let events = hold(&mut c, ms(200), secs(4), 850_000);
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!((events[0].0, events[0].1.mode), (ms(2200), Mode::Normal));
    c.set_thresholds(marks());
    assert_eq!(mode_after(&mut c, secs(5), 850_000), Mode::Normal);
    assert_eq!(mode_after(&mut c, ms(5100), 850_000), Mode::Aggressive);
}

#[test]
fn a_reason_names_its_numbers() {
    let reason = Reason::StayedBelow {
        measured_bytes: 10 << 20,
        mark_bytes: 24 << 20,
        lasted: ms(2050),
    };
    assert_eq!(reason.to_string(), "10 MiB after 2.0 s below 24 MiB");
    let reason = Reason::AtThreshold {
        measured_bytes: 17 << 20,
        threshold_bytes: 16 << 20,
    };
    assert_eq!(reason.to_string(), "17 MiB reached the threshold of 16 MiB");
}
