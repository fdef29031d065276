//! What is known of the health of packs: when each was checked last, and what was found damaged.
//!
//! Tables beside the catalog. A filed that does not know them leaves them alone, and where they are
//! missing nothing has been checked yet: whoever writes makes them.
//!
//! ```text
//! checked     pack, checked_ns: when it was read whole; before the first time its number, negative
//! damage      pack, first and end of the pieces lost, offset, what, found_ns
//! scrub_pass  began_ns, ended_ns (not yet: none)
//! ```
//!
//! So the ascending order of `checked_ns` is the order of checking: what was never checked comes first,
//! the newest of it foremost, then what was not for the longest time.
//!
//! The rule that must hold: **a piece in `damage` is not known.** [`Database::candidates`] passes it
//! over and whoever loads the list of a pack leaves it out, so the same content is stored again when
//! it comes in. Nothing is deleted for that: a pack found whole again is as good as it was.

use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::database::Database;
use super::error::StoreError;
use super::id::PackId;
use super::index::PackState;
use super::verify::{Damage, Depth};

pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS checked (
    pack INTEGER PRIMARY KEY,
    checked_ns INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS checked_order ON checked (checked_ns);
CREATE TABLE IF NOT EXISTS damage (
    pack INTEGER NOT NULL,
    first INTEGER NOT NULL,
    \"end\" INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    what TEXT NOT NULL,
    found_ns INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS damage_pack ON damage (pack);
CREATE TABLE IF NOT EXISTS scrub_pass (
    began_ns INTEGER PRIMARY KEY,
    ended_ns INTEGER
) STRICT;
";

/// A damaged place as it was written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamageRow {
    /// The pack.
    pub pack: PackId,
    /// Where in it.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
    /// The pieces that are lost with it, by ordinal.
    pub pieces: Range<u32>,
    /// When it was found first, nanoseconds since 1970.
    pub found_ns: i64,
}

/// The pack whose turn it is to be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextCheck {
    /// The pack, which no writer has.
    pub pack: PackId,
    /// Its state.
    pub state: PackState,
    /// Its length in bytes.
    pub length_bytes: u64,
    /// When it was checked last, nanoseconds since 1970; `None` if it never was.
    pub checked_ns: Option<i64>,
}

impl NextCheck {
    /// When it is due, nanoseconds since 1970.
    pub fn due_ns(&self, every: Duration) -> i64 {
        let every_ns = i64::try_from(every.as_nanos()).unwrap_or(i64::MAX);
        self.checked_ns
            .map_or(i64::MIN, |checked| checked.saturating_add(every_ns))
    }

    /// Whether it is due now. A check in the future was made by a clock that has been set back: nobody
    /// knows when that was.
    pub fn is_due(&self, now_ns: i64, every: Duration) -> bool {
        self.due_ns(every) <= now_ns || self.checked_ns.is_some_and(|checked| checked > now_ns)
    }
}

/// One scrub's way through the packs.
#[derive(Clone, Debug, Default)]
pub struct CheckOrder {
    /// All packs up to this one that can be checked have a row; `None` before the first look.
    settled: Option<u64>,
    /// Packs that cannot be read for a reason that is not damage: not now.
    postponed: HashSet<PackId>,
}

impl CheckOrder {
    /// Passes over a pack until [`forgive`](Self::forgive).
    pub fn postpone(&mut self, pack: PackId) {
        self.postponed.insert(pack);
    }

    /// Gives postponed packs their turn again; whether there were any.
    pub fn forgive(&mut self) -> bool {
        let any = !self.postponed.is_empty();
        self.postponed.clear();
        any
    }

    /// Whether a pack was postponed.
    pub fn has_postponed(&self) -> bool {
        !self.postponed.is_empty()
    }
}

/// The passes over all packs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passes {
    /// When the present one began, nanoseconds since 1970; `None` between two.
    pub began_ns: Option<i64>,
    /// When the last whole one began and ended.
    pub last: Option<(i64, i64)>,
}

/// Bytes of packs that no writer has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckedBytes {
    /// Those checked since a given time.
    pub checked: u64,
    /// All.
    pub total: u64,
}

impl Database {
    /// Writes down what a check of a pack has found; whether the pack is still there.
    ///
    /// A check of the whole content replaces what was known. One of the structure only adds to it, for it
    /// has not looked at most of what may be damaged.
    ///
    /// # Errors
    ///
    /// When the database cannot be read or written, as in every function here.
    pub fn record_check(
        &self,
        pack: PackId,
        damage: &[Damage],
        depth: Depth,
        now_ns: i64,
    ) -> Result<bool, StoreError> {
        self.change("record a check", |change| {
            change.execute_batch(SCHEMA)?;
            record(change, pack, damage, depth, now_ns)
        })
    }

    /// Writes down that the whole content of these packs was checked and nothing found.
    ///
    /// # Errors
    ///
    /// See [`record_check`](Self::record_check).
    pub fn record_whole(&self, packs: &[PackId], now_ns: i64) -> Result<(), StoreError> {
        if packs.is_empty() {
            return Ok(());
        }
        self.change("record checks", |change| {
            change.execute_batch(SCHEMA)?;
            for pack in packs {
                record(change, *pack, &[], Depth::Content, now_ns)?;
            }
            Ok(())
        })
    }

    /// The pack whose turn it is, due or not; `None` if there is nothing to check at all.
    ///
    /// # Errors
    ///
    /// See [`record_check`](Self::record_check).
    pub fn next_check(&self, order: &mut CheckOrder) -> Result<Option<NextCheck>, StoreError> {
        self.admit(order)?;
        self.ask("look for a pack to check", |connection| {
            let mut question = connection.prepare_cached(
                "SELECT checked.pack, state, length, checked_ns
                 FROM checked CROSS JOIN pack ON pack.id = checked.pack
                 WHERE state <> 0 ORDER BY checked_ns LIMIT ?1",
            )?;
            let most = order.postponed.len() as i64 + 1;
            let rows = question.query_map([most], |row| {
                let checked_ns: i64 = row.get(3)?;
                Ok(NextCheck {
                    pack: PackId(row.get::<_, i64>(0)? as u64),
                    state: PackState::of_number(row.get(1)?),
                    length_bytes: row.get::<_, i64>(2)? as u64,
                    checked_ns: (checked_ns >= 0).then_some(checked_ns),
                })
            })?;
            for row in rows {
                let row = row?;
                if !order.postponed.contains(&row.pack) {
                    return Ok(Some(row));
                }
            }
            Ok(None)
        })
    }

    /// Gives packs that have been sealed since the last look their place in the order.
    fn admit(&self, order: &mut CheckOrder) -> Result<(), StoreError> {
        // Looked at first: what is sealed after this is looked at again the next time.
        let settled = self.ask("list packs", |connection| {
            connection
                .prepare_cached(
                    "SELECT coalesce((SELECT min(id) - 1 FROM pack WHERE state = 0),
                                     (SELECT max(id) FROM pack), 0)",
                )?
                .query_row([], |row| row.get::<_, i64>(0))
        })?;
        let from = order.settled.unwrap_or(0) as i64;
        let first_look = order.settled.is_none();
        let any = first_look
            || self.ask("list packs", |connection| {
                connection
                    .prepare_cached(
                        "SELECT EXISTS (SELECT 1 FROM pack WHERE id > ?1 AND state <> 0
                         AND NOT EXISTS (SELECT 1 FROM checked WHERE checked.pack = pack.id))",
                    )?
                    .query_row([from], |row| row.get(0))
            })?;
        if any {
            self.change("list packs to check", |change| {
                change.execute_batch(SCHEMA)?;
                if first_look {
                    for table in ["checked", "damage"] {
                        let gone = "WHERE pack NOT IN (SELECT id FROM pack)";
                        change.execute(&format!("DELETE FROM {table} {gone}"), [])?;
                    }
                }
                change.execute(
                    "INSERT OR IGNORE INTO checked (pack, checked_ns)
                     SELECT id, -id FROM pack WHERE id > ?1 AND state <> 0",
                    [from],
                )
            })?;
        }
        order.settled = Some((settled.max(from)) as u64);
        Ok(())
    }

    /// How much of what can be checked has been since `since_ns`.
    ///
    /// # Errors
    ///
    /// See [`record_check`](Self::record_check).
    pub fn checked_bytes(&self, since_ns: i64) -> Result<CheckedBytes, StoreError> {
        let none = CheckedBytes::default();
        self.ask_of_checks("add up checks", none, |connection| {
            connection
                .prepare_cached(
                    "SELECT coalesce(sum(length), 0),
                            coalesce(sum(CASE WHEN checked_ns >= max(?1, 0) THEN length END), 0)
                     FROM pack LEFT JOIN checked ON checked.pack = pack.id WHERE state <> 0",
                )?
                .query_row([since_ns], |row| {
                    Ok(CheckedBytes {
                        total: row.get::<_, i64>(0)? as u64,
                        checked: row.get::<_, i64>(1)? as u64,
                    })
                })
        })
    }

    /// Pieces of a pack that are known to be damaged.
    ///
    /// # Errors
    ///
    /// See [`record_check`](Self::record_check).
    pub fn damaged_pieces(&self, pack: PackId) -> Result<Vec<Range<u32>>, StoreError> {
        self.ask_of_checks("look for damage", Vec::new(), |connection| {
            connection
                .prepare_cached(
                    "SELECT first, \"end\" FROM damage WHERE pack = ?1 AND first < \"end\"",
                )?
                .query_map([pack.0 as i64], |row| Ok(row.get(0)?..row.get(1)?))?
                .collect()
        })
    }

    /// Up to `most` damaged places, in the order of their packs.
    ///
    /// # Errors
    ///
    /// See [`record_check`](Self::record_check).
    pub fn damage(&self, most: u32) -> Result<Vec<DamageRow>, StoreError> {
        self.ask_of_checks("list damage", Vec::new(), |connection| {
            connection
                .prepare_cached(
                    "SELECT pack, offset, what, first, \"end\", found_ns FROM damage
                     ORDER BY pack, offset LIMIT ?1",
                )?
                .query_map([most], read_damage)?
                .collect()
        })
    }

    /// How many damaged places are known.
    ///
    /// # Errors
    ///
    /// See [`record_check`](Self::record_check).
    pub fn damage_count(&self) -> Result<u64, StoreError> {
        self.ask_of_checks("count damage", 0, |connection| {
            connection
                .prepare_cached("SELECT count(*) FROM damage")?
                .query_row([], |row| Ok(row.get::<_, i64>(0)? as u64))
        })
    }

    /// The present pass and the last whole one.
    ///
    /// # Errors
    ///
    /// See [`record_check`](Self::record_check).
    pub fn passes(&self) -> Result<Passes, StoreError> {
        self.ask_of_checks("look up the scrub", Passes::default(), |connection| {
            let began_ns = connection
                .prepare_cached("SELECT max(began_ns) FROM scrub_pass WHERE ended_ns IS NULL")?
                .query_row([], |row| row.get(0))?;
            let last = connection
                .prepare_cached(
                    "SELECT began_ns, ended_ns FROM scrub_pass WHERE ended_ns IS NOT NULL
                     ORDER BY began_ns DESC LIMIT 1",
                )?
                .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            Ok(Passes { began_ns, last })
        })
    }

    /// Begins a pass over all packs.
    ///
    /// # Errors
    ///
    /// See [`record_check`](Self::record_check).
    pub fn begin_pass(&self, now_ns: i64) -> Result<(), StoreError> {
        self.change("begin a scrub", |change| {
            change.execute_batch(SCHEMA)?;
            change.execute(
                "INSERT OR IGNORE INTO scrub_pass (began_ns) VALUES (?1)",
                [now_ns],
            )
        })
        .map(drop)
    }

    /// Ends the present pass, and forgets those before it.
    ///
    /// # Errors
    ///
    /// See [`record_check`](Self::record_check).
    pub fn end_pass(&self, began_ns: i64, now_ns: i64) -> Result<(), StoreError> {
        self.change("end a scrub", |change| {
            change.execute(
                "UPDATE scrub_pass SET ended_ns = ?2 WHERE began_ns = ?1",
                [began_ns, now_ns],
            )?;
            change.execute("DELETE FROM scrub_pass WHERE began_ns <> ?1", [began_ns])
        })
        .map(drop)
    }

    /// Asks where the tables may be missing, which means that there is nothing yet.
    fn ask_of_checks<T>(
        &self,
        action: &'static str,
        nothing: T,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.ask(action, |connection| match question(connection) {
            Err(error) if is_missing_table(&error) => Ok(nothing),
            answer => answer,
        })
    }
}

/// Forgets all checks of a pack, within the change that removes it.
///
/// # Errors
///
/// When the database cannot be written.
pub fn forget(change: &Transaction<'_>, pack: PackId) -> rusqlite::Result<()> {
    change.execute_batch(SCHEMA)?;
    change.execute("DELETE FROM checked WHERE pack = ?1", [pack.0 as i64])?;
    change.execute("DELETE FROM damage WHERE pack = ?1", [pack.0 as i64])?;
    Ok(())
}

/// Whether a question failed because a table is not there.
pub(super) fn is_missing_table(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(_, Some(message))
        | rusqlite::Error::SqlInputError { msg: message, .. } => {
            message.starts_with("no such table")
        }
        _ => false,
    }
}

fn record(
    change: &Transaction<'_>,
    pack: PackId,
    damage: &[Damage],
    depth: Depth,
    now_ns: i64,
) -> rusqlite::Result<bool> {
    let id = pack.0 as i64;
    let state = change
        .prepare_cached("SELECT state FROM pack WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()?
        .map(PackState::of_number);
    let Some(state) = state else {
        // Removed while it was read: what was found of it is of no interest.
        forget(change, pack)?;
        return Ok(false);
    };
    let known: Vec<DamageRow> = change
        .prepare_cached(
            "SELECT pack, offset, what, first, \"end\", found_ns FROM damage WHERE pack = ?1",
        )?
        .query_map([id], read_damage)?
        .collect::<Result<_, _>>()?;
    let is_known = |damage: &Damage| {
        known.iter().find(|known| {
            known.offset == damage.offset
                && known.pieces == damage.pieces
                && known.what == damage.what
        })
    };
    if depth == Depth::Content && !known.is_empty() {
        change
            .prepare_cached("DELETE FROM damage WHERE pack = ?1")?
            .execute([id])?;
    }
    for damage in damage {
        let found_ns = match is_known(damage) {
            Some(_) if depth == Depth::Structure => continue,
            Some(known) => known.found_ns,
            None => now_ns,
        };
        change
            .prepare_cached(
                "INSERT INTO damage (pack, first, \"end\", offset, what, found_ns)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                id,
                damage.pieces.start,
                damage.pieces.end,
                damage.offset as i64,
                damage.what,
                found_ns
            ])?;
    }
    if depth == Depth::Content && state != PackState::Open {
        change
            .prepare_cached(
                "INSERT INTO checked (pack, checked_ns) VALUES (?1, ?2)
                 ON CONFLICT (pack) DO UPDATE SET checked_ns = ?2",
            )?
            .execute([id, now_ns.max(0)])?;
    }
    Ok(true)
}

fn read_damage(row: &rusqlite::Row<'_>) -> rusqlite::Result<DamageRow> {
    Ok(DamageRow {
        pack: PackId(row.get::<_, i64>(0)? as u64),
        offset: row.get::<_, i64>(1)? as u64,
        what: row.get(2)?,
        pieces: row.get(3)?..row.get(4)?,
        found_ns: row.get(5)?,
    })
}

#[cfg(test)]
mod tests;
