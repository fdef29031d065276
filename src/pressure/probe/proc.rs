//! The memory of this process, from `/proc/self`, or of another one.
//!
//! `statm` is kept open and read again in place: one system call of about a
//! microsecond, small enough to be asked 20 times a second. It gives no more
//! than resident and shared pages, but gives them exactly and at a cost that
//! does not grow with the process, where `smaps_rollup` walks page tables
//! (20 ms at 1 GiB).
//!
//! `/proc/self` is resolved when the file is opened, so a [`ProcSelf`] taken
//! over by a forked child would go on telling about the parent.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::pressure::probe::{ProbeError, number, read_start};

/// Seven decimal numbers of at most 20 digits and what separates them.
const STATM_MAX_BYTES: usize = 256;
/// `status` lists every supplementary group, of which there may be 65,536.
const STATUS_MAX_BYTES: u64 = 1 << 20;
/// What comes before the sizes of memory in it, and they, unless there are
/// hundreds of groups.
const STATUS_USUAL_BYTES: usize = 8 << 10;

const STATM_HOLDS: &str = "the page counts of a process";

/// What this process has in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessMemory {
    /// All resident pages, in bytes.
    pub resident_bytes: u64,
    /// Those of them that belong to files or shared memory, in bytes.
    pub shared_bytes: u64,
}

impl ProcessMemory {
    /// Those of the resident pages that no file stands behind, in bytes.
    pub fn anonymous_bytes(&self) -> u64 {
        // Kernels that batch these counters per CPU can show more shared than
        // resident pages for a moment.
        self.resident_bytes.saturating_sub(self.shared_bytes)
    }
}

/// The open files that tell about this process.
#[derive(Debug)]
pub struct ProcSelf {
    statm: File,
    statm_path: PathBuf,
    status: Option<File>,
    status_path: PathBuf,
    page_bytes: u64,
}

impl ProcSelf {
    /// Opens `<root>/proc/self/statm` and keeps it open.
    ///
    /// # Errors
    ///
    /// If it cannot be opened, as where `/proc` is not mounted.
    pub fn open(root: &Path) -> Result<Self, ProbeError> {
        Self::open_in(&root.join("proc/self"))
    }

    /// The same of another process.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and if there is no such process.
    pub fn open_of(root: &Path, pid: u32) -> Result<Self, ProbeError> {
        Self::open_in(&root.join("proc").join(pid.to_string()))
    }

    fn open_in(directory: &Path) -> Result<Self, ProbeError> {
        let statm_path = directory.join("statm");
        let statm =
            File::open(&statm_path).map_err(|source| ProbeError::read(&statm_path, source))?;
        let status_path = directory.join("status");
        Ok(Self {
            statm,
            statm_path,
            // Only asked for one of the two measures, so it is no error yet.
            status: File::open(&status_path).ok(),
            status_path,
            page_bytes: rustix::param::page_size() as u64,
        })
    }

    /// Reads the present sizes.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or is not what `statm` should be.
    pub fn memory(&self) -> Result<ProcessMemory, ProbeError> {
        let mut buffer = [0; STATM_MAX_BYTES];
        let length = self
            .statm
            .read_at(&mut buffer, 0)
            .map_err(|source| ProbeError::read(&self.statm_path, source))?;
        statm_memory(&buffer[..length], self.page_bytes)
            .ok_or_else(|| ProbeError::malformed(&self.statm_path, STATM_HOLDS))
    }

    /// Reads the resident pages that no file on disk stands behind, shared memory
    /// included, in bytes (`RssAnon` and `RssShmem`). Ten times as slow as
    /// [`memory`](Self::memory), which does not tell shared memory from files.
    ///
    /// # Errors
    ///
    /// If `<root>/proc/self/status` cannot be read or does not tell.
    pub fn anonymous_and_shared_bytes(&self) -> Result<u64, ProbeError> {
        let mut buffer = [0; STATUS_USUAL_BYTES];
        let read = match &self.status {
            Some(status) => status.read_at(&mut buffer, 0),
            None => File::open(&self.status_path).and_then(|status| status.read_at(&mut buffer, 0)),
        };
        let length = read.map_err(|source| ProbeError::read(&self.status_path, source))?;
        let content = &buffer[..length];
        status_bytes(content, b"RssAnon:")
            .zip(status_bytes(content, b"RssShmem:"))
            .map(|(anonymous, shared)| anonymous.saturating_add(shared))
            .ok_or_else(|| {
                ProbeError::malformed(
                    &self.status_path,
                    "lines RssAnon and RssShmem with sizes in kB",
                )
            })
    }

    /// Reads the greatest resident size so far, in bytes (`VmHWM`).
    ///
    /// # Errors
    ///
    /// If `<root>/proc/self/status` cannot be read or does not tell.
    pub fn peak_resident_bytes(&self) -> Result<u64, ProbeError> {
        let content = read_start(&self.status_path, STATUS_MAX_BYTES)
            .map_err(|source| ProbeError::read(&self.status_path, source))?;
        status_bytes(&content, b"VmHWM:").ok_or_else(|| {
            ProbeError::malformed(&self.status_path, "a line VmHWM with a size in kB")
        })
    }
}

/// The second and third number of `size resident shared text lib data dt`.
fn statm_memory(content: &[u8], page_bytes: u64) -> Option<ProcessMemory> {
    let mut pages = content
        .trim_ascii()
        .split(|byte| *byte == b' ')
        .map(|field| number(field)?.checked_mul(page_bytes));
    let _size = pages.next()??;
    let resident_bytes = pages.next()??;
    let shared_bytes = pages.next()??;
    // A shared count that is the last thing read may have been cut short.
    pages.next()??;
    Some(ProcessMemory {
        resident_bytes,
        shared_bytes,
    })
}

/// The size in the line that begins so.
fn status_bytes(content: &[u8], name: &[u8]) -> Option<u64> {
    let value = content
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(name))?;
    number(value.trim_ascii().strip_suffix(b"kB")?)?.checked_mul(1024)
}

#[cfg(test)]
mod tests;
