//! The data plane: files in, pieces into the store; pieces out of the store, files.
//!
//! Plain threads own what they work on; nothing here knows of modes, sockets or configuration. It
//! gets [`Options`] once and [`Limits`] that somebody may change meanwhile, and tells what it does in
//! [`FileReport`]s and [`Progress`].
//!
//! # Taking in
//!
//! ```text
//! walk ─> intake ─┬─> worker: read ─ scan ─(in turn: cut)─ digest ─ look up ─ frame ─ compress ─ pack
//!                 ├─> worker: ...                                                   │
//!                 └─> ...            stream: manifest, file digest (in order) <─────┤
//!                                                                                   v
//!                                    committer: sync packs ─ index + catalog ─ report: stored
//! ```
//!
//! A chunk stays on one worker from reading to compression. What must be in order within a file, its
//! cuts and its manifest, is (`stream`); nothing else waits. All queues are bounded: a worker holds
//! one chunk and one frame, a file's chunks are handed out at most a window ahead of the slowest, and
//! what has been written is committed after so many bytes, pieces or seconds.
//!
//! # Giving out
//!
//! [`restore`] reads frames with all workers and gives them to one writer in order, a bounded number
//! ahead. [`verify`](mod@verify) checks packs with all workers, [`scrub`] one after the other, slowly, for
//! as long as it is let.

pub mod chunker;
mod claims;
mod commit;
mod compress;
pub mod digest;
mod feed;
pub mod fingerprints;
mod found_cached;
mod handed;
mod intake;
mod known_damage;
mod ledger;
mod limits;
mod open;

mod report;
pub mod restore;
pub mod scrub;
mod shelf;
mod source;
mod stream;
mod times;
pub mod verify;
mod walk;
mod worker;

use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};

pub use digest::CHUNK_BYTES;
pub use feed::{Fed, Feed, Tag, Wanted};
pub use handed::{Giving, Refused, Taking, handing};
pub use intake::Bell;
pub use known_damage::is_lost;
pub use limits::{Limits, Reading, Stop};
pub use open::is_unchanged;
pub use report::{Blame, FileReport, Progress, Status};
pub use shelf::Shelf;
pub use times::{TimeCounts, Times};
pub use walk::{Found, Input, Walk};
pub use worker::worker_buffer_bytes;

use chunker::{ContentParams, Method};
use claims::Claims;
use commit::Committer;
use fingerprints::Fingerprints;
use intake::Intake;
use known_damage::KnownDamage;
use ledger::Ledger;
use worker::{Crew, Worker};

use crate::heap::Pool;
use crate::store::error::Chain;
use crate::store::format::Chunking;
use crate::store::{Store, StoreError};

/// How files are taken in, as long as a run lasts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Threads; [`Limits`] says how many of them may work.
    pub workers: usize,
    /// zstd level, 1 to 19.
    pub level: i32,
    /// Packs are sealed near this size in bytes.
    pub pack_bytes: u64,
    /// Whether files are read that seem unchanged since their last version.
    pub reread: bool,
}

/// The chunker that files of the store at `root` are cut with.
///
/// # Errors
///
/// When the store was made with a piece size that this filed does not offer.
pub fn method(chunking: &Chunking, root: &Path) -> Result<Method, StoreError> {
    match *chunking {
        Chunking::Fixed => Ok(Method::Fixed),
        Chunking::Content { average_bytes } => ContentParams::from_average(average_bytes as usize)
            .map(Method::Content)
            .map_err(|_| StoreError::Newer {
                path: root.join(crate::store::format::FILE_NAME),
                what: format!("an average piece size of {average_bytes} bytes"),
            }),
    }
}

/// Takes in everything that `feed` gives. `bell` is for whoever has something for workers that wait.
/// Packs that are not full at the end are left on the `shelf`, or sealed if there is none. The cache
/// `known` must be [serving](Fingerprints::while_serving). Every file gets a report, on whatever thread knows it; a
/// file is reported as stored only when it is durable.
///
/// # Errors
///
/// When the store can no longer be written or asked. What was reported as stored before stays so;
/// every other file has been reported as failed.
#[expect(
    clippy::too_many_arguments,
    reason = "what a run works with, each from another owner"
)]
pub fn take_in(
    store: &Store,
    pool: &Pool,
    feed: Box<dyn Feed>,
    bell: &Arc<Bell>,
    options: &Options,
    known: &Fingerprints<'_>,
    shelf: Option<&Shelf>,
    limits: &Limits,
    stop: &Stop,
    progress: &Progress,
    report: &(dyn Fn(FileReport) + Sync),
) -> Result<(), Arc<StoreError>> {
    let method = method(&store.format().chunking, store.root())?;
    let report = &|file: FileReport| {
        progress.one_outcome(file.status);
        report(file);
    };
    let intake = Intake::new(feed, Arc::clone(bell), options.workers, limits, stop);
    let ledger = Ledger::new(options.workers);
    let claims = Claims::default();
    let damage = KnownDamage::of(store)?;
    let crew = Crew {
        store,
        options,
        method,
        chunks: pool.account("chunks"),
        frames: pool.account("frames"),
        contexts: pool.account("compression"),
        equipped: AtomicUsize::new(0),
        intake: &intake,
        ledger: &ledger,
        claims: &claims,
        known,
        shelf,
        damage: &damage,
        limits,
        stop,
        progress,
        report,
        live: Mutex::default(),
    };
    let committer = Committer {
        store,
        ledger: &ledger,
        claims: &claims,
        intake: &intake,
        report,
    };
    let outcome = std::thread::scope(|scope| {
        for number in 0..options.workers {
            let crew = &crew;
            scope.spawn(move || Worker::new(crew, number).run());
        }
        let outcome = committer.run();
        if outcome.is_err() {
            intake.halt();
        }
        outcome
    });
    let (blame, why) = match &outcome {
        Err(error) => (Blame::Store, format!("not stored: {}", Chain(error))),
        Ok(()) => {
            let why = "stopped before it was stored: run it again, what was read is kept";
            (Blame::Stop, why.to_owned())
        }
    };
    for finished in ledger.take(u64::MAX).1 {
        let name = Some(finished.version.version.name);
        let failed = FileReport::without(Status::Failed, finished.path, name, why.clone());
        report(failed.blaming(blame).numbered(finished.number));
    }
    for stream in crew
        .live
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .drain(..)
    {
        let (path, name) = (stream.path.clone(), Some(stream.name.clone()));
        let failed = FileReport::without(Status::Failed, path, name, why.clone());
        report(failed.blaming(blame).numbered(stream.tag.number));
    }
    outcome
}
