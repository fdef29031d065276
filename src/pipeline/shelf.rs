//! Packs that are not full when a run ends, for the next run of the same process.
//!
//! Files that come one by one would otherwise each leave packs of their own. What is in a pack on the shelf
//! is committed and can be read; the pack is only not sealed. The rule: a pack gets here whole, after all
//! that is in it was deposited, and whoever takes it owns it. What is left at the end of the process is
//! sealed by the next one, as after a crash.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::worker::OpenPack;

/// See the head of this file.
#[derive(Default)]
pub struct Shelf(Mutex<Vec<OpenPack>>);

impl Shelf {
    pub(super) fn put(&self, pack: OpenPack) {
        self.packs().push(pack);
    }

    pub(super) fn take(&self) -> Option<OpenPack> {
        self.packs().pop()
    }

    /// Lets go of all packs: somebody is about to seal what was left behind.
    pub fn clear(&self) {
        self.packs().clear();
    }

    fn packs(&self) -> MutexGuard<'_, Vec<OpenPack>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
