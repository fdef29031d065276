//! Pieces that this run has taken on and the index does not know yet.
//!
//! The first worker that meets a new piece claims it, which fixes its place; others that meet it
//! refer to that place at once, though the bytes may still lie in the claimer's frame. In return a
//! file may only be committed when every claim it refers to is durable: a claim carries the number
//! of the *checkpoint* that makes it so.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::{PieceId, PiecePlace};

const SHARDS: usize = 16;

/// A claimed piece.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    /// Where the piece will be.
    pub place: PiecePlace,
    /// The checkpoint that makes it durable.
    pub durable_at: u64,
}

/// All claims that are not durable yet.
#[derive(Default)]
pub(super) struct Claims {
    shards: [Mutex<HashMap<PieceId, Claim>>; SHARDS],
}

impl Claims {
    /// The claim on a piece, if there is one.
    pub(super) fn find(&self, id: &PieceId) -> Option<Claim> {
        self.shard(id).get(id).copied()
    }

    /// Claims a piece, unless somebody else has: then gives that claim.
    pub(super) fn claim(&self, id: PieceId, claim: Claim) -> Option<Claim> {
        match self.shard(&id).entry(id) {
            Entry::Occupied(taken) => Some(*taken.get()),
            Entry::Vacant(free) => {
                free.insert(claim);
                None
            }
        }
    }

    /// Forgets the claims that this checkpoint made durable: the index knows those pieces now.
    pub(super) fn forget_durable(&self, checkpoint: u64) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|_, claim| claim.durable_at > checkpoint);
            shard.shrink_to(1024);
        }
    }

    fn shard(&self, id: &PieceId) -> MutexGuard<'_, HashMap<PieceId, Claim>> {
        let shard = &self.shards[id.0[31] as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
