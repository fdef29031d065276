//! What workers have written and nobody has committed yet.
//!
//! A *checkpoint* is a number. A worker takes part in one by writing out its frame and depositing what
//! its pack has got since; then everything it claimed before is in a file. When every worker has
//! taken part, the committer syncs the packs and commits, and the streams that wait for no later
//! checkpoint are acknowledged. Workers do not wait for any of that.

use std::fs::File;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::stream::StreamTotals;
use crate::store::StoreError;
use crate::store::catalog::NewVersion;
use crate::store::index::{PackRow, PieceRow};

/// What a pack has got since it was last deposited.
pub(super) struct Deposit {
    /// The pack as it is now.
    pub row: PackRow,
    /// Its file, to be synced.
    pub file: Arc<File>,
    /// Pieces since the last deposit.
    pub pieces: Vec<PieceRow>,
}

/// A stream whose version record is written.
pub(super) struct Finished {
    /// Its version.
    pub version: NewVersion,
    /// The checkpoint it waits for.
    pub durable_at: u64,
    /// Its path, to be shown.
    pub path: std::path::PathBuf,
    /// When it was opened.
    pub opened: Instant,
    /// The number that the feed gave it.
    pub number: u64,
    /// Its share in packs, complete when the checkpoint is.
    pub totals: Arc<StreamTotals>,
}

/// Work that is due at the next commit.
#[derive(Default)]
pub(super) struct Ledger {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    deposits: Vec<Deposit>,
    finished: Vec<Finished>,
    /// Bytes and pieces written to packs since the last commit began.
    uncommitted: Uncommitted,
    /// The last checkpoint of each worker; `None` when it has ended.
    reported: Vec<Option<u64>>,
    failure: Option<Arc<StoreError>>,
}

/// What a crash would lose, or make the next process look for.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Uncommitted {
    /// Bytes appended to packs.
    pub stored_bytes: u64,
    /// Pieces claimed.
    pub pieces: u64,
    /// When the oldest of it came.
    pub since: Option<Instant>,
}

/// Where the workers are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Workers {
    /// Some are at work.
    Working,
    /// All have ended.
    Ended,
}

impl Ledger {
    pub(super) fn new(workers: usize) -> Ledger {
        let ledger = Ledger::default();
        ledger.state().reported = vec![Some(0); workers];
        ledger
    }

    /// A frame was written.
    pub(super) fn wrote(&self, stored_bytes: u64, pieces: u64, now: Instant) {
        let mut state = self.state();
        state.uncommitted.stored_bytes += stored_bytes;
        state.uncommitted.pieces += pieces;
        state.uncommitted.since.get_or_insert(now);
        drop(state);
        self.changed.notify_all();
    }

    /// A pack grew, or was sealed.
    pub(super) fn deposit(&self, deposit: Deposit) {
        self.state().deposits.push(deposit);
    }

    /// A stream is complete but for the commit.
    pub(super) fn finish(&self, finished: Finished, now: Instant) {
        let mut state = self.state();
        state.finished.push(finished);
        state.uncommitted.since.get_or_insert(now);
        drop(state);
        self.changed.notify_all();
    }

    /// A worker has taken part in a checkpoint.
    pub(super) fn report(&self, worker: usize, checkpoint: u64) {
        self.state().reported[worker] = Some(checkpoint);
        self.changed.notify_all();
    }

    /// A worker has ended, after it wrote out all it had.
    pub(super) fn end(&self, worker: usize) {
        self.state().reported[worker] = None;
        self.changed.notify_all();
    }

    /// A worker cannot write any more. It never reports again, so that nothing it still holds can be
    /// taken for durable.
    pub(super) fn fail(&self, error: StoreError) -> Arc<StoreError> {
        let mut state = self.state();
        let error = Arc::clone(state.failure.get_or_insert_with(|| Arc::new(error)));
        drop(state);
        self.changed.notify_all();
        error
    }

    /// Why writing has become impossible, if it has.
    pub(super) fn failure(&self) -> Option<Arc<StoreError>> {
        self.state().failure.clone()
    }

    /// Waits up to `patience` for something to change, unless the workers have ended: nothing will
    /// change then. Says what there is to commit.
    pub(super) fn wait(&self, patience: Duration) -> (Uncommitted, Workers) {
        let mut state = self.state();
        if state.workers() == Workers::Working {
            let waited = self.changed.wait_timeout(state, patience);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        (state.uncommitted, state.workers())
    }

    /// Waits until every worker has taken part in `checkpoint` or ended; `false` if one failed.
    pub(super) fn wait_for(&self, checkpoint: u64) -> bool {
        let mut state = self.state();
        loop {
            if state.failure.is_some() {
                return false;
            }
            if state
                .reported
                .iter()
                .flatten()
                .all(|&reported| reported >= checkpoint)
            {
                return true;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes everything that can be committed now that `checkpoint` is complete.
    pub(super) fn take(&self, checkpoint: u64) -> (Vec<Deposit>, Vec<Finished>) {
        let mut state = self.state();
        let deposits = std::mem::take(&mut state.deposits);
        let finished = state
            .finished
            .extract_if(.., |f| f.durable_at <= checkpoint)
            .collect();
        state.uncommitted = Uncommitted::default();
        if !state.finished.is_empty() {
            state.uncommitted.since = state.finished.iter().map(|f| f.opened).max();
        }
        (deposits, finished)
    }
}

impl Ledger {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn workers(&self) -> Workers {
        if self.reported.iter().all(Option::is_none) || self.failure.is_some() {
            Workers::Ended
        } else {
            Workers::Working
        }
    }
}
