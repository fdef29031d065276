//! Manifests: which pieces and holes a version of a file is made of.
//!
//! ```text
//! runs    = run*
//! run     = varint 0, varint length               a hole of that many bytes
//!         | varint n > 0, varint pack, varint first   n pieces of a pack, from ordinal `first` on
//! ```
//!
//! Runs are written into *manifest part* records as the file is read, so the list of a terabyte file
//! is never in memory. The *version* record comes last. It holds the metadata, the digest of the
//! whole content, the places of the parts in order, and the runs that did not fill a part: a small
//! file needs no other record.
//!
//! ```text
//! version = name length u16, name, size u64, digest 32,
//!           flags u8 (1: metadata unknown, it came from a stream), mode u32, uid u32, gid u32,
//!           mtime ns i64, ctime ns i64, inode u64, device u64, read at ns i64,
//!           chunks u64, pieces u64, hole bytes u64, new pieces u64, new bytes u64,
//!           parts u32, (pack u64, offset u64, length u32) for each,
//!           runs length u32, runs
//! ```
//!
//! Numbers are little-endian; varints are LEB128. mtime and the other times count from 1970, UTC.

use super::id::{PackId, PiecePlace, RecordPlace};
use super::name::FileName;
use super::record::Flaw;

/// Runs are moved into a part of their own when they reach this many bytes.
pub const PART_BYTES: usize = 64 << 10;

/// One step of a file's content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Run {
    /// Consecutive pieces of one pack.
    Pieces {
        /// The first of them.
        start: PiecePlace,
        /// How many.
        count: u32,
    },
    /// Bytes that were never written: zeros that take no room.
    Hole {
        /// How many bytes.
        length_bytes: u64,
    },
}

/// What the file system said about a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Metadata {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of content, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Last change of content or metadata, nanoseconds since 1970.
    pub ctime_ns: i64,
    /// Inode number.
    pub inode: u64,
    /// Device number.
    pub device: u64,
}

/// How much a version is made of and how much of it was new.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Amounts {
    /// Chunks of 1 MiB read, holes included.
    pub chunks: u64,
    /// Pieces.
    pub pieces: u64,
    /// Bytes in holes.
    pub hole_bytes: u64,
    /// Pieces that were not in the store before.
    pub new_pieces: u64,
    /// Bytes of those pieces.
    pub new_bytes: u64,
}

/// A version of a file, as its record holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Version {
    /// The file's name.
    pub name: FileName,
    /// Length of the content in bytes.
    pub size_bytes: u64,
    /// BLAKE3 digest of the whole content.
    pub digest: [u8; 32],
    /// What the file system said; `None` if it came from a stream.
    pub metadata: Option<Metadata>,
    /// When reading began, nanoseconds since 1970.
    pub read_at_ns: i64,
    /// How much it is made of.
    pub amounts: Amounts,
    /// Places of its manifest parts, in order.
    pub parts: Vec<RecordPlace>,
    /// The runs after those of the parts.
    pub runs: Vec<u8>,
}

/// Collects runs, merging those that continue each other.
#[derive(Debug, Default)]
pub struct RunsWriter {
    encoded: Vec<u8>,
    last: Option<Run>,
}

impl RunsWriter {
    /// Adds a piece.
    pub fn piece(&mut self, place: PiecePlace) {
        if let Some(Run::Pieces { start, count }) = &mut self.last
            && start.pack == place.pack
            && start.ordinal.checked_add(*count) == Some(place.ordinal)
        {
            *count += 1;
            return;
        }
        self.flush_last();
        self.last = Some(Run::Pieces {
            start: place,
            count: 1,
        });
    }

    /// Adds a hole.
    pub fn hole(&mut self, bytes: u64) {
        match &mut self.last {
            _ if bytes == 0 => {}
            Some(Run::Hole { length_bytes }) => *length_bytes += bytes,
            _ => {
                self.flush_last();
                self.last = Some(Run::Hole {
                    length_bytes: bytes,
                });
            }
        }
    }

    /// The runs of a full part, if there are that many.
    pub fn take_part(&mut self) -> Option<Vec<u8>> {
        (self.encoded.len() >= PART_BYTES).then(|| std::mem::take(&mut self.encoded))
    }

    /// The runs that are left.
    pub fn finish(mut self) -> Vec<u8> {
        self.flush_last();
        self.encoded
    }

    fn flush_last(&mut self) {
        match self.last.take() {
            None => {}
            Some(Run::Hole { length_bytes }) => {
                put_varint(&mut self.encoded, 0);
                put_varint(&mut self.encoded, length_bytes);
            }
            Some(Run::Pieces { start, count }) => {
                put_varint(&mut self.encoded, u64::from(count));
                put_varint(&mut self.encoded, start.pack.0);
                put_varint(&mut self.encoded, u64::from(start.ordinal));
            }
        }
    }
}

/// Reads runs one after the other.
pub struct Runs<'a> {
    rest: &'a [u8],
}

impl<'a> Runs<'a> {
    /// Reads the runs in `encoded`.
    pub fn new(encoded: &'a [u8]) -> Runs<'a> {
        Runs { rest: encoded }
    }

    fn read(&mut self) -> Result<Run, Flaw> {
        const BAD: Flaw = "a manifest holds an impossible run";
        let run = match take_varint(&mut self.rest).ok_or(BAD)? {
            0 => Run::Hole {
                length_bytes: take_varint(&mut self.rest).filter(|&n| n > 0).ok_or(BAD)?,
            },
            count => {
                let count = u32::try_from(count).map_err(|_| BAD)?;
                let pack = PackId(take_varint(&mut self.rest).ok_or(BAD)?);
                let first = take_varint(&mut self.rest).ok_or(BAD)?;
                let ordinal = u32::try_from(first).map_err(|_| BAD)?;
                ordinal.checked_add(count).ok_or(BAD)?;
                Run::Pieces {
                    start: PiecePlace { pack, ordinal },
                    count,
                }
            }
        };
        Ok(run)
    }
}

impl Iterator for Runs<'_> {
    type Item = Result<Run, Flaw>;

    fn next(&mut self) -> Option<Result<Run, Flaw>> {
        if self.rest.is_empty() {
            return None;
        }
        let run = self.read();
        if run.is_err() {
            self.rest = &[];
        }
        Some(run)
    }
}

impl Version {
    /// The version record's payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(300 + self.runs.len() + 20 * self.parts.len());
        let name = self.name.as_bytes();
        let metadata = self.metadata.unwrap_or_default();
        // FileName holds at most 65,535 bytes.
        out.extend_from_slice(&(name.len() as u16).to_le_bytes());
        out.extend_from_slice(name);
        out.extend_from_slice(&self.size_bytes.to_le_bytes());
        out.extend_from_slice(&self.digest);
        out.push(u8::from(self.metadata.is_none()));
        for word in [metadata.mode, metadata.uid, metadata.gid] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&metadata.mtime_ns.to_le_bytes());
        out.extend_from_slice(&metadata.ctime_ns.to_le_bytes());
        out.extend_from_slice(&metadata.inode.to_le_bytes());
        out.extend_from_slice(&metadata.device.to_le_bytes());
        out.extend_from_slice(&self.read_at_ns.to_le_bytes());
        let amounts = &self.amounts;
        for word in [
            amounts.chunks,
            amounts.pieces,
            amounts.hole_bytes,
            amounts.new_pieces,
            amounts.new_bytes,
        ] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&(self.parts.len() as u32).to_le_bytes());
        for part in &self.parts {
            out.extend_from_slice(&part.pack.0.to_le_bytes());
            out.extend_from_slice(&part.offset.to_le_bytes());
            out.extend_from_slice(&part.length_bytes.to_le_bytes());
        }
        out.extend_from_slice(&(self.runs.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.runs);
        out
    }

    /// Reads a version record's payload.
    pub fn decode(payload: &[u8]) -> Result<Version, Flaw> {
        let mut input = Input(payload);
        let name_bytes = u16::from_le_bytes(input.array()?) as usize;
        let name = FileName::new(input.bytes(name_bytes)?)
            .map_err(|_| "a version has an impossible name")?;
        let size_bytes = u64::from_le_bytes(input.array()?);
        let digest = input.array()?;
        let from_stream = match input.array::<1>()? {
            [0] => false,
            [1] => true,
            _ => return Err("a version has unknown flags"),
        };
        let metadata = Metadata {
            mode: u32::from_le_bytes(input.array()?),
            uid: u32::from_le_bytes(input.array()?),
            gid: u32::from_le_bytes(input.array()?),
            mtime_ns: i64::from_le_bytes(input.array()?),
            ctime_ns: i64::from_le_bytes(input.array()?),
            inode: u64::from_le_bytes(input.array()?),
            device: u64::from_le_bytes(input.array()?),
        };
        let read_at_ns = i64::from_le_bytes(input.array()?);
        let amounts = Amounts {
            chunks: u64::from_le_bytes(input.array()?),
            pieces: u64::from_le_bytes(input.array()?),
            hole_bytes: u64::from_le_bytes(input.array()?),
            new_pieces: u64::from_le_bytes(input.array()?),
            new_bytes: u64::from_le_bytes(input.array()?),
        };
        let count = u32::from_le_bytes(input.array()?) as usize;
        if count > input.0.len() / 20 {
            return Err("a version lists more parts than it holds");
        }
        let mut parts = Vec::with_capacity(count);
        for _ in 0..count {
            parts.push(RecordPlace {
                pack: PackId(u64::from_le_bytes(input.array()?)),
                offset: u64::from_le_bytes(input.array()?),
                length_bytes: u32::from_le_bytes(input.array()?),
            });
        }
        let runs_bytes = u32::from_le_bytes(input.array()?) as usize;
        let runs = input.bytes(runs_bytes)?.to_vec();
        if !input.0.is_empty() {
            return Err("a version is longer than its fields");
        }
        Ok(Version {
            name,
            size_bytes,
            digest,
            metadata: (!from_stream).then_some(metadata),
            read_at_ns,
            amounts,
            parts,
            runs,
        })
    }
}

/// What is left of a payload being read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], Flaw> {
        let (head, rest) = self
            .0
            .split_at_checked(count)
            .ok_or("a version ends early")?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Flaw> {
        let mut out = [0; N];
        out.copy_from_slice(self.bytes(N)?);
        Ok(out)
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(pack: u64, ordinal: u32) -> PiecePlace {
        PiecePlace {
            pack: PackId(pack),
            ordinal,
        }
    }

    #[test]
    fn consecutive_pieces_and_holes_become_one_run_each() {
        let mut writer = RunsWriter::default();
        for ordinal in [5, 6, 7] {
            writer.piece(place(1, ordinal));
        }
        writer.hole(10);
        writer.hole(0);
        writer.hole(20);
        writer.piece(place(1, 8));
        writer.piece(place(2, 9));
        let encoded = writer.finish();
        let runs: Result<Vec<_>, _> = Runs::new(&encoded).collect();
        assert_eq!(
            runs.unwrap(),
            [
                Run::Pieces {
                    start: place(1, 5),
                    count: 3
                },
                Run::Hole { length_bytes: 30 },
                Run::Pieces {
                    start: place(1, 8),
                    count: 1
                },
                Run::Pieces {
                    start: place(2, 9),
                    count: 1
                },
            ]
        );
    }

    proptest! {
        #[test]
        fn pieces_and_holes_read_back(
            steps in prop::collection::vec((any::<bool>(), 0u64..3, 0u32..4, 1u64..), 0..200)
        ) {
            let mut writer = RunsWriter::default();
            let mut written = Vec::new();
            for &(hole, pack, ordinal, length) in &steps {
                let length = length >> 8;
                if hole {
                    writer.hole(length);
                    written.extend((length > 0).then_some((None, length)));
                } else {
                    writer.piece(place(pack, ordinal));
                    written.push((Some(place(pack, ordinal)), 1));
                }
            }
            written.dedup_by(|next, last| {
                let merge = next.0.is_none() && last.0.is_none();
                if merge { last.1 += next.1 }
                merge
            });
            let mut read = Vec::new();
            for run in Runs::new(&writer.finish()) {
                match run.unwrap() {
                    Run::Hole { length_bytes } => read.push((None, length_bytes)),
                    Run::Pieces { start, count } => read.extend((0..count).map(|n| {
                        (Some(place(start.pack.0, start.ordinal + n)), 1)
                    })),
                }
            }
            prop_assert_eq!(read, written);
        }

        #[test]
        fn random_runs_and_versions_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..400)
        ) {
            let _ = Runs::new(&bytes).count();
            let _ = Version::decode(&bytes);
        }
    }

    #[test]
    fn version_reads_back_and_no_cut_of_it_does() {
        let version = Version {
            name: FileName::new(b"/a/b".to_vec()).unwrap(),
            size_bytes: 7,
            digest: [3; 32],
            metadata: Some(Metadata {
                mode: 0o644,
                mtime_ns: -5,
                ..Metadata::default()
            }),
            read_at_ns: 9,
            amounts: Amounts {
                chunks: 1,
                pieces: 2,
                ..Amounts::default()
            },
            parts: vec![RecordPlace {
                pack: PackId(4),
                offset: 64,
                length_bytes: 99,
            }],
            runs: vec![1, 2, 3],
        };
        let payload = version.encode();
        assert_eq!(Version::decode(&payload), Ok(version));
        for end in 0..payload.len() {
            assert!(Version::decode(&payload[..end]).is_err(), "{end}");
        }
    }
}
