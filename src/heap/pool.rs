//! The pool: a budget, a queue for it, and the memory it pays for.
//!
//! The rule that must hold: **what is held never grows beyond the budget.** A
//! request that would exceed it waits in line, or is refused when it could
//! never fit, before the kernel is asked for anything. Held are whole granules,
//! so the number is exact. Pages that came back stay with the process for the
//! next request until they are trimmed; a request that has to touch fresh pages
//! first gives as many idle ones back as would bring both together above the
//! budget. So the budget also bounds what is resident, except that a lowered one
//! reaches the idle pages with the next trim.
//!
//! One lock guards everything, and nothing slow is done under it: mapping costs
//! a microsecond, giving memory back some eighty per MiB, so that happens
//! outside (`trim`).

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::account::{Account, AccountId, AccountStats, Ledger};
use super::segment::{GRANULE_BYTES, Left};
use super::table::{Place, Sweep, Table};

/// Memory under one budget; clones are the same pool.
#[derive(Clone)]
pub struct Pool {
    state: Arc<Mutex<State>>,
}

/// Why a buffer could not be had.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The request is larger than the whole budget, so waiting is no use.
    #[error("{bytes} bytes for {account} exceed the whole memory budget of {budget_bytes} bytes")]
    TooLarge {
        /// Who asked.
        account: &'static str,
        /// What was asked for.
        bytes: usize,
        /// The budget at that time.
        budget_bytes: u64,
    },
    /// The pool is closed, before the request or while it waited.
    #[error("memory pool is closed")]
    Closed,
    /// The kernel refused to map memory.
    #[error("map {bytes} bytes of memory for {account}")]
    Map {
        /// Who asked.
        account: &'static str,
        /// What was asked for.
        bytes: usize,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The counters of a pool at one moment; they are consistent with each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolStats {
    /// The budget.
    pub budget_bytes: u64,
    /// Bytes in buffers, each rounded up to whole granules of 64 KiB.
    pub held_bytes: u64,
    /// The most `held_bytes` has ever been.
    pub peak_held_bytes: u64,
    /// Address space of all maps, resident or not.
    pub mapped_bytes: u64,
    /// Bytes nobody holds but which the process still occupies; counted in
    /// granules as if buffers were always written to the end.
    pub idle_resident_bytes: u64,
    /// Segments mapped, of 4 MiB each.
    pub segments: usize,
    /// Requests waiting now.
    pub queued: usize,
    /// Requests that had to wait, since the pool was made.
    pub waits: u64,
    /// Trims, since the pool was made.
    pub trims: u64,
    /// Bytes given back to the kernel since the pool was made: by trims, to
    /// stay within the budget, and with buffers that had a map of their own.
    pub returned_bytes: u64,
    /// The owners, in the order of their first appearance.
    pub accounts: Vec<AccountStats>,
}

/// Everything about a pool, behind its lock.
pub(super) struct State {
    budget_bytes: u64,
    held_bytes: u64,
    peak_held_bytes: u64,
    closed: bool,
    queue: VecDeque<Turn>,
    waits: u64,
    pub(super) trims: u64,
    pub(super) returned_bytes: u64,
    ledger: Ledger,
    pub(super) table: Table,
}

/// A place in the queue. Each has a signal of its own, so that only the thread
/// that can go on is woken.
type Turn = Arc<Condvar>;

struct Request {
    account: AccountId,
    bytes: usize,
}

/// Bytes that a buffer of `bytes` bytes holds of the budget: whole granules of 64 KiB.
pub fn held_by(bytes: usize) -> u64 {
    (bytes as u64).next_multiple_of(GRANULE_BYTES as u64)
}

impl Pool {
    /// A pool that holds at most `budget_bytes`; it maps nothing yet.
    pub fn new(budget_bytes: u64) -> Self {
        let state = State {
            budget_bytes,
            held_bytes: 0,
            peak_held_bytes: 0,
            closed: false,
            queue: VecDeque::new(),
            waits: 0,
            trims: 0,
            returned_bytes: 0,
            ledger: Ledger::default(),
            table: Table::default(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The account of that name; the same name is the same account.
    pub fn account(&self, name: &'static str) -> Account {
        let id = self.lock().ledger.open(name);
        Account::new(self.clone(), id)
    }

    /// The budget in bytes.
    pub fn budget(&self) -> u64 {
        self.lock().budget_bytes
    }

    /// Changes the budget to `bytes`. Waiting requests are judged anew: some
    /// may fit now, some may have become too large. Nothing is taken away from
    /// anyone, so more than the budget may stay held until it is given back.
    pub fn set_budget(&self, bytes: u64) {
        let mut state = self.lock();
        state.budget_bytes = bytes;
        state.wake_all();
    }

    /// Refuses all requests from now on, those that wait included. Buffers
    /// out there stay valid.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.wake_all();
    }

    /// The counters as they are now.
    pub fn stats(&self) -> PoolStats {
        let state = self.lock();
        PoolStats {
            budget_bytes: state.budget_bytes,
            held_bytes: state.held_bytes,
            peak_held_bytes: state.peak_held_bytes,
            mapped_bytes: state.table.mapped_bytes(),
            idle_resident_bytes: state.table.idle_bytes(),
            segments: state.table.segments(),
            queued: state.queue.len(),
            waits: state.waits,
            trims: state.trims,
            returned_bytes: state.returned_bytes,
            accounts: state.ledger.rows().to_vec(),
        }
    }

    pub(super) fn take(&self, account: AccountId, bytes: usize) -> Result<Place, TakeError> {
        let request = Request { account, bytes };
        let mut state = self.lock();
        if !state.admits(&request)? || !state.queue.is_empty() {
            state = wait_in_line(state, &request)?;
        }
        self.grant(state, &request)
    }

    pub(super) fn try_take(
        &self,
        account: AccountId,
        bytes: usize,
    ) -> Result<Option<Place>, TakeError> {
        let request = Request { account, bytes };
        let state = self.lock();
        if !state.admits(&request)? || !state.queue.is_empty() {
            return Ok(None);
        }
        self.grant(state, &request).map(Some)
    }

    pub(super) fn give_back(&self, account: AccountId, place: Place) {
        let bytes = place.held_bytes();
        let mut state = match place {
            Place::Nowhere => return,
            Place::Segment { index, pages } => {
                let mut state = self.lock();
                state.table.put(index, pages, Left::Dirty);
                state
            }
            Place::Map(pages) => {
                // Unmapped before it is counted as free, and not under the lock.
                drop(pages);
                let mut state = self.lock();
                state.table.forget_map(bytes);
                state.returned_bytes += bytes;
                state
            }
        };
        state.held_bytes -= bytes;
        state.ledger.release(account, bytes);
        state.wake_first();
    }

    pub(super) fn note(&self, account: AccountId, was: u64, is: u64) {
        self.lock().ledger.note(account, was, is);
    }

    /// Hands memory out to an admitted request.
    fn grant(
        &self,
        mut state: MutexGuard<'_, State>,
        request: &Request,
    ) -> Result<Place, TakeError> {
        let rounded = request.rounded_bytes().expect("admitted, so it has a size");
        let place = state
            .table
            .place(rounded)
            .map_err(|source| TakeError::Map {
                account: state.ledger.name(request.account),
                bytes: request.bytes,
                source,
            })?;
        let bytes = place.held_bytes();
        state.held_bytes += bytes;
        state.peak_held_bytes = state.peak_held_bytes.max(state.held_bytes);
        state.ledger.hold(request.account, bytes);

        let resident_bytes = state.held_bytes + state.table.idle_bytes();
        let over_bytes = resident_bytes.saturating_sub(state.budget_bytes);
        drop(state);
        // No more than this request adds: who comes first after the budget was
        // lowered does not pay for everybody.
        self.sweep(Sweep::everything(over_bytes.min(bytes)));
        Ok(place)
    }

    /// Every change under the lock is whole before anything can panic, so
    /// a panic elsewhere must not keep other threads from their memory.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl State {
    /// Whether the budget has room for the request now; an error if it never
    /// will have.
    fn admits(&self, request: &Request) -> Result<bool, TakeError> {
        if self.closed {
            return Err(TakeError::Closed);
        }
        let bytes = request.rounded_bytes().map(|bytes| bytes as u64);
        match bytes.filter(|bytes| *bytes <= self.budget_bytes) {
            Some(bytes) => Ok(self.held_bytes <= self.budget_bytes - bytes),
            None => Err(TakeError::TooLarge {
                account: self.ledger.name(request.account),
                bytes: request.bytes,
                budget_bytes: self.budget_bytes,
            }),
        }
    }

    fn wake_first(&self) {
        if let Some(turn) = self.queue.front() {
            turn.notify_one();
        }
    }

    fn wake_all(&self) {
        for turn in &self.queue {
            turn.notify_one();
        }
    }
}

impl Request {
    /// The size in whole granules; `None` if there is no such number.
    fn rounded_bytes(&self) -> Option<usize> {
        self.bytes.checked_next_multiple_of(GRANULE_BYTES)
    }
}

/// Waits until the request is the first in line and admitted, or fails.
fn wait_in_line<'a>(
    mut state: MutexGuard<'a, State>,
    request: &Request,
) -> Result<MutexGuard<'a, State>, TakeError> {
    let turn = Turn::default();
    state.queue.push_back(Arc::clone(&turn));
    state.waits += 1;
    let outcome = loop {
        state = turn.wait(state).unwrap_or_else(PoisonError::into_inner);
        let is_first = state.queue.front().is_some_and(|t| Arc::ptr_eq(t, &turn));
        match state.admits(request) {
            Ok(true) if is_first => break Ok(()),
            Ok(_) => {}
            Err(err) => break Err(err),
        }
    };
    state.queue.retain(|other| !Arc::ptr_eq(other, &turn));
    // The next in line may fit beside this one. It looks when we let go of the lock.
    state.wake_first();
    outcome.map(|()| state)
}
