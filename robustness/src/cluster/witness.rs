//! The witness: compares what each member has with the model and with what others have.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, ensure};
use bytes::Bytes;
use ferrite_api::pb::etcdserverpb::RangeRequest;
use ferrite_api::pb::mvccpb::KeyValue;
use ferrite_server::member::Hashes;
use ferrite_storage::mvcc::recent::Row;
use ferrite_storage::state::State;
use prost::Message;

use super::model::Model;
use crate::history::{Event, Pair, hash_value};

/// Hashes of all states.
#[derive(Debug, Default)]
pub(super) struct Witness {
    /// A hash of the rows of each revision.
    rows: BTreeMap<i64, u64>,
    /// A hash of everything beside the rows, by applied index.
    rest: BTreeMap<u64, u64>,
    /// What compactions have hashed, by revision.
    hashes: BTreeMap<i64, (u32, i64)>,
    /// The digest of all rows, by revision and finished compaction.
    digests: BTreeMap<(i64, i64), u64>,
}

impl Witness {
    /// A member has applied what brings it from revision `before` to where it is.
    pub(super) fn rows(&mut self, model: &Model, state: &State, before: i64) -> anyhow::Result<()> {
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
                self.revision(model, main, &rows)?;
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

    fn revision(&mut self, model: &Model, main: i64, rows: &[&Row]) -> anyhow::Result<()> {
        let mut hash = 0_u64;
        for row in rows {
            let id = [row.revision.sub as u64, u64::from(row.tombstone)];
            hash = hash.rotate_left(7) ^ hash_value(&row.record) ^ id[0] << 1 ^ id[1];
        }
        if let Some(known) = self.rows.insert(main, hash) {
            ensure!(
                known == hash,
                "revision {main} is not what it is on other members"
            );
            return Ok(());
        }
        let first = model.events.partition_point(|event| event.revision < main);
        let mut events = model.events[first..].iter();
        for row in rows {
            let kv = KeyValue::decode(row.record.clone())?;
            let pair = (!row.tombstone).then(|| Pair::from(&kv));
            let event = events.next().filter(|event| event.revision == main);
            let right = event.is_some_and(|event| event.key == kv.key && event.pair == pair);
            ensure!(
                right,
                "revision {main} has {kv:?} where {event:?} should be"
            );
        }
        let rest = events.next().filter(|event| event.revision == main);
        ensure!(rest.is_none(), "revision {main} lacks {rest:?}");
        Ok(())
    }

    /// Compares a member's state with that of others at the same applied index. Whether somebody had been
    /// there before.
    pub(super) fn state(&mut self, state: &State, hashes: &Hashes) -> anyhow::Result<bool> {
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
        if let Some(hash) = hashes.get(compacted) {
            let hash = (hash.hash, hash.compact_revision);
            let known = *self.hashes.entry(compacted).or_insert(hash);
            ensure!(
                known == hash,
                "the compaction to {compacted} hashes to {hash:?}, elsewhere to {known:?}"
            );
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
}

/// Compares every pair that a member has with the model.
pub(super) fn pairs(model: &Model, state: &State) -> anyhow::Result<()> {
    let all = Bytes::from_static(b"\0");
    let request = RangeRequest {
        key: all.clone(),
        range_end: all,
        ..RangeRequest::default()
    };
    let view = state.view();
    let read = view.range(&request).context("the store cannot be read")?;
    let mut pairs = BTreeMap::new();
    for record in read.kvs {
        let kv = KeyValue::decode(record)?;
        pairs.insert(kv.key.clone(), Pair::from(&kv));
    }
    let mut expected = BTreeMap::new();
    let upto = |event: &&Event| event.revision <= view.revision;
    for event in model.events.iter().take_while(upto) {
        match event.pair {
            Some(pair) => expected.insert(event.key.clone(), pair),
            None => expected.remove(&event.key),
        };
    }
    ensure!(
        pairs == expected,
        "revision {} has {pairs:?}, not {expected:?}",
        view.revision
    );
    Ok(())
}

/// Everything replicated beside the rows.
fn rest(state: &State) -> String {
    let store = state.store();
    let mut text = format!(
        "term {} revision {} compacted {} version {:?}",
        state.applied_term(),
        store.revision(),
        store.compacted(),
        (state.cluster_version(), state.downgrade()),
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
