//! Where a stream is cut into pieces.
//!
//! The cuts of an extent (data between two holes) depend on its bytes alone: not on how it was
//! read in chunks, nor on how many threads looked at it. So the work is split in two:
//!
//! * [`scan`] finds *candidates*: positions that look like a cut from the 126 bytes before them
//!   and nothing else. Every worker does it for its own chunk; all of the cost is here.
//! * [`Cutter`] walks the candidates in order and applies the least, average and greatest piece
//!   size. This needs the cut before, so it is sequential; it never touches the data.
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
//!    or its first candidate of any kind from the average on, or at the greatest size (four times
//!    the average), or with the extent. This is the normalised chunking of `FastCDC` (2020), level 2.
//!
//! Rule 4 bounds memory: without it a short pattern that happens to match could make every second
//! byte of a chunk a candidate. With it there is at most one per 64 bytes, and among random data
//! it drops less than one in sixty.

use std::ops::RangeInclusive;

mod gear;
#[cfg(test)]
mod tests;

pub use gear::{CONTEXT_BYTES, Candidate, scan};

/// Name under which the store records this way of finding cuts.
pub const CONTENT_METHOD: &str = "filed-gear-1";

/// Smallest and largest average piece size.
const AVERAGE_RANGE_BYTES: RangeInclusive<usize> = 16 << 10..=256 << 10;

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

/// Where a piece ends: bytes of the data at hand that belong to it or to pieces before it.
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

    /// Replaces `cuts` by the cuts in the next `data_len` bytes, strictly increasing and at most
    /// `data_len`. The first piece also has the [`pending_bytes`](Self::pending_bytes) from before.
    ///
    /// `candidates` are those of just these bytes. A cut at 0 happens only when no data is left and
    /// the pending piece is all that ends.
    pub fn cut(
        &mut self,
        candidates: &[Candidate],
        data_len: usize,
        extent: ExtentEnd,
        cuts: &mut Vec<CutEnd>,
    ) {
        cuts.clear();
        match self.method {
            Method::Content(params) => self.cut_content(params, candidates, data_len, extent, cuts),
            Method::Fixed => cuts.extend((data_len > 0).then_some(CutEnd(data_len))),
        }
    }

    fn cut_content(
        &mut self,
        params: ContentParams,
        candidates: &[Candidate],
        data_len: usize,
        extent: ExtentEnd,
        cuts: &mut Vec<CutEnd>,
    ) {
        // Positions count from the start of the pending piece, so that none is negative.
        let pending = self.pending_bytes;
        let total = pending + data_len;
        let mut start = 0;
        for candidate in candidates {
            let position = pending + candidate.end as usize;
            debug_assert!(
                start < position && position <= total,
                "{candidate:?} out of place"
            );
            while position - start > params.max_bytes() {
                start += params.max_bytes();
                cuts.push(CutEnd(start - pending));
            }
            let least = if candidate.strict {
                params.min_bytes()
            } else {
                params.average_bytes()
            };
            if position - start >= least {
                start = position;
                cuts.push(CutEnd(start - pending));
            }
        }
        while total - start >= params.max_bytes() {
            start += params.max_bytes();
            cuts.push(CutEnd(start - pending));
        }
        if extent == ExtentEnd::Ends && start < total {
            start = total;
            cuts.push(CutEnd(data_len));
        }
        self.pending_bytes = total - start;
    }
}
