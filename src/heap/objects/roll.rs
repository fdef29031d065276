//! A list in chunks: growing it never copies, shrinking it gives memory back a
//! chunk at a time. So neither costs more than one chunk in one step, however
//! long the list is, which a `Vec` cannot promise.

use std::cell::{Cell, RefCell};

const CHUNK: usize = 1024;

type Chunk<T> = Box<[Cell<T>; CHUNK]>;

/// A list of small values that is changed through shared references.
pub(super) struct Roll<T> {
    chunks: RefCell<Vec<Chunk<T>>>,
    len: Cell<u32>,
}

impl<T: Copy + Default> Roll<T> {
    pub(super) const fn new() -> Self {
        Self {
            chunks: RefCell::new(Vec::new()),
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

    /// Adds a value at the end; gives its index.
    #[inline]
    pub(super) fn push(&self, value: T) -> u32 {
        let index = self.len.get();
        let (chunk, at) = split(index);
        let mut chunks = self.chunks.borrow_mut();
        if chunk == chunks.len() {
            chunks.push(new_chunk());
        }
        chunks[chunk][at].set(value);
        self.len.set(index.strict_add(1));
        index
    }

    /// The value at `index`, which must be below the length.
    #[inline]
    pub(super) fn get(&self, index: u32) -> T {
        let (chunk, at) = split(index);
        self.chunks.borrow()[chunk][at].get()
    }

    #[inline]
    pub(super) fn set(&self, index: u32, value: T) {
        let (chunk, at) = split(index);
        self.chunks.borrow()[chunk][at].set(value);
    }

    /// Takes the last value; a chunk that is not needed any more is freed,
    /// except one to spare.
    #[inline]
    pub(super) fn pop(&self) -> Option<T> {
        let index = self.len.get().checked_sub(1)?;
        let (chunk, at) = split(index);
        self.len.set(index);
        let mut chunks = self.chunks.borrow_mut();
        let value = chunks[chunk][at].get();
        if at == 0 {
            chunks.truncate(chunk + 1);
        }
        Some(value)
    }

    /// Gives back the chunks that hold nothing.
    pub(super) fn shrink(&self) {
        let needed = (self.len.get() as usize).div_ceil(CHUNK);
        let mut chunks = self.chunks.borrow_mut();
        chunks.truncate(needed);
        chunks.shrink_to_fit();
    }

    /// Bytes that the list holds.
    pub(super) fn held_bytes(&self) -> u64 {
        (self.chunks.borrow().len() * size_of::<[Cell<T>; CHUNK]>()) as u64
    }
}

fn split(index: u32) -> (usize, usize) {
    (index as usize / CHUNK, index as usize % CHUNK)
}

fn new_chunk<T: Copy + Default>() -> Chunk<T> {
    Box::new(std::array::from_fn(|_| Cell::new(T::default())))
}

#[cfg(test)]
mod tests {
    use super::*;

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
