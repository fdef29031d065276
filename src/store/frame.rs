//! Reading frames: stored bytes to plain ones. Whoever uses a piece proves it by its digest.

use super::coding::Decoder;
use super::error::StoreError;
use super::pack::{PackReader, RecordEntry};
use super::record::{Flaw, Kind};

/// Reads frames one after the other, keeping a decompression context.
#[derive(Default)]
pub struct FrameReader {
    decoder: Decoder,
}

impl FrameReader {
    /// Reads the frame `record` of `pack` through `room` (at least the record's length) into the
    /// first `record.plain_bytes` bytes of `plain`. Checksums are checked, digests are not.
    pub fn read(
        &mut self,
        pack: &PackReader,
        record: &RecordEntry,
        room: &mut [u8],
        plain: &mut [u8],
    ) -> Result<(), StoreError> {
        let damaged = |what: Flaw| StoreError::Damaged {
            path: pack.path().to_owned(),
            offset: record.offset,
            what,
        };
        let (header, stored) = pack.record(record.offset, record.length_bytes, room)?;
        if header.kind != Kind::Frame
            || header.plain_bytes != record.plain_bytes
            || header.first != record.first
            || header.pieces != record.pieces
        {
            return Err(damaged("a frame is not as listed"));
        }
        let plain = &mut plain[..record.plain_bytes as usize];
        if !self.decoder.decode(header.coding, stored, plain) {
            return Err(damaged("a frame cannot be decompressed"));
        }
        Ok(())
    }
}
