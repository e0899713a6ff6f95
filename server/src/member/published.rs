//! What a member shows to the threads that serve requests: written by its owner after each batch,
//! read without locks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use arc_swap::ArcSwap;
use ferrite_api::Version;
use ferrite_storage::alarms::Alarms;
use ferrite_storage::auth::Auth;
use ferrite_storage::members::Members;
use ferrite_storage::mvcc::index::KeyIndex;
use ferrite_storage::mvcc::view::View;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::hashes::Hashes;

/// Members, alarms and versions of the cluster: changes rarely, so it is published apart.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// The members.
    pub members: Members,
    /// The active alarms.
    pub alarms: Alarms,
    /// The cluster version (`3.7.0`), once decided.
    pub version: Option<Version>,
    /// The version that a downgrade under way leads to.
    pub downgrade: Option<Version>,
}

/// The member's state as of the last finished batch.
#[derive(Debug)]
pub struct Published {
    release: Version,
    view: ArcSwap<View>,
    cluster: ArcSwap<Cluster>,
    auth: ArcSwap<Auth>,
    /// Whether authentication is on: what every call looks at first.
    auth_enabled: AtomicBool,
    roots: Roots,
    hashes: Hashes,
    term: AtomicU64,
    leader: AtomicU64,
    committed: AtomicU64,
    applied: AtomicU64,
    /// See [`Published::reads_locally`].
    reads_locally: AtomicBool,
    ready: AtomicBool,
    became_ready: Notify,
    no_space: AtomicBool,
    /// Whether somebody watches.
    watched: AtomicBool,
    /// There is a new view for those who watch.
    changed: Notify,
}

impl Published {
    /// Publishes a first state.
    pub fn new(view: View, cluster: Cluster, release: Version) -> Self {
        Self {
            release,
            view: ArcSwap::from_pointee(view),
            cluster: ArcSwap::from_pointee(cluster),
            auth: ArcSwap::from_pointee(Auth::default()),
            auth_enabled: AtomicBool::new(false),
            roots: Roots::default(),
            hashes: Hashes::default(),
            term: AtomicU64::new(0),
            leader: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            reads_locally: AtomicBool::new(false),
            ready: AtomicBool::new(false),
            became_ready: Notify::new(),
            no_space: AtomicBool::new(false),
            watched: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }

    /// The version of the member's program.
    pub fn release(&self) -> Version {
        self.release
    }

    /// Pins the newest view.
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// The newest membership.
    pub fn cluster(&self) -> Arc<Cluster> {
        self.cluster.load_full()
    }

    /// Users and roles. Taken after a view they are those of the view or newer.
    pub fn auth(&self) -> Arc<Auth> {
        self.auth.load_full()
    }

    /// Whether authentication is on, likewise.
    pub fn auth_enabled(&self) -> bool {
        self.auth_enabled.load(Ordering::Acquire)
    }

    /// Index roots of revisions that are being paged through.
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// Hashes of the last compactions.
    pub fn hashes(&self) -> &Hashes {
        &self.hashes
    }

    /// The current term.
    pub fn term(&self) -> u64 {
        self.term.load(Ordering::Acquire)
    }

    /// The leader; 0 when none is known.
    pub fn leader(&self) -> u64 {
        self.leader.load(Ordering::Acquire)
    }

    /// The commit index. Never below what was seen as applied before: entries are published as
    /// applied a moment before they are published as committed.
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire).max(self.applied())
    }

    /// The last applied entry whose effects can be seen in everything that is published, and in the
    /// lessor.
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// Whether the newest view answers a linearizable read without a round.
    ///
    /// True only while this member leads a configuration in which it is the only voter and has
    /// committed an entry of its term. Then nothing can be acknowledged anywhere else, and what is
    /// acknowledged here was applied and published before: a view pinned after the request arrived
    /// holds every write that was acknowledged before it. The owner withdraws the flag before any
    /// message leaves that could end the state.
    pub fn reads_locally(&self) -> bool {
        self.reads_locally.load(Ordering::Acquire)
    }

    /// Whether the member has published its name and client URLs and the cluster has a version:
    /// it may serve clients.
    pub fn ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Waits until the member is ready.
    pub async fn wait_ready(&self) {
        // Registered before the flag is read, so that the notice cannot fall in between.
        let notice = self.became_ready.notified();
        if !self.ready() {
            notice.await;
        }
    }

    /// Whether the disk has no room for a checkpoint or a log segment: writes that need space are
    /// refused until it has.
    pub fn no_space(&self) -> bool {
        self.no_space.load(Ordering::Acquire)
    }

    /// Waits for a view that was published while somebody watched.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Says whether somebody watches. A view that is taken after `true` was said is the newest, or
    /// [`Published::changed`] tells of the newer one.
    pub(crate) fn set_watched(&self, watched: bool) {
        self.watched.store(watched, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// To be called before the index is set that it shows.
    pub(crate) fn set_view(&self, view: View) {
        self.view.store(Arc::new(view));
        // Pairs with `set_watched`: either this sees that somebody watches, or they see the view.
        fence(Ordering::SeqCst);
        if self.watched.load(Ordering::SeqCst) {
            self.changed.notify_one();
        }
    }

    /// Everything up to there can be seen. Always the last to be set: another thread may answer a
    /// linearizable read as soon as it is, and whatever that looks at has to be there.
    pub(crate) fn set_applied(&self, index: u64) {
        self.applied.store(index, Ordering::Release);
    }

    /// To be called before the view is set that shows what follows from it.
    pub(super) fn set_auth(&self, auth: Arc<Auth>) {
        let enabled = auth.enabled();
        self.auth.store(auth);
        self.auth_enabled.store(enabled, Ordering::Release);
    }

    pub(super) fn set_cluster(&self, cluster: Cluster) {
        self.cluster.store(Arc::new(cluster));
    }

    pub(crate) fn set_raft(&self, term: u64, leader: u64, committed: u64, reads_locally: bool) {
        self.term.store(term, Ordering::Release);
        self.leader.store(leader, Ordering::Release);
        self.committed.store(committed, Ordering::Release);
        self.reads_locally.store(reads_locally, Ordering::Release);
    }

    pub(super) fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
        self.became_ready.notify_waiters();
    }

    pub(super) fn set_no_space(&self, no_space: bool) {
        self.no_space.store(no_space, Ordering::Release);
    }
}

/// Index roots of revisions that clients page through.
///
/// A page at an older revision asks for the exact count of keys at that revision. On the newest
/// root that means looking at everything that changed since; on the root of that very revision it
/// is a walk down one path. A root costs the nodes that have been copied since, so only a few are
/// kept, the least recently used goes first.
#[derive(Debug, Default)]
pub struct Roots {
    // Held for a handful of comparisons; never together with another lock.
    kept: Mutex<VecDeque<(i64, KeyIndex)>>,
}

/// Lists under way at the same time, at different revisions, that profit.
const ROOTS: usize = 8;

impl Roots {
    /// Keeps the root of `view` at its revision, because a page of it was just cut by its limit.
    pub fn keep(&self, view: &View) {
        let mut kept = self.kept.lock();
        if kept.iter().any(|(revision, _)| *revision == view.revision) {
            return;
        }
        if kept.len() == ROOTS {
            kept.pop_front();
        }
        kept.push_back((view.revision, view.index.clone()));
    }

    /// The root kept for `revision`.
    pub fn get(&self, revision: i64) -> Option<KeyIndex> {
        let mut kept = self.kept.lock();
        let at = kept.iter().position(|(kept, _)| *kept == revision)?;
        let root = kept.remove(at)?;
        let index = root.1.clone();
        kept.push_back(root);
        Some(index)
    }

    /// Forgets roots below a compaction: nobody may read there any more.
    pub fn compacted(&self, revision: i64) {
        self.kept.lock().retain(|(kept, _)| *kept >= revision);
    }
}
