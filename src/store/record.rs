//! Records: what packs are made of, byte by byte.
//!
//! A record is a header of 64 bytes, a table and a payload. The header carries a checksum of each of
//! the three, so every byte of a pack is covered, and its own lengths are believed only after its own
//! checksum and [`Header::decode`]'s limits have passed. All numbers are little-endian.
//!
//! ```text
//! offset size field
//!      0    4 magic "frec"
//!      4    1 kind: 1 frame, 2 manifest part, 3 version, 4 trailer
//!      5    1 coding of the payload: 0 as it is, 1 zstd (one zstd frame)
//!      6    1 encryption: 0 none (others reserved)
//!      7    1 bases: number of base references at the start of the table (0; others reserved)
//!      8    4 table length
//!     12    4 payload length as stored
//!     16    4 payload length decoded
//!     20    4 pieces in the frame (kind 1, else 0)
//!     24    4 ordinal of its first piece in the pack (kind 1, else 0)
//!     28   12 reserved for encryption, zero
//!     40    8 check of the table
//!     48    8 check of the payload as stored
//!     56    8 check of bytes 0..56
//!     64      table: bases (16 bytes each: pack u64, first ordinal u32, count u32), then one entry
//!             for each piece (36 bytes: digest 32, length u32)
//!      ..     payload
//! ```
//!
//! A *check* is the first eight bytes of the BLAKE3 digest.

use super::id::PieceId;

/// Length of a record's header in bytes.
pub const HEADER_BYTES: usize = 64;

/// Length of one piece's entry in a frame's table, in bytes.
pub const PIECE_ENTRY_BYTES: usize = 36;

/// The most plain bytes in a payload: a chunk of 1 MiB and a piece of the default greatest size that
/// reaches into it, so that what is new in one chunk goes into one frame.
pub const MAX_PLAIN_BYTES: usize = (1 << 20) + (256 << 10);

/// The most pieces in a frame. Files of a few bytes are pieces too, and each needs an entry.
pub const MAX_FRAME_PIECES: usize = 1024;

/// The longest table.
pub const MAX_TABLE_BYTES: usize = MAX_FRAME_PIECES * PIECE_ENTRY_BYTES + 255 * 16;

/// The longest record whose payload was not a trailer.
pub const MAX_RECORD_BYTES: usize = HEADER_BYTES + MAX_TABLE_BYTES + MAX_PLAIN_BYTES;

const MAGIC: &[u8; 4] = b"frec";

/// What a record holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// New pieces, compressed together.
    Frame,
    /// A part of a file's list of runs.
    ManifestPart,
    /// A version of a file: its metadata, its digest and where its runs are.
    Version,
    /// The list of a sealed pack's records and pieces.
    Trailer,
}

/// How a payload is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coding {
    /// The plain bytes.
    Plain,
    /// One zstd frame.
    Zstd,
}

/// A record's header without magic and its own check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// What the record holds.
    pub kind: Kind,
    /// How its payload is stored.
    pub coding: Coding,
    /// Length of the table in bytes.
    pub table_bytes: u32,
    /// Length of the payload as stored, in bytes.
    pub stored_bytes: u32,
    /// Length of the payload decoded, in bytes.
    pub plain_bytes: u32,
    /// Pieces in a frame; 0 otherwise.
    pub pieces: u32,
    /// Ordinal of a frame's first piece in its pack; 0 otherwise.
    pub first: u32,
    /// Check of the table.
    pub table_check: u64,
    /// Check of the payload as stored.
    pub payload_check: u64,
}

/// Why bytes are not a record's header.
pub type Flaw = &'static str;

impl Header {
    /// Length of the whole record in bytes.
    pub fn record_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.table_bytes) + u64::from(self.stored_bytes)
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0..4].copy_from_slice(MAGIC);
        out[4] = match self.kind {
            Kind::Frame => 1,
            Kind::ManifestPart => 2,
            Kind::Version => 3,
            Kind::Trailer => 4,
        };
        out[5] = match self.coding {
            Coding::Plain => 0,
            Coding::Zstd => 1,
        };
        out[8..12].copy_from_slice(&self.table_bytes.to_le_bytes());
        out[12..16].copy_from_slice(&self.stored_bytes.to_le_bytes());
        out[16..20].copy_from_slice(&self.plain_bytes.to_le_bytes());
        out[20..24].copy_from_slice(&self.pieces.to_le_bytes());
        out[24..28].copy_from_slice(&self.first.to_le_bytes());
        out[40..48].copy_from_slice(&self.table_check.to_le_bytes());
        out[48..56].copy_from_slice(&self.payload_check.to_le_bytes());
        let own = check(&out[..56]);
        out[56..64].copy_from_slice(&own.to_le_bytes());
        out
    }

    /// Reads a header and holds its lengths against the limits of its kind.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header, Flaw> {
        if &bytes[0..4] != MAGIC {
            return Err("no record begins here");
        }
        if u64_at(bytes, 56) != check(&bytes[..56]) {
            return Err("the checksum of a record's header does not match");
        }
        let header = Header {
            kind: match bytes[4] {
                1 => Kind::Frame,
                2 => Kind::ManifestPart,
                3 => Kind::Version,
                4 => Kind::Trailer,
                _ => return Err("a record is of an unknown kind"),
            },
            coding: match bytes[5] {
                0 => Coding::Plain,
                1 => Coding::Zstd,
                _ => return Err("a record is coded in an unknown way"),
            },
            table_bytes: u32_at(bytes, 8),
            stored_bytes: u32_at(bytes, 12),
            plain_bytes: u32_at(bytes, 16),
            pieces: u32_at(bytes, 20),
            first: u32_at(bytes, 24),
            table_check: u64_at(bytes, 40),
            payload_check: u64_at(bytes, 48),
        };
        if bytes[6] != 0 {
            return Err("a record is encrypted");
        }
        if bytes[7] != 0 {
            return Err("a frame needs a base");
        }
        let payload_limit = match header.kind {
            Kind::Trailer => super::pack::MAX_TRAILER_BYTES,
            _ => MAX_PLAIN_BYTES,
        };
        let table_expected = match header.kind {
            Kind::Frame => header.pieces as usize * PIECE_ENTRY_BYTES,
            _ => 0,
        };
        if header.table_bytes as usize > MAX_TABLE_BYTES
            || header.table_bytes as usize != table_expected
            || header.plain_bytes as usize > payload_limit
            || header.stored_bytes as usize > payload_limit
        {
            return Err("a record's lengths are impossible");
        }
        if header.coding == Coding::Plain && header.plain_bytes != header.stored_bytes {
            return Err("a record's lengths contradict each other");
        }
        Ok(header)
    }
}

/// A piece as the tables list it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PieceEntry {
    /// Digest of its plain bytes.
    pub id: PieceId,
    /// Length of its plain bytes.
    pub length_bytes: u32,
}

impl PieceEntry {
    /// Writes the entry into the first [`PIECE_ENTRY_BYTES`] of `out`.
    pub fn encode(&self, out: &mut [u8]) {
        out[..32].copy_from_slice(&self.id.0);
        out[32..36].copy_from_slice(&self.length_bytes.to_le_bytes());
    }

    /// Reads a table of entries; `bytes` must be a whole number of them.
    pub fn decode_all(bytes: &[u8]) -> impl ExactSizeIterator<Item = PieceEntry> + '_ {
        bytes.chunks_exact(PIECE_ENTRY_BYTES).map(|entry| {
            let mut id = [0; 32];
            id.copy_from_slice(&entry[..32]);
            PieceEntry {
                id: PieceId(id),
                length_bytes: u32_at(entry, 32),
            }
        })
    }
}

/// The first eight bytes of the BLAKE3 digest of `bytes`, as a number.
pub fn check(bytes: &[u8]) -> u64 {
    u64_at(blake3::hash(bytes).as_bytes(), 0)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header {
            kind: Kind::Frame,
            coding: Coding::Zstd,
            table_bytes: 3 * PIECE_ENTRY_BYTES as u32,
            stored_bytes: 1000,
            plain_bytes: 5000,
            pieces: 3,
            first: 17,
            table_check: 1,
            payload_check: 2,
        }
    }

    #[test]
    fn header_reads_back() {
        assert_eq!(Header::decode(&header().encode()), Ok(header()));
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_noticed() {
        let bytes = header().encode();
        for bit in 0..HEADER_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn lengths_over_the_limits_are_not_believed() {
        let too_long = [
            Header {
                plain_bytes: MAX_PLAIN_BYTES as u32 + 1,
                ..header()
            },
            Header {
                stored_bytes: u32::MAX,
                ..header()
            },
            Header {
                pieces: u32::MAX,
                ..header()
            },
            Header {
                table_bytes: u32::MAX,
                ..header()
            },
            Header {
                coding: Coding::Plain,
                ..header()
            },
        ];
        for header in too_long {
            assert!(Header::decode(&header.encode()).is_err(), "{header:?}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_are_never_a_header(bytes in prop::collection::vec(any::<u8>(), 64)) {
            let bytes: [u8; 64] = bytes.try_into().unwrap();
            prop_assert!(Header::decode(&bytes).is_err());
        }
    }
}
