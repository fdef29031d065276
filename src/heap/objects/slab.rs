//! Segments and slabs: where the slots of objects are, and which are free.
//!
//! A segment is 4 MiB of address space, aligned to its size, so that the
//! segment and the slab of an object are found by masking its address. The
//! first 64 KiB describe the 63 slabs behind them; each slab holds slots of one
//! class. Which slots are free is a bitmap in the description and never a list
//! through the slots: so free pages inside a slab that is in use can be given
//! back, and a walk over all objects needs nothing but the bitmaps.
//!
//! The rule that must hold: **a slot that is not free in the bitmap has one
//! owner**, who got it from [`Slab::claim`] and gives it back with
//! [`Slab::put`] or [`Slab::unclaim`]. A segment stays mapped while one of its
//! slots is owned or a weak reference into it exists.
#![expect(
    unsafe_code,
    reason = "finds descriptions by masking addresses, and gives pages back"
)]

use std::cell::{Cell, OnceCell};
use std::io;
use std::mem::offset_of;
use std::ptr::{self, NonNull};

use super::core::Core;
use super::layout::{SIZES, prefix_bytes, slot_bytes};

/// Size and alignment of a segment.
pub(super) const SEGMENT_BYTES: usize = 4 << 20;
/// Size of a slab.
pub(super) const SLAB_BYTES: usize = 64 << 10;
/// Slabs of a segment, its description included.
pub(super) const SLABS: usize = SEGMENT_BYTES / SLAB_BYTES;
const WORDS: usize = SLAB_BYTES / 16 / 64;
/// Pages are told apart in sixteenths of a slab, or by what the system has if that is more.
const PAGE_BITS: usize = 16;

/// Buckets of slabs by how full they are.
pub(super) const BUCKETS: usize = 8;

/// Description of a slab. All zeros, as the kernel gives it, is an unused one.
#[repr(C)]
pub(super) struct Slab {
    /// Slots that are owned or claimed.
    pub(super) used: Cell<u32>,
    /// Below this number of used slots the slab has to move to another list.
    pub(super) low: Cell<u32>,
    bytes: Cell<u32>,
    /// 2^32 / `bytes`, rounded up: divides by multiplying.
    reciprocal: Cell<u32>,
    slots: Cell<u32>,
    class: Cell<u16>,
    /// Pages that may be resident, a bit each.
    resident: Cell<u16>,
    seen_idle: Cell<u16>,
    state: Cell<State>,
    pub(super) frozen: Cell<bool>,
    /// Neighbours in the list of its bucket.
    pub(super) next: Cell<Option<SlabRef>>,
    pub(super) previous: Cell<Option<SlabRef>>,
    base: Cell<*mut u8>,
    side: OnceCell<Box<Side>>,
    free: [Cell<u64>; WORDS],
}

/// What only some slabs have.
#[derive(Default)]
struct Side {
    /// By slot: the stamp that weak references to its object carry.
    stamps: OnceCell<Box<[Cell<u64>]>>,
    /// By slot: the site that allocated it, while all are traced.
    sites: OnceCell<Box<[Cell<u32>]>>,
}

/// What a slab is at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    /// In no class.
    Unused = 0,
    /// The one its class allocates from.
    Current,
    /// In the list of a bucket.
    Partial(u8),
    /// Without a free slot, in no list.
    Full,
}

/// A slab of a segment that is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SlabRef(NonNull<Slab>);

impl std::ops::Deref for SlabRef {
    type Target = Slab;

    #[inline]
    fn deref(&self) -> &Slab {
        // SAFETY: a `SlabRef` is made from the description of a mapped segment, which stays mapped
        // while anything of this module refers to it (see the module), and descriptions are only
        // ever used through shared references to cells.
        unsafe { self.0.as_ref() }
    }
}

impl SlabRef {
    /// The slab that the address lies in.
    ///
    /// # Safety
    ///
    /// `address` is inside a slab of a segment that is mapped, and was derived from the segment's
    /// map (so that the pointer may be used for all of it).
    #[inline]
    pub(super) unsafe fn of(address: NonNull<u8>) -> SlabRef {
        let segment = SegmentRef::start_of(address);
        let number = (address.addr().get() % SEGMENT_BYTES) / SLAB_BYTES;
        let offset = offset_of!(Segment, slabs) + number * size_of::<Slab>();
        // SAFETY: the description of slab `number` lies in the first slab of the same segment.
        let description = unsafe { segment.byte_add(offset) };
        SlabRef(description.cast())
    }

    /// Number of the slot that the address is in; the address must be of this slab.
    #[inline]
    pub(super) fn slot_of(&self, address: NonNull<u8>) -> u32 {
        let offset = (address.addr().get() % SLAB_BYTES) as u64;
        ((offset * u64::from(self.reciprocal.get())) >> 32) as u32
    }

    /// The segment it is in.
    pub(super) fn segment(&self) -> SegmentRef {
        SegmentRef(SegmentRef::start_of(self.0.cast()).cast())
    }

    /// Its number in the segment.
    pub(super) fn number(&self) -> usize {
        (self.base.get().addr() % SEGMENT_BYTES) / SLAB_BYTES
    }

    /// Address of slot `number`.
    #[cfg(filed_asan)]
    pub(super) fn start_of(&self, number: u32) -> *mut u8 {
        let offset = number as usize * self.bytes.get() as usize;
        self.base.get().wrapping_add(offset)
    }

    /// Address of the value of slot `number`, which must be below [`Slab::slots`].
    pub(super) fn value_of(&self, number: u32) -> NonNull<u8> {
        debug_assert!(number < self.slots.get());
        let offset =
            number as usize * self.bytes.get() as usize + prefix_bytes(self.class.get() as usize);
        let value = self.base.get().wrapping_add(offset);
        // SAFETY: `base` is the start of a slab in a mapped segment, and the slot lies in the slab.
        unsafe { NonNull::new_unchecked(value) }
    }
}

impl Slab {
    /// Makes the slab one of this class, with all slots free.
    pub(super) fn assign(&self, class: usize) {
        let bytes = slot_bytes(class);
        let slots = SLAB_BYTES / bytes;
        self.class.set(class as u16);
        self.bytes.set(bytes as u32);
        self.reciprocal
            .set((1_u64 << 32).div_ceil(bytes as u64) as u32);
        self.slots.set(slots as u32);
        self.used.set(0);
        for (index, word) in self.free.iter().enumerate() {
            let count = slots.saturating_sub(index * 64).min(64);
            word.set(if count == 64 {
                u64::MAX
            } else {
                (1 << count) - 1
            });
        }
    }

    /// Makes the slab unused. All its slots must be free.
    pub(super) fn retire(&mut self) {
        debug_assert_eq!(self.used.get(), 0);
        self.side.take();
    }

    pub(super) fn state(&self) -> State {
        self.state.get()
    }

    pub(super) fn class(&self) -> usize {
        self.class.get() as usize
    }

    /// Whether the objects in it may be members of cycles.
    pub(super) fn is_cyclic(&self) -> bool {
        self.class() >= SIZES
    }

    /// Number of slots.
    pub(super) fn slots(&self) -> u32 {
        self.slots.get()
    }

    /// Size of a slot.
    pub(super) fn slot_bytes(&self) -> u32 {
        self.bytes.get()
    }

    /// Sets the state, and the number of used slots below which it has to change.
    pub(super) fn enter(&self, state: State) {
        self.state.set(state);
        self.low.set(match state {
            State::Unused | State::Current => 0,
            State::Partial(bucket) => self.bucket_start(bucket).max(1),
            State::Full => self.slots.get(),
        });
    }

    /// The bucket for as many used slots as there are now.
    pub(super) fn bucket(&self) -> u8 {
        let fill = self.used.get() as usize * BUCKETS / (self.slots.get() as usize).max(1);
        fill.min(BUCKETS - 1) as u8
    }

    /// The fewest used slots that are in this bucket.
    fn bucket_start(&self, bucket: u8) -> u32 {
        (self.slots.get() * u32::from(bucket)).div_ceil(BUCKETS as u32)
    }

    /// Takes all free slots of the first word that has any, looking from word `from` on and around.
    pub(super) fn claim(&self, from: u32) -> Option<Claim> {
        let words = self.slots.get().div_ceil(64);
        for step in 0..words {
            let at = (from + step) % words;
            let free = &self.free[at as usize];
            let slots = free.get();
            if slots != 0 {
                free.set(0);
                self.used.set(self.used.get() + slots.count_ones());
                self.mark_resident(at);
                let offset = at as usize * 64 * self.bytes.get() as usize;
                return Some(Claim {
                    word: at,
                    slots,
                    base: self.base.get().wrapping_add(offset),
                });
            }
        }
        None
    }

    /// Gives back slots of a claim that were not used.
    pub(super) fn unclaim(&self, word: u32, slots: u64) {
        let free = &self.free[word as usize];
        free.set(free.get() | slots);
        self.used.set(self.used.get() - slots.count_ones());
    }

    /// Makes an owned slot free. The caller looks at [`Slab::low`] then.
    #[inline]
    pub(super) fn put(&self, slot: u32) {
        let free = &self.free[slot as usize / 64 % WORDS];
        let bit = 1 << (slot % 64);
        debug_assert_eq!(free.get() & bit, 0, "a slot was freed twice");
        free.set(free.get() | bit);
        self.used.set(self.used.get() - 1);
    }

    /// Whether the slot is free. A claimed one is not.
    pub(super) fn is_free(&self, slot: u32) -> bool {
        self.free[slot as usize / 64].get() >> (slot % 64) & 1 == 1
    }

    /// The stamp of a slot; 0 if it has none.
    pub(super) fn stamp(&self, slot: u32) -> u64 {
        self.side
            .get()
            .and_then(|side| side.stamps.get())
            .and_then(|stamps| stamps.get(slot as usize))
            .map_or(0, Cell::get)
    }

    /// The stamp of the slot an address is in, or was in before the slab changed its class.
    pub(super) fn stamp_at(&self, address: NonNull<u8>) -> u64 {
        let offset = (address.addr().get() % SLAB_BYTES) as u64;
        self.stamp(((offset * u64::from(self.reciprocal.get())) >> 32) as u32)
    }

    /// Sets the stamp of a slot.
    pub(super) fn set_stamp(&self, slot: u32, stamp: u64) {
        let stamps = &self.side.get_or_init(Box::default).stamps;
        let stamps = stamps.get_or_init(|| vec![Cell::new(0); self.slots.get() as usize].into());
        if let Some(place) = stamps.get(slot as usize) {
            place.set(stamp);
        }
    }

    /// The site that allocated a slot; 0 if it was not noted.
    pub(super) fn site(&self, slot: u32) -> u32 {
        self.side
            .get()
            .and_then(|side| side.sites.get())
            .and_then(|sites| sites.get(slot as usize))
            .map_or(0, Cell::get)
    }

    /// Notes the site that allocated a slot.
    pub(super) fn set_site(&self, slot: u32, site: u32) {
        let sites = &self.side.get_or_init(Box::default).sites;
        let sites = sites.get_or_init(|| vec![Cell::new(0); self.slots.get() as usize].into());
        if let Some(place) = sites.get(slot as usize) {
            place.set(site);
        }
    }

    /// Bytes of its side tables.
    pub(super) fn side_bytes(&self) -> usize {
        let Some(side) = self.side.get() else {
            return 0;
        };
        size_of::<Side>()
            + side.stamps.get().map_or(0, |stamps| size_of_val(&**stamps))
            + side.sites.get().map_or(0, |sites| size_of_val(&**sites))
    }

    fn mark_resident(&self, word: u32) {
        let bytes = self.bytes.get() as usize;
        let start = word as usize * 64 * bytes;
        let end = (start + 64 * bytes).min(SLAB_BYTES);
        let pages = page_mask(start, end);
        self.resident.set(self.resident.get() | pages);
        self.seen_idle.set(self.seen_idle.get() & !pages);
    }

    /// Pages that may be resident although no slot in them is owned.
    pub(super) fn idle_pages(&self) -> u16 {
        if self.used.get() == 0 {
            return self.resident.get();
        }
        let bytes = self.bytes.get() as usize;
        let mut owned = 0;
        let words = (self.slots.get() as usize).div_ceil(64);
        for (index, word) in self.free[..words].iter().enumerate() {
            let in_word = (self.slots.get() as usize - index * 64).min(64);
            let all = if in_word == 64 {
                u64::MAX
            } else {
                (1 << in_word) - 1
            };
            let mut used = !word.get() & all;
            while used != 0 {
                let slot = index * 64 + used.trailing_zeros() as usize;
                let page = page_mask(slot * bytes, (slot + 1) * bytes);
                owned |= page;
                // Skips what ends in the same page.
                let page_end =
                    ((slot * bytes) / (SLAB_BYTES / PAGE_BITS) + 1) * (SLAB_BYTES / PAGE_BITS);
                let next = page_end / bytes;
                let skip = next.saturating_sub(index * 64).min(64);
                let keep = if skip >= 64 { 0 } else { u64::MAX << skip };
                used &= (used - 1) & if next > slot + 1 { keep } else { u64::MAX };
            }
        }
        self.resident.get() & !owned
    }

    /// Pages that were idle at the last look and not claimed since.
    pub(super) fn seen_idle(&self) -> u16 {
        self.seen_idle.get()
    }

    pub(super) fn see_idle(&self, pages: u16) {
        self.seen_idle.set(pages);
    }
}

/// The pages that a range of a slab touches.
fn page_mask(start: usize, end: usize) -> u16 {
    const PAGE: usize = SLAB_BYTES / PAGE_BITS;
    let (first, last) = (start / PAGE, (end - 1) / PAGE);
    let upto = (1_u32 << (last + 1)) - 1;
    (upto & !((1_u32 << first) - 1)) as u16
}

/// Slots taken from a slab, not handed out yet.
pub(super) struct Claim {
    pub(super) word: u32,
    /// A bit for each slot.
    pub(super) slots: u64,
    /// Address of the slot of bit 0.
    pub(super) base: *mut u8,
}

/// Description of a segment, at its start.
#[repr(C)]
pub(super) struct Segment {
    /// The heap; null once that is gone and only weak references are left.
    core: Cell<*const Core>,
    /// Weak references to objects in it, dead or alive.
    weaks: Cell<u64>,
    /// Slabs in use, a bit each; the description's own bit is set.
    assigned: Cell<u64>,
    memory: Cell<Option<Memory>>,
    slabs: [Slab; SLABS],
}

const _: () = assert!(size_of::<Segment>() <= SLAB_BYTES);

/// A segment that is mapped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentRef(NonNull<Segment>);

impl std::ops::Deref for SegmentRef {
    type Target = Segment;

    #[inline]
    fn deref(&self) -> &Segment {
        // SAFETY: a `SegmentRef` points at the description of a mapped segment, which is zeroed
        // memory or what `map` wrote, and is only used through shared references to cells.
        unsafe { self.0.as_ref() }
    }
}

impl SegmentRef {
    /// Maps a new segment for a heap.
    pub(super) fn map(core: *const Core) -> io::Result<SegmentRef> {
        let (memory, start) = Memory::map()?;
        let segment = SegmentRef(start.cast());
        segment.core.set(core);
        segment.assigned.set(1);
        segment.memory.set(Some(memory));
        for (number, slab) in segment.slabs.iter().enumerate() {
            slab.base
                .set(start.as_ptr().wrapping_add(number * SLAB_BYTES));
        }
        poison(
            start.as_ptr().wrapping_add(SLAB_BYTES),
            SEGMENT_BYTES - SLAB_BYTES,
        );
        Ok(segment)
    }

    /// The segment of an address.
    ///
    /// # Safety
    ///
    /// As for [`SlabRef::of`].
    #[inline]
    pub(super) unsafe fn of(address: NonNull<u8>) -> SegmentRef {
        SegmentRef(Self::start_of(address).cast())
    }

    #[inline]
    fn start_of(address: NonNull<u8>) -> NonNull<u8> {
        let offset = address.addr().get() % SEGMENT_BYTES;
        let start = address.as_ptr().wrapping_sub(offset);
        // SAFETY: addresses of segments are never null, as nothing is mapped at 0.
        unsafe { NonNull::new_unchecked(start) }
    }

    /// Where it starts.
    pub(super) fn start(&self) -> usize {
        self.0.addr().get()
    }

    /// The heap; null if it is gone.
    #[inline]
    pub(super) fn core(&self) -> *const Core {
        self.core.get()
    }

    /// Slab `number`.
    pub(super) fn slab(&self, number: usize) -> SlabRef {
        SlabRef(NonNull::from(&self.slabs[number]))
    }

    /// Slabs in use.
    pub(super) fn assigned(&self) -> impl Iterator<Item = SlabRef> {
        let segment = *self;
        let mut left = self.assigned.get() & !1;
        std::iter::from_fn(move || {
            let number = (left != 0).then(|| left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some(segment.slab(number))
        })
    }

    /// Puts an unused slab into use, if there is one; one with resident pages first.
    pub(super) fn assign(&self, class: usize) -> Option<SlabRef> {
        let unused = !self.assigned.get();
        if unused == 0 {
            return None;
        }
        let mut numbers = (0..SLABS).filter(|number| unused >> number & 1 == 1);
        let first = numbers.clone().next()?;
        let number = numbers
            .find(|&number| self.slabs[number].resident.get() != 0)
            .unwrap_or(first);
        self.assigned.set(self.assigned.get() | 1 << number);
        let slab = self.slab(number);
        slab.assign(class);
        Some(slab)
    }

    /// Takes a slab, all of whose slots are free, out of use.
    pub(super) fn retire(&self, slab: SlabRef) {
        let mut description = slab.0;
        // SAFETY: the slab is in no list and has no owned slot, so nobody but this call refers to
        // its description at this moment, and the side tables in it can be taken out.
        let exclusive = unsafe { description.as_mut() };
        exclusive.retire();
        slab.enter(State::Unused);
        self.assigned
            .set(self.assigned.get() & !(1 << slab.number()));
    }

    /// Whether no slab is in use.
    pub(super) fn is_unused(&self) -> bool {
        self.assigned.get() == 1
    }

    /// Whether no weak reference points into it.
    pub(super) fn has_weaks(&self) -> bool {
        self.weaks.get() != 0
    }

    pub(super) fn add_weak(&self) {
        self.weaks.set(self.weaks.get() + 1);
    }

    /// Forgets a weak reference; the last one of a segment without a heap unmaps it.
    pub(super) fn drop_weak(&self) {
        self.weaks.set(self.weaks.get() - 1);
        if self.weaks.get() == 0 && self.core.get().is_null() {
            self.unmap();
        }
    }

    /// The heap is gone: unmaps the segment, or leaves that to the last weak reference.
    ///
    /// No slot may be owned.
    pub(super) fn abandon(&self) {
        self.core.set(ptr::null());
        if self.weaks.get() == 0 {
            self.unmap();
        }
    }

    /// Unmaps the segment. Nothing may be in use in it, and nothing may refer to it afterwards.
    pub(super) fn unmap(&self) {
        unpoison(
            self.0.as_ptr().cast::<u8>().wrapping_add(SLAB_BYTES),
            SEGMENT_BYTES - SLAB_BYTES,
        );
        // The map is moved out of the memory that it owns before that goes.
        let memory = self.memory.take();
        drop(memory);
    }

    /// Gives back pages of a slab, which must be idle; how many bytes that were.
    pub(super) fn release_pages(&self, slab: SlabRef, pages: u16) -> usize {
        let mut pages = pages & slab.idle_pages();
        let mut released = 0;
        let memory = self.memory.take();
        while let Some(owner) = memory.as_ref()
            && pages != 0
        {
            let first = pages.trailing_zeros() as usize;
            let count = (pages >> first).trailing_ones() as usize;
            let page = SLAB_BYTES / PAGE_BITS;
            let start = slab.base.get().wrapping_add(first * page);
            let mask = page_mask(first * page, (first + count) * page);
            pages &= !mask;
            if owner.discard(start, count * page) {
                slab.resident.set(slab.resident.get() & !mask);
                released += count * page;
            }
        }
        self.memory.set(memory);
        released
    }

    /// The first slab from this number on that has resident pages.
    pub(super) fn resident_from(&self, number: usize) -> Option<SlabRef> {
        // The first describes the others.
        let mut slabs = (number.max(1)..SLABS).map(|number| self.slab(number));
        slabs.find(|slab| slab.resident.get() != 0)
    }

    /// Unused slabs with resident pages.
    pub(super) fn unused_resident(&self) -> impl Iterator<Item = SlabRef> {
        let segment = *self;
        let unused = !self.assigned.get();
        (0..SLABS)
            .filter(move |number| unused >> number & 1 == 1)
            .map(move |number| segment.slab(number))
            .filter(|slab| slab.resident.get() != 0)
    }
}

/// The memory of a segment.
#[cfg(not(filed_asan))]
struct Memory {
    map: memmap2::MmapRaw,
}

#[cfg(not(filed_asan))]
impl Memory {
    /// Maps twice the size and uses the aligned half in it: a map cannot be asked for alignment, and
    /// address space that is not touched costs nothing.
    fn map() -> io::Result<(Memory, NonNull<u8>)> {
        let map = memmap2::MmapOptions::new()
            .len(2 * SEGMENT_BYTES)
            .no_reserve_swap()
            .map_anon()?;
        let map = memmap2::MmapRaw::from(map);
        // With huge pages one touched object could cost 2 MiB.
        let _ = map.advise(memmap2::Advice::NoHugePage);
        let unaligned = map.as_mut_ptr();
        let start = unaligned.map_addr(|address| address.next_multiple_of(SEGMENT_BYTES));
        let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok((Memory { map }, start))
    }

    /// Gives pages back; they read as zeros from then on. DONTNEED and not FREE, after which the
    /// memory would still count as ours.
    fn discard(&self, start: *mut u8, bytes: usize) -> bool {
        let offset = start.addr() - self.map.as_mut_ptr().addr();
        let advice = memmap2::UncheckedAdvice::DontNeed;
        // SAFETY: the range lies in the map and nobody owns a slot in it, so nobody reads what is
        // there; whoever gets a slot writes before reading.
        unsafe { self.map.unchecked_advise_range(advice, offset, bytes) }.is_ok()
    }
}

/// Under AddressSanitizer segments come from the allocator it watches, so that what objects own is
/// found by its leak check, and free slots are poisoned.
#[cfg(filed_asan)]
struct Memory {
    start: NonNull<u8>,
}

#[cfg(filed_asan)]
impl Memory {
    const LAYOUT: std::alloc::Layout =
        match std::alloc::Layout::from_size_align(SEGMENT_BYTES, SEGMENT_BYTES) {
            Ok(layout) => layout,
            Err(_) => panic!("a segment has a layout"),
        };

    fn map() -> io::Result<(Memory, NonNull<u8>)> {
        // SAFETY: the size is not zero.
        let start = unsafe { std::alloc::alloc_zeroed(Self::LAYOUT) };
        let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok((Memory { start }, start))
    }

    fn discard(&self, _: *mut u8, _: usize) -> bool {
        true
    }
}

#[cfg(filed_asan)]
impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `map` with the same layout, and dropped once.
        unsafe { std::alloc::dealloc(self.start.as_ptr(), Self::LAYOUT) };
    }
}

#[cfg(filed_asan)]
unsafe extern "C" {
    fn __asan_poison_memory_region(start: *const std::ffi::c_void, bytes: usize);
    fn __asan_unpoison_memory_region(start: *const std::ffi::c_void, bytes: usize);
}

/// Tells AddressSanitizer that nobody may use this memory.
#[inline]
pub(super) fn poison(start: *mut u8, bytes: usize) {
    #[cfg(filed_asan)]
    // SAFETY: only notes the range in the sanitizer's shadow; the range is ours.
    unsafe {
        __asan_poison_memory_region(start.cast(), bytes)
    };
    #[cfg(not(filed_asan))]
    let _ = (start, bytes);
}

/// Tells AddressSanitizer that this memory may be used again.
#[inline]
pub(super) fn unpoison(start: *mut u8, bytes: usize) {
    #[cfg(filed_asan)]
    // SAFETY: as for `poison`.
    unsafe {
        __asan_unpoison_memory_region(start.cast(), bytes)
    };
    #[cfg(not(filed_asan))]
    let _ = (start, bytes);
}
