//! The witness: every change of the key space, taken from the member that applies it first; and what all others
//! must agree with.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, ensure};
use bytes::Bytes;
use ferrite_api::pb::mvccpb::KeyValue;
use ferrite_storage::mvcc::recent::Row;
use ferrite_storage::state::State;
use prost::Message;

use super::queue::Time;
use crate::history::{Event, Pair, hash_value};

/// All changes, and hashes of all states.
#[derive(Debug, Default)]
pub(super) struct Witness {
    /// All events, in order.
    pub(super) log: Vec<Event>,
    /// The pairs after them.
    state: BTreeMap<Bytes, Pair>,
    /// A hash of the rows of each revision.
    rows: BTreeMap<i64, u64>,
    /// A hash of everything beside the rows, by applied index.
    rest: BTreeMap<u64, u64>,
    /// The digest of all rows, by revision and finished compaction.
    digests: BTreeMap<(i64, i64), u64>,
}

impl Witness {
    /// The last revision.
    pub(super) fn revision(&self) -> i64 {
        self.rows.last_key_value().map_or(1, |(last, _)| *last)
    }

    /// A member has applied what brings it from revision `before` to where it is.
    pub(super) fn rows(&mut self, now: Time, state: &State, before: i64) -> anyhow::Result<()> {
        let view = state.view();
        let mut last = before;
        let mut rows: Vec<&Row> = Vec::new();
        let mut all = view.recent.between(before, view.revision).peekable();
        while let Some(row) = all.next() {
            rows.push(row);
            let main = row.revision.main;
            if all.peek().is_none_or(|next| next.revision.main != main) {
                ensure!(main == last + 1, "rows go from revision {last} to {main}");
                last = main;
                self.revision_applied(now, main, &rows)?;
                rows.clear();
            }
        }
        ensure!(
            last == view.revision,
            "rows end at {last}, the store is at {}",
            view.revision
        );
        Ok(())
    }

    fn revision_applied(&mut self, now: Time, main: i64, rows: &[&Row]) -> anyhow::Result<()> {
        let mut hash = 0_u64;
        for row in rows {
            let id = [row.revision.sub as u64, u64::from(row.tombstone)];
            hash = hash.rotate_left(7) ^ hash_value(&row.record) ^ id[0] << 1 ^ id[1];
        }
        if let Some(known) = self.rows.get(&main) {
            ensure!(
                *known == hash,
                "revision {main} is not what it is on other members"
            );
            return Ok(());
        }
        ensure!(
            main == self.revision() + 1,
            "revision {main} comes after {}",
            self.revision()
        );
        self.rows.insert(main, hash);
        for row in rows {
            let kv = KeyValue::decode(row.record.clone())?;
            let pair = (!row.tombstone).then(|| Pair::from(&kv));
            let previous = match pair {
                Some(pair) => self.state.insert(kv.key.clone(), pair),
                None => self.state.remove(&kv.key),
            };
            self.log.push(Event {
                revision: main,
                key: kv.key,
                pair,
                previous,
                received: now,
            });
        }
        Ok(())
    }

    /// Compares a member's state with that of others at the same applied index. Whether somebody had been
    /// there before.
    pub(super) fn state(&mut self, state: &State) -> anyhow::Result<bool> {
        let store = state.store();
        let applied = state.applied().get();
        let (revision, compacted) = (store.revision(), store.compacted());
        let rest = rest(state);
        let known = *self
            .rest
            .entry(applied)
            .or_insert_with(|| hash_value(rest.as_bytes()));
        ensure!(
            known == hash_value(rest.as_bytes()),
            "the state at entry {applied} is not what it is on other members: {rest}"
        );
        if state.compacting() {
            return Ok(false);
        }
        let digest = state.digest();
        let mut first = false;
        let known = *self
            .digests
            .entry((revision, compacted))
            .or_insert_with(|| {
                first = true;
                digest
            });
        ensure!(
            known == digest,
            "at revision {revision}, compacted to {compacted}, the digest is {digest:016x}, elsewhere \
             {known:016x}"
        );
        Ok(!first)
    }

    /// The pairs of a revision, from the log.
    pub(super) fn pairs_at(&self, revision: i64) -> BTreeMap<&Bytes, Pair> {
        let mut pairs = BTreeMap::new();
        for event in self
            .log
            .iter()
            .take_while(|event| event.revision <= revision)
        {
            match event.pair {
                Some(pair) => pairs.insert(&event.key, pair),
                None => pairs.remove(&event.key),
            };
        }
        pairs
    }

    /// Compares every pair that a member has with the log.
    pub(super) fn pairs(&self, state: &State) -> anyhow::Result<()> {
        let all = Bytes::from_static(b"\0");
        let request = ferrite_api::pb::etcdserverpb::RangeRequest {
            key: all.clone(),
            range_end: all,
            ..Default::default()
        };
        let view = state.view();
        let read = view.range(&request).context("the store cannot be read")?;
        let mut pairs = BTreeMap::new();
        for record in read.kvs {
            let kv = KeyValue::decode(record)?;
            pairs.insert(kv.key.clone(), Pair::from(&kv));
        }
        let expected = self.pairs_at(view.revision);
        let wrong = expected.len() != pairs.len()
            || expected
                .iter()
                .any(|(key, pair)| pairs.get(*key) != Some(pair));
        ensure!(
            !wrong,
            "revision {} has {pairs:?}, not {expected:?}",
            view.revision
        );
        Ok(())
    }
}

/// Everything replicated beside the rows.
fn rest(state: &State) -> String {
    let store = state.store();
    let mut text = format!(
        "term {} revision {} compacted {} version {:?}",
        state.applied_term(),
        store.revision(),
        store.compacted(),
        state.cluster_version(),
    );
    // Writing to a string does not fail.
    for (id, lease) in state.leases().iter() {
        let _infallible = write!(text, " lease {id}: {lease:?} with");
        for key in state.leases().keys(id) {
            let _infallible = write!(text, " {}", String::from_utf8_lossy(key));
        }
    }
    for member in state.members().iter() {
        let _infallible = write!(text, " {member:?}");
    }
    let removed: Vec<_> = state.members().removed().collect();
    let _infallible = write!(
        text,
        " removed {removed:?} {:?} {:?}",
        state.conf_state(),
        state.alarms().list(0)
    );
    text
}
