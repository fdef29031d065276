//! Packs: append-only files of records, and the lists of what is in them.
//!
//! ```text
//! pack    = header  record*  trailer record  footer      (sealed)
//!         | header  record*  anything                    (open, or left behind by a crash)
//!
//! header  (64 bytes)            trailer payload                  footer (last 32 bytes)
//!  0   8 magic "filedpak"        4  records                        0  8 magic "filedend"
//!  8  16 store number            28 for each record:               8  8 offset of the trailer
//! 24   8 pack number                8 offset of its header        16  4 length of the trailer record
//! 32   8 created, ns since 1970     4 length of the record        20  4 reserved, zero
//! 40  16 reserved, zero             4 length decoded              24  8 check of bytes 0..24
//! 56   8 check of bytes 0..56       4 ordinal of its first piece
//!                                   4 pieces
//!                                   1 kind, 3 zero
//!                                4  pieces
//!                                36 for each piece: digest 32, length 4
//! ```
//!
//! The rules that make a pack safe to read while it is written, and after any crash:
//!
//! * Bytes once written never change; a pack only grows until its footer is there, then not at all.
//! * A pack without a valid footer is read by walking its records; the walk ends at the first bytes
//!   that are no whole record. So the list of an open pack is a prefix of its final list.
//! * The writer holds an exclusive `flock` on the file. Who can take that lock may conclude that the
//!   writer is dead and seal the pack (`recover`). The kernel drops the lock with the process.

mod list;
mod reader;
mod writer;

use std::path::{Path, PathBuf};

pub use list::{FrameEntry, PackList, PackPieces, RecordEntry};
pub use reader::{PackReader, Seal};
pub use writer::{PackWriter, SealedPack};

pub(crate) use list::encode_trailer;

use super::id::{PackId, StoreId};
use super::record::{Flaw, check, u64_at};

/// Length of a pack's header in bytes.
pub const PACK_HEADER_BYTES: usize = 64;

/// Length of a sealed pack's footer in bytes.
pub const FOOTER_BYTES: usize = 32;

/// A pack is sealed when it holds this many pieces: what its list needs in memory is bounded.
pub const MAX_PACK_PIECES: usize = 32_768;

/// A pack is sealed when it holds this many records.
pub const MAX_PACK_RECORDS: usize = 32_768;

/// The longest trailer: full lists, and as much again as one frame may overshoot them.
pub const MAX_TRAILER_BYTES: usize = 8
    + (MAX_PACK_RECORDS + 16) * list::RECORD_ENTRY_BYTES
    + (MAX_PACK_PIECES + super::record::MAX_FRAME_PIECES) * super::record::PIECE_ENTRY_BYTES;

const MAGIC: &[u8; 8] = b"filedpak";

/// Name of the folder of packs in the store's folder.
pub const FOLDER_NAME: &str = "packs";

/// Path of a pack below the store's root. A thousand packs share a folder.
pub fn path(root: &Path, id: PackId) -> PathBuf {
    root.join(FOLDER_NAME)
        .join(format!("{:06}", id.0 / 1000))
        .join(format!("{id}.pack"))
}

fn encode_header(store: StoreId, id: PackId, created_ns: i64) -> [u8; PACK_HEADER_BYTES] {
    let mut out = [0; PACK_HEADER_BYTES];
    out[0..8].copy_from_slice(MAGIC);
    out[8..24].copy_from_slice(&store.0);
    out[24..32].copy_from_slice(&id.0.to_le_bytes());
    out[32..40].copy_from_slice(&created_ns.to_le_bytes());
    let own = check(&out[..56]);
    out[56..64].copy_from_slice(&own.to_le_bytes());
    out
}

fn check_header(bytes: &[u8; PACK_HEADER_BYTES], store: StoreId, id: PackId) -> Result<(), Flaw> {
    if &bytes[0..8] != MAGIC {
        return Err("this is not a pack");
    }
    if u64_at(bytes, 56) != check(&bytes[..56]) {
        return Err("the checksum of the pack's header does not match");
    }
    if bytes[8..24] != store.0 {
        return Err("the pack belongs to another store");
    }
    if u64_at(bytes, 24) != id.0 {
        return Err("the pack has another pack's name");
    }
    Ok(())
}
