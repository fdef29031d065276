//! Other places of pieces that are damaged.
//!
//! A version names places, and a place never changes. When the content of a damaged piece came in
//! again and was stored again, the same digest is at another place, and that is as good. What a damaged
//! place held is said by its pack's list; where that cannot be read either, by the index, which
//! knows eight bytes of the digest: enough to find the piece, and whoever gives a version out holds all of it
//! against its digest in the end.

use super::Store;
use super::error::StoreError;
use super::id::{PackId, PieceId, PiecePlace};
use super::lists::PackLists;
use super::scrub::DamageRow;

/// At most so many damaged places are looked at to count those that were replaced; more are taken as not
/// replaced.
const MOST_COUNTED: u32 = 1000;

/// Another place of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherPlace {
    /// Where.
    pub place: PiecePlace,
    /// How long the piece is there, in bytes.
    pub length_bytes: u32,
}

/// Damaged places that are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DamageCount {
    /// Those that have lost something, or that endanger what is around them.
    pub open: u64,
    /// Those whose pieces are all stored elsewhere by now.
    pub replaced: u64,
}

/// What is known of a piece that cannot be read.
enum Wanted {
    Digest(PieceId),
    Prefix(u64),
}

/// Other places where the piece at `place` is, newest pack first, without those that are known to be
/// damaged. Their packs' lists say so; their bytes have not been looked at.
///
/// # Errors
///
/// When the index cannot be asked, or a pack not be read for another reason than damage.
pub fn other_places(
    store: &Store,
    lists: &PackLists<'_>,
    place: PiecePlace,
) -> Result<Vec<OtherPlace>, StoreError> {
    let wanted = match lists.frame(place) {
        Ok((pack, _)) => Wanted::Digest(pack.list.pieces()[place.ordinal as usize].id),
        Err(error) if error.is_damage() => match lists.prefix(place)? {
            Some(prefix) => Wanted::Prefix(prefix),
            None => return Ok(Vec::new()),
        },
        Err(error) => return Err(error),
    };
    let prefix = match &wanted {
        Wanted::Digest(id) => id.prefix(),
        Wanted::Prefix(prefix) => *prefix,
    };
    let mut found = Vec::new();
    for candidate in store.database().candidates_of_prefix(prefix)? {
        if candidate == place {
            continue;
        }
        let (pack, frame) = match lists.frame(candidate) {
            Ok(found) => found,
            Err(error) if error.is_damage() => continue,
            Err(error) => return Err(error),
        };
        let id = pack.list.pieces()[candidate.ordinal as usize].id;
        let is_it = match &wanted {
            Wanted::Digest(wanted) => id == *wanted,
            Wanted::Prefix(prefix) => id.prefix() == *prefix,
        };
        if is_it {
            found.push(OtherPlace {
                place: candidate,
                length_bytes: frame.piece_bytes,
            });
        }
    }
    Ok(found)
}

/// Whether all of these pieces, of which there is at least one, are stored elsewhere.
///
/// # Errors
///
/// As [`other_places`].
pub fn is_replaced(
    store: &Store,
    lists: &PackLists<'_>,
    pack: PackId,
    pieces: &std::ops::Range<u32>,
) -> Result<bool, StoreError> {
    // Damage reaches to the end of a pack whose length nobody knows any more.
    let end = pieces.end.min(store.database().durable_pieces(pack)?);
    for ordinal in pieces.start..end {
        if other_places(store, lists, PiecePlace { pack, ordinal })?.is_empty() {
            return Ok(false);
        }
    }
    Ok(pieces.start < end)
}

/// Counts the damaged places that are known.
///
/// # Errors
///
/// As [`other_places`].
pub fn count_damage(store: &Store, lists: &PackLists<'_>) -> Result<DamageCount, StoreError> {
    let mut count = DamageCount::default();
    for DamageRow { pack, pieces, .. } in store.database().damage(MOST_COUNTED)? {
        count.replaced += u64::from(is_replaced(store, lists, pack, &pieces)?);
    }
    count.open = store
        .database()
        .damage_count()?
        .saturating_sub(count.replaced);
    Ok(count)
}
