//! One file on its way through: what several workers must agree on about it.
//!
//! Chunks of a stream are worked on by whoever is free, in any order, with two exceptions that go
//! strictly by the chunk's number: where it is cut ([`Stream::in_turn`]; a piece may reach over a chunk's
//! edge, so the next chunk needs what this one left over), and how it enters the manifest
//! ([`Stream::complete`]). The first is short and waits for its turn; the second never waits: results
//! that come early are kept until theirs has come. How many is bounded by how far ahead
//! `intake` hands out chunks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::chunker::{CONTEXT_BYTES, Cutter, Method};
use super::digest::{ChunkDigest, FileDigest};
use super::feed::Tag;
use super::handed::Taking;
use super::source::FileSource;
use crate::store::manifest::{Amounts, Metadata, RunsWriter};
use crate::store::{FileName, PiecePlace, RecordPlace};

/// Where a stream's bytes come from.
pub(super) enum Origin {
    /// A regular file.
    File(FileSource),
    /// Read in order, by one worker at a time, and its length is known at its end.
    Sequence(Mutex<SequenceState>),
}

/// What is read in order, and the last bytes read from it.
pub(super) struct SequenceState {
    /// Where it comes from.
    pub input: Sequence,
    /// The last [`CONTEXT_BYTES`] bytes of the chunk before.
    pub before: Vec<u8>,
}

/// Something that is read in order.
pub(super) enum Sequence {
    /// Standard input, whose reader waits for more.
    Stdin(std::fs::File),
    /// What another thread hands in; read only when a chunk of it is there.
    Handed(Taking),
}

/// A file on its way through.
pub(super) struct Stream {
    /// Its path, to be shown.
    pub path: PathBuf,
    /// Its name in the store.
    pub name: FileName,
    /// Where its bytes come from.
    pub origin: Origin,
    /// What the file system said; `None` for a stream.
    pub metadata: Option<Metadata>,
    /// When it was opened.
    pub opened: Instant,
    /// When it was opened, nanoseconds since 1970.
    pub read_at_ns: i64,
    /// Bytes that its new pieces took in packs.
    pub totals: Arc<StreamTotals>,
    /// The round of [`Limits`](super::Limits) in which it was opened.
    pub round: u64,
    /// What its feed knows it by.
    pub tag: Tag,
    /// Whether it comes from somebody who may be slow, so that others are not to wait for it.
    pub is_handed: bool,
    failed: AtomicBool,
    cutting: Mutex<Cutting>,
    turn: Condvar,
    assembly: Mutex<Assembly>,
}

/// What is known of a stream's share in frames only when they are written.
#[derive(Debug, Default)]
pub(super) struct StreamTotals {
    /// Bytes that its new pieces took in packs.
    pub stored_bytes: AtomicU64,
}

/// The state that goes from chunk to chunk where a stream is cut.
pub(super) struct Cutting {
    next: u64,
    /// Decides the cuts.
    pub cutter: Cutter,
    /// The bytes of the piece that reaches into the next chunk.
    pub carry: Vec<u8>,
}

/// One step of a chunk's content.
#[derive(Clone, Copy, Debug)]
pub(super) enum Item {
    /// A piece.
    Piece(PiecePlace),
    /// A hole of so many bytes.
    Hole(u64),
}

/// What a worker made of a chunk.
pub(super) struct ChunkDone {
    /// Pieces and holes in order.
    pub items: Vec<Item>,
    /// The chunk's part of the file's digest; `None` for the empty end of a stream.
    pub digest: Option<ChunkDigest>,
    /// The last checkpoint that one of its pieces waits for.
    pub durable_at: u64,
    /// Bytes in it.
    pub length_bytes: u64,
    /// New pieces in it.
    pub new_pieces: u64,
    /// Bytes of the new pieces.
    pub new_bytes: u64,
    /// Whether the stream ends with it.
    pub last: bool,
}

/// The manifest in the making.
pub(super) struct Assembly {
    early: BTreeMap<u64, ChunkDone>,
    next: u64,
    digest: FileDigest,
    /// Runs that are not in a part yet.
    pub runs: RunsWriter,
    /// Places of the parts written so far.
    pub parts: Vec<RecordPlace>,
    /// Totals so far.
    pub amounts: Amounts,
    /// Bytes so far.
    pub size_bytes: u64,
    /// The last checkpoint that something in the manifest waits for.
    pub durable_at: u64,
    finished: bool,
}

impl Stream {
    /// A stream about to be read.
    pub(super) fn new(
        path: PathBuf,
        name: FileName,
        origin: Origin,
        method: &Method,
        opened: Instant,
        read_at_ns: i64,
    ) -> Stream {
        let mut is_handed = false;
        let metadata = match &origin {
            Origin::File(file) => Some(file.metadata()),
            Origin::Sequence(state) => {
                let state = state.lock().unwrap_or_else(PoisonError::into_inner);
                is_handed = matches!(state.input, Sequence::Handed(_));
                None
            }
        };
        Stream {
            path,
            name,
            origin,
            metadata,
            opened,
            read_at_ns,
            totals: Arc::default(),
            round: 0,
            tag: Tag::default(),
            is_handed,
            failed: AtomicBool::new(false),
            cutting: Mutex::new(Cutting {
                next: 0,
                cutter: Cutter::new(*method),
                carry: Vec::new(),
            }),
            turn: Condvar::new(),
            assembly: Mutex::new(Assembly {
                early: BTreeMap::new(),
                next: 0,
                digest: FileDigest::new(),
                runs: RunsWriter::default(),
                parts: Vec::new(),
                amounts: Amounts::default(),
                size_bytes: 0,
                durable_at: 0,
                finished: false,
            }),
        }
    }

    /// Bytes before a chunk that the chunker looks at.
    pub(super) const CONTEXT: usize = CONTEXT_BYTES;

    /// Marks the stream as failed; `true` for the first who does, who is to report it.
    pub(super) fn fail(&self) -> bool {
        let first = !self.failed.swap(true, Ordering::Relaxed);
        drop(self.cutting.lock());
        self.turn.notify_all();
        first
    }

    /// Whether there is nothing to read, so that no chunk will ever be handed out.
    pub(super) fn is_empty_file(&self) -> bool {
        matches!(&self.origin, Origin::File(file) if file.size_bytes() == 0)
    }

    /// Whether its next chunk can be read without waiting for whoever sends it.
    pub(super) fn is_ready(&self) -> bool {
        let Origin::Sequence(state) = &self.origin else {
            return true;
        };
        // Locked, it is being read, and nobody else may read it.
        state.try_lock().is_ok_and(|state| match &state.input {
            Sequence::Stdin(_) => true,
            Sequence::Handed(taking) => taking.is_ready(),
        })
    }

    /// Whether somebody failed on it: then nobody needs to go on.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Waits until all chunks before `index` have been cut, then lets `cut` decide about this one.
    /// `None` if the stream failed in the meantime.
    pub(super) fn in_turn<T>(&self, index: u64, cut: impl FnOnce(&mut Cutting) -> T) -> Option<T> {
        let mut cutting = self.cutting.lock().unwrap_or_else(PoisonError::into_inner);
        while cutting.next != index {
            if self.has_failed() {
                return None;
            }
            cutting = self
                .turn
                .wait(cutting)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let outcome = cut(&mut cutting);
        cutting.next += 1;
        drop(cutting);
        self.turn.notify_all();
        Some(outcome)
    }

    /// Enters a chunk into the manifest, and those after it that were waiting for it. The assembly is
    /// given back locked: whoever has it writes out full parts, and if [`Assembly::finish`] says so,
    /// the stream is complete.
    pub(super) fn complete(&self, index: u64, done: ChunkDone) -> MutexGuard<'_, Assembly> {
        let mut assembly = self.assembly();
        assembly.early.insert(index, done);
        while let Some(done) = assembly.take_next() {
            assembly.enter(done);
        }
        assembly
    }

    /// Chunks that are in the manifest.
    pub(super) fn completed(&self) -> u64 {
        self.assembly().next
    }

    /// The manifest in the making.
    pub(super) fn assembly(&self) -> MutexGuard<'_, Assembly> {
        self.assembly.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Assembly {
    fn take_next(&mut self) -> Option<ChunkDone> {
        let next = self.next;
        self.early.remove(&next)
    }

    fn enter(&mut self, done: ChunkDone) {
        self.next += 1;
        for item in done.items {
            match item {
                Item::Piece(place) => {
                    self.runs.piece(place);
                    self.amounts.pieces += 1;
                }
                Item::Hole(bytes) => {
                    self.runs.hole(bytes);
                    self.amounts.hole_bytes += bytes;
                }
            }
        }
        if let Some(digest) = done.digest {
            self.digest.push(digest);
            self.amounts.chunks += 1;
        }
        self.amounts.new_pieces += done.new_pieces;
        self.amounts.new_bytes += done.new_bytes;
        self.size_bytes += done.length_bytes;
        self.durable_at = self.durable_at.max(done.durable_at);
        self.finished |= done.last;
    }

    /// Whether the last chunk has been entered.
    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    /// The digest of all chunks; to be asked once, at the end.
    pub(super) fn take_digest(&mut self) -> [u8; 32] {
        std::mem::take(&mut self.digest).finish()
    }
}
