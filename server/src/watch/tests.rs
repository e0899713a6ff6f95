//! Streams against a naive model of what their watchers must see: whatever is put, deleted and
//! compacted, however the hub, the streams and their reads of history are scheduled, with bounds so
//! small that all of them are met.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use bytes::Bytes;
use ferrite_api::Version;
use ferrite_api::pb::etcdserverpb::request_op::Request;
use ferrite_api::pb::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, InternalRaftRequest, PutRequest, RequestOp, TxnRequest,
    WatchCreateRequest,
};
use ferrite_api::pb::mvccpb;
use ferrite_disk::Disk;
use ferrite_disk::sim::SimDisk;
use ferrite_disk::wal;
use ferrite_storage::checkpoint::{Policy, Reason};
use ferrite_storage::mvcc::range::KeyRange;
use ferrite_storage::page;
use ferrite_storage::state::State;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::bootstrap::{self, Origin};
use crate::member::{Cluster, Published};

/// Bounds that a handful of events exceeds.
fn tiny() -> Limits {
    Limits {
        ring_bytes: 2000,
        turn_events: 3,
        response_revisions: 3,
        window_bytes: 400,
        replay_revisions: 4,
        lanes: 2,
        chunk_bytes: 500,
        scan_rows: 4,
        narrow_keys: 2,
        fragment_bytes: 120,
    }
}

/// One change, as the model remembers it.
#[derive(Clone, Debug, PartialEq)]
struct Change {
    main: i64,
    key: Bytes,
    /// `None`: deleted.
    value: Option<Bytes>,
}

/// The store, its hub, and what the store must hold.
struct World {
    state: State,
    published: Arc<Published>,
    hub: Arc<Hub>,
    index: u64,
    history: Vec<Change>,
    compacted: i64,
    values: u64,
}

impl World {
    fn new(limits: Limits) -> Self {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        let restored = bootstrap::restore(&disk, &options()).unwrap();
        let state = restored.state;
        let published = Arc::new(Published::new(
            state.view(),
            Cluster::default(),
            Version::RELEASE,
        ));
        Self {
            hub: Arc::new(Hub::new(Arc::clone(&published), limits)),
            index: state.applied().get(),
            state,
            published,
            history: Vec::new(),
            compacted: -1,
            values: 0,
        }
    }

    fn revision(&self) -> i64 {
        self.state.store().revision()
    }

    fn apply(&mut self, request: InternalRaftRequest) {
        self.index += 1;
        let data = Bytes::from(request.encode_to_vec());
        self.state.apply(self.index, 1, &data).unwrap();
        self.published.set_view(self.state.view());
        self.published.set_applied(self.index);
    }

    fn live_at(&self, key: &Bytes, at: i64) -> Option<&Bytes> {
        let mut changes = self.history.iter().filter(|change| change.main <= at);
        let last = changes.rfind(|change| change.key == *key);
        last?.value.as_ref()
    }

    /// Puts all of these keys, in one revision.
    fn put(&mut self, keys: &BTreeSet<Bytes>) {
        let main = self.revision() + 1;
        let mut ops = Vec::new();
        for key in keys {
            self.values += 1;
            let value = Bytes::from(format!("value {}", self.values));
            ops.push(PutRequest {
                key: key.clone(),
                value: value.clone(),
                ..PutRequest::default()
            });
            self.history.push(Change {
                main,
                key: key.clone(),
                value: Some(value),
            });
        }
        let success = ops.into_iter().map(|put| RequestOp {
            request: Some(Request::RequestPut(put)),
        });
        self.apply(InternalRaftRequest {
            txn: Some(TxnRequest {
                success: success.collect(),
                ..TxnRequest::default()
            }),
            ..InternalRaftRequest::default()
        });
    }

    fn delete(&mut self, range: &KeyRange, key: &Bytes, range_end: &Bytes) {
        let now = self.revision();
        let keys: BTreeSet<Bytes> = self
            .history
            .iter()
            .map(|change| change.key.clone())
            .collect();
        for doomed in keys {
            if range.contains(&doomed) && self.live_at(&doomed, now).is_some() {
                self.history.push(Change {
                    main: now + 1,
                    key: doomed,
                    value: None,
                });
            }
        }
        self.apply(InternalRaftRequest {
            delete_range: Some(DeleteRangeRequest {
                key: key.clone(),
                range_end: range_end.clone(),
                ..DeleteRangeRequest::default()
            }),
            ..InternalRaftRequest::default()
        });
    }

    /// Compacts up to `back` revisions before the newest.
    fn compact(&mut self, back: i64) {
        let revision = self.revision() - back;
        if revision <= self.compacted.max(0) {
            return;
        }
        self.compacted = revision;
        self.apply(InternalRaftRequest {
            compaction: Some(CompactionRequest {
                revision,
                physical: false,
            }),
            ..InternalRaftRequest::default()
        });
    }

    /// Moves what was applied into the page file, and compacted rows out of it. These keys are put
    /// meanwhile.
    fn checkpoint(&mut self, meanwhile: &BTreeSet<Bytes>) {
        let policy = Policy {
            max_bytes: 1,
            remove_rows: 3,
            ..Policy::default()
        };
        for _ in 0..4 {
            let Some(job) = self.state.next_job(&policy, Reason::Aged) else {
                break;
            };
            if !meanwhile.is_empty() {
                self.put(meanwhile);
            }
            self.state.finish_job(job.run()).unwrap();
        }
        while self.state.prune_step(2) {}
        self.published.set_view(self.state.view());
        self.published.set_applied(self.index);
    }
}

fn options() -> bootstrap::Options {
    bootstrap::Options {
        data_dir: PathBuf::from("/data"),
        wal_dir: None,
        origin: Origin::New {
            name: "default".to_owned(),
            members: [(
                "default".to_owned(),
                vec!["http://localhost:2380".to_owned()],
            )]
            .into(),
            token: "etcd-cluster".to_owned(),
        },
        election_ticks: 10,
        pre_vote: true,
        seed: 1,
        page: page::Options {
            cache_bytes: 1 << 20,
            headroom_bytes: 1 << 20,
            ..page::Options::default()
        },
        wal: wal::Options {
            segment_bytes: 16 << 10,
            spare_segments: 1,
        },
        entry_cache_bytes: 4 << 10,
        force_new_cluster: false,
        defrag_threshold: 0,
        release: Version::RELEASE,
    }
}

/// What a client knows of one of its watchers.
#[derive(Debug)]
struct Expected {
    range: KeyRange,
    request: WatchCreateRequest,
    created: bool,
    /// The next revision that may bring an event.
    next: i64,
    progress: i64,
    /// Events of a response that has not come whole.
    fragments: Vec<(Arc<Event>, mvccpb::Event)>,
}

impl Expected {
    fn matches(&self, change: &Change) -> bool {
        let filter = i32::from(change.value.is_none());
        self.range.contains(&change.key) && !self.request.filters.contains(&filter)
    }

    fn between(&self, world: &World, from: i64, upto: i64) -> Vec<Change> {
        let changes = world
            .history
            .iter()
            .filter(|change| (from..=upto).contains(&change.main));
        changes
            .filter(|change| self.matches(change))
            .cloned()
            .collect()
    }
}

#[derive(Default)]
struct Alarm(AtomicBool);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A client that looks at its stream only when it was woken or has done something itself, and
/// checks all that it gets.
struct Client {
    stream: Stream,
    alarm: Arc<Alarm>,
    work: Option<CatchUp>,
    watchers: BTreeMap<i64, Expected>,
    /// Watchers that a compaction has ended and nobody has cancelled.
    ended: BTreeSet<i64>,
    /// Requests that were not answered: creations and, by id, cancellations.
    creating: std::collections::VecDeque<WatchCreateRequest>,
    canceling: std::collections::VecDeque<i64>,
    progress: i64,
    progress_answers: usize,
}

impl Client {
    fn new(world: &World) -> Self {
        let stream = Stream::new(
            Arc::clone(&world.hub),
            world.state.cluster_id(),
            world.state.member_id(),
        );
        Self {
            stream,
            alarm: Arc::new(Alarm(AtomicBool::new(true))),
            work: None,
            watchers: BTreeMap::new(),
            ended: BTreeSet::new(),
            creating: [].into(),
            canceling: [].into(),
            progress: 0,
            progress_answers: 0,
        }
    }

    fn runnable(&self) {
        self.alarm.0.store(true, Ordering::SeqCst);
    }

    fn create(&mut self, request: WatchCreateRequest) {
        self.creating.push_back(request.clone());
        self.stream.create(request);
        self.runnable();
    }

    fn cancel(&mut self, at: usize) {
        let known: Vec<i64> = self.watchers.keys().chain(&self.ended).copied().collect();
        if !known.is_empty() {
            let id = known[at % known.len()];
            self.canceling.push_back(id);
            self.stream.cancel(id);
            self.runnable();
        }
    }

    fn run_work(&mut self) {
        if let Some(work) = self.work.take() {
            self.stream.caught_up(work.run());
            self.runnable();
        }
    }

    /// Takes at most `most` responses. Returns whether there was something to do.
    fn poll(&mut self, world: &World, most: usize) -> bool {
        if !self.alarm.0.swap(false, Ordering::SeqCst) {
            return false;
        }
        self.stream.register(&Waker::from(Arc::clone(&self.alarm)));
        for _ in 0..most {
            match self.stream.step() {
                Step::Send(response) => self.take(world, &response),
                Step::Run(work) => {
                    assert!(self.work.is_none(), "one read at a time");
                    self.work = Some(work);
                }
                Step::Wait => return true,
                Step::Fail(error) => panic!("{error}"),
            }
        }
        self.runnable();
        true
    }

    fn take(&mut self, world: &World, response: &Response) {
        let (id, revision) = (response.watch_id, response.header.revision);
        match &response.content {
            Content::Created => self.created(world, id, revision),
            Content::Refused(reason) => {
                let request = self.creating.pop_front().expect("a request");
                assert_eq!((id, &reason[..]), (-1, refusal(&request)));
            }
            Content::Canceled => {
                while self.canceling.pop_front() != Some(id) {
                    assert!(!self.canceling.is_empty(), "nobody cancelled {id}");
                }
                if !self.ended.remove(&id) {
                    let watcher = self.watchers.remove(&id).expect("a watcher");
                    assert!(watcher.fragments.is_empty(), "cancelled inside a response");
                }
            }
            Content::Compacted(compaction) => {
                let watcher = self.watchers.remove(&id).expect("a watcher");
                self.ended.insert(id);
                assert!(watcher.created && watcher.fragments.is_empty());
                assert_eq!(revision, 0);
                assert!(watcher.next < *compaction && *compaction <= world.compacted);
            }
            Content::Progress if id == -1 => {
                assert!(!self.watchers.is_empty() && revision >= self.progress);
                self.progress = revision;
                self.progress_answers += 1;
                for watcher in self.watchers.values_mut() {
                    watcher.progress(world, revision);
                }
            }
            Content::Progress => {
                let watcher = self.watchers.get_mut(&id).expect("a watcher");
                assert!(watcher.request.progress_notify);
                watcher.progress(world, revision);
            }
            Content::Events {
                events,
                prev_since,
                more,
            } => {
                let watcher = self.watchers.get_mut(&id).expect("a watcher");
                assert_eq!(prev_since.is_some(), watcher.request.prev_kv);
                if let Some(since) = prev_since {
                    // What was put together before is sent in fragments as it was.
                    let now = *since == world.compacted;
                    assert!(now || (watcher.request.fragment && *since < world.compacted));
                }
                watcher.events(world, events, *more, response);
            }
        }
    }

    fn created(&mut self, world: &World, id: i64, revision: i64) {
        let request = self.creating.pop_front().expect("a request");
        assert!(request.watch_id == 0 || request.watch_id == id);
        assert!(
            !self.ended.contains(&id),
            "{id} is taken until it is cancelled"
        );
        assert!(revision <= world.revision());
        let watcher = Expected {
            range: KeyRange::new(request.key.clone(), &request.range_end),
            created: true,
            next: match request.start_revision {
                0 => revision + 1,
                start => start,
            },
            request,
            progress: 0,
            fragments: Vec::new(),
        };
        assert!(
            self.watchers.insert(id, watcher).is_none(),
            "two watchers {id}"
        );
    }
}

impl Expected {
    fn events(&mut self, world: &World, events: &[Arc<Event>], more: bool, response: &Response) {
        assert!(!events.is_empty());
        let limit = tiny().fragment_bytes;
        if self.request.fragment {
            assert!(events.len() == 1 || response.encoded_len() < limit);
        }
        assert!(!more || self.request.fragment);
        let part = events.iter().zip(response.to_message().events);
        self.fragments
            .extend(part.map(|(event, message)| (Arc::clone(event), message)));
        if more {
            return;
        }
        let events = std::mem::take(&mut self.fragments);
        let last = events.last().expect("at least one").0.revision().main;
        assert!(response.header.revision >= last && response.header.revision <= world.revision());
        let got: Vec<Change> = events
            .into_iter()
            .map(|(_, event)| {
                let kv = event.kv.expect("a pair");
                if event.r#type == 0 {
                    let first = kv.create_revision == kv.mod_revision;
                    let before = world.live_at(&kv.key, kv.mod_revision - 1);
                    assert_eq!((first, kv.version == 1), (before.is_none(), first));
                }
                self.check_prev(world, &kv.key, kv.mod_revision, event.prev_kv.as_ref());
                Change {
                    main: kv.mod_revision,
                    key: kv.key,
                    value: (event.r#type == 0).then_some(kv.value),
                }
            })
            .collect();
        // Ordered, unique, reliable, atomic, and filtered, all at once.
        assert_eq!(got, self.between(world, self.next, last));
        self.next = last + 1;
    }

    fn check_prev(&self, world: &World, key: &Bytes, main: i64, prev: Option<&mvccpb::KeyValue>) {
        let before = world.live_at(key, main - 1);
        match prev {
            Some(prev) => {
                assert!(self.request.prev_kv);
                // Also one that was looked up for another watcher before the compaction.
                assert!(self.request.fragment || main > world.compacted);
                assert_eq!(Some(&prev.value), before);
                assert!(prev.mod_revision < main && prev.key == *key);
            }
            None if self.request.prev_kv => {
                assert!(before.is_none() || main - 1 < world.compacted);
            }
            None => {}
        }
    }

    /// Everything up to `revision` has come.
    fn progress(&mut self, world: &World, revision: i64) {
        assert!(self.created && self.fragments.is_empty());
        assert!(revision >= self.progress, "progress goes back");
        assert!(
            revision >= self.request.start_revision,
            "before the watcher starts"
        );
        // A client resumes behind it: nothing may come twice.
        assert!(
            revision + 1 >= self.next,
            "{revision} after {}",
            self.next - 1
        );
        assert_eq!(self.between(world, self.next, revision), []);
        self.progress = revision;
        self.next = revision + 1;
    }
}

#[derive(Clone, Debug)]
enum Op {
    Put(BTreeSet<Bytes>),
    Delete(Bytes, Bytes),
    Compact(i64),
    Checkpoint(BTreeSet<Bytes>),
    Turn,
    Poll(usize, usize),
    Read(usize),
    Create(usize, WatchCreateRequest),
    Cancel(usize, usize),
    Progress(usize),
    Tick(usize),
    Reopen(usize),
}

const CLIENTS: usize = 3;

fn any_key() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(b'a'..b'd', 1..3).prop_map(Bytes::from)
}

fn any_end() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        2 => Just(Bytes::new()),
        1 => Just(Bytes::from_static(&[0])),
        2 => any_key(),
    ]
}

fn any_create() -> impl Strategy<Value = WatchCreateRequest> {
    let start = prop_oneof![4 => Just(0), 6 => 1i64..60, 1 => Just(-1), 1 => Just(i64::MAX - 2)];
    let filters = prop::collection::vec(0..2, 0..2);
    let id = prop_oneof![4 => Just(0), 1 => -1i64..4];
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (any_key(), any_end(), start, filters, id, flags).prop_map(
        |(key, range_end, start_revision, filters, watch_id, flags)| WatchCreateRequest {
            key,
            range_end,
            start_revision,
            filters,
            watch_id,
            prev_kv: flags.0,
            fragment: flags.1,
            progress_notify: flags.2,
        },
    )
}

fn any_op() -> impl Strategy<Value = Op> {
    let client = || 0..CLIENTS;
    prop_oneof![
        20 => prop::collection::btree_set(any_key(), 1..4).prop_map(Op::Put),
        3 => (any_key(), any_end()).prop_map(|(key, end)| Op::Delete(key, end)),
        2 => (0i64..20).prop_map(Op::Compact),
        4 => prop::collection::btree_set(any_key(), 0..3).prop_map(Op::Checkpoint),
        12 => Just(Op::Turn),
        12 => (client(), 1usize..8).prop_map(|(client, most)| Op::Poll(client, most)),
        6 => client().prop_map(Op::Read),
        8 => (client(), any_create()).prop_map(|(client, create)| Op::Create(client, create)),
        2 => (client(), any::<usize>()).prop_map(|(client, at)| Op::Cancel(client, at)),
        2 => client().prop_map(Op::Progress),
        2 => client().prop_map(Op::Tick),
        1 => client().prop_map(Op::Reopen),
    ]
}

fn run(ops: Vec<Op>, limits: Limits) {
    let mut world = World::new(limits);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::new(&world)).collect();
    for op in ops {
        match op {
            Op::Put(keys) => world.put(&keys),
            Op::Delete(key, end) => world.delete(&KeyRange::new(key.clone(), &end), &key, &end),
            Op::Compact(back) => world.compact(back),
            Op::Checkpoint(meanwhile) => world.checkpoint(&meanwhile),
            Op::Turn => {
                world.hub.turn();
            }
            Op::Poll(client, most) => {
                clients[client].poll(&world, most);
            }
            Op::Read(client) => clients[client].run_work(),
            Op::Create(client, request) => clients[client].create(request),
            Op::Cancel(client, at) => clients[client].cancel(at),
            Op::Progress(client) => {
                clients[client].stream.request_progress();
                clients[client].runnable();
            }
            Op::Tick(client) => {
                clients[client].stream.tick();
                clients[client].runnable();
            }
            Op::Reopen(client) => clients[client] = Client::new(&world),
        }
    }
    settle(&world, &mut clients);
    for client in &mut clients {
        assert!(client.creating.is_empty(), "a request without answer");
        for (id, watcher) in &client.watchers {
            let missing = watcher.between(&world, watcher.next, world.revision());
            assert_eq!(missing, [], "watcher {id} of {watcher:?} waits for ever");
        }
        // Everything is delivered, so progress is answered, unless a watcher waits for the future.
        let now = world.revision();
        let waits = |watcher: &Expected| watcher.request.start_revision > now;
        let answered = !client.watchers.is_empty() && !client.watchers.values().any(waits);
        let before = client.progress_answers;
        client.stream.request_progress();
        client.runnable();
        client.poll(&world, usize::MAX);
        assert_eq!(client.progress_answers - before, usize::from(answered));
        assert!(!answered || client.progress == now);
    }
    drop(clients);
    let counts = world.hub.counts();
    for count in [
        &counts.streams,
        &counts.watchers,
        &counts.behind,
        &counts.pending,
    ] {
        assert_eq!(count.load(Ordering::Relaxed), 0, "{counts:?}");
    }
}

/// Goes on until nobody has anything to do.
fn settle(world: &World, clients: &mut [Client]) {
    loop {
        let mut busy = false;
        while world.hub.turn() {
            busy = true;
        }
        for client in &mut *clients {
            busy |= client.work.is_some();
            client.run_work();
            busy |= client.poll(world, usize::MAX);
        }
        if !busy {
            return;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn watchers_see_what_the_model_says(ops in prop::collection::vec(any_op(), 1..200)) {
        run(ops, tiny());
    }

    #[test]
    fn also_with_a_ring_that_holds_everything(ops in prop::collection::vec(any_op(), 1..120)) {
        let limits = Limits { ring_bytes: 1 << 20, replay_revisions: 1000, ..tiny() };
        run(ops, limits);
    }
}

/// Why a request that was refused may be refused.
fn refusal(request: &WatchCreateRequest) -> &'static str {
    let range = KeyRange::new(request.key.clone(), &request.range_end);
    match request {
        WatchCreateRequest {
            start_revision: ..0,
            ..
        } => ferrite_api::Error::Compacted.message(),
        _ if range.is_empty() => stream::RANGE_EMPTY,
        WatchCreateRequest { watch_id: -1, .. } => stream::RESERVED_ID,
        _ => stream::DUPLICATE_ID,
    }
}
