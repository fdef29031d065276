//! What filed does about memory, decided one sample at a time.
//!
//! The [`Controller`] is fed samples and answers each with the mode, the change
//! if there is one, and what to do now. It has no clock and does nothing
//! itself: the same samples always give the same decisions.
//!
//! What must hold on any sequence of samples, and is tested on random ones:
//! critical mode follows the first critical sample; modes are left one at a
//! time; no minute sees more than four changes; and once the measure stays low
//! the mode becomes normal and nothing more is asked for.

use std::fmt;
use std::time::Duration;

use crate::pressure::action::{Action, Relief};
use crate::pressure::dwell::{Backoff, Budget, Dwell};
use crate::pressure::level::{Level, Thresholds};
use crate::pressure::sample::{Measure, Sample};
use crate::pressure::size::Size;

/// Samples in a row at or above the threshold that make the mode aggressive.
/// A single one may be a buffer about to be dropped.
const SAMPLES_TO_ENTER: u8 = 2;
/// What filed does about memory. Modes are ordered: a greater one does more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Memory is used freely, to be faster.
    Normal,
    /// Memory is given back, work goes on with half the workers.
    Aggressive,
    /// Everything that can be missed is dropped, one worker goes on.
    Critical,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Mode::Normal => "normal",
            Mode::Aggressive => "aggressive",
            Mode::Critical => "critical",
        })
    }
}

/// A step from one mode to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The mode that was left.
    pub from: Mode,
    /// The mode that was entered.
    pub to: Mode,
    /// The numbers that caused it.
    pub why: Reason,
}

/// The numbers that caused a change of mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Two samples in a row were at or above the threshold.
    AtThreshold {
        /// What the last of them measured, in bytes.
        measured_bytes: u64,
        /// The threshold, in bytes.
        threshold_bytes: u64,
    },
    /// One sample was at or above critical.
    AtCritical {
        /// What it measured, in bytes.
        measured_bytes: u64,
        /// The critical mark, in bytes.
        critical_bytes: u64,
    },
    /// The measure stayed below the mark for leaving the mode.
    StayedBelow {
        /// What the last sample measured, in bytes.
        measured_bytes: u64,
        /// The mark, in bytes.
        mark_bytes: u64,
        /// How long it stayed below.
        lasted: Duration,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Reason::AtThreshold {
                measured_bytes,
                threshold_bytes,
            } => write!(
                f,
                "{} reached the threshold of {}",
                Size(measured_bytes),
                Size(threshold_bytes)
            ),
            Reason::AtCritical {
                measured_bytes,
                critical_bytes,
            } => write!(
                f,
                "{} reached the critical mark of {}",
                Size(measured_bytes),
                Size(critical_bytes)
            ),
            Reason::StayedBelow {
                measured_bytes,
                mark_bytes,
                lasted,
            } => write!(
                f,
                "{} after {:.1} s below {}",
                Size(measured_bytes),
                lasted.as_secs_f64(),
                Size(mark_bytes)
            ),
        }
    }
}

/// The answer to one sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The mode from now on.
    pub mode: Mode,
    /// How it came to be, if this sample changed it.
    pub change: Option<Change>,
    /// What to do now, in this order.
    pub actions: Vec<Action>,
    /// How long to wait before the next sample.
    pub next_sample_in: Duration,
}

/// Turns samples into modes and actions.
#[derive(Debug)]
pub struct Controller {
    thresholds: Thresholds,
    measure: Measure,
    mode: Mode,
    backoff: Backoff,
    budget: Budget,
    /// The time of the latest sample; one from before it counts as taken then.
    now: Duration,
    /// Samples in a row at or above the threshold.
    high_samples: u8,
    /// Since when the measure has been below the mark for leaving the mode.
    below_since: Option<Duration>,
    relief: Relief,
}

impl Controller {
    /// Starts in normal mode, comparing `measure` of each sample with
    /// `thresholds`.
    pub fn new(thresholds: Thresholds, measure: Measure, dwell: Dwell) -> Self {
        Self {
            thresholds,
            measure,
            mode: Mode::Normal,
            backoff: Backoff::new(dwell),
            budget: Budget::default(),
            now: Duration::ZERO,
            high_samples: 0,
            below_since: None,
            relief: Relief::default(),
        }
    }

    /// The present mode.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The marks samples are compared with at present.
    pub fn thresholds(&self) -> &Thresholds {
        &self.thresholds
    }

    /// Compares samples with other marks from now on. The mode stays until a
    /// sample changes it; what was counted against the old marks is forgotten,
    /// but the budget of changes is not.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.thresholds = thresholds;
        self.high_samples = 0;
        self.below_since = None;
    }

    /// Decides what `sample` means.
    pub fn observe(&mut self, sample: &Sample) -> Decision {
        self.now = self.now.max(sample.at);
        let measured_bytes = sample.measured_bytes(self.measure);
        let change = self.next_change(measured_bytes);
        let actions = match &change {
            Some(change) => self.enter(change, measured_bytes),
            None if self.mode == Mode::Normal => Vec::new(),
            None => self
                .relief
                .again(self.now, measured_bytes, &self.thresholds),
        };
        Decision {
            mode: self.mode,
            change,
            actions,
            next_sample_in: sampling_interval(measured_bytes, &self.thresholds),
        }
    }

    fn next_change(&mut self, measured_bytes: u64) -> Option<Change> {
        let level = self.thresholds.level(measured_bytes);
        self.high_samples = match level {
            Level::Normal => 0,
            Level::High | Level::Critical => self.high_samples.saturating_add(1),
        };
        let (to, why) = match (level, self.mode) {
            (Level::Critical, Mode::Normal | Mode::Aggressive) => (
                Mode::Critical,
                Reason::AtCritical {
                    measured_bytes,
                    critical_bytes: self.thresholds.critical_bytes(),
                },
            ),
            (_, Mode::Normal) if self.high_samples >= SAMPLES_TO_ENTER => (
                Mode::Aggressive,
                Reason::AtThreshold {
                    measured_bytes,
                    threshold_bytes: self.thresholds.threshold_bytes(),
                },
            ),
            (_, Mode::Normal) => return None,
            (_, Mode::Aggressive) => {
                let mark_bytes = self.thresholds.resume_bytes();
                (
                    Mode::Normal,
                    self.may_leave(Mode::Normal, mark_bytes, measured_bytes)?,
                )
            }
            (_, Mode::Critical) => {
                let mark_bytes = self.thresholds.leave_critical_bytes();
                (
                    Mode::Aggressive,
                    self.may_leave(Mode::Aggressive, mark_bytes, measured_bytes)?,
                )
            }
        };
        Some(Change {
            from: self.mode,
            to,
            why,
        })
    }

    /// Why the mode may be left for the lower mode `to`, if it may.
    fn may_leave(&mut self, to: Mode, mark_bytes: u64, measured_bytes: u64) -> Option<Reason> {
        if measured_bytes >= mark_bytes {
            self.below_since = None;
            return None;
        }
        let since = *self.below_since.get_or_insert(self.now);
        let lasted = self.now.saturating_sub(since);
        let may = lasted >= self.backoff.dwell() && self.budget.affords_step_down(to, self.now);
        may.then_some(Reason::StayedBelow {
            measured_bytes,
            mark_bytes,
            lasted,
        })
    }

    fn enter(&mut self, change: &Change, measured_bytes: u64) -> Vec<Action> {
        self.mode = change.to;
        self.below_since = None;
        self.budget.record(self.now);
        if change.to > change.from {
            self.backoff.rose(self.now);
        } else {
            self.backoff.fell(self.now);
        }
        self.relief.on_change(self.now, measured_bytes, change)
    }
}

/// How soon to look again: the nearer to the threshold, the sooner.
fn sampling_interval(measured_bytes: u64, thresholds: &Thresholds) -> Duration {
    let measured = u128::from(measured_bytes) * 100;
    let threshold = u128::from(thresholds.threshold_bytes());
    let millis = if measured < threshold * 50 {
        1000
    } else if measured < threshold * 80 {
        250
    } else {
        50
    };
    Duration::from_millis(millis)
}

#[cfg(test)]
mod tests;
