//! Weak references: handles that do not keep an object alive.
//!
//! A weak reference is the address of the object and a stamp, a number that no
//! other object of the heap ever gets. The stamp lies in a table beside the
//! slab, made when the first object of the slab gets a weak reference; clearing
//! it kills all weak references to the object at once. So a weak reference
//! costs no allocation, and an object without them costs nothing.
//!
//! The rule that must hold: **the segment of the address stays mapped while a
//! weak reference points into it**, which the segment counts.
#![expect(
    unsafe_code,
    reason = "looks up the slab of an object that may be gone"
)]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;

use super::core::{Core, Object};
use super::handle::Gc;
use super::layout::flag;
use super::slab::{SegmentRef, SlabRef};
use super::trace::{Trace, Tracer};

/// A reference to an object that does not keep it alive; made by
/// [`Gc::downgrade`].
pub struct Weak<T: Trace> {
    at: NonNull<u8>,
    stamp: u64,
    of: PhantomData<*const T>,
}

impl<T: Trace> Weak<T> {
    pub(super) fn to(object: Object) -> Self {
        let weak = Self {
            at: object.address(),
            stamp: object.core().stamp(object),
            of: PhantomData,
        };
        weak.segment().add_weak();
        weak
    }

    fn segment(&self) -> SegmentRef {
        // SAFETY: the segment is mapped while the weak reference exists.
        unsafe { SegmentRef::of(self.at) }
    }

    fn alive(&self) -> Option<Object> {
        // SAFETY: the segment is mapped while the weak reference exists.
        let slab = unsafe { SlabRef::of(self.at) };
        if slab.stamp_at(self.at) != self.stamp {
            return None;
        }
        // SAFETY: the stamp is of this object alone and cleared before it is freed, so it is there.
        let object = unsafe { Object::at(self.at) };
        // While finalizers run the weak references of before are dead, and those they make are not.
        (object.count() > 0 && !object.is_lost()).then_some(object)
    }

    /// A handle to the object, if it is still there.
    #[must_use]
    pub fn upgrade(&self) -> Option<Gc<T>> {
        let object = self.alive()?;
        if object.has(flag::MEMBER) && !object.core().epoch.admit(object) {
            return None;
        }
        object.set_count(object.count().checked_add(1)?);
        // SAFETY: the stamp is of an object of type `T`, and the count was raised for the handle.
        Some(unsafe { Gc::from_object(object) })
    }

    /// Whether the object is still there.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.alive().is_some()
    }

    /// Has `callback` called when the object dies, unless the [`Watch`] is
    /// dropped before, or dies in the same cycle of garbage. None if the object
    /// is dead already. A callback that panics is counted, and no harm is done.
    #[must_use]
    pub fn watch(&self, callback: impl FnOnce() + 'static) -> Option<Watch> {
        let object = self.alive()?;
        object.set(flag::CALLBACK);
        let core = object.core();
        core.add_owner();
        Some(Watch {
            id: core.watches.add(self.stamp, Box::new(callback)),
            core: core.pointer(),
        })
    }
}

impl<T: Trace> Clone for Weak<T> {
    fn clone(&self) -> Self {
        self.segment().add_weak();
        Self {
            at: self.at,
            stamp: self.stamp,
            of: PhantomData,
        }
    }
}

impl<T: Trace> Drop for Weak<T> {
    fn drop(&mut self) {
        self.segment().drop_weak();
    }
}

impl<T: Trace> PartialEq for Weak<T> {
    /// Whether both are, or were, of one object.
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at && self.stamp == other.stamp
    }
}

impl<T: Trace> fmt::Debug for Weak<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Weak({:#x})", self.at.addr())
    }
}

// SAFETY: a weak reference holds no object.
unsafe impl<T: Trace> Trace for Weak<T> {
    const CYCLIC: bool = false;
    fn trace(&self, _: &mut Tracer) {}
}

/// Keeps a callback for the death of an object; see [`Weak::watch`].
pub struct Watch {
    id: u64,
    core: NonNull<Core>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({})", self.id)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // SAFETY: a watch is an owner of the core.
        let core = unsafe { self.core.as_ref() };
        let callback = core.watches.cancel(self.id);
        // SAFETY: the watch gives up its ownership.
        unsafe { Core::drop_owner(self.core) };
        // Last, as it may panic.
        drop(callback);
    }
}

// SAFETY: a watch holds no object. It is cyclic so that the collector learns of watches in garbage.
unsafe impl Trace for Watch {
    const CYCLIC: bool = true;
    fn trace(&self, tracer: &mut Tracer) {
        tracer.watch(self.id);
    }
}

type Callback = Box<dyn FnOnce()>;

/// The callbacks of a heap.
#[derive(Default)]
pub(super) struct Watches {
    last: Cell<u64>,
    /// Callbacks by their ids, with the stamps of the objects they are for.
    callbacks: RefCell<HashMap<u64, (u64, Callback)>>,
    by_stamp: RefCell<HashMap<u64, Vec<u64>>>,
}

impl Watches {
    fn add(&self, stamp: u64, callback: Callback) -> u64 {
        let id = self.last.get() + 1;
        self.last.set(id);
        self.callbacks.borrow_mut().insert(id, (stamp, callback));
        self.by_stamp
            .borrow_mut()
            .entry(stamp)
            .or_default()
            .push(id);
        id
    }

    pub(super) fn cancel(&self, id: u64) -> Option<Callback> {
        let (stamp, callback) = self.callbacks.borrow_mut().remove(&id)?;
        let mut by_stamp = self.by_stamp.borrow_mut();
        if let Some(ids) = by_stamp.get_mut(&stamp) {
            ids.retain(|&other| other != id);
            if ids.is_empty() {
                by_stamp.remove(&stamp);
            }
        }
        Some(callback)
    }

    /// The callbacks for the object with this stamp, and their ids.
    fn take(&self, stamp: u64) -> Vec<(u64, Callback)> {
        let ids = self
            .by_stamp
            .borrow_mut()
            .remove(&stamp)
            .unwrap_or_default();
        let mut callbacks = self.callbacks.borrow_mut();
        let taken = ids
            .iter()
            .filter_map(|&id| Some((id, callbacks.remove(&id)?.1)));
        taken.collect()
    }
}

impl Core {
    /// The stamp of an object, which it gets with its first weak reference.
    fn stamp(&self, object: Object) -> u64 {
        let slab = object.slab();
        let slot = slab.slot_of(object.address());
        let stamp = slab.stamp(slot);
        if stamp != 0 {
            return stamp;
        }
        let stamp = self.stamp.get() + 1;
        self.stamp.set(stamp);
        slab.set_stamp(slot, stamp);
        object.set(flag::WEAK);
        stamp
    }

    /// Kills the weak references to an object, and calls their callbacks, except those with ids in
    /// `muted`, which is sorted.
    pub(super) fn clear_weak(&self, object: Object, muted: &[u64]) {
        let slab = object.slab();
        let slot = slab.slot_of(object.address());
        let stamp = slab.stamp(slot);
        slab.set_stamp(slot, 0);
        let had_callbacks = object.has(flag::CALLBACK);
        object.clear(flag::WEAK | flag::CALLBACK);
        if had_callbacks {
            self.busy.set(self.busy.get() + 1);
            for (id, callback) in self.watches.take(stamp) {
                if muted.binary_search(&id).is_ok() {
                    self.guarded("a drop", || drop(callback));
                } else {
                    self.guarded("a callback of a weak reference", callback);
                }
            }
            self.busy.set(self.busy.get() - 1);
        }
    }
}
