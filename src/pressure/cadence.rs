//! When to look again.
//!
//! The interval is the time the measure would take to the next mark if it grew
//! as fast as memory is written, so that no growth passes a mark unseen for
//! long, and a process far from its marks is hardly looked at. Two things make
//! it shorter: a first sample above a mark, which waits to be confirmed, and
//! growth that is really seen, whose path is halved with each sample.

use std::time::Duration;

use crate::pressure::level::Thresholds;
use crate::pressure::mode::Mode;

/// What a process is assumed to grow by at most, in bytes a second: twice what
/// one core writes into fresh pages.
const FASTEST_GROWTH: u64 = 2 << 30;
/// Growth from which it counts as such, in bytes a second.
const SEEN_GROWTH: u64 = 64 << 20;
/// Between samples of a process that grows towards a mark, or that is to be confirmed.
const SHORTEST: Duration = Duration::from_millis(4);
/// The least between samples of a process that does not grow, close to a mark: what is left of the 25 ms
/// in which the first byte is to be given back, when the sample to confirm, waking up and giving back
/// are taken off.
const STEADY: Duration = Duration::from_millis(16);
/// Between samples in critical mode, where all is done that can be.
const CRITICAL: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);
/// The same while something is being given back or was imposed.
const LONGEST_IN_RELIEF: Duration = Duration::from_millis(250);

/// The latest sample, as far as it tells how fast the measure grows.
#[derive(Debug, Default)]
pub(super) struct Cadence {
    last: Option<(Duration, u64)>,
}

impl Cadence {
    /// How long to wait after this sample. `unconfirmed` is a sample above the
    /// threshold that has not changed the mode yet.
    pub(super) fn next(
        &mut self,
        now: Duration,
        measured_bytes: u64,
        thresholds: &Thresholds,
        mode: Mode,
        unconfirmed: bool,
    ) -> Duration {
        let before = self.last.replace((now, measured_bytes));
        if unconfirmed {
            return SHORTEST;
        }
        if mode == Mode::Critical {
            return CRITICAL;
        }
        let mark_bytes = match mode {
            Mode::Normal => thresholds.threshold_bytes(),
            _ => thresholds.critical_bytes(),
        };
        let distance_bytes = mark_bytes.saturating_sub(measured_bytes);
        let longest = match mode {
            Mode::Normal => LONGEST,
            _ => LONGEST_IN_RELIEF,
        };
        let steady = time_for(distance_bytes, FASTEST_GROWTH).clamp(STEADY, longest);
        match before.and_then(|before| growth(before, (now, measured_bytes))) {
            Some(growth) if growth >= SEEN_GROWTH => {
                steady.min((time_for(distance_bytes, growth) / 2).max(SHORTEST))
            }
            _ => steady,
        }
    }
}

/// In bytes a second, if it grew.
fn growth(before: (Duration, u64), now: (Duration, u64)) -> Option<u64> {
    let micros = now.0.checked_sub(before.0)?.as_micros().max(1);
    let grown = u128::from(now.1.checked_sub(before.1)?);
    Some(u64::try_from(grown * 1_000_000 / micros).unwrap_or(u64::MAX))
}

/// How long `bytes` take at so many a second.
fn time_for(bytes: u64, bytes_a_second: u64) -> Duration {
    let micros = u128::from(bytes) * 1_000_000 / u128::from(bytes_a_second.max(1));
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn marks() -> Thresholds {
        Thresholds::new(800 * MIB, 1024 * MIB, 1200 * MIB, 1400 * MIB).expect("in order")
    }

    fn once(measured_bytes: u64, mode: Mode) -> u128 {
        let next = Cadence::default().next(Duration::ZERO, measured_bytes, &marks(), mode, false);
        next.as_millis()
    }

    #[test]
    fn the_nearer_to_a_mark_the_sooner() {
        assert_eq!(once(0, Mode::Normal), 500);
        assert_eq!(once(512 * MIB, Mode::Normal), 250);
        assert_eq!(once(1000 * MIB, Mode::Normal), 16);
        assert_eq!(once(u64::MAX, Mode::Normal), 16);
        assert_eq!(once(512 * MIB, Mode::Aggressive), 250);
        assert_eq!(once(1100 * MIB, Mode::Aggressive), 48);
        assert_eq!(once(0, Mode::Critical), 50);
    }

    /// At 1 GiB a second no more than 25 ms of growth are past the threshold when it is seen.
    #[test]
    fn growth_is_met_at_the_mark() {
        for start_us in (0..500_000).step_by(1_777) {
            let mut cadence = Cadence::default();
            let (mut at_us, mut seen) = (0, 0);
            while seen < 1024 * MIB {
                let at = Duration::from_micros(at_us);
                seen = (at_us.saturating_sub(start_us) * 1074).min(4096 * MIB);
                let next = cadence.next(at, seen, &marks(), Mode::Normal, false);
                at_us += u64::try_from(next.as_micros()).expect("short");
            }
            let late_ms = (seen - 1024 * MIB) / (1_074_000);
            assert!(late_ms <= 21, "{late_ms} ms after a start at {start_us} us");
        }
    }

    #[test]
    fn a_sample_to_be_confirmed_is_followed_at_once() {
        let next = Cadence::default().next(Duration::ZERO, 0, &marks(), Mode::Normal, true);
        assert_eq!(next, SHORTEST);
    }
}
