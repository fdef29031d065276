//! What is written into a run's timeline, where one is kept. Without one, nothing here costs anything.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::timeline::{Mark, MarkKind, Owners, Point};
use super::{Control, Watch};
use crate::heap::{Pool, database};
use crate::pipeline::Progress;
use crate::pressure::sample::Sample;

/// While a timeline is kept there is a point at least this often: a short run has a curve too.
pub(super) const POINT_EVERY: Duration = Duration::from_millis(100);

/// Who holds how much of the resident memory.
pub(super) fn owners(pool: &Pool, resident_bytes: u64) -> Owners {
    let stats = pool.stats();
    let mut owners = Owners {
        idle: stats.idle_resident_bytes,
        database: database::held_bytes(),
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
        let before = self
            .probe
            .sample(began.elapsed(), self.relief.holdings().held_bytes);
        let point = self.moment(&before, progress);
        let now = Instant::now();
        self.relief.everything(now);
        let took = now.elapsed();
        let after = self
            .probe
            .sample(began.elapsed(), self.relief.holdings().held_bytes);
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
    pub mark: Mark,
    pub held_bytes: u64,
    pub at: Instant,
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
        let held_bytes = self.watch.relief.holdings().held_bytes;
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
        if let Some(attached) = &self.watch.service {
            attached.service.board.mark(&what, freed_bytes);
        }
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
}
