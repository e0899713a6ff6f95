//! Reads through a handle of a store on a simulated disk, without a member around it: what is
//! applied, checkpointed and published is up to the test.

mod list;
mod range_stream;
mod snapshot;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ferrite_api::Version;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::types::{ClusterId, MemberId};
use ferrite_disk::Disk;
use ferrite_disk::sim::SimDisk;
use ferrite_storage::checkpoint::{Policy, Reason};
use ferrite_storage::members;
use ferrite_storage::page::{ConfState, Initial, MetaUpdate, Options, PageFile};
use ferrite_storage::state::State;
use parking_lot::Mutex;
use prost::Message;

use super::{Handle, Inner, Limits, Readers, Running, Watching};
use crate::auth::passwords::Hashing;
use crate::auth::{SimpleTokens, Tokens};
use crate::config::Features;
use crate::lessor::{self, Lessor};
use crate::member::{Cluster, Published, Reads};
use crate::metrics::{self, Metrics};
use crate::quota::Quota;
use crate::request_id::RequestIds;
use crate::shell::Clock;
use crate::watch::{self, Hub};

const PATH: &str = "/data/db";

/// `--max-request-bytes` of the tests.
const MAX_REQUEST_BYTES: usize = 1_572_864;

pub(crate) struct Store {
    pub(crate) disk: SimDisk,
    pub(crate) state: State,
    pub(crate) published: Arc<Published>,
    pub(crate) handle: Handle,
    entries: u64,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self::with_ids(1, 7)
    }

    /// The ids of the cluster and of the member.
    pub(crate) fn with_ids(cluster_id: u64, member_id: u64) -> Self {
        let disk = SimDisk::new(3);
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        shared.create_dir(Path::new("/data")).unwrap();
        let member = MemberId::new(member_id);
        let initial = Initial {
            cluster_id,
            member_id: member.get(),
            meta: MetaUpdate {
                conf_state: Some(ConfState {
                    voters: vec![member_id],
                    ..Default::default()
                }),
                ..Default::default()
            },
            tables: vec![members::row(&members::unstarted(member, vec![]))],
        };
        // Every page comes from the disk.
        let options = Options {
            cache_bytes: 0,
            headroom_bytes: 0,
            ..Options::default()
        };
        let page = PageFile::create(&shared, Path::new(PATH), options, &initial).unwrap();
        let state = State::restore(Arc::new(page)).unwrap();
        let published = Arc::new(Published::new(
            state.view(),
            Cluster::default(),
            Version::RELEASE,
        ));
        // No test here grants or watches.
        let lessor = lessor::Options {
            election_timeout: Duration::from_secs(1),
            min_ttl: 2,
            retry: Duration::from_secs(7),
            checkpoint_interval: None,
        };
        let hub = Hub::new(
            Arc::clone(&published),
            watch::Limits::new(MAX_REQUEST_BYTES),
        );
        let ids = Arc::new(RequestIds::new(member, 1));
        let reads = Reads::new(member, 70, Arc::clone(&published), Arc::clone(&ids));
        let handle = Handle::new(Inner {
            cluster_id: ClusterId::new(cluster_id),
            member_id: member,
            published: Arc::clone(&published),
            inbox: Arc::default(),
            ids,
            reads: Arc::new(reads),
            limits: Limits {
                max_request_bytes: MAX_REQUEST_BYTES,
                max_txn_ops: 128,
                quota: Quota { bytes: -1 },
                request_timeout: Duration::from_secs(7),
            },
            features: Features::default(),
            paused: Running::default(),
            metrics: Metrics::new(metrics::Options::default()),
            lessor: Arc::new(Mutex::new(Lessor::new(lessor, std::iter::empty()))),
            tokens: Tokens::new("", Arc::new(Mutex::new(SimpleTokens::new(Duration::ZERO))))
                .unwrap(),
            hashing: Hashing::new(4),
            clock: Clock::start(),
            watching: Watching::new(Arc::new(hub), Duration::from_secs(600)),
            readers: Readers::default(),
            page_path: PathBuf::from("/db"),
            peers: None,
        });
        Self {
            disk,
            state,
            published,
            handle,
            entries: 0,
        }
    }

    pub(crate) fn apply(&mut self, mut request: pb::InternalRaftRequest) {
        self.entries += 1;
        request.header = Some(pb::RequestHeader {
            id: self.entries,
            ..Default::default()
        });
        let entry = request.encode_to_vec().into();
        let applied = self.state.apply(self.entries, 1, &entry).unwrap().unwrap();
        applied.result.unwrap();
        self.published.set_view(self.state.view());
        self.published.set_applied(self.entries);
    }

    pub(crate) fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        let put = pb::PutRequest {
            key: key.into(),
            value: value.into(),
            ..Default::default()
        };
        self.apply(pb::InternalRaftRequest {
            put: Some(put),
            ..Default::default()
        });
    }

    pub(crate) fn compact(&mut self, revision: i64) {
        let compaction = pb::CompactionRequest {
            revision,
            physical: false,
        };
        self.apply(pb::InternalRaftRequest {
            compaction: Some(compaction),
            ..Default::default()
        });
    }

    /// What the threads beside the member do when it is their time: a hash, one job and some pruning.
    /// Whether there was a job.
    pub(crate) fn checkpoint(&mut self) -> bool {
        let policy = Policy {
            max_bytes: usize::MAX,
            remove_rows: usize::MAX,
            ..Policy::default()
        };
        if let Some(hash) = self.state.next_hash() {
            self.state.finish_hash(hash.run()).unwrap();
        }
        let Some(job) = self.state.next_job(&policy, Reason::Aged) else {
            return false;
        };
        self.state.finish_job(job.run()).unwrap();
        self.state.prune_step(100);
        self.published.set_view(self.state.view());
        self.published.set_applied(self.entries);
        true
    }

    /// Lets those threads go on until the compaction is done.
    pub(crate) fn finish_compaction(&mut self) {
        for _ in 0..1000 {
            if !self.state.compacting() {
                return;
            }
            self.checkpoint();
            self.state.prune_step(1000);
            self.published.set_view(self.state.view());
            self.published.set_applied(self.entries);
        }
        panic!("the compaction does not end");
    }

    /// `count` keys `k00000`, ... of values that begin with their number; the rows are in the page
    /// file.
    pub(crate) fn filled(count: usize, value_len: usize) -> Self {
        let mut store = Self::new();
        for number in 0..count {
            store.put(key(number), value(number, value_len));
        }
        assert!(store.checkpoint());
        store
    }

    pub(crate) fn has_pins(&self) -> bool {
        self.published.view().pins.oldest().is_some()
    }
}

pub(crate) fn key(number: usize) -> String {
    format!("k{number:05}")
}

/// The number in decimal, with zeros before it up to the length.
pub(crate) fn value(number: usize, length: usize) -> String {
    let digits = number.to_string();
    "0".repeat(length.saturating_sub(digits.len())) + &digits
}

/// Every key, without a read index.
pub(crate) fn everything() -> pb::RangeRequest {
    pb::RangeRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        serializable: true,
        ..Default::default()
    }
}

/// Waits for what other tasks bring about.
pub(crate) async fn until(what: impl Fn() -> bool) {
    let patience = std::time::Duration::from_secs(30);
    let waited = tokio::time::timeout(patience, async {
        while !what() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    });
    waited.await.expect("happens soon");
}

/// A view is published before the commit index: the status shows both as of the view.
#[test]
fn s8_status_never_shows_more_applied_than_committed() {
    let mut store = Store::new();
    store.put("a", "1");
    let status = store.handle.status();
    assert!(status.raft_applied_index > 0);
    assert_eq!(status.raft_index, status.raft_applied_index);
}
