//! The database of a store: index (piece -> pack) and catalog (names and versions) in one SQLite file.
//!
//! It is in WAL mode, so that several processes may use the store at once, and with a small fixed
//! page cache and no memory map, so that its memory does not depend on what the store has grown to.
//! Every commit is synced before it returns: an acknowledged file is one whose row is here.
//!
//! Nothing is only here. Packs carry all that the tables say, so the database could be rebuilt.
//!
//! ```text
//! pack     id, state (0 open, 1 sealed, 2 damaged tail), length, pieces, opened_ns
//! piece    prefix (first 8 bytes of the digest, little-endian, signed), pack, ordinal
//! file     id, name
//! version  file, number from 1, place of its record, and the columns `list` and the unchanged
//!          check need
//! ```
//!
//! What checks of the packs have found is in tables beside these ([`super::scrub`]).
//!
//! A prefix finds a piece and does not prove it: whoever asks compares the digest in the pack's
//! list, so two pieces with one prefix are two rows and no harm.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use super::error::StoreError;
use super::scrub;

/// Name of the database in the store's folder.
pub const FILE_NAME: &str = "catalog.db";

/// How long a process waits for another one's commit before it gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long it waits between two attempts where SQLite does not do that for it.
const RETRY: Duration = Duration::from_millis(5);

/// Page cache of each connection, in KiB. Small and fixed: what it misses the kernel's page cache has,
/// which is no part of this process's resident memory. So small that the index of a
/// file of a gigabyte fills it and more adds nothing; storing was no slower than with 1 MiB.
const CACHE_KIB: i64 = 384;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS pack (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    state INTEGER NOT NULL,
    length INTEGER NOT NULL,
    pieces INTEGER NOT NULL,
    opened_ns INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS pack_open ON pack (state) WHERE state = 0;
CREATE TABLE IF NOT EXISTS piece (
    prefix INTEGER NOT NULL,
    pack INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    PRIMARY KEY (prefix, pack, ordinal)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS file (
    id INTEGER PRIMARY KEY,
    name BLOB NOT NULL UNIQUE
) STRICT;
CREATE TABLE IF NOT EXISTS version (
    file INTEGER NOT NULL REFERENCES file (id),
    number INTEGER NOT NULL,
    pack INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    length INTEGER NOT NULL,
    size INTEGER NOT NULL,
    digest BLOB NOT NULL,
    mtime_ns INTEGER,
    ctime_ns INTEGER,
    inode INTEGER,
    device INTEGER,
    read_at_ns INTEGER NOT NULL,
    new_bytes INTEGER NOT NULL,
    stored_bytes INTEGER NOT NULL,
    PRIMARY KEY (file, number)
) STRICT, WITHOUT ROWID;
";

/// Two connections to the database: one that asks, from any thread, and one that commits.
pub struct Database {
    path: PathBuf,
    asking: Mutex<Connection>,
    committing: Mutex<Connection>,
}

impl Database {
    /// Opens the database below `root`, which must be there.
    pub(crate) fn open(root: &Path) -> Result<Database, StoreError> {
        Database::connect(root, OpenFlags::SQLITE_OPEN_READ_WRITE)
    }

    /// Opens the database below `root`, creating it if need be.
    pub(crate) fn open_or_create(root: &Path) -> Result<Database, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        Database::connect(root, flags)
    }

    fn connect(root: &Path, flags: OpenFlags) -> Result<Database, StoreError> {
        let path = root.join(FILE_NAME);
        let database = connect(&path, flags)
            .and_then(|committing| Ok((committing, connect(&path, flags)?)))
            .map(|(committing, asking)| Database {
                path: path.clone(),
                asking: Mutex::new(asking),
                committing: Mutex::new(committing),
            })
            .map_err(failed("open the catalog", &path))?;
        if flags.contains(OpenFlags::SQLITE_OPEN_CREATE) {
            database.change("create the catalog", |change| {
                change.execute_batch(SCHEMA)?;
                change.execute_batch(scrub::SCHEMA)
            })?;
        }
        Ok(database)
    }

    /// Path of the database.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asks a question; sees everything that has been committed by any process.
    pub(crate) fn ask<T>(
        &self,
        action: &'static str,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        question(&lock(&self.asking)).map_err(failed(action, &self.path))
    }

    /// Makes a change: all of it, durably, or nothing.
    pub(crate) fn change<T>(
        &self,
        action: &'static str,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut connection = lock(&self.committing);
        connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .and_then(|transaction| {
                let outcome = change(&transaction)?;
                transaction.commit()?;
                Ok(outcome)
            })
            .map_err(failed(action, &self.path))
    }

    /// Gives back the memory that SQLite can do without.
    pub fn shrink(&self) {
        for connection in [&self.asking, &self.committing] {
            // A connection that is busy shrinks by itself soon: its cache is bounded anyway.
            if let Ok(connection) = connection.try_lock() {
                let _ = connection.execute_batch("PRAGMA shrink_memory");
            }
        }
    }
}

fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(PATIENCE)?;
    switch_to_wal(&connection)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "temp_store", "FILE")?;
    Ok(connection)
}

/// The switch, which only the first process makes, does not wait for others as everything else does.
fn switch_to_wal(connection: &Connection) -> rusqlite::Result<()> {
    let began = Instant::now();
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && began.elapsed() < PATIENCE =>
            {
                thread::sleep(RETRY);
            }
            outcome => return outcome,
        }
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Database {
        action,
        path,
        source: source.into(),
    }
}

/// A panic while a connection was locked leaves at worst a transaction that was rolled back.
fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}
