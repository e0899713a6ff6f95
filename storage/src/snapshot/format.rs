//! The bytes of a snapshot stream. Numbers are little-endian.
//!
//! ```text
//! "FERRSNAP"  format version (u32)  frame ...
//! frame:  kind (u8)  length of the body (u32)  body
//! ```
//!
//! | Kind | Body |
//! |---|---|
//! | 1 header, once and first | [`Header`] |
//! | 2 small row | table (u8), length of the key (u32), key, value |
//! | 3 row, after all small ones, ascending | main (u64), sub (u32), 1 if a tombstone (u8), digest (u64), record |
//! | 4 end, once and last | rows (u64), small rows (u64), sum of the rows' digests (u64), CRC-32C of the stream before it |
//!
//! The digest of a row is what it adds to [`Meta::digest`](crate::page::Meta::digest): it covers
//! position and record, and the sender has it from the checksums that the row is stored with.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ferrite_api::types::Revision;
use prost::Message;

use crate::page::{ConfState, MAX_RECORD_BYTES, RowId, Table};

const MAGIC: [u8; 8] = *b"FERRSNAP";
const VERSION: u32 = 1;
const PREFACE_BYTES: usize = MAGIC.len() + 4;
/// Kind and length.
const FRAME_BYTES: usize = 5;

const HEADER: u8 = 1;
const SMALL_ROW: u8 = 2;
const ROW: u8 = 3;
const END: u8 = 4;

/// Bytes of the body of a row before its record, and of a small row before its key.
const ROW_BYTES: usize = 8 + 4 + 1 + 8;
const SMALL_ROW_BYTES: usize = 1 + 4;
const END_BYTES: usize = 3 * 8 + 4;
/// The longest bodies that are taken for possible.
const MAX_HEADER_BYTES: usize = 1 << 20;
const MAX_SMALL_ROW_BYTES: usize = 16 << 20;

/// What the state is as a whole.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Header {
    #[prost(uint64, tag = "1")]
    pub(super) cluster_id: u64,
    #[prost(uint64, tag = "2")]
    pub(super) index: u64,
    #[prost(uint64, tag = "3")]
    pub(super) term: u64,
    #[prost(int64, tag = "4")]
    pub(super) revision: i64,
    /// The last compaction; rows that it dooms are not in the stream. -1 for none.
    #[prost(int64, tag = "5")]
    pub(super) compacted: i64,
    #[prost(string, tag = "6")]
    pub(super) storage_version: String,
    #[prost(uint64, repeated, tag = "7")]
    pub(super) voters: Vec<u64>,
    #[prost(uint64, repeated, tag = "8")]
    pub(super) learners: Vec<u64>,
    #[prost(uint64, repeated, tag = "9")]
    pub(super) voters_outgoing: Vec<u64>,
    #[prost(uint64, repeated, tag = "10")]
    pub(super) learners_next: Vec<u64>,
    #[prost(bool, tag = "11")]
    pub(super) auto_leave: bool,
}

impl Header {
    pub(super) fn with_conf_state(self, conf_state: ConfState) -> Self {
        let ConfState {
            voters,
            learners,
            voters_outgoing,
            learners_next,
            auto_leave,
        } = conf_state;
        Self {
            voters,
            learners,
            voters_outgoing,
            learners_next,
            auto_leave,
            ..self
        }
    }

    pub(super) fn conf_state(&self) -> ConfState {
        ConfState {
            voters: self.voters.clone(),
            learners: self.learners.clone(),
            voters_outgoing: self.voters_outgoing.clone(),
            learners_next: self.learners_next.clone(),
            auto_leave: self.auto_leave,
        }
    }
}

/// What was sent in all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Totals {
    pub(super) rows: u64,
    pub(super) small_rows: u64,
    pub(super) digest: u64,
}

/// One element of the stream.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Frame {
    Header(Header),
    SmallRow {
        table: Table,
        key: Bytes,
        value: Bytes,
    },
    Row {
        id: RowId,
        digest: u64,
        record: Bytes,
    },
    End(Totals),
}

/// Makes a stream.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// The piece in the making.
    pub(super) piece: BytesMut,
    /// Of the pieces before it.
    crc: u32,
}

impl Writer {
    pub(super) fn header(&mut self, header: &Header) {
        self.piece.put_slice(&MAGIC);
        self.piece.put_u32_le(VERSION);
        self.begin(HEADER, header.encoded_len());
        self.piece.put_slice(&header.encode_to_vec());
    }

    pub(super) fn small_row(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.begin(SMALL_ROW, SMALL_ROW_BYTES + key.len() + value.len());
        self.piece.put_u8(number(table));
        self.piece.put_u32_le(length(key.len()));
        self.piece.put_slice(key);
        self.piece.put_slice(value);
    }

    pub(super) fn row(&mut self, id: RowId, digest: u64, record: &[u8]) {
        self.begin(ROW, ROW_BYTES + record.len());
        self.piece.put_i64_le(id.revision.main);
        let sub = u32::try_from(id.revision.sub).expect("a row that is stored has such a sub");
        self.piece.put_u32_le(sub);
        self.piece.put_u8(u8::from(id.tombstone));
        self.piece.put_u64_le(digest);
        self.piece.put_slice(record);
    }

    pub(super) fn end(&mut self, totals: &Totals) {
        self.begin(END, END_BYTES);
        for total in [totals.rows, totals.small_rows, totals.digest] {
            self.piece.put_u64_le(total);
        }
        let crc = crc32c::crc32c_append(self.crc, &self.piece);
        self.piece.put_u32_le(crc);
    }

    /// Ends the piece.
    pub(super) fn take(&mut self) -> Bytes {
        let piece = std::mem::take(&mut self.piece).freeze();
        self.crc = crc32c::crc32c_append(self.crc, &piece);
        piece
    }

    fn begin(&mut self, kind: u8, body: usize) {
        self.piece.put_u8(kind);
        self.piece.put_u32_le(length(body));
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("what is stored is bounded far below this")
}

/// Takes a stream apart, however it is cut into pieces. Knows the form of frames, not their order.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// What belongs to no complete frame yet.
    pending: BytesMut,
    /// Of the frames so far.
    crc: u32,
    prefaced: bool,
}

impl Reader {
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.pending.extend_from_slice(piece);
    }

    /// Bytes that wait for more.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The next frame, once it is there as a whole.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, String> {
        if !self.prefaced {
            let Some(preface) = self.pending.get(..PREFACE_BYTES) else {
                return Ok(None);
            };
            check_preface(preface)?;
            self.take(PREFACE_BYTES);
            self.prefaced = true;
        }
        let Some(mut head) = self.pending.get(..FRAME_BYTES) else {
            return Ok(None);
        };
        let (kind, len) = (head.get_u8(), head.get_u32_le() as usize);
        // Before anything is gathered for it.
        check_length(kind, len)?;
        if self.pending.len() < FRAME_BYTES + len {
            return Ok(None);
        }
        if kind == END {
            let before_crc = &self.pending[..FRAME_BYTES + len - 4];
            let computed = crc32c::crc32c_append(self.crc, before_crc);
            let mut stored = &self.pending[FRAME_BYTES + len - 4..];
            let stored = stored.get_u32_le();
            if stored != computed {
                return Err(format!(
                    "checksum {stored:08x} sent, {computed:08x} computed"
                ));
            }
        }
        let mut body = self.take(FRAME_BYTES + len);
        body.advance(FRAME_BYTES);
        parse(kind, body).map(Some)
    }

    fn take(&mut self, bytes: usize) -> Bytes {
        let taken = self.pending.split_to(bytes).freeze();
        self.crc = crc32c::crc32c_append(self.crc, &taken);
        taken
    }
}

fn check_preface(mut preface: &[u8]) -> Result<(), String> {
    if !preface.starts_with(&MAGIC) {
        return Err(format!("begins with {preface:02x?}"));
    }
    preface.advance(MAGIC.len());
    let version = preface.get_u32_le();
    if version != VERSION {
        return Err(format!("format {version}, this build reads {VERSION}"));
    }
    Ok(())
}

fn check_length(kind: u8, len: usize) -> Result<(), String> {
    let possible = match kind {
        HEADER => 0..=MAX_HEADER_BYTES,
        SMALL_ROW => SMALL_ROW_BYTES..=MAX_SMALL_ROW_BYTES,
        ROW => ROW_BYTES..=ROW_BYTES + MAX_RECORD_BYTES,
        END => END_BYTES..=END_BYTES,
        _ => return Err(format!("a frame of unknown kind {kind}")),
    };
    match possible.contains(&len) {
        true => Ok(()),
        false => Err(format!("a frame of kind {kind} and {len} bytes")),
    }
}

/// The frame in `body`, whose length was checked.
fn parse(kind: u8, mut body: Bytes) -> Result<Frame, String> {
    Ok(match kind {
        HEADER => {
            let header = Header::decode(body);
            Frame::Header(header.map_err(|error| format!("the header does not decode: {error}"))?)
        }
        SMALL_ROW => {
            let table = body.get_u8();
            let table = table_of(table).ok_or_else(|| format!("a row of unknown table {table}"))?;
            let key = body.get_u32_le() as usize;
            if key > body.len() {
                return Err(format!("a row of table {} ends in its key", table.name()));
            }
            Frame::SmallRow {
                table,
                key: body.split_to(key),
                value: body,
            }
        }
        ROW => {
            let (main, sub) = (body.get_i64_le(), i64::from(body.get_u32_le()));
            let revision = Revision::new(main, sub);
            let tombstone = match body.get_u8() {
                0 => false,
                1 => true,
                other => return Err(format!("row {revision} is of unknown kind {other}")),
            };
            Frame::Row {
                id: RowId {
                    revision,
                    tombstone,
                },
                digest: body.get_u64_le(),
                record: body,
            }
        }
        _ => Frame::End(Totals {
            rows: body.get_u64_le(),
            small_rows: body.get_u64_le(),
            digest: body.get_u64_le(),
        }),
    })
}

/// The number of a table in the stream.
fn number(table: Table) -> u8 {
    match table {
        Table::Members => 1,
        Table::MembersRemoved => 2,
        Table::Leases => 3,
        Table::Auth => 4,
        Table::AuthUsers => 5,
        Table::AuthRoles => 6,
        Table::Alarms => 7,
        Table::Cluster => 8,
    }
}

fn table_of(wanted: u8) -> Option<Table> {
    Table::ALL
        .into_iter()
        .find(|table| number(*table) == wanted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames() -> Vec<Frame> {
        let header = Header {
            cluster_id: u64::MAX,
            index: 17,
            term: 3,
            revision: 9,
            compacted: -1,
            storage_version: "3.7.0".to_owned(),
            ..Header::default()
        };
        let conf_state = ConfState {
            voters: vec![1, u64::MAX],
            learners: vec![2],
            voters_outgoing: vec![1],
            learners_next: vec![3],
            auto_leave: true,
        };
        let header = header.with_conf_state(conf_state.clone());
        assert_eq!(header.conf_state(), conf_state);
        let mut frames = vec![Frame::Header(header)];
        frames.extend(Table::ALL.map(|table| Frame::SmallRow {
            table,
            key: Bytes::from_static(b"key"),
            value: Bytes::from_static(b""),
        }));
        for (main, len) in [(2, 0), (3, 100_000)] {
            frames.push(Frame::Row {
                id: RowId {
                    revision: Revision::new(main, i64::from(u32::MAX)),
                    tombstone: len == 0,
                },
                digest: u64::MAX,
                record: Bytes::from(vec![b'r'; len]),
            });
        }
        frames.push(Frame::End(Totals {
            rows: 2,
            small_rows: 8,
            digest: 1,
        }));
        frames
    }

    fn written(frames: &[Frame]) -> Vec<u8> {
        let (mut writer, mut stream) = (Writer::default(), Vec::new());
        for frame in frames {
            match frame {
                Frame::Header(header) => writer.header(header),
                Frame::SmallRow { table, key, value } => writer.small_row(*table, key, value),
                Frame::Row { id, digest, record } => writer.row(*id, *digest, record),
                Frame::End(totals) => writer.end(totals),
            }
            stream.extend_from_slice(&writer.take());
        }
        stream
    }

    fn read(stream: &[u8], piece: usize) -> Result<Vec<Frame>, String> {
        let (mut reader, mut frames) = (Reader::default(), Vec::new());
        for piece in stream.chunks(piece) {
            reader.push(piece);
            while let Some(frame) = reader.next()? {
                frames.push(frame);
            }
        }
        assert_eq!(reader.pending(), 0);
        Ok(frames)
    }

    #[test]
    fn frames_survive_however_the_stream_is_cut() {
        let (frames, stream) = (frames(), written(&frames()));
        for piece in [1, 7, 4096, stream.len()] {
            assert_eq!(read(&stream, piece).as_ref(), Ok(&frames));
        }
    }

    #[test]
    fn frames_that_cannot_be_are_refused_before_they_are_there() {
        let mut stream = written(&frames()[..1]);
        for (frame, text) in [
            (&[9, 0, 0, 0, 0][..], "unknown kind 9"),
            (&[HEADER, 1, 0, 16, 0], "kind 1 and 1048577 bytes"),
            (&[SMALL_ROW, 1, 0, 0, 1], "kind 2 and 16777217 bytes"),
            (&[ROW, 22, 0, 0, 32], "kind 3 and 536870934 bytes"),
            (&[ROW, 20, 0, 0, 0], "kind 3 and 20 bytes"),
            (&[END, 29, 0, 0, 0], "kind 4 and 29 bytes"),
            (&[SMALL_ROW, 5, 0, 0, 0, 9, 0, 0, 0, 0], "unknown table 9"),
            (
                &[SMALL_ROW, 5, 0, 0, 0, 3, 1, 0, 0, 0],
                "leases ends in its key",
            ),
        ] {
            let len = stream.len();
            stream.extend_from_slice(frame);
            let error = read(&stream, 1000).unwrap_err();
            assert!(error.contains(text), "{error}");
            stream.truncate(len);
        }
        stream[8] = 2;
        let error = read(&stream, 1000).unwrap_err();
        assert_eq!(error, "format 2, this build reads 1");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = Reader { prefaced: true, ..Reader::default() };
            reader.push(&bytes);
            while let Ok(Some(_)) = reader.next() {}
        }
    }
}
