//! Checking a store with all workers: its packs in parallel, then what its versions are made of.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::limits::Stop;
use super::report::Progress;
use super::restore::RestoreError;
use crate::heap::{Pool, held_by};
use crate::store::catalog::VersionRow;
use crate::store::clock::now_ns;
use crate::store::error::Chain;
use crate::store::frame::FrameReader;
use crate::store::heal;
use crate::store::lists::PackLists;
use crate::store::record::{MAX_PLAIN_BYTES, MAX_RECORD_BYTES};
use crate::store::verify::{Damage, Depth, LostPieces, PackToCheck, check_pack, check_version};
use crate::store::{FileName, PackId, Store, StoreError};

/// Something that the check has found.
#[derive(Clone, Debug)]
pub enum Finding {
    /// A pack is damaged.
    Pack {
        /// Where and how.
        damage: Damage,
        /// The pieces that were there are all stored elsewhere.
        replaced: bool,
    },
    /// A version cannot be restored.
    Version {
        /// The version.
        row: VersionRow,
        /// Why not.
        why: String,
    },
}

/// How much was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Packs.
    pub packs: u64,
    /// Pieces in them.
    pub pieces: u64,
    /// Bytes read from them.
    pub read_bytes: u64,
    /// Files with at least one version.
    pub files: u64,
    /// Versions.
    pub versions: u64,
    /// Places found damaged in packs, but for those that were replaced.
    pub damaged: u64,
    /// Places found damaged whose pieces are all stored elsewhere.
    pub replaced: u64,
    /// Versions that cannot be restored.
    pub lost_versions: u64,
}

/// Files and versions are asked from the catalog this many at a time.
const PAGE: u32 = 256;

/// Packs found whole are written down this many at a time.
const NOTED: usize = 256;

/// Bytes of buffers that checking needs with so many workers.
pub fn buffer_bytes(workers: usize) -> u64 {
    workers as u64 * (held_by(MAX_RECORD_BYTES) + held_by(MAX_PLAIN_BYTES))
}

/// Checks everything in the store. `found` hears of damage as it is found. It is also written down in the
/// store, so that what is lost is stored again when it comes in again.
#[expect(
    clippy::too_many_arguments,
    reason = "what the work needs, each from another owner"
)]
pub fn verify(
    store: &Store,
    lists: &PackLists<'_>,
    depth: Depth,
    pool: &Pool,
    workers: usize,
    stop: &Stop,
    progress: &Progress,
    found: &(dyn Fn(Finding) + Sync),
) -> Result<Checked, RestoreError> {
    let sweep = Sweep {
        store,
        lists,
        depth,
        pool,
        stop,
        progress,
        found,
        state: Mutex::default(),
    };
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                if let Err(error) = sweep.check_packs() {
                    sweep.fail(error);
                }
            });
        }
    });
    // What was checked was checked, however the rest went.
    let whole = std::mem::take(&mut sweep.state().whole);
    sweep.note_whole(&whole);
    let state = sweep
        .state
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = state.failure {
        return Err(error);
    }
    let mut checked = state.checked;
    let mut after: Option<FileName> = None;
    loop {
        let mut files = store.database().files_after(after.as_ref(), PAGE)?;
        let Some((last, _)) = files.last() else {
            return Ok(checked);
        };
        after = Some(last.name.clone());
        // Those that lie in one pack one after the other: its list may be the only one there is room for.
        files.sort_by_key(|(newest, _)| (newest.place.pack, newest.place.offset));
        for (newest, _) in &files {
            checked.files += 1;
            check_versions(
                store,
                lists,
                &newest.name,
                &state.lost,
                stop,
                &mut checked,
                found,
            )?;
        }
    }
}

/// Checks that all versions of a file are there and meet nothing that is lost.
pub fn check_versions(
    store: &Store,
    lists: &PackLists<'_>,
    name: &FileName,
    lost: &LostPieces,
    stop: &Stop,
    checked: &mut Checked,
    found: &(dyn Fn(Finding) + Sync),
) -> Result<(), RestoreError> {
    let mut after = 0;
    loop {
        let rows = store.database().versions_after(name, after, PAGE)?;
        let Some(last) = rows.last() else {
            return Ok(());
        };
        after = last.number;
        for row in rows {
            if stop.requested() {
                return Err(RestoreError::Stopped);
            }
            checked.versions += 1;
            if let Some(why) = check_version(store, lists, &row, lost)? {
                checked.lost_versions += 1;
                found(Finding::Version { row, why });
            }
        }
    }
}

/// What the workers share while they check packs.
struct Sweep<'a> {
    store: &'a Store,
    lists: &'a PackLists<'a>,
    depth: Depth,
    pool: &'a Pool,
    stop: &'a Stop,
    progress: &'a Progress,
    found: &'a (dyn Fn(Finding) + Sync),
    state: Mutex<SweepState>,
}

#[derive(Default)]
struct SweepState {
    last: Option<PackId>,
    checked: Checked,
    lost: LostPieces,
    /// Packs found whole that this has not been written down of.
    whole: Vec<PackId>,
    /// Findings cannot be written down, which has been told.
    is_silent: bool,
    failure: Option<RestoreError>,
}

impl Sweep<'_> {
    fn check_packs(&self) -> Result<(), RestoreError> {
        let mut room = self.pool.account("records").take(MAX_RECORD_BYTES)?;
        let mut plain = self.pool.account("frames").take(MAX_PLAIN_BYTES)?;
        let mut frames = FrameReader::default();
        loop {
            let mut state = self.state();
            if state.failure.is_some() {
                return Ok(());
            }
            let Some((id, pack_state, length)) = self.store.database().pack_after(state.last)?
            else {
                return Ok(());
            };
            state.last = Some(id);
            drop(state);
            let check = check_pack(
                self.store,
                PackToCheck {
                    id,
                    state: pack_state,
                    committed_bytes: length,
                    from: 0,
                },
                self.depth,
                &mut frames,
                &mut room,
                &mut plain,
                &mut |record| {
                    Progress::add(&self.progress.done_bytes, record.read_bytes);
                    !self.stop.requested()
                },
            )?;
            if self.stop.requested() {
                return Err(RestoreError::Stopped);
            }
            let mut state = self.state();
            state.checked.packs += 1;
            state.checked.pieces += check.pieces;
            state.checked.read_bytes += check.read_bytes;
            for damage in &check.damage {
                state.lost.add(damage.pack, &damage.pieces);
            }
            drop(state);
            self.note(id, &check.damage);
            for damage in check.damage {
                let replaced =
                    heal::is_replaced(self.store, self.lists, damage.pack, &damage.pieces)?;
                let mut state = self.state();
                if replaced {
                    state.checked.replaced += 1;
                } else {
                    state.checked.damaged += 1;
                }
                drop(state);
                (self.found)(Finding::Pack { damage, replaced });
            }
        }
    }

    /// Writes down what was found of a pack.
    fn note(&self, pack: PackId, damage: &[Damage]) {
        if damage.is_empty() {
            if self.depth == Depth::Content {
                let mut state = self.state();
                state.whole.push(pack);
                if state.whole.len() >= NOTED {
                    let whole = std::mem::take(&mut state.whole);
                    drop(state);
                    self.note_whole(&whole);
                }
            }
            return;
        }
        let database = self.store.database();
        self.noted(database.record_check(pack, damage, self.depth, now_ns()));
    }

    fn note_whole(&self, packs: &[PackId]) {
        self.noted(self.store.database().record_whole(packs, now_ns()));
    }

    /// The check goes on if its findings cannot be written down: they are told all the same.
    fn noted<T>(&self, outcome: Result<T, StoreError>) {
        if let Err(error) = outcome
            && !std::mem::replace(&mut self.state().is_silent, true)
        {
            tracing::warn!(error = %Chain(&error), "what is found cannot be written down in the store");
        }
    }

    fn fail(&self, error: RestoreError) {
        self.state().failure.get_or_insert(error);
    }

    fn state(&self) -> MutexGuard<'_, SweepState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
