//! Taking garbage apart, in the order of PEP 442: weak references die and their
//! callbacks run; then finalizers run, each once, while all of the garbage is
//! whole; then, if nothing was resurrected, values are dropped, and last the
//! slots become free.
//!
//! After finalizers nothing is assumed: all of it becomes candidates again, and
//! the collector looks a second time. What was resurrected is found alive then;
//! the rest has no finalizer any more and goes.
//!
//! The rules that must hold: **while a value is dropped no handle to any of the
//! garbage can be reached by code that is not ours** (handles to doomed objects
//! only count, see [`flag::DOOMED`]); **slots become free only when all values
//! are dropped.**

use std::cell::{Cell, RefCell};

use super::core::{Core, Known, Object};
use super::layout::flag;
use super::roll::Roll;
use super::stats::Slice;

/// How far a disposal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Callbacks whose watch is garbage as well are looked up: they are not called.
    Watches,
    Weak,
    /// Every object gets one count more, so that finalizers free nothing.
    Hold,
    Finalize,
    /// All become candidates again.
    Undoom,
    Drop,
    Free,
}

/// What a slice of a disposal came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disposed {
    /// There is more to do.
    Partly,
    /// All is gone.
    Gone,
    /// Finalizers ran: the collector has to look again.
    LookAgain,
}

/// Garbage that is being taken apart.
pub(super) struct Disposal {
    dead: Roll<Option<Object>>,
    /// All flags of the dead.
    flags: Cell<u16>,
    step: Cell<Step>,
    cursor: Cell<u32>,
    /// Ids of watches that are garbage, sorted from [`Step::Weak`] on.
    muted: RefCell<Vec<u64>>,
    /// Objects freed since [`Disposal::take_gone`].
    gone: Cell<u64>,
    /// The heap has no handle and no object any more.
    pub(super) last_breath: Cell<bool>,
}

impl Disposal {
    pub(super) const fn new() -> Self {
        Self {
            dead: Roll::new(),
            flags: Cell::new(0),
            step: Cell::new(Step::Watches),
            cursor: Cell::new(0),
            muted: RefCell::new(Vec::new()),
            gone: Cell::new(0),
            last_breath: Cell::new(false),
        }
    }

    /// Adds a dead object, which is in no roll and no member of anything.
    #[inline]
    pub(super) fn add(&self, object: Object) {
        self.flags.set(self.flags.get() | object.flags());
        object.set(flag::DOOMED | flag::QUIET);
        self.dead.push(Some(object));
    }

    pub(super) fn len(&self) -> u32 {
        self.dead.len()
    }

    /// Objects freed since the last call.
    pub(super) fn take_gone(&self) -> u64 {
        self.gone.take()
    }

    fn go_to(&self, step: Step) {
        self.step.set(step);
        self.cursor.set(0);
    }

    fn next(&self) -> Option<Object> {
        let cursor = self.cursor.get();
        if cursor == self.dead.len() {
            return None;
        }
        self.cursor.set(cursor + 1);
        self.dead.get(cursor)
    }

    /// As in CPython: the callback of a weak reference that is garbage itself is not called. One for
    /// an object that is not garbage stays: a finalizer may save the watch.
    fn look_up_watches(&self, slice: &Slice) -> bool {
        let mut tracer = super::trace::Tracer::new();
        while let Some(object) = self.next() {
            tracer.want_watches();
            (object.info().trace)(object, &mut tracer);
            tracer.clear();
            self.muted.borrow_mut().extend(tracer.take_watches());
            if slice.is_over() {
                return false;
            }
        }
        true
    }

    pub(super) fn held_bytes(&self) -> u64 {
        self.dead.held_bytes()
    }

    pub(super) fn shrink(&self) {
        self.dead.shrink();
    }
}

impl Core {
    /// Goes on with taking garbage apart. New candidates from [`Step::Undoom`] go to generation
    /// `again`.
    pub(super) fn dispose(&self, of: &Disposal, again: u16, slice: &Slice) -> Disposed {
        let has = |flags| of.flags.get() & flags != 0;
        loop {
            match of.step.get() {
                Step::Watches => {
                    if has(flag::CALLBACK) && !of.look_up_watches(slice) {
                        return Disposed::Partly;
                    }
                    of.muted.borrow_mut().sort_unstable();
                    of.go_to(Step::Weak);
                }
                Step::Weak => {
                    let muted = of.muted.take();
                    while has(flag::WEAK | flag::CALLBACK)
                        && let Some(object) = of.next()
                    {
                        if object.has(flag::WEAK | flag::CALLBACK) {
                            self.clear_weak(object, &muted);
                        }
                        if slice.is_over() {
                            of.muted.replace(muted);
                            return Disposed::Partly;
                        }
                    }
                    of.go_to(if has(flag::FINALIZE) {
                        Step::Hold
                    } else {
                        Step::Drop
                    });
                }
                Step::Hold => {
                    while let Some(object) = of.next() {
                        object.set_count(object.count() + 1);
                        object.set(flag::HELD);
                        if slice.is_over() {
                            return Disposed::Partly;
                        }
                    }
                    of.go_to(Step::Finalize);
                }
                Step::Finalize => {
                    while let Some(object) = of.next() {
                        if object.has(flag::FINALIZE) {
                            object.clear(flag::FINALIZE);
                            self.run_finalizer(object);
                        }
                        if slice.is_over() {
                            return Disposed::Partly;
                        }
                    }
                    of.go_to(Step::Undoom);
                }
                Step::Undoom => {
                    while let Some(object) = of.dead.pop() {
                        if let Some(object) = object {
                            self.undoom(of, object, again);
                        }
                        if slice.is_over() {
                            return Disposed::Partly;
                        }
                    }
                    of.flags.set(0);
                    of.go_to(Step::Watches);
                    return Disposed::LookAgain;
                }
                Step::Drop => {
                    if !self.drop_values(of, slice) {
                        return Disposed::Partly;
                    }
                    of.gone.set(of.gone.get() + u64::from(of.dead.len()));
                    of.go_to(Step::Free);
                }
                Step::Free => {
                    let known = Known::new(self);
                    while let Some(object) = of.dead.pop() {
                        if let Some(object) = object {
                            if object.has(flag::SITED) {
                                self.sites.forget(object);
                            }
                            self.free(object, known.row_and_info(object).0, true);
                        }
                        if slice.is_over() {
                            return Disposed::Partly;
                        }
                    }
                    of.flags.set(0);
                    of.go_to(Step::Watches);
                    return Disposed::Gone;
                }
            }
        }
    }

    fn undoom(&self, of: &Disposal, object: Object, generation: u16) {
        object.clear(flag::DOOMED | flag::HELD | flag::QUIET);
        object.set(flag::SPARED);
        object.set_generation(generation);
        let count = object.count() - 1;
        object.set_count(count);
        if count == 0 {
            of.gone.set(of.gone.get() + 1);
            self.release_any(object);
        } else {
            self.buffer(object);
        }
    }

    /// Counts an object found alive, if a finalizer saved it.
    pub(super) fn note_alive(&self, object: Object) {
        if object.has(flag::SPARED) {
            object.clear(flag::SPARED);
            self.statistics.note_resurrection();
        }
    }

    /// Drops the values of the dead; whether that is all of them.
    fn drop_values(&self, of: &Disposal, slice: &Slice) -> bool {
        let over = RefCell::new(false);
        let known = Known::new(self);
        self.busy.set(self.busy.get() + 1);
        // One catch for many drops: after a panic it goes on with the next object.
        while !self.guarded("a drop", || {
            while let Some(object) = of.next() {
                if let Some(drop) = known.info(object).drop {
                    drop(object);
                }
                if slice.is_over() {
                    over.replace(true);
                    break;
                }
            }
        }) {}
        self.busy.set(self.busy.get() - 1);
        !over.take() || of.cursor.get() == of.dead.len()
    }
}
