//! The ledger of a load: what was sent, what was acknowledged, and the check of what is there.
//!
//! Every write creates a key of its own (`op/<n>`), so afterwards its presence tells whether the
//! write was applied, and the mod revision of that key in which order. Replaying the applied writes
//! in that order through a plain model gives every other key, the revision and the digest; the
//! store has to equal it to the byte.

use std::collections::BTreeMap;

use anyhow::{bail, ensure};
use bytes::{Bytes, BytesMut};
use ferrite_api::pb::mvccpb::KeyValue;
use ferrite_api::types::{LeaseId, Revision};
use ferrite_client::{Client, DeleteOptions, GetOptions, PutOptions, Txn, TxnOp};
use ferrite_storage::page::{RowId, record_digest};
use prost::Message;
use rand::Rng;
use rand::rngs::StdRng;

/// Shared keys that all clients overwrite and delete.
const SHARED: u32 = 50;
/// Pairs of a page of [`everything`].
const PAGE: i64 = 2_000;

/// One write of the load: in one transaction it creates `op/<number>`, puts a shared key, and may
/// delete another.
#[derive(Clone, Debug)]
pub struct Write {
    /// Unique in the load.
    pub number: u64,
    /// The shared key that it puts.
    pub shared: u32,
    /// The shared key that it deletes, if any.
    pub delete: Option<u32>,
    /// The value of both puts.
    pub value: Bytes,
    /// The lease of the key of its own; 0 for none.
    pub lease: i64,
}

impl Write {
    /// A write as chance has it. Half of them attach the key of their own to `lease`.
    pub fn random(rng: &mut StdRng, number: u64, lease: i64) -> Self {
        let length = if rng.random_bool(0.05) {
            rng.random_range(2_000..20_000)
        } else {
            100
        };
        let mut value = vec![0u8; length];
        rng.fill(&mut value[..]);
        let shared = rng.random_range(0..SHARED);
        // A transaction may not put and delete the same key.
        let delete =
            Some(rng.random_range(0..SHARED)).filter(|key| *key != shared && rng.random_bool(0.3));
        Self {
            number,
            shared,
            delete,
            value: Bytes::from(value),
            lease: if rng.random_bool(0.5) { lease } else { 0 },
        }
    }

    /// The transaction that does it.
    pub fn txn(&self) -> Txn {
        let mut ops = vec![
            TxnOp::put(
                self.own_key(),
                self.value.clone(),
                PutOptions::new().lease(LeaseId::new(self.lease)),
            ),
            TxnOp::put(
                Self::shared_key(self.shared),
                self.value.clone(),
                PutOptions::new(),
            ),
        ];
        if let Some(key) = self.delete {
            ops.push(TxnOp::delete(Self::shared_key(key), DeleteOptions::new()));
        }
        Txn::new().and_then(ops)
    }

    /// The key of its own.
    pub fn own_key(&self) -> Bytes {
        Bytes::from(format!("op/{:012}", self.number))
    }

    /// The shared key.
    pub fn shared_key(number: u32) -> Bytes {
        Bytes::from(format!("shared/{number:04}"))
    }
}

/// What became of a write, as far as its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Acknowledged with this revision.
    Acknowledged(i64),
    /// Sent, and no answer.
    Unknown,
    /// Refused in a way that promises that it never happens.
    Refused,
}

/// All writes of a load, by number.
#[derive(Debug)]
pub struct Ledger {
    writes: BTreeMap<u64, (Write, Fate)>,
    /// The revision at which the load began.
    base: i64,
}

impl Default for Ledger {
    /// Of a load that begins with a fresh store.
    fn default() -> Self {
        Self::after(1)
    }
}

/// What a ledger makes of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The store revision.
    pub revision: i64,
    /// The digest of all rows of the load.
    pub digest: u64,
    /// Writes that were applied although nobody was told.
    pub unacknowledged: usize,
}

impl Ledger {
    /// Of a load that begins at revision `base`.
    pub fn after(base: i64) -> Self {
        Self {
            writes: BTreeMap::new(),
            base,
        }
    }

    /// The first key that belongs to the load: all there are, in a store that was fresh.
    pub fn first_key(&self) -> Bytes {
        Bytes::from_static(if self.base == 1 { b"\0" } else { b"op/" })
    }

    /// Enters a write.
    pub fn enter(&mut self, write: Write, fate: Fate) {
        self.writes.insert(write.number, (write, fate));
    }

    /// How many writes were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.writes
            .values()
            .filter(|(_, fate)| matches!(fate, Fate::Acknowledged(_)))
            .count()
    }

    /// Checks a whole store (all its pairs from [`Ledger::first_key`] on, in key order) against the ledger. A write that is not
    /// there is struck out: it must not turn up later (as a key that nobody wrote).
    ///
    /// # Errors
    /// The first contradiction found.
    pub fn check(&mut self, pairs: &[KeyValue], revision: i64) -> anyhow::Result<Verdict> {
        let found: BTreeMap<&Bytes, &KeyValue> = pairs.iter().map(|kv| (&kv.key, kv)).collect();
        let mut order = BTreeMap::new();
        let mut lost = Vec::new();
        let mut unacknowledged = 0;
        for (number, (write, fate)) in &mut self.writes {
            match (found.get(&write.own_key()), *fate) {
                (Some(kv), fate) => {
                    let at = kv.mod_revision;
                    ensure!(
                        matches!(fate, Fate::Unknown) || fate == Fate::Acknowledged(at),
                        "write {number} is at revision {at}, its client was told {fate:?}"
                    );
                    unacknowledged += usize::from(fate == Fate::Unknown);
                    // From now on it has to stay.
                    if let Some(other) = order.insert(at, write.clone()) {
                        bail!("writes {} and {number} share revision {at}", other.number);
                    }
                }
                (None, Fate::Unknown | Fate::Refused) => lost.push(*number),
                (None, Fate::Acknowledged(at)) => {
                    bail!("write {number}, acknowledged at revision {at}, is gone");
                }
            }
        }
        for number in lost {
            self.writes.remove(&number);
        }
        for (at, write) in &order {
            if let Some((_, fate)) = self.writes.get_mut(&write.number) {
                *fate = Fate::Acknowledged(*at);
            }
        }

        let mut model = Model::after(self.base);
        for (at, write) in &order {
            ensure!(
                *at == model.revision + 1,
                "no write at revision {}",
                model.revision + 1
            );
            model.apply(write);
        }
        ensure!(
            revision == model.revision,
            "revision {revision}, the writes make {}",
            model.revision
        );
        let expected: Vec<&KeyValue> = model.pairs.values().collect();
        ensure!(
            pairs.len() == expected.len(),
            "{} pairs, expected {}",
            pairs.len(),
            expected.len()
        );
        for (is, must) in pairs.iter().zip(expected) {
            ensure!(is == must, "pair {is:?}, expected {must:?}");
        }
        Ok(Verdict {
            revision,
            digest: model.digest,
            unacknowledged,
        })
    }
}

/// All pairs of a store from the key `from` on, and the revision that was read: page by page, as
/// `options` say.
///
/// # Errors
/// A page cannot be read.
pub async fn everything(
    client: &Client,
    mut from: Bytes,
    options: GetOptions,
) -> anyhow::Result<(Vec<KeyValue>, i64)> {
    let mut pairs: Vec<KeyValue> = Vec::new();
    let mut revision = 0;
    loop {
        let mut options = options.clone().from_key().limit(PAGE);
        if revision != 0 {
            options = options.revision(revision);
        }
        let page = client.get(from.clone(), options).await?;
        if revision == 0 {
            revision = page.header.map_or(0, |header| header.revision);
        }
        if let Some(last) = page.kvs.last() {
            from = Bytes::from([&last.key[..], b"\0"].concat());
        }
        pairs.extend(page.kvs);
        if !page.more {
            return Ok((pairs, revision));
        }
    }
}

/// The store as the writes make it.
#[derive(Debug)]
struct Model {
    revision: i64,
    pairs: BTreeMap<Bytes, KeyValue>,
    digest: u64,
}

impl Model {
    fn after(base: i64) -> Self {
        Self {
            revision: base,
            pairs: BTreeMap::new(),
            digest: 0,
        }
    }

    fn apply(&mut self, write: &Write) {
        self.revision += 1;
        self.put(write.own_key(), write, write.lease, 0);
        self.put(Write::shared_key(write.shared), write, 0, 1);
        if let Some(number) = write.delete {
            let key = Write::shared_key(number);
            if self.pairs.remove(&key).is_some() {
                let record = KeyValue {
                    key,
                    ..KeyValue::default()
                };
                self.row(2, true, &record);
            }
        }
    }

    fn put(&mut self, key: Bytes, write: &Write, lease: i64, sub: i64) {
        let old = self.pairs.get(&key);
        let kv = KeyValue {
            create_revision: old.map_or(self.revision, |old| old.create_revision),
            mod_revision: self.revision,
            version: old.map_or(0, |old| old.version) + 1,
            value: write.value.clone(),
            lease,
            key: key.clone(),
        };
        self.row(sub, false, &kv);
        self.pairs.insert(key, kv);
    }

    fn row(&mut self, sub: i64, tombstone: bool, record: &KeyValue) {
        let mut bytes = BytesMut::with_capacity(record.encoded_len());
        record
            .encode(&mut bytes)
            .expect("the buffer has the encoded length");
        let id = RowId {
            revision: Revision::new(self.revision, sub),
            tombstone,
        };
        let digest = record_digest(id, &bytes).expect("a revision has a key");
        self.digest = self.digest.wrapping_add(digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(number: u64, shared: u32, delete: Option<u32>) -> Write {
        Write {
            number,
            shared,
            delete,
            value: Bytes::from(format!("v{number}")),
            lease: i64::from(shared),
        }
    }

    fn store(writes: &[Write]) -> Vec<KeyValue> {
        let mut model = Model::after(1);
        for write in writes {
            model.apply(write);
        }
        model.pairs.into_values().collect()
    }

    #[test]
    fn a_store_that_equals_the_writes_passes_and_others_do_not() {
        let writes = [write(1, 1, None), write(2, 2, Some(1)), write(3, 1, None)];
        let mut ledger = Ledger::default();
        ledger.enter(writes[0].clone(), Fate::Acknowledged(2));
        ledger.enter(writes[1].clone(), Fate::Unknown);
        ledger.enter(writes[2].clone(), Fate::Unknown);

        let verdict = ledger.check(&store(&writes[..2]), 3).unwrap();
        assert_eq!((verdict.revision, verdict.unacknowledged), (3, 1));
        // Write 3 was not there: it may not appear any more. Write 2 was: it may not vanish.
        assert!(ledger.check(&store(&writes), 4).is_err());
        assert!(ledger.check(&store(&writes[..1]), 2).is_err());
        assert!(ledger.check(&store(&writes[..2]), 3).is_ok());
        // A pair that differs in its version only.
        let mut pairs = store(&writes[..2]);
        pairs[0].version += 1;
        assert!(ledger.check(&pairs, 3).is_err());
    }
}
