//! Counted handles.
//!
//! The rule that must hold: **the count of an object is the number of its
//! handles**, so that it is freed by the drop of the last one and never before.
#![expect(unsafe_code, reason = "a handle lends the value that it keeps alive")]

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;

use super::core::Object;
use super::layout::flag;
use super::trace::Trace;
use super::weak::Weak;

/// A counted handle to an object of a [`Heap`](super::Heap); one word.
///
/// Clones share the object. When the last handle goes, the object is finalized
/// and freed at once; cycles that nobody refers to are found by the collector.
/// A handle stays on the thread of its heap, and may outlive the heap's own
/// handle; then cycles are not collected any more.
pub struct Gc<T: Trace> {
    at: NonNull<T>,
    owns: PhantomData<T>,
}

impl<T: Trace> Gc<T> {
    /// The handle that a count of the object is for.
    ///
    /// # Safety
    ///
    /// The object is of type `T`, and one of its count is given to the handle.
    #[inline]
    pub(super) unsafe fn from_object(object: Object) -> Self {
        Self {
            at: object.address().cast(),
            owns: PhantomData,
        }
    }

    #[inline]
    pub(super) fn object(&self) -> Object {
        // SAFETY: the handle's share in the count keeps the object there.
        unsafe { Object::at(self.at.cast()) }
    }

    /// Number of handles to the object.
    #[must_use]
    pub fn count(this: &Self) -> u32 {
        this.object().count()
    }

    /// Where the value is: the same for all handles to an object, and different
    /// for objects that are there at the same time.
    #[must_use]
    pub fn address(this: &Self) -> usize {
        this.at.addr().get()
    }

    /// Whether both are handles to one object.
    #[must_use]
    pub fn same(this: &Self, other: &Self) -> bool {
        this.at == other.at
    }

    /// Generation of the object, 0 to 2. Objects grow older by surviving
    /// collections that looked at them; those that no collection has looked at
    /// stay young at no cost.
    #[must_use]
    pub fn generation(this: &Self) -> u8 {
        this.object().generation().min(2) as u8
    }

    /// A reference that does not keep the object alive. Costs no allocation.
    #[must_use]
    pub fn downgrade(this: &Self) -> Weak<T> {
        Weak::to(this.object())
    }
}

impl<T: Trace> Deref for Gc<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the value is there while the object has a handle, and is only lent shared. While
        // garbage is taken apart no handle to it can be dereferenced: see the contract of `Trace`.
        unsafe { self.at.as_ref() }
    }
}

impl<T: Trace> Clone for Gc<T> {
    #[inline]
    fn clone(&self) -> Self {
        let header = self.object();
        let count = header.count();
        if count == u32::MAX {
            too_many_handles();
        }
        header.set_count(count + 1);
        Self {
            at: self.at,
            owns: PhantomData,
        }
    }
}

/// A count that wraps would free an object in use; nothing sensible has four
/// billion handles to one object, so it is a leak of handles.
#[cold]
fn too_many_handles() -> ! {
    std::process::abort()
}

impl<T: Trace> Drop for Gc<T> {
    #[inline]
    fn drop(&mut self) {
        let object = self.object();
        let count = object.count().wrapping_sub(1);
        object.set_count(count);
        if count == 0 {
            object.core().release::<T>(object);
        } else if T::CYCLIC && !object.has(flag::QUIET) {
            object.core().note_drop(object);
        }
    }
}

impl<T: Trace> fmt::Debug for Gc<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the value: in a cycle that would have no end.
        write!(f, "Gc({:#x})", Gc::address(self))
    }
}

impl<T: Trace + fmt::Display> fmt::Display for Gc<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Trace> AsRef<T> for Gc<T> {
    fn as_ref(&self) -> &T {
        self
    }
}
