//! Whatever the samples do, modes change at most four times a minute.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// The measure in bytes at each second.
type Wave = dyn Fn(f64) -> u64;

/// A share of the limit as bytes.
fn part(share: f64) -> u64 {
    (share * LIMIT_BYTES as f64) as u64
}

fn saw(period_s: f64, low: f64, high: f64) -> impl Fn(f64) -> u64 {
    move |t| part(low + (high - low) * (t / period_s).fract())
}

fn square(period_s: f64, low: f64, high: f64) -> impl Fn(f64) -> u64 {
    move |t| {
        part(if (t / period_s).fract() < 0.5 {
            high
        } else {
            low
        })
    }
}

/// Modes changed to in 60 s of 100 ms samples.
fn changes_in_a_minute(wave: &Wave) -> usize {
    let mut c = controller();
    (0..600)
        .filter(|step| {
            let at = ms(step * 100);
            c.observe(&sample(at, wave(at.as_secs_f64())))
                .change
                .is_some()
        })
        .count()
}

#[test]
fn no_wave_of_the_flap_set_changes_the_mode_more_than_four_times_a_minute() {
    let hum = |t: f64| {
        part(
            0.80 + if (t * 10.0).round() % 2.0 == 0.0 {
                0.001
            } else {
                -0.001
            },
        )
    };
    let waves: [(&str, &Wave, usize); 9] = [
        ("saw 0.3 s, 0.78-0.82", &saw(0.3, 0.78, 0.82), 0),
        ("saw 1 s, 0.72-0.90", &saw(1.0, 0.72, 0.90), 1),
        ("saw 2 s, 0.60-0.90", &saw(2.0, 0.60, 0.90), 1),
        ("saw 5 s, 0.50-0.95", &saw(5.0, 0.50, 0.95), 4),
        ("square 4 s, 0.60/0.90", &square(4.0, 0.60, 0.90), 1),
        ("square 4.2 s, 0.69/0.81", &square(4.2, 0.69, 0.81), 3),
        ("square 8.4 s, 0.69/0.81", &square(8.4, 0.69, 0.81), 3),
        ("square 20 s, 0.5/0.95", &square(20.0, 0.5, 0.95), 3),
        ("hum 0.80 +- 0.001", &hum, 0),
    ];
    for (name, wave, expected) in waves {
        let changes = changes_in_a_minute(wave);
        assert_eq!(changes, expected, "{name}");
        assert!(changes <= 4, "{name}");
    }
}

#[test]
fn an_adversary_that_sees_the_mode_gets_no_more_than_four_changes_a_minute() {
    // It calms down until the mode has fallen and strikes at once; three ways
    // to strike, as a step up by one and a step up by two cost the same.
    for strike in [850_000, 950_000, 990_000] {
        for falls_to in [Mode::Normal, Mode::Aggressive] {
            let mut c = controller();
            let mut changes = Vec::new();
            for step in 0..6000 {
                let bytes = if c.mode() > falls_to { 0 } else { strike };
                if c.observe(&sample(ms(step * 100), bytes)).change.is_some() {
                    changes.push(ms(step * 100));
                }
            }
            assert!(
                most_in_a_minute(&changes) <= 4,
                "{strike}, {falls_to}: {changes:?}"
            );
        }
    }
}

/// The most changes any window of 60 s holds, both ends included.
fn most_in_a_minute(changes: &[Duration]) -> usize {
    (0..changes.len())
        .map(|first| {
            changes[first..]
                .iter()
                .filter(|at| **at - changes[first] <= secs(60))
                .count()
        })
        .max()
        .unwrap_or(0)
}

/// Bytes anywhere, and often close to a mark, where modes change.
fn any_bytes() -> impl Strategy<Value = u64> {
    let near = |mark: u64| mark - 2..mark + 2;
    prop_oneof![
        2 => 0..1_200_000u64,
        1 => near(700_000),
        1 => near(800_000),
        1 => near(860_000),
        1 => near(920_000),
        2 => Just(0u64),
        2 => Just(990_000u64),
    ]
}

/// Stretches of equal samples: bytes, how many, and milliseconds between them.
fn any_trace() -> impl Strategy<Value = Vec<(u64, u8, u16)>> {
    vec(
        (
            any_bytes(),
            1..40u8,
            prop_oneof![Just(50u16), Just(250), Just(1000), 0..3000u16],
        ),
        1..120,
    )
}

fn unroll(trace: &[(u64, u8, u16)]) -> Vec<Sample> {
    let mut at = Duration::ZERO;
    let mut samples = Vec::new();
    for &(bytes, count, step_ms) in trace {
        for _ in 0..count {
            at += ms(step_ms.into());
            samples.push(sample(at, bytes));
        }
    }
    samples
}

proptest! {
    #[test]
    fn any_trace_keeps_the_rules(trace in any_trace()) {
        let samples = unroll(&trace);
        let mut c = controller();
        let mut changes = Vec::new();
        let mut trims: Vec<Duration> = Vec::new();
        for sample in &samples {
            let before = c.mode();
            let decision = c.observe(sample);
            prop_assert_eq!(decision.mode, c.mode());
            prop_assert_eq!(decision.change.is_some(), before != c.mode());
            if sample.anonymous_bytes >= 920_000 {
                prop_assert_eq!(c.mode(), Mode::Critical, "within one sample");
            }
            prop_assert!((before, c.mode()) != (Mode::Critical, Mode::Normal), "two steps down");
            if decision.change.is_some() {
                changes.push(sample.at);
            } else {
                prop_assert!(!decision.actions.contains(&Action::RestorePieceCache));
            }
            if decision.actions.contains(&Action::TrimMalloc) {
                if let Some(last) = trims.last() {
                    prop_assert!(sample.at - *last >= secs(30), "trimmed at {last:?} and {:?}", sample.at);
                }
                trims.push(sample.at);
            }
        }
        prop_assert!(most_in_a_minute(&changes) <= 4, "{changes:?}");
    }

    #[test]
    fn calm_ends_in_normal_mode_with_nothing_more_to_do(trace in any_trace(), low in 0..700_000u64) {
        let samples = unroll(&trace);
        let mut c = controller();
        for sample in &samples {
            c.observe(sample);
        }
        // At worst two steps down, each waiting for the budget of a minute.
        let calm_from = samples.last().map_or(Duration::ZERO, |last| last.at);
        let settled = calm_from + secs(125);
        for (_, decision) in hold(&mut c, calm_from, settled, low) {
            prop_assert!(decision.change.is_some(), "asks for {:?} while calm", decision.actions);
        }
        prop_assert_eq!(c.mode(), Mode::Normal);
        let after = hold(&mut c, settled, settled + secs(60), low);
        prop_assert!(after.is_empty(), "{:?}", after);
    }

    #[test]
    fn samples_out_of_order_and_live_thresholds_keep_the_bound(
        steps in vec((any_bytes(), 0..600u64, 0..4u8), 1..400),
    ) {
        let tighter = Thresholds::new(350_000, 400_000, 460_000, 500_000).expect("in order");
        let mut c = controller();
        let mut latest = Duration::ZERO;
        let mut changes = Vec::new();
        for (bytes, at_s, kind) in steps {
            match kind {
                0 => c.set_limits(tighter, 0),
                1 => c.set_limits(marks(), 0),
                _ => {}
            }
            latest = latest.max(secs(at_s));
            if c.observe(&sample(secs(at_s), bytes)).change.is_some() {
                changes.push(latest);
            }
        }
        prop_assert!(most_in_a_minute(&changes) <= 4, "{changes:?}");
    }
}
