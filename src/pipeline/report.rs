//! What the data plane tells: one report for each file, and counters that anybody may read meanwhile.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::times::Times;
use crate::store::FileName;

/// What became of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// Read whole, durable, and in the catalog: acknowledged.
    Stored,
    /// Its last version is still true; it was not read.
    Unchanged,
    /// Not stored; the report says why.
    Failed,
    /// Not a file that filed stores: a link, a FIFO, a device, another file system.
    Skipped,
}

/// Whose fault it is that a file was not stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Blame {
    /// The file's, or nobody's.
    #[default]
    File,
    /// The store could not be written: another attempt may be as good as this one was.
    Store,
    /// Work was stopped before its turn was over.
    Stop,
}

/// The outcome for one path.
#[derive(Clone, Debug)]
pub struct FileReport {
    /// What became of it.
    pub status: Status,
    /// The path as it was opened; `-` for a stream.
    pub path: PathBuf,
    /// Its name in the store, if it can have one.
    pub name: Option<FileName>,
    /// The version that is its newest now.
    pub version: Option<u64>,
    /// Length of the content in bytes.
    pub size_bytes: u64,
    /// Chunks of 1 MiB read.
    pub chunks: u64,
    /// Pieces it consists of.
    pub pieces: u64,
    /// Pieces that were new to the store.
    pub new_pieces: u64,
    /// Bytes of the new pieces.
    pub new_bytes: u64,
    /// Bytes the new pieces took in the store.
    pub stored_bytes: u64,
    /// BLAKE3 digest of the content.
    pub digest: Option<[u8; 32]>,
    /// From opening it to the commit.
    pub took: Duration,
    /// Why it failed or was skipped.
    pub error: Option<String>,
    /// Whose fault that was.
    pub blame: Blame,
    /// The number that the feed gave it; 0 if none.
    pub number: u64,
}

impl FileReport {
    /// A report without amounts.
    pub fn of(status: Status, path: PathBuf, name: Option<FileName>) -> FileReport {
        FileReport {
            status,
            path,
            name,
            version: None,
            size_bytes: 0,
            chunks: 0,
            pieces: 0,
            new_pieces: 0,
            new_bytes: 0,
            stored_bytes: 0,
            digest: None,
            took: Duration::ZERO,
            error: None,
            blame: Blame::File,
            number: 0,
        }
    }

    /// The same, with somebody to blame.
    pub(super) fn blaming(self, blame: Blame) -> FileReport {
        FileReport { blame, ..self }
    }

    /// The same, with the number that the feed gave it.
    pub(super) fn numbered(self, number: u64) -> FileReport {
        FileReport { number, ..self }
    }

    /// A report of a file that was skipped or failed.
    pub fn without(
        status: Status,
        path: PathBuf,
        name: Option<FileName>,
        why: impl Into<String>,
    ) -> FileReport {
        FileReport {
            error: Some(why.into()),
            ..FileReport::of(status, path, name)
        }
    }
}

/// Counters of a run in progress; relaxed, each right by itself.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of files dealt with so far, holes and unchanged files included.
    pub done_bytes: AtomicU64,
    /// Bytes that were new to the store.
    pub new_bytes: AtomicU64,
    /// Bytes appended to packs.
    pub stored_bytes: AtomicU64,
    /// Files that have a report.
    pub files: AtomicU64,
    /// Of those taken in: how many came out how, in the order of [`Status`].
    pub outcomes: [AtomicU64; 4],
    /// How long chunks took to read.
    pub read_times: Times,
    /// How long chunks took in all.
    pub chunk_times: Times,
}

impl Progress {
    /// One more file has a report.
    pub fn one_file(&self) {
        Progress::add(&self.files, 1);
    }

    /// One more file was taken in, or was not.
    pub(super) fn one_outcome(&self, status: Status) {
        self.one_file();
        Progress::add(&self.outcomes[status as usize], 1);
    }

    pub(crate) fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }
}
