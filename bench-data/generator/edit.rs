//! A second version of a stream: the same bytes with small edits all over it.
//!
//! Edits are spread evenly, one in each equal part of the file, and never overlap. So they can
//! be applied while the stream is made, and as many as were asked for are there.

use std::fmt;
use std::iter::Peekable;

use super::Stream;
use super::random::Random;

/// The most bytes an edit removes, or puts in.
const MOST_EDIT_BYTES: u64 = 64;

/// The least room for each edit in the file, in bytes.
const LEAST_ROOM_BYTES: u64 = 2 * MOST_EDIT_BYTES;

/// Removes bytes at one place and puts others there. An insert removes none, a delete puts in none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edit {
    /// Offset in the stream as it was.
    pub(crate) at_bytes: u64,
    pub(crate) removed_bytes: u64,
    pub(crate) inserted: Vec<u8>,
}

/// The edits of a file, in order of their offsets.
pub(crate) struct Edits {
    random: Random,
    size_bytes: u64,
    count: u64,
    made: u64,
}

/// More edits than the file has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManyEdits {
    most: u64,
}

impl fmt::Display for TooManyEdits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = self.most;
        write!(
            f,
            "too many edits: each needs {LEAST_ROOM_BYTES} bytes, so this size has room for {most}"
        )
    }
}

impl Edits {
    /// `count` edits to the first `size_bytes` of a stream.
    ///
    /// # Errors
    ///
    /// When they would get in each other's way.
    pub(crate) fn new(size_bytes: u64, count: u64, seed: u64) -> Result<Edits, TooManyEdits> {
        let most = size_bytes / LEAST_ROOM_BYTES;
        if count > most {
            return Err(TooManyEdits { most });
        }
        // The count takes part, so that files with different counts are different versions.
        let random = Random::new(seed.rotate_left(32) ^ count);
        Ok(Edits {
            random,
            size_bytes,
            count,
            made: 0,
        })
    }

    /// Where the part of the file begins that belongs to edit number `index`.
    fn part_start(&self, index: u64) -> u64 {
        (u128::from(index) * u128::from(self.size_bytes) / u128::from(self.count)) as u64
    }
}

impl Iterator for Edits {
    type Item = Edit;

    fn next(&mut self) -> Option<Edit> {
        if self.made == self.count {
            return None;
        }
        let start = self.part_start(self.made);
        let last = self.part_start(self.made + 1) - MOST_EDIT_BYTES;
        self.made += 1;
        let at_bytes = self.random.between(start, last);
        let length_bytes = self.random.between(1, MOST_EDIT_BYTES);
        let (removed_bytes, inserted_bytes) = match self.random.below(3) {
            0 => (0, length_bytes),
            1 => (length_bytes, 0),
            _ => (length_bytes, length_bytes),
        };
        // Letters, so that an edited text is still text.
        let inserted = (0..inserted_bytes)
            .map(|_| b'a' + self.random.below(26) as u8)
            .collect();
        Some(Edit {
            at_bytes,
            removed_bytes,
            inserted,
        })
    }
}

/// A stream with edits applied to it.
pub(crate) struct Edited {
    base: Box<dyn Stream>,
    edits: Peekable<Edits>,
    /// The item of `base` being copied.
    item: Vec<u8>,
    /// Offset in `base` of the next byte to copy.
    at_bytes: u64,
    /// Bytes of `base` still to drop for the last edit.
    dropping_bytes: u64,
}

impl Edited {
    pub(crate) fn new(base: Box<dyn Stream>, edits: Edits) -> Edited {
        let edits = edits.peekable();
        Edited {
            base,
            edits,
            item: Vec::new(),
            at_bytes: 0,
            dropping_bytes: 0,
        }
    }

    /// Takes up to `most_bytes` off the front of `rest`.
    fn take<'a>(&mut self, rest: &mut &'a [u8], most_bytes: u64) -> &'a [u8] {
        let length = usize::try_from(most_bytes).map_or(rest.len(), |most| most.min(rest.len()));
        let (taken, left) = rest.split_at(length);
        *rest = left;
        self.at_bytes += length as u64;
        taken
    }

    fn copy(&mut self, mut rest: &[u8], out: &mut Vec<u8>) {
        while !rest.is_empty() {
            let dropped = self.take(&mut rest, self.dropping_bytes).len();
            self.dropping_bytes -= dropped as u64;
            let untouched_bytes = self
                .edits
                .peek()
                .map_or(u64::MAX, |edit| edit.at_bytes - self.at_bytes);
            out.extend_from_slice(self.take(&mut rest, untouched_bytes));
            if let Some(edit) = self.edits.next_if(|edit| edit.at_bytes == self.at_bytes) {
                out.extend_from_slice(&edit.inserted);
                self.dropping_bytes = edit.removed_bytes;
            }
        }
    }
}

impl Stream for Edited {
    fn append(&mut self, out: &mut Vec<u8>) {
        if self.edits.peek().is_none() && self.dropping_bytes == 0 {
            return self.base.append(out);
        }
        let mut item = std::mem::take(&mut self.item);
        item.clear();
        self.base.append(&mut item);
        self.copy(&item, out);
        self.item = item;
    }
}
