//! The bytes of segment and record headers, documented in the module [`wal`](super). Pure: no disk here.

use super::HEADER_BYTES;

/// First bytes of every segment.
pub(super) const MAGIC: [u8; 8] = *b"FERRWAL\n";
/// Version of the format that is written, and the only one that is read.
pub(super) const VERSION: u32 = 1;
/// Bytes of a record before its payload.
pub(super) const RECORD_HEADER: u64 = 32;
/// Records begin at multiples of this, so a scan for record headers knows where to look.
pub(super) const ALIGN: u64 = 8;
/// The record is one of those that a segment begins with.
pub(super) const FLAG_HEAD: u8 = 1;
/// The record is the last of those; without it the segment counts as having no head at all.
pub(super) const FLAG_HEAD_END: u8 = 2;

/// LSNs and segment numbers stay below this, so that adding to them cannot overflow.
pub(super) const MAX_SERIAL: u64 = 1 << 62;

/// Rounds up to a multiple of `unit`, which is a power of two. The lengths here stay far below the top of the range.
pub(super) fn round_up(n: u64, unit: u64) -> u64 {
    (n + (unit - 1)) & !(unit - 1)
}

/// Bytes that a record with this much payload takes in the segment.
pub(super) fn record_bytes(payload: u64) -> u64 {
    round_up(RECORD_HEADER + payload, ALIGN)
}

/// What the first sector of a segment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) number: u64,
    pub(super) salt: u32,
    /// LSN of the segment's first record. Everything below it was synced before the segment came to be.
    pub(super) first_lsn: u64,
    /// CRC of the last record before the segment, 0 if there is none.
    pub(super) prev_crc: u32,
    /// Where the records of the previous segment end, 0 if there is none. Its bytes beyond that are not part of the log.
    pub(super) prev_end: u64,
}

/// Why the first sector of a file is not a segment header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadHeader {
    /// All zeros: a file that was prepared and never used.
    Blank,
    /// Intact, of another version.
    Version(u32),
    /// Anything else.
    Damaged(&'static str),
}

impl SegmentHeader {
    /// The header's sector and its CRC, which seeds the CRCs of the segment's records.
    pub(super) fn encode(&self) -> ([u8; HEADER_BYTES], u32) {
        let mut sector = [0; HEADER_BYTES];
        sector[0..8].copy_from_slice(&MAGIC);
        sector[8..12].copy_from_slice(&VERSION.to_le_bytes());
        sector[12..16].copy_from_slice(&self.salt.to_le_bytes());
        sector[16..24].copy_from_slice(&self.number.to_le_bytes());
        sector[24..32].copy_from_slice(&self.first_lsn.to_le_bytes());
        sector[32..40].copy_from_slice(&self.prev_end.to_le_bytes());
        sector[40..44].copy_from_slice(&self.prev_crc.to_le_bytes());
        let crc = crc32fast::hash(&sector[..HEADER_BYTES - 4]);
        sector[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        (sector, crc)
    }

    /// The header in this sector, and its CRC.
    pub(super) fn decode(sector: &[u8; HEADER_BYTES]) -> Result<(SegmentHeader, u32), BadHeader> {
        if sector.iter().all(|&byte| byte == 0) {
            return Err(BadHeader::Blank);
        }
        let crc = u32_at(sector, HEADER_BYTES - 4);
        if crc32fast::hash(&sector[..HEADER_BYTES - 4]) != crc {
            return Err(BadHeader::Damaged("header checksum does not match"));
        }
        if sector[0..8] != MAGIC {
            return Err(BadHeader::Damaged("not a segment"));
        }
        let version = u32_at(sector, 8);
        if version != VERSION {
            return Err(BadHeader::Version(version));
        }
        let header = SegmentHeader {
            salt: u32_at(sector, 12),
            number: u64_at(sector, 16),
            first_lsn: u64_at(sector, 24),
            prev_end: u64_at(sector, 32),
            prev_crc: u32_at(sector, 40),
        };
        if header.salt == 0 || !(1..MAX_SERIAL).contains(&header.first_lsn) {
            return Err(BadHeader::Damaged("salt or lsn out of range"));
        }
        Ok((header, crc))
    }
}

/// What a record says about itself, apart from its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) crc: u32,
    pub(super) payload_len: u32,
    pub(super) prev_crc: u32,
    pub(super) salt: u32,
    pub(super) lsn: u64,
    /// How many records, this one included, were not known to be synced when it was written.
    pub(super) unsynced: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
}

impl RecordHeader {
    /// Decodes without judging: the CRC has not been compared yet.
    pub(super) fn decode(bytes: &[u8; RECORD_HEADER as usize]) -> RecordHeader {
        RecordHeader {
            crc: u32_at(bytes, 0),
            payload_len: u32_at(bytes, 4),
            prev_crc: u32_at(bytes, 8),
            salt: u32_at(bytes, 12),
            lsn: u64_at(bytes, 16),
            unsynced: u32_at(bytes, 24),
            kind: bytes[28],
            flags: bytes[29],
        }
    }

    /// Bytes the record takes in the segment, if its length can be believed.
    pub(super) fn total_bytes(&self) -> u64 {
        record_bytes(u64::from(self.payload_len))
    }

    /// The greatest LSN known synced when the record was written.
    pub(super) fn synced_lsn(&self) -> u64 {
        self.lsn.saturating_sub(u64::from(self.unsynced))
    }
}

/// Appends one record to `buf` and gives its CRC. `header.crc` and `header.payload_len` are computed here.
pub(super) fn encode_record(
    buf: &mut Vec<u8>,
    seed: u32,
    header: &RecordHeader,
    payload: &[u8],
) -> u32 {
    let start = buf.len();
    let payload_len = u32::try_from(payload.len()).expect("append checked the payload's length");
    let mut bytes = [0; RECORD_HEADER as usize];
    bytes[4..8].copy_from_slice(&payload_len.to_le_bytes());
    bytes[8..12].copy_from_slice(&header.prev_crc.to_le_bytes());
    bytes[12..16].copy_from_slice(&header.salt.to_le_bytes());
    bytes[16..24].copy_from_slice(&header.lsn.to_le_bytes());
    bytes[24..28].copy_from_slice(&header.unsynced.to_le_bytes());
    bytes[28] = header.kind;
    bytes[29] = header.flags;
    buf.extend_from_slice(&bytes);
    buf.extend_from_slice(payload);
    let padding = record_bytes(payload.len() as u64) as usize - RECORD_HEADER as usize;
    buf.extend_from_slice(&[0; ALIGN as usize][..padding - payload.len()]);
    let crc = record_crc(seed, &buf[start..]);
    buf[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// CRC of a whole record (header, payload, padding): everything after the CRC field itself.
/// The padding is covered so that no flipped bit between two records goes unnoticed.
pub(super) fn record_crc(seed: u32, record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(&record[4..]);
    hasher.finalize()
}

/// The caller knows that the bytes are there: all offsets here are constants below a fixed size.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut le = [0; 4];
    le.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(le)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut le = [0; 8];
    le.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(le)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> RecordHeader {
        RecordHeader {
            crc: 0,
            payload_len: 0,
            prev_crc: 0x0102_0304,
            salt: 7,
            lsn: 42,
            unsynced: 2,
            kind: 9,
            flags: FLAG_HEAD,
        }
    }

    #[test]
    fn segment_header_has_the_documented_bytes() {
        let header = SegmentHeader {
            number: 3,
            salt: 5,
            first_lsn: 100,
            prev_crc: 0xaabb_ccdd,
            prev_end: 4096,
        };
        let (sector, crc) = header.encode();
        assert_eq!(&sector[0..8], b"FERRWAL\n");
        assert_eq!(sector[8..16], [1, 0, 0, 0, 5, 0, 0, 0]);
        assert_eq!(sector[16..24], [3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(sector[24..32], [100, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(sector[32..40], [0, 16, 0, 0, 0, 0, 0, 0]);
        assert_eq!(sector[40..44], [0xdd, 0xcc, 0xbb, 0xaa]);
        assert!(sector[44..508].iter().all(|&byte| byte == 0));
        assert_eq!(sector[508..512], crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&sector), Ok((header, crc)));
    }

    #[test]
    fn every_flipped_bit_of_a_segment_header_is_noticed() {
        let header = SegmentHeader {
            number: 1,
            salt: 1,
            first_lsn: 1,
            prev_crc: 0,
            prev_end: 0,
        };
        let (sector, _) = header.encode();
        for bit in 0..HEADER_BYTES * 8 {
            let mut damaged = sector;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(
                matches!(SegmentHeader::decode(&damaged), Err(BadHeader::Damaged(_))),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn headers_of_other_versions_and_blank_sectors_are_told_apart() {
        let mut sector = [0; HEADER_BYTES];
        assert_eq!(SegmentHeader::decode(&sector), Err(BadHeader::Blank));
        sector[0..8].copy_from_slice(&MAGIC);
        sector[8] = 2;
        let crc = crc32fast::hash(&sector[..HEADER_BYTES - 4]);
        sector[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&sector), Err(BadHeader::Version(2)));
    }

    #[test]
    fn record_has_the_documented_bytes() {
        let mut buf = Vec::new();
        let crc = encode_record(&mut buf, 11, &header(), b"hello");
        assert_eq!(buf.len(), 40);
        assert_eq!(buf[0..4], crc.to_le_bytes());
        assert_eq!(buf[4..8], [5, 0, 0, 0]);
        assert_eq!(buf[8..12], [4, 3, 2, 1]);
        assert_eq!(buf[12..16], [7, 0, 0, 0]);
        assert_eq!(buf[16..24], [42, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(buf[24..28], [2, 0, 0, 0]);
        assert_eq!(buf[28..32], [9, FLAG_HEAD, 0, 0]);
        assert_eq!(&buf[32..37], b"hello");
        assert_eq!(buf[37..40], [0, 0, 0]);
        assert_eq!(record_crc(11, &buf), crc);
        assert_ne!(record_crc(12, &buf), crc);
    }

    #[test]
    fn decode_gives_back_what_was_encoded() {
        for len in [0usize, 1, 7, 8, 9, 1000] {
            let mut buf = Vec::new();
            let crc = encode_record(&mut buf, 0, &header(), &vec![0xee; len]);
            assert_eq!(buf.len() as u64, record_bytes(len as u64));
            let mut bytes = [0; RECORD_HEADER as usize];
            bytes.copy_from_slice(&buf[..RECORD_HEADER as usize]);
            let decoded = RecordHeader::decode(&bytes);
            let expected = RecordHeader {
                crc,
                payload_len: len as u32,
                ..header()
            };
            assert_eq!(decoded, expected);
            assert_eq!(decoded.synced_lsn(), 40);
            assert_eq!(decoded.total_bytes(), buf.len() as u64);
        }
    }
}
