//! The committer: decides when a checkpoint is due, makes it durable, and acknowledges files.
//!
//! Syncing is done here, on a thread of its own, while the workers go on. One commit serves all files
//! that finished since the last: many small files share their packs' syncs and one transaction.

use std::collections::HashMap;
use std::fs::File;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::fs::Advice;

use super::claims::Claims;
use super::intake::Intake;
use super::ledger::{Finished, Ledger, Uncommitted, Workers};
use super::report::{Blame, FileReport, Status};
use crate::store::catalog::Committed;
use crate::store::clock::now_ns;
use crate::store::error::Chain;
use crate::store::index::PackRow;
use crate::store::{PackId, Store, StoreError};

/// A checkpoint is due when this many bytes were appended to packs: so much a crash makes the next
/// process seal, and so much the last sync of a run has left to do.
const DUE_BYTES: u64 = 24 << 20;

/// A checkpoint is due when this many pieces were claimed: it bounds what claims hold in memory, which
/// is the claims of two checkpoints.
const DUE_PIECES: u64 = 2_048;

/// Nothing waits longer than this for its acknowledgement, as far as syncing allows.
const DUE_AFTER: Duration = Duration::from_secs(2);

/// How often the age of what is uncommitted is looked at.
const PATIENCE: Duration = Duration::from_millis(200);

/// What the committer works with.
pub(super) struct Committer<'run> {
    pub store: &'run Store,
    pub ledger: &'run Ledger,
    pub claims: &'run Claims,
    pub intake: &'run Intake<'run>,
    pub report: &'run (dyn Fn(FileReport) + Sync),
}

impl Committer<'_> {
    /// Commits until all workers have ended. Fails when that becomes impossible: what the ledger holds
    /// then will not be committed any more.
    pub(super) fn run(&self) -> Result<(), Arc<StoreError>> {
        self.commit_while_working()?;
        // Whoever has ended has written out everything.
        self.commit(u64::MAX)
    }

    fn commit_while_working(&self) -> Result<(), Arc<StoreError>> {
        loop {
            let (uncommitted, workers) = self.ledger.wait(PATIENCE);
            if workers == Workers::Ended {
                return self.ledger.failure().map_or(Ok(()), Err);
            }
            // Where nothing else is to be done, nobody gains by waiting.
            let waits = uncommitted.since.is_some() && self.intake.is_idle();
            if waits || is_due(&uncommitted, Instant::now()) {
                let checkpoint = self.intake.request_checkpoint();
                if self.ledger.wait_for(checkpoint) {
                    self.commit(checkpoint)?;
                }
            }
        }
    }

    /// Syncs packs, commits, forgets claims, reports files: in this order.
    fn commit(&self, checkpoint: u64) -> Result<(), Arc<StoreError>> {
        let (deposits, finished) = self.ledger.take(checkpoint);
        let mut rows: HashMap<PackId, (PackRow, Arc<File>)> = HashMap::new();
        let mut pieces = Vec::with_capacity(deposits.iter().map(|d| d.pieces.len()).sum());
        for deposit in deposits {
            pieces.extend(deposit.pieces);
            // Deposits of one pack come in order: the last one says how it is now.
            rows.insert(deposit.row.id, (deposit.row, deposit.file));
        }
        if rows.is_empty() && finished.is_empty() {
            return Ok(());
        }
        match self.make_durable(&rows, &mut pieces, &finished) {
            Ok(committed) => {
                self.claims.forget_before(checkpoint);
                for (finished, committed) in finished.into_iter().zip(committed) {
                    (self.report)(stored(finished, committed));
                }
                Ok(())
            }
            Err(error) => {
                let error = self.ledger.fail(error);
                for finished in finished {
                    self.report_failed(finished, &error);
                }
                Err(error)
            }
        }
    }

    fn make_durable(
        &self,
        rows: &HashMap<PackId, (PackRow, Arc<File>)>,
        pieces: &mut [crate::store::index::PieceRow],
        finished: &[Finished],
    ) -> Result<Vec<Committed>, StoreError> {
        for (id, (_, file)) in rows {
            self.store.sync_pack(*id, file)?;
            // Written once and hardly read again: nobody else is to make room for it.
            let _ = rustix::fs::fadvise(file.as_ref(), 0, None::<NonZeroU64>, Advice::DontNeed);
        }
        self.store.sync_pack_names(rows.keys().copied())?;
        // In key order the inserts walk through the index instead of jumping about in it.
        pieces.sort_unstable_by_key(|row| (row.prefix as i64, row.place));
        let packs: Vec<PackRow> = rows.values().map(|(row, _)| row.clone()).collect();
        let versions: Vec<_> = finished
            .iter()
            .map(|finished| {
                let mut version = finished.version.clone();
                version.stored_bytes = finished.totals.stored_bytes.load(Ordering::Relaxed);
                version
            })
            .collect();
        self.store
            .database()
            .commit(&packs, pieces, &versions, now_ns())
    }

    fn report_failed(&self, finished: Finished, error: &StoreError) {
        let name = finished.version.version.name;
        let why = format!("not stored: {}", Chain(error));
        let report = FileReport::without(Status::Failed, finished.path, Some(name), why);
        (self.report)(report.blaming(Blame::Store).numbered(finished.number));
    }
}

fn is_due(uncommitted: &Uncommitted, now: Instant) -> bool {
    uncommitted.stored_bytes >= DUE_BYTES
        || uncommitted.pieces >= DUE_PIECES
        || uncommitted
            .since
            .is_some_and(|since| now.duration_since(since) >= DUE_AFTER)
}

fn stored(finished: Finished, committed: Committed) -> FileReport {
    let version = finished.version.version;
    let status = if committed.is_new || version.amounts.new_bytes > 0 {
        Status::Stored
    } else {
        Status::Unchanged
    };
    FileReport {
        version: Some(committed.number),
        size_bytes: version.size_bytes,
        chunks: version.amounts.chunks,
        pieces: version.amounts.pieces,
        new_pieces: version.amounts.new_pieces,
        new_bytes: version.amounts.new_bytes,
        stored_bytes: finished.totals.stored_bytes.load(Ordering::Relaxed),
        digest: Some(version.digest),
        took: finished.opened.elapsed(),
        number: finished.number,
        ..FileReport::of(status, finished.path, Some(version.name))
    }
}
