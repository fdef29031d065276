//! Reading packs: their list, and any of their records, sealed or not.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::super::error::{IoContext, StoreError};
use super::super::id::{PackId, StoreId};
use super::super::record::{
    Flaw, HEADER_BYTES, Header, Kind, MAX_RECORD_BYTES, PIECE_ENTRY_BYTES, PieceEntry, check,
};
use super::{
    FOOTER_BYTES, MAX_PACK_PIECES, MAX_TRAILER_BYTES, PACK_HEADER_BYTES, PackList, PackPieces,
    RecordEntry, check_header, writer::decode_footer,
};

/// An open pack file.
pub struct PackReader {
    path: PathBuf,
    file: File,
}

/// How the list of a pack was got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seal {
    /// From the trailer of a sealed pack.
    Sealed,
    /// By walking the records of a pack that is still written, or was left behind.
    Open {
        /// Bytes from the start that are whole records.
        whole_bytes: u64,
        /// Why the walk ended before the end of the file; `None` at its end.
        stopped: Option<Flaw>,
    },
}

impl PackReader {
    /// Opens a pack and checks its header.
    pub fn open(root: &Path, store: StoreId, id: PackId) -> Result<PackReader, StoreError> {
        let path = super::path(root, id);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Dangling {
                    path,
                    what: "the pack is missing".to_owned(),
                });
            }
            opened => opened.during("open pack", &path)?,
        };
        PackReader::from_file(path, file, store, id)
    }

    /// Takes an open file and checks its header.
    pub(crate) fn from_file(
        path: PathBuf,
        file: File,
        store: StoreId,
        id: PackId,
    ) -> Result<PackReader, StoreError> {
        let reader = PackReader { path, file };
        let mut header = [0; PACK_HEADER_BYTES];
        reader.read(&mut header, 0)?;
        check_header(&header, store, id).map_err(|flaw| reader.damaged(0, flaw))?;
        Ok(reader)
    }

    /// The pack's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives up the open file.
    pub(crate) fn into_file(self) -> File {
        self.file
    }

    /// Length of the file now, in bytes.
    pub fn length_bytes(&self) -> Result<u64, StoreError> {
        let metadata = self.file.metadata().during("look at pack", &self.path)?;
        Ok(metadata.len())
    }

    /// Reads the list of the pack from its trailer, or by walking its records where there is no
    /// trailer or a damaged one: the records carry all that the trailer says.
    pub fn list(&self) -> Result<(PackList, Seal), StoreError> {
        let length = self.length_bytes()?;
        match self.trailer(length) {
            Ok(Some(list)) => Ok((list, Seal::Sealed)),
            Err(error) if !error.is_damage() => Err(error),
            _ => self.walk(length),
        }
    }

    /// Reads a record's header and checks it.
    pub fn header(&self, offset: u64) -> Result<Header, StoreError> {
        let mut header = [0; HEADER_BYTES];
        self.read(&mut header, offset)?;
        Header::decode(&header).map_err(|flaw| self.damaged(offset, flaw))
    }

    /// Reads the whole record at `offset` into `room` (at least `length_bytes` long), checks header,
    /// table and payload, and gives the header and where in `room` the stored payload is.
    pub fn record<'room>(
        &self,
        offset: u64,
        length_bytes: u32,
        room: &'room mut [u8],
    ) -> Result<(Header, &'room [u8]), StoreError> {
        let length = length_bytes as usize;
        if !(HEADER_BYTES..=MAX_RECORD_BYTES).contains(&length) {
            return Err(self.damaged(offset, "a record's length is impossible"));
        }
        let record = &mut room[..length];
        self.read(record, offset)?;
        let (head, rest) = record.split_at(HEADER_BYTES);
        let mut bytes = [0; HEADER_BYTES];
        bytes.copy_from_slice(head);
        let header = Header::decode(&bytes).map_err(|flaw| self.damaged(offset, flaw))?;
        if header.record_bytes() != u64::from(length_bytes) {
            return Err(self.damaged(offset, "a record is not as long as listed"));
        }
        let (table, payload) = rest.split_at(header.table_bytes as usize);
        if check(table) != header.table_check {
            return Err(self.damaged(offset, "the checksum of a record's table does not match"));
        }
        if check(payload) != header.payload_check {
            return Err(self.damaged(offset, "the checksum of a record does not match"));
        }
        Ok((header, payload))
    }

    /// Replaces `table` by the table of the record at `offset`; the inner error says why it is not
    /// what was written.
    pub(crate) fn table(
        &self,
        offset: u64,
        header: &Header,
        table: &mut Vec<u8>,
    ) -> Result<Result<(), Flaw>, StoreError> {
        // Header::decode has bounded the length.
        table.resize(header.table_bytes as usize, 0);
        self.read(table, offset + HEADER_BYTES as u64)?;
        if check(table) != header.table_check {
            return Ok(Err("the checksum of a record's table does not match"));
        }
        Ok(Ok(()))
    }

    /// Reads only which pieces the pack has, as [`list`](Self::list) does.
    pub fn pieces(&self) -> Result<PackPieces, StoreError> {
        let length = self.length_bytes()?;
        match self.trailer_payload(length) {
            Ok(Some((offset, payload))) => {
                if let Ok(pieces) = PackPieces::of_trailer(payload) {
                    return Ok(pieces);
                }
                tracing::debug!(offset, "a trailer is not what it should be");
            }
            Err(error) if !error.is_damage() => return Err(error),
            _ => {}
        }
        let (list, _) = self.walk(length)?;
        Ok(PackPieces::of_list(list))
    }

    /// The list in the trailer; `None` if the pack has no valid footer.
    pub(crate) fn trailer(&self, length: u64) -> Result<Option<PackList>, StoreError> {
        let Some((offset, payload)) = self.trailer_payload(length)? else {
            return Ok(None);
        };
        let list = PackList::decode(&payload).map_err(|flaw| self.damaged(offset, flaw))?;
        if list
            .records()
            .iter()
            .any(|r| r.offset + u64::from(r.length_bytes) > offset)
        {
            return Err(self.damaged(offset, "the trailer lists a record beyond itself"));
        }
        Ok(Some(list))
    }

    /// Where the trailer is and what is in it; `None` if the pack has no valid footer.
    fn trailer_payload(&self, length: u64) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        if length < (PACK_HEADER_BYTES + HEADER_BYTES + FOOTER_BYTES) as u64 {
            return Ok(None);
        }
        let mut footer = [0; FOOTER_BYTES];
        self.read(&mut footer, length - FOOTER_BYTES as u64)?;
        let Some((offset, record_bytes)) = decode_footer(&footer) else {
            return Ok(None);
        };
        let expected = offset.checked_add(u64::from(record_bytes) + FOOTER_BYTES as u64);
        if expected != Some(length) || record_bytes as usize > HEADER_BYTES + MAX_TRAILER_BYTES {
            return Err(self.damaged(length, "the footer does not fit the pack"));
        }
        let header = self.header(offset)?;
        if header.kind != Kind::Trailer || header.record_bytes() != u64::from(record_bytes) {
            return Err(self.damaged(offset, "the footer does not point at the trailer"));
        }
        let mut payload = vec![0; header.stored_bytes as usize];
        self.read(&mut payload, offset + HEADER_BYTES as u64)?;
        if check(&payload) != header.payload_check {
            return Err(self.damaged(offset, "the checksum of the trailer does not match"));
        }
        Ok(Some((offset, payload)))
    }

    /// Walks the records from the start, reading headers and tables only.
    pub(crate) fn walk(&self, length: u64) -> Result<(PackList, Seal), StoreError> {
        let mut list = PackList::default();
        let mut table = Vec::new();
        let mut pieces = Vec::new();
        let mut at = PACK_HEADER_BYTES as u64;
        let mut stopped = None;
        while at < length {
            match self.step(at, length, &mut table, &mut pieces)? {
                Ok(header) if header.kind == Kind::Trailer => break,
                Ok(header) => {
                    let entry = RecordEntry {
                        offset: at,
                        length_bytes: header.record_bytes() as u32,
                        plain_bytes: header.plain_bytes,
                        first: header.first,
                        pieces: header.pieces,
                        kind: header.kind,
                    };
                    if let Err(flaw) = list.push(entry, &pieces) {
                        stopped = Some(flaw);
                        break;
                    }
                    at += header.record_bytes();
                }
                Err(flaw) => {
                    stopped = Some(flaw);
                    break;
                }
            }
        }
        list.shrink();
        let seal = Seal::Open {
            whole_bytes: at,
            stopped,
        };
        Ok((list, seal))
    }

    /// Reads one record's header and table; the inner error says why none is there.
    fn step(
        &self,
        at: u64,
        length: u64,
        table: &mut Vec<u8>,
        pieces: &mut Vec<PieceEntry>,
    ) -> Result<Result<Header, Flaw>, StoreError> {
        const CUT: Flaw = "a record is cut off";
        if length - at < HEADER_BYTES as u64 {
            return Ok(Err(CUT));
        }
        let mut bytes = [0; HEADER_BYTES];
        self.read(&mut bytes, at)?;
        let header = match Header::decode(&bytes) {
            Ok(header) if header.record_bytes() > length - at => return Ok(Err(CUT)),
            Ok(header) => header,
            Err(flaw) => return Ok(Err(flaw)),
        };
        pieces.clear();
        if header.kind == Kind::Frame {
            if let Err(flaw) = self.table(at, &header, table)? {
                return Ok(Err(flaw));
            }
            debug_assert_eq!(table.len() % PIECE_ENTRY_BYTES, 0);
            pieces.extend(PieceEntry::decode_all(table));
            if header.first as usize > 2 * MAX_PACK_PIECES {
                return Ok(Err("a frame's first piece is impossible"));
            }
        }
        Ok(Ok(header))
    }

    fn read(&self, out: &mut [u8], offset: u64) -> Result<(), StoreError> {
        match self.file.read_exact_at(out, offset) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.damaged(offset, "the pack ends early"))
            }
            // The disk has lost it, or the file system sees itself that it is not what was written.
            Err(error) if error.raw_os_error().is_some_and(is_lost_by_disk) => {
                Err(self.damaged(offset, "the disk cannot read it"))
            }
            outcome => outcome.during("read pack", &self.path),
        }
    }

    fn damaged(&self, offset: u64, what: Flaw) -> StoreError {
        StoreError::Damaged {
            path: self.path.clone(),
            offset,
            what,
        }
    }
}

fn is_lost_by_disk(code: i32) -> bool {
    [Errno::IO, Errno::BADMSG, Errno::UCLEAN]
        .iter()
        .any(|errno| errno.raw_os_error() == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_disk_cannot_read_is_damage() {
        // Reading from where this process has no memory is the input/output error that is easy to have.
        let file = File::open("/proc/self/mem").unwrap();
        let path = PathBuf::from("pack");
        let outcome = PackReader::from_file(path, file, StoreId([0; 16]), PackId(1));
        let error = outcome.err().unwrap();
        assert!(error.is_damage(), "{error}");
        assert!(error.to_string().contains("the disk cannot read it"));
    }
}
