//! Pages of files in the kernel's page cache: how many are there.
//!
//! The page cache is not this process's memory, but the kernel charges it to its
//! control group, and a file read once pushes out what others still need. What
//! was there before filed came belongs to others: it can only be left alone if
//! it is known.
#![expect(unsafe_code, reason = "the system call has no safe wrapper")]

use std::os::fd::{AsFd, AsRawFd};

/// `cachestat(2)`: one number on every architecture that has it (Linux 6.5).
const SYS_CACHESTAT: libc::c_long = 451;

/// The part of a file that is asked about, as the kernel takes it.
#[repr(C)]
struct Range {
    offset: u64,
    /// 0 means to the end.
    length: u64,
}

/// What the kernel answers, in pages.
#[repr(C)]
#[derive(Default)]
struct Answer {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Bytes of this part of a file that are in the page cache, in whole pages; `length` 0 means to the
/// end. `None` where the kernel does not tell: before Linux 6.5, of a file that is neither ours nor ours
/// to write, or where a filter forbids the call.
pub fn cached_bytes(file: impl AsFd, offset: u64, length: u64) -> Option<u64> {
    let range = Range { offset, length };
    let mut answer = Answer::default();
    // SAFETY: the descriptor is open as long as `file` is borrowed; both structures are as the kernel
    // defines them, live to the end of the call, and only the second is written to.
    let outcome = unsafe {
        libc::syscall(
            SYS_CACHESTAT,
            file.as_fd().as_raw_fd(),
            &raw const range,
            &raw mut answer,
            0 as libc::c_uint,
        )
    };
    let page_bytes = rustix::param::page_size() as u64;
    (outcome == 0).then(|| answer.cached.saturating_mul(page_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_was_written_is_cached_or_nothing_is_said() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 300_000]).unwrap();
        match cached_bytes(&file, 0, 0) {
            Some(bytes) => assert!((300_000..400_000).contains(&bytes), "{bytes}"),
            None => eprintln!("cachestat: this kernel does not tell"),
        }
    }

    #[test]
    fn what_is_no_file_has_nothing_cached() {
        let (reader, _writer) = std::io::pipe().unwrap();
        assert_eq!(cached_bytes(&reader, 0, 0).unwrap_or(0), 0);
    }
}
