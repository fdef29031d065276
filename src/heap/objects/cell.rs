//! Cells: how values on the heap change.
//!
//! The incremental collector looks at an object at one moment and decides on
//! what it saw at another. In between the program may take a handle out of the
//! object, which changes no count. So the cells tell it: the first time that a
//! cell is opened for change after the collector has seen it, what it holds at
//! that moment is taken to be alive.
//!
//! The rule that must hold: **no handle leaves a cell that the collector has
//! seen without being told to it.**
#![expect(
    unsafe_code,
    reason = "lends what is in the cell, and implements Trace"
)]

use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::ops::{Deref, DerefMut};

use super::core::Object;
use super::handle::Gc;
use super::layout::flag;
use super::trace::{Trace, Tracer};

const WRITING: i32 = -1;

/// What may be changed on the heap: as `RefCell`, with what the collector must hear.
///
/// `std`'s cells cannot be parts of objects, as they have no such thing:
///
/// ```compile_fail
/// use std::cell::RefCell;
/// use filed::heap::{Gc, traced};
/// traced! {
///     struct Node {
///         next: RefCell<Option<Gc<Node>>>,
///     }
/// }
/// ```
pub struct GcCell<T> {
    /// Number of readers, or `WRITING`.
    lent: Cell<i32>,
    /// Seen by the incremental collector, and not opened for change since.
    seen: Cell<bool>,
    value: UnsafeCell<T>,
}

impl<T> GcCell<T> {
    /// A cell with this value.
    pub const fn new(value: T) -> Self {
        Self {
            lent: Cell::new(0),
            seen: Cell::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// Lends the value for reading.
    ///
    /// # Panics
    ///
    /// If it is lent for change.
    #[inline]
    #[track_caller]
    pub fn borrow(&self) -> GcRef<'_, T> {
        self.try_borrow().expect("the cell is lent for change")
    }

    /// Lends the value for reading; none if it is lent for change.
    #[inline]
    pub fn try_borrow(&self) -> Option<GcRef<'_, T>> {
        let lent = self.lent.get();
        if lent < 0 {
            return None;
        }
        self.lent.set(lent.checked_add(1)?);
        Some(GcRef { cell: self })
    }

    /// The value taken out of the cell, when nobody else can see it.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }

    /// The value, by exclusive access.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T: Trace> GcCell<T> {
    /// Lends the value for change.
    ///
    /// # Panics
    ///
    /// If it is lent.
    #[inline]
    #[track_caller]
    pub fn borrow_mut(&self) -> GcRefMut<'_, T> {
        self.try_borrow_mut().expect("the cell is lent")
    }

    /// Lends the value for change; none if it is lent.
    #[inline]
    pub fn try_borrow_mut(&self) -> Option<GcRefMut<'_, T>> {
        if self.lent.get() != 0 {
            return None;
        }
        if self.seen.get() {
            self.tell();
        }
        self.lent.set(WRITING);
        Some(GcRefMut { cell: self })
    }

    /// Puts a value in, and gives the one that was there.
    ///
    /// # Panics
    ///
    /// If it is lent.
    #[track_caller]
    pub fn replace(&self, value: T) -> T {
        std::mem::replace(&mut *self.borrow_mut(), value)
    }

    /// Tells the collector what is in the cell.
    #[cold]
    #[inline(never)]
    fn tell(&self) {
        self.seen.set(false);
        let mut tracer = Tracer::new();
        self.trace(&mut tracer);
        while let Some(held) = tracer.pop() {
            shade(held);
        }
    }
}

/// Takes an object to be alive, if the incremental collector has yet to decide on it.
#[inline]
fn shade(object: Object) {
    if object.has(flag::MEMBER) {
        object.core().epoch.blacken(object);
    }
}

// SAFETY: reports what the value does. A value that is being changed is not looked at, and its
// handles count as held from outside.
unsafe impl<T: Trace> Trace for GcCell<T> {
    const CYCLIC: bool = T::CYCLIC;

    #[inline]
    fn trace(&self, tracer: &mut Tracer) {
        if !T::CYCLIC || self.lent.get() < 0 {
            return;
        }
        if tracer.marks_cells() {
            self.seen.set(true);
        }
        // SAFETY: it is not lent for change, and nobody can ask for that while this runs.
        let value = unsafe { &*self.value.get() };
        value.trace(tracer);
    }
}

impl<T: Default> Default for GcCell<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: fmt::Debug> fmt::Debug for GcCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.try_borrow() {
            Some(value) => f.debug_tuple("GcCell").field(&*value).finish(),
            None => f.write_str("GcCell(lent)"),
        }
    }
}

/// A value lent for reading by a [`GcCell`].
pub struct GcRef<'a, T> {
    cell: &'a GcCell<T>,
}

impl<T> Deref for GcRef<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: while readers are counted nobody gets it for change.
        unsafe { &*self.cell.value.get() }
    }
}

impl<T> Drop for GcRef<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.cell.lent.set(self.cell.lent.get() - 1);
    }
}

impl<T: fmt::Debug> fmt::Debug for GcRef<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A value lent for change by a [`GcCell`].
pub struct GcRefMut<'a, T> {
    cell: &'a GcCell<T>,
}

impl<T> Deref for GcRefMut<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: it is lent to this one alone.
        unsafe { &*self.cell.value.get() }
    }
}

impl<T> DerefMut for GcRefMut<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: it is lent to this one alone.
        unsafe { &mut *self.cell.value.get() }
    }
}

impl<T> Drop for GcRefMut<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.cell.lent.set(0);
    }
}

impl<T: fmt::Debug> fmt::Debug for GcRefMut<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A handle that can be replaced, or none: one word, for the links of graphs.
pub struct Link<T: Trace> {
    to: UnsafeCell<Option<Gc<T>>>,
}

impl<T: Trace> Link<T> {
    /// A link to nothing.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            to: UnsafeCell::new(None),
        }
    }

    /// A link to an object.
    #[must_use]
    pub const fn to(object: Gc<T>) -> Self {
        Self {
            to: UnsafeCell::new(Some(object)),
        }
    }

    /// A handle to what it links to.
    #[inline]
    #[must_use]
    pub fn get(&self) -> Option<Gc<T>> {
        self.peek().clone()
    }

    /// Whether it links to nothing.
    #[inline]
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.peek().is_none()
    }

    /// Links to something else.
    #[inline]
    pub fn set(&self, to: Option<Gc<T>>) {
        drop(self.replace(to));
    }

    /// Links to nothing; gives what it linked to.
    #[inline]
    pub fn take(&self) -> Option<Gc<T>> {
        self.replace(None)
    }

    /// Links to something else; gives what it linked to.
    #[inline]
    pub fn replace(&self, to: Option<Gc<T>>) -> Option<Gc<T>> {
        if T::CYCLIC
            && let Some(old) = self.peek()
        {
            shade(old.object());
        }
        // SAFETY: no reference to the inside is kept by anybody beyond a call of this type, and
        // nothing here calls out.
        let inside = unsafe { &mut *self.to.get() };
        std::mem::replace(inside, to)
    }

    #[inline]
    fn peek(&self) -> &Option<Gc<T>> {
        // SAFETY: as in `replace`; callers let go of the reference before they return.
        unsafe { &*self.to.get() }
    }
}

// SAFETY: it is one handle or none.
unsafe impl<T: Trace> Trace for Link<T> {
    const CYCLIC: bool = true;

    #[inline]
    fn trace(&self, tracer: &mut Tracer) {
        if let Some(to) = self.peek() {
            to.trace(tracer);
        }
    }
}

impl<T: Trace> Default for Link<T> {
    fn default() -> Self {
        Self::none()
    }
}

impl<T: Trace> fmt::Debug for Link<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peek() {
            Some(to) => write!(f, "Link({:#x})", Gc::address(to)),
            None => f.write_str("Link(none)"),
        }
    }
}
