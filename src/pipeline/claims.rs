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

/// Room of a shard from the start: for its share of the claims of two checkpoints. So what claims hold
/// is the same from a run's first minute to its last, and no table is ever copied to grow.
const SHARD_CLAIMS: usize = 448;

/// A claimed piece.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    /// Where the piece will be.
    pub place: PiecePlace,
    /// The checkpoint that makes it durable.
    pub durable_at: u64,
}

/// All claims that are not durable yet, and those of the last checkpoint.
pub(super) struct Claims {
    shards: [Mutex<HashMap<PieceId, Claim>>; SHARDS],
}

impl Default for Claims {
    fn default() -> Claims {
        Claims {
            shards: std::array::from_fn(|_| Mutex::new(HashMap::with_capacity(SHARD_CLAIMS))),
        }
    }
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

    /// Forgets the claims that an earlier checkpoint than this one, which is durable, made durable.
    ///
    /// Those of this one are kept until the next. A worker that has just asked for a piece here and
    /// then in the index, before another claimed and wrote it, is about to claim it too: it must find
    /// that claim, or the piece is stored twice. Before the next checkpoint it is done with the piece,
    /// because it takes part in that, and from then on the index answers.
    pub(super) fn forget_before(&self, checkpoint: u64) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|_, claim| claim.durable_at >= checkpoint);
            shard.shrink_to(SHARD_CLAIMS);
        }
    }

    fn shard(&self, id: &PieceId) -> MutexGuard<'_, HashMap<PieceId, Claim>> {
        let shard = &self.shards[id.0[31] as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::PackId;

    fn claim(ordinal: u32, durable_at: u64) -> (PieceId, Claim) {
        let place = PiecePlace {
            pack: PackId(1),
            ordinal,
        };
        let id = PieceId::of(&ordinal.to_le_bytes());
        (id, Claim { place, durable_at })
    }

    /// Worker A has not taken part in checkpoint 7 yet, claims a piece, and does. Worker B took part
    /// in it before, and has looked for the piece here and in the index in vain. Then the commit of
    /// checkpoint 7 ends, and B claims the piece.
    #[test]
    fn a_piece_is_not_claimed_again_by_who_looked_for_it_before_the_commit() {
        let claims = Claims::default();
        let (id, by_a) = claim(0, 7);
        assert!(claims.find(&id).is_none(), "B looks");
        assert!(claims.claim(id, by_a).is_none(), "A claims");
        claims.forget_before(7);
        let (_, by_b) = claim(1, 8);
        let taken = claims.claim(id, by_b).expect("A's claim is still there");
        assert_eq!(taken.place, by_a.place);
    }

    #[test]
    fn claims_are_forgotten_a_checkpoint_later() {
        let claims = Claims::default();
        let claimed = [claim(0, 6), claim(1, 7), claim(2, 8)];
        for (id, claim) in claimed {
            claims.claim(id, claim);
        }
        claims.forget_before(7);
        let left = claimed.map(|(id, _)| claims.find(&id).is_some());
        assert_eq!(left, [false, true, true]);
    }
}
