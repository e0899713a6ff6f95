//! Reading single records back while the log is being written.

use std::sync::Arc;

use bytes::Bytes;

use super::error::{Error, io_error};
use super::format::{RECORD_HEADER, RecordHeader, record_crc};
use super::segment::{Segment, Segments};
use super::{HEADER_BYTES, MAX_PAYLOAD_BYTES, PAGE_BYTES, Position};

/// Reads records by position, from any thread. Sees what was appended, synced or not.
#[derive(Debug, Clone)]
pub struct WalReader {
    segments: Arc<Segments>,
}

impl WalReader {
    pub(super) fn new(segments: Arc<Segments>) -> WalReader {
        WalReader { segments }
    }

    /// The kind and payload of the record that begins at `position`, as [`Wal::append`](super::Wal::append) gave it.
    ///
    /// # Errors
    /// [`Error::Released`] if the segment is gone, [`Error::Corrupt`] if there is no intact record at the position.
    pub fn read(&self, position: Position) -> Result<(u8, Bytes), Error> {
        let released = Error::Released {
            segment: position.segment,
        };
        let Some(segment) = self.segments.read().get(&position.segment).cloned() else {
            return Err(released);
        };
        let result = read_record(&segment, position.offset);
        // A segment that was released meanwhile may be in use again under another number.
        if result.is_err() && !self.segments.read().contains_key(&position.segment) {
            return Err(released);
        }
        result
    }
}

fn read_record(segment: &Segment, offset: u64) -> Result<(u8, Bytes), Error> {
    let corrupt = |why: String| Error::Corrupt {
        segment: segment.number,
        offset,
        why,
    };
    let read_error = |source| io_error("read", &segment.path)(source);
    let left = segment.len.saturating_sub(offset);
    if offset < HEADER_BYTES as u64 || left < RECORD_HEADER {
        return Err(corrupt("no record can begin here".into()));
    }
    // Most records are small: one read gets them whole.
    let mut record = vec![0; left.min(PAGE_BYTES) as usize];
    segment
        .file
        .read_at(&mut record, offset)
        .map_err(read_error)?;
    let header = RecordHeader::decode(
        record
            .first_chunk()
            .expect("at least a header's length was read"),
    );
    if header.salt != segment.salt {
        return Err(corrupt("not a record of this segment".into()));
    }
    let total = header.total_bytes();
    if u64::from(header.payload_len) > MAX_PAYLOAD_BYTES || total > left {
        return Err(corrupt(format!(
            "a payload of {} bytes does not fit",
            header.payload_len
        )));
    }
    let have = record.len();
    record.resize(total as usize, 0);
    if have < record.len() {
        segment
            .file
            .read_at(&mut record[have..], offset + have as u64)
            .map_err(read_error)?;
    }
    if record_crc(segment.seed, &record) != header.crc {
        return Err(corrupt("record checksum does not match".into()));
    }
    let end = RECORD_HEADER as usize + header.payload_len as usize;
    let payload = RECORD_HEADER as usize..end;
    // A small payload is copied, so that it does not keep the whole page alive.
    let payload = if total <= have as u64 {
        Bytes::copy_from_slice(&record[payload])
    } else {
        Bytes::from(record).slice(payload)
    };
    Ok((header.kind, payload))
}
