//! Reading what the kernel says about memory.
//!
//! The only part of the room that touches files. Each probe takes the root
//! below which `/proc` and `/sys` lie, so that a test can put files there, and
//! believes nothing: what it reads is limited in size, parsed with checks, and
//! an odd content is an error that names the file.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub mod cgroup;
pub mod group;
pub mod host;
pub mod notify;
pub mod proc;
pub mod psi;
pub mod rlimit;

/// A file that did not say what it should.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The file could not be read.
    #[error("read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The file could not be made to tell of changes.
    #[error("watch {path}", path = path.display())]
    Watch {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The file could be read, but not understood.
    #[error("{path} does not hold {expected}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should have held.
        expected: &'static str,
    },
}

impl ProbeError {
    fn read(path: &Path, source: io::Error) -> Self {
        ProbeError::Read {
            path: path.to_owned(),
            source,
        }
    }

    fn watch(path: &Path, source: io::Error) -> Self {
        ProbeError::Watch {
            path: path.to_owned(),
            source,
        }
    }

    fn malformed(path: &Path, expected: &'static str) -> Self {
        ProbeError::Malformed {
            path: path.to_owned(),
            expected,
        }
    }
}

/// Reads at most `limit_bytes` from the start of the file.
fn read_start(path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?
        .take(limit_bytes)
        .read_to_end(&mut content)?;
    Ok(content)
}

/// A decimal number with nothing but white space around it.
fn number(text: &[u8]) -> Option<u64> {
    let digits = text.trim_ascii();
    // `u64::from_str` would take a leading plus sign; the kernel writes none.
    if !digits.first()?.is_ascii_digit() {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}
