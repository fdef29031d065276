//! Where a stream is cut into pieces.
//!
//! The cuts of an extent (data between two holes) depend on its bytes alone: not on how it was
//! read in chunks, nor on how many threads looked at it. So the work is split in two:
//!
//! * [`scan`] finds *candidates*: positions that look like a cut from the 126 bytes before them
//!   and nothing else. Every worker does it for its own chunk; nearly all of the cost is here.
//! * [`Cutter`] walks the candidates in order and applies the least, average and greatest piece
//!   size. This needs the cut before, so it is sequential; it touches the data only where a piece
//!   grows to the greatest size, and there no more than some 4 KiB of it.
//!
//! # The method `filed-gear-1`
//!
//! The store records this name and the average. Any change below moves cuts and makes known data
//! look new, so it needs a new name; the tests pin the table and the cuts of a sample stream.
//!
//! 1. `GEAR[i]`, for `i` in `0..256`, is output number `i + 1` of splitmix64 whose state starts at
//!    the eight ASCII bytes `filed-g1` read as a big-endian number.
//! 2. The hash after a byte is `(hash << 1) + GEAR[byte]` in 64 bits, 0 where the extent starts. A
//!    byte has left it after 64 steps: the window rolls, and a cut does not reset it.
//! 3. A position *matches* when the top `log2(average) - 2` bits of its hash are zero, *strictly*
//!    when the top `log2(average) + 2` are. The top bits are those that see the whole window.
//! 4. A match is a candidate unless one of the 63 positions before it matches as well.
//! 5. A piece ends at its first strict candidate from the least size (a quarter of the average) on,
//!    or its first candidate of any kind from the average on. This is the normalised chunking of
//!    `FastCDC` (2020), level 2.
//! 6. A piece that reaches the greatest size (four times the average) without such a candidate is
//!    *forced* to end at the position with the smallest hash among its last 4096 positions, the
//!    greatest size included; where several have it, at the last of them.
//! 7. A piece that none of these has ended ends with the extent.
//!
//! Rule 6 is for data that repeat themselves with a period in which nothing matches, such as one
//! log line over and over. Cut at exactly the greatest size, each piece would begin elsewhere in the
//! period and none would ever be found again. This way every piece but the first begins and ends at
//! the same place of any period up to 4096 bytes, and all are one. A single value repeated gives
//! pieces of exactly the greatest size.
//!
//! Rule 4 bounds memory: without it a short pattern that happens to match could make every second
//! byte of a chunk a candidate. With it there is at most one per 64 bytes, and among random data
//! it drops less than one in sixty.

use std::ops::RangeInclusive;

mod gear;
#[cfg(test)]
mod tests;

pub use gear::{CONTEXT_BYTES, Candidate, scan};

use gear::forced_end;

/// Name under which the store records this way of finding cuts.
pub const CONTENT_METHOD: &str = "filed-gear-1";

/// Smallest and largest average piece size.
const AVERAGE_RANGE_BYTES: RangeInclusive<usize> = 16 << 10..=256 << 10;

// A forced piece is above the average, and the hashes compared for it see nothing before it.
const _: () = assert!(*AVERAGE_RANGE_BYTES.start() * 3 > gear::FORCED_RANGE_BYTES);

/// How streams are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Where the content says so: survives insertions and deletions.
    Content(ContentParams),
    /// Every chunk is one piece, or one for each of its extents where it has holes.
    Fixed,
}

impl Method {
    /// Replaces `out` by the candidates of `data`, see [`scan`]. `Fixed` has none.
    pub fn scan(&self, context: &[u8], data: &[u8], out: &mut Vec<Candidate>) {
        match self {
            Self::Content(params) => scan(context, data, *params, out),
            Self::Fixed => out.clear(),
        }
    }
}

/// Sizes of content-defined pieces. All follow from the average.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentParams {
    average_bytes: usize,
}

/// An average piece size that filed does not offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("average piece size of {average_bytes} bytes is not a power of two from 16 KiB to 256 KiB")]
pub struct AverageError {
    /// What was asked for, in bytes.
    pub average_bytes: usize,
}

impl ContentParams {
    /// Fails unless `average_bytes` is a power of two from 16 KiB to 256 KiB.
    pub fn from_average(average_bytes: usize) -> Result<Self, AverageError> {
        if !average_bytes.is_power_of_two() || !AVERAGE_RANGE_BYTES.contains(&average_bytes) {
            return Err(AverageError { average_bytes });
        }
        Ok(Self { average_bytes })
    }

    /// No piece is smaller, in bytes, but the last of an extent.
    pub fn min_bytes(self) -> usize {
        self.average_bytes / 4
    }

    /// From this size on any candidate ends a piece, in bytes. The mean over random data is about
    /// a seventh more.
    pub fn average_bytes(self) -> usize {
        self.average_bytes
    }

    /// No piece is larger, in bytes.
    pub fn max_bytes(self) -> usize {
        self.average_bytes * 4
    }

    /// A hash below this matches.
    fn loose_ceiling(self) -> u64 {
        1 << (64 + 2 - self.average_bytes.ilog2())
    }

    /// A hash below this matches strictly.
    fn strict_ceiling(self) -> u64 {
        1 << (64 - 2 - self.average_bytes.ilog2())
    }
}

/// Whether the extent goes on after the data at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentEnd {
    /// The next chunk continues it.
    More,
    /// A hole or the end of the stream follows: the last piece ends here.
    Ends,
}

/// Where a piece ends: bytes that belong to it or to pieces before it, counted from where the
/// pending piece begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CutEnd(pub usize);

/// Turns candidates into cuts, chunk after chunk of one stream.
#[derive(Clone, Debug)]
pub struct Cutter {
    method: Method,
    pending_bytes: usize,
}

impl Cutter {
    /// A cutter at the start of a stream.
    pub fn new(method: Method) -> Self {
        Self {
            method,
            pending_bytes: 0,
        }
    }

    /// Bytes of the unfinished piece before the next data. Less than the greatest piece size; 0
    /// after an extent has ended.
    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Replaces `cuts` by those that the next data decide, strictly increasing and at most the
    /// length of `bytes`.
    ///
    /// `bytes` are the [`pending_bytes`](Self::pending_bytes) from before and directly behind them
    /// the next data; `candidates` are those of the next data alone. A cut can lie among the pending
    /// bytes, where only the next data show that one must be forced there.
    ///
    /// # Panics
    ///
    /// When `bytes` are fewer than the pending ones.
    pub fn cut(
        &mut self,
        bytes: &[u8],
        candidates: &[Candidate],
        extent: ExtentEnd,
        cuts: &mut Vec<CutEnd>,
    ) {
        assert!(
            bytes.len() >= self.pending_bytes,
            "{} bytes with {} pending",
            bytes.len(),
            self.pending_bytes
        );
        cuts.clear();
        match self.method {
            Method::Content(params) => self.cut_content(params, bytes, candidates, extent, cuts),
            Method::Fixed => cuts.extend((!bytes.is_empty()).then_some(CutEnd(bytes.len()))),
        }
    }

    fn cut_content(
        &mut self,
        params: ContentParams,
        bytes: &[u8],
        candidates: &[Candidate],
        extent: ExtentEnd,
        cuts: &mut Vec<CutEnd>,
    ) {
        let max = params.max_bytes();
        let mut start = 0;
        for candidate in candidates {
            let position = self.pending_bytes + candidate.end as usize;
            // A forced cut skips no candidate: one so far behind `start` would have ended the piece.
            debug_assert!(
                start < position && position <= bytes.len(),
                "{candidate:?} out of place"
            );
            while position - start > max {
                start += forced_end(&bytes[start..start + max]);
                cuts.push(CutEnd(start));
            }
            let least = if candidate.strict {
                params.min_bytes()
            } else {
                params.average_bytes()
            };
            if position - start >= least {
                start = position;
                cuts.push(CutEnd(start));
            }
        }
        while bytes.len() - start >= max {
            start += forced_end(&bytes[start..start + max]);
            cuts.push(CutEnd(start));
        }
        if extent == ExtentEnd::Ends && start < bytes.len() {
            start = bytes.len();
            cuts.push(CutEnd(start));
        }
        self.pending_bytes = bytes.len() - start;
    }
}
