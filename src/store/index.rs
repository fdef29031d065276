//! The index: which pieces are in which packs. Asked from disk, never held.

use rusqlite::{OptionalExtension, params};

use super::database::Database;
use super::error::StoreError;
use super::id::{PackId, PieceId, PiecePlace};
use super::pack::PACK_HEADER_BYTES;
use super::scrub;

const WHOLE_CANDIDATES: &str = "
SELECT pack, ordinal FROM piece
WHERE prefix = ?1 AND NOT EXISTS (SELECT 1 FROM damage WHERE damage.pack = piece.pack
                                  AND first <= ordinal AND ordinal < \"end\")
ORDER BY pack DESC LIMIT 16";

/// In a store that no filed with a scrub has written to.
const ALL_CANDIDATES: &str =
    "SELECT pack, ordinal FROM piece WHERE prefix = ?1 ORDER BY pack DESC LIMIT 16";

/// State of a pack as the index knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PackState {
    /// Being written, or left behind by a writer that died.
    Open = 0,
    /// Complete.
    Sealed = 1,
    /// Left behind, and not what its writer had committed: kept as it is for `verify` to report.
    Damaged = 2,
}

impl PackState {
    pub(super) fn of_number(number: i64) -> PackState {
        match number {
            0 => PackState::Open,
            1 => PackState::Sealed,
            _ => PackState::Damaged,
        }
    }
}

/// What a commit says of one pack.
#[derive(Clone, Debug)]
pub struct PackRow {
    /// The pack.
    pub id: PackId,
    /// Its state once this commit is durable.
    pub state: PackState,
    /// Bytes of it that are durable.
    pub length_bytes: u64,
    /// Pieces in those bytes.
    pub pieces: u32,
}

/// What a commit says of one piece: its digest's prefix and its place.
#[derive(Clone, Copy, Debug)]
pub struct PieceRow {
    /// [`PieceId::prefix`].
    pub prefix: u64,
    /// Where the piece is.
    pub place: PiecePlace,
}

impl Database {
    /// Reserves a number for a new pack.
    pub fn new_pack(&self, now_ns: i64) -> Result<PackId, StoreError> {
        self.change("reserve a pack", |change| {
            change.execute(
                "INSERT INTO pack (state, length, pieces, opened_ns) VALUES (0, 0, 0, ?1)",
                [now_ns],
            )?;
            Ok(PackId(change.last_insert_rowid() as u64))
        })
    }

    /// Places at which a piece with this digest may be, newest pack first, without those that are known
    /// to be damaged.
    pub fn candidates(&self, id: &PieceId) -> Result<Vec<PiecePlace>, StoreError> {
        self.candidates_of_prefix(id.prefix())
    }

    /// The same, of a digest that begins so.
    pub fn candidates_of_prefix(&self, prefix: u64) -> Result<Vec<PiecePlace>, StoreError> {
        self.ask("look up a piece", |connection| {
            let ask = |question| -> rusqlite::Result<Vec<PiecePlace>> {
                connection
                    .prepare_cached(question)?
                    .query_map([prefix as i64], |row| {
                        Ok(PiecePlace {
                            pack: PackId(row.get::<_, i64>(0)? as u64),
                            ordinal: row.get(1)?,
                        })
                    })?
                    .collect()
            };
            match ask(WHOLE_CANDIDATES) {
                Err(error) if scrub::is_missing_table(&error) => ask(ALL_CANDIDATES),
                answer => answer,
            }
        })
    }

    /// What the index knows of all pieces of a pack: ordinals and prefixes, in order. Reads the whole
    /// index, and is meant for a pack whose own list cannot be read.
    pub fn pieces_of(&self, pack: PackId) -> Result<Vec<(u32, u64)>, StoreError> {
        let mut pieces: Vec<(u32, u64)> = self.ask("look for a pack's pieces", |connection| {
            connection
                .prepare_cached("SELECT ordinal, prefix FROM piece WHERE pack = ?1")?
                .query_map([pack.0 as i64], |row| {
                    Ok((row.get(0)?, row.get::<_, i64>(1)? as u64))
                })?
                .collect()
        })?;
        pieces.sort_unstable();
        Ok(pieces)
    }

    /// How many pieces of a pack are durable: its file may hold more, which its writer has not
    /// committed yet.
    pub fn durable_pieces(&self, pack: PackId) -> Result<u32, StoreError> {
        self.ask("look up a pack", |connection| {
            connection
                .prepare_cached("SELECT pieces FROM pack WHERE id = ?1")?
                .query_row([pack.0 as i64], |row| row.get(0))
                .optional()
        })
        .map(Option::unwrap_or_default)
    }

    /// Pieces of a pack that is complete; `None` if it is not, or not there.
    pub fn sealed_pieces(&self, pack: PackId) -> Result<Option<u32>, StoreError> {
        self.ask("look up a pack", |connection| {
            connection
                .prepare_cached("SELECT pieces FROM pack WHERE id = ?1 AND state = 1")?
                .query_row([pack.0 as i64], |row| row.get(0))
                .optional()
        })
    }

    /// Packs whose state is open: being written, or left behind.
    pub fn open_packs(&self) -> Result<Vec<(PackId, u64, i64)>, StoreError> {
        self.ask("list open packs", |connection| {
            connection
                .prepare_cached(
                    "SELECT id, length, opened_ns FROM pack WHERE state = 0 ORDER BY id",
                )?
                .query_map([], |row| {
                    let id = PackId(row.get::<_, i64>(0)? as u64);
                    Ok((id, row.get::<_, i64>(1)? as u64, row.get(2)?))
                })?
                .collect()
        })
    }

    /// The next pack after `after` with its state and durable length; in ascending order.
    pub fn pack_after(
        &self,
        after: Option<PackId>,
    ) -> Result<Option<(PackId, PackState, u64)>, StoreError> {
        let after = after.map_or(-1, |id| id.0 as i64);
        self.ask("list packs", |connection| {
            connection
                .prepare_cached(
                    "SELECT id, state, length FROM pack WHERE id > ?1 ORDER BY id LIMIT 1",
                )?
                .query_row([after], |row| {
                    Ok((
                        PackId(row.get::<_, i64>(0)? as u64),
                        PackState::of_number(row.get(1)?),
                        row.get::<_, i64>(2)? as u64,
                    ))
                })
                .optional()
        })
    }

    /// Number of packs.
    pub fn pack_count(&self) -> Result<u64, StoreError> {
        self.ask("count packs", |connection| {
            connection.query_row("SELECT count(*) FROM pack", [], |row| {
                Ok(row.get::<_, i64>(0)? as u64)
            })
        })
    }

    /// Forgets a pack that never came to hold anything.
    pub(crate) fn forget_pack(&self, id: PackId) -> Result<(), StoreError> {
        self.change("forget an empty pack", |change| {
            change.execute(
                "DELETE FROM pack WHERE id = ?1 AND length <= ?2",
                [id.0 as i64, PACK_HEADER_BYTES as i64],
            )
        })
        .map(drop)
    }
}

/// Adds packs and pieces within a commit.
pub(super) fn insert(
    change: &rusqlite::Transaction<'_>,
    packs: &[PackRow],
    pieces: &[PieceRow],
    now_ns: i64,
) -> rusqlite::Result<()> {
    let mut upsert = change.prepare_cached(
        "INSERT INTO pack (id, state, length, pieces, opened_ns) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (id) DO UPDATE SET state = ?2, length = ?3, pieces = ?4",
    )?;
    for pack in packs {
        upsert.execute(params![
            pack.id.0 as i64,
            pack.state as i64,
            pack.length_bytes as i64,
            pack.pieces,
            now_ns
        ])?;
    }
    let mut add = change.prepare_cached(
        "INSERT OR IGNORE INTO piece (prefix, pack, ordinal) VALUES (?1, ?2, ?3)",
    )?;
    for piece in pieces {
        let PiecePlace { pack, ordinal } = piece.place;
        add.execute(params![piece.prefix as i64, pack.0 as i64, ordinal])?;
    }
    Ok(())
}
