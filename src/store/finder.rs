//! Is this piece in the store? A small cache of pack lists in front of the index on disk.
//!
//! When a piece is found, the list of its whole pack is taken into memory, because the pieces that
//! were new together once are likely to come together again (Zhu, Li, Patterson: "Avoiding the Disk
//! Bottleneck in the Data Domain Deduplication File System", FAST '08). So a second copy of a file
//! asks the index once for a pack, not once for a piece, and the index may be as large as it likes.
//!
//! Two rules. An answer is only given after the whole digest was compared with the pack's list. And
//! only pieces that the index knows are taken into memory: the file of a pack that is still written
//! holds more than its writer has made durable, and whoever refers to that would acknowledge a file
//! that a power cut can still take a piece from.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Store;
use super::error::StoreError;
use super::id::{PackId, PieceId, PiecePlace};
use super::record::PieceEntry;

/// Finds pieces; may be asked from any thread.
pub struct PieceFinder<'store> {
    store: &'store Store,
    limit_bytes: AtomicU64,
    lists: Mutex<Lists>,
    hits: AtomicU64,
    asked: AtomicU64,
}

/// Pieces of cached packs. `order` is the order of loading: the oldest list goes first.
#[derive(Default)]
struct Lists {
    packs: HashMap<PackId, Vec<PieceEntry>>,
    order: VecDeque<PackId>,
    by_prefix: HashMap<u64, PiecePlace>,
}

/// How often the cache answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FinderStats {
    /// Questions that the cache answered with a piece.
    pub hits: u64,
    /// Questions that went to the index.
    pub asked: u64,
}

impl<'store> PieceFinder<'store> {
    /// An empty cache that holds lists of at most `limit_bytes`, but always the last one.
    pub fn new(store: &'store Store, limit_bytes: u64) -> PieceFinder<'store> {
        PieceFinder {
            store,
            limit_bytes: AtomicU64::new(limit_bytes),
            lists: Mutex::default(),
            hits: AtomicU64::new(0),
            asked: AtomicU64::new(0),
        }
    }

    /// Where the piece is, if the store has it.
    pub fn find(&self, id: &PieceId) -> Result<Option<PiecePlace>, StoreError> {
        if let Some(place) = self.lists().find(id) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(Some(place));
        }
        self.asked.fetch_add(1, Ordering::Relaxed);
        for place in self.store.database().candidates(id)? {
            if self.holds(place, id)? {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// Sets how many bytes of lists are kept; what is too much goes at once.
    pub fn set_limit(&self, limit_bytes: u64) {
        self.limit_bytes.store(limit_bytes, Ordering::Relaxed);
        self.lists().evict(limit_bytes, None);
    }

    /// Bytes of lists kept now.
    pub fn held_bytes(&self) -> u64 {
        self.lists().held_bytes()
    }

    /// How often the cache answered so far.
    pub fn stats(&self) -> FinderStats {
        FinderStats {
            hits: self.hits.load(Ordering::Relaxed),
            asked: self.asked.load(Ordering::Relaxed),
        }
    }

    /// Compares the digest with the pack's list, which is read (again) if the piece is not in it.
    ///
    /// A pack that is damaged or gone does not hold the piece: then it is stored anew, which heals
    /// files that come in again. `verify` is who reports damage.
    fn holds(&self, place: PiecePlace, id: &PieceId) -> Result<bool, StoreError> {
        let listed = |lists: &Lists| {
            let list = lists.packs.get(&place.pack)?;
            list.get(place.ordinal as usize)
                .map(|entry| entry.id == *id)
        };
        if let Some(answer) = listed(&self.lists()) {
            return Ok(answer);
        }
        let list = match self.store.pack(place.pack).and_then(|pack| pack.list()) {
            Ok((list, _)) => list,
            Err(error) if error.is_damage() => return Ok(false),
            Err(error) => return Err(error),
        };
        let durable = self.store.database().durable_pieces(place.pack)? as usize;
        let pieces = list.pieces();
        let durable = &pieces[..pieces.len().min(durable)];
        let mut lists = self.lists();
        lists.insert(place.pack, durable.to_vec());
        lists.evict(self.limit_bytes.load(Ordering::Relaxed), Some(place.pack));
        Ok(listed(&lists).unwrap_or(false))
    }

    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lists {
    fn find(&self, id: &PieceId) -> Option<PiecePlace> {
        let place = *self.by_prefix.get(&id.prefix())?;
        let entry = self.packs.get(&place.pack)?.get(place.ordinal as usize)?;
        (entry.id == *id).then_some(place)
    }

    fn insert(&mut self, pack: PackId, pieces: Vec<PieceEntry>) {
        self.remove(pack);
        for (ordinal, piece) in pieces.iter().enumerate() {
            let place = PiecePlace {
                pack,
                ordinal: ordinal as u32,
            };
            self.by_prefix.insert(piece.id.prefix(), place);
        }
        self.packs.insert(pack, pieces);
        self.order.push_back(pack);
    }

    fn evict(&mut self, limit_bytes: u64, keep: Option<PackId>) {
        let mut evicted = false;
        while self.held_bytes() > limit_bytes {
            let Some(&oldest) = self.order.front().filter(|pack| Some(**pack) != keep) else {
                break;
            };
            self.remove(oldest);
            evicted = true;
        }
        if evicted {
            self.by_prefix.shrink_to_fit();
        }
    }

    fn remove(&mut self, pack: PackId) {
        let Some(pieces) = self.packs.remove(&pack) else {
            return;
        };
        self.order.retain(|listed| *listed != pack);
        for piece in &pieces {
            let prefix = piece.id.prefix();
            if self
                .by_prefix
                .get(&prefix)
                .is_some_and(|place| place.pack == pack)
            {
                self.by_prefix.remove(&prefix);
            }
        }
    }

    fn held_bytes(&self) -> u64 {
        let pieces: usize = self.packs.values().map(Vec::capacity).sum();
        // A hash table keeps a control byte beside each slot.
        let slot = size_of::<(u64, PiecePlace)>() + 1;
        (pieces * size_of::<PieceEntry>() + self.by_prefix.capacity() * slot) as u64
    }
}
