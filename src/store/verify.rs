//! Checking what is stored: packs byte by byte, versions run by run.
//!
//! Damage is a finding here, not an error: a check goes on past it, and says which pieces are lost so
//! that the files they belong to can be named. Errors are what keeps the check itself from working.

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;

use super::Store;
use super::catalog::VersionRow;
use super::error::StoreError;
use super::frame::FrameReader;
use super::id::{PackId, PieceId};
use super::index::PackState;
use super::lists::PackLists;
use super::manifest::{Run, Runs};
use super::pack::{PACK_HEADER_BYTES, PackReader, RecordEntry, Seal};
use super::record::Kind;

/// How much is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// Headers, tables, trailers and manifests.
    Structure,
    /// Every byte of every piece as well.
    Content,
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The damaged pack.
    pub pack: PackId,
    /// Its file.
    pub path: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
    /// The pieces that are lost with it, by ordinal.
    pub pieces: Range<u32>,
}

/// What was checked of a pack.
#[derive(Clone, Debug, Default)]
pub struct PackCheck {
    /// Pieces checked.
    pub pieces: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// What is damaged.
    pub damage: Vec<Damage>,
}

/// Checks a pack of which `committed_bytes` are durable. `room` and `plain` are as for
/// [`FrameReader::read`]; `progress` is told of bytes read, and stops the check by answering `false`.
#[expect(
    clippy::too_many_arguments,
    reason = "one check of one pack with its two buffers"
)]
pub fn check_pack(
    store: &Store,
    id: PackId,
    state: PackState,
    committed_bytes: u64,
    depth: Depth,
    frames: &mut FrameReader,
    room: &mut [u8],
    plain: &mut [u8],
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<PackCheck, StoreError> {
    let mut check = PackCheck::default();
    let path = super::pack::path(store.root(), id);
    let damage = |offset, what: String, pieces| Damage {
        pack: id,
        path: path.clone(),
        offset,
        what,
        pieces,
    };
    let reader = match store.pack(id) {
        // Reserved, and nothing committed of it: its writer is alive or never came to write.
        Err(_) if state == PackState::Open && committed_bytes <= PACK_HEADER_BYTES as u64 => {
            return Ok(check);
        }
        Err(error) if error.is_damage() => {
            let whole = 0..u32::MAX;
            check.damage.push(damage(0, describe(&error), whole));
            return Ok(check);
        }
        opened => opened?,
    };
    let length = reader.length_bytes()?;
    let trailer = reader.trailer(length);
    let (walked, seal) = reader.walk(length)?;
    let list = match trailer {
        Ok(Some(list)) => list,
        Ok(None) if state == PackState::Sealed => {
            check
                .damage
                .push(damage(length, "the footer is damaged".to_owned(), 0..0));
            walked.clone()
        }
        Ok(None) => walked.clone(),
        // What its writer wrote last before it died may be torn, and that is the trailer.
        Err(error) if error.is_damage() && state == PackState::Open => walked.clone(),
        Err(error) if error.is_damage() => {
            check.damage.push(damage(length, describe(&error), 0..0));
            walked.clone()
        }
        Err(error) => return Err(error),
    };
    if let Seal::Open {
        whole_bytes,
        stopped,
    } = seal
    {
        // Beyond what is committed an open pack may be in the middle of a record.
        let torn = whole_bytes < committed_bytes;
        if let Some(flaw) = stopped
            && (torn || state != PackState::Open)
        {
            // With a trailer the records after the flaw can still be reached: each is checked below,
            // the one with the flaw among them. Without, nothing after it can.
            if list.records().len() == walked.records().len() {
                let lost = walked.piece_count()..u32::MAX;
                check
                    .damage
                    .push(damage(whole_bytes, flaw.to_owned(), lost));
            }
        } else if torn && state != PackState::Sealed {
            let lost = walked.piece_count()..u32::MAX;
            check.damage.push(damage(
                length,
                "the pack is shorter than committed".to_owned(),
                lost,
            ));
        }
    }
    let mut table = Vec::new();
    for record in list.records() {
        let end = record.offset + u64::from(record.length_bytes);
        if state == PackState::Open && end > committed_bytes {
            break;
        }
        let outcome = match depth {
            Depth::Structure => check_structure(&reader, record, &list, &mut table),
            Depth::Content => check_content(&reader, record, &list, frames, room, plain),
        };
        match outcome {
            Ok(read) => {
                check.read_bytes += read;
                if !progress(read) {
                    return Ok(check);
                }
            }
            Err(Finding::Damage { what, pieces }) => {
                check.damage.push(damage(record.offset, what, pieces));
            }
            Err(Finding::Failed(error)) => return Err(error),
        }
        check.pieces += u64::from(record.pieces);
    }
    Ok(check)
}

enum Finding {
    Damage { what: String, pieces: Range<u32> },
    Failed(StoreError),
}

fn check_structure(
    reader: &PackReader,
    record: &RecordEntry,
    list: &super::pack::PackList,
    table: &mut Vec<u8>,
) -> Result<u64, Finding> {
    let header = reader
        .header(record.offset)
        .map_err(|error| finding(error, record))?;
    let lost = record.first..record.first + record.pieces;
    let as_listed = header.record_bytes() == u64::from(record.length_bytes)
        && (header.kind, header.first, header.pieces) == (record.kind, record.first, record.pieces);
    if !as_listed || record.first + record.pieces > list.piece_count() {
        return Err(Finding::Damage {
            what: "a record is not as listed".to_owned(),
            pieces: lost,
        });
    }
    // The walk over the pack ends at the first table that is damaged: those behind it are read here.
    let intact = reader
        .table(record.offset, &header, table)
        .map_err(|error| finding(error, record))?;
    if let Err(flaw) = intact {
        return Err(Finding::Damage {
            what: flaw.to_owned(),
            pieces: lost,
        });
    }
    Ok(super::record::HEADER_BYTES as u64 + u64::from(header.table_bytes))
}

fn check_content(
    reader: &PackReader,
    record: &RecordEntry,
    list: &super::pack::PackList,
    frames: &mut FrameReader,
    room: &mut [u8],
    plain: &mut [u8],
) -> Result<u64, Finding> {
    if record.kind != Kind::Frame {
        reader
            .record(record.offset, record.length_bytes, room)
            .map_err(|error| finding(error, record))?;
        return Ok(u64::from(record.length_bytes));
    }
    frames
        .read(reader, record, room, plain)
        .map_err(|error| finding(error, record))?;
    let mut at = 0;
    for ordinal in record.first..record.first + record.pieces {
        let entry = list.pieces()[ordinal as usize];
        let end = at + entry.length_bytes as usize;
        if PieceId::of(&plain[at..end]) != entry.id {
            return Err(Finding::Damage {
                what: format!("piece {ordinal} is not what its digest says"),
                pieces: ordinal..ordinal + 1,
            });
        }
        at = end;
    }
    Ok(u64::from(record.length_bytes))
}

fn finding(error: StoreError, record: &RecordEntry) -> Finding {
    if error.is_damage() {
        Finding::Damage {
            what: describe(&error),
            pieces: record.first..record.first + record.pieces,
        }
    } else {
        Finding::Failed(error)
    }
}

/// What is wrong, without the path and offset that are said beside it.
fn describe(error: &StoreError) -> String {
    match error {
        StoreError::Damaged { what, .. } => (*what).to_owned(),
        StoreError::Dangling { what, .. } => what.clone(),
        other => other.to_string(),
    }
}

/// Pieces that are lost, by pack.
#[derive(Debug, Default)]
pub struct LostPieces {
    by_pack: HashMap<PackId, Vec<Range<u32>>>,
}

impl LostPieces {
    /// Adds what a damage says is lost.
    pub fn add(&mut self, damage: &Damage) {
        if !damage.pieces.is_empty() {
            let ranges = self.by_pack.entry(damage.pack).or_default();
            match ranges.last_mut() {
                Some(last) if last.end == damage.pieces.start => last.end = damage.pieces.end,
                _ => ranges.push(damage.pieces.clone()),
            }
        }
    }

    fn meets(&self, pack: PackId, pieces: &Range<u32>) -> bool {
        self.by_pack.get(&pack).is_some_and(|lost| {
            lost.iter()
                .any(|lost| lost.start < pieces.end && pieces.start < lost.end)
        })
    }
}

/// Checks that a version's record and runs are there, fit its size, and meet no lost piece. Gives the
/// first thing that is wrong, or `None`.
pub fn check_version(
    store: &Store,
    lists: &PackLists<'_>,
    row: &VersionRow,
    lost: &LostPieces,
) -> Result<Option<String>, StoreError> {
    match walk_version(store, lists, row, lost) {
        Err(error) if error.is_damage() => Ok(Some(error.to_string())),
        outcome => outcome,
    }
}

fn walk_version(
    store: &Store,
    lists: &PackLists<'_>,
    row: &VersionRow,
    lost: &LostPieces,
) -> Result<Option<String>, StoreError> {
    let version = store.version(row.place)?;
    if version.name != row.name
        || version.size_bytes != row.size_bytes
        || version.digest != row.digest
    {
        return Ok(Some(
            "the catalog and the version's record differ".to_owned(),
        ));
    }
    let mut size_bytes = 0u64;
    for part in 0..=version.parts.len() {
        let from_part;
        let runs = match version.parts.get(part) {
            Some(place) => {
                from_part = store.manifest_part(*place)?;
                &from_part
            }
            None => &version.runs,
        };
        for run in Runs::new(runs) {
            let length = match run {
                Err(flaw) => return Ok(Some(flaw.to_owned())),
                Ok(Run::Hole { length_bytes }) => length_bytes,
                Ok(Run::Pieces { start, count }) => {
                    let pieces = start.ordinal..start.ordinal + count;
                    if lost.meets(start.pack, &pieces) {
                        return Ok(Some(format!("pieces of pack {} are damaged", start.pack)));
                    }
                    let last = super::PiecePlace {
                        ordinal: pieces.end - 1,
                        ..start
                    };
                    let (pack, _) = lists.frame(last)?;
                    let listed = &pack.list.pieces()[pieces.start as usize..pieces.end as usize];
                    listed
                        .iter()
                        .map(|piece| u64::from(piece.length_bytes))
                        .sum()
                }
            };
            size_bytes = size_bytes.saturating_add(length);
        }
    }
    if size_bytes != row.size_bytes {
        return Ok(Some(format!(
            "its pieces make {size_bytes} bytes, not {}",
            row.size_bytes
        )));
    }
    Ok(None)
}
