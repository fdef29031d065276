//! What of a file was in the page cache before filed read it: that is left there.
//!
//! Asked once, when the file is opened, because afterwards filed's own read-ahead cannot be told from
//! what others keep. Takes at most 512 bytes for a file of any size.

use std::io::IoSliceMut;
use std::os::fd::AsFd;

use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::digest::CHUNK_BYTES;
use super::limits::Reading;
use crate::heap::page_cache::cached_bytes;

/// A file that is cached in part is looked at in at most so many windows.
const WINDOWS: u64 = 4096;

/// If it has to be tried out, in so many.
const TRIED: u64 = 64;

/// Whether the byte at `offset` can be had without waiting; `None` where there is no telling.
fn is_there(file: impl AsFd, offset: u64) -> Option<bool> {
    let mut byte = [0];
    let mut buffers = [IoSliceMut::new(&mut byte)];
    match preadv2(file, &mut buffers, offset, ReadWriteFlags::NOWAIT) {
        Ok(length) => Some(length > 0),
        Err(Errno::AGAIN) => Some(false),
        Err(_) => None,
    }
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FoundCached {
    /// Nothing worth keeping.
    Nothing,
    /// All of it.
    Everything,
    /// The windows whose bits are set, at least half of each.
    Windows { bytes: u64, kept: Vec<u64> },
    /// The kernel does not tell.
    Unknown,
}

impl FoundCached {
    /// Asks about a file of this size.
    pub(super) fn of(file: impl AsFd, size_bytes: u64) -> FoundCached {
        match Self::ask(size_bytes, |offset, length| {
            cached_bytes(&file, offset, length)
        }) {
            FoundCached::Unknown => Self::try_out(file, size_bytes),
            found => found,
        }
    }

    /// Finds out by reading what is there without waiting, where the kernel does not tell: it does not of
    /// files that are neither ours nor ours to write. One page of each window stands for all of it.
    fn try_out(file: impl AsFd, size_bytes: u64) -> FoundCached {
        // Else each page that is not there would have many around it read.
        let _ = fadvise(&file, 0, None, Advice::Random);
        let chunk = CHUNK_BYTES as u64;
        let bytes = size_bytes
            .div_ceil(TRIED)
            .next_multiple_of(chunk)
            .max(chunk);
        let mut kept = vec![0; size_bytes.div_ceil(bytes).div_ceil(64) as usize];
        let (mut windows, mut cached) = (0, 0);
        for (window, offset) in (0..size_bytes).step_by(bytes as usize).enumerate() {
            let middle = offset + bytes.min(size_bytes - offset) / 2;
            windows += 1;
            match is_there(&file, middle) {
                Some(true) => {
                    kept[window / 64] |= 1 << (window % 64);
                    cached += 1;
                }
                Some(false) => {}
                None => return FoundCached::Unknown,
            }
        }
        let _ = fadvise(&file, 0, None, Advice::Normal);
        if cached == 0 {
            FoundCached::Nothing
        } else if cached == windows {
            FoundCached::Everything
        } else {
            FoundCached::Windows { bytes, kept }
        }
    }

    fn ask(size_bytes: u64, cached: impl Fn(u64, u64) -> Option<u64>) -> FoundCached {
        let Some(all) = cached(0, 0) else {
            return FoundCached::Unknown;
        };
        if all == 0 {
            return FoundCached::Nothing;
        }
        if all >= size_bytes {
            return FoundCached::Everything;
        }
        let chunk = CHUNK_BYTES as u64;
        let bytes = size_bytes.div_ceil(WINDOWS).next_multiple_of(chunk);
        let windows = size_bytes.div_ceil(bytes);
        let mut kept = vec![0; windows.div_ceil(64) as usize];
        for window in 0..windows {
            let offset = window * bytes;
            let length = bytes.min(size_bytes - offset);
            if cached(offset, length).is_some_and(|found| found >= length.div_ceil(2)) {
                kept[(window / 64) as usize] |= 1 << (window % 64);
            }
        }
        if kept.iter().all(|bits| *bits == 0) {
            FoundCached::Nothing
        } else {
            FoundCached::Windows { bytes, kept }
        }
    }

    /// Whether all of this part was brought in by filed. Where that is not known, it is taken to be so
    /// only when memory is short.
    pub(super) fn is_ours(&self, offset: u64, length: u64, reading: Reading) -> bool {
        match self {
            FoundCached::Nothing => true,
            FoundCached::Everything => false,
            FoundCached::Unknown => reading != Reading::Ahead,
            FoundCached::Windows { bytes, kept } => {
                let last = offset.saturating_add(length.saturating_sub(1)) / bytes;
                (offset / bytes..=last).all(|window| {
                    let bits = kept.get((window / 64) as usize).copied().unwrap_or(0);
                    bits & (1 << (window % 64)) == 0
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_file_nobody_had_is_ours_and_one_that_is_cached_whole_is_not() {
        let nothing = FoundCached::ask(10 * MIB, |_, _| Some(0));
        assert!(nothing.is_ours(0, 10 * MIB, Reading::Ahead));
        let all = FoundCached::ask(10 * MIB, |_, _| Some(10 * MIB));
        assert!(!all.is_ours(3 * MIB, MIB, Reading::Direct));
    }

    #[test]
    fn windows_that_others_had_are_left_alone() {
        // 16 windows of 1 MiB, of which the third is cached whole and the fifth a little.
        let found = FoundCached::ask(16 * MIB, |offset, length| {
            Some(match (offset / MIB, length) {
                (0, 0) => MIB + 4096,
                (2, _) => MIB,
                (4, _) => 4096,
                _ => 0,
            })
        });
        let ours = |at: u64, length| found.is_ours(at * MIB, length, Reading::Ahead);
        assert!(ours(1, MIB) && !ours(2, MIB) && ours(3, MIB) && ours(4, MIB));
        assert!(!ours(1, MIB + 1));
        assert!(ours(100, MIB), "beyond what was asked about");
    }

    #[test]
    fn a_file_that_is_cached_is_found_so_by_trying_too() {
        use std::io::Write;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![1; 5 * CHUNK_BYTES]).unwrap();
        assert!(matches!(
            FoundCached::try_out(&file, 5 * MIB),
            // Where the file system cannot read without waiting.
            FoundCached::Everything | FoundCached::Unknown
        ));
        let empty = tempfile::tempfile().unwrap();
        assert_eq!(FoundCached::try_out(&empty, 0), FoundCached::Nothing);
    }

    #[test]
    fn the_largest_file_takes_few_windows() {
        let found = FoundCached::ask(u64::MAX / 2, |offset, length| {
            Some(if offset == 0 { length.max(1) } else { 0 })
        });
        match found {
            FoundCached::Windows { kept, .. } => assert!(kept.len() <= 64),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_not_known_is_dropped_only_when_memory_is_short() {
        let found = FoundCached::ask(MIB, |_, _| None);
        assert!(!found.is_ours(0, MIB, Reading::Ahead));
        assert!(found.is_ours(0, MIB, Reading::Lean));
    }
}
