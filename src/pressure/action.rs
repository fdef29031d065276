//! What can be done about pressure, as values.
//!
//! An action says what to let go of, never how: whoever holds the thing knows.
//! Each is safe to carry out twice, so a repeated or late one does no harm.

use std::fmt;
use std::time::Duration;

use crate::pressure::level::Thresholds;
use crate::pressure::mode::{Change, Mode};
use crate::pressure::reading::FileReading;
use crate::pressure::sample::Sample;
use crate::pressure::share::WorkerShare;
use crate::pressure::size::percent_of;

/// How long relief is given to show before more is asked for.
const RELIEF_TIME: Duration = Duration::from_millis(500);
/// The share of the threshold the measure must fall by in that time.
const RELIEF_PERCENT: u8 = 5;
/// So much that is free is asked for at once.
const IDLE_BYTES: u64 = 1 << 20;
/// malloc is not trimmed more often than this.
const TRIM_INTERVAL: Duration = Duration::from_secs(30);

/// One thing that gives memory back, or keeps it from being taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Let this share of the workers run from the next chunk on.
    LimitWorkers(WorkerShare),
    /// Read files this way from the next chunk on.
    ReadFiles(FileReading),
    /// Compress at the level with the smallest contexts, or again as configured.
    CompressLightly(Switch),
    /// Free the compression contexts that no worker is using.
    DropIdleContexts,
    /// Shrink the cache of known pieces.
    ShrinkPieceCache(CacheCut),
    /// Let the cache of known pieces grow again as configured.
    RestorePieceCache,
    /// Collect all generations of all heaps, at once.
    CollectAll,
    /// Say when heaps collect from now on.
    PaceCollections(Pace),
    /// Have the database free its cached pages.
    ShrinkDatabase,
    /// Return the pages of idle heap segments to the kernel.
    ReturnIdleSegments,
    /// Have malloc return its free pages. Slow: not on a worker's thread.
    TrimMalloc,
    /// Fail the jobs that run: they do not fit, and the process is to live.
    FailJobs,
}

impl Action {
    /// Whether it may be left out once enough came back: it costs time, or
    /// what it lets go of is missed later. Settings that last may not.
    pub fn is_optional(self) -> bool {
        match self {
            Action::ShrinkPieceCache(_)
            | Action::CollectAll
            | Action::ShrinkDatabase
            | Action::DropIdleContexts
            | Action::ReturnIdleSegments
            | Action::TrimMalloc => true,
            Action::LimitWorkers(_)
            | Action::ReadFiles(_)
            | Action::CompressLightly(_)
            | Action::RestorePieceCache
            | Action::PaceCollections(_)
            | Action::FailJobs => false,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::LimitWorkers(share) => {
                return write!(f, "{} % of the workers beside the first", share.percent());
            }
            Action::ReadFiles(FileReading::Ahead) => "read ahead",
            Action::ReadFiles(FileReading::Near) => "read a little ahead",
            Action::ReadFiles(FileReading::Lean) => "read without reading ahead",
            Action::ReadFiles(FileReading::Direct) => "read past the page cache",
            Action::CompressLightly(Switch::On) => "compress lightly",
            Action::CompressLightly(Switch::Off) => "compress as configured",
            Action::DropIdleContexts => "drop idle contexts",
            Action::ShrinkPieceCache(CacheCut::Half) => "halve the piece cache",
            Action::ShrinkPieceCache(CacheCut::All) => "empty the piece cache",
            Action::RestorePieceCache => "let the piece cache grow",
            Action::CollectAll => "collect all",
            Action::PaceCollections(Pace::ByAllocation) => "collect by allocation",
            Action::PaceCollections(Pace::EveryTenChunks) => "collect every ten chunks",
            Action::ShrinkDatabase => "shrink the database",
            Action::ReturnIdleSegments => "return idle segments",
            Action::TrimMalloc => "trim malloc",
            Action::FailJobs => "fail the jobs",
        })
    }
}

/// Whether a lasting measure is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// From now on.
    On,
    /// No longer.
    Off,
}

/// When heaps collect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// When so much was allocated that it is worth it.
    ByAllocation,
    /// Besides, the young generation every ten chunks.
    EveryTenChunks,
}

/// How much of a cache to let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheCut {
    /// The less useful half.
    Half,
    /// Everything.
    All,
}

/// What a change of mode asks for, in the order it should be done, beside the
/// share of the workers and the way of reading, which follow each sample.
///
/// Going up, first what stops growth, then what lets go of memory, cheapest
/// first; free pages are handed to the kernel before anything is let go of that
/// would be missed, and again after. Going down only lifts what was imposed.
pub fn for_change(change: &Change) -> Vec<Action> {
    let rises = change.to > change.from;
    match change.to {
        Mode::Critical => {
            let mut actions = vec![Action::CompressLightly(Switch::On)];
            actions.extend(relief(CacheCut::All));
            actions
        }
        Mode::Aggressive if rises => relief(CacheCut::Half).to_vec(),
        Mode::Aggressive => vec![Action::CompressLightly(Switch::Off)],
        Mode::Normal => vec![
            Action::LimitWorkers(WorkerShare::ALL),
            Action::CompressLightly(Switch::Off),
            Action::RestorePieceCache,
            Action::PaceCollections(Pace::ByAllocation),
        ],
    }
}

fn relief(cut: CacheCut) -> [Action; 8] {
    [
        Action::ReturnIdleSegments,
        Action::ShrinkPieceCache(cut),
        Action::CollectAll,
        Action::PaceCollections(Pace::EveryTenChunks),
        Action::ShrinkDatabase,
        Action::DropIdleContexts,
        Action::ReturnIdleSegments,
        Action::TrimMalloc,
    ]
}

/// What was asked for so far, as far as it decides what to ask for next.
#[derive(Debug, Default)]
pub(super) struct Relief {
    /// When relief was last asked for or seen to work, and the bytes then.
    last: Option<(Duration, u64)>,
    trimmed_at: Option<Duration>,
    /// Whether the caches were let go of since the last change of mode.
    emptied: bool,
}

impl Relief {
    /// What a change of mode at `now` asks for, without a malloc trim that
    /// would follow too soon on the one before.
    pub(super) fn on_change(
        &mut self,
        now: Duration,
        measured_bytes: u64,
        change: &Change,
    ) -> Vec<Action> {
        self.last = Some((now, measured_bytes));
        self.emptied = change.to == Mode::Critical;
        let mut actions = for_change(change);
        let may_trim = self.may_trim(now);
        actions.retain(|action| *action != Action::TrimMalloc || may_trim);
        if actions.contains(&Action::TrimMalloc) {
            self.trimmed_at = Some(now);
        }
        actions
    }

    /// What to ask for again while a mode lasts, because the relief before did
    /// not show, or because somebody asks again. `is_calm` says that there is
    /// enough of everything: then the work is done, and starts anew if that
    /// changes. Nothing while what is still on its way would do. What is free
    /// already is not waited for: workers that went to rest have left it.
    pub(super) fn again(
        &mut self,
        now: Duration,
        measured_bytes: u64,
        sample: &Sample,
        is_calm: bool,
        thresholds: &Thresholds,
    ) -> Vec<Action> {
        if is_calm {
            self.emptied = false;
            self.last = Some((now, measured_bytes));
            return Vec::new();
        }
        if sample.idle_bytes >= IDLE_BYTES {
            return vec![Action::ReturnIdleSegments];
        }
        let Some((at, before_bytes)) = self.last else {
            return Vec::new();
        };
        let is_high = measured_bytes >= thresholds.resume_bytes();
        let when_all_is_back = measured_bytes.saturating_sub(sample.in_flight_bytes);
        let is_on_its_way = is_high && when_all_is_back < thresholds.resume_bytes();
        if now.saturating_sub(at) < RELIEF_TIME || is_on_its_way {
            return Vec::new();
        }
        self.last = Some((now, measured_bytes));
        let enough_bytes = percent_of(thresholds.threshold_bytes(), RELIEF_PERCENT).max(1);
        if before_bytes.saturating_sub(measured_bytes) >= enough_bytes {
            return Vec::new();
        }
        let is_asked = sample.notified || sample.oom_killed;
        let mut actions = vec![Action::ReturnIdleSegments];
        if !self.emptied && (measured_bytes >= thresholds.threshold_bytes() || is_asked) {
            self.emptied = true;
            actions.extend([
                Action::ShrinkPieceCache(CacheCut::All),
                Action::CollectAll,
                Action::ShrinkDatabase,
                Action::ReturnIdleSegments,
            ]);
        }
        if measured_bytes >= thresholds.threshold_bytes() && self.may_trim(now) {
            self.trimmed_at = Some(now);
            actions.push(Action::TrimMalloc);
        }
        actions
    }

    fn may_trim(&self, now: Duration) -> bool {
        self.trimmed_at
            .is_none_or(|trimmed| now.saturating_sub(trimmed) >= TRIM_INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pressure::reason::Reason;

    fn change(from: Mode, to: Mode) -> Change {
        let why = Reason::AtThreshold {
            measured_bytes: 1,
            threshold_bytes: 1,
        };
        Change { from, to, why }
    }

    #[test]
    fn pages_go_back_before_anything_is_missed_and_after_everything_let_go() {
        for to in [Mode::Aggressive, Mode::Critical] {
            let actions = for_change(&change(Mode::Normal, to));
            assert_eq!(
                actions[actions.len() - 2..],
                [Action::ReturnIdleSegments, Action::TrimMalloc]
            );
            let first = actions.iter().find(|action| action.is_optional());
            assert_eq!(first, Some(&Action::ReturnIdleSegments));
        }
    }

    #[test]
    fn going_down_frees_nothing_and_lifts_what_was_imposed() {
        let down = for_change(&change(Mode::Critical, Mode::Aggressive));
        assert_eq!(down, [Action::CompressLightly(Switch::Off)]);
        let lifted = for_change(&change(Mode::Aggressive, Mode::Normal));
        assert_eq!(
            lifted,
            [
                Action::LimitWorkers(WorkerShare::ALL),
                Action::CompressLightly(Switch::Off),
                Action::RestorePieceCache,
                Action::PaceCollections(Pace::ByAllocation),
            ]
        );
    }

    /// Before, caches still hold what the collection is to find.
    #[test]
    fn everything_is_collected_when_caches_have_let_go() {
        for to in [Mode::Aggressive, Mode::Critical] {
            let actions = for_change(&change(Mode::Normal, to));
            let place = |wanted| actions.iter().position(|action| *action == wanted);
            let collect = place(Action::CollectAll).expect("collects");
            assert!(matches!(actions[collect - 1], Action::ShrinkPieceCache(_)));
            assert_eq!(
                actions[collect..]
                    .iter()
                    .filter(|a| **a == Action::ReturnIdleSegments)
                    .count(),
                1
            );
        }
    }

    #[test]
    fn what_is_on_its_way_is_waited_for_and_what_is_free_is_not() {
        let marks = Thresholds::new(70, 80, 90, 100).expect("in order");
        let entered = change(Mode::Normal, Mode::Aggressive);
        let mut relief = Relief::default();
        relief.on_change(Duration::ZERO, 85, &entered);
        let later = Duration::from_secs(1);
        let on_its_way = |in_flight_bytes| Sample {
            in_flight_bytes,
            ..Sample::default()
        };
        let mut again =
            |at, sample: &Sample, is_calm| relief.again(at, 85, sample, is_calm, &marks);
        assert_eq!(again(later, &on_its_way(16), false), []);
        assert_ne!(again(later, &on_its_way(15), false), []);
        assert_eq!(again(later, &on_its_way(0), false), [], "too soon");
        let free = Sample {
            idle_bytes: IDLE_BYTES,
            ..on_its_way(16)
        };
        assert_eq!(again(later, &free, false), [Action::ReturnIdleSegments]);
        assert_eq!(again(later, &free, true), []);
    }

    /// What was left out of a relief because enough came back is asked for when it is not enough again.
    #[test]
    fn relief_starts_anew_after_a_calm_and_when_somebody_asks_again() {
        let marks = Thresholds::new(70, 80, 90, 100).expect("in order");
        let mut relief = Relief::default();
        relief.on_change(Duration::ZERO, 95, &change(Mode::Normal, Mode::Critical));
        let empties =
            |actions: &[Action]| actions.contains(&Action::ShrinkPieceCache(CacheCut::All));
        let (plain, secs) = (Sample::default(), Duration::from_secs);
        assert!(!empties(&relief.again(secs(1), 95, &plain, false, &marks)));
        assert_eq!(relief.again(secs(2), 60, &plain, true, &marks), []);
        assert!(empties(&relief.again(secs(3), 95, &plain, false, &marks)));
        assert_eq!(relief.again(secs(4), 60, &plain, true, &marks), []);
        let asked = Sample {
            notified: true,
            ..plain
        };
        assert!(empties(&relief.again(secs(5), 60, &asked, false, &marks)));
    }
}
