//! Reading a file or a stream chunk by chunk, holes left out, and noticing that it changed.
//!
//! Three ways of reading, see [`Reading`]: with the kernel's read-ahead, without, and past the page
//! cache. They give the same bytes, and change from one chunk to the next. Where direct reading is
//! refused (tmpfs, some overlays) that file is read without read-ahead instead.
//!
//! Files are read with `pread`, never mapped: a file that shrinks under a mapping kills the process,
//! under `pread` it is a short read. What was read counts as the file only if its size, times and
//! inode are the same afterwards and nothing follows the last byte.

use std::fs::{self, File};
use std::io::{self, Read};
use std::num::NonZeroU64;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Advice, OFlags, SeekFrom};
use rustix::io::Errno;

use super::digest::CHUNK_BYTES;
use super::found_cached::FoundCached;
use super::limits::{Reading, Stop};
use crate::store::manifest::Metadata;

/// How long a read of a stream waits before it looks whether it should stop.
const STREAM_PATIENCE: Duration = Duration::from_millis(100);

/// Direct reading starts and ends at multiples of this many bytes, in the file and in memory: what every
/// device that is met can do.
pub(super) const DIRECT_BYTES: usize = 4096;

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
    #[error("it does not fit into the memory limit: raise memory.limit or lower pipeline.workers")]
    DoesNotFit,
    #[error("whoever sent it went away before its end: nothing of it is stored")]
    BrokenOff,
    #[error("cancelled while it was read: nothing of it is stored")]
    Cancelled,
    #[error("stopped")]
    Stopped,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The most that the page cache holds, drops and reads ahead in one piece, in bytes, at a multiple of
/// its length: what a page table of one level covers.
const CACHE_PIECE_BYTES: u64 = 2 << 20;

/// So much is read ahead in [`Reading::Near`], in bytes: enough for a disk to be busy while chunks are
/// worked on. Left to itself the kernel reads ahead as far as the device is set and keeps two windows:
/// 16 MiB on many a disk. It does so in larger pieces, and a sixth faster.
const AHEAD_BYTES: u64 = 4 << 20;

/// The kernel is asked for so much at a time: of more it brings in no more than the device's read-ahead.
const ASK_BYTES: u64 = 128 << 10;

/// A regular file, open.
pub(super) struct FileSource {
    file: File,
    metadata: fs::Metadata,
    /// What of it was in the page cache before.
    found: FoundCached,
    /// Whether the kernel has been told not to read ahead by itself.
    alone: AtomicBool,
    /// Up to here it has been asked to read ahead, in bytes.
    asked: AtomicU64,
    /// The same file, opened to read past the page cache; none if that was refused.
    direct: OnceLock<Option<File>>,
    /// Direct reading was refused after all.
    indirect: AtomicBool,
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
        let found = FoundCached::of(&file, metadata.len());
        Ok(FileSource {
            file,
            metadata,
            found,
            alone: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            direct: OnceLock::new(),
            indirect: AtomicBool::new(false),
        })
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
        reading: Reading,
        extents: &mut Vec<Extent>,
    ) -> Result<(), ReadError> {
        self.read_ahead(offset, room.len(), reading);
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
            self.read_extent(room, offset, extent, reading)?;
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

    /// Drops the pages behind a chunk that was read from the page cache, unless others had them there.
    pub(super) fn drop_behind(&self, offset: u64, length: usize, reading: Reading) {
        // The kernel drops no part of what it read ahead in one piece, and the last page of what was read
        // is looked at once more with the next chunk: so whole pieces go, one chunk late, and what
        // came back to the piece before goes with them.
        let last = (offset + length as u64).saturating_sub(1);
        let end = last - last % CACHE_PIECE_BYTES;
        let start = offset.saturating_sub(CACHE_PIECE_BYTES);
        let start = start - start % CACHE_PIECE_BYTES;
        if start >= end {
            return;
        }
        if self.found.is_ours(start, end - start, reading) {
            return self.drop_pages(start, NonZeroU64::new(end - start));
        }
        let chunk = CHUNK_BYTES as u64;
        for at in (start..end).step_by(CHUNK_BYTES) {
            if self.found.is_ours(at, chunk, reading) {
                self.drop_pages(at, NonZeroU64::new(chunk));
            }
        }
    }

    /// Drops what is left of it in the page cache: read-ahead may have run behind the reader.
    pub(super) fn drop_rest(&self, reading: Reading) {
        let size = self.size_bytes();
        if self.found.is_ours(0, size, reading) {
            return self.drop_pages(0, None);
        }
        // What others had is in windows of whole chunks.
        for at in (0..size).step_by(CHUNK_BYTES) {
            if self.found.is_ours(at, CHUNK_BYTES as u64, reading) {
                self.drop_pages(at, NonZeroU64::new(CHUNK_BYTES as u64));
            }
        }
    }

    /// Without a length, to the end.
    fn drop_pages(&self, offset: u64, length: Option<NonZeroU64>) {
        // Advice only.
        let _ = rustix::fs::fadvise(&self.file, offset, length, Advice::DontNeed);
    }

    /// Has the kernel read ahead or not, as is wanted now.
    fn read_ahead(&self, offset: u64, length: usize, reading: Reading) {
        let alone = reading != Reading::Ahead;
        if self.alone.swap(alone, Ordering::Relaxed) != alone {
            // Not as a file that is read in order: that would double what the kernel reads ahead.
            let advice = if alone {
                Advice::Random
            } else {
                Advice::Normal
            };
            // Advice only: where it is not taken, reading is as right as before.
            let _ = rustix::fs::fadvise(&self.file, 0, None, advice);
        }
        if reading != Reading::Near || self.found == FoundCached::Everything {
            return;
        }
        let begin = offset + length as u64;
        let end = (begin + AHEAD_BYTES).min(self.size_bytes());
        let asked = self.asked.fetch_max(end, Ordering::Relaxed).max(begin);
        for at in (asked..end).step_by(ASK_BYTES as usize) {
            let length = NonZeroU64::new(ASK_BYTES.min(end - at));
            let _ = rustix::fs::fadvise(&self.file, at, length, Advice::WillNeed);
        }
    }

    /// Reads an extent of the chunk at `offset`, whole pages of it past the page cache if so wanted.
    fn read_extent(
        &self,
        room: &mut [u8],
        offset: u64,
        extent: Extent,
        reading: Reading,
    ) -> Result<(), ReadError> {
        let start = extent.start.next_multiple_of(DIRECT_BYTES);
        let end = extent.end - extent.end % DIRECT_BYTES;
        let aligned = (room.as_ptr() as usize).is_multiple_of(DIRECT_BYTES);
        if reading == Reading::Direct
            && aligned
            && start < end
            && let Some(direct) = self.direct()
        {
            match direct.read_exact_at(&mut room[start..end], offset + start as u64) {
                Ok(()) => {
                    for edge in [extent.start..start, end..extent.end] {
                        let at = offset + edge.start as u64;
                        self.read_exact(&mut room[edge], at)?;
                    }
                    return Ok(());
                }
                // What is really wrong shows when it is read the other way.
                Err(_) => self.indirect.store(true, Ordering::Relaxed),
            }
        }
        let at = offset + extent.start as u64;
        self.read_exact(&mut room[extent.start..extent.end], at)
    }

    /// The file, opened to read past the page cache.
    fn direct(&self) -> Option<&File> {
        if self.indirect.load(Ordering::Relaxed) {
            return None;
        }
        let open = || {
            use std::os::fd::AsRawFd;
            // By its descriptor: its path may name another file by now.
            let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            let flags = OFlags::DIRECT | OFlags::NONBLOCK | OFlags::NOCTTY;
            let mut options = fs::OpenOptions::new();
            options.read(true).custom_flags(flags.bits() as i32);
            options.open(path).ok()
        };
        self.direct.get_or_init(open).as_ref()
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// A file of data, a hole, and data that ends within a page.
    fn file_with_a_hole() -> (tempfile::NamedTempFile, Vec<u8>) {
        let mut content = vec![0; 900_001];
        blake3::Hasher::new().finalize_xof().fill(&mut content);
        content[200_704..401_408].fill(0);
        let mut file = tempfile::NamedTempFile::new_in(".").unwrap();
        file.write_all(&content[..200_704]).unwrap();
        file.as_file().set_len(401_408).unwrap();
        io::Seek::seek(&mut file, io::SeekFrom::End(0)).unwrap();
        file.write_all(&content[401_408..]).unwrap();
        file.as_file().sync_all().unwrap();
        (file, content)
    }

    #[test]
    fn every_way_of_reading_gives_the_same_bytes() {
        let (file, content) = file_with_a_hole();
        let source = FileSource::open(file.path()).unwrap();
        let pool = crate::heap::Pool::new(8 << 20);
        let mut room = pool.account("test").take(content.len()).unwrap();
        let mut seen = Vec::new();
        for reading in [
            Reading::Ahead,
            Reading::Lean,
            Reading::Direct,
            Reading::Ahead,
        ] {
            room.fill(1);
            let mut extents = Vec::new();
            let outcome = source.read_chunk(0, &mut room, reading, &mut extents);
            assert!(outcome.is_ok(), "{reading:?}");
            assert!(room[..] == content[..], "{reading:?}");
            source.drop_behind(0, content.len(), reading);
            seen.push(extents);
        }
        assert!(seen.iter().all(|extents| *extents == seen[0]));
    }

    #[test]
    fn a_file_that_shrank_says_so_in_every_way_of_reading() {
        for reading in [
            Reading::Ahead,
            Reading::Near,
            Reading::Lean,
            Reading::Direct,
        ] {
            let (file, content) = file_with_a_hole();
            let source = FileSource::open(file.path()).unwrap();
            file.as_file().set_len(100_000).unwrap();
            let pool = crate::heap::Pool::new(8 << 20);
            let mut room = pool.account("test").take(content.len()).unwrap();
            let outcome = source.read_chunk(0, &mut room, reading, &mut Vec::new());
            // What is beyond the end looks like a hole; that it is none shows at the end.
            let at_the_end = source.check_unchanged();
            assert!(
                matches!(outcome, Err(ReadError::Shrank))
                    || matches!(at_the_end, Err(ReadError::Shrank)),
                "{reading:?}"
            );
        }
    }
}
