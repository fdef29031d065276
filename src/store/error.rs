//! What can go wrong with a store, as far as callers tell it apart.

use std::path::{Path, PathBuf};
use std::{fmt, io};

/// An error of the store. Each names the path and what was being done.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder holds no store.
    #[error("{path}: there is no store here")]
    Missing {
        /// The folder that was asked for.
        path: PathBuf,
    },
    /// The folder is neither empty nor a store, so nothing is created in it.
    #[error("{path}: the folder is not empty and not a store")]
    NotAStore {
        /// The folder that was asked for.
        path: PathBuf,
    },
    /// Another process needs the store for itself at the moment.
    #[error("{path}: the store is in use by a process that must be alone in it")]
    InUse {
        /// The store's folder.
        path: PathBuf,
    },
    /// Another service works in the store already.
    #[error("{path}: another `filed serve` works in this store")]
    Served {
        /// The store's folder.
        path: PathBuf,
    },
    /// The store was written by a newer filed, or uses features this one does not know.
    #[error("{path}: {what} is newer than this filed understands")]
    Newer {
        /// The store's format file.
        path: PathBuf,
        /// What is unknown: a version or a feature.
        what: String,
    },
    /// Bytes are not what was written.
    #[error("{path}: damaged at byte {offset}: {what}")]
    Damaged {
        /// The damaged file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// Which check failed.
        what: &'static str,
    },
    /// A version or manifest points at something the store does not have.
    #[error("{path}: damaged: {what}")]
    Dangling {
        /// The pack or database in question.
        path: PathBuf,
        /// What is missing or does not fit.
        what: String,
    },
    /// What a version is made of is not what its digest says.
    #[error("{what}: damaged: its content is not what its digest says")]
    NotAsDigested {
        /// The file's name.
        what: String,
    },
    /// A version's manifest does not make sense.
    #[error("{what}: damaged: {flaw}")]
    BadManifest {
        /// The file's name.
        what: String,
        /// Why not.
        flaw: &'static str,
    },
    /// No file of this name, or no such version of it.
    #[error("{what} is not in the store")]
    NotStored {
        /// Name and version as the user would write them.
        what: String,
    },
    /// The operating system refused.
    #[error("{action} {path}")]
    Io {
        /// What was being done, as a verb.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The index and catalog database refused.
    #[error("{action} in {path}")]
    Database {
        /// What was being done, as a verb with its object.
        action: &'static str,
        /// The database file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: DatabaseRefusal,
    },
}

/// Why the database refused, in one line.
///
/// SQLite's own errors say the same thing twice, as message and as cause, and leave the operating
/// system's reason out.
#[derive(Debug)]
pub struct DatabaseRefusal(rusqlite::Error);

impl From<rusqlite::Error> for DatabaseRefusal {
    fn from(error: rusqlite::Error) -> Self {
        DatabaseRefusal(error)
    }
}

impl std::error::Error for DatabaseRefusal {}

impl fmt::Display for DatabaseRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(error) = self.0.sqlite_error() else {
            return self.0.fmt(f);
        };
        self.0.fmt(f)?;
        if error.code == rusqlite::ErrorCode::SystemIoFailure {
            let fails = match error.extended_code {
                rusqlite::ffi::SQLITE_IOERR_READ => "reading",
                rusqlite::ffi::SQLITE_IOERR_WRITE | rusqlite::ffi::SQLITE_IOERR_TRUNCATE => {
                    "writing"
                }
                rusqlite::ffi::SQLITE_IOERR_FSYNC | rusqlite::ffi::SQLITE_IOERR_DIR_FSYNC => {
                    "writing to the disk"
                }
                _ => "an access",
            };
            write!(
                f,
                ": {fails} failed, is its file system read-only or broken?"
            )?;
        }
        write!(f, " (SQLite {})", error.extended_code)
    }
}

impl StoreError {
    /// Whether this says that stored bytes are damaged (exit code 4 of `verify`).
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            StoreError::Damaged { .. }
                | StoreError::Dangling { .. }
                | StoreError::NotAsDigested { .. }
                | StoreError::BadManifest { .. }
        )
    }

    /// Whether we may not do this to a file: it may belong to somebody else.
    pub(crate) fn is_denied(&self) -> bool {
        matches!(self, StoreError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }

    /// Whether the file system has no room left.
    pub fn is_disk_full(&self) -> bool {
        match self {
            StoreError::Io { source, .. } => source.kind() == io::ErrorKind::StorageFull,
            // The second is what is said when there is no room for the file that its processes share.
            StoreError::Database { source, .. } => source.0.sqlite_error().is_some_and(|error| {
                error.code == rusqlite::ErrorCode::DiskFull
                    || error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE
            }),
            _ => false,
        }
    }
}

/// An error with its causes, in one line.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Adds what was done to which file to an I/O error.
pub(crate) trait IoContext<T> {
    fn during(self, action: &'static str, path: &Path) -> Result<T, StoreError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn during(self, action: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Io {
            action,
            path: path.to_owned(),
            source,
        })
    }
}

impl<T> IoContext<T> for Result<T, rustix::io::Errno> {
    fn during(self, action: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(io::Error::from).during(action, path)
    }
}
