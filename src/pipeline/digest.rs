//! The digest of a whole file, computed by many threads.
//!
//! BLAKE3 is a tree: a chunk of 1 MiB at a multiple of 1 MiB is a complete subtree, whose chaining
//! value needs the chunk and its index and nothing of its neighbours. Workers compute those
//! ([`chunk_subtree`]), one place merges them in order ([`FileDigest`]), and the result is the
//! plain BLAKE3 of the file, what `b3sum` prints.
//!
//! The rule that must hold is the tree's: every chunk but the last is full, and none is left out or
//! comes twice. A digest over anything else would look as good as the right one, so it is checked
//! in release as well.

use blake3::Hasher;
use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root,
};

/// Bytes of a chunk. A power of two, as subtrees are.
pub const CHUNK_BYTES: usize = 1 << 20;

/// What a worker knows about the digest of its chunk.
#[derive(Clone, Copy, Debug)]
pub struct ChunkDigest {
    index: u64,
    fill: Fill,
    subtree: ChainingValue,
    /// What the file's digest is if it has no other chunk. Only for the first.
    alone: Option<blake3::Hash>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fill {
    Full,
    /// Shorter than a chunk: nothing can follow.
    Last,
}

/// Digests the chunk number `index` (from 0) of a file.
///
/// Holes count as the zeros they read as.
///
/// # Panics
///
/// When `data` is empty (an empty file has no chunk) or longer than [`CHUNK_BYTES`].
pub fn chunk_subtree(index: u64, data: &[u8]) -> ChunkDigest {
    subtree::<CHUNK_BYTES>(index, data)
}

/// The same for chunks of any power of two of at least 1024 bytes, so that tests can afford many.
fn subtree<const BYTES: usize>(index: u64, data: &[u8]) -> ChunkDigest {
    const { assert!(BYTES.is_power_of_two() && BYTES >= blake3::CHUNK_LEN) };
    assert!(
        (1..=BYTES).contains(&data.len()),
        "chunk {index} has {} bytes, not 1 to {BYTES}",
        data.len()
    );
    let offset_bytes = index
        .checked_mul(BYTES as u64)
        .expect("a file is shorter than 2^64 bytes");
    let mut hasher = Hasher::new();
    hasher.set_input_offset(offset_bytes).update(data);
    ChunkDigest {
        index,
        fill: if data.len() == BYTES {
            Fill::Full
        } else {
            Fill::Last
        },
        subtree: hasher.finalize_non_root(),
        alone: (index == 0).then(|| hasher.finalize()),
    }
}

/// Merges the chunks of one file, in order. Holds one value per level of the tree: 32 for a
/// petabyte.
#[derive(Clone, Debug)]
pub struct FileDigest {
    chunks: u64,
    /// The digest as long as there is at most one chunk.
    alone: blake3::Hash,
    fill: Fill,
    /// Complete subtrees from left to right, each larger than the next, except that the last one
    /// may wait to be merged: had nothing followed, that merge would have been the root's.
    subtrees: Vec<ChainingValue>,
}

impl Default for FileDigest {
    fn default() -> Self {
        Self::new()
    }
}

impl FileDigest {
    /// The digest of a file of which nothing has been seen.
    pub fn new() -> Self {
        Self {
            chunks: 0,
            alone: blake3::hash(b""),
            fill: Fill::Full,
            subtrees: Vec::new(),
        }
    }

    /// Adds the next chunk.
    ///
    /// # Panics
    ///
    /// When `chunk` is not the next one, or follows one that was not full.
    pub fn push(&mut self, chunk: ChunkDigest) {
        assert_eq!(chunk.index, self.chunks, "chunks are digested in order");
        assert_eq!(
            self.fill,
            Fill::Full,
            "chunk {} follows a short one",
            chunk.index
        );
        // The chunks so far are as many complete subtrees as their count has one bits.
        while self.subtrees.len() > self.chunks.count_ones() as usize {
            self.merge_last_two();
        }
        self.subtrees.push(chunk.subtree);
        self.chunks += 1;
        self.fill = chunk.fill;
        self.alone = chunk.alone.unwrap_or(self.alone);
    }

    /// The BLAKE3 of everything pushed.
    pub fn finish(mut self) -> [u8; 32] {
        while self.subtrees.len() > 2 {
            self.merge_last_two();
        }
        match self.subtrees.as_slice() {
            [left, right] => *merge_subtrees_root(left, right, Mode::Hash).as_bytes(),
            _ => *self.alone.as_bytes(),
        }
    }

    fn merge_last_two(&mut self) {
        if let (Some(right), Some(left)) = (self.subtrees.pop(), self.subtrees.pop()) {
            let merged = merge_subtrees_non_root(&left, &right, Mode::Hash);
            self.subtrees.push(merged);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{CHUNK_BYTES, FileDigest, chunk_subtree, subtree};

    fn sample(len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut data);
        data
    }

    fn digest_in_chunks_of<const BYTES: usize>(data: &[u8]) -> [u8; 32] {
        let mut file = FileDigest::new();
        for (index, chunk) in (0..).zip(data.chunks(BYTES)) {
            file.push(subtree::<BYTES>(index, chunk));
        }
        file.finish()
    }

    #[test]
    fn digest_is_that_of_the_whole_file_around_every_boundary() {
        let data = sample(5 * CHUNK_BYTES + 1);
        let around = |bytes: usize| [bytes - 1, bytes, bytes + 1];
        let lengths = [0].into_iter().chain(
            [
                1,
                1024,
                CHUNK_BYTES,
                2 * CHUNK_BYTES,
                3 * CHUNK_BYTES,
                5 * CHUNK_BYTES,
            ]
            .into_iter()
            .flat_map(around),
        );
        for len in lengths {
            let mut file = FileDigest::new();
            for (index, chunk) in (0..).zip(data[..len].chunks(CHUNK_BYTES)) {
                file.push(chunk_subtree(index, chunk));
            }
            assert_eq!(
                file.finish(),
                *blake3::hash(&data[..len]).as_bytes(),
                "{len} bytes"
            );
        }
    }

    #[test]
    fn every_number_of_chunks_merges_to_the_digest_of_the_whole() {
        let data = sample(300 * 1024);
        for chunks in 0..300 {
            for len in [chunks * 1024, chunks * 1024 + 7] {
                let whole = blake3::hash(&data[..len]);
                assert_eq!(
                    digest_in_chunks_of::<1024>(&data[..len]),
                    *whole.as_bytes(),
                    "{len} bytes"
                );
            }
        }
    }

    #[test]
    fn memory_is_one_value_per_level() {
        let mut file = FileDigest::new();
        for index in 0..100_000 {
            file.push(subtree::<1024>(index, &[7; 1024]));
            assert!(
                file.subtrees.len() <= 18,
                "{} after {index}",
                file.subtrees.len()
            );
        }
    }

    #[test]
    fn same_bytes_at_another_index_are_another_subtree() {
        let data = sample(1024);
        let (first, second) = (subtree::<1024>(0, &data), subtree::<1024>(1, &data));
        assert_ne!(first.subtree, second.subtree);
    }

    #[test]
    fn chunk_out_of_order_is_caught() {
        let mut file = FileDigest::new();
        let wrong = chunk_subtree(1, b"second");
        let pushed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| file.push(wrong)));
        assert!(pushed.is_err());
    }

    #[test]
    fn chunk_after_a_short_one_is_caught() {
        let mut file = FileDigest::new();
        file.push(subtree::<1024>(0, b"short"));
        let next = subtree::<1024>(1, b"more");
        let pushed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| file.push(next)));
        assert!(pushed.is_err());
    }

    proptest! {
        #[test]
        fn digest_does_not_depend_on_the_chunk_size(len in 0_usize..200_000) {
            let data = sample(len);
            let whole = *blake3::hash(&data).as_bytes();
            prop_assert_eq!(digest_in_chunks_of::<1024>(&data), whole);
            prop_assert_eq!(digest_in_chunks_of::<2048>(&data), whole);
            prop_assert_eq!(digest_in_chunks_of::<16384>(&data), whole);
        }
    }
}
