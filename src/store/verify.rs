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
use super::heal;
use super::id::{PackId, PieceId, PiecePlace};
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
    /// Where the check was stopped, to be gone on from; `None` if it came to the end.
    pub stopped_at: Option<u64>,
}

/// A pack to be checked.
#[derive(Clone, Copy, Debug)]
pub struct PackToCheck {
    /// The pack.
    pub id: PackId,
    /// Its state.
    pub state: PackState,
    /// Bytes of it that are durable.
    pub committed_bytes: u64,
    /// Records before this offset were checked before.
    pub from: u64,
}

/// A record that has just been checked.
#[derive(Clone, Copy)]
pub struct CheckedRecord<'a> {
    /// Its pack.
    pub pack: &'a PackReader,
    /// Where it begins.
    pub offset: u64,
    /// Bytes of it that were read, whatever they were.
    pub read_bytes: u64,
}

/// Checks a pack. `room` and `plain` are as for [`FrameReader::read`]; `progress` is told of every
/// record, and stops the check by answering `false`.
pub fn check_pack(
    store: &Store,
    pack: PackToCheck,
    depth: Depth,
    frames: &mut FrameReader,
    room: &mut [u8],
    plain: &mut [u8],
    progress: &mut dyn FnMut(CheckedRecord<'_>) -> bool,
) -> Result<PackCheck, StoreError> {
    let PackToCheck {
        id,
        state,
        committed_bytes,
        from,
    } = pack;
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
    let no_trailer = match &trailer {
        Ok(Some(_)) => None,
        Ok(None) => (state == PackState::Sealed).then(|| "the footer is damaged".to_owned()),
        // What its writer wrote last before it died may be torn, and that is the trailer.
        Err(error) if error.is_damage() => (state != PackState::Open).then(|| describe(error)),
        Err(_) => None,
    };
    let list = match trailer {
        Ok(Some(list)) => list,
        Ok(None) => walked.clone(),
        Err(error) if error.is_damage() => walked.clone(),
        Err(error) => return Err(error),
    };
    let Seal::Open {
        whole_bytes,
        stopped,
    } = seal
    else {
        // A walk does not come to anything else.
        return Ok(check);
    };
    // Beyond what is committed an open pack may be in the middle of a record. The records of a sealed one
    // end with the trailer.
    let torn = whole_bytes < committed_bytes;
    let too_short = match state {
        PackState::Sealed => length < committed_bytes,
        _ => torn,
    };
    let lost = walked.piece_count()..u32::MAX;
    match (stopped, no_trailer) {
        // With a trailer the records after the flaw can still be reached: each is checked below, the one
        // with the flaw among them. Without, nothing after it can.
        (Some(flaw), _)
            if (torn || state != PackState::Open)
                && list.records().len() == walked.records().len() =>
        {
            check
                .damage
                .push(damage(whole_bytes, flaw.to_owned(), lost));
        }
        (None, _) if too_short => {
            let what = "the pack is shorter than committed".to_owned();
            check.damage.push(damage(length, what, lost));
        }
        (_, Some(what)) => check.damage.push(damage(length, what, 0..0)),
        _ => {}
    }
    let mut table = Vec::new();
    let records = list.records();
    for record in &records[records.partition_point(|record| record.offset < from)..] {
        let end = record.offset + u64::from(record.length_bytes);
        if state == PackState::Open && end > committed_bytes {
            break;
        }
        let outcome = match depth {
            Depth::Structure => check_structure(&reader, record, &list, &mut table),
            Depth::Content => check_content(&reader, record, &list, frames, room, plain),
        };
        let read_bytes = match outcome {
            Ok(read_bytes) => {
                check.read_bytes += read_bytes;
                read_bytes
            }
            Err(Finding::Damage(found)) => {
                let found = found.into_iter();
                let at = record.offset;
                check
                    .damage
                    .extend(found.map(|(what, pieces)| damage(at, what, pieces)));
                u64::from(record.length_bytes)
            }
            Err(Finding::Failed(error)) => return Err(error),
        };
        check.pieces += u64::from(record.pieces);
        let checked = CheckedRecord {
            pack: &reader,
            offset: record.offset,
            read_bytes,
        };
        if !progress(checked) {
            check.stopped_at = Some(end);
            return Ok(check);
        }
    }
    Ok(check)
}

enum Finding {
    Damage(Vec<(String, Range<u32>)>),
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
        let what = "a record is not as listed".to_owned();
        return Err(Finding::Damage(vec![(what, lost)]));
    }
    // The walk over the pack ends at the first table that is damaged: those behind it are read here.
    let intact = reader
        .table(record.offset, &header, table)
        .map_err(|error| finding(error, record))?;
    if let Err(flaw) = intact {
        return Err(Finding::Damage(vec![(flaw.to_owned(), lost)]));
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
    let mut found = Vec::new();
    for ordinal in record.first..record.first + record.pieces {
        let entry = list.pieces()[ordinal as usize];
        let end = at + entry.length_bytes as usize;
        if PieceId::of(&plain[at..end]) != entry.id {
            let what = format!("piece {ordinal} is not what its digest says");
            found.push((what, ordinal..ordinal + 1));
        }
        at = end;
    }
    if found.is_empty() {
        Ok(u64::from(record.length_bytes))
    } else {
        Err(Finding::Damage(found))
    }
}

fn finding(error: StoreError, record: &RecordEntry) -> Finding {
    if error.is_damage() {
        let lost = record.first..record.first + record.pieces;
        Finding::Damage(vec![(describe(&error), lost)])
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
    /// Adds pieces of a pack.
    pub fn add(&mut self, pack: PackId, pieces: &Range<u32>) {
        if !pieces.is_empty() {
            let ranges = self.by_pack.entry(pack).or_default();
            match ranges.last_mut() {
                Some(last) if last.end == pieces.start => last.end = pieces.end,
                _ => ranges.push(pieces.clone()),
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

/// Checks that a version's record and runs are there, fit its size, and meet no piece that is lost and
/// not stored elsewhere. Gives the first thing that is wrong, or `None`.
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
                    match run_bytes(store, lists, lost, start, count)? {
                        Ok(length_bytes) => length_bytes,
                        Err(why) => return Ok(Some(why)),
                    }
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

/// Bytes of a run of pieces, each at its own place or another one; or why it cannot be had.
fn run_bytes(
    store: &Store,
    lists: &PackLists<'_>,
    lost: &LostPieces,
    start: PiecePlace,
    count: u32,
) -> Result<Result<u64, String>, StoreError> {
    let pieces = start.ordinal..start.ordinal + count;
    let why = if lost.meets(start.pack, &pieces) {
        format!("pieces of pack {} are damaged", start.pack)
    } else {
        let last = PiecePlace {
            ordinal: pieces.end - 1,
            ..start
        };
        match lists.frame(last) {
            Ok((pack, _)) => {
                let listed = &pack.list.pieces()[pieces.start as usize..pieces.end as usize];
                let lengths = listed.iter().map(|piece| u64::from(piece.length_bytes));
                return Ok(Ok(lengths.sum()));
            }
            Err(error) if error.is_damage() => error.to_string(),
            Err(error) => return Err(error),
        }
    };
    let mut length_bytes = 0;
    for ordinal in pieces {
        let place = PiecePlace { ordinal, ..start };
        length_bytes += match piece_bytes(store, lists, lost, place)? {
            Some(length_bytes) => u64::from(length_bytes),
            None => return Ok(Err(why)),
        };
    }
    Ok(Ok(length_bytes))
}

/// Bytes of a piece, at its own place or another one.
fn piece_bytes(
    store: &Store,
    lists: &PackLists<'_>,
    lost: &LostPieces,
    place: PiecePlace,
) -> Result<Option<u32>, StoreError> {
    let is_lost = |place: PiecePlace| lost.meets(place.pack, &(place.ordinal..place.ordinal + 1));
    if !is_lost(place) {
        match lists.frame(place) {
            Ok((_, frame)) => return Ok(Some(frame.piece_bytes)),
            Err(error) if error.is_damage() => {}
            Err(error) => return Err(error),
        }
    }
    let others = heal::other_places(store, lists, place)?;
    let whole = others.iter().find(|other| !is_lost(other.place));
    Ok(whole.map(|other| other.length_bytes))
}
