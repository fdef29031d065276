//! What can be done about pressure, as values.
//!
//! An action says what to let go of, never how: whoever holds the thing knows.
//! Each is safe to carry out twice, so a repeated or late one does no harm.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::pressure::level::Thresholds;
use crate::pressure::mode::{Change, Mode};
use crate::pressure::size::percent_of;

/// How long relief is given to show before more is asked for.
const RELIEF_TIME: Duration = Duration::from_millis(500);
/// The share of the threshold the measure must fall by in that time.
const RELIEF_PERCENT: u8 = 5;
/// malloc is not trimmed more often than this.
const TRIM_INTERVAL: Duration = Duration::from_secs(30);

/// One thing that gives memory back, or keeps it from being taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Let this many workers run from the next chunk on.
    LimitWorkers(Workers),
    /// Drop the page cache behind the reader, or stop doing so.
    DropPageCacheBehind(Switch),
    /// Free the compression contexts that no worker is using.
    DropIdleContexts,
    /// Shrink the cache of known pieces.
    ShrinkPieceCache(CacheCut),
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
}

/// How many of the configured workers may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// All of them.
    All,
    /// Half of them, rounded down, but at least one.
    Half,
    /// A single one: work goes on, however slowly.
    One,
}

impl Workers {
    /// How many that is out of `total`.
    pub fn of(self, total: NonZeroUsize) -> NonZeroUsize {
        match self {
            Workers::All => total,
            Workers::Half => NonZeroUsize::new(total.get() / 2).unwrap_or(NonZeroUsize::MIN),
            Workers::One => NonZeroUsize::MIN,
        }
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

/// What a change of mode asks for, in the order it should be done.
///
/// Going up, first what stops growth, then what lets go of memory inside the
/// process, and last the two that hand free pages to the kernel, so that they
/// find all that was let go. Going down only lifts what was imposed.
pub fn for_change(change: &Change) -> Vec<Action> {
    let rises = change.to > change.from;
    match change.to {
        Mode::Critical => relief(Workers::One, CacheCut::All),
        Mode::Aggressive if rises => relief(Workers::Half, CacheCut::Half),
        Mode::Aggressive => vec![Action::LimitWorkers(Workers::Half)],
        Mode::Normal => vec![
            Action::LimitWorkers(Workers::All),
            Action::DropPageCacheBehind(Switch::Off),
            Action::PaceCollections(Pace::ByAllocation),
        ],
    }
}

fn relief(workers: Workers, cut: CacheCut) -> Vec<Action> {
    vec![
        Action::LimitWorkers(workers),
        Action::DropPageCacheBehind(Switch::On),
        Action::DropIdleContexts,
        Action::ShrinkPieceCache(cut),
        Action::CollectAll,
        Action::PaceCollections(Pace::EveryTenChunks),
        Action::ShrinkDatabase,
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
        let may_trim = self
            .trimmed_at
            .is_none_or(|trimmed| now.saturating_sub(trimmed) >= TRIM_INTERVAL);
        let mut actions = for_change(change);
        actions.retain(|action| *action != Action::TrimMalloc || may_trim);
        if actions.contains(&Action::TrimMalloc) {
            self.trimmed_at = Some(now);
        }
        actions
    }

    /// What to ask for again while a mode lasts, because the relief before did
    /// not show. Nothing below resume: there the work is done.
    pub(super) fn again(
        &mut self,
        now: Duration,
        measured_bytes: u64,
        thresholds: &Thresholds,
    ) -> Vec<Action> {
        let Some((at, before_bytes)) = self.last else {
            return Vec::new();
        };
        let too_soon = now.saturating_sub(at) < RELIEF_TIME;
        if too_soon || measured_bytes < thresholds.resume_bytes() {
            return Vec::new();
        }
        self.last = Some((now, measured_bytes));
        let enough_bytes = percent_of(thresholds.threshold_bytes(), RELIEF_PERCENT).max(1);
        if before_bytes.saturating_sub(measured_bytes) >= enough_bytes {
            return Vec::new();
        }
        vec![Action::ReturnIdleSegments]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pressure::mode::Reason;

    fn change(from: Mode, to: Mode) -> Change {
        let why = Reason::AtThreshold {
            measured_bytes: 1,
            threshold_bytes: 1,
        };
        Change { from, to, why }
    }

    #[test]
    fn half_of_the_workers_is_never_none() {
        for (total, half) in [(1, 1), (2, 1), (3, 1), (8, 4)] {
            let total = NonZeroUsize::new(total).expect("not zero");
            assert_eq!(Workers::Half.of(total).get(), half);
            assert_eq!(Workers::All.of(total), total);
            assert_eq!(Workers::One.of(total).get(), 1);
        }
    }

    #[test]
    fn pages_go_back_after_everything_else_let_go() {
        for to in [Mode::Aggressive, Mode::Critical] {
            let actions = for_change(&change(Mode::Normal, to));
            assert_eq!(
                actions[actions.len() - 2..],
                [Action::ReturnIdleSegments, Action::TrimMalloc]
            );
            assert!(matches!(actions[0], Action::LimitWorkers(_)), "{actions:?}");
        }
    }

    #[test]
    fn going_down_frees_nothing() {
        let down = [
            (Mode::Critical, Mode::Aggressive),
            (Mode::Aggressive, Mode::Normal),
        ];
        for (from, to) in down {
            for action in for_change(&change(from, to)) {
                assert!(
                    matches!(
                        action,
                        Action::LimitWorkers(_)
                            | Action::DropPageCacheBehind(Switch::Off)
                            | Action::PaceCollections(Pace::ByAllocation)
                    ),
                    "{from:?} -> {to:?} asks for {action:?}"
                );
            }
        }
    }

    #[test]
    fn everything_imposed_is_lifted_in_normal() {
        let lifted = for_change(&change(Mode::Aggressive, Mode::Normal));
        assert!(lifted.contains(&Action::LimitWorkers(Workers::All)));
        assert!(lifted.contains(&Action::DropPageCacheBehind(Switch::Off)));
        assert!(lifted.contains(&Action::PaceCollections(Pace::ByAllocation)));
    }

    /// Before, caches still hold what the collection is to find.
    #[test]
    fn everything_is_collected_when_caches_have_let_go() {
        for to in [Mode::Aggressive, Mode::Critical] {
            let actions = for_change(&change(Mode::Normal, to));
            let place = |wanted| actions.iter().position(|action| *action == wanted);
            let collect = place(Action::CollectAll).expect("collects");
            assert!(matches!(actions[collect - 1], Action::ShrinkPieceCache(_)));
            assert!(collect < place(Action::ReturnIdleSegments).expect("returns"));
        }
    }
}
