//! What a heap counts: collections, pauses, panics, peaks; and its thresholds.
//!
//! The rule that must hold: **counting costs nothing where objects are made and
//! freed.** Everything here is written when a collection, a slice of one or a
//! moment is over.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::totals::HeapTotals;

/// A generation of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Generation {
    /// Objects that no collection has looked at.
    Young,
    /// Objects that survived one collection.
    Middle,
    /// Objects that survived two, or a collection of everything.
    Old,
}

impl Generation {
    /// All generations, youngest first.
    pub const ALL: [Self; 3] = [Self::Young, Self::Middle, Self::Old];

    /// 0, 1 or 2.
    #[must_use]
    pub const fn number(self) -> usize {
        self as usize
    }
}

/// There are only the generations 0, 1 and 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no generation {0}: only 0, 1 and 2")]
pub struct NoSuchGeneration(pub u32);

impl TryFrom<u32> for Generation {
    type Error = NoSuchGeneration;

    fn try_from(number: u32) -> Result<Self, NoSuchGeneration> {
        Self::ALL
            .get(number as usize)
            .copied()
            .ok_or(NoSuchGeneration(number))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

/// Why a collection ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A threshold, or the bound on garbage.
    Automatic,
    /// Somebody asked for it.
    Asked,
    /// A batch or a unit of work ended.
    Unit,
    /// Memory is short: everything at once.
    Critical,
    /// The limit of the heap would have been exceeded.
    Limit,
    /// The heap is given up.
    Close,
}

/// A collection that starts or has ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CollectionEvent {
    /// Which generation, the younger ones included.
    pub generation: Generation,
    /// Why.
    pub cause: Cause,
    /// Whether this is the end; at the start all numbers below are 0.
    pub ended: bool,
    /// Objects looked at because their count had fallen.
    pub candidates: u64,
    /// Unreachable objects found and freed.
    pub collected: u64,
    /// Objects that could not be collected because a type reported handles it does not hold.
    pub uncollectable: u64,
    /// Time spent in it, in all its slices.
    pub duration: Duration,
}

/// Pauses, by their length: 8 buckets to a doubling, so within 12.5 %.
#[derive(Clone)]
pub struct Histogram {
    buckets: Box<[u64; BUCKETS]>,
    doublings: [u64; PAUSE_BUCKETS],
    count: u64,
    total: Duration,
    longest: Duration,
}

/// Buckets of [`Histogram::doublings`]: up to four seconds.
pub const PAUSE_BUCKETS: usize = 32;

const SUB: u32 = 3;
const BUCKETS: usize = 40 << SUB;

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: Box::new([0; BUCKETS]),
            doublings: [0; PAUSE_BUCKETS],
            count: 0,
            total: Duration::ZERO,
            longest: Duration::ZERO,
        }
    }
}

impl Histogram {
    /// Adds a pause.
    pub fn add(&mut self, pause: Duration) {
        let bucket = Self::bucket(pause);
        self.buckets[bucket] += 1;
        self.doublings[(bucket >> SUB).min(PAUSE_BUCKETS - 1)] += 1;
        self.count += 1;
        self.total += pause;
        self.longest = self.longest.max(pause);
    }

    /// Adds all pauses of another one.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&*other.buckets) {
            *mine += theirs;
        }
        for (mine, theirs) in self.doublings.iter_mut().zip(other.doublings) {
            *mine += theirs;
        }
        self.count += other.count;
        self.total += other.total;
        self.longest = self.longest.max(other.longest);
    }

    fn bucket(pause: Duration) -> usize {
        let nanos = u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX).max(1);
        let doubling = nanos.ilog2();
        let within = if doubling >= SUB {
            nanos >> (doubling - SUB) & ((1 << SUB) - 1)
        } else {
            nanos << (SUB - doubling) & ((1 << SUB) - 1)
        };
        (((doubling as usize) << SUB) + within as usize).min(BUCKETS - 1)
    }

    /// Longest pause that falls into a bucket.
    fn upper(bucket: usize) -> Duration {
        let doubling = (bucket >> SUB) as u32;
        let within = (bucket & ((1 << SUB) - 1)) as u64;
        let nanos = (((1_u128 << SUB) + u128::from(within) + 1) << doubling) >> SUB;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Pauses by doublings: at place `n` those of at least 2^n nanoseconds and less than twice as
    /// long; at the last place also all longer ones.
    #[must_use]
    pub fn doublings(&self) -> &[u64; PAUSE_BUCKETS] {
        &self.doublings
    }

    /// Number of pauses.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Sum of all pauses.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.total
    }

    /// The longest pause.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// Average pause; zero if there was none.
    #[must_use]
    pub fn average(&self) -> Duration {
        let count = u32::try_from(self.count).unwrap_or(u32::MAX);
        self.total.checked_div(count).unwrap_or_default()
    }

    /// The pause that this share of pauses, between 0 and 1, does not exceed;
    /// up to 12.5 % too high.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = (self.count as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Self::upper(bucket).min(self.longest);
            }
        }
        Duration::ZERO
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count)
            .field("average", &self.average())
            .field("p99", &self.quantile(0.99))
            .field("longest", &self.longest)
            .finish()
    }
}

/// What a heap knows of the collections of one generation.
#[derive(Clone, Debug, Default)]
pub struct GenerationStats {
    /// Collections that ended.
    pub collections: u64,
    /// Unreachable objects found and freed.
    pub collected: u64,
    /// Objects that could not be collected because a type reported handles it does not hold.
    pub uncollectable: u64,
    /// Collections given up because they took too long; their candidates grew old.
    pub given_up: u64,
    /// Pauses: of a whole pass for the younger generations, of a slice for the oldest.
    pub pauses: Histogram,
}

/// What a heap has counted since it was made.
#[derive(Clone, Debug, Default)]
pub struct HeapStats {
    /// By generation.
    pub generations: [GenerationStats; 3],
    /// Pauses in which everything was collected at once, of those of the oldest generation.
    pub whole: Histogram,
    /// Collections of everything at once because memory was short.
    pub critical: u64,
    /// Pauses for freeing what large drops had left.
    pub drains: Histogram,
    /// Objects that are there.
    pub live_objects: u64,
    /// Bytes of their slots.
    pub live_bytes: u64,
    /// Bytes outside of the heap that objects hold.
    pub external_bytes: u64,
    /// Bytes of slabs in use, and external ones: what the limit is for.
    pub held_bytes: u64,
    /// Most bytes held at a time, since the start or [`Heap::reset_peak`](super::Heap::reset_peak).
    pub peak_bytes: u64,
    /// Bytes allocated in all.
    pub allocated_bytes: u64,
    /// Objects that wait to be freed after a large drop.
    pub queued_objects: u64,
    /// Objects that a next collection will look at first.
    pub candidates: u64,
    /// Garbage that may be outstanding at most, in bytes.
    pub garbage_bound_bytes: u64,
    /// Finalizers that ran.
    pub finalizers: u64,
    /// Objects that a finalizer saved.
    pub resurrected: u64,
    /// Panics of finalizers, callbacks and drops that were caught.
    pub panics: u64,
    /// Allocations refused because of the limit.
    pub refusals: u64,
    /// Bytes given back by trims.
    pub trimmed_bytes: u64,
}

impl HeapStats {
    /// The longest pause of all.
    #[must_use]
    pub fn longest_pause(&self) -> Duration {
        let pauses = self.generations.iter().map(|of| of.pauses.longest());
        pauses.max().unwrap_or_default().max(self.drains.longest())
    }

    /// The sum of all pauses.
    #[must_use]
    pub fn total_pause(&self) -> Duration {
        let pauses = self.generations.iter().map(|of| of.pauses.total());
        pauses.sum::<Duration>() + self.drains.total()
    }

    /// All pauses by doublings, as [`Histogram::doublings`] has them.
    #[must_use]
    pub fn pauses(&self) -> [u64; PAUSE_BUCKETS] {
        let mut pauses = *self.drains.doublings();
        for of in &self.generations {
            for (sum, count) in pauses.iter_mut().zip(of.pauses.doublings()) {
                *sum += count;
            }
        }
        pauses
    }
}

/// What a pause was for.
#[derive(Clone, Copy)]
pub(super) enum Pause {
    Generation(Generation),
    Whole,
    Drain,
}

pub(super) type Callback = Rc<dyn Fn(&CollectionEvent)>;

/// Where a heap counts.
pub(super) struct Statistics {
    pub(super) enabled: Cell<bool>,
    /// Automatic collection is off, except for what the bound on garbage asks for.
    pub(super) bounded: Cell<bool>,
    /// Thresholds of the generations; 0 turns automatic collection off.
    pub(super) thresholds: Cell<(u32, u32, u32)>,
    /// Collections of generation 0 since the last of 1, and of 1 since the last of 2.
    pub(super) passes: Cell<(u32, u32)>,
    counted: RefCell<HeapStats>,
    callbacks: RefCell<Vec<(u64, Callback)>>,
    last_callback: Cell<u64>,
    peak: Cell<u64>,
}

impl Statistics {
    pub(super) fn new() -> Self {
        Self {
            enabled: Cell::new(true),
            bounded: Cell::new(false),
            thresholds: Cell::new((700, 10, 10)),
            passes: Cell::new((0, 0)),
            counted: RefCell::default(),
            callbacks: RefCell::default(),
            last_callback: Cell::new(0),
            peak: Cell::new(0),
        }
    }

    pub(super) fn counted(&self) -> HeapStats {
        HeapStats {
            peak_bytes: self.peak.get(),
            ..self.counted.borrow().clone()
        }
    }

    pub(super) fn peak_bytes(&self) -> u64 {
        self.peak.get()
    }

    /// What totals are made of, without what there is at the moment.
    pub(super) fn totals(&self) -> HeapTotals {
        HeapTotals::from(&*self.counted.borrow())
    }

    pub(super) fn note_held(&self, bytes: u64) {
        self.peak.set(self.peak.get().max(bytes));
    }

    pub(super) fn reset_peak(&self, bytes: u64) {
        self.peak.set(bytes);
    }

    pub(super) fn note_pause(&self, what: Pause, pause: Duration) {
        let mut counted = self.counted.borrow_mut();
        match what {
            Pause::Generation(generation) => {
                counted.generations[generation.number()].pauses.add(pause);
            }
            Pause::Whole => {
                counted.generations[2].pauses.add(pause);
                counted.whole.add(pause);
            }
            Pause::Drain => counted.drains.add(pause),
        }
    }

    pub(super) fn note_panic(&self) {
        self.counted.borrow_mut().panics += 1;
    }

    pub(super) fn note_finalizer(&self) {
        self.counted.borrow_mut().finalizers += 1;
    }

    pub(super) fn note_resurrection(&self) {
        self.counted.borrow_mut().resurrected += 1;
    }

    pub(super) fn note_refusal(&self) {
        self.counted.borrow_mut().refusals += 1;
    }

    pub(super) fn note_trim(&self, bytes: u64) {
        self.counted.borrow_mut().trimmed_bytes += bytes;
    }

    pub(super) fn note_given_up(&self, generation: Generation) {
        self.counted.borrow_mut().generations[generation.number()].given_up += 1;
    }

    pub(super) fn add_callback(&self, callback: Callback) -> u64 {
        let id = self.last_callback.get() + 1;
        self.last_callback.set(id);
        self.callbacks.borrow_mut().push((id, callback));
        id
    }

    /// Takes a callback out. The caller drops it, when nothing here is borrowed: that may run code
    /// that collects.
    pub(super) fn remove_callback(&self, id: u64) -> Option<Callback> {
        let mut callbacks = self.callbacks.borrow_mut();
        let at = callbacks.iter().position(|&(other, _)| other == id)?;
        Some(callbacks.remove(at).1)
    }

    /// Takes all callbacks out, as [`remove_callback`](Self::remove_callback).
    pub(super) fn take_callbacks(&self) -> Vec<(u64, Callback)> {
        self.callbacks.take()
    }

    pub(super) fn has_callbacks(&self) -> bool {
        !self.callbacks.borrow().is_empty()
    }

    pub(super) fn callbacks(&self) -> Vec<Callback> {
        let callbacks = self.callbacks.borrow();
        callbacks.iter().map(|(_, call)| Rc::clone(call)).collect()
    }

    pub(super) fn collected(&self, generation: Generation) -> u64 {
        self.counted.borrow().generations[generation.number()].collected
    }

    /// Counts a collection that has ended.
    pub(super) fn note_collection(&self, event: &CollectionEvent) {
        let mut counted = self.counted.borrow_mut();
        let of = &mut counted.generations[event.generation.number()];
        of.collections += 1;
        of.collected += event.collected;
        of.uncollectable += event.uncollectable;
        if event.cause == Cause::Critical {
            counted.critical += 1;
        }
    }
}

/// Time for a piece of work; the clock is looked at now and then only.
pub(super) struct Slice {
    started: Instant,
    longest: Duration,
    /// Units of work after which it is over, whatever the time.
    most: u32,
    checks: Cell<u32>,
}

impl Slice {
    const BETWEEN_LOOKS: u32 = 16;

    pub(super) fn start(longest: Duration) -> Self {
        Self {
            started: Instant::now(),
            longest,
            most: u32::MAX,
            checks: Cell::new(0),
        }
    }

    /// One that counts work instead of time.
    pub(super) fn of_units(most: u32) -> Self {
        Self {
            most,
            ..Self::endless()
        }
    }

    pub(super) fn endless() -> Self {
        Self::start(Duration::MAX)
    }

    /// Counts a unit of work; whether the time is up.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        let checks = self.checks.get().wrapping_add(1);
        self.checks.set(checks);
        if self.longest == Duration::MAX {
            return self.most != u32::MAX && checks >= self.most;
        }
        checks.is_multiple_of(Self::BETWEEN_LOOKS) && self.started.elapsed() >= self.longest
    }

    /// Whether the time is limited.
    pub(super) fn longest_is_set(&self) -> bool {
        self.longest != Duration::MAX
    }

    /// Units of work so far.
    pub(super) fn units(&self) -> u32 {
        self.checks.get()
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_an_eighth() {
        let mut histogram = Histogram::default();
        for micros in 1..=1000 {
            histogram.add(Duration::from_micros(micros));
        }
        for (share, micros) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = histogram.quantile(share).as_secs_f64() * 1e6;
            assert!((found / micros - 1.0).abs() <= 0.125, "{share}: {found}");
        }
        // From 2^19 ns, which is 524.3 µs, on.
        assert_eq!(histogram.doublings()[19], 1000 - 524);
        assert_eq!(histogram.doublings().iter().sum::<u64>(), histogram.count());
        assert_eq!(histogram.longest(), Duration::from_millis(1));
        assert_eq!(histogram.average(), Duration::from_nanos(500_500));
    }

    #[test]
    fn generations_have_numbers() {
        assert_eq!(Generation::try_from(2), Ok(Generation::Old));
        assert_eq!(Generation::try_from(3), Err(NoSuchGeneration(3)));
    }
}
