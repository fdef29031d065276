//! The store: a folder in which every piece is kept once and every version of a file is listed.
//!
//! This page and the heads of [`mod@format`], [`pack`], [`record`], [`manifest`] and [`database`] are the
//! format, precisely enough to write a second reader. This room is the only place that syncs and
//! renames. It does not know what a job is.
//!
//! ```text
//! STORE/
//!   format                    what makes the folder a store: version, features, chunking (text)
//!   lock                      shared `flock` by everybody who works in the store, exclusive by
//!                             whoever must be alone; empty
//!   service.lock              exclusive `flock` by the service that works through the jobs; empty
//!   catalog.db (-wal, -shm)   index and catalog: SQLite in WAL mode
//!   packs/000000/000000001.pack ...   records, a thousand packs to a folder
//! ```
//!
//! # Order of durability
//!
//! Frames, manifest parts and version records are appended to packs; the packs (and the folders of
//! new ones) are synced; then one transaction adds their pieces to the index and the versions to the
//! catalog; when that is durable the files are acknowledged. A crash between any two of these leaves
//! only bytes that nothing refers to; what of a pack is not in the index is as if it were not there,
//! for the index alone says what is durable. A pack whose writer died is sealed by the next process that
//! writes ([`recover`]), and what it holds is found again instead of stored again.
//!
//! # Several processes
//!
//! Each writer has packs of its own, and the database serialises commits, so processes need not know
//! of each other. Two that store the same new piece at the same moment both keep it: that costs room,
//! never correctness. All locks are the kernel's and vanish with the process that held them.
//!
//! # Damage
//!
//! A record's damage loses the pieces in it. What a check finds damaged is written down ([`scrub`]) and
//! from then on not known any more, so content that comes in again is stored again. Places never
//! change, so old versions go on naming the damaged one: a reader looks for the same digest elsewhere
//! ([`heal`]).
//!
//! # What a reader must check
//!
//! Lengths and counts are held against the limits in [`record`] and [`pack`] before they are
//! believed; every record's checks before it is decoded; every piece's digest before it is given out.

pub mod catalog;
pub(crate) mod clock;
pub mod coding;
pub mod database;
mod disk;
pub(crate) mod error;
pub mod format;
pub mod frame;
pub mod heal;
pub(crate) mod id;
pub mod index;
pub mod lists;
pub mod manifest;
mod name;
pub mod pack;
pub mod record;
pub mod recover;
pub mod scrub;
pub mod target;
pub mod verify;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub use error::StoreError;
pub use id::{PackId, PieceId, PiecePlace, RecordPlace, StoreId, hex};
pub use name::{FileName, MAX_NAME_BYTES, NameError, show_path};

use database::Database;
use error::IoContext;
use format::{Chunking, Format};
use manifest::Version;
use pack::{PackReader, PackWriter};
use record::{HEADER_BYTES, Kind};

const LOCK_NAME: &str = "lock";

const SERVICE_LOCK_NAME: &str = "service.lock";

/// An open store.
pub struct Store {
    root: PathBuf,
    format: Format,
    database: Database,
    /// Held shared as long as the store is open.
    _lock: File,
}

impl Store {
    /// Opens the store at `root`; it must be there.
    pub fn open(root: &Path) -> Result<Store, StoreError> {
        let format = Format::read(root)?;
        let lock = lock_shared(root)?;
        Ok(Store {
            database: Database::open(root)?,
            root: root.to_owned(),
            format,
            _lock: lock,
        })
    }

    /// Opens the store at `root`, or creates one there that cuts files as `chunking` says.
    pub fn open_or_create(root: &Path, chunking: Chunking) -> Result<Store, StoreError> {
        let format = match Format::read(root) {
            Err(StoreError::Missing { .. }) => create(root, chunking)?,
            read => read?,
        };
        let lock = lock_shared(root)?;
        Ok(Store {
            database: Database::open_or_create(root)?,
            root: root.to_owned(),
            format,
            _lock: lock,
        })
    }

    /// Makes this process the one service of the store, as long as the file is open.
    ///
    /// # Errors
    ///
    /// [`StoreError::Served`] if there is one already, or when the folder cannot be written.
    pub fn claim_service(&self) -> Result<File, StoreError> {
        let path = self.root.join(SERVICE_LOCK_NAME);
        let file = open_lock(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(StoreError::Served {
                path: self.root.clone(),
            }),
            Err(TryLockError::Error(error)) => Err(error).during("lock", &path),
        }
    }

    /// The store's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What its format file says.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// Its index and catalog.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Opens a pack for reading.
    pub fn pack(&self, id: PackId) -> Result<PackReader, StoreError> {
        PackReader::open(&self.root, self.format.store, id)
    }

    /// Creates a new pack, locked for this process.
    pub fn new_pack(&self, now_ns: i64) -> Result<PackWriter, StoreError> {
        loop {
            let id = self.database.new_pack(now_ns)?;
            if let Some(writer) = PackWriter::create(&self.root, self.format.store, id, now_ns)? {
                return Ok(writer);
            }
        }
    }

    /// Makes what was written to a pack durable.
    pub fn sync_pack(&self, id: PackId, file: &File) -> Result<(), StoreError> {
        file.sync_data()
            .during("sync pack", &pack::path(&self.root, id))
    }

    /// Makes the names of these packs durable: their folders, and the folder of folders.
    pub fn sync_pack_names(&self, packs: impl Iterator<Item = PackId>) -> Result<(), StoreError> {
        let mut folders: Vec<PathBuf> = packs
            .filter_map(|id| Some(pack::path(&self.root, id).parent()?.to_owned()))
            .collect();
        folders.sort_unstable();
        folders.dedup();
        for folder in &folders {
            disk::sync_dir(folder)?;
        }
        if folders.is_empty() {
            return Ok(());
        }
        disk::sync_dir(&self.root.join(pack::FOLDER_NAME))
    }

    /// Reads a version's record.
    pub fn version(&self, place: RecordPlace) -> Result<Version, StoreError> {
        let pack = self.pack(place.pack)?;
        let payload = self.plain_payload(&pack, place, Kind::Version)?;
        Version::decode(&payload).map_err(|what| StoreError::Damaged {
            path: pack.path().to_owned(),
            offset: place.offset,
            what,
        })
    }

    /// Reads the runs in a manifest part's record.
    pub fn manifest_part(&self, place: RecordPlace) -> Result<Vec<u8>, StoreError> {
        let pack = self.pack(place.pack)?;
        self.plain_payload(&pack, place, Kind::ManifestPart)
    }

    fn plain_payload(
        &self,
        pack: &PackReader,
        place: RecordPlace,
        kind: Kind,
    ) -> Result<Vec<u8>, StoreError> {
        let damaged = |what| StoreError::Damaged {
            path: pack.path().to_owned(),
            offset: place.offset,
            what,
        };
        if place.length_bytes as usize > record::MAX_RECORD_BYTES {
            return Err(damaged("a record's length is impossible"));
        }
        let mut room = vec![0; place.length_bytes as usize];
        let (header, _) = pack.record(place.offset, place.length_bytes, &mut room)?;
        if header.kind != kind || header.coding != record::Coding::Plain {
            return Err(damaged("a record is of another kind than expected"));
        }
        // Only frames have a table, so the payload is all that follows the header.
        room.drain(..HEADER_BYTES);
        Ok(room)
    }
}

/// Creates the store. The format file comes last: who finds one finds a whole store, and what a crash
/// leaves before that is taken up by the next attempt.
fn create(root: &Path, chunking: Chunking) -> Result<Format, StoreError> {
    disk::create_private_dir(root)?;
    for entry in fs::read_dir(root).during("read folder", root)? {
        let entry = entry.during("read folder", root)?;
        if !is_beginning(&entry).during("read folder", root)? {
            // Unless another process has just completed it and gone to work.
            return Format::read(root).map_err(|error| match error {
                StoreError::Missing { path } => StoreError::NotAStore { path },
                error => error,
            });
        }
    }
    disk::create_private_dir(&root.join(pack::FOLDER_NAME))?;
    drop(Database::open_or_create(root)?);
    let format = Format::new(chunking).during("read", Path::new("/dev/urandom"))?;
    match format.create(root) {
        // Another process was faster: then its format is the store's.
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
            Format::read(root)
        }
        outcome => outcome.map(|()| format),
    }
}

/// Whether an entry of a folder without a format file may be the beginning of a store.
fn is_beginning(entry: &fs::DirEntry) -> io::Result<bool> {
    let name = entry.file_name();
    Ok(match name.to_str() {
        Some(pack::FOLDER_NAME) => {
            entry.file_type()?.is_dir() && fs::read_dir(entry.path())?.next().is_none()
        }
        Some(LOCK_NAME | "lost+found") => true,
        Some(name) => name.starts_with(format::FILE_NAME) || name.starts_with(database::FILE_NAME),
        None => false,
    })
}

fn open_lock(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .during("open", path)
}

fn lock_shared(root: &Path) -> Result<File, StoreError> {
    let path = root.join(LOCK_NAME);
    let file = open_lock(&path)?;
    match file.try_lock_shared() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse {
            path: root.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(error).during("lock", &path),
    }
}
