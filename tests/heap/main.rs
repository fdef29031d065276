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
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use filed::heap::{Heap, Options, leaf, malloc};

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

/// Says to the process which of the tests it was started for.
const ALONE: &str = "FILED_TEST_ALONE";

/// Measures the memory of a process that does nothing but this: `test`, named as the harness
/// names it, is run once more in a process of its own, set up as filed's `main` does it, and only
/// there is `measure` called. What other tests take and give back meanwhile cannot be seen.
fn alone(test: &str, measure: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some_and(|of| of == test) {
        malloc::configure();
        return measure();
    }
    let ended = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ALONE, test)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}{errors}");
    assert!(said.contains("1 passed"), "no test is called {test}");
}
