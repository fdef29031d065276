//! What an object looks like in memory, and which sizes of slots there are.
//!
//! ```text
//! acyclic type:            | header 8 | value ...
//! type that may be cyclic: | links 8 | header 8 | value ...
//!                                               ^ what a Gc points at
//! ```
//!
//! A slot belongs to a size class; a class is for one of the two shapes, so a
//! slot's header is found from the slot alone. Values of acyclic types pay
//! nothing for the collector: neither the links nor a look at them.

use std::cell::Cell;

/// Reference count, type and state of an object; directly before its value.
#[repr(C, align(8))]
pub(super) struct Header {
    /// Handles to the object.
    pub(super) count: Cell<u32>,
    /// Row of its type in the heap's table of types.
    pub(super) kind: Cell<u16>,
    /// See [`flag`].
    pub(super) flags: Cell<u16>,
}

/// The collector's notes about an object; before the header of types that may
/// be cyclic. What they mean depends on the flags.
#[repr(C, align(8))]
pub(super) struct Links {
    /// Place in the roll of candidates or of members that it is in.
    pub(super) index: Cell<u32>,
    /// References found from other members of the same pass.
    pub(super) trial: Cell<u32>,
}

/// The bits of [`Header::flags`].
pub(super) mod flag {
    /// Two bits of generation: 0, 1, 2, and 3 for frozen candidates.
    pub(crate) const GENERATION: u16 = 0b11;
    /// In the roll of candidates of its generation, or a member of a pass
    /// that runs right now; `index` is its place there.
    pub(crate) const BUFFERED: u16 = 1 << 2;
    /// Member of the incremental epoch; `index` is its place there.
    pub(crate) const MEMBER: u16 = 1 << 3;
    /// Proven live in the pass or epoch that it is a member of.
    pub(crate) const BLACK: u16 = 1 << 4;
    /// Used by the program since it became a member of the epoch.
    pub(crate) const TOUCHED: u16 = 1 << 5;
    /// Dropping a handle has nothing to tell the collector.
    pub(crate) const QUIET: u16 = 1 << 6;
    /// Found unreachable; drops of handles only count.
    pub(crate) const DOOMED: u16 = 1 << 7;
    /// Has a finalizer that has not run yet.
    pub(crate) const FINALIZE: u16 = 1 << 8;
    /// There is or was a weak reference: its slot has a stamp.
    pub(crate) const WEAK: u16 = 1 << 9;
    /// A weak reference to it has a callback.
    pub(crate) const CALLBACK: u16 = 1 << 10;
    /// Its allocation site is on record.
    pub(crate) const SITED: u16 = 1 << 11;
    /// Its count is zero and it waits for its turn to be freed.
    pub(crate) const QUEUED: u16 = 1 << 12;
    /// Doomed, but whole and with a count more while finalizers run: they may
    /// give away handles and weak references to it.
    pub(crate) const HELD: u16 = 1 << 13;

    /// Was garbage when finalizers ran, and has not been looked at since.
    pub(crate) const SPARED: u16 = 1 << 14;

    /// Freeing an object with none of these is nothing but giving back its slot.
    pub(crate) const SPECIAL: u16 =
        BUFFERED | MEMBER | DOOMED | FINALIZE | WEAK | CALLBACK | SITED | QUEUED;
}

/// Bytes before the value of an acyclic type.
pub(super) const PLAIN_PREFIX: usize = size_of::<Header>();
/// Bytes before the value of a type that may be cyclic.
pub(super) const CYCLIC_PREFIX: usize = size_of::<Links>() + size_of::<Header>();

/// Largest slot; a value that does not fit should hold its bulk in a box.
pub(super) const MAX_SLOT_BYTES: usize = 32 << 10;

const FINE_STEP: usize = 8;
const SMALLEST: usize = 16;
/// Up to here sizes go in steps of 8 bytes, from here on 8 to a doubling.
const FINE_END: usize = 128;
const FINE: usize = (FINE_END - SMALLEST) / FINE_STEP + 1;
const PER_DOUBLING: usize = 8;
const DOUBLINGS: usize = (MAX_SLOT_BYTES / FINE_END).trailing_zeros() as usize;

/// Number of slot sizes.
pub(super) const SIZES: usize = FINE + PER_DOUBLING * DOUBLINGS;
/// Number of classes: each size for both shapes of objects.
pub(super) const CLASSES: usize = 2 * SIZES;

/// Size in bytes of the slots of a class.
pub(super) const fn slot_bytes(class: usize) -> usize {
    let size = class % SIZES;
    if size < FINE {
        return SMALLEST + size * FINE_STEP;
    }
    let coarse = size - FINE;
    let base = FINE_END << (coarse / PER_DOUBLING);
    base + base / PER_DOUBLING * (coarse % PER_DOUBLING + 1)
}

/// Bytes before the value in a slot of this class.
pub(super) const fn prefix_bytes(class: usize) -> usize {
    if class < SIZES {
        PLAIN_PREFIX
    } else {
        CYCLIC_PREFIX
    }
}

/// The class for values of this size and alignment.
///
/// Alignments above 8 put the value 16 bytes into the slot whatever its shape:
/// so only types that may be cyclic have them, which costs acyclic ones 8 bytes.
pub(super) const fn class_of(bytes: usize, align: usize, cyclic: bool) -> usize {
    assert!(
        align <= 16,
        "an alignment above 16 bytes is not supported on the heap: use a box"
    );
    let shape = if cyclic || align > 8 { SIZES } else { 0 };
    let need = bytes + prefix_bytes(shape);
    assert!(
        need <= MAX_SLOT_BYTES,
        "the type is too large for the heap: put its bulk in a box"
    );
    let mut size = 0;
    while slot_bytes(size) < need || (align > 8 && !slot_bytes(size).is_multiple_of(16)) {
        size += 1;
    }
    shape + size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_ascend_and_waste_at_most_an_eighth() {
        assert_eq!(slot_bytes(0), SMALLEST);
        assert_eq!(slot_bytes(SIZES - 1), MAX_SLOT_BYTES);
        for size in 1..SIZES {
            let (before, here) = (slot_bytes(size - 1), slot_bytes(size));
            assert!(
                before < here && here - before <= (before / 8).max(8),
                "{before} {here}"
            );
            assert!(here.is_multiple_of(8));
        }
    }

    #[test]
    fn the_class_fits_the_value() {
        for bytes in 0..2000 {
            for (align, cyclic) in [(1, false), (8, true), (8, false), (16, true), (16, false)] {
                let class = class_of(bytes, align, cyclic);
                let prefix = prefix_bytes(class);
                assert!(slot_bytes(class) >= bytes + prefix);
                assert!(
                    prefix.is_multiple_of(align.max(8))
                        && slot_bytes(class).is_multiple_of(align.max(8))
                );
            }
        }
        assert_eq!(slot_bytes(class_of(24, 8, false)), 32);
    }
}
