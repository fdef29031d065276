//! Reading a file or a stream chunk by chunk, holes left out, and noticing that it changed.
//!
//! Files are read with `pread`, never mapped: a file that shrinks under a mapping kills the process,
//! under `pread` it is a short read. What was read counts as the file only if its size, times and
//! inode are the same afterwards and nothing follows the last byte.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Advice, OFlags, SeekFrom};
use rustix::io::Errno;

use super::limits::Stop;
use crate::store::manifest::Metadata;

/// How long a read of a stream waits before it looks whether it should stop.
const STREAM_PATIENCE: Duration = Duration::from_millis(100);

/// Data between two holes, within one chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Extent {
    /// Offset of its first byte in the chunk.
    pub start: usize,
    /// Offset behind its last byte in the chunk.
    pub end: usize,
}

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("it is no longer a regular file")]
    NotAFile,
    #[error("it shrank while it was read: nothing of it is stored, process it again")]
    Shrank,
    #[error("it grew while it was read: nothing of it is stored, process it again")]
    Grew,
    #[error("it changed while it was read: nothing of it is stored, process it again")]
    Changed,
    #[error("stopped")]
    Stopped,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A regular file, open.
pub(super) struct FileSource {
    file: File,
    metadata: fs::Metadata,
}

impl FileSource {
    /// Opens a regular file: not through a link, and without waiting for the other end of a FIFO
    /// that has taken its place.
    pub(super) fn open(path: &Path) -> Result<FileSource, ReadError> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = fs::OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits() as i32)
            .open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(ReadError::NotAFile);
        }
        // Advice only: where it is not taken, reading is as right as before.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::Sequential);
        Ok(FileSource { file, metadata })
    }

    /// Length when it was opened, in bytes.
    pub(super) fn size_bytes(&self) -> u64 {
        self.metadata.len()
    }

    /// What the store keeps of its metadata.
    pub(super) fn metadata(&self) -> Metadata {
        metadata_of(&self.metadata)
    }

    /// Reads the chunk at `offset` into `room`, whose length is the chunk's. Holes become zeros.
    pub(super) fn read_chunk(
        &self,
        offset: u64,
        room: &mut [u8],
        extents: &mut Vec<Extent>,
    ) -> Result<(), ReadError> {
        extents.clear();
        let end = offset + room.len() as u64;
        let mut at = offset;
        while at < end {
            let data = self
                .seek(SeekFrom::Data(at))?
                .map_or(end, |data| data.clamp(at, end));
            room[(at - offset) as usize..(data - offset) as usize].fill(0);
            if data == end {
                break;
            }
            let hole = self
                .seek(SeekFrom::Hole(data))?
                .map_or(end, |hole| hole.clamp(data, end));
            if hole == data {
                // The file system says both: then there is no telling, and it is read as data.
                at = end;
            } else {
                at = hole;
            }
            let extent = Extent {
                start: (data - offset) as usize,
                end: (at - offset) as usize,
            };
            self.read_exact(&mut room[extent.start..extent.end], data)?;
            extents.push(extent);
        }
        Ok(())
    }

    /// Whether the chunk of `length` bytes at `offset` is one hole: then it need not be read.
    pub(super) fn is_hole(&self, offset: u64, length: usize) -> Result<bool, ReadError> {
        let end = offset + length as u64;
        Ok(self
            .seek(SeekFrom::Data(offset))?
            .is_none_or(|data| data >= end))
    }

    /// Reads the bytes directly before `offset` into all of `room`.
    pub(super) fn read_before(&self, offset: u64, room: &mut [u8]) -> Result<(), ReadError> {
        self.read_exact(room, offset - room.len() as u64)
    }

    /// Fails unless the file is still as it was opened and ends where it should.
    pub(super) fn check_unchanged(&self) -> Result<(), ReadError> {
        let mut byte = [0];
        if self.file.read_at(&mut byte, self.size_bytes())? != 0 {
            return Err(ReadError::Grew);
        }
        let now = self.file.metadata()?;
        let before = metadata_of(&self.metadata);
        let after = metadata_of(&now);
        match now.len().cmp(&self.size_bytes()) {
            std::cmp::Ordering::Less => Err(ReadError::Shrank),
            std::cmp::Ordering::Greater => Err(ReadError::Grew),
            _ if (before.mtime_ns, before.ctime_ns) != (after.mtime_ns, after.ctime_ns) => {
                Err(ReadError::Changed)
            }
            _ => Ok(()),
        }
    }

    /// Drops the pages of this part of the file from the page cache.
    pub(super) fn drop_behind(&self, offset: u64, length: usize) {
        let length = std::num::NonZeroU64::new(length as u64);
        let _ = rustix::fs::fadvise(&self.file, offset, length, Advice::DontNeed);
    }

    /// `None`: no data (or hole) from there on. File systems without holes say everything is data.
    fn seek(&self, to: SeekFrom) -> Result<Option<u64>, ReadError> {
        match (rustix::fs::seek(&self.file, to), to) {
            (Ok(at), _) => Ok(Some(at)),
            (Err(Errno::NXIO), _) => Ok(None),
            (Err(Errno::INVAL), SeekFrom::Data(at)) => Ok(Some(at)),
            (Err(Errno::INVAL), _) => Ok(None),
            (Err(error), _) => Err(io::Error::from(error).into()),
        }
    }

    fn read_exact(&self, room: &mut [u8], offset: u64) -> Result<(), ReadError> {
        match self.file.read_exact_at(room, offset) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(ReadError::Shrank),
            outcome => Ok(outcome?),
        }
    }
}

/// Reads a stream into all of `room` or to its end; gives how much that is.
pub(super) fn read_stream(
    stream: &mut (impl Read + AsFd),
    room: &mut [u8],
    stop: &Stop,
) -> Result<usize, ReadError> {
    let mut filled = 0;
    while filled < room.len() {
        if !wait_readable(&*stream, stop)? {
            return Err(ReadError::Stopped);
        }
        match stream.read(&mut room[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
                ) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(filled)
}

/// Waits until the stream has something to read; `false` if the stop came first.
fn wait_readable(stream: &impl AsFd, stop: &Stop) -> io::Result<bool> {
    let patience = Timespec::try_from(STREAM_PATIENCE).map_err(io::Error::other)?;
    while !stop.requested() {
        let mut polled = [PollFd::new(stream, PollFlags::IN)];
        match rustix::event::poll(&mut polled, Some(&patience)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

/// What the store keeps of a file's metadata.
pub(super) fn metadata_of(metadata: &fs::Metadata) -> Metadata {
    let ns = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns);
    Metadata {
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
        ctime_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
        inode: metadata.ino(),
        device: metadata.dev(),
    }
}
