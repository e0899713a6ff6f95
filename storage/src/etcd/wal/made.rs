//! Logs of etcd's for tests, made from the description of the format.

use std::path::Path;
use std::sync::Arc;

use ferrite_disk::Disk;
use ferrite_disk::sim::SimDisk;

use super::{CRC, ENTRY};

/// Where they are.
pub(in crate::etcd) const DIR: &str = "/wal";

/// Makes segments from the description of the format, with a bit-by-bit checksum.
#[derive(Default)]
pub(in crate::etcd) struct Maker {
    pub(super) segments: Vec<(u64, Vec<u8>)>,
    pub(super) crc: u32,
}

impl Maker {
    pub(in crate::etcd) fn segment(&mut self, first: u64) {
        self.segments.push((first, Vec::new()));
        let crc = self.crc;
        self.frame(CRC, crc, b"");
        if first == 0 {
            self.record(1, b"\x08\x01\x10\x02");
        }
    }

    pub(in crate::etcd) fn record(&mut self, kind: i64, data: &[u8]) {
        let mut crc = !self.crc;
        for byte in data {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 {
                    crc >> 1 ^ 0x82f6_3b78
                } else {
                    crc >> 1
                };
            }
        }
        self.crc = !crc;
        self.frame(kind, !crc, data);
    }

    pub(in crate::etcd) fn entry(&mut self, index: u64, term: u64, data: &[u8]) {
        let mut entry = vec![0x08, 0x00, 0x10];
        prost::encoding::encode_varint(term, &mut entry);
        entry.push(0x18);
        prost::encoding::encode_varint(index, &mut entry);
        entry.push(0x22);
        prost::encoding::encode_varint(data.len() as u64, &mut entry);
        entry.extend_from_slice(data);
        self.record(ENTRY, &entry);
    }

    fn frame(&mut self, kind: i64, crc: u32, data: &[u8]) {
        let mut record = vec![0x08, kind as u8, 0x10];
        prost::encoding::encode_varint(u64::from(crc), &mut record);
        record.push(0x1a);
        prost::encoding::encode_varint(data.len() as u64, &mut record);
        record.extend_from_slice(data);
        let padding = (8 - record.len() % 8) % 8;
        let mut frame = record.len() as u64;
        if padding > 0 {
            frame |= (0x80 | padding as u64) << 56;
        }
        let (_, bytes) = self.segments.last_mut().unwrap();
        bytes.extend_from_slice(&frame.to_le_bytes());
        bytes.extend_from_slice(&record);
        bytes.resize(bytes.len() + padding, 0);
    }

    pub(in crate::etcd) fn disk(&self) -> Arc<dyn Disk> {
        let disk = SimDisk::new(1);
        disk.create_dir(Path::new(DIR)).unwrap();
        for (number, (first, bytes)) in self.segments.iter().enumerate() {
            let path = Path::new(DIR).join(format!("{number:016x}-{first:016x}.wal"));
            let file = disk.create(&path).unwrap();
            file.write_at(bytes, 0).unwrap();
        }
        // What etcd has beside them.
        disk.create(&Path::new(DIR).join("0.tmp")).unwrap();
        Arc::new(disk)
    }
}
