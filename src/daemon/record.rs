//! What is written into a run's timeline, where one is kept. Without one, nothing here costs anything.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::timeline::{Mark, MarkKind, Owners, Point};
use super::{Control, Watch};
use crate::heap::{Pool, malloc};
use crate::pipeline::Progress;
use crate::pressure::action::{Action, CacheCut};
use crate::pressure::sample::Sample;

/// While a timeline is kept there is a point at least this often: a short run has a curve too.
pub(super) const POINT_EVERY: Duration = Duration::from_millis(100);

/// Who holds how much of the resident memory.
pub(super) fn owners(pool: &Pool, resident_bytes: u64) -> Owners {
    let stats = pool.stats();
    let mut owners = Owners {
        idle: stats.idle_resident_bytes,
        ..Owners::default()
    };
    for account in &stats.accounts {
        match account.name {
            "chunks" => owners.chunks += account.held_bytes,
            // Whatever else is in buffers are frames, packed or not.
            _ => owners.frames += account.held_bytes,
        }
        match account.name {
            "compression" => owners.compression += account.noted_bytes,
            "fingerprints" => owners.fingerprints += account.noted_bytes,
            _ => {}
        }
    }
    owners.of_resident(resident_bytes)
}

impl Watch<'_> {
    /// The present moment.
    fn moment(&self, sample: &Sample, progress: &Progress) -> Point {
        let thresholds = self.controller.thresholds();
        Point {
            at: sample.at,
            mode: self.controller.mode(),
            resident_bytes: sample.resident_bytes,
            anonymous_bytes: sample.anonymous_bytes,
            threshold_bytes: thresholds.threshold_bytes(),
            critical_bytes: thresholds.critical_bytes(),
            limit_bytes: thresholds.limit_bytes(),
            owners: owners(self.relief.pool, sample.resident_bytes),
            done_bytes: progress.done_bytes.load(Ordering::Relaxed),
        }
    }

    /// Gives back what nobody uses, and records that and how things are then.
    pub(super) fn end(&mut self, began: Instant, progress: &Progress) {
        if self.timeline.is_none() {
            return self.relief.everything(Instant::now());
        }
        let before = self.probe.sample(began.elapsed(), self.relief.held_bytes());
        let point = self.moment(&before, progress);
        let now = Instant::now();
        self.relief.everything(now);
        let took = now.elapsed();
        let after = self.probe.sample(began.elapsed(), self.relief.held_bytes());
        let end = self.moment(&after, progress);
        if let Some(timeline) = &mut self.timeline {
            timeline.point(point);
            timeline.mark(Mark {
                at: before.at,
                what: MarkKind::Trim,
                planned_bytes: point.owners.idle,
                freed_bytes: before.resident_bytes.saturating_sub(after.resident_bytes),
                took,
            });
            timeline.end(end);
        }
    }
}

/// An order to the cache's thread, of which is only seen later what it freed.
pub(super) struct Ordered {
    mark: Mark,
    held_bytes: u64,
    at: Instant,
}

impl Control<'_, '_> {
    /// Adds a point, if there is a timeline.
    pub(super) fn record(&mut self, sample: &Sample) {
        if self.watch.timeline.is_none() {
            return;
        }
        let point = self.watch.moment(sample, self.progress);
        self.settle(point.owners.fingerprints);
        if let Some(timeline) = &mut self.watch.timeline {
            timeline.point(point);
        }
    }

    /// Adds a point between samples.
    pub(super) fn record_now(&mut self) {
        let held_bytes = self.watch.relief.held_bytes();
        let sample = self.watch.probe.sample(self.began.elapsed(), held_bytes);
        self.record(&sample);
    }

    pub(super) fn mark(
        &mut self,
        at: Duration,
        what: MarkKind,
        planned_bytes: u64,
        freed_bytes: u64,
    ) {
        if let Some(timeline) = &mut self.watch.timeline {
            timeline.mark(Mark {
                at,
                what,
                planned_bytes,
                freed_bytes,
                took: self.began.elapsed().saturating_sub(at),
            });
        }
    }

    /// Marks what was ordered of the cache, when it has had time to do it.
    fn settle(&mut self, held_bytes: u64) {
        let ripe = |ordered: &Ordered| ordered.at.elapsed() >= POINT_EVERY;
        if self.ordered.is_empty() || !self.ordered.iter().all(ripe) {
            return;
        }
        let Some(timeline) = &mut self.watch.timeline else {
            return;
        };
        let mut left = held_bytes;
        for ordered in self.ordered.drain(..).rev() {
            // What both a smaller bound and a collection freed counts once.
            let freed = ordered.held_bytes.saturating_sub(left);
            left = left.max(ordered.held_bytes);
            timeline.mark(Mark {
                freed_bytes: freed,
                ..ordered.mark
            });
        }
    }

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

/// malloc is only trimmed if this much is free inside its arenas: the call takes every arena's lock.
const TRIM_FROM_BYTES: u64 = 1 << 20;

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
