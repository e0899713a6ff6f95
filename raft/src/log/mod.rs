//! The raft log: entries, hard state and truncation mark, as records of the WAL.
//!
//! [`RaftLog`] is what raft reads the log through ([`raft::Storage`]). It promises:
//!
//! * every entry after the mark is known by term and place, 32 bytes each; the content of the
//!   newest is in memory, bounded by bytes; older content is read back from the WAL;
//! * entries are readable here as soon as they were handed out for appending, synced or not: raft
//!   asks for that. Whether they are durable is the [`Driver`](crate::Driver)'s business;
//! * an entry that cannot be read back never panics: a follower that needs it is told that it is
//!   compacted (so it gets a snapshot); if it must be applied here, the member fails with
//!   [`Error::ReadBack`].
//!
//! It never writes: records go out through [`Effects`](crate::Effects), and the owner of the WAL
//! appends them.
//!
//! [`create`] and [`recover`] are where a log comes from. The bytes are described in `record.rs`.
//!
//! # Compaction and release
//!
//! ```text
//!  segment 7         segment 8         segment 9 (active)
//! ┌──────┬─────────┐┌──────┬─────────┐┌──────┬─────────┬───────────────┐
//! │ head │ 101…140 ││ head │ 141…170 ││ head │ 171…180 │ truncated 150 │
//! └──────┴─────────┘└──────┴─────────┘└──────┴─────────┴───────────────┘
//! ```
//!
//! The mark 150 says that entries up to 150 are no longer needed. Once it is in the WAL, segment 7
//! may be released: all its entries are dropped ones, and all else that it said is repeated in the
//! head of segment 8. Recovery then finds, in this order, the older mark of segment 8's head (say
//! 100), entries from 141 on, and the mark 150. So a gap between the mark and the first entry *is
//! allowed while replaying* and must be closed by a later mark:
//! [`Error::MissingEntries`] otherwise. The WAL syncs before it
//! releases, so the later mark is durable first.
//!
//! A snapshot that is installed restarts the log: its record drops every entry before it, so all
//! segments before the record's own may be released once it is durable.
//!
//! # Without the others
//!
//! [`take_over`] is for a member whose cluster is lost: what its log holds is what there is.

mod entries;
mod record;
mod recovery;
mod takeover;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ferrite_disk::wal::{Record, WalReader};
use raft::eraftpb;
use raft::eraftpb::{Entry, EntryType};
use raft::{GetEntriesContext, RaftState, StorageError};

pub(crate) use record::MAX_NUMBER;
pub use record::{BadRecord, HardState, MAX_ENTRY_BYTES, Mark, Metadata};
pub use recovery::{Logged, Options, Recovered, create, exists, recover, recover_watched};
pub use takeover::take_over;

use crate::conf::ConfState;
use crate::error::Error;
use crate::snapshot::Snapshot;
use entries::Entries;

/// Bytes that followers' entries may be read back from the WAL between two
/// [`Effects`](crate::Effects): the rest of what they need is read after the next, so that one
/// follower far behind does not hold up everybody else's writes.
const READ_BACK_BYTES: usize = 4 << 20;

/// Bytes of entries kept in memory that nobody is expected to ask for again: applied ones that every
/// follower has.
const DONE_BYTES: usize = 64 << 10;

/// What the records handed out so far amount to: recovery needs this, and the entries, and nothing
/// else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) metadata: Metadata,
    pub(crate) hard_state: HardState,
    pub(crate) mark: Mark,
}

impl Head {
    /// As the head of a new segment.
    pub(crate) fn records(&self) -> Vec<Record> {
        vec![
            record::metadata(&self.metadata),
            record::hard_state(&self.hard_state),
            record::truncated(&self.mark),
        ]
    }
}

/// The log as raft reads it. See the [module](self).
#[derive(Debug)]
pub struct RaftLog {
    metadata: Metadata,
    /// As recovered; raft reads it once.
    hard_state: HardState,
    /// As of `applied`; raft reads it once.
    conf_state: ConfState,
    entries: Entries,
    cache_bytes: usize,
    reader: WalReader,
    /// Raft reads through `&self`; what it must be told later, and what the driver must be told, is
    /// kept in cells. The log has one owner, so none is ever borrowed twice.
    read_back_left: Cell<usize>,
    /// Requests of followers that wait for the next turn, by what they ask for: raft may ask again
    /// and again meanwhile.
    deferred: RefCell<BTreeMap<String, GetEntriesContext>>,
    /// Why an entry could not be handed out for applying.
    failure: RefCell<Option<Error>>,
    /// Followers for whom raft asked for a snapshot.
    snapshots_wanted: RefCell<BTreeSet<u64>>,
    /// For this follower there is a snapshot, if raft asks now.
    offer: RefCell<Option<(u64, Snapshot)>>,
}

impl RaftLog {
    fn new(
        metadata: Metadata,
        hard_state: HardState,
        entries: Entries,
        cache_bytes: usize,
        reader: WalReader,
    ) -> RaftLog {
        RaftLog {
            metadata,
            hard_state,
            conf_state: ConfState::default(),
            entries,
            cache_bytes,
            reader,
            read_back_left: Cell::new(READ_BACK_BYTES),
            deferred: RefCell::default(),
            failure: RefCell::default(),
            snapshots_wanted: RefCell::default(),
            offer: RefCell::default(),
        }
    }

    /// Whose log this is.
    pub fn metadata(&self) -> Metadata {
        self.metadata
    }

    /// The hard state as it was found in the WAL.
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// Index of the first entry, or of the next one if there is none.
    pub fn first(&self) -> u64 {
        self.entries.first
    }

    /// Index of the last entry; that of the mark if there is none.
    pub fn last(&self) -> u64 {
        self.entries.last()
    }

    /// Up to where entries were dropped.
    pub fn mark(&self) -> Mark {
        self.entries.mark
    }

    /// The term of an entry that is in the log, or of the mark.
    pub(crate) fn term_of(&self, index: u64) -> Option<u64> {
        self.entries.term(index)
    }

    /// The data of the entries after one, if all of them are in memory; `None` in the place of a change
    /// of the configuration.
    pub fn cached_after(&self, index: u64) -> Option<impl Iterator<Item = Option<Bytes>>> {
        let last = self.last();
        let in_memory = index >= last || self.entries.cached(index + 1).is_some();
        let entries = (index + 1..=last).filter_map(|index| self.entries.cached(index));
        in_memory.then(|| {
            entries.map(|entry| {
                let is_normal = entry.entry_type == EntryType::EntryNormal;
                is_normal.then(|| entry.data.clone())
            })
        })
    }

    /// Entries in memory.
    pub fn cached_entries(&self) -> usize {
        self.entries.window_len()
    }

    /// What they take, in bytes.
    pub fn cached_bytes(&self) -> usize {
        self.entries.window_bytes()
    }

    /// What raft starts from.
    pub(crate) fn set_initial(&mut self, hard_state: HardState, conf_state: ConfState) {
        self.hard_state = hard_state;
        self.conf_state = conf_state;
    }

    pub(crate) fn head(&self) -> Head {
        Head {
            metadata: self.metadata,
            hard_state: self.hard_state,
            mark: self.entries.mark,
        }
    }

    /// Adds entries that were handed out for appending; they may replace the log's end.
    pub(crate) fn append(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            self.entries.push(entry);
        }
    }

    /// Where the entry's record begins.
    pub(crate) fn locate(&mut self, index: u64, position: ferrite_disk::wal::Position) {
        self.entries.locate(index, position);
    }

    /// Frees memory. `done`: entries up to here were handed out for applying and nobody else needs
    /// them.
    pub(crate) fn evict(&mut self, done: u64) {
        self.entries.evict(self.cache_bytes, done, DONE_BYTES);
    }

    /// Drops the entries up to `to`, which must be one of them; gives the new mark.
    pub(crate) fn compact(&mut self, to: u64) -> Mark {
        let term = self.entries.term(to);
        let mark = Mark {
            index: to,
            term: term.expect("the driver compacts what the log holds"),
        };
        self.entries.compact(mark);
        mark
    }

    /// Drops all entries; the next one is the one after `mark`.
    pub(crate) fn restart(&mut self, mark: Mark) {
        self.entries.restart(mark);
    }

    /// Where the record of the restart begins.
    pub(crate) fn locate_restart(&mut self, position: ferrite_disk::wal::Position) {
        self.entries.locate_restart(position);
    }

    /// The first segment that the entries after the mark need; 0 if that is not known.
    pub(crate) fn needed_from(&self) -> u64 {
        // Without a position for the next entry, it will be no earlier than the newest record that
        // has one.
        let next = self.entries.position(self.mark().index + 1);
        let needed = next.or(self.entries.newest_position());
        needed.map_or(0, |position| position.segment)
    }

    pub(crate) fn truncated_record(mark: &Mark) -> Record {
        record::truncated(mark)
    }

    pub(crate) fn snapshot_record(mark: &Mark) -> Record {
        record::snapshot(mark)
    }

    pub(crate) fn hard_state_record(state: &HardState) -> Record {
        record::hard_state(state)
    }

    pub(crate) fn entry_records(entries: &[Entry], records: &mut Vec<Record>) {
        record::entries(entries, records);
    }

    /// Allows followers' entries to be read back again; gives the requests that waited for it.
    pub(crate) fn next_turn(&mut self) -> Vec<GetEntriesContext> {
        self.read_back_left.set(READ_BACK_BYTES);
        std::mem::take(self.deferred.get_mut())
            .into_values()
            .collect()
    }

    pub(crate) fn has_deferred(&self) -> bool {
        !self.deferred.borrow().is_empty()
    }

    pub(crate) fn take_failure(&mut self) -> Option<Error> {
        self.failure.get_mut().take()
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failure.borrow().is_some()
    }

    pub(crate) fn take_snapshots_wanted(&mut self) -> Vec<u64> {
        std::mem::take(self.snapshots_wanted.get_mut())
            .into_iter()
            .collect()
    }

    pub(crate) fn wants_snapshots(&self) -> bool {
        !self.snapshots_wanted.borrow().is_empty()
    }

    /// Lets raft have this snapshot if it asks for one for `to`.
    pub(crate) fn offer(&mut self, to: u64, snapshot: Snapshot) {
        *self.offer.get_mut() = Some((to, snapshot));
    }

    /// Ends the offer. Whether raft has taken it.
    pub(crate) fn end_offer(&mut self) -> bool {
        self.offer.get_mut().take().is_none()
    }

    /// The entry, from memory or from the WAL.
    fn entry(&self, index: u64) -> Result<Entry, Error> {
        if let Some(entry) = self.entries.cached(index) {
            return Ok(entry.clone());
        }
        let position = self.entries.position(index);
        let position = position.expect("an entry that is not in memory has a position");
        let read_back = self.reader.read(position);
        let (kind, payload) = read_back.map_err(|source| Error::ReadBack { index, source })?;
        let mismatch = |why: String| Error::ReadBackMismatch { index, why };
        let entry = record::decode_entry_record(kind, payload)
            .map_err(|error| mismatch(error.to_string()))?;
        let term = self.entries.term(index);
        if entry.index != index || Some(entry.term) != term {
            return Err(mismatch(format!(
                "entry {} of term {}",
                entry.index, entry.term
            )));
        }
        Ok(entry)
    }

    /// Entries of the given range, at least one and as many more as `limit` bytes allow. Those of
    /// followers are read back only as far as the turn allows; `None` says that not even one is.
    fn range(
        &self,
        low: u64,
        high: u64,
        limit: Option<u64>,
        for_follower: bool,
    ) -> Result<Option<Vec<Entry>>, Error> {
        let mut found = Vec::new();
        let mut bytes = 0u64;
        for index in low..high {
            let slot = self
                .entries
                .slot(index)
                .expect("raft asks for entries that the log holds");
            bytes += u64::from(slot.bytes);
            if !found.is_empty() && limit.is_some_and(|limit| bytes > limit) {
                break;
            }
            if for_follower && self.entries.cached(index).is_none() {
                let left = self.read_back_left.get();
                if left == 0 {
                    return Ok((!found.is_empty()).then_some(found));
                }
                self.read_back_left
                    .set(left.saturating_sub(slot.bytes as usize));
            }
            found.push(self.entry(index)?);
        }
        Ok(Some(found))
    }

    /// The entries without their content.
    fn shapes(&self, low: u64, high: u64) -> Vec<Entry> {
        let shape = |index| {
            let slot = self
                .entries
                .slot(index)
                .expect("raft asks for entries that the log holds");
            Entry {
                entry_type: slot.entry_type,
                term: slot.term,
                index,
                ..Entry::default()
            }
        };
        (low..high).map(shape).collect()
    }
}

impl raft::Storage for RaftLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(
            to_raft(&self.hard_state),
            self.conf_state.to_raft(),
        ))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        assert!(
            high <= self.last() + 1,
            "entries {low}..{high} of a log up to {}",
            self.last()
        );
        if low < self.first() {
            return Err(StorageError::Compacted.into());
        }
        let limit = max_size.into();
        let for_follower = context.can_async();
        // Trap: before a campaign, and after a commit learned from a vote, raft-rs 0.7 asks for
        // *all* unapplied entries, without a limit, and panics if it does not get them. It only
        // looks at their types, so it gets nothing else.
        if limit.is_none() && !for_follower {
            return Ok(self.shapes(low, high));
        }
        match self.range(low, high, limit, for_follower) {
            Ok(Some(entries)) => Ok(entries),
            Ok(None) => {
                // What identifies a request is private to raft-rs, but printed.
                self.deferred
                    .borrow_mut()
                    .insert(format!("{context:?}"), context);
                Err(StorageError::LogTemporarilyUnavailable.into())
            }
            Err(error) if for_follower => {
                tracing::warn!(%error, "cannot read entries for a follower, it needs a snapshot");
                Err(StorageError::Compacted.into())
            }
            // Trap: raft-rs panics on any error for entries to apply. No entries is an answer it
            // takes.
            Err(error) => {
                self.failure.borrow_mut().get_or_insert(error);
                Ok(Vec::new())
            }
        }
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index < self.entries.mark.index {
            return Err(StorageError::Compacted.into());
        }
        self.entries
            .term(index)
            .ok_or_else(|| StorageError::Unavailable.into())
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, _request_index: u64, to: u64) -> raft::Result<eraftpb::Snapshot> {
        if let Some((_, snapshot)) = self.offer.borrow_mut().take_if(|(peer, _)| *peer == to) {
            return Ok(snapshot.to_raft());
        }
        self.snapshots_wanted.borrow_mut().insert(to);
        Err(StorageError::SnapshotTemporarilyUnavailable.into())
    }
}

pub(crate) fn to_raft(state: &HardState) -> eraftpb::HardState {
    let HardState { term, vote, commit } = *state;
    eraftpb::HardState {
        term,
        vote,
        commit,
        ..eraftpb::HardState::default()
    }
}

pub(crate) fn from_raft(state: &eraftpb::HardState) -> HardState {
    HardState {
        term: state.term,
        vote: state.vote,
        commit: state.commit,
    }
}
