//! The lists of packs, as objects of a heap.
//!
//! A pack node holds its groups, and each group holds its pack: so whoever finds a group knows the
//! pack, and a list is one cyclic structure that goes as a whole. What keeps it is a pin, which is
//! renewed by use. When memory is needed the pins longest unused are dropped; the cycles that are
//! left are the collector's, whose bound on garbage is an eighth of the limit, and pins take no more
//! than the rest.
//!
//! The rule that must hold: **the table names exactly the pieces of pinned packs that are not known to be
//! damaged.** Between it and
//! the groups are weak references, so that not even a mistake there could keep a list alive.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::time::{Duration, Instant};

use super::table::Table;
use crate::heap::{Gc, GcCell, Heap, HeapFull, Options, Trim, Weak, leaf, traced};
use crate::store::error::Chain;
use crate::store::pack::PackPieces;
use crate::store::{PackId, PieceId, PiecePlace, Store, StoreError};

/// Pieces of a group: as many as make its slot 1 KiB, header and all, without a byte to spare.
const GROUP_PIECES: usize = 31;
/// Numbers a group has for its pieces.
const GROUP_NUMBERS: u32 = 32;
/// Group numbers in one block of [`Groups`]: so that growing it copies no more than a list of blocks.
const BLOCK: usize = 1024;
/// What a group costs: its slot, its place in its pack and in [`Groups`].
const GROUP_BYTES: u64 = 1024 + 8 + 16;
/// What a piece costs in a table that has just grown.
const TABLE_BYTES: u64 = 15;
/// What a pack costs beside its groups: its slot, its pin, its vector's head.
const PACK_BYTES: u64 = 256;
/// The heap's own share of the limit, for garbage not collected yet.
const GARBAGE_SHARE: u64 = 8;
/// The list of the largest pack, which has to fit whatever the limit is.
const LARGEST_LIST_BYTES: u64 = 4 << 20;

/// When a pack was last used, by the cache's own clock.
struct Used(Cell<u64>);
leaf!(Used);

struct Digests([PieceId; GROUP_PIECES]);
leaf!(Digests);

traced! {
    /// A pack whose list is in memory.
    struct PackNode {
        id: u64,
        pieces: u32,
        used: Used,
        groups: GcCell<Vec<Gc<Group>>>,
    }

    /// Some pieces of a pack that follow each other.
    struct Group {
        pack: Gc<PackNode>,
        /// Ordinal of the first piece.
        first: u32,
        /// Its number in [`Groups`].
        number: u32,
        digests: Digests,
    }
}

const _: () = assert!(size_of::<Group>() + 16 == 1024);

/// In the place of a damaged piece's digest: no content is known to have this one.
const DAMAGED: PieceId = PieceId([0; 32]);

impl Group {
    fn digest(&self, at: u32) -> Option<&PieceId> {
        let within = self.first.checked_add(at)? < self.pack.pieces;
        self.digests.0.get(at as usize).filter(|_| within)
    }

    /// Its digests with their pieces' numbers, without damaged pieces.
    fn entries(&self) -> impl Iterator<Item = (&PieceId, u32)> {
        let first = self.number * GROUP_NUMBERS;
        (0..)
            .map_while(move |at| Some((self.digest(at)?, first + at)))
            .filter(|(digest, _)| **digest != DAMAGED)
    }
}

/// Groups by number, weakly.
#[derive(Default)]
struct Groups {
    blocks: Vec<Vec<Option<Weak<Group>>>>,
    free: Vec<u32>,
    length: u32,
}

impl Groups {
    /// A number without a group; none when all numbers are in use.
    fn reserve(&mut self) -> Option<u32> {
        if let Some(number) = self.free.pop() {
            return Some(number);
        }
        let number = self.length;
        if number > u32::MAX / GROUP_NUMBERS - 1 {
            return None;
        }
        if (number as usize).is_multiple_of(BLOCK) {
            self.blocks.push(Vec::with_capacity(BLOCK));
        }
        self.blocks[number as usize / BLOCK].push(None);
        self.length += 1;
        Some(number)
    }

    fn set(&mut self, number: u32, group: Option<Weak<Group>>) {
        let number = number as usize;
        self.blocks[number / BLOCK][number % BLOCK] = group;
    }

    fn release(&mut self, number: u32) {
        self.set(number, None);
        self.free.push(number);
        if self.free.len() == self.length as usize {
            *self = Groups::default();
        }
    }

    fn get(&self, number: u32) -> Option<Gc<Group>> {
        let number = number as usize;
        let weak = self.blocks.get(number / BLOCK)?.get(number % BLOCK)?;
        weak.as_ref()?.upgrade()
    }
}

impl Drop for Cache<'_> {
    fn drop(&mut self) {
        // The table stays for the next one.
        self.unpin_all();
    }
}

/// The cache; belongs to one thread.
pub(super) struct Cache<'a> {
    store: &'a Store,
    table: &'a Table,
    pins: HashMap<PackId, Gc<PackNode>>,
    groups: Groups,
    pinned_bytes: u64,
    clock: u64,
    limit_bytes: u64,
    /// Packs that we may not read, and that was told.
    denied: HashSet<PackId>,
    heap: Heap,
}

impl<'a> Cache<'a> {
    pub(super) fn new(
        store: &'a Store,
        table: &'a Table,
        limit_bytes: u64,
        long_pause: Duration,
    ) -> Cache<'a> {
        let heap = Heap::with(Options {
            long_pause,
            ..Options::default()
        });
        let mut cache = Cache {
            store,
            table,
            pins: HashMap::new(),
            groups: Groups::default(),
            pinned_bytes: 0,
            clock: 0,
            limit_bytes,
            denied: HashSet::new(),
            heap,
        };
        cache.set_limit(limit_bytes);
        cache
    }

    pub(super) fn heap(&self) -> &Heap {
        &self.heap
    }

    /// Bytes of lists, table and what belongs to them.
    pub(super) fn held_bytes(&self) -> u64 {
        let weak = self.groups.blocks.len() * BLOCK * size_of::<Option<Weak<Group>>>();
        self.heap.held_bytes() + self.table.held_bytes() + weak as u64
    }

    /// Sets how many bytes may be held. What is too much goes at once.
    pub(super) fn set_limit(&mut self, limit_bytes: u64) {
        self.limit_bytes = limit_bytes;
        let garbage = limit_bytes / GARBAGE_SHARE;
        self.heap
            .set_garbage_bound(1.0 / GARBAGE_SHARE as f64, garbage);
        self.heap.set_limit(Some(limit_bytes + LARGEST_LIST_BYTES));
        if self.evict_for(0, None) {
            self.heap.collect_critical();
        }
    }

    /// Gives memory without objects back.
    pub(super) fn trim(&mut self, trim: Trim, now: Instant) {
        self.heap.trim(trim, now);
        self.pins.shrink_to_fit();
    }

    /// Where a piece is, if its pack's list is in memory.
    pub(super) fn find(&mut self, id: &PieceId) -> Option<PiecePlace> {
        let mut place = None;
        self.table.find(id, |piece| {
            let Some(group) = self.groups.get(piece / GROUP_NUMBERS) else {
                return false;
            };
            let at = piece % GROUP_NUMBERS;
            let found = group.digest(at) == Some(id);
            if found {
                place = Some((PackId(group.pack.id), group.first + at));
                self.clock += 1;
                group.pack.used.0.set(self.clock);
            }
            found
        });
        place.map(|(pack, ordinal)| PiecePlace { pack, ordinal })
    }

    /// Compares a digest with the pack's list, which is read (again) if the piece is not in it.
    ///
    /// A pack that is damaged or gone does not hold the piece: then it is stored anew, which heals
    /// files that come in again. `verify` is who reports damage. Nor does one that we may not read: that
    /// is told here, once a pack.
    pub(super) fn holds(&mut self, place: PiecePlace, id: &PieceId) -> Result<bool, StoreError> {
        if let Some(answer) = self.listed(place, id) {
            return Ok(answer);
        }
        let pieces = match self.store.pack(place.pack).and_then(|pack| pack.pieces()) {
            Ok(pieces) => pieces,
            Err(error) if error.is_damage() => return Ok(false),
            Err(error) if error.is_denied() => {
                if self.denied.insert(place.pack) {
                    tracing::warn!(error = %Chain(&error), "a pack cannot be read: what it holds is stored once more");
                }
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let durable = self.store.database().durable_pieces(place.pack)? as usize;
        let count = pieces.count().min(durable);
        let ordinal = place.ordinal as usize;
        let holds = ordinal < count && pieces.digest(ordinal).as_ref() == Some(id);
        self.pin(place.pack, &pieces, count)?;
        drop(pieces);
        if holds {
            self.pin_neighbours(place.pack)?;
        }
        Ok(holds)
    }

    /// What the list in memory says of a piece; none if there is no list, or it ends before it.
    fn listed(&self, place: PiecePlace, id: &PieceId) -> Option<bool> {
        let pack = self.pins.get(&place.pack)?;
        let (group, at) = (
            place.ordinal as usize / GROUP_PIECES,
            place.ordinal as usize % GROUP_PIECES,
        );
        let groups = pack.groups.borrow();
        let digest = groups.get(group)?.digest(at as u32)?;
        Some(digest == id)
    }

    /// Takes the lists of the packs next to this one in, if they are complete and there is room: what
    /// several workers wrote of one file lies in packs side by side.
    fn pin_neighbours(&mut self, pack: PackId) -> Result<(), StoreError> {
        let before = pack.0.checked_sub(1).map(PackId);
        let after = pack.0.checked_add(1).map(PackId);
        for pack in [after, before].into_iter().flatten() {
            if self.pins.contains_key(&pack) {
                continue;
            }
            let Some(pieces) = self.store.database().sealed_pieces(pack)? else {
                continue;
            };
            if self.pinned_bytes + cost(pieces as usize) > self.pin_limit() {
                continue;
            }
            // It was not asked for: whatever is wrong with it is of no interest here.
            if let Ok(list) = self.store.pack(pack).and_then(|pack| pack.pieces()) {
                let count = list.count().min(pieces as usize);
                self.pin(pack, &list, count)?;
            }
        }
        Ok(())
    }

    /// Takes the list of a pack's first `count` pieces in, in place of the one that was there.
    fn pin(&mut self, pack: PackId, pieces: &PackPieces, count: usize) -> Result<(), StoreError> {
        let damaged = self.store.database().damaged_pieces(pack)?;
        self.unpin(pack);
        self.evict_for(cost(count), Some(pack));
        if self.build(pack, pieces, count, &damaged).is_err() {
            // Garbage of evicted lists is in the way, or more is pinned than the limit allows.
            self.unpin_all();
            self.heap.collect_critical();
            if let Err(error) = self.build(pack, pieces, count, &damaged) {
                tracing::debug!(%error, "a pack's list does not fit the cache");
            }
        }
        Ok(())
    }

    /// Forgets a pack's list, in which pieces have been found damaged since it was taken in.
    pub(super) fn forget(&mut self, pack: PackId) {
        self.unpin(pack);
    }

    /// Makes a list's objects and enters its pieces; all of it or nothing.
    fn build(
        &mut self,
        pack: PackId,
        pieces: &PackPieces,
        count: usize,
        damaged: &[Range<u32>],
    ) -> Result<(), HeapFull> {
        let _frame = self.heap.frame("pack list");
        self.clock += 1;
        let node = self.heap.alloc(PackNode {
            id: pack.0,
            pieces: count as u32,
            used: Used(Cell::new(self.clock)),
            groups: GcCell::default(),
        })?;
        let mut groups = Vec::with_capacity(count.div_ceil(GROUP_PIECES));
        for first in (0..count).step_by(GROUP_PIECES) {
            let Some(number) = self.groups.reserve() else {
                break;
            };
            let mut digests = [DAMAGED; GROUP_PIECES];
            for (ordinal, digest) in (first..count).zip(&mut digests) {
                if !damaged.iter().any(|lost| lost.contains(&(ordinal as u32)))
                    && let Some(of_piece) = pieces.digest(ordinal)
                {
                    *digest = of_piece;
                }
            }
            let group = self.heap.alloc(Group {
                pack: node.clone(),
                first: first as u32,
                number,
                digests: Digests(digests),
            });
            match group {
                Ok(group) => groups.push(group),
                Err(error) => {
                    self.groups.release(number);
                    for group in groups {
                        self.groups.release(group.number);
                    }
                    return Err(error);
                }
            }
        }
        for group in &groups {
            self.groups.set(group.number, Some(Gc::downgrade(group)));
            for (digest, piece) in group.entries() {
                self.table.insert(digest, piece);
            }
        }
        *node.groups.borrow_mut() = groups;
        self.pinned_bytes += cost(count);
        self.pins.insert(pack, node);
        Ok(())
    }

    /// Drops pins, the longest unused first, until so many more bytes fit; whether any were.
    fn evict_for(&mut self, more: u64, keep: Option<PackId>) -> bool {
        let mut evicted = false;
        while self.pinned_bytes + more > self.pin_limit() {
            let pins = self.pins.iter().filter(|(id, _)| Some(**id) != keep);
            let Some(oldest) = pins
                .min_by_key(|(_, node)| node.used.0.get())
                .map(|(id, _)| *id)
            else {
                break;
            };
            self.unpin(oldest);
            evicted = true;
        }
        evicted
    }

    fn pin_limit(&self) -> u64 {
        self.limit_bytes - self.limit_bytes / GARBAGE_SHARE
    }

    pub(super) fn unpin_all(&mut self) {
        let pinned: Vec<PackId> = self.pins.keys().copied().collect();
        for pack in pinned {
            self.unpin(pack);
        }
    }

    /// Takes a list's pieces out of the table and lets go of it: what is left is a cycle that nobody
    /// holds.
    fn unpin(&mut self, pack: PackId) {
        let Some(node) = self.pins.remove(&pack) else {
            return;
        };
        self.pinned_bytes -= cost(node.pieces as usize);
        for group in &*node.groups.borrow() {
            for (digest, piece) in group.entries() {
                self.table.remove(digest, piece);
            }
            self.groups.release(group.number);
        }
    }
}

/// What the list of a pack of so many pieces costs in memory.
fn cost(pieces: usize) -> u64 {
    PACK_BYTES + pieces.div_ceil(GROUP_PIECES) as u64 * GROUP_BYTES + pieces as u64 * TABLE_BYTES
}
