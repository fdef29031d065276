//! How many of the workers may run, scaled with what is left.
//!
//! A share is given in quarters, so that a size that trembles does not stop and
//! start threads. It falls at once and rises one step a second: what a worker
//! needs is gone as soon as it starts, while the relief of one that rests shows
//! only when it has ended its chunk.

use std::time::Duration;

use crate::pressure::level::Thresholds;

/// Quarters there are.
const STEPS: u8 = 4;
/// A share does not rise faster than by one step in this time.
const RISE_TIME: Duration = Duration::from_secs(1);

/// A share of the workers beside the first, which always runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkerShare(u8);

impl WorkerShare {
    /// All workers.
    pub const ALL: WorkerShare = WorkerShare(STEPS);
    /// The first one only: work goes on, however slowly.
    pub const ONE: WorkerShare = WorkerShare(0);

    /// In percent.
    pub fn percent(self) -> u8 {
        self.0 * (100 / STEPS)
    }

    /// How many that is out of `total`, at least one.
    pub fn of(self, total: usize) -> usize {
        let others = total.saturating_sub(1);
        let steps = usize::from(STEPS);
        // Rounded to the nearest, half up.
        1 + (others / steps * usize::from(self.0))
            + (others % steps * usize::from(self.0) + steps / 2) / steps
    }

    /// The share that what was measured leaves: all at the threshold, one worker at critical.
    fn by_measure(measured_bytes: u64, thresholds: &Thresholds) -> WorkerShare {
        let from = thresholds.threshold_bytes();
        WorkerShare::scaled(measured_bytes, thresholds.critical_bytes(), from)
    }

    /// The share that the room beside us leaves. All down to half of what we need at once, since
    /// caches and read-ahead are given up before workers; one at an eighth.
    fn by_headroom(headroom_bytes: u64, need_bytes: u64) -> WorkerShare {
        WorkerShare::scaled(headroom_bytes, need_bytes / 8, need_bytes / 2)
    }

    /// None at `none` or beyond, all at `all` or beyond, whichever of the two is greater.
    fn scaled(value: u64, none: u64, all: u64) -> WorkerShare {
        let (from_none, range) = if none > all {
            (none.saturating_sub(value), none - all)
        } else {
            (value.saturating_sub(none), all - none)
        };
        if from_none >= range {
            return WorkerShare::ALL;
        }
        let quarters = u128::from(from_none) * u128::from(STEPS) / u128::from(range);
        // Less than STEPS, since `from_none` is less than `range`.
        WorkerShare(u8::try_from(quarters).unwrap_or(STEPS))
    }
}

/// The share in force.
#[derive(Debug)]
pub(super) struct Share {
    share: WorkerShare,
    risen_at: Duration,
}

impl Default for Share {
    fn default() -> Self {
        Self {
            share: WorkerShare::ALL,
            risen_at: Duration::ZERO,
        }
    }
}

impl Share {
    pub(super) fn get(&self) -> WorkerShare {
        self.share
    }

    /// Everything again, as in normal mode; whether that is new.
    pub(super) fn lift(&mut self) -> bool {
        let before = std::mem::replace(&mut self.share, WorkerShare::ALL);
        before != WorkerShare::ALL
    }

    /// Follows what was seen at `now`; the share if it changed.
    pub(super) fn follow(
        &mut self,
        now: Duration,
        measured_bytes: u64,
        thresholds: &Thresholds,
        headroom_and_need: Option<(u64, u64)>,
    ) -> Option<WorkerShare> {
        let by_headroom = headroom_and_need.map_or(WorkerShare::ALL, |(headroom, need)| {
            WorkerShare::by_headroom(headroom, need)
        });
        let wanted = WorkerShare::by_measure(measured_bytes, thresholds).min(by_headroom);
        if wanted < self.share {
            self.share = wanted;
            self.risen_at = now;
        } else if wanted > self.share && now.saturating_sub(self.risen_at) >= RISE_TIME {
            self.share = WorkerShare(self.share.0 + 1);
            self.risen_at = now;
        } else {
            return None;
        }
        Some(self.share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks() -> Thresholds {
        Thresholds::new(70, 80, 100, 120).expect("in order")
    }

    #[test]
    fn a_share_of_the_workers_is_never_none_and_never_more_than_all() {
        for total in [0, 1, 2, 3, 5, 8, 64] {
            assert_eq!(WorkerShare::ONE.of(total), 1);
            assert_eq!(WorkerShare::ALL.of(total), total.max(1));
        }
        let of = |total| [0, 1, 2, 3, 4].map(|quarters| WorkerShare(quarters).of(total));
        assert_eq!(of(2), [1, 1, 2, 2, 2]);
        assert_eq!(of(5), [1, 2, 3, 4, 5]);
        assert_eq!(of(9), [1, 3, 5, 7, 9]);
    }

    #[test]
    fn the_share_falls_from_the_threshold_to_critical() {
        let at = |bytes| WorkerShare::by_measure(bytes, &marks()).percent();
        assert_eq!(
            [0, 80, 81, 85, 90, 95, 99, 100, 500].map(at),
            [100, 100, 75, 75, 50, 25, 0, 0, 0]
        );
    }

    #[test]
    fn headroom_costs_workers_only_below_half_of_the_need() {
        let at = |headroom| WorkerShare::by_headroom(headroom, 80).percent();
        assert_eq!(
            [200, 40, 39, 25, 11, 10, 0].map(at),
            [100, 100, 75, 50, 0, 0, 0]
        );
        assert_eq!(WorkerShare::by_headroom(0, 0), WorkerShare::ALL);
    }

    #[test]
    fn the_share_falls_at_once_and_rises_a_step_a_second() {
        let mut share = Share::default();
        let secs = Duration::from_secs;
        assert_eq!(
            share.follow(secs(1), 100, &marks(), None),
            Some(WorkerShare::ONE)
        );
        assert_eq!(share.follow(secs(1), 0, &marks(), None), None);
        let risen: Vec<_> = (1..=20)
            .filter_map(|quarter| {
                let at = secs(1) + Duration::from_millis(quarter * 250);
                Some((
                    at.as_millis(),
                    share.follow(at, 0, &marks(), None)?.percent(),
                ))
            })
            .collect();
        assert_eq!(risen, [(2000, 25), (3000, 50), (4000, 75), (5000, 100)]);
    }
}
