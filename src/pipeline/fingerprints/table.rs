//! The table of cached pieces: from digests to numbers of pieces in groups.
//!
//! Shared by all threads, in shards with a lock each. An entry is eight bytes: 32 bits of the digest
//! and the piece's number. So it says *may have*, once in 2^40 wrongly, and whoever wants to be sure
//! compares the digest in the group.
//!
//! The digest's bits give an entry's home by multiplication, so tables have any size and grow by
//! half; a shard's table is copied alone, which keeps each growing step short however large the cache
//! is. The rule that must hold: **no empty place lies between an entry and its home.**

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::PieceId;

const SHARDS: usize = 256;
const SMALLEST: usize = 8;
/// At most this share of a table is used, in percent.
const FULL_PERCENT: usize = 80;
/// A table that is used less than this is made smaller.
const SPARSE_PERCENT: usize = 25;
const EMPTY: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Entry {
    hash: u32,
    piece: u32,
}

/// Which pieces are cached.
pub(super) struct Table {
    shards: Box<[Mutex<Shard>]>,
    bytes: AtomicU64,
}

#[derive(Default)]
struct Shard {
    entries: Box<[Entry]>,
    used: usize,
}

impl Table {
    pub(super) fn new() -> Table {
        Table {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            bytes: AtomicU64::new((SHARDS * size_of::<Mutex<Shard>>()) as u64),
        }
    }

    /// Whether a piece with this digest may be cached.
    pub(super) fn may_have(&self, id: &PieceId) -> bool {
        self.find(id, |_| true).is_some()
    }

    /// The first piece that may have this digest and of which `is_it` says that it does.
    pub(super) fn find(&self, id: &PieceId, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let (shard, hash) = self.shard(id);
        if shard.entries.is_empty() {
            return None;
        }
        let mut at = home(hash, shard.entries.len());
        loop {
            let entry = shard.entries[at];
            if entry.piece == EMPTY {
                return None;
            }
            if entry.hash == hash && is_it(entry.piece) {
                return Some(entry.piece);
            }
            at = next(at, shard.entries.len());
        }
    }

    /// Adds a piece.
    pub(super) fn insert(&self, id: &PieceId, piece: u32) {
        let (mut shard, hash) = self.shard(id);
        if (shard.used + 1) * 100 > shard.entries.len() * FULL_PERCENT {
            let wanted = (shard.entries.len() * 3 / 2).max(SMALLEST);
            self.resize(&mut shard, wanted);
        }
        shard.put(Entry { hash, piece });
        shard.used += 1;
    }

    /// Removes a piece.
    pub(super) fn remove(&self, id: &PieceId, piece: u32) {
        let (mut shard, hash) = self.shard(id);
        let length = shard.entries.len();
        if length == 0 {
            return;
        }
        let mut at = home(hash, length);
        while shard.entries[at].piece != piece {
            if shard.entries[at].piece == EMPTY {
                return;
            }
            at = next(at, length);
        }
        // Moves up what would lose the way to its home through the gap.
        let mut gap = at;
        loop {
            at = next(at, length);
            let entry = shard.entries[at];
            if entry.piece == EMPTY {
                break;
            }
            let from_home = distance(home(entry.hash, length), at, length);
            if from_home >= distance(gap, at, length) {
                shard.entries[gap] = entry;
                gap = at;
            }
        }
        shard.entries[gap].piece = EMPTY;
        shard.used -= 1;
        if shard.used * 100 < length * SPARSE_PERCENT {
            let wanted = match shard.used {
                0 => 0,
                used => (used * 3 / 2 + 1).max(SMALLEST),
            };
            if wanted < length {
                self.resize(&mut shard, wanted);
            }
        }
    }

    /// Bytes that it holds.
    pub(super) fn held_bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn resize(&self, shard: &mut Shard, entries: usize) {
        let empty = Entry {
            hash: 0,
            piece: EMPTY,
        };
        let old = std::mem::replace(&mut shard.entries, vec![empty; entries].into());
        let bytes = |entries: usize| (entries * size_of::<Entry>()) as u64;
        self.bytes.fetch_add(bytes(entries), Ordering::Relaxed);
        self.bytes.fetch_sub(bytes(old.len()), Ordering::Relaxed);
        for entry in old {
            if entry.piece != EMPTY {
                shard.put(entry);
            }
        }
    }

    fn shard(&self, id: &PieceId) -> (MutexGuard<'_, Shard>, u32) {
        // Not the bits of the index's prefix that other tables use for the like.
        let [.., a, b, c, d, shard] = id.0;
        let shard = &self.shards[usize::from(shard) % SHARDS];
        let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        (shard, u32::from_le_bytes([a, b, c, d]))
    }
}

impl Shard {
    /// Puts an entry into the first empty place from its home on.
    fn put(&mut self, entry: Entry) {
        let length = self.entries.len();
        let mut at = home(entry.hash, length);
        while self.entries[at].piece != EMPTY {
            at = next(at, length);
        }
        self.entries[at] = entry;
    }
}

/// The place of a hash in a table of that length, which is not zero.
fn home(hash: u32, length: usize) -> usize {
    ((u64::from(hash) * length as u64) >> 32) as usize
}

fn next(at: usize, length: usize) -> usize {
    if at + 1 == length { 0 } else { at + 1 }
}

/// Steps from one place to another, around the end.
fn distance(from: usize, to: usize, length: usize) -> usize {
    if to >= from {
        to - from
    } else {
        to + length - from
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// Few different digests in few shards, so that everything collides.
    fn id(of: u16) -> PieceId {
        let mut id = PieceId([0; 32]);
        id.0[31] = (of % 3) as u8;
        id.0[27..31].copy_from_slice(&(u32::from(of / 3) << 29).to_le_bytes());
        id.0[0..2].copy_from_slice(&of.to_le_bytes());
        id
    }

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((any::<bool>(), 0u16..60), 0..400)) {
            let table = Table::new();
            let empty_bytes = table.held_bytes();
            let mut model: HashMap<u16, u32> = HashMap::new();
            for (number, (add, of)) in steps.into_iter().enumerate() {
                let number = number as u32;
                if add && !model.contains_key(&of) {
                    table.insert(&id(of), number);
                    model.insert(of, number);
                } else if let Some(piece) = model.remove(&of) {
                    table.remove(&id(of), piece);
                }
                for of in 0..60 {
                    let wanted = model.get(&of).copied();
                    let found = table.find(&id(of), |piece| Some(piece) == wanted);
                    prop_assert_eq!(found, wanted);
                }
            }
            for (of, piece) in model {
                table.remove(&id(of), piece);
            }
            prop_assert_eq!(table.held_bytes(), empty_bytes);
        }
    }

    #[test]
    fn a_piece_costs_at_most_sixteen_bytes() {
        let table = Table::new();
        for piece in 0..200_000_u32 {
            table.insert(&PieceId::of(&piece.to_le_bytes()), piece);
        }
        assert!(table.held_bytes() <= 200_000 * 16, "{}", table.held_bytes());
    }
}
