//! The managed heap, seen from outside: one file for each of its systems.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod aggressive;
mod batch;
mod cache;
mod counting;
mod cycles;
mod generations;
mod hostile;
mod leaks;
mod macros;
#[path = "../../benches/many_pieces.rs"]
mod many_pieces;
mod model;
mod pressure;
mod profiling;
mod records;
mod small_graphs;
mod tuning;
mod units;
mod weak_cache;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use filed::heap::{Heap, Options, leaf};

/// What finalizers and callbacks have said, in order. Clones are of one log.
#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<String>>>);
leaf!(Log);

impl Log {
    fn say(&self, what: impl Into<String>) {
        self.0.borrow_mut().push(what.into());
    }

    /// What was said since the last call.
    fn take(&self) -> Vec<String> {
        self.0.take()
    }
}

/// A heap that gives up no collection for the time it takes: what it does
/// follows from what is asked of it, on the slowest machine too.
fn unhurried() -> Heap {
    Heap::with(Options {
        longest_young: Duration::MAX,
        slice: Duration::MAX,
        ..Options::default()
    })
}

static MEMORY: RwLock<()> = RwLock::new(());

/// For a test that takes much memory: keeps those waiting that measure it.
fn large() -> RwLockReadGuard<'static, ()> {
    MEMORY.read().unwrap_or_else(PoisonError::into_inner)
}

/// For a test that measures the memory of the process: keeps those waiting that take much.
fn alone() -> RwLockWriteGuard<'static, ()> {
    MEMORY.write().unwrap_or_else(PoisonError::into_inner)
}
