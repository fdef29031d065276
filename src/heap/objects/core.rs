//! The core of a heap: giving out slots, taking objects back, and the moments
//! at which the collector may work.
//!
//! The rules that must hold: **an [`Object`] is an owned slot of a mapped
//! segment whose value is initialized, or is being taken apart by the one who
//! holds it**; the core stays where it is and lives as long as any object,
//! handle of the heap or note of external bytes.
#![expect(
    unsafe_code,
    reason = "reads headers beside values, and writes values into slots"
)]

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::mem::{ManuallyDrop, needs_drop};
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::ptr::NonNull;

use super::dispose::Disposal;
use super::epoch::Epoch;
use super::handle::Gc;
use super::kind::{Describe, Kinds, RowRef, TypeInfo};
use super::layout::{CLASSES, CYCLIC_PREFIX, Header, Links, PLAIN_PREFIX, flag};
use super::options::{HeapFull, Options};
use super::roll::Roll;
use super::sites::Sites;
use super::slab::{BUCKETS, SLAB_BYTES, SegmentRef, SlabRef, State, poison, unpoison};
use super::stats::Statistics;
use super::totals::Share;
use super::trace::{Trace, Tracer};
use super::weak::Watches;
use super::young::Young;

/// Nested drops in one call before the rest is queued.
const DROP_DEPTH: u32 = 32;
/// Objects freed in one drop before the rest is left to later moments.
const DROP_BUDGET: u32 = 2048;
/// Objects freed between two looks at the clock while the rest is worked off.
const DRAIN_BUDGET: u32 = 256;
/// Collections at the end of a heap, if each leaves something for the next.
const LAST_ROUNDS: u32 = 16;
/// Bytes allocated between two moments of the collector, at most.
const QUANTUM: i64 = 64 << 10;

/// An object, whatever its type: points at its value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Object(NonNull<u8>);

impl Object {
    /// The object whose value is at `value`.
    ///
    /// # Safety
    ///
    /// It is the value of an owned slot with a valid header, and the pointer was derived from the
    /// map of its segment.
    #[inline]
    pub(super) const unsafe fn at(value: NonNull<u8>) -> Self {
        Self(value)
    }

    #[inline]
    pub(super) fn address(self) -> NonNull<u8> {
        self.0
    }

    #[inline]
    pub(super) fn header(&self) -> &Header {
        // SAFETY: a header lies directly before each value.
        let header = unsafe { self.0.byte_sub(size_of::<Header>()) }.cast::<Header>();
        // SAFETY: it is initialized, and only used through shared references to cells.
        unsafe { header.as_ref() }
    }

    /// The collector's notes. Only for types that may be cyclic.
    #[inline]
    pub(super) fn links(&self) -> &Links {
        // SAFETY: for these types the links lie before the header.
        let links = unsafe { self.0.byte_sub(CYCLIC_PREFIX) }.cast::<Links>();
        // SAFETY: as for the header.
        unsafe { links.as_ref() }
    }

    #[inline]
    pub(super) fn flags(self) -> u16 {
        self.header().flags.get()
    }

    #[inline]
    pub(super) fn has(self, flags: u16) -> bool {
        self.flags() & flags != 0
    }

    #[inline]
    pub(super) fn set(self, flags: u16) {
        let of = &self.header().flags;
        of.set(of.get() | flags);
    }

    #[inline]
    pub(super) fn clear(self, flags: u16) {
        let of = &self.header().flags;
        of.set(of.get() & !flags);
    }

    #[inline]
    pub(super) fn count(self) -> u32 {
        self.header().count.get()
    }

    #[inline]
    pub(super) fn set_count(self, count: u32) {
        self.header().count.set(count);
    }

    /// Found unreachable, and beyond being saved: while finalizers run it is whole, and may be in use
    /// again.
    #[inline]
    pub(super) fn is_lost(self) -> bool {
        self.flags() & (flag::DOOMED | flag::HELD) == flag::DOOMED
    }

    /// One of 0, 1, 2, and 3 for a frozen candidate.
    #[inline]
    pub(super) fn generation(self) -> u16 {
        self.flags() & flag::GENERATION
    }

    #[inline]
    pub(super) fn set_generation(self, generation: u16) {
        let of = &self.header().flags;
        of.set(of.get() & !flag::GENERATION | generation);
    }

    #[inline]
    pub(super) fn slab(self) -> SlabRef {
        // SAFETY: the address is in a slab of a mapped segment, and has the provenance of its map.
        unsafe { SlabRef::of(self.0) }
    }

    #[inline]
    pub(super) fn segment(self) -> SegmentRef {
        // SAFETY: as in `slab`.
        unsafe { SegmentRef::of(self.0) }
    }

    #[inline]
    pub(super) fn core(&self) -> &Core {
        // SAFETY: the segment of an object belongs to a core, which lives while there is an object.
        unsafe { &*self.segment().core() }
    }

    /// Reference to the value.
    ///
    /// # Safety
    ///
    /// The object is of type `T`, its value has not been dropped, and will not be while the
    /// reference is used.
    #[inline]
    pub(super) unsafe fn value<'a, T>(self) -> &'a T {
        // SAFETY: upheld by the caller.
        unsafe { self.0.cast().as_ref() }
    }

    /// For [`TypeInfo::trace`].
    pub(super) fn trace_as<T: Trace>(self, tracer: &mut Tracer) {
        // SAFETY: only called through the type's row, for objects whose values are there.
        unsafe { self.value::<T>() }.trace(tracer);
    }

    /// For [`TypeInfo::finalize`].
    pub(super) fn finalize_as<T: Trace>(self) {
        // SAFETY: only called through the type's row. The handle takes no part in the count: it is
        // not dropped.
        let this = unsafe { Gc::<T>::from_object(self) };
        let this = std::mem::ManuallyDrop::new(this);
        T::finalize(&this);
    }

    /// For [`TypeInfo::drop`].
    pub(super) fn drop_as<T: Trace>(self) {
        let value = self.0.cast::<T>();
        // SAFETY: only called through the type's row, once for each object that is taken apart.
        unsafe { value.drop_in_place() };
    }

    #[inline]
    pub(super) fn row(&self) -> RowRef {
        self.core().kinds.numbered(self.header().kind.get())
    }

    #[inline]
    pub(super) fn info(&self) -> &'static TypeInfo {
        self.row().info.expect("objects have rows of object types")
    }

    /// Bytes of its slot.
    pub(super) fn slot_bytes(self) -> u32 {
        self.slab().slot_bytes()
    }
}

/// What a class allocates from.
struct Claimed {
    /// Slots claimed and not handed out yet.
    slots: Cell<u64>,
    /// Address of the slot of bit 0.
    base: Cell<*mut u8>,
}

/// The slabs of a class.
struct Class {
    current: Cell<Option<SlabRef>>,
    word: Cell<u32>,
    buckets: [Cell<Option<SlabRef>>; BUCKETS],
}

/// A heap, apart from its handles.
pub(super) struct Core {
    /// Bytes to allocate until the collector, the sampler and all else that works now and then has
    /// its next moment.
    countdown: Cell<i64>,
    /// Objects that may be cyclic, allocated less freed since the last pass over generation 0.
    pub(super) fresh: Cell<i32>,
    pub(super) fresh_limit: Cell<i32>,
    pub(super) depth: Cell<u32>,
    budget: Cell<u32>,
    /// Somebody works who must not be disturbed by a collection: a pass, a finalizer, a drop.
    pub(super) busy: Cell<u32>,
    pub(super) kinds: Kinds,
    claimed: [Claimed; CLASSES],
    classes: Box<[Class]>,
    segments: RefCell<Vec<SegmentRef>>,
    pub(super) slabs: Cell<u64>,
    pub(super) frozen_slabs: Cell<u32>,
    pub(super) external: Cell<u64>,
    /// External bytes taken since they last led to work.
    pending: Cell<u64>,
    pub(super) limit: Cell<u64>,
    /// What `countdown` was when it was last set.
    quantum: Cell<i64>,
    /// Bytes allocated in all, external ones not included, except those of the present quantum.
    allocated: Cell<u64>,
    /// Candidates, by generation; the last for frozen ones.
    pub(super) rolls: [Roll<Option<Object>>; 4],
    /// Objects whose count is zero and which wait to be freed.
    queue: Roll<Option<Object>>,
    pub(super) young: Young,
    pub(super) epoch: Epoch,
    pub(super) disposal: Disposal,
    pub(super) statistics: Statistics,
    pub(super) sites: Sites,
    pub(super) watches: Watches,
    pub(super) stamp: Cell<u64>,
    pub(super) tracer: RefCell<Tracer>,
    pub(super) options: Cell<Options>,
    /// Handles of the heap and notes of external bytes.
    owners: Cell<u32>,
    pub(super) orphan: Cell<bool>,
    /// The last collection is yet to come: the last handle went when none could run.
    closing: Cell<bool>,
    pub(super) observed: Cell<Option<std::time::Instant>>,
    pub(super) share: Share,
}

impl Core {
    pub(super) fn new(options: Options) -> NonNull<Core> {
        let core = Box::new(Core {
            countdown: Cell::new(0),
            fresh: Cell::new(0),
            fresh_limit: Cell::new(i32::MAX),
            depth: Cell::new(0),
            budget: Cell::new(0),
            busy: Cell::new(0),
            kinds: Kinds::new(),
            claimed: [const {
                Claimed {
                    slots: Cell::new(0),
                    base: Cell::new(std::ptr::null_mut()),
                }
            }; CLASSES],
            classes: (0..CLASSES)
                .map(|_| Class {
                    current: Cell::new(None),
                    word: Cell::new(0),
                    buckets: Default::default(),
                })
                .collect(),
            segments: RefCell::default(),
            slabs: Cell::new(0),
            frozen_slabs: Cell::new(0),
            external: Cell::new(0),
            pending: Cell::new(0),
            limit: Cell::new(options.limit_bytes.unwrap_or(u64::MAX)),
            quantum: Cell::new(0),
            allocated: Cell::new(0),
            rolls: [const { Roll::new() }; 4],
            queue: Roll::new(),
            young: Young::new(),
            epoch: Epoch::new(),
            disposal: Disposal::new(),
            statistics: Statistics::new(),
            sites: Sites::new(options.sample_bytes),
            watches: Watches::default(),
            stamp: Cell::new(0),
            tracer: RefCell::new(Tracer::new()),
            options: Cell::new(options),
            owners: Cell::new(1),
            orphan: Cell::new(false),
            closing: Cell::new(false),
            observed: Cell::new(None),
            share: Share::default(),
        });
        core.set_fresh_limit();
        core.arm();
        NonNull::from(Box::leak(core))
    }

    // Allocation.

    /// Puts a value on the heap.
    // Always: inlined late, the value would lie in memory and be copied from there.
    #[inline(always)]
    pub(super) fn alloc<T: Trace>(
        &self,
        value: T,
        at: &'static Location<'static>,
    ) -> Result<Gc<T>, HeapFull> {
        let info = const { &<T as Describe>::INFO };
        let class = const { <T as Describe>::INFO.class };
        let bytes = const { super::layout::slot_bytes(<T as Describe>::INFO.class) };
        // If one of the calls below had to drop the value while unwinding, it would have to lie in
        // memory before its slot is known, and be copied for each allocation. A panic of the heap
        // leaks it.
        let value = ManuallyDrop::new(value);
        let left = self.countdown.get() - bytes as i64;
        self.countdown.set(left);
        let mut sampled = false;
        if left < 0 {
            sampled = self.moment();
        }
        if T::CYCLIC {
            let fresh = self.fresh.get() + 1;
            self.fresh.set(fresh);
            if fresh > self.fresh_limit.get() {
                self.collect_young();
            }
        }
        let claimed = &self.claimed[class];
        if claimed.slots.get() == 0
            && let Err(full) = self.refill(class)
        {
            drop(ManuallyDrop::into_inner(value));
            return Err(full);
        }
        let slots = claimed.slots.get();
        let slot = slots.trailing_zeros() as usize;
        claimed.slots.set(slots & (slots - 1));
        let start = claimed.base.get().wrapping_add(slot * bytes);
        unpoison(start, bytes);
        let row = self.kinds.row(info);
        row.made.set(row.made.get() + 1);
        let prefix = const { super::layout::prefix_bytes(<T as Describe>::INFO.class) };
        if prefix == CYCLIC_PREFIX && T::CYCLIC {
            let links = start.cast::<Links>();
            let fresh = Links {
                index: Cell::new(0),
                trial: Cell::new(0),
            };
            // SAFETY: the slot was claimed and not handed out before, so nobody else uses it; the
            // class has room for links, header and value at these places, aligned.
            unsafe { links.write(fresh) };
        }
        let value_at = start.wrapping_add(prefix);
        let header = value_at.wrapping_sub(PLAIN_PREFIX).cast::<Header>();
        let fresh = Header {
            count: Cell::new(1),
            kind: Cell::new(row.kind),
            flags: Cell::new(if T::FINALIZES { flag::FINALIZE } else { 0 }),
        };
        // SAFETY: as above.
        unsafe { header.write(fresh) };
        // SAFETY: as above.
        unsafe { value_at.cast::<T>().write(ManuallyDrop::into_inner(value)) };
        // SAFETY: slots are never at null.
        let value_at = unsafe { NonNull::new_unchecked(value_at) };
        // SAFETY: header and value have just been written.
        let object = unsafe { Object::at(value_at) };
        if sampled {
            self.sites.note(object, at, bytes as u64);
        }
        // SAFETY: the count of 1 is for this handle.
        Ok(unsafe { Gc::from_object(object) })
    }

    /// Claims slots for a class that has none left.
    #[cold]
    #[inline(never)]
    fn refill(&self, class: usize) -> Result<(), HeapFull> {
        let of = &self.classes[class];
        let mut made_room = false;
        // Making room runs code of others, which may allocate in this class itself.
        while self.claimed[class].slots.get() == 0 {
            if let Some(current) = of.current.get() {
                if let Some(claim) = current.claim(of.word.get()) {
                    of.word.set(claim.word);
                    self.claimed[class].slots.set(claim.slots);
                    self.claimed[class].base.set(claim.base);
                    break;
                }
                current.enter(State::Full);
            }
            let slab = match self.take_partial(class) {
                Some(slab) => slab,
                None if self.over_limit(SLAB_BYTES as u64) && !made_room => {
                    of.current.set(None);
                    self.make_room(SLAB_BYTES as u64)?;
                    made_room = true;
                    continue;
                }
                None => {
                    of.current.set(None);
                    self.new_slab(class)?
                }
            };
            slab.enter(State::Current);
            of.current.set(Some(slab));
            of.word.set(0);
        }
        Ok(())
    }

    /// The fullest slab of the class that has room: so that the others drain.
    fn take_partial(&self, class: usize) -> Option<SlabRef> {
        let buckets = &self.classes[class].buckets;
        let slab = buckets.iter().rev().find_map(Cell::get)?;
        self.unlink(slab);
        Some(slab)
    }

    fn new_slab(&self, class: usize) -> Result<SlabRef, HeapFull> {
        let mut segments = self.segments.borrow_mut();
        let slab = segments.iter().find_map(|segment| segment.assign(class));
        let slab = match slab {
            Some(slab) => slab,
            None => {
                let segment = SegmentRef::map(self).map_err(|error| HeapFull {
                    limit_bytes: self.limit.get(),
                    held_bytes: self.held_bytes(),
                    wanted_bytes: SLAB_BYTES as u64,
                    refused_by_system: Some(error.kind()),
                })?;
                // Low addresses first keeps high segments empty.
                let place = segments.partition_point(|other| other.start() < segment.start());
                segments.insert(place, segment);
                segment.assign(class).expect("a new segment has slabs")
            }
        };
        drop(segments);
        self.slabs.set(self.slabs.get() + 1);
        self.statistics.note_held(self.held_bytes());
        Ok(slab)
    }

    /// Bytes of slabs in use, and external ones.
    pub(super) fn held_bytes(&self) -> u64 {
        self.slabs.get() * SLAB_BYTES as u64 + self.external.get()
    }

    fn over_limit(&self, more: u64) -> bool {
        self.held_bytes().saturating_add(more) > self.limit.get()
    }

    /// Collects, because the limit would be exceeded; an error if it still would.
    #[cold]
    fn make_room(&self, more: u64) -> Result<(), HeapFull> {
        if self.is_idle() && !self.orphan.get() {
            self.drain();
            self.collect_all(super::stats::Cause::Limit);
            self.release_claims();
        }
        if !self.over_limit(more) {
            return Ok(());
        }
        self.statistics.note_refusal();
        Err(HeapFull {
            limit_bytes: self.limit.get(),
            held_bytes: self.held_bytes(),
            wanted_bytes: more,
            refused_by_system: None,
        })
    }

    /// Takes note of bytes outside of the heap.
    pub(super) fn add_external(&self, row: RowRef, bytes: u64) -> Result<(), HeapFull> {
        if self.over_limit(bytes) {
            self.make_room(bytes)?;
        }
        row.external.set(row.external.get() + bytes);
        self.external.set(self.external.get() + bytes);
        self.statistics.note_held(self.held_bytes());
        self.epoch.owe(bytes);
        let pending = self.pending.get().saturating_add(bytes);
        if pending < self.epoch.pace.get() as u64 {
            self.pending.set(pending);
        } else {
            self.pending.set(0);
            self.work();
            self.settle();
            self.arm();
        }
        Ok(())
    }

    /// Takes note that external bytes have changed, without asking the limit.
    pub(super) fn change_external(&self, row: RowRef, from: u64, to: u64) {
        row.external.set(row.external.get() - from + to);
        self.external.set(self.external.get() - from + to);
        self.statistics.note_held(self.held_bytes());
        self.epoch.owe(to.saturating_sub(from));
    }

    // Moments.

    /// Sets the countdown to the next moment.
    pub(super) fn arm(&self) {
        let quantum = if self.sites.all() {
            0
        } else {
            QUANTUM
                .min(self.sites.until_sample())
                .min(self.epoch.pace.get())
        };
        self.quantum.set(quantum);
        self.countdown.set(quantum);
    }

    /// Bytes allocated so far.
    pub(super) fn allocated_bytes(&self) -> u64 {
        let now = (self.quantum.get() - self.countdown.get()).max(0);
        self.allocated.get() + now as u64
    }

    /// Takes what was allocated since the last call into account.
    pub(super) fn settle(&self) {
        let bytes = (self.quantum.get() - self.countdown.get()).max(0) as u64;
        self.allocated.set(self.allocated.get() + bytes);
        self.quantum.set(self.countdown.get());
        self.epoch.owe(bytes);
        self.sites.pass(bytes);
    }

    /// The countdown ran out: does what is due. Whether the allocation at hand is to be sampled.
    #[cold]
    #[inline(never)]
    fn moment(&self) -> bool {
        self.settle();
        let sampled = self.sites.hits();
        self.work();
        self.arm();
        sampled
    }

    /// A moment between two units of work.
    pub(super) fn safe_point(&self) {
        self.settle();
        self.work();
        self.arm();
        self.publish();
    }

    /// Does what is due at a moment.
    fn work(&self) {
        if !self.is_idle() {
            return;
        }
        self.drain_slice();
        // Old structures can make garbage without a new object.
        if i64::from(self.rolls[0].len()) > i64::from(self.fresh_limit.get()) {
            self.collect_young();
        }
        self.step();
    }

    /// Whether a collection may run. Not while a value is dropped: what is left of it holds objects
    /// that no member holds any more. And not in finalizers and callbacks.
    #[inline]
    pub(super) fn is_idle(&self) -> bool {
        self.busy.get() == 0 && self.depth.get() == 0
    }

    // Freeing.

    /// [`free`](Self::free) when the type is known: then the slot is found without a look at what
    /// the slab says of itself.
    #[inline]
    pub(super) fn free_typed<T: Trace>(&self, object: Object) {
        let row = self.kinds.row(const { &<T as Describe>::INFO });
        let bytes = const { super::layout::slot_bytes(<T as Describe>::INFO.class) };
        let offset = object.address().addr().get() % SLAB_BYTES;
        self.free_slot(object, (offset / bytes) as u32, row, T::CYCLIC);
    }

    /// Makes the slot of an object free. Its value must have been dropped.
    #[inline]
    pub(super) fn free(&self, object: Object, row: RowRef, cyclic: bool) {
        let slot = object.slab().slot_of(object.address());
        self.free_slot(object, slot, row, cyclic);
    }

    #[inline]
    fn free_slot(&self, object: Object, slot: u32, row: RowRef, cyclic: bool) {
        row.freed.set(row.freed.get() + 1);
        if cyclic {
            self.fresh.set((self.fresh.get() - 1).max(0));
        }
        let slab = object.slab();
        #[cfg(filed_asan)]
        poison(slab.start_of(slot), slab.slot_bytes() as usize);
        slab.put(slot);
        if slab.used.get() < slab.low.get() {
            self.drained(slab);
        }
    }

    /// A slab has few enough used slots now to move to another list, or out of use.
    #[cold]
    #[inline(never)]
    fn drained(&self, slab: SlabRef) {
        match slab.state() {
            State::Current | State::Unused => return,
            State::Full => {}
            State::Partial(_) => self.unlink(slab),
        }
        if slab.used.get() == 0 {
            self.retire(slab);
            Core::breathe(self.pointer());
        } else {
            self.link(slab);
        }
    }

    fn retire(&self, slab: SlabRef) {
        if slab.frozen.replace(false) {
            self.frozen_slabs.set(self.frozen_slabs.get() - 1);
        }
        slab.segment().retire(slab);
        self.slabs.set(self.slabs.get() - 1);
        if self.orphan.get() && self.slabs.get() == 0 && self.owners.get() == 0 {
            // Nobody but the caller knows of the core any more, and it returns.
            self.disposal.last_breath.set(true);
        }
    }

    fn link(&self, slab: SlabRef) {
        if slab.frozen.get() {
            // Nothing is allocated in it until it thaws: only its end is of interest.
            slab.enter(State::Full);
            slab.low.set(1);
            return;
        }
        let bucket = slab.bucket();
        slab.enter(State::Partial(bucket));
        let head = &self.classes[slab.class()].buckets[usize::from(bucket)];
        slab.previous.set(None);
        slab.next.set(head.get());
        if let Some(next) = head.get() {
            next.previous.set(Some(slab));
        }
        head.set(Some(slab));
    }

    fn unlink(&self, slab: SlabRef) {
        let State::Partial(bucket) = slab.state() else {
            return;
        };
        match slab.previous.get() {
            Some(previous) => previous.next.set(slab.next.get()),
            None => self.classes[slab.class()].buckets[usize::from(bucket)].set(slab.next.get()),
        }
        if let Some(next) = slab.next.get() {
            next.previous.set(slab.previous.get());
        }
        slab.next.set(None);
        slab.previous.set(None);
        slab.enter(State::Full);
    }

    /// Gives back the claims of all classes, so that a slot is either free or an object.
    pub(super) fn release_claims(&self) {
        for (of, claimed) in self.classes.iter().zip(&self.claimed) {
            let Some(slab) = of.current.take() else {
                continue;
            };
            slab.unclaim(of.word.get(), claimed.slots.replace(0));
            slab.enter(State::Full);
            if slab.used.get() == 0 {
                self.retire(slab);
            } else if slab.used.get() < slab.slots() {
                self.link(slab);
            }
        }
    }

    /// Freezes or thaws all slabs there are; how many objects they hold.
    pub(super) fn freeze_slabs(&self, frozen: bool) {
        self.release_claims();
        if frozen {
            self.epoch.beside_frozen.set(true);
        }
        let segments = self.segments.borrow();
        for slab in segments.iter().flat_map(|segment| segment.assigned()) {
            if slab.frozen.replace(frozen) == frozen {
                continue;
            }
            let slabs = self.frozen_slabs.get();
            if frozen {
                self.frozen_slabs.set(slabs + 1);
                self.unlink(slab);
                self.link(slab);
            } else {
                self.frozen_slabs.set(slabs - 1);
                slab.enter(State::Full);
                if slab.used.get() < slab.slots() {
                    self.link(slab);
                }
            }
        }
    }

    /// Objects in frozen slabs that the collector could be interested in.
    pub(super) fn frozen_objects(&self) -> u64 {
        let segments = self.segments.borrow();
        let slabs = segments.iter().flat_map(|segment| segment.assigned());
        slabs
            .filter(|slab| slab.frozen.get() && slab.is_cyclic())
            .map(|slab| u64::from(slab.used.get()))
            .sum()
    }

    /// Frees an object whose count has become zero, and what it held alone.
    #[inline]
    pub(super) fn release<T: Trace>(&self, object: Object) {
        if object.has(flag::DOOMED) {
            return;
        }
        if needs_drop::<T>() && self.budget_is_spent() {
            return self.postpone(object);
        }
        // Most that are special are candidates and nothing else.
        if object.flags() & flag::SPECIAL == flag::BUFFERED {
            self.unbuffer(object);
        }
        if !needs_drop::<T>() && !object.has(flag::SPECIAL) {
            return self.free_typed::<T>(object);
        }
        self.nested(|| {
            if object.has(flag::SPECIAL) && !self.farewell(object) {
                return;
            }
            let _frees = FreesTyped::<T> {
                core: self,
                object,
                of: PhantomData,
            };
            object.drop_as::<T>();
        });
    }

    /// [`release`](Self::release) when the type is not known. A panic is caught and counted.
    pub(super) fn release_any(&self, object: Object) {
        let row = object.row();
        let info = object.info();
        self.nested(|| {
            if object.has(flag::SPECIAL) && !self.farewell(object) {
                return;
            }
            let _frees = Frees {
                core: self,
                object,
                row,
                cyclic: info.cyclic,
            };
            if let Some(drop) = info.drop {
                self.guarded("a drop", || drop(object));
            }
        });
    }

    /// Whether the drop at hand has done enough.
    #[inline]
    fn budget_is_spent(&self) -> bool {
        if self.depth.get() == 0 {
            self.budget.set(DROP_BUDGET);
            return false;
        }
        let budget = self.budget.get();
        if self.depth.get() < DROP_DEPTH && budget > 0 {
            self.budget.set(budget - 1);
            return false;
        }
        true
    }

    /// Leaves an object whose count is zero to later.
    fn postpone(&self, object: Object) {
        // The collector has no business with it any more.
        if object.has(flag::MEMBER) {
            self.epoch.keep_queued(object);
        } else if object.has(flag::BUFFERED) {
            self.unbuffer(object);
        }
        object.set(flag::QUEUED);
        self.queue.push(Some(object));
    }

    /// Runs `free` one level deeper. What comes after at the outermost level comes after a panic too.
    #[inline]
    fn nested(&self, free: impl FnOnce()) {
        let _level = Level::enter(self);
        free();
    }

    /// Frees what was queued, within the budget; all of it if there are no moments to come.
    #[inline(never)]
    fn free_queued(&self) {
        while (self.budget.get() > 0 || self.orphan.get())
            && let Some(object) = self.queue.pop().flatten()
        {
            self.budget.set(self.budget.get().saturating_sub(1));
            self.release_any(object);
        }
        if !self.queue.is_empty() {
            self.hurry();
        }
    }

    /// Makes the next allocation a moment.
    pub(super) fn hurry(&self) {
        self.settle();
        self.countdown.set(0);
        self.quantum.set(0);
    }

    /// Objects that wait to be freed.
    pub(super) fn queued(&self) -> u64 {
        u64::from(self.queue.len())
    }

    /// Frees all objects that wait for it.
    pub(super) fn drain(&self) {
        while self.drain_some() {}
    }

    /// Frees waiting objects for the length of a slice.
    fn drain_slice(&self) {
        if self.queue.is_empty() || self.depth.get() > 0 {
            return;
        }
        let longest = self.options.get().slice;
        let slice = super::stats::Slice::start(longest);
        while self.drain_some() && slice.elapsed() < longest {}
        self.statistics
            .note_pause(super::stats::Pause::Drain, slice.elapsed());
    }

    /// Frees some waiting objects; whether there are more.
    fn drain_some(&self) -> bool {
        if self.depth.get() > 0 {
            return false;
        }
        let depth = Depth::enter(self);
        // One budget for all of them: each may be the root of a large tree.
        self.budget.set(DRAIN_BUDGET);
        while self.budget.get() > 0
            && let Some(object) = self.queue.pop().flatten()
        {
            self.budget.set(self.budget.get() - 1);
            self.release_any(object);
        }
        drop(depth);
        !self.queue.is_empty()
    }

    /// Runs code that is not ours, with a panic caught and counted; whether it came through.
    pub(super) fn guarded(&self, what: &str, run: impl FnOnce()) -> bool {
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(()) => true,
            Err(payload) => {
                self.statistics.note_panic();
                // What it was about may panic as well when it is dropped.
                if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
                    std::mem::forget(payload);
                }
                tracing::warn!(what, "a panic on the heap was caught");
                false
            }
        }
    }

    /// What has to happen before an object whose count is zero is freed. False if it must not be
    /// freed by the caller.
    #[cold]
    #[inline(never)]
    fn farewell(&self, object: Object) -> bool {
        if object.has(flag::DOOMED) {
            // Whoever doomed it frees it.
            return false;
        }
        object.clear(flag::QUEUED);
        if object.has(flag::WEAK | flag::CALLBACK) {
            self.clear_weak(object, &[]);
        }
        if object.has(flag::FINALIZE) {
            object.clear(flag::FINALIZE);
            object.set_count(1);
            self.run_finalizer(object);
            let count = object.count() - 1;
            object.set_count(count);
            if count > 0 {
                self.statistics.note_resurrection();
                if object.info().cyclic {
                    self.note_drop(object);
                }
                return false;
            }
            // A finalizer may make weak references too.
            if object.has(flag::WEAK | flag::CALLBACK) {
                self.clear_weak(object, &[]);
            }
        }
        if object.has(flag::MEMBER) {
            self.epoch.forget(object);
        } else if object.has(flag::BUFFERED) {
            self.unbuffer(object);
        }
        if object.has(flag::SITED) {
            self.sites.forget(object);
        }
        true
    }

    pub(super) fn run_finalizer(&self, object: Object) {
        self.busy.set(self.busy.get() + 1);
        let finalize = object.info().finalize;
        self.statistics.note_finalizer();
        self.guarded("a finalizer", || finalize(object));
        self.busy.set(self.busy.get() - 1);
    }

    // Candidates.

    /// A handle to the object was dropped, and others are left: it may be garbage now.
    #[inline(never)]
    pub(super) fn note_drop(&self, object: Object) {
        if object.has(flag::QUIET | flag::DOOMED) {
            return;
        }
        if object.has(flag::MEMBER) {
            self.epoch.touch(object);
        } else {
            if self.is_frozen(object) {
                object.set_generation(3);
            } else if object.generation() == 3 {
                object.set_generation(2);
            }
            self.buffer(object);
        }
    }

    #[inline]
    pub(super) fn is_frozen(&self, object: Object) -> bool {
        self.frozen_slabs.get() > 0 && object.slab().frozen.get()
    }

    /// Makes an object a candidate of its generation.
    #[inline]
    pub(super) fn buffer(&self, object: Object) {
        let index = self.rolls[usize::from(object.generation())].push(Some(object));
        object.links().index.set(index);
        object.links().trial.set(0);
        object.set(flag::BUFFERED | flag::QUIET);
    }

    /// Takes an object out of the candidates.
    pub(super) fn unbuffer(&self, object: Object) {
        let roll = &self.rolls[usize::from(object.generation())];
        let index = object.links().index.get();
        if let Some(last) = roll.pop().flatten()
            && last != object
        {
            roll.set(index, Some(last));
            last.links().index.set(index);
        }
        object.clear(flag::BUFFERED | flag::QUIET);
    }

    /// Adapts the number of new objects that starts a pass to the thresholds.
    pub(super) fn set_fresh_limit(&self) {
        let threshold = self.statistics.thresholds.get().0;
        let limit = if threshold == 0 || !self.statistics.enabled.get() {
            i32::MAX
        } else {
            let limit = u64::from(threshold) << self.young.backoff.get();
            i32::try_from(limit).unwrap_or(i32::MAX)
        };
        self.fresh_limit.set(limit);
    }

    // Walking.

    /// Calls `each` with all objects that are there, except those being taken apart.
    pub(super) fn each_object(&self, mut each: impl FnMut(Object)) {
        self.release_claims();
        let segments = self.segments.borrow().clone();
        for slab in segments.iter().flat_map(SegmentRef::assigned) {
            for slot in 0..slab.slots() {
                if slab.is_free(slot) {
                    continue;
                }
                // SAFETY: the slot is neither free nor claimed, so an object is in it.
                let object = unsafe { Object::at(slab.value_of(slot)) };
                if !object.is_lost() && !object.has(flag::QUEUED) && object.count() > 0 {
                    each(object);
                }
            }
        }
    }

    /// Bytes of tables beside the slabs.
    pub(super) fn side_bytes(&self) -> u64 {
        let segments = self.segments.borrow();
        let slabs = segments.iter().flat_map(SegmentRef::assigned);
        slabs.map(|slab| slab.side_bytes() as u64).sum()
    }

    pub(super) fn with_segments<R>(&self, run: impl FnOnce(&mut Vec<SegmentRef>) -> R) -> R {
        run(&mut self.segments.borrow_mut())
    }

    // The end.

    pub(super) fn add_owner(&self) {
        self.owners.set(self.owners.get() + 1);
    }

    /// Gives up an owner. The last one's going frees the core, if no object is left.
    ///
    /// # Safety
    ///
    /// `core` is a core, and the caller gives up one of its owners.
    pub(super) unsafe fn drop_owner(core: NonNull<Core>) {
        // SAFETY: it lives while it has an owner.
        let this = unsafe { core.as_ref() };
        this.owners.set(this.owners.get() - 1);
        if this.owners.get() == 0 && this.orphan.get() && this.slabs.get() == 0 {
            // SAFETY: nobody refers to it any more.
            unsafe { Core::end(core) };
        }
    }

    /// The collection at the end of the heap; what is frozen, and what drops leave for later, goes too.
    fn collect_last(&self) {
        self.unfreeze();
        for _ in 0..LAST_ROUNDS {
            self.drain();
            self.collect_all(super::stats::Cause::Close);
            if !self.has_work() {
                break;
            }
        }
        self.drain();
    }

    /// Whether there is something to free or to look at.
    fn has_work(&self) -> bool {
        !self.queue.is_empty() || self.rolls.iter().any(|roll| !roll.is_empty())
    }

    /// Gives back what was frozen.
    pub(super) fn unfreeze(&self) {
        self.freeze_slabs(false);
        while let Some(object) = self.rolls[3].pop().flatten() {
            object.set_generation(2);
            self.buffer(object);
        }
    }

    /// Called when the last handle of the heap is dropped.
    ///
    /// # Safety
    ///
    /// As for [`drop_owner`](Self::drop_owner).
    pub(super) unsafe fn close(core: NonNull<Core>) {
        {
            // SAFETY: it lives while it has an owner.
            let this = unsafe { core.as_ref() };
            if this.is_idle() {
                this.collect_last();
            } else {
                // In a drop, or a finalizer that one runs: when that is over.
                this.closing.set(true);
            }
            this.publish();
            this.orphan.set(true);
            this.fresh_limit.set(i32::MAX);
            this.release_claims();
            // Nothing will be told any more. They may hold objects, and thereby the heap.
            let callbacks = this.statistics.take_callbacks();
            this.guarded("a drop", || drop(callbacks));
            if this.is_idle() && this.has_work() {
                this.collect_last();
            }
        }
        // SAFETY: upheld by the caller.
        unsafe { Core::drop_owner(core) };
    }

    /// Frees the core if the object that was just freed was the last of a heap without a handle.
    #[cold]
    pub(super) fn breathe(core: NonNull<Core>) {
        // SAFETY: called by those who have just freed an object, before anybody else could end it.
        let this = unsafe { core.as_ref() };
        if this.depth.get() == 0 && this.disposal.last_breath.get() {
            // SAFETY: no slab is in use and no owner is left, so nobody refers to the core.
            unsafe { Core::end(core) };
        }
    }

    /// # Safety
    ///
    /// Nobody refers to the core any more.
    unsafe fn end(core: NonNull<Core>) {
        // SAFETY: it was leaked from a box in `new`.
        let core = unsafe { Box::from_raw(core.as_ptr()) };
        for segment in core.segments.take() {
            segment.abandon();
        }
    }

    /// The core as what objects and handles refer to.
    pub(super) fn pointer(&self) -> NonNull<Core> {
        NonNull::from(self)
    }
}

/// The type asked for last: in a walk over objects the next is mostly of the same.
pub(super) struct Known<'a> {
    core: &'a Core,
    last: Cell<Option<(u16, RowRef, &'static TypeInfo)>>,
}

impl<'a> Known<'a> {
    pub(super) fn new(core: &'a Core) -> Self {
        Self {
            core,
            last: Cell::new(None),
        }
    }

    /// What the heap knows of the object's type.
    #[inline]
    pub(super) fn info(&self, object: Object) -> &'static TypeInfo {
        self.row_and_info(object).1
    }

    #[inline]
    pub(super) fn row_and_info(&self, object: Object) -> (RowRef, &'static TypeInfo) {
        let kind = object.header().kind.get();
        match self.last.get() {
            Some((last, row, info)) if last == kind => (row, info),
            _ => {
                let row = self.core.kinds.numbered(kind);
                let info = row.info.expect("objects have rows of object types");
                self.last.set(Some((kind, row, info)));
                (row, info)
            }
        }
    }
}

/// Frees a slot when the drop of its value is over, panic or not.
struct Frees<'a> {
    core: &'a Core,
    object: Object,
    row: RowRef,
    cyclic: bool,
}

impl Drop for Frees<'_> {
    fn drop(&mut self) {
        self.core.free(self.object, self.row, self.cyclic);
    }
}

/// A level of nested drops. The outermost one frees what was queued, and ends a heap without a
/// handle: so nothing may come after it that knows the core, as another guard in it would.
struct Level<'a>(ManuallyDrop<Depth<'a>>);

impl<'a> Level<'a> {
    #[inline]
    fn enter(core: &'a Core) -> Self {
        Self(ManuallyDrop::new(Depth::enter(core)))
    }
}

impl Drop for Level<'_> {
    #[inline]
    fn drop(&mut self) {
        let (core, before) = (self.0.core, self.0.before);
        if before == 0 && !core.queue.is_empty() {
            core.free_queued();
        }
        core.depth.set(before);
        if before > 0 {
            return;
        }
        if core.closing.get() && core.is_idle() {
            core.closing.set(false);
            core.add_owner();
            core.collect_last();
            // SAFETY: the owner was added above.
            unsafe { Core::drop_owner(core.pointer()) };
        } else if core.disposal.last_breath.get() {
            Core::breathe(core.pointer());
        }
    }
}

/// As [`Frees`], when the type is known.
struct FreesTyped<'a, T: Trace> {
    core: &'a Core,
    object: Object,
    of: PhantomData<T>,
}

impl<T: Trace> Drop for FreesTyped<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.core.free_typed::<T>(self.object);
    }
}

/// One level of nested drops.
struct Depth<'a> {
    core: &'a Core,
    before: u32,
}

impl<'a> Depth<'a> {
    #[inline]
    fn enter(core: &'a Core) -> Self {
        let before = core.depth.get();
        core.depth.set(before + 1);
        Self { core, before }
    }
}

impl Drop for Depth<'_> {
    #[inline]
    fn drop(&mut self) {
        self.core.depth.set(self.before);
    }
}

#[cfg(not(filed_asan))]
const _: fn(*mut u8, usize) = poison;
