//! The frame that a worker gathers: new pieces side by side, then compressed into a record.
//!
//! The plain bytes and the record are buffers from the heap, each used for one frame after the other,
//! so gathering allocates nothing. What will not shrink is found out on a sample, because finding it
//! out on the whole frame costs as much as compressing it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::stream::StreamTotals;
use crate::heap::Buffer;
use crate::store::coding::Encoder;
use crate::store::record::{
    Coding, HEADER_BYTES, MAX_FRAME_PIECES, MAX_PLAIN_BYTES, MAX_TABLE_BYTES, PIECE_ENTRY_BYTES,
    PieceEntry,
};

/// Room for the plain bytes of a frame.
pub(super) const PLAIN_ROOM_BYTES: usize = MAX_PLAIN_BYTES;

/// Room for a frame's record.
pub(super) const RECORD_ROOM_BYTES: usize = HEADER_BYTES + MAX_TABLE_BYTES + MAX_PLAIN_BYTES;

/// A frame with this much in it is written when its worker is done with a chunk. What is new in one
/// chunk then lies in one frame and compresses with its neighbours, though the worker's next chunk
/// may be from elsewhere; a chunk with little new in it leaves the frame open for more.
const FULL_BYTES: usize = 768 << 10;

/// A frame shorter than this is compressed without asking a sample first.
const SAMPLED_FROM_BYTES: usize = 128 << 10;

/// Bytes of a frame that are looked at to tell whether the rest is worth compressing: four runs of
/// this length, spread evenly.
const SAMPLE_RUN_BYTES: usize = 4 << 10;

/// Pieces gathered so far.
pub(super) struct Frame {
    plain: Buffer,
    used: usize,
    pieces: Vec<PieceEntry>,
    /// Whose bytes these are, in order.
    shares: Vec<(Arc<StreamTotals>, usize)>,
}

impl Frame {
    /// An empty frame; `plain` has [`PLAIN_ROOM_BYTES`].
    pub(super) fn new(plain: Buffer) -> Frame {
        Frame {
            plain,
            used: 0,
            pieces: Vec::new(),
            shares: Vec::new(),
        }
    }

    /// Whether a piece of this length still fits.
    pub(super) fn has_room(&self, length: usize) -> bool {
        self.used + length <= PLAIN_ROOM_BYTES && self.pieces.len() < MAX_FRAME_PIECES
    }

    /// Whether it should be written now that a chunk is done.
    pub(super) fn is_full(&self) -> bool {
        self.used >= FULL_BYTES
    }

    /// Pieces in it.
    pub(super) fn pieces(&self) -> &[PieceEntry] {
        &self.pieces
    }

    /// Bytes in it.
    pub(super) fn plain_bytes(&self) -> usize {
        self.used
    }

    /// Adds a piece of the file whose totals these are.
    pub(super) fn push(&mut self, entry: PieceEntry, bytes: &[u8], totals: &Arc<StreamTotals>) {
        self.plain[self.used..self.used + bytes.len()].copy_from_slice(bytes);
        self.used += bytes.len();
        self.pieces.push(entry);
        match self.shares.last_mut() {
            Some((last, share)) if Arc::ptr_eq(last, totals) => *share += bytes.len(),
            _ => self.shares.push((Arc::clone(totals), bytes.len())),
        }
    }

    /// Writes table and payload into `record`, leaving room for the header, and gives how the payload
    /// is coded and how long the record is.
    pub(super) fn encode(&self, encoder: &mut Encoder, record: &mut [u8]) -> (Coding, usize) {
        let payload_at = HEADER_BYTES + self.pieces.len() * PIECE_ENTRY_BYTES;
        let table = record[HEADER_BYTES..payload_at].chunks_exact_mut(PIECE_ENTRY_BYTES);
        for (entry, out) in self.pieces.iter().zip(table) {
            entry.encode(out);
        }
        let plain = &self.plain[..self.used];
        // Saving less than this is not worth decompressing it each time it is read.
        let worthwhile = plain.len() - plain.len() / 64;
        if looks_compressible(plain) {
            let room = &mut record[payload_at..payload_at + worthwhile];
            if let Some(length) = encoder.compress(plain, room) {
                return (Coding::Zstd, payload_at + length);
            }
        }
        let end = payload_at + plain.len();
        record[payload_at..end].copy_from_slice(plain);
        (Coding::Plain, end)
    }

    /// Empties the frame, sharing out what it took in the store among the files it came from.
    pub(super) fn clear(&mut self, stored_bytes: usize) {
        let (mut plain_left, mut stored_left) = (self.used, stored_bytes);
        for (totals, share) in self.shares.drain(..) {
            let stored = (stored_left as u64 * share as u64) / plain_left.max(1) as u64;
            totals.stored_bytes.fetch_add(stored, Ordering::Relaxed);
            plain_left -= share;
            stored_left -= stored as usize;
        }
        self.used = 0;
        self.pieces.clear();
    }
}

/// Whether some part of a sample has fewer different bytes than noise would: then it is worth
/// trying. Noise in all parts means data that was compressed or encrypted before.
fn looks_compressible(plain: &[u8]) -> bool {
    if plain.len() < SAMPLED_FROM_BYTES {
        return true;
    }
    let step = plain.len() / 4;
    (0..4).any(|part| {
        let at = part * step;
        !is_noise(&plain[at..at + SAMPLE_RUN_BYTES])
    })
}

/// Holds the bytes' frequencies against those of noise by the sum of their squares. For noise in
/// n = 4096 bytes it is n + n(n-1)/256 = 69,616 with a standard deviation of about 360; text,
/// machine code, tables and repeated bytes are far above.
fn is_noise(run: &[u8]) -> bool {
    const CEILING: u32 = 69_616 + 6 * 360;
    let mut counts = [0u16; 256];
    for &byte in run {
        counts[byte as usize] += 1;
    }
    let squares: u32 = counts
        .iter()
        .map(|&count| u32::from(count) * u32::from(count))
        .sum();
    squares < CEILING
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut out);
        out
    }

    #[test]
    fn noise_is_not_worth_compressing() {
        assert!(!looks_compressible(&noise(1 << 20)));
    }

    #[test]
    fn text_within_noise_is_worth_a_try() {
        let mut bytes = noise(1 << 20);
        let at = 2 * (bytes.len() / 4);
        bytes[at..at + SAMPLE_RUN_BYTES].fill(b' ');
        assert!(looks_compressible(&bytes));
    }

    #[test]
    fn base64_of_noise_is_worth_compressing() {
        let bytes: Vec<u8> = noise(1 << 20).iter().map(|byte| b'A' + byte % 64).collect();
        assert!(looks_compressible(&bytes));
    }

    #[test]
    fn stored_bytes_are_shared_out_whole() {
        let pool = crate::heap::Pool::new(8 << 20);
        let mut frame = Frame::new(pool.account("frame").take(PLAIN_ROOM_BYTES).unwrap());
        let totals: Vec<Arc<StreamTotals>> = (0..3).map(|_| Arc::default()).collect();
        for (index, length) in [(0, 10), (1, 20), (1, 30), (2, 7)] {
            let bytes = noise(length);
            let entry = PieceEntry {
                id: crate::store::PieceId::of(&bytes),
                length_bytes: length as u32,
            };
            frame.push(entry, &bytes, &totals[index]);
        }
        frame.clear(1001);
        let shared: Vec<u64> = totals
            .iter()
            .map(|t| t.stored_bytes.load(Ordering::Relaxed))
            .collect();
        assert_eq!(shared.iter().sum::<u64>(), 1001);
        assert!(shared[1] > shared[0] && shared[0] > shared[2]);
    }
}
