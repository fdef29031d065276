//! A list in chunks: growing it never copies, shrinking it gives memory back a
//! chunk at a time. So neither costs more than one chunk in one step, however
//! long the list is, which a `Vec` cannot promise.
//!
//! The first chunks are small, for the many lists that stay short. The others
//! are so large that the C library maps each for itself: what is freed of a long
//! list goes back to the kernel then, and does not stay between other blocks.
//!
//! The rule that must hold: **no reference to the chunks outlives the call that
//! made it, and no code of others runs meanwhile**: values are plain.

#![expect(
    unsafe_code,
    reason = "the lists of the collector are too hot for a `RefCell`"
)]

use std::cell::{Cell, UnsafeCell};

const SMALL: usize = 1024;
const SMALL_CHUNKS: usize = 16;
const IN_SMALL: usize = SMALL * SMALL_CHUNKS;
/// [`malloc`](crate::heap::malloc) sets the size from which on blocks are mapped to 256 KiB.
const LARGE_BYTES: usize = 256 << 10;

type Chunk<T> = Box<[Cell<T>]>;

/// A list of small values that is changed through shared references.
pub(super) struct Roll<T> {
    chunks: UnsafeCell<Vec<Chunk<T>>>,
    len: Cell<u32>,
}

impl<T: Copy + Default> Roll<T> {
    pub(super) const fn new() -> Self {
        Self {
            chunks: UnsafeCell::new(Vec::new()),
            len: Cell::new(0),
        }
    }

    #[inline]
    pub(super) fn len(&self) -> u32 {
        self.len.get()
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len.get() == 0
    }

    #[inline]
    fn chunks(&self) -> &[Chunk<T>] {
        // SAFETY: exclusive references are made in `change` only, and end there.
        unsafe { &*self.chunks.get() }
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Chunk<T>>)) {
        // SAFETY: callers hold no reference from `chunks`, and `change` calls nothing that could
        // make one.
        change(unsafe { &mut *self.chunks.get() });
    }

    /// Adds a value at the end; gives its index.
    #[inline]
    pub(super) fn push(&self, value: T) -> u32 {
        let index = self.len.get();
        let (chunk, at) = Self::split(index);
        if chunk == self.chunks().len() {
            self.grow(chunk);
        }
        self.chunks()[chunk][at].set(value);
        self.len.set(index.strict_add(1));
        index
    }

    #[cold]
    #[inline(never)]
    fn grow(&self, chunk: usize) {
        self.change(|chunks| chunks.push(Self::chunk(chunk)));
    }

    /// The value at `index`, which must be below the length.
    #[inline]
    pub(super) fn get(&self, index: u32) -> T {
        let (chunk, at) = Self::split(index);
        self.chunks()[chunk][at].get()
    }

    #[inline]
    pub(super) fn set(&self, index: u32, value: T) {
        let (chunk, at) = Self::split(index);
        self.chunks()[chunk][at].set(value);
    }

    /// Takes the last value; a chunk that is not needed any more is freed,
    /// except one to spare.
    #[inline]
    pub(super) fn pop(&self) -> Option<T> {
        let index = self.len.get().checked_sub(1)?;
        let (chunk, at) = Self::split(index);
        self.len.set(index);
        let value = self.chunks()[chunk][at].get();
        if at == 0 && self.chunks().len() > chunk + 1 {
            self.cut(chunk + 1);
        }
        Some(value)
    }

    #[cold]
    #[inline(never)]
    fn cut(&self, chunks_left: usize) {
        self.change(|chunks| chunks.truncate(chunks_left));
    }

    /// Exchanges all that is in two lists.
    pub(super) fn swap(&self, other: &Self) {
        if !std::ptr::eq(self, other) {
            self.change(|mine| other.change(|theirs| std::mem::swap(mine, theirs)));
            self.len.swap(&other.len);
        }
    }

    /// Gives back the chunks that hold nothing.
    pub(super) fn shrink(&self) {
        let needed = self.len.get().checked_sub(1);
        let needed = needed.map_or(0, |last| Self::split(last).0 + 1);
        self.change(|chunks| {
            chunks.truncate(needed);
            chunks.shrink_to_fit();
        });
    }

    /// Bytes that the list holds.
    pub(super) fn held_bytes(&self) -> u64 {
        let chunks = self.chunks().len();
        let small = chunks.min(SMALL_CHUNKS) * SMALL;
        let large = chunks.saturating_sub(SMALL_CHUNKS) * Self::LARGE;
        ((small + large) * size_of::<T>()) as u64
    }

    const LARGE: usize = LARGE_BYTES / size_of::<T>();

    /// The chunk of an index, and the place in it.
    #[inline]
    fn split(index: u32) -> (usize, usize) {
        let index = index as usize;
        match index.checked_sub(IN_SMALL) {
            None => (index / SMALL, index % SMALL),
            Some(beyond) => (SMALL_CHUNKS + beyond / Self::LARGE, beyond % Self::LARGE),
        }
    }

    #[cold]
    fn chunk(number: usize) -> Chunk<T> {
        let places = if number < SMALL_CHUNKS {
            SMALL
        } else {
            Self::LARGE
        };
        (0..places).map(|_| Cell::new(T::default())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_chunks_follow_small_ones() {
        let roll = Roll::new();
        let count = IN_SMALL as u64 + 3 * (LARGE_BYTES as u64 / 8) / 2;
        for value in 0..count {
            roll.push(value);
        }
        assert_eq!(roll.held_bytes(), (IN_SMALL * 8 + 2 * LARGE_BYTES) as u64);
        for value in (0..count).rev() {
            assert_eq!(roll.get(value as u32), value);
            assert_eq!(roll.pop(), Some(value));
        }
        roll.shrink();
        assert_eq!(roll.held_bytes(), 0);
    }

    #[test]
    fn it_is_a_stack_with_places() {
        let roll = Roll::new();
        for value in 0..5000_u64 {
            assert_eq!(u64::from(roll.push(value)), value);
        }
        roll.set(4097, 7);
        assert_eq!((roll.get(4097), roll.get(4096)), (7, 4096));
        assert_eq!(roll.held_bytes(), 5 * 8192);
        for value in (0..5000).rev() {
            let expected = if value == 4097 { 7 } else { value };
            assert_eq!(roll.pop(), Some(expected));
        }
        assert_eq!((roll.pop(), roll.len()), (None, 0));
        assert_eq!(roll.held_bytes(), 8192);
        roll.shrink();
        assert_eq!(roll.held_bytes(), 0);
    }
}
