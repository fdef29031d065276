//! Sealing packs whose writer died, so that nothing they hold is stored twice and nobody has to act.
//!
//! A pack in state *open* whose file can be locked has lost its writer. What of it is whole is
//! sealed and indexed; a torn tail is cut off. Only bytes that no commit covered may be torn: if the
//! pack is shorter than what was committed, it is damaged, and is left exactly as it is.
//! Everything here may be interrupted and done again.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::Advice;

use super::Store;
use super::error::{IoContext, StoreError};
use super::id::{PackId, PiecePlace};
use super::index::{PackRow, PackState, PieceRow};
use super::pack::{self, PACK_HEADER_BYTES, PackList, PackReader, PackWriter, Seal};
use super::record::MAX_RECORD_BYTES;

/// A pack's row without a file is forgotten after this long: until then its writer may just be about
/// to create the file.
const FORGET_AFTER_NS: i64 = 3_600_000_000_000;

/// What was found and done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Packs sealed.
    pub sealed: u64,
    /// Pieces in them.
    pub pieces: u64,
    /// Bytes of torn tails cut off.
    pub cut_bytes: u64,
    /// Packs that are shorter than what had been committed of them.
    pub damaged: Vec<PathBuf>,
}

/// Seals every pack that was left behind.
pub fn recover(store: &Store, now_ns: i64) -> Result<Recovered, StoreError> {
    let mut recovered = Recovered::default();
    for (id, committed_bytes, opened_ns) in store.database().open_packs()? {
        let path = pack::path(store.root(), id);
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !is_empty(committed_bytes) {
                    recovered.damaged.push(path);
                } else if now_ns.saturating_sub(opened_ns) > FORGET_AFTER_NS {
                    store.database().forget_pack(id)?;
                }
                continue;
            }
            opened => opened.during("open pack", &path)?,
        };
        // The lock goes with the last handle: this one outlives whatever becomes of the pack.
        let lock = file.try_clone().during("lock pack", &path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(error)) => return Err(error).during("lock pack", &path),
        }
        // Somebody else may have dealt with it before the lock was ours, or its writer have committed
        // more before it died.
        let gone = file.metadata().during("look at pack", &path)?.nlink() == 0;
        let still_open = store.database().open_packs()?;
        let still_open = still_open.iter().find(|(open, ..)| *open == id);
        if let Some((_, committed_bytes, _)) = still_open
            && !gone
        {
            seal_left_behind(
                store,
                id,
                path,
                file,
                *committed_bytes,
                now_ns,
                &mut recovered,
            )?;
        }
    }
    Ok(recovered)
}

fn seal_left_behind(
    store: &Store,
    id: PackId,
    path: PathBuf,
    file: File,
    committed_bytes: u64,
    now_ns: i64,
    recovered: &mut Recovered,
) -> Result<(), StoreError> {
    let length = file.metadata().during("look at pack", &path)?.len();
    // What the disk refused may still be in memory, where it looks whole and is taken for written: all of it
    // is read from the disk.
    file.sync_data().during("sync pack", &path)?;
    let _ = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
    let reader = match PackReader::from_file(path.clone(), file, store.format().store, id) {
        Err(error) if error.is_damage() && is_empty(committed_bytes) => {
            // Its writer died before the first record: there is nothing in it.
            return discard(store, id, &path);
        }
        Err(error) if error.is_damage() => {
            recovered.damaged.push(path);
            return Ok(());
        }
        opened => opened?,
    };
    let (mut list, seal) = reader.list()?;
    let torn = cut_tail(&reader, &mut list, committed_bytes)?;
    let whole_bytes = match (torn, seal) {
        (Some(offset), _) => offset,
        (None, Seal::Sealed) => length,
        (None, Seal::Open { whole_bytes, .. }) => whole_bytes,
    };
    if whole_bytes < committed_bytes {
        recovered.damaged.push(path);
        let row = row(id, PackState::Damaged, committed_bytes, &list);
        return store.database().commit(&[row], &[], &[], now_ns).map(drop);
    }
    if list.records().is_empty() {
        return discard(store, id, &path);
    }
    let (file, sealed_length) = if torn.is_none() && seal == Seal::Sealed {
        (Arc::new(reader.into_file()), length)
    } else {
        recovered.cut_bytes += length - whole_bytes;
        let file = reader.into_file();
        file.set_len(whole_bytes).during("cut pack", &path)?;
        let writer = PackWriter::adopt(id, path, file, whole_bytes, list.clone());
        let (file, sealed) = writer.seal()?;
        (file, sealed.length_bytes)
    };
    // Its writer may have died before it synced any of this: the index must not know of pieces that
    // a power cut can still take away.
    store.sync_pack(id, &file)?;
    store.sync_pack_names([id].into_iter())?;
    let pieces: Vec<PieceRow> = list
        .pieces()
        .iter()
        .zip(0u32..)
        .map(|(piece, ordinal)| PieceRow {
            prefix: piece.id.prefix(),
            place: PiecePlace { pack: id, ordinal },
        })
        .collect();
    let row = row(id, PackState::Sealed, sealed_length, &list);
    store.database().commit(&[row], &pieces, &[], now_ns)?;
    recovered.sealed += 1;
    recovered.pieces += pieces.len() as u64;
    Ok(())
}

/// After a power cut the file system may have kept a record's header, or even the trailer behind it,
/// and not its payload. Checks the payloads that no commit covered, drops the list from the first
/// bad one on, and gives that one's offset.
fn cut_tail(
    reader: &PackReader,
    list: &mut PackList,
    committed_bytes: u64,
) -> Result<Option<u64>, StoreError> {
    let mut room = vec![0; MAX_RECORD_BYTES];
    let records = list.records();
    let tail = records.partition_point(|record| record.offset < committed_bytes);
    for (index, record) in records.iter().enumerate().skip(tail) {
        match reader.record(record.offset, record.length_bytes, &mut room) {
            Ok(_) => {}
            Err(error) if error.is_damage() => {
                let offset = record.offset;
                list.truncate(index);
                return Ok(Some(offset));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Whether a pack of this durable length holds no record.
fn is_empty(committed_bytes: u64) -> bool {
    committed_bytes <= PACK_HEADER_BYTES as u64
}

fn discard(store: &Store, id: PackId, path: &PathBuf) -> Result<(), StoreError> {
    fs::remove_file(path).during("remove empty pack", path)?;
    store.database().forget_pack(id)
}

fn row(id: PackId, state: PackState, length_bytes: u64, list: &PackList) -> PackRow {
    PackRow {
        id,
        state,
        length_bytes,
        pieces: list.piece_count(),
    }
}
