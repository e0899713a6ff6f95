//! A raft log as it is known from the records that went into it.

use std::collections::BTreeMap;

use bytes::Bytes;
use ferrite_disk::wal::Record;
use ferrite_raft::EntryKind;
use ferrite_raft::log::Logged;

use crate::history::hash_value;

/// Kinds of log records (ARCHITECTURE.md, "Log: record").
pub(super) const ENTRY_RECORD: u8 = 2;
const HARD_STATE_RECORD: u8 = 3;
const TRUNCATED_RECORD: u8 = 4;
const SNAPSHOT_RECORD: u8 = 5;

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) term: u64,
    /// Of the data. What a change of the configuration says is not compared, only that it is one.
    pub(super) hash: u64,
    pub(super) data: Bytes,
}

/// Term, vote and entries.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    pub(super) term: u64,
    pub(super) vote: u64,
    /// Entries up to here were dropped: their effect is in the state.
    pub(super) base: u64,
    entries: BTreeMap<u64, Entry>,
}

impl Log {
    /// An entry, if it has not been dropped.
    pub(super) fn get(&self, index: u64) -> Option<&Entry> {
        self.entries.get(&index)
    }

    /// All entries, with their indexes.
    pub(super) fn entries(&self) -> impl Iterator<Item = (u64, &Entry)> {
        self.entries.iter().map(|(index, entry)| (*index, entry))
    }

    /// Whether it has this entry, or had it.
    pub(super) fn covers(&self, index: u64, term: u64, hash: u64) -> bool {
        index <= self.base
            || self
                .get(index)
                .is_some_and(|entry| (entry.term, entry.hash) == (term, hash))
    }

    /// Puts an entry in; what was there from its index on is replaced.
    fn put(&mut self, index: u64, term: u64, data: Bytes) {
        self.entries.split_off(&index);
        let hash = hash_value(&data);
        self.entries.insert(index, Entry { term, hash, data });
    }

    fn truncate(&mut self, index: u64) {
        self.base = self.base.max(index);
        self.entries = self.entries.split_off(&(index + 1));
    }

    /// The log begins anew after a snapshot.
    fn restart(&mut self, index: u64) {
        self.base = index;
        self.entries.clear();
    }

    /// Takes in records in the order in which they were written.
    pub(super) fn append(&mut self, records: &[Record]) {
        for Record { kind, payload } in records {
            match *kind {
                ENTRY_RECORD => {
                    let normal = payload[16] == 0;
                    let context = u32::from_le_bytes(array(&payload[20..24])) as usize;
                    let data = match normal {
                        true => payload.slice(24 + context..),
                        false => Bytes::new(),
                    };
                    self.put(number(payload, 0), number(payload, 8), data);
                }
                HARD_STATE_RECORD => {
                    (self.term, self.vote) = (number(payload, 0), number(payload, 8));
                }
                TRUNCATED_RECORD => self.truncate(number(payload, 0)),
                SNAPSHOT_RECORD => self.restart(number(payload, 0)),
                _ => {}
            }
        }
    }

    /// Takes in a record that was read from a disk.
    pub(super) fn read(&mut self, logged: Logged) {
        match logged {
            Logged::Entry {
                index,
                term,
                kind: EntryKind::Normal,
                data,
            } => self.put(index, term, data),
            Logged::Entry { index, term, .. } => self.put(index, term, Bytes::new()),
            Logged::HardState(state) => (self.term, self.vote) = (state.term, state.vote),
            Logged::Truncated(mark) => self.truncate(mark.index),
            Logged::Snapshot(mark) => self.restart(mark.index),
            Logged::Metadata(_) => {}
        }
    }
}

/// From where on the records replace entries of a log.
pub(super) fn replaced_from(records: &[Record]) -> Option<u64> {
    let replaced = |record: &Record| match record.kind {
        ENTRY_RECORD => Some(number(&record.payload, 0)),
        SNAPSHOT_RECORD => Some(0),
        _ => None,
    };
    records.iter().find_map(replaced)
}

fn number(payload: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(&payload[at..at + 8]))
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the record is as long as it says")
}
