//! A store of very many pieces, made without their files: packs of tiny pieces with whole lists, and
//! the index that belongs to them.

use std::path::Path;

use filed::store::format::Chunking;
use filed::store::index::{PackRow, PackState, PieceRow};
use filed::store::record::{Coding, HEADER_BYTES, PIECE_ENTRY_BYTES, PieceEntry};
use filed::store::{PieceId, PiecePlace, Store, StoreError};

/// Pieces of a frame: the most that one may have.
const FRAME_PIECES: u64 = 1024;

/// The digest of piece `number`.
pub(crate) fn piece(number: u64) -> PieceId {
    PieceId::of(&number.to_le_bytes())
}

/// Makes a store of `pieces` pieces, `pack_pieces` of them in each pack.
pub(crate) fn store_of(root: &Path, pieces: u64, pack_pieces: u64) -> Result<Store, StoreError> {
    let store = Store::open_or_create(
        root,
        Chunking::Content {
            average_bytes: 64 << 10,
        },
    )?;
    let (mut packs, mut rows) = (Vec::new(), Vec::new());
    for first in (0..pieces).step_by(pack_pieces as usize) {
        let end = (first + pack_pieces).min(pieces);
        let mut writer = store.new_pack(0)?;
        let pack = writer.id();
        for frame in (first..end).step_by(FRAME_PIECES as usize) {
            let numbers = frame..(frame + FRAME_PIECES).min(end);
            let entries: Vec<_> = numbers
                .map(|number| PieceEntry {
                    id: piece(number),
                    length_bytes: 1,
                })
                .collect();
            let mut record = vec![0; HEADER_BYTES];
            for entry in &entries {
                let mut bytes = [0; PIECE_ENTRY_BYTES];
                entry.encode(&mut bytes);
                record.extend_from_slice(&bytes);
            }
            record.resize(record.len() + entries.len(), 0);
            let plain_bytes = entries.len() as u32;
            writer.append_frame(&mut record, Coding::Plain, plain_bytes, &entries)?;
        }
        rows.extend((first..end).map(|number| PieceRow {
            prefix: piece(number).prefix(),
            place: PiecePlace {
                pack,
                ordinal: (number - first) as u32,
            },
        }));
        let (_, sealed) = writer.seal()?;
        packs.push(PackRow {
            id: pack,
            state: PackState::Sealed,
            length_bytes: sealed.length_bytes,
            pieces: sealed.pieces,
        });
    }
    // In key order, as the committer does: the inserts walk through the index.
    rows.sort_unstable_by_key(|row| (row.prefix as i64, row.place));
    store.database().commit(&packs, &rows, &[], 0)?;
    Ok(store)
}
