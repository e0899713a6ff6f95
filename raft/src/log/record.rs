//! The records that the raft log keeps in the WAL, to the byte.
//!
//! All integers are little-endian. The WAL frames and checks every record, so a record that does
//! not decode here was written by another program or another version: that is an error, never a
//! torn tail.
//!
//! | Kind | Record | Payload |
//! |---|---|---|
//! | 1 | [`Metadata`] | 0..8 cluster id, 8..16 member id |
//! | 2 | entry | 0..8 index, 8..16 term, 16 type (0 normal, 1 and 2 configuration change, as raft-rs numbers them), 17..20 zeros, 20..24 length of the context, then the context, then the data up to the end |
//! | 3 | [`HardState`] | 0..8 term, 8..16 vote (0: none), 16..24 commit |
//! | 4 | truncated ([`Mark`]) | 0..8 index, 8..16 term |
//! | 5 | snapshot ([`Mark`]) | 0..8 index, 8..16 term |
//!
//! Indices and terms of entries are at least 1; no index and no term is above [`MAX_NUMBER`], so
//! that adding one to any of them never overflows.
//!
//! # Order
//!
//! Whatever prefix of the records survives a power loss must be a log that raft can start from. So
//! one append holds, in this order: the hard state **with its old commit** if term or vote changed
//! (no entry is ever newer than the hard state before it); the entries; the hard state again if the
//! commit moved (no commit is ever beyond the entries before it); the truncation mark.
//!
//! A snapshot record restarts the log: all entries before it are gone, committed ones too, and the
//! log goes on after its index, up to which everything counts as committed from then on. It never
//! goes back to or below the commit index before it. Its append holds the hard state with the old
//! commit if term or vote changed, the record, and the hard state with the new commit. The heads of
//! later segments need no record of it: their hard state and truncation mark say the same.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ferrite_disk::wal::{MAX_PAYLOAD_BYTES, Record};
use raft::eraftpb::{Entry, EntryType};

/// Largest index and term that Ferrite accepts from a disk or a peer.
pub(crate) const MAX_NUMBER: u64 = u64::MAX >> 2;

/// Largest `context.len() + data.len()` of an entry, in bytes: what fits into one record.
pub const MAX_ENTRY_BYTES: usize = MAX_PAYLOAD_BYTES as usize - ENTRY_HEAD;

const KIND_METADATA: u8 = 1;
const KIND_ENTRY: u8 = 2;
const KIND_HARD_STATE: u8 = 3;
const KIND_TRUNCATED: u8 = 4;
const KIND_SNAPSHOT: u8 = 5;

/// Bytes of an entry's record before its context.
pub(crate) const ENTRY_HEAD: usize = 24;

const TYPE_NORMAL: u8 = 0;
const TYPE_CONF_CHANGE: u8 = 1;
const TYPE_CONF_CHANGE_V2: u8 = 2;

/// Whose log this is. The same in every segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// The cluster's id.
    pub cluster_id: u64,
    /// The id of the member that writes the log.
    pub member_id: u64,
}

/// What raft must not forget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HardState {
    /// The greatest term seen.
    pub term: u64,
    /// Whom this member voted for in that term; 0: nobody.
    pub vote: u64,
    /// Entries up to here are known to be committed. Not synced on its own, so it may lag behind.
    pub commit: u64,
}

impl HardState {
    /// Whether going from `self` to `next` is a promise to others, to be synced before anybody
    /// hears of it.
    pub(crate) fn promises_differ(&self, next: &HardState) -> bool {
        self.term != next.term || self.vote != next.vote
    }
}

/// A place in the log: an index and the term of the entry there. As a truncation record: entries up
/// to and including it were dropped, because a checkpoint holds their effect. As a snapshot record:
/// all entries before the record were, because a snapshot as of this place was installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// Index of the last entry dropped, 0 if none was.
    pub index: u64,
    /// Its term, 0 if none was.
    pub term: u64,
}

/// A record, decoded.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Decoded {
    Metadata(Metadata),
    Entry(Entry),
    HardState(HardState),
    Truncated(Mark),
    Snapshot(Mark),
}

/// Why a record does not decode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// No record of this kind is known.
    #[error("unknown record kind {0}")]
    Kind(u8),
    /// The payload cannot have this length.
    #[error("{what} record of {bytes} bytes")]
    Length {
        /// What kind of record it is.
        what: &'static str,
        /// Length of the payload.
        bytes: usize,
    },
    /// The entry's type is none that is known.
    #[error("entry of unknown type {0}")]
    EntryType(u8),
    /// A field has a value that it cannot have.
    #[error("{what} is {value}")]
    Value {
        /// The field.
        what: &'static str,
        /// Its value.
        value: u64,
    },
}

pub(crate) fn metadata(metadata: &Metadata) -> Record {
    numbers(KIND_METADATA, &[metadata.cluster_id, metadata.member_id])
}

pub(crate) fn hard_state(state: &HardState) -> Record {
    numbers(KIND_HARD_STATE, &[state.term, state.vote, state.commit])
}

pub(crate) fn truncated(mark: &Mark) -> Record {
    numbers(KIND_TRUNCATED, &[mark.index, mark.term])
}

pub(crate) fn snapshot(mark: &Mark) -> Record {
    numbers(KIND_SNAPSHOT, &[mark.index, mark.term])
}

fn numbers(kind: u8, numbers: &[u64]) -> Record {
    let mut payload = BytesMut::with_capacity(numbers.len() * 8);
    for number in numbers {
        payload.put_u64_le(*number);
    }
    Record {
        kind,
        payload: payload.freeze(),
    }
}

/// Length of the payload of an entry's record.
pub(crate) fn entry_bytes(entry: &Entry) -> usize {
    ENTRY_HEAD + entry.context.len() + entry.data.len()
}

/// Appends the records of the entries to `records`: one buffer for all of them, one copy of each
/// payload.
pub(crate) fn entries(entries: &[Entry], records: &mut Vec<Record>) {
    let bytes = entries.iter().map(entry_bytes).sum();
    let mut buffer = BytesMut::with_capacity(bytes);
    records.reserve(entries.len());
    for entry in entries {
        let kind = match entry.entry_type {
            EntryType::EntryNormal => TYPE_NORMAL,
            EntryType::EntryConfChange => TYPE_CONF_CHANGE,
            EntryType::EntryConfChangeV2 => TYPE_CONF_CHANGE_V2,
        };
        buffer.put_u64_le(entry.index);
        buffer.put_u64_le(entry.term);
        buffer.put_u32_le(u32::from(kind));
        let context = u32::try_from(entry.context.len());
        buffer.put_u32_le(context.expect(
            "entries above MAX_ENTRY_BYTES are refused before they are proposed or stepped",
        ));
        buffer.put_slice(&entry.context);
        buffer.put_slice(&entry.data);
        records.push(Record {
            kind: KIND_ENTRY,
            payload: buffer.split().freeze(),
        });
    }
}

/// Decodes a record. The context and the data of an entry share the payload's memory.
pub(crate) fn decode(kind: u8, payload: Bytes) -> Result<Decoded, BadRecord> {
    match kind {
        KIND_METADATA => {
            let [cluster_id, member_id] = decode_numbers("metadata", &payload)?;
            Ok(Decoded::Metadata(Metadata {
                cluster_id,
                member_id,
            }))
        }
        KIND_ENTRY => decode_entry(payload).map(Decoded::Entry),
        KIND_HARD_STATE => {
            let [term, vote, commit] = decode_numbers("hard state", &payload)?;
            at_most("term", term)?;
            at_most("commit", commit)?;
            Ok(Decoded::HardState(HardState { term, vote, commit }))
        }
        KIND_TRUNCATED => decode_mark("truncated", &payload).map(Decoded::Truncated),
        KIND_SNAPSHOT => {
            let mark = decode_mark("snapshot", &payload)?;
            for (what, value) in [("snapshot index", mark.index), ("snapshot term", mark.term)] {
                not_zero(what, value)?;
            }
            Ok(Decoded::Snapshot(mark))
        }
        other => Err(BadRecord::Kind(other)),
    }
}

/// As [`decode`], for a place where only an entry can be.
pub(crate) fn decode_entry_record(kind: u8, payload: Bytes) -> Result<Entry, BadRecord> {
    match kind {
        KIND_ENTRY => decode_entry(payload),
        other => Err(BadRecord::Kind(other)),
    }
}

fn decode_mark(what: &'static str, payload: &[u8]) -> Result<Mark, BadRecord> {
    let [index, term] = decode_numbers(what, payload)?;
    at_most("index", index)?;
    at_most("term", term)?;
    Ok(Mark { index, term })
}

fn decode_numbers<const N: usize>(
    what: &'static str,
    mut payload: &[u8],
) -> Result<[u64; N], BadRecord> {
    let bytes = payload.len();
    if bytes != N * 8 {
        return Err(BadRecord::Length { what, bytes });
    }
    Ok(std::array::from_fn(|_| payload.get_u64_le()))
}

fn decode_entry(mut payload: Bytes) -> Result<Entry, BadRecord> {
    let short = BadRecord::Length {
        what: "entry",
        bytes: payload.len(),
    };
    if payload.len() < ENTRY_HEAD {
        return Err(short);
    }
    let index = payload.get_u64_le();
    let term = payload.get_u64_le();
    let kind = payload.get_u8();
    let zeros = payload.get_uint_le(3);
    let context = payload.get_u32_le() as usize;
    for (what, value) in [("entry index", index), ("entry term", term)] {
        not_zero(what, value)?;
        at_most(what, value)?;
    }
    if zeros != 0 {
        return Err(BadRecord::Value {
            what: "entry padding",
            value: zeros,
        });
    }
    let entry_type = match kind {
        TYPE_NORMAL => EntryType::EntryNormal,
        TYPE_CONF_CHANGE => EntryType::EntryConfChange,
        TYPE_CONF_CHANGE_V2 => EntryType::EntryConfChangeV2,
        other => return Err(BadRecord::EntryType(other)),
    };
    if context > payload.len() {
        return Err(short);
    }
    let context = payload.split_to(context);
    Ok(Entry {
        entry_type,
        term,
        index,
        data: payload,
        context,
        ..Entry::default()
    })
}

fn not_zero(what: &'static str, value: u64) -> Result<(), BadRecord> {
    if value == 0 {
        return Err(BadRecord::Value { what, value });
    }
    Ok(())
}

fn at_most(what: &'static str, value: u64) -> Result<(), BadRecord> {
    if value > MAX_NUMBER {
        return Err(BadRecord::Value { what, value });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(index: u64, term: u64, kind: EntryType, context: &[u8], data: &[u8]) -> Entry {
        let mut entry = Entry::default();
        (entry.index, entry.term, entry.entry_type) = (index, term, kind);
        entry.context = Bytes::copy_from_slice(context);
        entry.data = Bytes::copy_from_slice(data);
        entry
    }

    fn encoded(entry: &Entry) -> Record {
        let mut records = Vec::new();
        entries(std::slice::from_ref(entry), &mut records);
        records.remove(0)
    }

    #[test]
    fn records_have_the_documented_bytes() {
        let cases = [
            (
                metadata(&Metadata {
                    cluster_id: 0x0102,
                    member_id: 3,
                }),
                1,
                vec![0x0102, 3],
            ),
            (
                hard_state(&HardState {
                    term: 4,
                    vote: 5,
                    commit: 6,
                }),
                3,
                vec![4, 5, 6],
            ),
            (truncated(&Mark { index: 7, term: 8 }), 4, vec![7, 8]),
            (snapshot(&Mark { index: 7, term: 8 }), 5, vec![7, 8]),
        ];
        for (record, kind, numbers) in cases {
            let bytes: Vec<u8> = numbers.iter().flat_map(|n: &u64| n.to_le_bytes()).collect();
            assert_eq!((record.kind, &record.payload[..]), (kind, &bytes[..]));
        }
        let record = encoded(&entry(
            0x0a0b,
            0x0c,
            EntryType::EntryConfChangeV2,
            b"xy",
            b"data",
        ));
        assert_eq!(record.kind, 2);
        let expected = [
            &[0x0b, 0x0a, 0, 0, 0, 0, 0, 0][..],
            &[0x0c, 0, 0, 0, 0, 0, 0, 0],
            &[2, 0, 0, 0],
            &[2, 0, 0, 0],
            b"xydata",
        ];
        assert_eq!(record.payload, expected.concat());
    }

    #[test]
    fn the_largest_entry_fits_into_a_record() {
        let largest = entry(1, 1, EntryType::EntryNormal, b"", &vec![0; MAX_ENTRY_BYTES]);
        assert_eq!(encoded(&largest).payload.len() as u64, MAX_PAYLOAD_BYTES);
    }

    fn any_entry() -> impl Strategy<Value = Entry> {
        let kinds = [
            EntryType::EntryNormal,
            EntryType::EntryConfChange,
            EntryType::EntryConfChangeV2,
        ];
        let bytes = || prop::collection::vec(any::<u8>(), 0..50);
        let kind = prop::sample::select(kinds.to_vec());
        (1..=MAX_NUMBER, 1..=MAX_NUMBER, kind, bytes(), bytes()).prop_map(
            |(index, term, kind, context, data)| entry(index, term, kind, &context, &data),
        )
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(all in prop::collection::vec(any_entry(), 1..5)) {
            let mut records = Vec::new();
            entries(&all, &mut records);
            for (entry, record) in all.iter().zip(records) {
                prop_assert_eq!(record.payload.len(), entry_bytes(entry));
                prop_assert_eq!(decode(record.kind, record.payload), Ok(Decoded::Entry(entry.clone())));
            }
        }

        #[test]
        fn numbers_are_decoded_as_encoded(a in 0..=MAX_NUMBER, b in any::<u64>(), c in 0..=MAX_NUMBER) {
            let state = HardState { term: a, vote: b, commit: c };
            let record = hard_state(&state);
            prop_assert_eq!(decode(record.kind, record.payload), Ok(Decoded::HardState(state)));
            let whose = Metadata { cluster_id: b, member_id: b.rotate_left(9) };
            let record = metadata(&whose);
            prop_assert_eq!(decode(record.kind, record.payload), Ok(Decoded::Metadata(whose)));
            let mark = Mark { index: a, term: c };
            let record = truncated(&mark);
            prop_assert_eq!(decode(record.kind, record.payload), Ok(Decoded::Truncated(mark)));
            let mark = Mark { index: a.max(1), term: c.max(1) };
            let record = snapshot(&mark);
            prop_assert_eq!(decode(record.kind, record.payload), Ok(Decoded::Snapshot(mark)));
        }

        /// Whatever decodes means exactly its bytes, and nothing panics.
        #[test]
        fn arbitrary_bytes_decode_to_themselves_or_not_at_all(
            kind in 0..7u8,
            payload in prop::collection::vec(prop_oneof![3 => Just(0u8), 1 => any::<u8>()], 0..60),
        ) {
            let payload = Bytes::from(payload);
            let again = match decode(kind, payload.clone()) {
                Ok(Decoded::Metadata(it)) => metadata(&it),
                Ok(Decoded::HardState(it)) => hard_state(&it),
                Ok(Decoded::Truncated(it)) => truncated(&it),
                Ok(Decoded::Snapshot(it)) => snapshot(&it),
                Ok(Decoded::Entry(it)) => encoded(&it),
                Err(_) => return Ok(()),
            };
            prop_assert_eq!(again, Record { kind, payload });
        }
    }
}
