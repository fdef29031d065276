//! Which handles a value holds: how the collector sees the edges of the graph.
//!
//! The rule that must hold: **a value reports each handle in it at most once,
//! and reports none that it does not hold.** A handle that is not reported
//! keeps its object alive, which at worst is a leak; one that is reported
//! without being held would free an object in use. So implementing [`Trace`] is
//! `unsafe`, and outside of this room is done by the macros
//! [`traced!`](crate::traced) and [`leaf!`](crate::leaf), which cannot get it wrong.
#![expect(
    unsafe_code,
    reason = "implements the unsafe trait Trace for types of the standard library"
)]

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};
use std::marker::PhantomData;

use super::core::{Core, Object};
use super::handle::Gc;

/// A type whose values can be objects of a [`Heap`](super::Heap), or parts of them.
///
/// Implemented by [`traced!`](crate::traced) for types that hold handles and by
/// [`leaf!`](crate::leaf) for types that do not; and for the usual types and
/// containers of the standard library. Not for its cells: the incremental
/// collector must hear of changes, which [`GcCell`](super::GcCell) and
/// [`Link`](super::Link) tell it.
///
/// # Safety
///
/// * `trace` reports every [`Gc`] that the value holds at most once for each time it holds it, and
///   none that it does not hold; it changes nothing and runs no code of others.
/// * Between two calls of `trace`, what is reported changes only through a `GcCell` or `Link`.
/// * The type has no `Drop` that reaches objects through reported handles: while garbage is being
///   taken apart, their values may be gone already.
pub unsafe trait Trace: 'static {
    /// Whether an object of this type can be part of a cycle. If not, it costs
    /// the collector nothing, and `trace` must report nothing.
    const CYCLIC: bool;
    /// Whether [`Trace::finalize`] is to be called.
    const FINALIZES: bool = false;

    /// Reports the handles in this value.
    fn trace(&self, tracer: &mut Tracer);

    /// Called once before an object of this type is freed. `this` may be cloned
    /// to somewhere, which resurrects the object.
    fn finalize(_this: &Gc<Self>)
    where
        Self: Sized,
    {
    }
}

/// Collects what values report.
#[derive(Debug)]
pub struct Tracer {
    edges: Vec<Object>,
    watches: Option<Vec<u64>>,
    marks_cells: bool,
    all: bool,
    /// Hears only of objects of this heap, if there is one here: those of another have other types
    /// and places in other lists. To hold one of them counts as holding it from outside.
    only_of: *const Core,
}

impl Tracer {
    pub(super) const fn new() -> Self {
        Self {
            edges: Vec::new(),
            watches: None,
            marks_cells: false,
            all: false,
            only_of: std::ptr::null(),
        }
    }

    /// One that also hears of handles to objects that cannot be in cycles.
    pub(super) fn of_all() -> Self {
        Self {
            all: true,
            ..Self::new()
        }
    }

    /// One for the collections of a heap.
    pub(super) fn hear_only_of(&mut self, core: *const Core) {
        self.only_of = core;
    }

    /// For the incremental collector: notes in each cell that it has seen it.
    pub(super) fn mark_cells(&mut self, marks: bool) {
        self.marks_cells = marks;
    }

    pub(super) fn marks_cells(&self) -> bool {
        self.marks_cells
    }

    /// Asks for the callbacks of weak references that values hold.
    pub(super) fn want_watches(&mut self) {
        self.watches = Some(Vec::new());
    }

    pub(super) fn take_watches(&mut self) -> Vec<u64> {
        self.watches.take().unwrap_or_default()
    }

    #[inline]
    pub(super) fn edge(&mut self, to: Object) {
        if self.only_of.is_null() || std::ptr::eq(self.only_of, to.segment().core()) {
            self.edges.push(to);
        }
    }

    pub(super) fn watch(&mut self, id: u64) {
        if let Some(watches) = &mut self.watches {
            watches.push(id);
        }
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<Object> {
        self.edges.pop()
    }

    pub(super) fn clear(&mut self) {
        self.edges.clear();
        // A value with very many handles must not leave its bulk here for good.
        self.edges.shrink_to(1 << 12);
    }
}

macro_rules! leaves {
    ($($type:ty),* $(,)?) => {$(
        // SAFETY: the type holds no handles.
        unsafe impl Trace for $type {
            const CYCLIC: bool = false;
            #[inline]
            fn trace(&self, _: &mut Tracer) {}
        }
    )*};
}

leaves!(
    (),
    bool,
    char,
    u8,
    u16,
    u32,
    u64,
    u128,
    usize,
    i8,
    i16,
    i32,
    i64,
    i128,
    isize,
    f32,
    f64,
    String,
    &'static str,
    Box<str>,
    std::rc::Rc<str>,
    std::sync::Arc<str>,
    std::path::PathBuf,
    std::ffi::OsString,
    std::time::Duration,
    std::time::Instant,
    std::time::SystemTime,
    std::num::NonZeroU32,
    std::num::NonZeroU64,
);

// SAFETY: holds no value.
unsafe impl<T: 'static> Trace for PhantomData<T> {
    const CYCLIC: bool = false;
    #[inline]
    fn trace(&self, _: &mut Tracer) {}
}

macro_rules! containers {
    ($($container:ident),* $(,)?) => {$(
        // SAFETY: reports each element once; changes need exclusive access to the container.
        unsafe impl<T: Trace> Trace for $container<T> {
            const CYCLIC: bool = T::CYCLIC;
            #[inline]
            fn trace(&self, tracer: &mut Tracer) {
                if T::CYCLIC {
                    for element in self.iter() {
                        element.trace(tracer);
                    }
                }
            }
        }
    )*};
}

containers!(Option, Vec, VecDeque, LinkedList, BinaryHeap, BTreeSet);

// SAFETY: reports each element once; changes need exclusive access to the slice.
unsafe impl<T: Trace> Trace for Box<[T]> {
    const CYCLIC: bool = T::CYCLIC;
    #[inline]
    fn trace(&self, tracer: &mut Tracer) {
        if T::CYCLIC {
            for element in self {
                element.trace(tracer);
            }
        }
    }
}

// SAFETY: reports each element once; changes need exclusive access to the array.
unsafe impl<T: Trace, const N: usize> Trace for [T; N] {
    const CYCLIC: bool = T::CYCLIC;
    #[inline]
    fn trace(&self, tracer: &mut Tracer) {
        if T::CYCLIC {
            for element in self {
                element.trace(tracer);
            }
        }
    }
}

// SAFETY: reports what its value does.
unsafe impl<T: Trace> Trace for Box<T> {
    const CYCLIC: bool = T::CYCLIC;
    #[inline]
    fn trace(&self, tracer: &mut Tracer) {
        (**self).trace(tracer);
    }
}

// SAFETY: reports what either side does.
unsafe impl<T: Trace, E: Trace> Trace for Result<T, E> {
    const CYCLIC: bool = T::CYCLIC || E::CYCLIC;
    #[inline]
    fn trace(&self, tracer: &mut Tracer) {
        match self {
            Ok(value) => value.trace(tracer),
            Err(error) => error.trace(tracer),
        }
    }
}

// SAFETY: reports each element once; changes need exclusive access to the set.
unsafe impl<T: Trace, S: 'static> Trace for HashSet<T, S> {
    const CYCLIC: bool = T::CYCLIC;
    #[inline]
    fn trace(&self, tracer: &mut Tracer) {
        if T::CYCLIC {
            for element in self {
                element.trace(tracer);
            }
        }
    }
}

macro_rules! maps {
    ($($map:ident $(, $state:ident)?;)*) => {$(
        // SAFETY: reports each key and value once; changes need exclusive access to the map.
        unsafe impl<K: Trace, V: Trace $(, $state: 'static)?> Trace for $map<K, V $(, $state)?> {
            const CYCLIC: bool = K::CYCLIC || V::CYCLIC;
            #[inline]
            fn trace(&self, tracer: &mut Tracer) {
                if Self::CYCLIC {
                    for (key, value) in self {
                        key.trace(tracer);
                        value.trace(tracer);
                    }
                }
            }
        }
    )*};
}

maps!(HashMap, S; BTreeMap;);

macro_rules! tuples {
    ($($(($name:ident $at:tt))+;)*) => {$(
        // SAFETY: reports each part once; changes need exclusive access to the tuple.
        unsafe impl<$($name: Trace),+> Trace for ($($name,)+) {
            const CYCLIC: bool = $($name::CYCLIC)||+;
            #[inline]
            fn trace(&self, tracer: &mut Tracer) {
                $(self.$at.trace(tracer);)+
            }
        }
    )*};
}

tuples!(
    (A 0);
    (A 0)(B 1);
    (A 0)(B 1)(C 2);
    (A 0)(B 1)(C 2)(D 3);
    (A 0)(B 1)(C 2)(D 3)(E 4);
    (A 0)(B 1)(C 2)(D 3)(E 4)(F 5);
);

// SAFETY: it is one handle, reported once, unless its object cannot be in a cycle.
unsafe impl<T: Trace> Trace for Gc<T> {
    // Not what T says: for a type that holds handles to its own type that would be circular.
    const CYCLIC: bool = true;
    #[inline]
    fn trace(&self, tracer: &mut Tracer) {
        if T::CYCLIC || tracer.all {
            tracer.edge(self.object());
        }
    }
}
