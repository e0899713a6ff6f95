//! One attempt at a transaction: what it has read and will write.
//!
//! | Isolation | Reads | Compares at commit |
//! |---|---|---|
//! | SerializableSnapshot | the first linearizable, later ones at its revision | each read key is unchanged; no written key is newer than the first read |
//! | Serializable | same | each read key is unchanged |
//! | RepeatableReads | serializable, the first value of a key is kept | each read key is unchanged |
//! | ReadCommitted | serializable | none |
//!
//! A refused commit of the first two levels reads the keys again in the same step. The next
//! attempt uses these values for the keys that it reads, too: a conflict costs no extra call.

use std::collections::BTreeMap;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::mvccpb::KeyValue;

use super::Isolation;
use crate::concurrency::range_at;
use crate::{Compare, CompareOp, DeleteOptions, Error, GetOptions, PutOptions, Txn, TxnOp};

/// See the module.
#[derive(Debug)]
pub(super) struct Attempt {
    isolation: Isolation,
    reads: BTreeMap<Bytes, Read>,
    writes: BTreeMap<Bytes, Write>,
    /// Read by the refused commit before, all at one revision. A read of this attempt only when it
    /// is asked for.
    prefetched: BTreeMap<Bytes, Read>,
    /// The revision that later reads come from.
    pinned: Option<i64>,
}

#[derive(Clone, Debug)]
struct Read {
    kv: Option<KeyValue>,
    /// The store's revision when it was read.
    revision: i64,
}

#[derive(Clone, Debug)]
enum Write {
    Put(Bytes, PutOptions),
    Delete,
}

impl Attempt {
    pub(super) fn new(isolation: Isolation) -> Attempt {
        Attempt {
            isolation,
            reads: BTreeMap::new(),
            writes: BTreeMap::new(),
            prefetched: BTreeMap::new(),
            pinned: None,
        }
    }

    fn is_pinning(&self) -> bool {
        match self.isolation {
            Isolation::SerializableSnapshot | Isolation::Serializable => true,
            Isolation::RepeatableReads | Isolation::ReadCommitted => false,
        }
    }

    pub(super) fn is_written(&self, key: &Bytes) -> bool {
        self.writes.contains_key(key)
    }

    /// The keys that are not known and must be fetched.
    pub(super) fn missing(&mut self, keys: Vec<Bytes>) -> Vec<Bytes> {
        for key in &keys {
            let usable = |read: &Read| self.pinned.is_none_or(|pinned| pinned == read.revision);
            if !self.reads.contains_key(key)
                && self.prefetched.get(key).is_some_and(usable)
                && let Some(read) = self.prefetched.remove(key)
            {
                self.pinned = Some(read.revision);
                self.reads.insert(key.clone(), read);
            }
        }
        let mut missing = keys;
        missing.retain(|key| !self.reads.contains_key(key));
        missing.sort();
        missing.dedup();
        missing
    }

    /// The reads of those keys, in this order.
    pub(super) fn fetch(&self, keys: &[Bytes]) -> Txn {
        let options = match (self.is_pinning(), self.pinned) {
            (true, None) => GetOptions::new(),
            (true, Some(revision)) => GetOptions::new().revision(revision).serializable(),
            (false, _) => GetOptions::new().serializable(),
        };
        Txn::new().and_then(
            keys.iter()
                .map(|key| TxnOp::get(key.clone(), options.clone())),
        )
    }

    /// Takes the answer to [`Attempt::fetch`].
    pub(super) fn fetched(
        &mut self,
        keys: Vec<Bytes>,
        answer: &pb::TxnResponse,
    ) -> Result<(), Error> {
        let revision = answer.header.unwrap_or_default().revision;
        // Pinned reads belong to the revision they were made at, whatever the store has since.
        let revision = self.pinned.unwrap_or(revision);
        self.reads.extend(reads(keys, answer, revision)?);
        if self.is_pinning() {
            self.pinned = Some(revision);
        }
        Ok(())
    }

    /// A value as this transaction sees it.
    pub(super) fn value(&self, key: &Bytes) -> Option<Bytes> {
        match self.writes.get(key) {
            Some(Write::Put(value, _)) => Some(value.clone()),
            Some(Write::Delete) => None,
            None => Some(self.reads.get(key)?.kv.as_ref()?.value.clone()),
        }
    }

    /// The revision of a key as it was read.
    pub(super) fn revision(&self, key: &Bytes) -> i64 {
        let read = self.reads.get(key).and_then(|read| read.kv.as_ref());
        read.map_or(0, |kv| kv.mod_revision)
    }

    pub(super) fn put(&mut self, key: Bytes, value: Bytes, options: PutOptions) {
        self.writes.insert(key, Write::Put(value, options));
    }

    pub(super) fn delete(&mut self, key: Bytes) {
        self.writes.insert(key, Write::Delete);
    }

    /// The step that applies the attempt, if nothing has come in between.
    pub(super) fn commit(&self) -> Txn {
        let mut txn = Txn::new();
        if self.isolation != Isolation::ReadCommitted {
            let unchanged = |key: &Bytes| {
                Compare::mod_revision(key.clone(), CompareOp::Equal, self.revision(key))
            };
            txn = txn.when(self.reads.keys().map(unchanged));
        }
        if self.isolation == Isolation::SerializableSnapshot {
            // Without a read nothing is too new.
            let first = self.reads.values().map(|read| read.revision).min();
            let bound = first.map_or(i64::MAX, |first| first + 1);
            let not_newer =
                |key: &Bytes| Compare::mod_revision(key.clone(), CompareOp::Less, bound);
            txn = txn.when(self.writes.keys().map(not_newer));
        }
        txn = txn.and_then(self.writes.iter().map(|(key, write)| match write {
            Write::Put(value, options) => TxnOp::put(key.clone(), value.clone(), options.clone()),
            Write::Delete => TxnOp::delete(key.clone(), DeleteOptions::new()),
        }));
        if self.is_pinning() {
            let again = |key: &Bytes| TxnOp::get(key.clone(), GetOptions::new());
            txn = txn.or_else(self.reads.keys().map(again));
        }
        txn
    }

    /// Begins anew after a refused commit.
    pub(super) fn restart(&mut self, answer: &pb::TxnResponse) -> Result<(), Error> {
        let keys: Vec<Bytes> = std::mem::take(&mut self.reads).into_keys().collect();
        self.writes.clear();
        self.pinned = None;
        self.prefetched.clear();
        if self.is_pinning() {
            let revision = answer.header.unwrap_or_default().revision;
            self.prefetched.extend(reads(keys, answer, revision)?);
        }
        Ok(())
    }
}

/// The answers to reads of single keys.
fn reads(
    keys: Vec<Bytes>,
    answer: &pb::TxnResponse,
    revision: i64,
) -> Result<Vec<(Bytes, Read)>, Error> {
    let read = |(index, key)| {
        let range = range_at(answer, index)?;
        let kv = range.kvs.first().cloned();
        Ok((key, Read { kv, revision }))
    };
    keys.into_iter().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests;
