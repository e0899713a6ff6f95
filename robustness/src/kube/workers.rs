//! The tasks that write and read.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{bail, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use ferrite_client::pb::etcdserverpb::response_op::Response;
use ferrite_client::{
    Client, CompactOptions, Compare, CompareOp, DeleteOptions, Error, GetOptions, LeaseId,
    PutOptions, Txn, TxnOp,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;

use super::monitor::Kind;
use super::{Recorded, Shared};
use crate::history::{
    Action, Change, Digest, Granted, Moment, Operation, Outcome, Pair, hash_value,
};

/// Tasks that update objects.
const WRITERS: u32 = 12;
/// Keys that share a lease at most, as in kube-apiserver.
const KEYS_PER_LEASE: u32 = 1000;
/// Life of an event.
pub(super) const EVENT_TTL: Duration = Duration::from_secs(60);
/// A lease takes new keys for so long.
const LEASE_REUSE: Duration = Duration::from_secs(10);
/// Pairs of a page.
const PAGE: i64 = 500;

/// The key through which compactions are agreed on.
const COMPACT_KEY: &str = "compact_rev_key";

/// The kinds of objects: prefix, and the range of their sizes in bytes.
pub(super) const RESOURCES: [(&str, std::ops::Range<usize>); 2] = [
    ("/registry/pods/", 700..4000),
    ("/registry/leases/", 200..400),
];
/// Where events are.
pub(super) const EVENTS: &str = "/registry/events/";

/// The objects, and what the writers believe of them.
#[derive(Debug)]
pub(super) struct Objects {
    /// The mod revision last seen; 0 = absent, as far as known.
    known: Vec<AtomicI64>,
    /// Numbers for values: no two are equal.
    values: AtomicU64,
}

impl Objects {
    pub(super) fn new(count: u32) -> Self {
        Self {
            known: (0..count).map(|_| AtomicI64::new(0)).collect(),
            values: AtomicU64::new(1),
        }
    }

    fn key(at: usize) -> Bytes {
        let (prefix, _) = &RESOURCES[at % RESOURCES.len()];
        Bytes::from(format!("{prefix}ns-{:02}/object-{at:06}", at % 17))
    }

    fn value(&self, rng: &mut StdRng, sizes: std::ops::Range<usize>) -> Bytes {
        let length = rng.random_range(sizes);
        let mut value = BytesMut::with_capacity(length + 8);
        value.put_u64(self.values.fetch_add(1, Ordering::Relaxed));
        // Compressible as JSON is, different as objects are.
        let seed: u8 = rng.random();
        value.extend((0..length).map(|at| seed.wrapping_add((at % 61) as u8)));
        value.freeze()
    }
}

pub(super) fn start(shared: &Shared, tasks: &mut JoinSet<anyhow::Result<Recorded>>) {
    for task in 0..WRITERS {
        tasks.spawn(writer(shared.clone(), task));
    }
    tasks.spawn(events(shared.clone()));
    tasks.spawn(getter(shared.clone()));
    for prefix in [RESOURCES[0].0, RESOURCES[1].0, EVENTS] {
        tasks.spawn(lister(shared.clone(), prefix));
    }
    tasks.spawn(compactor(shared.clone()));
}

/// Records what becomes of calls. Time-outs and lost connections are unknown outcomes, anything
/// else that is not an answer is a violation.
struct Recorder {
    shared: Shared,
    operations: Vec<Operation>,
}

impl Recorder {
    fn new(shared: &Shared) -> Self {
        Self {
            shared: shared.clone(),
            operations: Vec::new(),
        }
    }

    fn record(&mut self, called: Moment, action: Action, outcome: Outcome) {
        self.operations.push(Operation {
            called,
            returned: self.shared.now(),
            action,
            outcome,
        });
    }

    /// Changes a key if its mod revision is `expected`. Returns the mod revision that it has now,
    /// as far as known.
    async fn swap(
        &mut self,
        client: &Client,
        key: Bytes,
        expected: i64,
        value: Option<Bytes>,
        lease: i64,
    ) -> anyhow::Result<Option<i64>> {
        let change = match &value {
            Some(value) => Change::Put {
                value: hash_value(value),
                lease,
            },
            None => Change::Delete,
        };
        let deletes = value.is_none();
        let op = match value {
            Some(value) => TxnOp::put(
                key.clone(),
                value,
                PutOptions::new().lease(LeaseId::new(lease)),
            ),
            None => TxnOp::delete(key.clone(), DeleteOptions::new()),
        };
        let txn = Txn::new()
            .when([Compare::mod_revision(
                key.clone(),
                CompareOp::Equal,
                expected,
            )])
            .and_then([op])
            .or_else([TxnOp::get(key.clone(), GetOptions::new())]);
        let action = Action::Swap {
            key,
            expected,
            change,
        };
        let called = self.shared.now();
        let answer = client.txn(txn).await;
        let took = self.shared.now() - called;
        let response = match answer {
            Ok(response) => response,
            // The lease has ended meanwhile: a definite answer that changes nothing.
            Err(error) if is_lease_not_found(&error) => return Ok(None),
            Err(error) if lost(&error) => {
                self.record(called, action, Outcome::Unknown);
                return Ok(None);
            }
            Err(error) => bail!("{action:?}: {error}"),
        };
        self.shared.monitor.answered(Kind::Write, took);
        let revision = response.header.map_or(0, |header| header.revision);
        if response.succeeded {
            self.record(called, action, Outcome::Applied { revision });
            return Ok(Some(if deletes { 0 } else { revision }));
        }
        let current = match response
            .responses
            .first()
            .and_then(|op| op.response.as_ref())
        {
            Some(Response::ResponseRange(range)) => range.kvs.first().map(Pair::from),
            other => bail!("{action:?} was answered with {other:?}"),
        };
        self.record(called, action, Outcome::Refused { revision, current });
        Ok(Some(current.map_or(0, |pair| pair.modified)))
    }

    /// Reads a key. `None`: no answer.
    async fn get(&mut self, client: &Client, key: Bytes) -> anyhow::Result<Option<i64>> {
        let called = self.shared.now();
        let answer = client.get(key.clone(), GetOptions::new()).await;
        let took = self.shared.now() - called;
        let response = match answer {
            Ok(response) => response,
            Err(error) if lost(&error) => return Ok(None),
            Err(error) => bail!("get of {key:?}: {error}"),
        };
        self.shared.monitor.answered(Kind::Get, took);
        let revision = response.header.map_or(0, |header| header.revision);
        let pair = response.kvs.first().map(Pair::from);
        self.record(
            called,
            Action::Get { key },
            Outcome::Found { revision, pair },
        );
        Ok(Some(pair.map_or(0, |pair| pair.modified)))
    }

    /// Lists a prefix in pages, all at the revision of the first one.
    async fn list(&mut self, client: &Client, prefix: &'static str) -> anyhow::Result<()> {
        let end = ferrite_client::prefix_end(prefix.as_bytes());
        let called = self.shared.now();
        let (mut from, mut revision) = (Bytes::from_static(prefix.as_bytes()), 0);
        let mut digest = Digest::default();
        // For each page how many pairs stood before it, and how many it says there are from it on.
        let mut counts = Vec::new();
        loop {
            let options = GetOptions::new()
                .range(end.clone())
                .limit(PAGE)
                .revision(revision);
            let page_called = self.shared.now();
            let page = match client.get(from.clone(), options).await {
                Ok(page) => page,
                Err(error) if lost(&error) || is_compacted(&error) => return Ok(()),
                Err(error) => bail!("list of {prefix} at {revision}: {error}"),
            };
            self.shared
                .monitor
                .answered(Kind::Page, self.shared.now() - page_called);
            if revision == 0 {
                revision = page.header.map_or(0, |header| header.revision);
            }
            counts.push((digest.pairs, page.count));
            for kv in &page.kvs {
                digest.add(&kv.key, &Pair::from(kv));
            }
            match page.kvs.last() {
                Some(last) if page.more => from = Bytes::from([&last.key[..], b"\0"].concat()),
                _ => break,
            }
        }
        for (before, count) in counts {
            ensure!(
                i64::try_from(digest.pairs - before)? == count,
                "list of {prefix} at {revision}: {} pairs after {before}, the page said {count}",
                digest.pairs - before
            );
        }
        let action = Action::List {
            prefix: Bytes::from_static(prefix.as_bytes()),
        };
        self.record(called, action, Outcome::Listed { revision, digest });
        Ok(())
    }
}

/// No answer: the server was killed, or is not up again.
fn lost(error: &Error) -> bool {
    use tonic::Code::{Cancelled, DeadlineExceeded, Unavailable, Unknown};
    matches!(
        error.code(),
        Some(Unavailable | DeadlineExceeded | Cancelled | Unknown)
    )
}

fn is_lease_not_found(error: &Error) -> bool {
    error.etcd() == Some(ferrite_client::EtcdError::LeaseNotFound)
}

fn is_compacted(error: &Error) -> bool {
    error.etcd() == Some(ferrite_client::EtcdError::Compacted)
}

async fn writer(shared: Shared, task: u32) -> anyhow::Result<Recorded> {
    let mut rng = StdRng::seed_from_u64(shared.plan.seed ^ (u64::from(task) << 32));
    let client = shared.client().await?;
    let mut recorder = Recorder::new(&shared);
    let pause = Duration::from_secs(1) * WRITERS / shared.plan.writes_per_second.max(1);
    let mut next = shared.now();
    while !shared.stopped() {
        let at = rng.random_range(0..shared.objects.known.len());
        let (_, sizes) = &RESOURCES[at % RESOURCES.len()];
        let known = &shared.objects.known[at];
        let expected = known.load(Ordering::Relaxed);
        let delete = expected != 0 && rng.random_bool(0.05);
        let value = (!delete).then(|| shared.objects.value(&mut rng, sizes.clone()));
        let key = Objects::key(at);
        let seen = match recorder
            .swap(&client, key.clone(), expected, value, 0)
            .await?
        {
            Some(seen) => Some(seen),
            None => recorder.get(&client, key).await?,
        };
        if let Some(seen) = seen {
            known.store(seen, Ordering::Relaxed);
        }
        next = (next + pause).max(shared.now().saturating_sub(Duration::from_secs(1)));
        shared.until(next).await;
    }
    Ok(Recorded::Operations(recorder.operations))
}

/// Creates events, many on one lease, which are never touched again.
async fn events(shared: Shared) -> anyhow::Result<Recorded> {
    let mut rng = StdRng::seed_from_u64(shared.plan.seed ^ 0xe);
    let client = shared.client().await?;
    let mut recorder = Recorder::new(&shared);
    let mut leases: Vec<Granted> = Vec::new();
    let mut keys_on_lease = 0;
    let mut number = 0u64;
    // A tenth of all writes.
    let pause = Duration::from_secs(10) / shared.plan.writes_per_second.max(1);
    let mut next = shared.now();
    while !shared.stopped() {
        let usable = leases.last().filter(|lease| {
            keys_on_lease < KEYS_PER_LEASE && shared.now() < lease.called + LEASE_REUSE
        });
        let lease = match usable {
            Some(lease) => lease.id,
            None => {
                let called = shared.now();
                match client.leases().grant(EVENT_TTL.as_secs().try_into()?).await {
                    Ok(granted) => {
                        keys_on_lease = 0;
                        let ttl = Duration::from_secs(u64::try_from(granted.ttl)?);
                        leases.push(Granted {
                            id: granted.id,
                            ttl,
                            called,
                        });
                        granted.id
                    }
                    Err(error) if lost(&error) => continue,
                    Err(error) => bail!("grant of a lease: {error}"),
                }
            }
        };
        number += 1;
        keys_on_lease += 1;
        let key = Bytes::from(format!("{EVENTS}ns-{:02}/event-{number:09}", number % 17));
        let value = shared.objects.value(&mut rng, 400..900);
        recorder.swap(&client, key, 0, Some(value), lease).await?;
        next = (next + pause).max(shared.now().saturating_sub(Duration::from_secs(1)));
        shared.until(next).await;
    }
    Ok(Recorded::Events(recorder.operations, leases))
}

async fn getter(shared: Shared) -> anyhow::Result<Recorded> {
    let mut rng = StdRng::seed_from_u64(shared.plan.seed ^ 0x9e);
    let client = shared.client().await?;
    let mut recorder = Recorder::new(&shared);
    while !shared.stopped() {
        let at = rng.random_range(0..shared.objects.known.len());
        recorder.get(&client, Objects::key(at)).await?;
        shared.until(shared.now() + Duration::from_millis(5)).await;
    }
    Ok(Recorded::Operations(recorder.operations))
}

async fn lister(shared: Shared, prefix: &'static str) -> anyhow::Result<Recorded> {
    let client = shared.client().await?;
    let mut recorder = Recorder::new(&shared);
    while !shared.stopped() {
        recorder.list(&client, prefix).await?;
        shared.until(shared.now() + Duration::from_secs(1)).await;
    }
    Ok(Recorded::Operations(recorder.operations))
}

/// Compacts to where the store was one interval ago, agreed on through a key.
async fn compactor(shared: Shared) -> anyhow::Result<Recorded> {
    let client = shared.client().await?;
    let mut recorder = Recorder::new(&shared);
    let key = Bytes::from_static(COMPACT_KEY.as_bytes());
    let (mut expected, mut previous) = (0, 0);
    while !shared.stopped() {
        shared.until(shared.now() + shared.plan.compact_every).await;
        let mark = shared.objects.values.fetch_add(1, Ordering::Relaxed);
        let value = Bytes::from(mark.to_be_bytes().to_vec());
        let seen = match recorder
            .swap(&client, key.clone(), expected, Some(value), 0)
            .await?
        {
            Some(seen) => Some(seen),
            None => recorder.get(&client, key.clone()).await?,
        };
        let Some(seen) = seen else { continue };
        expected = seen;
        if previous > 0 {
            match client.compact(previous, CompactOptions::new()).await {
                Ok(_) => {}
                Err(error) if lost(&error) || is_compacted(&error) => {}
                Err(error) => bail!("compaction to {previous}: {error}"),
            }
        }
        previous = seen;
    }
    Ok(Recorded::Operations(recorder.operations))
}
