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
    /// With [`Trim::IdleSince`] pages are kept that were used in so long a time:
    /// so steady churn does not give back what it is about to take again. Nobody
    /// notes when a page is used last, so the first trim only notes which are
    /// idle, one after that time gives back those that still are, and notes the
    /// others; trims in between do nothing.
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
        if !cursor.started {
            cursor.started = true;
            core.release_claims();
            core.shrink();
            let observed = core.observed.get();
            cursor.look = match (what, observed) {
                (Trim::All, _) => Look::ReleaseAll,
                (Trim::IdleSince(_), None) => Look::Note,
                (Trim::IdleSince(idle), Some(seen)) => {
                    if now.saturating_duration_since(seen) >= idle {
                        Look::ReleaseSeen
                    } else {
                        Look::Skip
                    }
                }
            };
            if cursor.look != Look::Skip {
                core.observed.set(Some(now));
            }
        }
        let before = trimmed.returned_bytes;
        let done = core.with_segments(|segments| {
            while let Some(&segment) = segments.get(cursor.segment) {
                let over = || slice.elapsed() >= longest;
                if !trim_segment(segment, cursor, trimmed, over) {
                    return false;
                }
                cursor.slab = 0;
                let unused = segment.is_unused() && !segment.has_weaks();
                if unused && segment.unused_resident().next().is_none() {
                    segments.remove(cursor.segment);
                    segment.unmap();
                    trimmed.unmapped_segments += 1;
                } else {
                    cursor.segment += 1;
                }
                if over() {
                    return false;
                }
            }
            true
        });
        core.statistics.note_trim(trimmed.returned_bytes - before);
        if done {
            *cursor = TrimCursor::default();
        }
        done
    }
}

/// How far a trim in slices is; see [`Heap::trim_slice`].
#[derive(Debug, Default)]
pub struct TrimCursor {
    /// Not told by the place: the first segment may be gone when a slice is over.
    started: bool,
    segment: usize,
    slab: usize,
    look: Look,
}

/// What a trim does with idle pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Look {
    /// Nothing: the last look was too short a time ago.
    #[default]
    Skip,
    /// Notes which they are: nobody knows since when.
    Note,
    /// Gives back those that were noted at the last look and not used since, and notes the others.
    ReleaseSeen,
    ReleaseAll,
}

/// Goes on with a segment; whether that was all of it.
fn trim_segment(
    segment: SegmentRef,
    cursor: &mut TrimCursor,
    trimmed: &mut Trimmed,
    over: impl Fn() -> bool,
) -> bool {
    if cursor.look == Look::Skip {
        return true;
    }
    while let Some(slab) = segment.resident_from(cursor.slab) {
        let idle = slab.idle_pages();
        let pages = match cursor.look {
            Look::Skip | Look::Note => 0,
            Look::ReleaseSeen => idle & slab.seen_idle(),
            Look::ReleaseAll => idle,
        };
        trimmed.returned_bytes += segment.release_pages(slab, pages) as u64;
        slab.see_idle(idle & !pages);
        cursor.slab = slab.number() + 1;
        if over() {
            return false;
        }
    }
    true
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
