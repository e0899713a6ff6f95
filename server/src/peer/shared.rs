//! What all tasks of the transport share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ferrite_api::types::MemberId;
use parking_lot::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Sink;
use super::identity::Identity;
use super::link::Link;
use super::listen::Refused;
use super::pages::Directory;
use super::via::Via;
use crate::metrics::Metrics;

pub(super) struct Shared {
    pub(super) identity: Identity,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) directory: Arc<dyn Directory>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) dial_timeout: Duration,
    pub(super) queue_bytes: usize,
    /// How connections to other members are made.
    pub(super) via: Via,
    pub(super) roster: RwLock<Roster>,
    pub(super) connections: Connections,
    /// Whom this side has refused, to say each only once.
    pub(super) refused: Refused,
    session: AtomicU64,
    /// Nothing new begins; what is queued goes out.
    pub(super) draining: CancellationToken,
    /// Everything ends.
    pub(super) end: CancellationToken,
    pub(super) tasks: TaskTracker,
}

/// Who is in the cluster, and who was.
#[derive(Debug, Default)]
pub(super) struct Roster {
    pub(super) links: BTreeMap<MemberId, Arc<Link>>,
    pub(super) removed: BTreeSet<MemberId>,
}

/// Which peers can be reached, and since when. Clones show the same.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    since: Arc<Mutex<BTreeMap<MemberId, Instant>>>,
}

impl Connections {
    /// When the connection to a peer, which is there now, was made; `None` if there is none.
    pub fn since(&self, peer: MemberId) -> Option<Instant> {
        self.since.lock().get(&peer).copied()
    }
}

impl Shared {
    /// Those of `session` are the highest sessions so far.
    pub(super) fn new(
        identity: Identity,
        sink: Arc<dyn Sink>,
        directory: Arc<dyn Directory>,
        metrics: Arc<Metrics>,
        (dial_timeout, queue_bytes): (Duration, usize),
        via: Via,
        session: u64,
    ) -> Self {
        Self {
            identity,
            sink,
            directory,
            metrics,
            dial_timeout,
            queue_bytes,
            via,
            roster: RwLock::default(),
            connections: Connections::default(),
            refused: Refused::default(),
            session: AtomicU64::new(session),
            draining: CancellationToken::new(),
            end: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// A session, higher than all before.
    pub(super) fn next_session(&self) -> u64 {
        self.session.fetch_add(1, Ordering::Relaxed)
    }

    /// A peer has seen a session of this member that is higher than those to come.
    pub(super) fn begin_sessions_after(&self, newest: u64) {
        self.session
            .fetch_max(newest.saturating_add(1), Ordering::Relaxed);
    }

    pub(super) fn link(&self, peer: MemberId) -> Option<Arc<Link>> {
        self.roster.read().links.get(&peer).cloned()
    }

    /// The stream to a peer is there.
    pub(super) fn established(&self, link: &Link) {
        let now = Instant::now();
        *link.since.lock() = Some(now);
        self.connections.since.lock().insert(link.peer, now);
        link.metrics.active.set(1);
        self.sink.reachable(link.peer, true);
    }

    /// The stream to a peer is gone, if there was one.
    pub(super) fn lost(&self, link: &Link) {
        let Some(at) = link.since.lock().take() else {
            return;
        };
        let mut since = self.connections.since.lock();
        // Not the one of a new link to the same peer.
        if since.get(&link.peer) == Some(&at) {
            since.remove(&link.peer);
        }
        drop(since);
        link.metrics.active.set(0);
        link.metrics.disconnected.inc();
        self.sink.reachable(link.peer, false);
    }
}
