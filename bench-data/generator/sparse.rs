//! A file with holes: extents of mixed data, and nothing in between.
//!
//! Extents begin and end at multiples of 64 KiB, the largest block or page of the file systems and
//! machines filed runs on. So every hole is one on disk too, where the file system has holes.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;

use super::random::Random;
use super::{Kind, write_stream};

const UNIT_BYTES: u64 = 64 << 10;

/// The longest hole, in units: 16 MiB.
const MOST_HOLE_UNITS: u64 = 256;

/// A hole is at most this share of the file, so that a small file has several.
const HOLE_SHARE: u64 = 16;

/// The longest extent is this share of the longest hole.
const DATA_SHARE: u64 = 4;

/// Makes `file`, which is empty, `size_bytes` long, with data in its extents only.
///
/// # Errors
///
/// When it cannot be written, or is not a file that can have holes.
pub(crate) fn write(file: &mut File, size_bytes: u64, seed: u64) -> io::Result<()> {
    file.set_len(size_bytes)?;
    let mut data = Kind::Mixed.stream(seed);
    for extent in Extents::new(size_bytes, seed) {
        file.seek(SeekFrom::Start(extent.start))?;
        write_stream(data.as_mut(), extent.end - extent.start, file)?;
    }
    Ok(())
}

/// The byte ranges of a file that hold data, in order, with a hole before each.
pub(super) struct Extents {
    random: Random,
    at_bytes: u64,
    size_bytes: u64,
    most_hole_units: u64,
}

impl Extents {
    pub(super) fn new(size_bytes: u64, seed: u64) -> Extents {
        let share = size_bytes / UNIT_BYTES / HOLE_SHARE;
        Extents {
            random: Random::new(seed),
            at_bytes: 0,
            size_bytes,
            most_hole_units: share.clamp(1, MOST_HOLE_UNITS),
        }
    }

    /// Goes on by 1 to `most_units` units, up to the end of the file.
    fn advance(&mut self, most_units: u64) -> u64 {
        let length_bytes = self.random.between(1, most_units) * UNIT_BYTES;
        self.at_bytes = self
            .at_bytes
            .saturating_add(length_bytes)
            .min(self.size_bytes);
        self.at_bytes
    }
}

impl Iterator for Extents {
    type Item = Range<u64>;

    fn next(&mut self) -> Option<Range<u64>> {
        let start = self.advance(self.most_hole_units);
        let end = self.advance((self.most_hole_units / DATA_SHARE).max(1));
        (start < end).then_some(start..end)
    }
}
