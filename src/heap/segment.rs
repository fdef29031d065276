//! Segments: where the pages of the heap come from.
//!
//! A segment is one private anonymous map of 4 MiB, handed out in granules of
//! 64 KiB. Two words say all there is to know about its 64 granules: `used`
//! (somebody owns it) and `dirty` (nobody owns it, but the kernel still backs
//! it with memory). The two never overlap; a granule in neither is clean.
//!
//! The rule that must hold: **a granule has at most one owner.** Ownership is a
//! value, [`Pages`]. It is made only from granules nobody owns, cannot be
//! copied, and its granules become free again only by giving the value back.
//! It also keeps the map alive. So everything unsafe about the memory of the
//! heap is proven in this file, whatever the callers do: the worst they can do
//! is to lose a value, and then its granules stay used.
//!
//! A clean granule costs about a hundred times more to touch than a dirty one
//! (page faults), which is why the two are told apart.
#![expect(
    unsafe_code,
    reason = "the one place that turns maps into slices and gives pages back"
)]

use std::io;
use std::ops::{Deref, DerefMut};
use std::slice;
use std::sync::Arc;
use std::time::Instant;

use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};

/// The unit of handing out. A multiple of every page size of the targets
/// (4 KiB on x86-64, up to 64 KiB on arm64), so granules never share a page.
pub(super) const GRANULE_BYTES: usize = 64 << 10;

/// Granules of a segment: one bit each in a word.
pub(super) const GRANULES: usize = u64::BITS as usize;

/// Size of a segment.
pub(super) const SEGMENT_BYTES: usize = GRANULES * GRANULE_BYTES;

/// Sole ownership of consecutive granules of one map.
///
/// Always readable: an anonymous page holds zeros until it is written, and
/// what was written last from then on.
pub(super) struct Pages {
    map: Arc<MmapRaw>,
    first: usize,
    count: usize,
}

impl Pages {
    /// Maps `bytes`, a multiple of the granule, as a map of its own. The
    /// memory goes back to the kernel when the value is dropped.
    pub(super) fn map(bytes: usize) -> io::Result<Self> {
        debug_assert!(bytes > 0 && bytes.is_multiple_of(GRANULE_BYTES));
        let map = MmapOptions::new().len(bytes).map_anon()?;
        Ok(Self {
            map: Arc::new(MmapRaw::from(map)),
            first: 0,
            count: bytes / GRANULE_BYTES,
        })
    }

    /// Gives the memory behind the pages back to the kernel but keeps the
    /// addresses; they read as zeros from then on.
    ///
    /// DONTNEED and not FREE: after FREE the memory still counts as ours until
    /// the kernel runs short, so nobody sees that it was returned.
    pub(super) fn discard(&mut self) -> io::Result<()> {
        let (offset, len) = (self.offset_bytes(), self.len_bytes());
        // SAFETY: the range lies inside the map and starts and ends on a page
        // boundary (a granule is a multiple of the page), so only these pages
        // are changed. We own them and `&mut self` shows that no slice of them
        // is alive; zeros are valid bytes.
        unsafe {
            self.map
                .unchecked_advise_range(UncheckedAdvice::DontNeed, offset, len)
        }
    }

    /// Size of the pages.
    pub(super) fn len_bytes(&self) -> usize {
        self.count * GRANULE_BYTES
    }

    /// Index of the first granule after these.
    pub(super) fn end(&self) -> usize {
        self.first + self.count
    }

    fn offset_bytes(&self) -> usize {
        self.first * GRANULE_BYTES
    }

    /// The first byte. `wrapping_add` does not wrap: the offset is in the map.
    fn start(&self) -> *mut u8 {
        self.map.as_mut_ptr().wrapping_add(self.offset_bytes())
    }

    /// The bits of these granules. Only for pages of a segment.
    fn mask(&self) -> u64 {
        run_mask(self.first, self.count)
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the bytes are inside `self.map`, which lives as long as
        // `self`, are initialised (see the type), and only `self`, the sole
        // owner, gives access to them: shared for as long as `&self`.
        unsafe { slice::from_raw_parts(self.start(), self.len_bytes()) }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; and `&mut self` on the sole owner shows that
        // there is no other slice of these bytes.
        unsafe { slice::from_raw_parts_mut(self.start(), self.len_bytes()) }
    }
}

/// What is left in pages that are given back to their segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Somebody used them: the kernel backs them with memory.
    Dirty,
    /// They were discarded.
    Clean,
}

/// How well a segment suits a request; the greatest is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fit {
    /// All granules of the run are dirty, so touching them costs nothing.
    hot: bool,
    /// The fullest segment goes first, so that sparse ones drain.
    used_granules: u32,
}

/// One map of 4 MiB and who owns what in it.
pub(super) struct Segment {
    map: Arc<MmapRaw>,
    used: u64,
    dirty: u64,
    idle_since: Option<Instant>,
}

impl Segment {
    /// Maps a new, clean segment.
    pub(super) fn map() -> io::Result<Self> {
        let map = MmapRaw::from(MmapOptions::new().len(SEGMENT_BYTES).map_anon()?);
        // With transparent huge pages one touched granule could cost 2 MiB and
        // the counters would be wrong. A kernel without them refuses the
        // advice, which is just as well.
        let _ = map.advise(Advice::NoHugePage);
        Ok(Self {
            map: Arc::new(map),
            used: 0,
            dirty: 0,
            idle_since: None,
        })
    }

    /// Whether and how well `count` granules in a row fit.
    pub(super) fn fit(&self, count: usize) -> Option<Fit> {
        let used_granules = self.used.count_ones();
        if GRANULES - (used_granules as usize) < count {
            return None;
        }
        let hot = run_starts(self.dirty, count) != 0;
        (hot || run_starts(!self.used, count) != 0).then_some(Fit { hot, used_granules })
    }

    /// Takes `count` granules in a row, dirty ones if there is such a run.
    pub(super) fn take(&mut self, count: usize) -> Option<Pages> {
        let starts = match run_starts(self.dirty, count) {
            0 => run_starts(!self.used, count),
            hot => hot,
        };
        (starts != 0).then(|| self.own(starts.trailing_zeros() as usize, count))
    }

    /// Takes the first dirty granules at or after `from`, at most `limit` of
    /// them and at least one, to discard them.
    pub(super) fn take_dirty(&mut self, from: usize, limit: usize) -> Option<Pages> {
        let dirty = self.dirty & run_mask(from, GRANULES.saturating_sub(from));
        if dirty == 0 {
            return None;
        }
        let first = dirty.trailing_zeros() as usize;
        let count = (dirty >> first).trailing_ones() as usize;
        Some(self.own(first, count.min(limit.max(1))))
    }

    /// Takes pages back. They must be of this segment.
    pub(super) fn put(&mut self, pages: Pages, left: Left) {
        let mask = pages.mask();
        assert!(
            Arc::ptr_eq(&self.map, &pages.map) && self.used & mask == mask,
            "pages given back to a segment they are not from"
        );
        self.used &= !mask;
        if left == Left::Dirty {
            self.dirty |= mask;
            self.idle_since = None;
        }
    }

    /// Notes the time if this is the first stamp since pages came back.
    pub(super) fn stamp(&mut self, now: Instant) {
        self.idle_since.get_or_insert(now);
    }

    /// The first stamp after pages came back last; `None` if there was none.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.idle_since
    }

    /// Whether nobody owns anything here.
    pub(super) fn is_free(&self) -> bool {
        self.used == 0
    }

    /// Memory nobody owns but the kernel still provides.
    pub(super) fn dirty_bytes(&self) -> usize {
        self.dirty.count_ones() as usize * GRANULE_BYTES
    }

    fn own(&mut self, first: usize, count: usize) -> Pages {
        let mask = run_mask(first, count);
        debug_assert_eq!(self.used & mask, 0, "granules of somebody else");
        self.used |= mask;
        self.dirty &= !mask;
        Pages {
            map: Arc::clone(&self.map),
            first,
            count,
        }
    }
}

/// `count` ones from bit `first` on; bits beyond the word are cut off.
fn run_mask(first: usize, count: usize) -> u64 {
    let ones = match count {
        0..GRANULES => (1 << count) - 1,
        _ => u64::MAX,
    };
    ones.checked_shl(first as u32).unwrap_or(0)
}

/// The bits of `free` at which a run of `count` ones begins.
///
/// `free & free >> 1` leaves the bits that begin a run of two, the same again
/// with a shift by two those that begin a run of four: six steps at most.
fn run_starts(mut free: u64, count: usize) -> u64 {
    debug_assert!((1..=GRANULES).contains(&count));
    let mut known = 1;
    while known < count {
        let step = known.min(count - known);
        free &= free >> step;
        known += step;
    }
    free
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

    fn naive_run_starts(free: u64, count: usize) -> u64 {
        (0..=GRANULES - count)
            .filter(|first| (*first..first + count).all(|bit| free >> bit & 1 == 1))
            .fold(0, |starts, first| starts | 1 << first)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn run_search_finds_what_looking_at_every_granule_finds(
            (a, b, count) in (any::<u64>(), any::<u64>(), 1..=GRANULES)
        ) {
            for free in [a, a | b, a | !b, u64::MAX ^ (1 << (b % 64)), u64::MAX] {
                prop_assert_eq!(run_starts(free, count), naive_run_starts(free, count));
            }
        }
    }

    #[test]
    fn pages_of_a_segment_are_disjoint_and_cover_it() {
        let mut segment = Segment::map().unwrap();
        let mut owned: Vec<_> = [1, 2, 4, 8, 16, 32, 1]
            .map(|count| segment.take(count).unwrap())
            .into();
        assert!(segment.take(1).is_none());
        assert_eq!(segment.fit(1), None);
        for (id, pages) in owned.iter_mut().enumerate() {
            pages.fill(id as u8 + 1);
        }
        for (id, pages) in owned.iter().enumerate() {
            assert!(pages.iter().all(|byte| *byte == id as u8 + 1));
        }
        assert_eq!(owned.iter().map(|p| p.len()).sum::<usize>(), SEGMENT_BYTES);
    }

    #[test]
    fn dirty_granules_go_before_clean_ones() {
        let mut segment = Segment::map().unwrap();
        let first = segment.take(2).unwrap();
        let second = segment.take(2).unwrap();
        segment.put(first, Left::Clean);
        segment.put(second, Left::Dirty);
        assert_eq!(segment.take(2).unwrap().first, 2);
        assert_eq!(segment.take(2).unwrap().first, 0);
    }

    #[test]
    fn discarded_pages_read_as_zeros_and_their_neighbours_do_not() {
        let mut segment = Segment::map().unwrap();
        let mut pages = [1, 3, 1].map(|count| segment.take(count).unwrap());
        for pages in &mut pages {
            pages.fill(7);
        }
        pages[1].discard().unwrap();
        assert!(pages[1].iter().all(|byte| *byte == 0));
        assert!(pages[0].iter().chain(&*pages[2]).all(|byte| *byte == 7));
    }

    #[test]
    fn pages_outlive_their_segment() {
        let mut segment = Segment::map().unwrap();
        let mut pages = segment.take(1).unwrap();
        drop(segment);
        pages.fill(3);
        assert!(pages.iter().all(|byte| *byte == 3));
    }

    #[test]
    fn dirty_runs_are_taken_in_order_and_within_the_limit() {
        let mut segment = Segment::map().unwrap();
        let [a, b, c] = [4, 1, 5].map(|count| segment.take(count).unwrap());
        segment.put(a, Left::Dirty);
        segment.put(c, Left::Dirty);
        let runs = [(0, 64), (4, 2), (7, 64), (10, 64)].map(|(from, limit)| {
            let pages = segment.take_dirty(from, limit);
            pages.map(|pages| (pages.first, pages.count))
        });
        assert_eq!(runs, [Some((0, 4)), Some((5, 2)), Some((7, 3)), None]);
        assert_eq!(segment.dirty_bytes(), 0);
        drop(b);
    }
}
