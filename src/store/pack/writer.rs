//! Appending to a pack. A pack has one writer, which owns it until it is sealed.
//!
//! Nothing here syncs: whoever acknowledges data syncs the file first (`commit`). A failed append
//! leaves the pack as long as it was, so that a full disk cannot leave half a record in front of
//! later ones.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::Advice;

use super::super::disk;
use super::super::error::{IoContext, StoreError};
use super::super::id::{PackId, RecordPlace, StoreId};
use super::super::record::{Coding, HEADER_BYTES, Header, Kind, PieceEntry, check};
use super::{
    FOOTER_BYTES, MAX_PACK_PIECES, MAX_PACK_RECORDS, PACK_HEADER_BYTES, PackList, RecordEntry,
    encode_header, encode_trailer,
};

/// The kernel is asked to write out and forget what was appended in steps of this length: what is
/// dirty counts against our group, cannot be taken back at once, and makes the sync at the end long.
const WRITE_OUT_BYTES: u64 = 4 << 20;

const FOOTER_MAGIC: &[u8; 8] = b"filedend";

/// An open pack and its writer's lock.
pub struct PackWriter {
    id: PackId,
    path: PathBuf,
    file: Arc<File>,
    length_bytes: u64,
    /// Up to here the kernel has been asked to write it out.
    written_out_bytes: u64,
    list: PackList,
}

/// A pack that is complete, though not yet synced.
#[derive(Debug)]
pub struct SealedPack {
    /// Length of the file in bytes.
    pub length_bytes: u64,
    /// Pieces in it.
    pub pieces: u32,
}

impl PackWriter {
    /// Creates the pack's file and locks it. `None` if the number is taken after all, or if another
    /// process took the file for abandoned before it was locked: try again with another number.
    pub(crate) fn create(
        root: &Path,
        store: StoreId,
        id: PackId,
        created_ns: i64,
    ) -> Result<Option<PackWriter>, StoreError> {
        let path = super::path(root, id);
        if let Some(folder) = path.parent() {
            disk::create_private_dir(folder)?;
        }
        let file = match disk::create_new_for_owner(root, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            created => created.during("create pack", &path)?,
        };
        if file.try_lock().is_err() || file.metadata().during("look at pack", &path)?.nlink() == 0 {
            return Ok(None);
        }
        file.write_all_at(&encode_header(store, id, created_ns), 0)
            .during("write pack", &path)?;
        Ok(Some(PackWriter {
            id,
            path,
            file: Arc::new(file),
            length_bytes: PACK_HEADER_BYTES as u64,
            written_out_bytes: 0,
            list: PackList::default(),
        }))
    }

    /// Goes on with a pack whose writer died: `list` and `length_bytes` say what of it is whole.
    pub(crate) fn adopt(
        id: PackId,
        path: PathBuf,
        file: File,
        length_bytes: u64,
        list: PackList,
    ) -> PackWriter {
        PackWriter {
            id,
            path,
            file: Arc::new(file),
            length_bytes,
            written_out_bytes: length_bytes,
            list,
        }
    }

    /// The pack's number.
    pub fn id(&self) -> PackId {
        self.id
    }

    /// The file, to be synced by whoever commits.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes written so far.
    pub fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    /// What has been written so far.
    pub fn list(&self) -> &PackList {
        &self.list
    }

    /// Whether the pack may take another frame of `pieces` pieces if it is to end near `target`.
    pub fn has_room(&self, pieces: usize, target_bytes: u64) -> bool {
        self.length_bytes < target_bytes
            && self.list.pieces().len() + pieces <= MAX_PACK_PIECES
            && self.list.records().len() < MAX_PACK_RECORDS
    }

    /// Appends a frame. `record` is a whole record whose first [`HEADER_BYTES`] bytes are free for
    /// the header, then the table of `pieces`, then the payload as stored.
    pub fn append_frame(
        &mut self,
        record: &mut [u8],
        coding: Coding,
        plain_bytes: u32,
        pieces: &[PieceEntry],
    ) -> Result<RecordPlace, StoreError> {
        let table_bytes = pieces.len() * super::super::record::PIECE_ENTRY_BYTES;
        let first = self.list.piece_count();
        self.append(
            record,
            Kind::Frame,
            coding,
            plain_bytes,
            table_bytes,
            first,
            pieces,
        )
    }

    /// Appends a record without pieces; `payload` is stored as it is.
    pub fn append_plain(&mut self, kind: Kind, payload: &[u8]) -> Result<RecordPlace, StoreError> {
        let mut record = vec![0; HEADER_BYTES + payload.len()];
        record[HEADER_BYTES..].copy_from_slice(payload);
        let plain_bytes = payload.len() as u32;
        self.append(&mut record, kind, Coding::Plain, plain_bytes, 0, 0, &[])
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the fields of one record's header"
    )]
    fn append(
        &mut self,
        record: &mut [u8],
        kind: Kind,
        coding: Coding,
        plain_bytes: u32,
        table_bytes: usize,
        first: u32,
        pieces: &[PieceEntry],
    ) -> Result<RecordPlace, StoreError> {
        let entry = RecordEntry {
            offset: self.length_bytes,
            length_bytes: record.len() as u32,
            plain_bytes,
            first,
            pieces: pieces.len() as u32,
            kind,
        };
        fill_header(
            record,
            kind,
            coding,
            plain_bytes,
            table_bytes,
            first,
            pieces.len(),
        );
        self.write(record)?;
        // The lists a reader would refuse must not come into being: a bug here would be damage.
        if let Err(flaw) = self.list.push(entry, pieces) {
            return Err(StoreError::Damaged {
                path: self.path.clone(),
                offset: entry.offset,
                what: flaw,
            });
        }
        Ok(RecordPlace {
            pack: self.id,
            offset: entry.offset,
            length_bytes: entry.length_bytes,
        })
    }

    /// Writes trailer and footer. The lock is held until the last handle of the file is dropped.
    pub fn seal(mut self) -> Result<(Arc<File>, SealedPack), StoreError> {
        let payload = encode_trailer(&self.list);
        let mut record = vec![0; HEADER_BYTES + payload.len() + FOOTER_BYTES];
        let trailer_end = HEADER_BYTES + payload.len();
        record[HEADER_BYTES..trailer_end].copy_from_slice(&payload);
        let plain_bytes = payload.len() as u32;
        fill_header(
            &mut record[..trailer_end],
            Kind::Trailer,
            Coding::Plain,
            plain_bytes,
            0,
            0,
            0,
        );
        let footer = &mut record[trailer_end..];
        footer[0..8].copy_from_slice(FOOTER_MAGIC);
        footer[8..16].copy_from_slice(&self.length_bytes.to_le_bytes());
        footer[16..20].copy_from_slice(&(trailer_end as u32).to_le_bytes());
        let own = check(&footer[..24]);
        footer[24..32].copy_from_slice(&own.to_le_bytes());
        self.write(&record)?;
        let sealed = SealedPack {
            length_bytes: self.length_bytes,
            pieces: self.list.piece_count(),
        };
        Ok((self.file, sealed))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if let Err(error) = self.file.write_all_at(bytes, self.length_bytes) {
            let _ = self.file.set_len(self.length_bytes);
            return Err(error).during("write pack", &self.path);
        }
        self.length_bytes += bytes.len() as u64;
        if self.length_bytes - self.written_out_bytes >= WRITE_OUT_BYTES {
            self.write_out();
        }
        Ok(())
    }

    /// Advice that what is new be written, and that what was written after the last one be forgotten.
    fn write_out(&mut self) {
        let start = self.written_out_bytes.saturating_sub(WRITE_OUT_BYTES);
        let length = NonZeroU64::new(self.length_bytes - start);
        let _ = rustix::fs::fadvise(&*self.file, start, length, Advice::DontNeed);
        self.written_out_bytes = self.length_bytes;
    }
}

fn fill_header(
    record: &mut [u8],
    kind: Kind,
    coding: Coding,
    plain_bytes: u32,
    table_bytes: usize,
    first: u32,
    pieces: usize,
) {
    let payload_at = HEADER_BYTES + table_bytes;
    let header = Header {
        kind,
        coding,
        table_bytes: table_bytes as u32,
        stored_bytes: (record.len() - payload_at) as u32,
        plain_bytes,
        pieces: pieces as u32,
        first,
        table_check: check(&record[HEADER_BYTES..payload_at]),
        payload_check: check(&record[payload_at..]),
    };
    record[..HEADER_BYTES].copy_from_slice(&header.encode());
}

/// Where the trailer of a sealed pack is: offset and length of its record, read from a footer.
pub(super) fn decode_footer(footer: &[u8; FOOTER_BYTES]) -> Option<(u64, u32)> {
    use super::super::record::{u32_at, u64_at};
    let valid = &footer[0..8] == FOOTER_MAGIC && u64_at(footer, 24) == check(&footer[..24]);
    valid.then(|| (u64_at(footer, 8), u32_at(footer, 16)))
}
