//! The handle of a heap: all that can be asked of it.
#![expect(
    unsafe_code,
    reason = "refers to the core, which objects refer to as well"
)]

use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::Duration;

use super::core::Core;
use super::handle::Gc;
use super::options::{HeapFull, OldestRule, Options};
use super::stats::{Cause, CollectionEvent, Generation, HeapStats, Slice};
use super::trace::Trace;

/// A heap of counted objects whose cycles are collected.
///
/// It belongs to one thread, as do its handles. Clones are handles to the same
/// heap. When the last is dropped, a last collection runs; objects that are
/// still held live on, and the memory goes with the last of them.
///
/// Collections run by themselves at allocations, when thresholds are crossed:
/// see [`Heap::set_thresholds`]. No collection frees what can be reached.
pub struct Heap {
    core: NonNull<Core>,
    handles: Rc<()>,
    not_send: PhantomData<*const ()>,
}

impl Heap {
    /// A heap without a limit.
    #[must_use]
    pub fn new() -> Self {
        Self::with(Options::default())
    }

    /// A heap with these settings.
    #[must_use]
    pub fn with(options: Options) -> Self {
        Self {
            core: Core::new(options),
            handles: Rc::new(()),
            not_send: PhantomData,
        }
    }

    #[inline]
    pub(super) fn core(&self) -> &Core {
        // SAFETY: a handle is an owner of the core.
        unsafe { self.core.as_ref() }
    }

    /// Puts a value on the heap. May run collections, finalizers and callbacks.
    ///
    /// # Errors
    ///
    /// [`HeapFull`] if the limit would be exceeded even after a collection of
    /// everything, or if the system has no memory; the value is dropped.
    #[inline(always)]
    #[track_caller]
    pub fn alloc<T: Trace>(&self, value: T) -> Result<Gc<T>, HeapFull> {
        self.core().alloc(value, Location::caller())
    }

    // Collecting.

    /// Collects a generation and those younger, at once; how many unreachable
    /// objects were found. 0 during a finalizer, a callback or a drop.
    ///
    /// Two collections of [`Generation::Old`] leave nothing unreachable, except
    /// what finalizers made meanwhile.
    pub fn collect(&self, generation: Generation) -> u64 {
        self.collect_for(generation, Cause::Asked)
    }

    pub(super) fn collect_for(&self, generation: Generation, cause: Cause) -> u64 {
        let core = self.core();
        if !core.is_idle() {
            return 0;
        }
        core.drain();
        match generation {
            Generation::Old => core.collect_all(cause),
            younger => core.pass(younger, cause, Duration::MAX),
        }
    }

    /// Collects everything at once because memory is short, and says so in the
    /// statistics; how many objects were freed.
    pub fn collect_critical(&self) -> u64 {
        self.collect_for(Generation::Old, Cause::Critical)
    }

    /// Starts an incremental collection of everything unless one is under way;
    /// it advances by slices at allocations and at [`Heap::safe_point`].
    pub fn start_collection(&self) {
        self.start_for(Cause::Asked);
    }

    pub(super) fn start_for(&self, cause: Cause) {
        let core = self.core();
        if core.is_idle() && !core.epoch.is_active() {
            core.begin_epoch(cause);
            core.settle();
            core.pace_epoch();
            core.arm();
        }
    }

    /// Does one slice of an incremental collection that is under way; whether
    /// there is more to do.
    pub fn collect_slice(&self) -> bool {
        self.core().slice_of_epoch()
    }

    /// As [`Heap::collect_slice`], for so many units of work instead of a time:
    /// a unit is about an object. What it does is the same each time, so tests
    /// can stop a collection anywhere.
    pub fn collect_units(&self, units: u32) -> bool {
        self.core().do_slice(&Slice::of_units(units))
    }

    /// Whether an incremental collection is under way.
    #[must_use]
    pub fn is_collecting(&self) -> bool {
        self.core().epoch.is_active()
    }

    /// A good moment for the collector: does what is due. Allocations do this
    /// by themselves every 64 KiB or more often; who only changes and drops
    /// says it now and then.
    pub fn safe_point(&self) {
        self.core().safe_point();
    }

    /// Frees what large drops have left to later; then everything without a
    /// handle is gone.
    pub fn drain(&self) {
        self.core().drain();
    }

    /// Turns automatic collection off; what is asked for still runs.
    pub fn disable(&self) {
        self.set_enabled(false);
    }

    /// Turns automatic collection on, as it is at first.
    pub fn enable(&self) {
        self.set_enabled(true);
    }

    pub(super) fn set_enabled(&self, enabled: bool) {
        self.core().statistics.enabled.set(enabled);
        self.core().set_fresh_limit();
    }

    /// Whether automatic collection is on.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.core().statistics.enabled.get()
    }

    /// The thresholds: new objects that start a collection of generation 0;
    /// collections of 0 that start one of 1; and of 1 that start one of 2 by
    /// [`OldestRule::Quarter`]. Default (700, 10, 10).
    #[must_use]
    pub fn thresholds(&self) -> (u32, u32, u32) {
        self.core().statistics.thresholds.get()
    }

    /// Sets the thresholds. 0 as the first turns automatic collection off; 0 as
    /// the second or third that of the generation.
    ///
    /// After passes that find nearly nothing the heap waits for up to 64 times
    /// as many objects, until one finds something again.
    pub fn set_thresholds(&self, young: u32, middle: u32, old: u32) {
        let core = self.core();
        core.statistics.thresholds.set((young, middle, old));
        core.young.backoff.set(0);
        core.set_fresh_limit();
    }

    /// What counts toward the thresholds: objects that may be cyclic, made less
    /// freed since the last collection of generation 0; collections of 0 since
    /// the last of 1; and of 1 since the last of 2.
    #[must_use]
    pub fn counts(&self) -> (u32, u32, u32) {
        let core = self.core();
        let (middle, old) = core.statistics.passes.get();
        (u32::try_from(core.fresh.get()).unwrap_or(0), middle, old)
    }

    /// Sets aside all objects there are: no collection looks at them, or at
    /// what only they hold, until [`Heap::unfreeze`]. Counting goes on, and
    /// frees them. Costs what the slabs of 64 KiB cost, not the objects.
    pub fn freeze(&self) {
        let core = self.core();
        if core.epoch.is_active() {
            // Members are looked at to the end; none of them may be taken for new.
            core.finish_epoch();
        }
        for roll in &core.rolls[..3] {
            while let Some(object) = roll.pop().flatten() {
                object.set_generation(3);
                core.buffer(object);
            }
        }
        core.freeze_slabs(true);
    }

    /// Gives the objects that were set aside back. Those that a collection was
    /// to look at come back as the oldest generation, the others as they were.
    pub fn unfreeze(&self) {
        self.core().unfreeze();
    }

    /// Objects set aside that a collection would otherwise be concerned with.
    #[must_use]
    pub fn frozen_count(&self) -> u64 {
        self.core().frozen_objects()
    }

    /// Has `callback` called at the start and at the end of each collection.
    /// It cannot start one. It stays until
    /// [`Heap::remove_callback`] or the end of the heap.
    pub fn on_collection(&self, callback: impl Fn(&CollectionEvent) + 'static) -> CallbackId {
        CallbackId(self.core().statistics.add_callback(Rc::new(callback)))
    }

    /// Calls a callback no more.
    pub fn remove_callback(&self, id: CallbackId) {
        drop(self.core().statistics.remove_callback(id.0));
    }

    // Settings.

    /// The settings.
    #[must_use]
    pub fn options(&self) -> Options {
        self.core().options.get()
    }

    /// Sets the most bytes that slabs and external bytes may have together;
    /// none for no limit. A lower limit frees nothing by itself.
    pub fn set_limit(&self, bytes: Option<u64>) {
        let core = self.core();
        core.limit.set(bytes.unwrap_or(u64::MAX));
        self.change_options(|options| options.limit_bytes = bytes);
    }

    /// Sets the longest slice of incremental work.
    pub fn set_slice(&self, slice: Duration) {
        self.change_options(|options| options.slice = slice);
    }

    /// Sets the pause from which on a warning is told.
    pub fn set_long_pause(&self, pause: Duration) {
        self.change_options(|options| options.long_pause = pause);
    }

    /// Sets the garbage in cycles that may be outstanding: a share of the bytes held, and how
    /// many bytes whatever that is. More means less work for the collector.
    pub fn set_garbage_bound(&self, share: f64, floor_bytes: u64) {
        self.change_options(|options| {
            options.garbage_share = share;
            options.garbage_floor_bytes = floor_bytes;
        });
    }

    /// Sets what starts an automatic collection of the oldest generation.
    pub fn set_oldest_rule(&self, rule: OldestRule) {
        self.change_options(|options| options.oldest_rule = rule);
    }

    pub(super) fn change_options(&self, change: impl FnOnce(&mut Options)) {
        let mut options = self.core().options.get();
        change(&mut options);
        self.core().options.set(options);
    }

    // Seeing.

    /// What was counted since the heap was made.
    #[must_use]
    pub fn stats(&self) -> HeapStats {
        let core = self.core();
        HeapStats {
            live_objects: core.kinds.live(),
            live_bytes: core.kinds.live_bytes(),
            external_bytes: core.external.get(),
            held_bytes: core.held_bytes(),
            allocated_bytes: core.allocated_bytes(),
            queued_objects: core.queued(),
            candidates: core.rolls.iter().map(|roll| u64::from(roll.len())).sum(),
            garbage_bound_bytes: core.garbage_bound(),
            ..core.statistics.counted()
        }
    }

    /// Bytes of slabs in use and of external bytes: what the limit is for.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.core().held_bytes()
    }

    /// Bytes that the heap itself holds at the moment, beside the objects: lists of the collector,
    /// tables of weak references and of allocation sites.
    #[must_use]
    pub fn overhead_bytes(&self) -> u64 {
        let core = self.core();
        let rolls = core.rolls.iter().map(super::roll::Roll::held_bytes);
        let lists = rolls.sum::<u64>() + core.young.held_bytes() + core.epoch.held_bytes();
        lists + core.side_bytes()
    }

    /// Lets [`HeapStats::peak_bytes`] begin anew.
    pub fn reset_peak(&self) {
        let core = self.core();
        core.statistics.reset_peak(core.held_bytes());
    }
}

/// A callback of a heap; see [`Heap::on_collection`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallbackId(u64);

impl Default for Heap {
    fn default() -> Self {
        Self::new()
    }
}

impl Clone for Heap {
    fn clone(&self) -> Self {
        self.core().add_owner();
        Self {
            core: self.core,
            handles: Rc::clone(&self.handles),
            not_send: PhantomData,
        }
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        if Rc::strong_count(&self.handles) == 1 {
            // SAFETY: the handle gives up its ownership, and is the last one.
            unsafe { Core::close(self.core) };
        } else {
            // SAFETY: the handle gives up its ownership.
            unsafe { Core::drop_owner(self.core) };
        }
    }
}

impl fmt::Debug for Heap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heap")
            .field("live_objects", &self.core().kinds.live())
            .field("held_bytes", &self.core().held_bytes())
            .finish_non_exhaustive()
    }
}
