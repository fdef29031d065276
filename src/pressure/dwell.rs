//! When a mode may be left: dwell time, back-off and the budget of changes.
//!
//! Two rules, because each lacks what the other has. The dwell time with its
//! back-off keeps ordinary waves from being followed, but a wave slower than
//! the longest dwell passes it. The budget bounds every trace: never more than
//! four changes in any 60 s.
//!
//! Why the budget holds: only steps down are asked for permission, and one is
//! granted only if the changes of the last minute, this one, and all steps up
//! that are possible before the next step down are together within the budget.
//! A minute without a step down has two changes at most (normal, aggressive,
//! critical). For any other minute take its last step down: when it was
//! granted, everything before it in that minute and everything that could
//! still follow was counted.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::pressure::mode::Mode;

/// No minute sees more changes of mode than this.
pub(super) const CHANGES_A_MINUTE: usize = 4;
/// The window over which changes are counted, both ends included.
pub(super) const MINUTE: Duration = Duration::from_secs(60);
/// Coming back up within this time of a step down counts as flapping.
const REENTRY: Duration = Duration::from_secs(30);
/// Without coming back up for this long, flapping is forgotten.
const CALM: Duration = Duration::from_secs(60);
/// The dwell time grows to this many times its configured length.
const FACTOR_MAX: u32 = 8;

/// How long the measure must stay below a mark before a mode is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dwell {
    /// The time without back-off. It grows up to 8 times when modes flap.
    pub base: Duration,
}

impl Default for Dwell {
    /// Two seconds: one kernel pressure window.
    fn default() -> Self {
        Self {
            base: Duration::from_secs(2),
        }
    }
}

/// The dwell time as flapping has made it.
#[derive(Debug)]
pub(super) struct Backoff {
    dwell: Dwell,
    factor: u32,
    last_fall: Option<Duration>,
}

impl Backoff {
    pub(super) fn new(dwell: Dwell) -> Self {
        Self {
            dwell,
            factor: 1,
            last_fall: None,
        }
    }

    /// How long the measure must stay below the mark at present.
    pub(super) fn dwell(&self) -> Duration {
        self.dwell.base.saturating_mul(self.factor)
    }

    /// The mode went up at `now`.
    pub(super) fn rose(&mut self, now: Duration) {
        // Taken, so that going up in two steps counts as one re-entry.
        let Some(fell) = self.last_fall.take() else {
            return;
        };
        let away = now.saturating_sub(fell);
        if away <= REENTRY {
            self.factor = (self.factor * 2).min(FACTOR_MAX);
        } else if away >= CALM {
            self.factor = 1;
        }
    }

    /// The mode went down at `now`.
    pub(super) fn fell(&mut self, now: Duration) {
        self.last_fall = Some(now);
    }
}

/// The changes of the last minute, and whether one more down is affordable.
#[derive(Debug, Default)]
pub(super) struct Budget {
    changes: VecDeque<Duration>,
}

impl Budget {
    /// Whether a step down to `to` leaves room for the steps up after it.
    pub(super) fn affords_step_down(&mut self, to: Mode, now: Duration) -> bool {
        self.forget_before(now);
        let may_follow = match to {
            Mode::Normal => 2,
            Mode::Aggressive => 1,
            Mode::Critical => 0,
        };
        self.changes.len() + 1 + may_follow <= CHANGES_A_MINUTE
    }

    /// Counts a change, in either direction.
    pub(super) fn record(&mut self, now: Duration) {
        self.forget_before(now);
        self.changes.push_back(now);
    }

    fn forget_before(&mut self, now: Duration) {
        while let Some(&oldest) = self.changes.front()
            && now.saturating_sub(oldest) > MINUTE
        {
            self.changes.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn dwell_doubles_on_quick_reentry_up_to_eight_times() {
        let mut backoff = Backoff::new(Dwell::default());
        backoff.rose(secs(0));
        assert_eq!(backoff.dwell(), secs(2), "the first entry is no re-entry");
        for (round, expected) in [4, 8, 16, 16].into_iter().enumerate() {
            let fell = secs(100 * round as u64 + 100);
            backoff.fell(fell);
            backoff.rose(fell + REENTRY);
            assert_eq!(backoff.dwell(), secs(expected));
        }
    }

    #[test]
    fn dwell_is_kept_between_and_reset_after_a_calm_minute() {
        let mut backoff = Backoff::new(Dwell::default());
        backoff.fell(secs(10));
        backoff.rose(secs(20));
        assert_eq!(backoff.dwell(), secs(4));
        backoff.fell(secs(100));
        backoff.rose(secs(145));
        assert_eq!(
            backoff.dwell(),
            secs(4),
            "45 s are neither flapping nor calm"
        );
        backoff.fell(secs(200));
        backoff.rose(secs(260));
        assert_eq!(backoff.dwell(), secs(2));
    }

    #[test]
    fn going_up_in_two_steps_is_one_reentry() {
        let mut backoff = Backoff::new(Dwell::default());
        backoff.fell(secs(10));
        backoff.rose(secs(11));
        backoff.rose(secs(12));
        assert_eq!(backoff.dwell(), secs(4));
    }

    #[test]
    fn a_step_down_leaves_room_for_the_steps_up_after_it() {
        let mut budget = Budget::default();
        budget.record(secs(0));
        assert!(budget.affords_step_down(Mode::Normal, secs(2)));
        budget.record(secs(2));
        assert!(!budget.affords_step_down(Mode::Normal, secs(4)));
        assert!(budget.affords_step_down(Mode::Aggressive, secs(4)));
        budget.record(secs(4));
        assert!(!budget.affords_step_down(Mode::Aggressive, secs(6)));
    }

    #[test]
    fn a_change_exactly_a_minute_ago_still_counts() {
        let mut budget = Budget::default();
        budget.record(secs(0));
        budget.record(secs(1));
        assert!(!budget.affords_step_down(Mode::Normal, secs(60)));
        assert!(budget.affords_step_down(Mode::Normal, secs(60) + Duration::from_nanos(1)));
    }
}
