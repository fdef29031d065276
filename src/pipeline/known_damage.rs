//! What a run knows to be damaged when it begins: a file that seems unchanged is read all the same if
//! its newest version cannot be restored, for it is what heals that.

use crate::store::catalog::VersionRow;
use crate::store::lists::PackLists;
use crate::store::verify::{LostPieces, check_version};
use crate::store::{Store, StoreError};

/// Lists of packs kept while versions are looked at, in bytes.
const LIST_BYTES: u64 = 1 << 20;

/// Of so many damaged places at most the pieces are known.
const MOST_PLACES: u32 = 10_000;

/// Damage known when the run began.
pub(super) struct KnownDamage<'a> {
    store: &'a Store,
    lists: PackLists<'a>,
    /// What is lost, if anything is damaged.
    lost: Option<LostPieces>,
}

impl<'a> KnownDamage<'a> {
    /// What a store knows now.
    pub(super) fn of(store: &'a Store) -> Result<KnownDamage<'a>, StoreError> {
        let rows = store.database().damage(MOST_PLACES)?;
        let mut lost = LostPieces::default();
        for row in &rows {
            lost.add(row.pack, &row.pieces);
        }
        Ok(KnownDamage {
            store,
            lists: PackLists::new(store, LIST_BYTES),
            lost: (!rows.is_empty()).then_some(lost),
        })
    }

    /// Whether a version cannot be restored. Looks at nothing while nothing is damaged.
    pub(super) fn has_lost(&self, version: &VersionRow) -> Result<bool, StoreError> {
        match &self.lost {
            Some(lost) => {
                let why = check_version(self.store, &self.lists, version, lost)?;
                if let Some(why) = &why {
                    tracing::info!(name = %version.name, why, "read again: its version is damaged");
                }
                Ok(why.is_some())
            }
            None => Ok(false),
        }
    }
}

/// Whether a version cannot be restored, as far as is known now. One question to the database while nothing
/// is damaged.
///
/// # Errors
///
/// When the store cannot be read.
pub fn is_lost(store: &Store, version: &VersionRow) -> Result<bool, StoreError> {
    Ok(store.database().damage_count()? > 0 && KnownDamage::of(store)?.has_lost(version)?)
}
