//! Carrying out a decision: one step after the other, each measured, and no more of them than it takes.
//!
//! The rule: settings that last are always made; what costs time, or lets go of something that would be
//! missed, is left out once enough came back.

use std::time::{Duration, Instant};

use super::Control;
use super::record::{Ordered, owners};
use super::timeline::{Mark, MarkKind};
use crate::heap::malloc;
use crate::pressure::action::{Action, CacheCut};
use crate::pressure::sample::Sample;

/// malloc is only trimmed if this much is free inside its arenas: the call takes every arena's lock.
const TRIM_FROM_BYTES: u64 = 1 << 20;

impl Control<'_, '_> {
    /// Carries out what was decided on `sample`, with a mark for each step that frees something. What
    /// may be left out is, once enough came back.
    pub(super) fn carry_out(&mut self, actions: &[Action], sample: &Sample) {
        let mut latest = *sample;
        let mut left_out = 0;
        for action in actions {
            if action.is_optional() && self.watch.controller.is_enough(&latest) {
                left_out += 1;
                continue;
            }
            if let Some((what, planned_bytes, freed_bytes)) = self.carry_out_one(action) {
                tracing::debug!(?what, planned_bytes, freed_bytes, "memory given back");
                // What somebody said still holds, and what is around us is not looked at each time.
                let now = self.watch.probe.sample(sample.at, sample.held_bytes);
                latest = Sample {
                    resident_bytes: now.resident_bytes,
                    anonymous_bytes: now.anonymous_bytes,
                    ..*sample
                };
            }
        }
        if left_out > 0 {
            tracing::debug!(left_out, "enough came back");
        }
    }

    /// Does one thing; if it frees at once, what it was, what was expected of it and what it freed.
    fn carry_out_one(&mut self, action: &Action) -> Option<(MarkKind, u64, u64)> {
        let at = self.began.elapsed();
        let relief = &self.watch.relief;
        let Some(what) = mark_of(action) else {
            relief.carry_out(action, Instant::now());
            return None;
        };
        let before = owners(relief.pool, 0);
        let returned = relief.pool.stats().returned_bytes;
        let planned_bytes = match action {
            Action::ReturnIdleSegments => before.idle,
            Action::TrimMalloc => malloc::idle_bytes(),
            Action::ShrinkPieceCache(cut) => {
                let full = relief.known.map_or(0, |known| known.full_limit());
                let bound = match cut {
                    CacheCut::Half => full / 2,
                    CacheCut::All => 0,
                };
                before.fingerprints.saturating_sub(bound)
            }
            _ => 0,
        };
        if matches!(action, Action::TrimMalloc) && planned_bytes < TRIM_FROM_BYTES {
            return None;
        }
        let resident = self.watch.probe.last_resident_bytes();
        relief.carry_out(action, Instant::now());
        match what {
            MarkKind::Collection | MarkKind::CacheShrunk => {
                if let Some(attached) = &self.watch.service {
                    // What the cache's thread frees shows in its heap's counters.
                    attached.service.board.mark(&what, 0);
                }
                if self.watch.timeline.is_some() && relief.known.is_some() {
                    self.ordered.push(Ordered {
                        mark: Mark {
                            at,
                            what,
                            planned_bytes,
                            freed_bytes: 0,
                            took: Duration::ZERO,
                        },
                        held_bytes: before.fingerprints,
                        at: Instant::now(),
                    });
                }
                None
            }
            MarkKind::Trim => {
                let freed = relief.pool.stats().returned_bytes.saturating_sub(returned);
                self.mark(at, what.clone(), planned_bytes, freed);
                Some((what, planned_bytes, freed))
            }
            what => {
                let after = self.watch.probe.sample(at, 0);
                let freed = resident.saturating_sub(after.resident_bytes);
                self.mark(at, what.clone(), planned_bytes, freed);
                Some((what, planned_bytes, freed))
            }
        }
    }
}

/// What the action is in a timeline, if it frees something.
fn mark_of(action: &Action) -> Option<MarkKind> {
    match action {
        Action::ReturnIdleSegments => Some(MarkKind::Trim),
        Action::TrimMalloc => Some(MarkKind::MallocTrim),
        Action::ShrinkDatabase => Some(MarkKind::DatabaseShrunk),
        Action::CollectAll => Some(MarkKind::Collection),
        Action::ShrinkPieceCache(_) => Some(MarkKind::CacheShrunk),
        Action::LimitWorkers(_)
        | Action::ReadFiles(_)
        | Action::CompressLightly(_)
        | Action::RestorePieceCache
        | Action::DropIdleContexts
        | Action::PaceCollections(_)
        | Action::FailJobs => None,
    }
}
