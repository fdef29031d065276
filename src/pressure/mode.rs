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

use serde::{Deserialize, Serialize};

use crate::pressure::action::{Action, Relief};
use crate::pressure::cadence::Cadence;
use crate::pressure::dwell::{Backoff, Budget, Dwell};
use crate::pressure::level::{Level, Thresholds};
use crate::pressure::reading::Reader;
use crate::pressure::reason::Reason;
use crate::pressure::sample::{Measure, Sample};
use crate::pressure::share::{Share, WorkerShare};
use crate::pressure::size::percent_of;

/// Samples in a row at or above the threshold that make the mode aggressive.
/// A single one may be a buffer about to be dropped.
const SAMPLES_TO_ENTER: u8 = 2;
/// Others are heeded from this share of the threshold on, in percent: below it
/// there is nothing worth giving.
const WORTH_PERCENT: u8 = 60;
/// Slow reads count if no more than this many times the need is left around us.
const TIGHT_TIMES: u64 = 4;
/// Jobs are failed at this share of the limit, in percent, if nothing is left
/// to give up,
const STUCK_PERCENT: u8 = 95;
/// nothing worth it is on its way back, in bytes,
const STUCK_BYTES: u64 = 1 << 20;
/// and that lasts this long.
const STUCK_TIME: Duration = Duration::from_secs(10);

/// What filed does about memory. Modes are ordered: a greater one does more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Memory is used freely, to be faster.
    Normal,
    /// Memory is given back, fewer workers go on.
    Aggressive,
    /// Everything that can be missed is dropped; how many workers go on is a
    /// matter of what is left, at the least one.
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

/// The answer to one sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What the sample says by itself.
    pub level: Level,
    /// The mode from now on.
    pub mode: Mode,
    /// How it came to be, if this sample changed it.
    pub change: Option<Change>,
    /// What to do now, in this order.
    pub actions: Vec<Action>,
    /// How long to wait before the next sample.
    pub next_sample_in: Duration,
}

/// What a controller judges by, all but the clock and the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// The marks samples are compared with.
    pub thresholds: Thresholds,
    /// The size that is compared with them.
    pub measure: Measure,
    /// How long the measure must stay low before a mode is left.
    pub dwell: Dwell,
    /// What work takes at once if nothing holds it back, in bytes: with less
    /// room than that around us it is critical, with less than twice as much
    /// high. 0 judges by the measure only.
    pub need_bytes: u64,
}

impl Rules {
    /// Resident memory is compared with the marks, and nothing else counts.
    pub fn of_resident(thresholds: Thresholds) -> Self {
        Self {
            thresholds,
            measure: Measure::Rss,
            dwell: Dwell::default(),
            need_bytes: 0,
        }
    }
}

/// Turns samples into modes and actions.
#[derive(Debug)]
pub struct Controller {
    rules: Rules,
    mode: Mode,
    backoff: Backoff,
    budget: Budget,
    /// The time of the latest sample; one from before it counts as taken then.
    now: Duration,
    /// Samples in a row at or above the threshold.
    high_samples: u8,
    /// Since when nothing has spoken against leaving the mode.
    calm_since: Option<Duration>,
    /// Since when nothing was left to give up and it was still not enough.
    stuck_since: Option<Duration>,
    share: Share,
    reader: Reader,
    cadence: Cadence,
    relief: Relief,
}

impl Controller {
    /// Starts in normal mode.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            mode: Mode::Normal,
            backoff: Backoff::new(rules.dwell),
            budget: Budget::default(),
            now: Duration::ZERO,
            high_samples: 0,
            calm_since: None,
            stuck_since: None,
            share: Share::default(),
            reader: Reader::default(),
            cadence: Cadence::default(),
            relief: Relief::default(),
        }
    }

    /// The present mode.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The share of the workers that may run at present.
    pub fn share(&self) -> WorkerShare {
        self.share.get()
    }

    /// What samples are judged by at present.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The marks samples are compared with at present.
    pub fn thresholds(&self) -> &Thresholds {
        &self.rules.thresholds
    }

    /// Judges by other marks and another need from now on. The mode stays until
    /// a sample changes it; what was counted against the old marks is
    /// forgotten, but neither the budget of changes nor how long it has been calm:
    /// the next sample is compared with the new marks, and ends that if it must.
    pub fn set_limits(&mut self, thresholds: Thresholds, need_bytes: u64) {
        if (self.rules.thresholds, self.rules.need_bytes) == (thresholds, need_bytes) {
            return;
        }
        self.rules.thresholds = thresholds;
        self.rules.need_bytes = need_bytes;
        self.high_samples = 0;
        self.stuck_since = None;
    }

    /// Whether enough came back for the rest of a relief to be left out.
    pub fn is_enough(&self, sample: &Sample) -> bool {
        !sample.slow_reads && self.mark_if_calm(Mode::Normal, sample).is_some()
    }

    /// Decides what `sample` means.
    pub fn observe(&mut self, sample: &Sample) -> Decision {
        self.now = self.now.max(sample.at);
        let measured_bytes = sample.measured_bytes(self.rules.measure);
        let (critical, high) = (self.critical(sample), self.high(sample));
        let level = match (critical, high) {
            (Some(_), _) => Level::Critical,
            (None, Some(_)) => Level::High,
            (None, None) => Level::Normal,
        };
        let change = self.next_change(sample, critical, high);
        let mut actions = Vec::new();
        if let Some(change) = &change {
            self.enter(change);
            if self.mode == Mode::Normal {
                self.share.lift();
            }
        }
        let headroom = self.headroom(sample);
        let reading = self.reader.follow(self.now, self.mode, headroom);
        if self.mode > Mode::Normal {
            let thresholds = &self.rules.thresholds;
            let share = self
                .share
                .follow(self.now, measured_bytes, thresholds, headroom);
            actions.extend(share.map(Action::LimitWorkers));
        }
        actions.extend(reading.map(Action::ReadFiles));
        match &change {
            Some(change) => {
                actions.extend(self.relief.on_change(self.now, measured_bytes, change));
            }
            None if self.mode == Mode::Normal => {}
            None => actions.extend(self.relief.again(
                self.now,
                measured_bytes,
                sample,
                self.is_enough(sample),
                &self.rules.thresholds,
            )),
        }
        if self.is_stuck(sample) {
            actions.push(Action::FailJobs);
        }
        let unconfirmed = self.mode == Mode::Normal && self.high_samples > 0;
        let thresholds = &self.rules.thresholds;
        let next_sample_in =
            self.cadence
                .next(self.now, measured_bytes, thresholds, self.mode, unconfirmed);
        Decision {
            level,
            mode: self.mode,
            change,
            actions,
            next_sample_in,
        }
    }

    /// The room around us and what is needed of it, where both are known.
    fn headroom(&self, sample: &Sample) -> Option<(u64, u64)> {
        let need_bytes = self.rules.need_bytes;
        sample
            .headroom_bytes
            .filter(|_| need_bytes > 0)
            .map(|headroom_bytes| (headroom_bytes, need_bytes))
    }

    /// Why it is critical, if it is.
    fn critical(&self, sample: &Sample) -> Option<Reason> {
        let measured_bytes = sample.measured_bytes(self.rules.measure);
        let critical_bytes = self.rules.thresholds.critical_bytes();
        if measured_bytes >= critical_bytes {
            return Some(Reason::AtCritical {
                measured_bytes,
                critical_bytes,
            });
        }
        if sample.oom_killed {
            return Some(Reason::OomKilled);
        }
        self.less_headroom_than(1, sample)
    }

    /// Why it is high, if it is.
    fn high(&self, sample: &Sample) -> Option<Reason> {
        let measured_bytes = sample.measured_bytes(self.rules.measure);
        let threshold_bytes = self.rules.thresholds.threshold_bytes();
        if measured_bytes >= threshold_bytes {
            return Some(Reason::AtThreshold {
                measured_bytes,
                threshold_bytes,
            });
        }
        self.less_headroom_than(2, sample)
    }

    /// Why it is high without a second sample, if it is: somebody who sees more
    /// than we do says so, and there is something to give.
    fn urgent(&self, sample: &Sample) -> Option<Reason> {
        let measured_bytes = sample.measured_bytes(self.rules.measure);
        let threshold_bytes = self.rules.thresholds.threshold_bytes();
        if measured_bytes < percent_of(threshold_bytes, WORTH_PERCENT) {
            return None;
        }
        if sample.notified {
            return Some(Reason::Notified { measured_bytes });
        }
        // A slow disk is none of our business; one that is slow where room is short is.
        let is_tight = self
            .headroom(sample)
            .is_some_and(|(headroom, need)| headroom < need.saturating_mul(TIGHT_TIMES));
        (sample.slow_reads && is_tight).then_some(Reason::SlowReads { measured_bytes })
    }

    fn less_headroom_than(&self, times: u64, sample: &Sample) -> Option<Reason> {
        let (headroom_bytes, need_bytes) = self.headroom(sample)?;
        let wanted_bytes = need_bytes.saturating_mul(times);
        (headroom_bytes < wanted_bytes).then_some(Reason::LittleHeadroom {
            headroom_bytes,
            wanted_bytes,
        })
    }

    fn next_change(
        &mut self,
        sample: &Sample,
        critical: Option<Reason>,
        high: Option<Reason>,
    ) -> Option<Change> {
        self.high_samples = if critical.is_some() || high.is_some() {
            self.high_samples.saturating_add(1)
        } else {
            0
        };
        let confirmed = high.filter(|_| self.high_samples >= SAMPLES_TO_ENTER);
        let (to, why) = match self.mode {
            Mode::Normal => match (critical, self.urgent(sample).or(confirmed)) {
                (Some(why), _) => (Mode::Critical, why),
                (None, Some(why)) => (Mode::Aggressive, why),
                (None, None) => return None,
            },
            Mode::Aggressive => match critical {
                Some(why) => (Mode::Critical, why),
                None => (Mode::Normal, self.may_leave(Mode::Normal, sample)?),
            },
            Mode::Critical => {
                if critical.is_some() {
                    self.calm_since = None;
                    return None;
                }
                (Mode::Aggressive, self.may_leave(Mode::Aggressive, sample)?)
            }
        };
        Some(Change {
            from: self.mode,
            to,
            why,
        })
    }

    /// The mark the measure is below, if nothing speaks against going down to `to`.
    fn mark_if_calm(&self, to: Mode, sample: &Sample) -> Option<u64> {
        let thresholds = &self.rules.thresholds;
        // In halves of what is needed: more than what made us rise, so that the
        // same room does not do both.
        let (mark_bytes, halves) = match to {
            Mode::Normal => (thresholds.resume_bytes(), 5),
            Mode::Aggressive | Mode::Critical => (thresholds.leave_critical_bytes(), 3),
        };
        let has_room = self.headroom(sample).is_none_or(|(headroom, need)| {
            headroom.saturating_mul(2) >= need.saturating_mul(halves)
        });
        let is_told = sample.notified || sample.oom_killed;
        let is_low = sample.measured_bytes(self.rules.measure) < mark_bytes;
        (is_low && has_room && !is_told).then_some(mark_bytes)
    }

    /// Why the mode may be left for the lower mode `to`, if it may.
    fn may_leave(&mut self, to: Mode, sample: &Sample) -> Option<Reason> {
        let Some(mark_bytes) = self.mark_if_calm(to, sample) else {
            self.calm_since = None;
            return None;
        };
        let since = *self.calm_since.get_or_insert(self.now);
        let lasted = self.now.saturating_sub(since);
        let may = lasted >= self.backoff.dwell() && self.budget.affords_step_down(to, self.now);
        may.then_some(Reason::StayedBelow {
            measured_bytes: sample.measured_bytes(self.rules.measure),
            mark_bytes,
            lasted,
        })
    }

    /// Whether nothing is left to give up and it has not been enough for long.
    fn is_stuck(&mut self, sample: &Sample) -> bool {
        let limit_bytes = self.rules.thresholds.limit_bytes();
        let measured_bytes = sample.measured_bytes(self.rules.measure);
        let at_limit = self.mode == Mode::Critical
            && self.share.get() == WorkerShare::ONE
            && sample.in_flight_bytes < STUCK_BYTES
            && measured_bytes >= percent_of(limit_bytes, STUCK_PERCENT);
        if !at_limit {
            self.stuck_since = None;
            return false;
        }
        let since = *self.stuck_since.get_or_insert(self.now);
        let is_stuck = self.now.saturating_sub(since) >= STUCK_TIME;
        if is_stuck {
            self.stuck_since = Some(self.now);
        }
        is_stuck
    }

    fn enter(&mut self, change: &Change) {
        self.mode = change.to;
        self.calm_since = None;
        self.budget.record(self.now);
        if change.to > change.from {
            self.backoff.rose(self.now);
        } else {
            self.backoff.fell(self.now);
        }
    }
}

#[cfg(test)]
mod tests;
