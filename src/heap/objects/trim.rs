//! Trim: giving the memory of freed objects back.
//!
//! Objects are allocated from the fullest slabs first, so others drain. A trim
//! gives back the pages without an object in slabs that are in use, those of
//! slabs that are not, and the addresses of segments without any.
//!
//! The rule that must hold: **only pages that no owned slot touches are given
//! back**, and what is read from them later are zeros nobody relies on.

use std::time::{Duration, Instant};

use super::core::Core;
use super::heap::Heap;
use super::slab::SegmentRef;
use super::stats::Slice;
use crate::heap::{Trim, Trimmed};

impl Heap {
    /// Gives memory without objects back to the kernel; how much that was.
    ///
    /// With [`Trim::IdleSince`] pages are kept that were used since the trim
    /// before, or if that was less than so long ago: so steady churn does not
    /// give back what it is about to take again.
    pub fn trim(&self, what: Trim, now: Instant) -> Trimmed {
        let mut trimmed = Trimmed::default();
        let mut cursor = TrimCursor::default();
        while !self.trim_slice(what, now, Duration::MAX, &mut cursor, &mut trimmed) {}
        trimmed
    }

    /// [`Heap::trim`] for about as long as `longest`; adds to `trimmed`, and
    /// says whether that was all. To be called again with the same cursor.
    pub fn trim_slice(
        &self,
        what: Trim,
        now: Instant,
        longest: Duration,
        cursor: &mut TrimCursor,
        trimmed: &mut Trimmed,
    ) -> bool {
        let core = self.core();
        let slice = Slice::start(longest);
        if cursor.segment == 0 {
            core.release_claims();
            core.shrink();
            let old_enough = match what {
                Trim::All => true,
                Trim::IdleSince(idle) => core
                    .observed
                    .get()
                    .is_some_and(|seen| now.saturating_duration_since(seen) >= idle),
            };
            cursor.release = old_enough;
            cursor.all = what == Trim::All;
            if old_enough || core.observed.get().is_none() {
                core.observed.set(Some(now));
            }
        }
        let before = trimmed.returned_bytes;
        let done = core.with_segments(|segments| {
            while let Some(&segment) = segments.get(cursor.segment) {
                cursor.segment += 1;
                trim_segment(segment, cursor, trimmed);
                if slice.elapsed() >= longest {
                    return false;
                }
            }
            // Segments without a slab in use, from the end: those before keep their places.
            let count = segments.len();
            segments.retain(|segment| {
                let keep = !segment.is_unused()
                    || segment.has_weaks()
                    || segment.unused_resident().next().is_some();
                if !keep {
                    segment.unmap();
                }
                keep
            });
            trimmed.unmapped_segments += count - segments.len();
            true
        });
        core.statistics.note_trim(trimmed.returned_bytes - before);
        if done {
            cursor.segment = 0;
        }
        done
    }
}

/// How far a trim in slices is; see [`Heap::trim_slice`].
#[derive(Debug, Default)]
pub struct TrimCursor {
    segment: usize,
    release: bool,
    all: bool,
}

fn trim_segment(segment: SegmentRef, cursor: &TrimCursor, trimmed: &mut Trimmed) {
    let slabs = segment.assigned().chain(segment.unused_resident());
    for slab in slabs {
        let idle = slab.idle_pages();
        if cursor.release {
            let pages = if cursor.all {
                idle
            } else {
                idle & slab.seen_idle()
            };
            trimmed.returned_bytes += segment.release_pages(slab, pages) as u64;
            slab.see_idle(idle & !pages);
        } else {
            // The first look after a while only notes what is idle.
            slab.see_idle(idle);
        }
    }
}

impl Core {
    /// Gives back what the collector's lists do not need.
    fn shrink(&self) {
        for roll in &self.rolls {
            roll.shrink();
        }
        self.young.shrink();
        self.epoch.shrink();
    }
}
