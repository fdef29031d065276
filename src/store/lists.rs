//! The lists of packs that are being read, as many as fit a bound; the longest unused goes first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Store;
use super::error::StoreError;
use super::id::{PackId, PiecePlace};
use super::pack::{FrameEntry, PackList, PackReader};

/// An open pack with its list.
pub struct ListedPack {
    /// The pack's file.
    pub reader: PackReader,
    /// Its list when it was read; an open pack may have grown since.
    pub list: PackList,
}

/// Lists of packs, bounded in bytes and in open files.
pub struct PackLists<'store> {
    store: &'store Store,
    limit_bytes: u64,
    cached: Mutex<Cached>,
    /// What the index knows of packs without a list that can be read, the last used first.
    prefixes: Mutex<Vec<(PackId, Prefixes)>>,
}

/// Ordinals and prefixes of a pack's pieces.
type Prefixes = Vec<(u32, u64)>;

#[derive(Default)]
struct Cached {
    packs: HashMap<PackId, (Arc<ListedPack>, u64)>,
    held_bytes: u64,
    clock: u64,
}

/// No more packs than this are kept open, whatever their lists weigh.
const MAX_OPEN: usize = 64;

/// Of so many packs at most what the index knows is kept: half a megabyte each.
const MAX_PREFIXES: usize = 4;

impl<'store> PackLists<'store> {
    /// An empty cache that keeps lists of at most `limit_bytes`, but always the last one.
    pub fn new(store: &'store Store, limit_bytes: u64) -> PackLists<'store> {
        PackLists {
            store,
            limit_bytes,
            cached: Mutex::default(),
            prefixes: Mutex::default(),
        }
    }

    /// The pack with its list.
    pub fn pack(&self, id: PackId) -> Result<Arc<ListedPack>, StoreError> {
        if let Some(pack) = self.cached(id) {
            return Ok(pack);
        }
        self.load(id)
    }

    /// The pack that holds a piece, and the frame that does; reads the list again if the piece was
    /// written after it.
    pub fn frame(&self, place: PiecePlace) -> Result<(Arc<ListedPack>, FrameEntry), StoreError> {
        let pack = self.pack(place.pack)?;
        if let Some(frame) = pack.list.frame_of(place.ordinal) {
            return Ok((pack, frame));
        }
        let pack = self.load(place.pack)?;
        match pack.list.frame_of(place.ordinal) {
            Some(frame) => Ok((pack, frame)),
            None => Err(StoreError::Dangling {
                path: pack.reader.path().to_owned(),
                what: format!("piece {} is not in the pack", place.ordinal),
            }),
        }
    }

    /// The beginning of a piece's digest as the index has it, for a pack without a list that can be read.
    pub(super) fn prefix(&self, place: PiecePlace) -> Result<Option<u64>, StoreError> {
        let mut kept = self.prefixes.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept.iter().position(|(pack, _)| *pack == place.pack);
        let prefixes = match known {
            Some(at) => kept.remove(at).1,
            None => self.store.database().pieces_of(place.pack)?,
        };
        let at = prefixes.binary_search_by_key(&place.ordinal, |(ordinal, _)| *ordinal);
        let prefix = at.ok().map(|at| prefixes[at].1);
        kept.truncate(MAX_PREFIXES - 1);
        kept.insert(0, (place.pack, prefixes));
        Ok(prefix)
    }

    fn cached(&self, id: PackId) -> Option<Arc<ListedPack>> {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        cached.clock += 1;
        let now = cached.clock;
        let (pack, used) = cached.packs.get_mut(&id)?;
        *used = now;
        Some(Arc::clone(pack))
    }

    fn load(&self, id: PackId) -> Result<Arc<ListedPack>, StoreError> {
        let reader = self.store.pack(id)?;
        let (list, _) = reader.list()?;
        let pack = Arc::new(ListedPack { reader, list });
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        cached.remove(id);
        cached.held_bytes += pack.list.held_bytes();
        cached.clock += 1;
        let now = cached.clock;
        while cached.held_bytes > self.limit_bytes || cached.packs.len() >= MAX_OPEN {
            let oldest = cached.packs.iter().min_by_key(|(_, (_, used))| *used);
            let Some(oldest) = oldest.map(|(id, _)| *id) else {
                break;
            };
            cached.remove(oldest);
        }
        cached.packs.insert(id, (Arc::clone(&pack), now));
        Ok(pack)
    }
}

impl Cached {
    fn remove(&mut self, id: PackId) {
        if let Some((pack, _)) = self.packs.remove(&id) {
            self.held_bytes -= pack.list.held_bytes();
        }
    }
}
