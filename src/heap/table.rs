//! The table of segments: where a request goes, and what can be given back.
//!
//! Placement: dirty granules before clean ones, since touching them costs no
//! page fault; then the fullest segment first, so that sparse ones drain and
//! can be unmapped; a new segment only when nothing fits. The search looks at
//! the two words of every segment, a few nanoseconds each: small against
//! what a caller does with the memory, and nothing to keep in order.
//!
//! The rule that must hold: a segment leaves the table only when nobody owns a
//! granule of it, so the index in a [`Place`] always names the segment the
//! pages are from. No call in here waits for the kernel to free memory: what is
//! to be given back is handed out, and the caller does it without the lock.

use std::cmp::Reverse;
use std::io;
use std::time::Instant;

use super::segment::{GRANULE_BYTES, GRANULES, Left, Pages, SEGMENT_BYTES, Segment};

/// Where the memory of one request lies.
pub(super) enum Place {
    /// Nothing was asked for.
    Nowhere,
    /// Granules of a segment.
    Segment { index: usize, pages: Pages },
    /// A map of its own, for what is larger than a segment.
    Map(Pages),
}

impl Place {
    /// The memory held, in whole granules.
    pub(super) fn held_bytes(&self) -> u64 {
        match self {
            Self::Nowhere => 0,
            Self::Segment { pages, .. } | Self::Map(pages) => pages.len_bytes() as u64,
        }
    }
}

/// A pass over everything nobody owns, in order of addresses within the table.
///
/// It looks at no granule twice and therefore ends, even while others keep
/// giving pages back.
pub(super) struct Sweep {
    /// Only segments that have been idle since then; `None` takes all.
    idle_since: Option<Instant>,
    /// Stop after so many bytes; a segment without owners goes as a whole.
    limit_bytes: u64,
    next: (usize, usize),
}

impl Sweep {
    /// A sweep of at most `limit_bytes` over all segments.
    pub(super) fn everything(limit_bytes: u64) -> Self {
        Self {
            idle_since: None,
            limit_bytes,
            next: (0, 0),
        }
    }

    /// A sweep over segments idle since `instant` or longer.
    pub(super) fn idle_since(instant: Instant) -> Self {
        Self {
            idle_since: Some(instant),
            ..Self::everything(u64::MAX)
        }
    }

    fn includes(&self, segment: &Segment) -> bool {
        match self.idle_since {
            Some(limit) => segment.idle_since().is_some_and(|since| since <= limit),
            None => true,
        }
    }

    fn spend(&mut self, bytes: usize) {
        self.limit_bytes = self.limit_bytes.saturating_sub(bytes as u64);
    }
}

/// Something to give back to the kernel: 4 MiB at most.
pub(super) enum Spare {
    /// A segment without owners, no longer in the table: drop it.
    Segment(Segment),
    /// Dirty pages of a segment that is partly used: discard and return them.
    Pages { index: usize, pages: Pages },
}

/// All maps of a pool.
#[derive(Default)]
pub(super) struct Table {
    segments: Vec<Option<Segment>>,
    own_map_bytes: u64,
}

impl Table {
    /// Finds or maps memory for `bytes`, a multiple of the granule.
    pub(super) fn place(&mut self, bytes: usize) -> io::Result<Place> {
        match bytes {
            0 => Ok(Place::Nowhere),
            1..=SEGMENT_BYTES => self.place_in_segment(bytes / GRANULE_BYTES),
            _ => {
                let pages = Pages::map(bytes)?;
                self.own_map_bytes += bytes as u64;
                Ok(Place::Map(pages))
            }
        }
    }

    /// Takes pages of a segment back.
    pub(super) fn put(&mut self, index: usize, pages: Pages, left: Left) {
        self.segments[index]
            .as_mut()
            .expect("a segment with an owner stays in the table")
            .put(pages, left);
    }

    /// Forgets a map of its own that is no more.
    pub(super) fn forget_map(&mut self, bytes: u64) {
        self.own_map_bytes -= bytes;
    }

    /// Stamps the segments that got pages back since the last stamp.
    pub(super) fn stamp(&mut self, now: Instant) {
        for segment in self.segments.iter_mut().flatten() {
            segment.stamp(now);
        }
    }

    /// The next thing of a sweep to give back.
    pub(super) fn next_spare(&mut self, sweep: &mut Sweep) -> Option<Spare> {
        while sweep.limit_bytes > 0 {
            let (index, from) = sweep.next;
            let slot = self.segments.get_mut(index)?;
            if let Some(segment) = slot.take_if(|s| s.is_free() && sweep.includes(s)) {
                sweep.next = (index + 1, 0);
                sweep.spend(segment.dirty_bytes());
                return Some(Spare::Segment(segment));
            }
            let limit = sweep.limit_bytes.div_ceil(GRANULE_BYTES as u64);
            let limit = limit.min(GRANULES as u64) as usize;
            let segment = slot.as_mut().filter(|segment| sweep.includes(segment));
            if let Some(pages) = segment.and_then(|segment| segment.take_dirty(from, limit)) {
                sweep.next = (index, pages.end());
                sweep.spend(pages.len_bytes());
                return Some(Spare::Pages { index, pages });
            }
            sweep.next = (index + 1, 0);
        }
        None
    }

    /// Number of segments.
    pub(super) fn segments(&self) -> usize {
        self.segments.iter().flatten().count()
    }

    /// Address space of all maps.
    pub(super) fn mapped_bytes(&self) -> u64 {
        self.segments() as u64 * SEGMENT_BYTES as u64 + self.own_map_bytes
    }

    /// Memory nobody owns but the kernel still provides.
    pub(super) fn idle_bytes(&self) -> u64 {
        let segments = self.segments.iter().flatten();
        segments.map(|segment| segment.dirty_bytes() as u64).sum()
    }

    fn place_in_segment(&mut self, count: usize) -> io::Result<Place> {
        let fits = self
            .segments
            .iter()
            .enumerate()
            .filter_map(|(index, slot)| {
                let fit = slot.as_ref()?.fit(count)?;
                Some((fit, Reverse(index)))
            });
        let index = match fits.max() {
            Some((_, Reverse(index))) => index,
            None => self.add_segment()?,
        };
        let pages = self.segments[index]
            .as_mut()
            .and_then(|segment| segment.take(count))
            .expect("the segment was found to fit, or is new");
        Ok(Place::Segment { index, pages })
    }

    fn add_segment(&mut self) -> io::Result<usize> {
        let segment = Some(Segment::map()?);
        let vacant = self.segments.iter().position(Option::is_none);
        let index = vacant.unwrap_or(self.segments.len());
        match vacant {
            Some(index) => self.segments[index] = segment,
            None => self.segments.push(segment),
        }
        Ok(index)
    }
}
