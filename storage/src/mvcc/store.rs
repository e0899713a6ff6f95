//! The writer's side of the store: one owner, which apply drives entry by entry.
//!
//! A [`WriteTxn`] gathers the changes of one request under one new main revision. Nothing of it is
//! visible until [`WriteTxn::commit`]; [`WriteTxn::roll_back`] takes it back.

use std::sync::Arc;

use bytes::Bytes;
use ferrite_api::pb::mvccpb::KeyValue;
use ferrite_api::types::{LeaseId, Revision};

use super::index::{KeyIndex, KeyMeta};
use super::pins::Pins;
use super::range::KeyRange;
use super::recent::{RecentRows, Row};
use super::record;
use super::view::{RowError, View};
use crate::error::Error;
use crate::leases::{Leases, NO_LEASE};
use crate::page::{Meta, PageFile};

/// The newest state of the key space and what is needed to change it.
#[derive(Debug)]
pub struct Store {
    index: KeyIndex,
    recent: RecentRows,
    page: Arc<PageFile>,
    revision: i64,
    compacted: i64,
    leases: Leases,
    pins: Pins,
}

impl Store {
    /// A store over a page file whose rows are all in `index`, with their keys attached to `leases`.
    pub(crate) fn new(
        index: KeyIndex,
        page: Arc<PageFile>,
        leases: Leases,
        revision: i64,
        compacted: i64,
    ) -> Self {
        assert!(
            compacted <= revision,
            "compacted {compacted} above revision {revision}"
        );
        let (recent, pins) = (RecentRows::default(), Pins::default());
        Self {
            index,
            recent,
            page,
            revision,
            compacted,
            leases,
            pins,
        }
    }

    /// The store revision: the main revision of the last change; 1 for a fresh store.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The last compaction; -1 before the first.
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// The key index as of now.
    pub fn index(&self) -> &KeyIndex {
        &self.index
    }

    /// Rows that are not checkpointed yet.
    pub fn recent(&self) -> &RecentRows {
        &self.recent
    }

    /// The leases and the keys attached to them.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    pub(crate) fn leases_mut(&mut self) -> &mut Leases {
        &mut self.leases
    }

    /// The page file.
    pub fn page(&self) -> &Arc<PageFile> {
        &self.page
    }

    /// Reads and writes another file with the same content from now on. The meta record of the old one.
    pub(crate) fn replace_page(&mut self, page: Arc<PageFile>) -> Meta {
        std::mem::replace(&mut self.page, page).meta()
    }

    /// Pins of long readers.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Pins the current state.
    pub fn view(&self) -> View {
        View {
            index: self.index.clone(),
            recent: self.recent.clone(),
            page: Arc::clone(&self.page),
            revision: self.revision,
            compacted: self.compacted,
            pins: self.pins.clone(),
        }
    }

    /// Starts a transaction at the next revision. With `revocable` it can be rolled back, which
    /// costs copies of the index nodes that it touches: ask for it only where an operation can
    /// still fail after another one has changed something.
    pub(crate) fn begin(&mut self, revocable: bool) -> WriteTxn<'_> {
        let main = self.revision + 1;
        let before = revocable.then(|| self.index.clone());
        WriteTxn {
            before,
            rows: Vec::new(),
            attach: Vec::new(),
            main,
            store: self,
        }
    }

    /// Makes a compaction take effect: from now on reads below `revision` fail. Rows are removed
    /// later, by the checkpoint.
    pub(crate) fn compact(&mut self, revision: i64) {
        assert!(
            self.compacted < revision && revision <= self.revision,
            "compaction at {revision} outside ({}, {}]",
            self.compacted,
            self.revision
        );
        self.compacted = revision;
    }

    /// Continues dropping compacted revisions from the index at `from`, at most `max_keys` keys.
    /// Returns where to go on, `None` when done.
    pub(crate) fn prune_index(
        &mut self,
        revision: i64,
        from: &[u8],
        max_keys: usize,
    ) -> Option<Vec<u8>> {
        self.index.prune_step(revision, from, max_keys)
    }

    /// Drops rows that a checkpoint has put into the page file.
    pub(crate) fn checkpointed(&mut self, upto: i64) {
        self.recent.trim(upto);
    }
}

/// Changes of one request, not yet visible.
pub(crate) struct WriteTxn<'a> {
    store: &'a mut Store,
    /// The index to go back to.
    before: Option<KeyIndex>,
    rows: Vec<Row>,
    /// What becomes of the leases of the changed keys, in order: nothing of it before the commit, so
    /// that there is nothing to take back. Empty while no key has or gets a lease.
    attach: Vec<(Bytes, LeaseId)>,
    main: i64,
}

impl WriteTxn<'_> {
    /// Whether a key has changed so far.
    pub(crate) fn changed(&self) -> bool {
        !self.rows.is_empty()
    }

    /// The revision that a read inside the transaction sees: the new one after the first change.
    pub(crate) fn revision(&self) -> i64 {
        if self.changed() {
            self.main
        } else {
            self.store.revision
        }
    }

    /// The index as the next operation of the transaction sees it.
    pub(crate) fn index(&self) -> &KeyIndex {
        &self.store.index
    }

    /// The leases as they were before the transaction.
    pub(crate) fn leases(&self) -> &Leases {
        &self.store.leases
    }

    /// Notes the lease that a key has from now on.
    fn attach(&mut self, key: &Bytes, lease: LeaseId) {
        // Most stores have no lease, and most puts none: they pay one comparison.
        if lease != NO_LEASE || self.store.leases.any_attached() || !self.attach.is_empty() {
            self.attach.push((key.clone(), lease));
        }
    }

    fn next(&self) -> Revision {
        let sub = i64::try_from(self.rows.len()).expect("changes of one request fit memory");
        Revision::new(self.main, sub)
    }

    /// Puts a key. The caller has resolved `value` and `lease` (ignore_value, ignore_lease).
    /// Returns the metadata of the pair that was replaced.
    pub(crate) fn put(&mut self, key: Bytes, value: Bytes, lease: i64) -> Option<KeyMeta> {
        let modified = self.next();
        let previous = self.store.index.latest(&key);
        let (created, version) = match &previous {
            Some(meta) => (meta.created, meta.version + 1),
            None => (modified.main, 1),
        };
        let kv = KeyValue {
            key,
            create_revision: created,
            mod_revision: modified.main,
            version,
            value,
            lease,
        };
        let record = record::put(&kv);
        let record_len =
            u32::try_from(record.len()).expect("a record is bounded by the request size");
        self.store.index.put(
            &kv.key,
            KeyMeta {
                modified,
                created,
                version,
                record_len,
            },
        );
        self.attach(&kv.key, LeaseId::new(lease));
        self.rows.push(Row {
            revision: modified,
            tombstone: false,
            record,
        });
        previous
    }

    /// Deletes every live key of the range, in key order. Returns the metadata of what was there.
    pub(crate) fn delete_range(&mut self, range: &KeyRange) -> Vec<KeyMeta> {
        let doomed: Vec<(Bytes, KeyMeta)> = self
            .store
            .index
            .range(range, self.main)
            .map(|(key, meta)| (Bytes::copy_from_slice(key), meta))
            .collect();
        for (key, _) in &doomed {
            self.delete(key);
        }
        doomed.into_iter().map(|(_, meta)| meta).collect()
    }

    /// Deletes a live key.
    pub(crate) fn delete(&mut self, key: &Bytes) {
        let at = self.next();
        let deleted = self.store.index.delete(key, at);
        assert!(deleted.is_some(), "a key that is to be deleted is not live");
        self.attach(key, NO_LEASE);
        self.rows.push(Row {
            revision: at,
            tombstone: true,
            record: record::tombstone(key.clone()),
        });
    }

    /// The pair that is stored at `revision`, which may be a change of this transaction.
    ///
    /// # Errors
    /// Storage failures; a missing row is one, since apply reads newest pairs only and compaction
    /// never removes those.
    pub(crate) fn read(&self, revision: Revision) -> Result<KeyValue, Error> {
        if revision.main == self.main {
            let at = usize::try_from(revision.sub).expect("a sub revision of this transaction");
            return record::decode(revision, &self.rows[at].record);
        }
        let view = self.store.view();
        let record = view.rows().get(revision).map_err(|error| match error {
            RowError::Missing(revision) => Error::Corrupt {
                what: format!("the index names row {revision}, the page file lacks it"),
            },
            RowError::Storage(error) => error,
        })?;
        record::decode(revision, &record)
    }

    /// Makes the changes visible and returns the store revision after them. No change, no new
    /// revision.
    pub(crate) fn commit(self) -> i64 {
        if !self.rows.is_empty() {
            self.store.revision = self.main;
            for row in self.rows {
                self.store.recent.push(row);
            }
            for (key, lease) in self.attach {
                self.store.leases.attach(&key, lease);
            }
        }
        self.store.revision
    }

    /// Takes every change back.
    pub(crate) fn roll_back(self) {
        match self.before {
            Some(before) => self.store.index = before,
            None => assert!(
                self.rows.is_empty(),
                "a transaction that is not revocable has changes"
            ),
        }
    }
}
