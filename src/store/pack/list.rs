//! What is in a pack: its records and pieces, as the trailer keeps them and as readers hold them.
//!
//! The invariant that every reader relies on: frames are in ascending order of their first ordinal,
//! follow each other without a gap from 0, and the pieces of a frame fill its plain bytes exactly.
//! [`PackList::push`] is the only way in, and refuses anything else.

use super::super::id::PieceId;
use super::super::record::{
    Flaw, HEADER_BYTES, Kind, MAX_PLAIN_BYTES, MAX_RECORD_BYTES, PIECE_ENTRY_BYTES, PieceEntry,
    u32_at, u64_at,
};
use super::{MAX_TRAILER_BYTES, PACK_HEADER_BYTES};

/// Length of a record's entry in the trailer, in bytes.
pub(super) const RECORD_ENTRY_BYTES: usize = 28;

/// A record as the trailer lists it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordEntry {
    /// Offset of the record's header in the pack.
    pub offset: u64,
    /// Length of the whole record in bytes.
    pub length_bytes: u32,
    /// Length of the payload decoded, in bytes.
    pub plain_bytes: u32,
    /// Ordinal of a frame's first piece; 0 otherwise.
    pub first: u32,
    /// Pieces in a frame; 0 otherwise.
    pub pieces: u32,
    /// What the record holds.
    pub kind: Kind,
}

/// A frame found in a list, with where one of its pieces lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameEntry {
    /// The frame's record.
    pub record: RecordEntry,
    /// Offset of the piece asked for in the frame's plain bytes.
    pub piece_offset: u32,
    /// Length of the piece asked for.
    pub piece_bytes: u32,
}

/// Records and pieces of one pack.
#[derive(Clone, Debug, Default)]
pub struct PackList {
    records: Vec<RecordEntry>,
    /// Indices of the frames in `records`, so that a piece is found by binary search.
    frames: Vec<u32>,
    pieces: Vec<PieceEntry>,
}

impl PackList {
    /// The records in the order they were written.
    pub fn records(&self) -> &[RecordEntry] {
        &self.records
    }

    /// All pieces by ordinal.
    pub fn pieces(&self) -> &[PieceEntry] {
        &self.pieces
    }

    /// Pieces so far, which is also the next frame's first ordinal.
    pub fn piece_count(&self) -> u32 {
        // Bounded by MAX_PACK_PIECES and one frame.
        self.pieces.len() as u32
    }

    /// Bytes that this list holds in memory.
    pub fn held_bytes(&self) -> u64 {
        (self.records.capacity() * size_of::<RecordEntry>()
            + self.frames.capacity() * size_of::<u32>()
            + self.pieces.capacity() * size_of::<PieceEntry>()) as u64
    }

    /// Gives back what growing the list allocated in advance.
    pub fn shrink(&mut self) {
        self.records.shrink_to_fit();
        self.frames.shrink_to_fit();
        self.pieces.shrink_to_fit();
    }

    /// Adds the next record; fails if the list would no longer hold together.
    pub fn push(&mut self, record: RecordEntry, pieces: &[PieceEntry]) -> Result<(), Flaw> {
        if record.pieces as usize != pieces.len() {
            return Err("a frame lists another number of pieces than it has");
        }
        if (record.length_bytes as usize) < HEADER_BYTES
            || record.length_bytes as usize > MAX_RECORD_BYTES
            || record.plain_bytes as usize > MAX_PLAIN_BYTES
            || record.offset < PACK_HEADER_BYTES as u64
        {
            return Err("a record's place is impossible");
        }
        if record.kind == Kind::Frame {
            if record.first != self.piece_count() {
                return Err("a frame's pieces do not follow those before it");
            }
            let total: u64 = pieces.iter().map(|p| u64::from(p.length_bytes)).sum();
            if total != u64::from(record.plain_bytes) || pieces.iter().any(|p| p.length_bytes == 0)
            {
                return Err("a frame's pieces do not fill it");
            }
            self.frames.push(self.records.len() as u32);
            self.pieces.extend_from_slice(pieces);
        } else if !pieces.is_empty() {
            return Err("a record that is no frame has pieces");
        }
        self.records.push(record);
        Ok(())
    }

    /// Forgets all but the first `records` records, and their pieces.
    pub(crate) fn truncate(&mut self, records: usize) {
        self.records.truncate(records);
        self.frames.retain(|&index| (index as usize) < records);
        let last = self
            .frames
            .last()
            .map(|&index| self.records[index as usize]);
        let pieces = last.map_or(0, |frame| frame.first + frame.pieces);
        self.pieces.truncate(pieces as usize);
    }

    /// Finds the frame that holds piece `ordinal`; `None` if the pack has no such piece (yet).
    pub fn frame_of(&self, ordinal: u32) -> Option<FrameEntry> {
        let piece = self.pieces.get(ordinal as usize)?;
        let after = self
            .frames
            .partition_point(|&index| self.records[index as usize].first <= ordinal);
        let record = self.records[self.frames[after.checked_sub(1)?] as usize];
        let before = &self.pieces[record.first as usize..ordinal as usize];
        Some(FrameEntry {
            record,
            piece_offset: before.iter().map(|p| p.length_bytes).sum(),
            piece_bytes: piece.length_bytes,
        })
    }

    /// Reads a trailer's payload.
    pub(super) fn decode(payload: &[u8]) -> Result<PackList, Flaw> {
        let Parts { records, pieces } = Parts::of(payload)?;
        let mut list = PackList::default();
        list.records
            .reserve_exact(records.len() / RECORD_ENTRY_BYTES);
        list.pieces.reserve_exact(pieces.len() / PIECE_ENTRY_BYTES);
        let mut pieces = PieceEntry::decode_all(pieces);
        let mut of_frame = Vec::new();
        for entry in records.chunks_exact(RECORD_ENTRY_BYTES) {
            let record = RecordEntry {
                offset: u64_at(entry, 0),
                length_bytes: u32_at(entry, 8),
                plain_bytes: u32_at(entry, 12),
                first: u32_at(entry, 16),
                pieces: u32_at(entry, 20),
                kind: match entry[24] {
                    1 => Kind::Frame,
                    2 => Kind::ManifestPart,
                    3 => Kind::Version,
                    _ => return Err("the trailer lists a record of an unknown kind"),
                },
            };
            of_frame.clear();
            of_frame.extend(pieces.by_ref().take(record.pieces as usize));
            list.push(record, &of_frame)?;
        }
        if pieces.len() != 0 {
            return Err("the trailer lists pieces of no frame");
        }
        Ok(list)
    }
}

/// The two lists in a trailer's payload.
struct Parts<'a> {
    records: &'a [u8],
    pieces: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(payload: &'a [u8]) -> Result<Parts<'a>, Flaw> {
        const CUT: Flaw = "the trailer ends early";
        let take = |from: usize, count: usize, each: usize| {
            let end = count.checked_mul(each).and_then(|n| n.checked_add(from))?;
            Some((payload.get(from..end)?, end))
        };
        let (count, at) = take(0, 1, 4).ok_or(CUT)?;
        let (records, at) = take(at, u32_at(count, 0) as usize, RECORD_ENTRY_BYTES).ok_or(CUT)?;
        let (count, at) = take(at, 1, 4).ok_or(CUT)?;
        let (pieces, at) = take(at, u32_at(count, 0) as usize, PIECE_ENTRY_BYTES).ok_or(CUT)?;
        if at != payload.len() {
            return Err("the trailer is longer than its lists");
        }
        Ok(Parts { records, pieces })
    }
}

/// The pieces of a pack and nothing else of its list: read without a second copy of a trailer.
#[derive(Debug)]
pub struct PackPieces(Source);

#[derive(Debug)]
enum Source {
    /// A trailer's payload.
    Trailer(Vec<u8>),
    List(PackList),
}

impl PackPieces {
    /// Takes over a trailer's payload.
    pub(super) fn of_trailer(payload: Vec<u8>) -> Result<PackPieces, Flaw> {
        Parts::of(&payload)?;
        Ok(PackPieces(Source::Trailer(payload)))
    }

    /// Those of a list.
    pub fn of_list(list: PackList) -> PackPieces {
        PackPieces(Source::List(list))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        match &self.0 {
            Source::Trailer(_) => self.entries().len() / PIECE_ENTRY_BYTES,
            Source::List(list) => list.pieces.len(),
        }
    }

    /// The digest of piece `ordinal`, if the pack has it.
    pub fn digest(&self, ordinal: usize) -> Option<PieceId> {
        match &self.0 {
            Source::Trailer(_) => {
                let entry = self
                    .entries()
                    .chunks_exact(PIECE_ENTRY_BYTES)
                    .nth(ordinal)?;
                PieceEntry::decode_all(entry).next().map(|piece| piece.id)
            }
            Source::List(list) => list.pieces.get(ordinal).map(|piece| piece.id),
        }
    }

    fn entries(&self) -> &[u8] {
        let Source::Trailer(payload) = &self.0 else {
            return &[];
        };
        Parts::of(payload).map_or(&[], |parts| parts.pieces)
    }
}

/// Writes a trailer's payload.
pub(crate) fn encode_trailer(list: &PackList) -> Vec<u8> {
    let length =
        8 + list.records.len() * RECORD_ENTRY_BYTES + list.pieces.len() * PIECE_ENTRY_BYTES;
    debug_assert!(length <= MAX_TRAILER_BYTES);
    let mut out = Vec::with_capacity(length);
    out.extend_from_slice(&(list.records.len() as u32).to_le_bytes());
    for record in &list.records {
        out.extend_from_slice(&record.offset.to_le_bytes());
        for word in [
            record.length_bytes,
            record.plain_bytes,
            record.first,
            record.pieces,
        ] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        let kind = match record.kind {
            Kind::Frame => 1,
            Kind::ManifestPart => 2,
            Kind::Version => 3,
            Kind::Trailer => 4,
        };
        out.extend_from_slice(&[kind, 0, 0, 0]);
    }
    out.extend_from_slice(&(list.pieces.len() as u32).to_le_bytes());
    let mut entry = [0; PIECE_ENTRY_BYTES];
    for piece in &list.pieces {
        piece.encode(&mut entry);
        out.extend_from_slice(&entry);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::super::id::PieceId;
    use super::*;
    use proptest::prelude::*;

    fn piece(length_bytes: u32) -> PieceEntry {
        PieceEntry {
            id: PieceId::of(&length_bytes.to_le_bytes()),
            length_bytes,
        }
    }

    fn list(frames: &[Vec<u32>]) -> PackList {
        let mut list = PackList::default();
        let mut offset = PACK_HEADER_BYTES as u64;
        for lengths in frames {
            let pieces: Vec<_> = lengths.iter().map(|&n| piece(n)).collect();
            let record = RecordEntry {
                offset,
                length_bytes: 100,
                plain_bytes: lengths.iter().sum(),
                first: list.piece_count(),
                pieces: pieces.len() as u32,
                kind: Kind::Frame,
            };
            list.push(record, &pieces).unwrap();
            let version = RecordEntry {
                offset: offset + 100,
                plain_bytes: 1,
                first: 0,
                pieces: 0,
                kind: Kind::Version,
                ..record
            };
            list.push(version, &[]).unwrap();
            offset += 200;
        }
        list
    }

    proptest! {
        #[test]
        fn trailer_reads_back_and_every_piece_is_found(
            frames in prop::collection::vec(prop::collection::vec(1u32..1000, 1..20), 0..20)
        ) {
            let list = list(&frames);
            let back = PackList::decode(&encode_trailer(&list)).unwrap();
            prop_assert_eq!(back.records(), list.records());
            prop_assert_eq!(back.pieces(), list.pieces());
            let mut ordinal = 0;
            for lengths in &frames {
                let mut offset = 0;
                for &length in lengths {
                    let found = back.frame_of(ordinal).unwrap();
                    prop_assert_eq!((found.piece_offset, found.piece_bytes), (offset, length));
                    prop_assert!(found.record.first <= ordinal);
                    offset += length;
                    ordinal += 1;
                }
            }
            prop_assert!(back.frame_of(ordinal).is_none());
        }

        #[test]
        fn random_trailers_are_refused_without_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..500)
        ) {
            let _ = PackList::decode(&bytes);
        }
    }

    #[test]
    fn lists_that_do_not_hold_together_are_refused() {
        let frame = RecordEntry {
            offset: 64,
            length_bytes: 100,
            plain_bytes: 10,
            first: 0,
            pieces: 1,
            kind: Kind::Frame,
        };
        let refused = [
            (RecordEntry { first: 1, ..frame }, vec![piece(10)]),
            (
                RecordEntry {
                    plain_bytes: 11,
                    ..frame
                },
                vec![piece(10)],
            ),
            (RecordEntry { pieces: 2, ..frame }, vec![piece(10)]),
            (RecordEntry { offset: 3, ..frame }, vec![piece(10)]),
            (
                RecordEntry {
                    length_bytes: 3,
                    ..frame
                },
                vec![piece(10)],
            ),
            (
                RecordEntry {
                    kind: Kind::Version,
                    ..frame
                },
                vec![piece(10)],
            ),
            (
                RecordEntry { pieces: 2, ..frame },
                vec![piece(10), piece(0)],
            ),
        ];
        for (record, pieces) in refused {
            let outcome = PackList::default().push(record, &pieces);
            assert!(outcome.is_err(), "{record:?}");
        }
    }
}
