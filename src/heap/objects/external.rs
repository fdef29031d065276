//! External bytes: bulk that objects hold outside of the heap, such as strings
//! and vectors, and that counts against the heap's limit all the same.
//!
//! The rule that must hold: **an [`External`] accounts for what it holds from
//! its making to its end**, so that nobody has to remember to.
#![expect(unsafe_code, reason = "implements Trace")]

use std::fmt;
use std::ops::Deref;

use super::core::Core;
use super::heap::Heap;
use super::kind::RowRef;
use super::options::HeapFull;
use super::trace::{Trace, Tracer};

/// What has bytes outside of itself.
pub trait Bulk {
    /// Bytes that the value holds beside its own size.
    fn bulk_bytes(&self) -> usize;
}

impl<T> Bulk for Vec<T> {
    fn bulk_bytes(&self) -> usize {
        self.capacity() * size_of::<T>()
    }
}

impl<T> Bulk for Box<[T]> {
    fn bulk_bytes(&self) -> usize {
        size_of_val::<[T]>(self)
    }
}

impl Bulk for Box<str> {
    fn bulk_bytes(&self) -> usize {
        self.len()
    }
}

impl Bulk for String {
    fn bulk_bytes(&self) -> usize {
        self.capacity()
    }
}

impl Bulk for crate::heap::Buffer {
    fn bulk_bytes(&self) -> usize {
        self.len()
    }
}

/// A value whose external bytes a heap accounts for, under the value's type.
///
/// It lends the value for reading only, so that its size stays what it was;
/// [`External::update`] changes it and takes the new size into account.
pub struct External<T: Bulk + 'static> {
    value: T,
    bytes: u64,
    row: RowRef,
    core: std::ptr::NonNull<Core>,
}

impl<T: Bulk> External<T> {
    /// Takes a value into account.
    ///
    /// # Errors
    ///
    /// [`HeapFull`] if its bytes would exceed the limit of the heap even after a
    /// collection; the value is dropped.
    pub fn new(heap: &Heap, value: T) -> Result<Self, HeapFull> {
        let core = heap.core();
        let bytes = value.bulk_bytes() as u64;
        let row = core.kinds.external_row::<T>();
        core.add_external(row, bytes)?;
        core.add_owner();
        Ok(Self {
            value,
            bytes,
            row,
            core: core.pointer(),
        })
    }

    /// Bytes that are accounted for.
    #[must_use]
    pub fn bytes(this: &Self) -> u64 {
        this.bytes
    }

    /// Changes the value, and takes its new size into account, whether the heap
    /// has room for it or not: the bytes are there already.
    pub fn update<R>(this: &mut Self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut this.value);
        let bytes = this.value.bulk_bytes() as u64;
        // SAFETY: an external value is an owner of the core.
        let core = unsafe { this.core.as_ref() };
        core.change_external(this.row, this.bytes, bytes);
        this.bytes = bytes;
        result
    }
}

impl<T: Bulk> Deref for External<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Bulk> Drop for External<T> {
    fn drop(&mut self) {
        {
            // SAFETY: an external value is an owner of the core.
            let core = unsafe { self.core.as_ref() };
            core.change_external(self.row, self.bytes, 0);
        }
        // SAFETY: it gives up its ownership.
        unsafe { Core::drop_owner(self.core) };
    }
}

impl<T: Bulk + fmt::Debug> fmt::Debug for External<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

// SAFETY: it reports nothing; handles in it, if there are any, count as held from outside.
unsafe impl<T: Bulk + 'static> Trace for External<T> {
    const CYCLIC: bool = false;
    fn trace(&self, _: &mut Tracer) {}
}
