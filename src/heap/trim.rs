//! Trim: giving idle memory back to the kernel.
//!
//! Idle pages are worth keeping while work goes on, since touching them again is
//! a hundred times cheaper than faulting new ones in; and worth returning when it
//! does not. Which of the two it is, the caller decides.
//!
//! The rule that must hold: **the pool's lock is not held while the kernel frees
//! memory.** One piece of at most 4 MiB at a time is taken out of the table like
//! any other request, discarded or unmapped, and put back: others take and
//! return buffers meanwhile, and none of them can get the piece.

use std::time::{Duration, Instant};

use super::pool::Pool;
use super::segment::Left;
use super::table::{Spare, Sweep};

/// Which idle memory a trim gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trim {
    /// That of segments to which nothing was returned for so long.
    ///
    /// Dropping a buffer asks no clock. Instead every trim stamps the segments
    /// that got pages back since the trim before, with its own `now`, and the
    /// time counts from that stamp: memory is idle for up to one interval
    /// between trims longer than it is said to be, and never goes with the
    /// first trim after it was freed (unless the duration is zero).
    IdleSince(Duration),
    /// All of it.
    All,
}

/// What a trim did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Bytes given back to the kernel.
    pub returned_bytes: u64,
    /// Segments whose addresses were given up as well.
    pub unmapped_segments: usize,
}

impl Pool {
    /// Gives idle memory back to the kernel and unmaps segments nobody uses.
    ///
    /// Costs some 80 us per MiB returned, and several times that in page faults
    /// when the memory is wanted again: meant for memory that has gone cold, or
    /// is needed elsewhere. Others can take and return buffers meanwhile.
    pub fn trim(&self, what: Trim, now: Instant) -> Trimmed {
        let mut state = self.lock();
        state.trims += 1;
        state.table.stamp(now);
        drop(state);
        match what {
            Trim::All => self.sweep(Sweep::everything(u64::MAX)),
            Trim::IdleSince(idle) => match now.checked_sub(idle) {
                Some(since) => self.sweep(Sweep::idle_since(since)),
                // The clock does not reach back so far, nor does any stamp.
                None => Trimmed::default(),
            },
        }
    }

    /// Gives back what the sweep finds.
    pub(super) fn sweep(&self, mut sweep: Sweep) -> Trimmed {
        let mut trimmed = Trimmed::default();
        // Each turn takes the lock to pick one thing and releases it before
        // giving that to the kernel.
        while let Some(spare) = self.next_spare(&mut sweep) {
            let bytes = match spare {
                Spare::Segment(segment) => {
                    trimmed.unmapped_segments += 1;
                    segment.dirty_bytes()
                }
                Spare::Pages { index, mut pages } => {
                    // The kernel refuses only locked memory. It then simply
                    // stays with us, and counts as such.
                    let (left, bytes) = match pages.discard() {
                        Ok(()) => (Left::Clean, pages.len_bytes()),
                        Err(_) => (Left::Dirty, 0),
                    };
                    self.lock().table.put(index, pages, left);
                    bytes
                }
            };
            trimmed.returned_bytes += bytes as u64;
        }
        if trimmed.returned_bytes > 0 {
            self.lock().returned_bytes += trimmed.returned_bytes;
        }
        trimmed
    }

    fn next_spare(&self, sweep: &mut Sweep) -> Option<Spare> {
        self.lock().table.next_spare(sweep)
    }
}
