//! Two patterns of when to collect: in batches, and at the end of units of work.

use std::time::Duration;

use super::heap::Heap;
use super::stats::{Cause, Generation, Histogram};

/// A batch: collects, then turns automatic collection off; at its end turns it
/// on again if it was on, and collects. Nested batches collect at the end of the
/// outermost only. Ends by being dropped, also by a panic.
#[derive(Debug)]
#[must_use = "the batch ends when this is dropped"]
pub struct Batch {
    heap: Heap,
    was_enabled: bool,
}

impl Batch {
    fn start(heap: &Heap) -> Self {
        let was_enabled = heap.is_enabled();
        if was_enabled {
            heap.collect_for(Generation::Old, Cause::Unit);
            heap.disable();
        }
        Self {
            heap: heap.clone(),
            was_enabled,
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if self.was_enabled {
            self.heap.enable();
            self.heap.collect_for(Generation::Old, Cause::Unit);
        }
    }
}

/// Collections between units of work, where they disturb nobody: generation 0
/// after each unit, 1 after every 10th, and after every 100th an incremental
/// collection of everything starts, which the following units advance by a slice
/// each.
///
/// While it exists automatic collection is off, unless a unit makes so much
/// garbage that the bound on it would be exceeded: then an incremental
/// collection starts within the unit. A heap that was disabled before is not
/// kept within the bound.
#[derive(Debug)]
pub struct Units {
    heap: Heap,
    was_enabled: bool,
    was_bounded: bool,
    middle_every: u64,
    old_every: u64,
    done: u64,
    pauses: Histogram,
}

impl Units {
    fn new(heap: &Heap) -> Self {
        let was_enabled = heap.is_enabled();
        let bounded = &heap.core().statistics.bounded;
        let was_bounded = bounded.get();
        bounded.set(was_bounded || was_enabled);
        heap.disable();
        Self {
            heap: heap.clone(),
            was_enabled,
            was_bounded,
            middle_every: 10,
            old_every: 100,
            done: 0,
            pauses: Histogram::default(),
        }
    }

    /// Sets after how many units generations 1 and 2 are collected; 0 for never.
    #[must_use]
    pub fn every(mut self, middle: u64, old: u64) -> Self {
        self.middle_every = middle;
        self.old_every = old;
        self
    }

    /// Starts a unit; it ends, and collects, when the guard is dropped, also by a panic.
    pub fn unit(&mut self) -> Unit<'_> {
        Unit { units: self }
    }

    /// Units that ended.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.done
    }

    /// The pauses between units: count, average, longest, total.
    #[must_use]
    pub fn pauses(&self) -> &Histogram {
        &self.pauses
    }

    fn end_unit(&mut self) {
        self.done += 1;
        let started = std::time::Instant::now();
        let every = |units: u64| units > 0 && self.done.is_multiple_of(units);
        let heap = &self.heap;
        if every(self.old_every) {
            heap.start_for(Cause::Unit);
        } else if every(self.middle_every) {
            heap.collect_for(Generation::Middle, Cause::Unit);
        } else {
            heap.collect_for(Generation::Young, Cause::Unit);
        }
        heap.collect_slice();
        let pause: Duration = started.elapsed();
        self.pauses.add(pause);
        if pause > heap.options().long_pause {
            tracing::warn!(
                unit = self.done,
                micros = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX),
                "a long pause between units of work"
            );
        }
    }
}

impl Drop for Units {
    fn drop(&mut self) {
        self.heap.core().statistics.bounded.set(self.was_bounded);
        self.heap.set_enabled(self.was_enabled);
    }
}

/// A unit of work; see [`Units::unit`].
#[derive(Debug)]
#[must_use = "the unit ends when this is dropped"]
pub struct Unit<'a> {
    units: &'a mut Units,
}

impl Drop for Unit<'_> {
    fn drop(&mut self) {
        self.units.end_unit();
    }
}

impl Heap {
    /// Starts a [`Batch`].
    pub fn batch(&self) -> Batch {
        Batch::start(self)
    }

    /// Collects between units of work from now on; see [`Units`].
    #[must_use]
    pub fn units(&self) -> Units {
        Units::new(self)
    }
}
