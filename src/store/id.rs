//! Names of the things a store keeps: pieces, packs, places in packs.
//!
//! A piece is named by what it contains, a pack by a number that is never used twice in one store.
//! A piece's place (pack, ordinal) is fixed the moment it is claimed and never changes while its
//! pack lives, so manifests and the index may hold places instead of digests.

use std::fmt;

/// BLAKE3 digest of a piece's plain bytes. 32 bytes in memory, 64 hex digits outside.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PieceId(pub [u8; 32]);

impl PieceId {
    /// The digest of `plain`.
    pub fn of(plain: &[u8]) -> PieceId {
        PieceId(*blake3::hash(plain).as_bytes())
    }

    /// The first eight bytes as the index keeps them: enough to find a piece, not to prove it.
    pub fn prefix(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Display for PieceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for PieceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

/// Writes `bytes` as lower-case hex digits.
pub(crate) fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Lower-case hex digits of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Number of a pack, unique in its store for ever.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PackId(pub u64);

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:09}", self.0)
    }
}

/// Where a piece is: the `ordinal`-th piece of a pack, counted from 0 over all of its frames.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PiecePlace {
    /// The pack that holds the piece.
    pub pack: PackId,
    /// The piece's number in that pack.
    pub ordinal: u32,
}

/// Where a record is: its bytes in a pack, header included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordPlace {
    /// The pack that holds the record.
    pub pack: PackId,
    /// Byte offset of the record's header in the pack file.
    pub offset: u64,
    /// Length of header, table and payload in bytes.
    pub length_bytes: u32,
}

/// Random number of a store, written into each of its packs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreId(pub [u8; 16]);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}
