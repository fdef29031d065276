//! Totals of many heaps, to be read by any thread without stopping one.
//!
//! A heap belongs to a thread. What the process wants to know of all heaps
//! together each of them adds to shared counters, when a collection is over or
//! at a safe point, as the difference to what it added before.
//!
//! The rule that must hold: **a heap's share is taken back when it ends**, as
//! far as it says what there is; what has been done stays counted.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::core::Core;
use super::heap::Heap;
use super::stats::{HeapStats, PAUSE_BUCKETS};

/// Counters that heaps add to; see [`Heap::publish_to`].
#[derive(Debug, Default)]
pub struct Totals {
    live_objects: AtomicU64,
    live_bytes: AtomicU64,
    held_bytes: AtomicU64,
    collections: [AtomicU64; 3],
    whole: AtomicU64,
    collected: AtomicU64,
    trimmed_bytes: AtomicU64,
    pause_ns: AtomicU64,
    longest_pause_ns: AtomicU64,
    pauses: [AtomicU64; PAUSE_BUCKETS],
}

/// What all heaps together have come to at a moment, each number by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeapTotals {
    /// Objects that are there.
    pub live_objects: u64,
    /// Bytes of their slots.
    pub live_bytes: u64,
    /// Bytes of slabs in use, and external ones.
    pub held_bytes: u64,
    /// Collections that ended, by generation.
    pub collections: [u64; 3],
    /// Of those of the oldest generation, collections of everything at once.
    pub whole_collections: u64,
    /// Unreachable objects found and freed.
    pub collected: u64,
    /// Bytes given back by trims.
    pub trimmed_bytes: u64,
    /// Sum of all pauses.
    pub total_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// Pauses by doublings: at place `n` those of at least 2^n nanoseconds and less than twice as
    /// long; at the last place also all longer ones.
    pub pauses: [u64; PAUSE_BUCKETS],
}

impl Totals {
    /// What they are now.
    #[must_use]
    pub fn now(&self) -> HeapTotals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        HeapTotals {
            live_objects: read(&self.live_objects),
            live_bytes: read(&self.live_bytes),
            held_bytes: read(&self.held_bytes),
            collections: self.collections.each_ref().map(read),
            whole_collections: read(&self.whole),
            collected: read(&self.collected),
            trimmed_bytes: read(&self.trimmed_bytes),
            total_pause: Duration::from_nanos(read(&self.pause_ns)),
            longest_pause: Duration::from_nanos(read(&self.longest_pause_ns)),
            pauses: self.pauses.each_ref().map(read),
        }
    }

    fn add(&self, before: &HeapTotals, now: &HeapTotals) {
        // Wrapping: what is there may have become less.
        let add = |counter: &AtomicU64, before: u64, now: u64| {
            counter.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        };
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        add(&self.live_objects, before.live_objects, now.live_objects);
        add(&self.live_bytes, before.live_bytes, now.live_bytes);
        add(&self.held_bytes, before.held_bytes, now.held_bytes);
        for (at, counter) in self.collections.iter().enumerate() {
            add(counter, before.collections[at], now.collections[at]);
        }
        add(&self.whole, before.whole_collections, now.whole_collections);
        add(&self.collected, before.collected, now.collected);
        add(&self.trimmed_bytes, before.trimmed_bytes, now.trimmed_bytes);
        add(
            &self.pause_ns,
            nanos(before.total_pause),
            nanos(now.total_pause),
        );
        for (at, counter) in self.pauses.iter().enumerate() {
            if now.pauses[at] != before.pauses[at] {
                add(counter, before.pauses[at], now.pauses[at]);
            }
        }
        self.longest_pause_ns
            .fetch_max(nanos(now.longest_pause), Ordering::Relaxed);
    }
}

impl From<&HeapStats> for HeapTotals {
    fn from(stats: &HeapStats) -> Self {
        let generations = &stats.generations;
        Self {
            live_objects: stats.live_objects,
            live_bytes: stats.live_bytes,
            held_bytes: stats.held_bytes,
            collections: generations.each_ref().map(|of| of.collections),
            whole_collections: stats.whole.count(),
            collected: generations.iter().map(|of| of.collected).sum(),
            trimmed_bytes: stats.trimmed_bytes,
            total_pause: stats.total_pause(),
            longest_pause: stats.longest_pause(),
            pauses: stats.pauses(),
        }
    }
}

/// A heap's share in totals.
#[derive(Default)]
pub(super) struct Share {
    of: RefCell<Option<(Arc<Totals>, HeapTotals)>>,
}

impl Share {
    fn publish(&self, now: &HeapTotals) {
        if let Some((totals, before)) = &mut *self.of.borrow_mut() {
            totals.add(before, now);
            *before = *now;
        }
    }

    /// Takes back what there is.
    fn end(&self) {
        if let Some((totals, before)) = self.of.take() {
            let now = HeapTotals {
                live_objects: 0,
                live_bytes: 0,
                held_bytes: 0,
                ..before
            };
            totals.add(&before, &now);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.end();
    }
}

impl Heap {
    /// Adds this heap's numbers to these totals from now on: at each safe point
    /// and when the heap ends. A heap adds to one at a time.
    pub fn publish_to(&self, totals: &Arc<Totals>) {
        let share = &self.core().share;
        share.end();
        share
            .of
            .replace(Some((Arc::clone(totals), HeapTotals::default())));
        self.publish();
    }

    /// Adds what has changed to the totals; safe points do it by themselves.
    pub fn publish(&self) {
        self.core().publish();
    }
}

impl Core {
    pub(super) fn publish(&self) {
        if self.share.of.borrow().is_some() {
            self.share.publish(&HeapTotals {
                live_objects: self.kinds.live(),
                live_bytes: self.kinds.live_bytes(),
                held_bytes: self.held_bytes(),
                ..self.statistics.totals()
            });
        }
    }
}
