//! The managed heap, seen from outside: one file for each of its systems.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod aggressive;
mod cache;
mod counting;
#[path = "../../benches/many_pieces.rs"]
mod many_pieces;
mod cycles;
mod generations;
mod macros;
mod tuning;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use filed::heap::leaf;
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
static MEMORY: RwLock<()> = RwLock::new(());
/// For a test that takes much memory: keeps those waiting that measure it.
fn large() -> RwLockReadGuard<'static, ()> {
    MEMORY.read().unwrap_or_else(PoisonError::into_inner)
/// For a test that measures the memory of the process: keeps those waiting that take much.
#[expect(dead_code, reason = "for the tests of memory given back")]
fn alone() -> RwLockWriteGuard<'static, ()> {
    MEMORY.write().unwrap_or_else(PoisonError::into_inner)
