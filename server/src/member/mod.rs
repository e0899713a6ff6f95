//! `Member`: everything that decides, without clocks, threads, sockets or files.
//!
//! ```text
//!   Input ─▶ step ─▶ driver (consensus) ─▶ committed entries ─▶ State::apply ─▶ publish ─▶ replies
//!                        └─▶ Effects: append these records and sync them, send these messages,
//!                            run this checkpoint, release these log segments, answer these clients
//! ```
//!
//! The owner (a thread in production, a scheduler in simulation) feeds inputs, takes the effects
//! with [`Member::effects`], carries them out in the order of the fields, and reports back:
//! an append with [`Member::appended`], a job with [`Input::JobDone`].
//!
//! Invariants:
//! * A client is answered only after its entry is committed, synced here, applied, and the view
//!   that shows it is published.
//! * Time is the number of [`Input::Tick`]s; one tick is one heartbeat interval. Leases alone go by
//!   what [`Member::advance`] is told.
//! * A proposal goes to the log at most once. Whatever becomes of it then, it is not repeated.

mod auth;
mod defragmentation;
mod hashes;
mod interface;
mod jobs;
mod leadership;
mod leases;
mod links;
mod membership;
mod proposals;
mod published;
mod reads;
mod schema;
mod snapshots;
mod space;
mod versions;
mod waiters;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ferrite_api::Version;
use ferrite_api::types::{MemberId, RequestId};
use ferrite_disk::wal::Position;
use ferrite_raft::{Append, Driver, EntryKind, Ticket};
use ferrite_storage::apply::outcome::Response;
use ferrite_storage::checkpoint::{Job, Policy, Reason};
use ferrite_storage::snapshot::Export;
use ferrite_storage::state::State;
use parking_lot::Mutex;
use tonic::Code;

use crate::auth::SimpleTokens;
use crate::error::Error;
use crate::lessor::{self, Lessor};
use crate::peer::{Message, Peer};
use crate::quota::Quota;
use crate::request_id::RequestIds;
use defragmentation::Defragmentation;
use leadership::{HandOver, Transfer};
use leases::LeaseChange;
use links::Links;
use proposals::{Origin, Proposal, Queue};
use reads::Consensus;
use schema::Migration;
use snapshots::Installing;
use versions::Survey;
use waiters::{Expired, Waiters};

pub use auth::LeaseCheck;
pub use hashes::Hashes;
pub use interface::{Applied, Effects, Fatal, Input, Others, Reply};
pub use leases::LeaseCounts;
pub use published::{Cluster, Published, Roots};
pub use reads::{ReadCounts, Reads, ReadsDo};
pub use snapshots::{Incoming, Outgoing};

/// Index keys that one step prunes after a compaction: well under a millisecond.
const PRUNE_KEYS: usize = 256;

/// The knobs of a member.
#[derive(Clone, Debug)]
pub struct Options {
    /// Ticks after which a request is given up: 5 s + 2 election timeouts.
    pub request_ticks: u64,
    /// Ticks of an election timeout.
    pub election_ticks: u64,
    /// Ticks between checkpoints of a store that changes.
    pub checkpoint_ticks: u64,
    /// Size of checkpoints and compaction steps.
    pub checkpoint: Policy,
    /// Applied entries between compactions of the raft log.
    pub snapshot_count: u64,
    /// Entries that a compaction of the raft log keeps for slow followers.
    pub catchup_entries: u64,
    /// Learners at a time; the same on all members.
    pub max_learners: usize,
    /// Whether a change of the membership is refused that could cost the quorum.
    pub strict_reconfig_check: bool,
    /// Whether revocations of leases are urgent: proposed while other requests are refused because
    /// too much is not applied yet.
    pub urgent_revocations: bool,
    /// The space quota, as it is looked at after a request was applied.
    pub quota: Quota,
    /// The name to publish.
    pub name: String,
    /// The client URLs to publish.
    pub client_urls: Vec<String>,
    /// The version of the program: what it tells the others, and the newest storage schema it knows.
    pub release: Version,
    /// Ticks between two looks at the versions of members and storage: 4 s.
    pub version_ticks: u64,
    /// Ticks between two looks whether a downgrade is done; 0 for none.
    pub downgrade_check_ticks: u64,
    /// How leases end.
    pub lessor: lessor::Options,
    /// How long a simple token lives that nobody uses here.
    pub token_ttl: Duration,
}

/// A member of a cluster.
#[derive(Debug)]
pub struct Member<T> {
    driver: Driver,
    state: State,
    published: Arc<Published>,
    options: Options,
    ids: Arc<RequestIds>,
    now: u64,
    /// What [`Member::advance`] was told last.
    time: Duration,
    // Shared with the tasks that serve renewals, which must not wait for this owner's disk. Held for
    // one batch or one request; never together with another lock.
    lessor: Arc<Mutex<Lessor<T>>>,
    lease_counts: LeaseCounts,
    // Shared with the tasks that serve clients, likewise.
    tokens: Arc<Mutex<SimpleTokens>>,
    /// Proposals that raft has not taken yet: no leader, or too much uncommitted.
    queue: Queue,
    waiters: Waiters<T>,
    // Shared with the tasks that serve clients and hear other members, for the same reason.
    reads: Arc<Reads<T>>,
    compactions: Vec<(i64, T)>,
    defragmentation: Defragmentation<T>,
    transfers: Vec<Transfer<T>>,
    hand_over: HandOver,
    survey: Survey,
    migration: Migration,
    links: Links,
    /// The other members have changed, and the owner does not know it yet.
    peers_changed: bool,
    /// One of them was removed: it is to hear so from the log before its link goes.
    farewell: bool,
    /// States that are offered to followers.
    exports: BTreeMap<u64, Export>,
    snapshots: Vec<Outgoing>,
    installing: Option<Installing<T>>,
    /// The owner is to put a page file in place.
    place: bool,
    job_running: bool,
    hash_running: bool,
    /// The hash that is running is one of a state that was replaced.
    hash_stale: bool,
    /// It has caught up with what its log had lost, and the owner does not know it yet.
    recovered: bool,
    /// The tick at which another member has said that this one was removed.
    told_removed: Option<u64>,
    /// The requests by which it has introduced itself in this run.
    introductions: Vec<RequestId>,
    /// One of them has been applied.
    caught_up: bool,
    /// The member does not introduce itself before this tick: an attempt is on its way.
    introduce_at: u64,
    /// The term in which this member leads and has applied an entry.
    leading: Option<u64>,
    last_checkpoint: u64,
    /// The last consistent index that is durable in the page file.
    checkpointed: u64,
    page_full: bool,
    log_full: bool,
    /// Whether the append that found no space is to be tried again.
    retry_append: bool,
    prune: bool,
    /// The member proposes no NOSPACE alarm before this tick: one is on its way.
    alarm_at: u64,
    /// Log segments below this number were handed out for release.
    released: u64,
    replies: Vec<(T, Reply)>,
    job: Option<Job>,
    send: Vec<(MemberId, Message)>,
    append: VecDeque<Append>,
}

impl<T> Member<T> {
    /// A member over restored state and log. A sole voter campaigns at once.
    pub fn new(
        driver: Driver,
        state: State,
        options: Options,
        ids: Arc<RequestIds>,
    ) -> (Self, Arc<Published>) {
        let cluster = cluster_of(&state);
        let published = Arc::new(Published::new(state.view(), cluster, options.release));
        published.set_applied(state.applied().get());
        let checkpointed = state.applied().get();
        let lessor = Lessor::new(options.lessor.clone(), state.leases().iter());
        let tokens = SimpleTokens::new(options.token_ttl);
        let reads = Reads::new(
            state.member_id(),
            options.request_ticks,
            Arc::clone(&published),
            Arc::clone(&ids),
        );
        let mut member = Self {
            driver,
            state,
            published: Arc::clone(&published),
            options,
            ids,
            now: 0,
            time: Duration::ZERO,
            lessor: Arc::new(Mutex::new(lessor)),
            lease_counts: LeaseCounts::default(),
            tokens: Arc::new(Mutex::new(tokens)),
            queue: Queue::default(),
            waiters: Waiters::new(),
            reads: Arc::new(reads),
            compactions: Vec::new(),
            defragmentation: Defragmentation::default(),
            transfers: Vec::new(),
            hand_over: HandOver::default(),
            survey: Survey::default(),
            migration: Migration::default(),
            links: Links::default(),
            peers_changed: true,
            farewell: false,
            exports: BTreeMap::new(),
            snapshots: Vec::new(),
            installing: None,
            place: false,
            job_running: false,
            hash_running: false,
            hash_stale: false,
            recovered: false,
            told_removed: None,
            introductions: Vec::new(),
            caught_up: false,
            introduce_at: 0,
            leading: None,
            last_checkpoint: 0,
            checkpointed,
            page_full: false,
            log_full: false,
            retry_append: false,
            prune: false,
            alarm_at: 0,
            released: 0,
            replies: Vec::new(),
            job: None,
            send: Vec::new(),
            append: VecDeque::new(),
        };
        member.publish_auth();
        // Before anything is heard: what was promised before the start holds.
        member.publish_raft();
        if member.driver.status().sole_voter {
            member.driver.campaign();
        }
        (member, published)
    }

    /// The replicated state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Consensus.
    pub fn driver(&self) -> &Driver {
        &self.driver
    }

    /// Takes an input.
    ///
    /// # Errors
    /// The member cannot go on.
    pub fn step(&mut self, input: Input<T>) -> Result<(), Fatal> {
        match input {
            Input::Tick => self.tick(),
            Input::Propose {
                id,
                payload,
                urgent,
                waiter,
            } => {
                let proposal = Proposal {
                    id,
                    changes_members: false,
                    payload,
                    origin: Origin::Here,
                };
                self.propose(proposal, urgent, waiter);
            }
            Input::ChangeMembers { change, waiter } => self.change_members(&change, waiter),
            Input::MoveLeader { to, waiter } => self.move_leader(to, waiter),
            Input::Peer { from, messages } => {
                for message in messages {
                    self.hear(from, message);
                }
            }
            Input::Reachable { peer, reachable } => self.reachable(peer, reachable),
            Input::AwaitCompaction { revision, waiter } => {
                self.compactions.push((revision, waiter));
                self.answer_compactions();
            }
            Input::Defragment { path, waiter } => self.defragmentation.wanted(path, waiter),
            Input::LeaseKeys { id, waiter } => self.lease_keys(id, waiter),
            Input::CheckLease { check, waiter } => self.check_lease(&check, waiter),
            Input::Backup { waiter } => {
                let backup = Box::new(self.state.backup());
                self.replies.push((waiter, Reply::Backup(backup)));
            }
            Input::SnapshotOffered { message, waiter } => self.snapshot_offered(&message, waiter),
            Input::SnapshotReceived { snapshot, waiter } => {
                self.snapshot_received(snapshot, waiter);
            }
            Input::SnapshotSent { to, taken } => self.driver.report_snapshot(to.get(), taken),
            Input::Removed { by } => {
                tracing::warn!(%by, "another member says that this one was removed from the cluster");
                self.told_removed.get_or_insert(self.now);
            }
            Input::JobDone(done) => self.job_done(done)?,
            Input::HashDone(hashed) => self.hash_done(hashed),
        }
        Ok(())
    }

    /// Whatever has to be done now. To be called after inputs, and again after each
    /// [`Member::appended`], until there is nothing left.
    ///
    /// # Errors
    /// The member cannot go on.
    pub fn effects(&mut self) -> Result<Effects<T>, Fatal> {
        self.install()?;
        self.propose_queued();
        while self.driver.has_effects() {
            self.drive()?;
        }
        if self.prune {
            self.prune = self.state.prune_step(PRUNE_KEYS);
        }
        self.want_defragmentation();
        self.want_job(Reason::Changed);
        let append = self.next_append();
        // Who was removed is told so as soon as the owner knows, and is gone then: not before this
        // member's log has that it is so, and what says so has left with other effects. Then it is the
        // removed member that answers who has asked it for that.
        let noted = append.is_none() && self.append.is_empty();
        let known = noted && !std::mem::take(&mut self.farewell);
        let peers = (known && std::mem::take(&mut self.peers_changed)).then(|| self.peers());
        Ok(Effects {
            peers,
            send: std::mem::take(&mut self.send),
            snapshots: std::mem::take(&mut self.snapshots),
            replies: std::mem::take(&mut self.replies),
            install: std::mem::take(&mut self.place),
            job: self.next_job(),
            hash: self.next_hash(),
            release_before: self.next_release(),
            recovered: std::mem::take(&mut self.recovered),
            append,
        })
    }

    /// Whether [`Member::effects`] has work to do without a new input.
    pub fn busy(&self) -> bool {
        let peers_due = self.peers_changed && self.append.is_empty();
        self.driver.has_effects() || self.prune || self.leases_behind() || peers_due
    }

    /// An append is durable, or written if it needed no sync.
    pub fn appended(&mut self, ticket: Ticket, positions: &[Position]) {
        self.driver.persisted(ticket, positions);
        self.set_log_full(false);
    }

    /// An append found no space. The member keeps it, refuses writes, and asks for it again with
    /// the next tick: the entries may be in other logs already, so they cannot be given up.
    pub fn append_refused(&mut self, append: Append) {
        self.append.push_front(append);
        self.set_log_full(true);
    }

    /// Fails everybody who still waits, because the member stops. Returns the last job, a
    /// checkpoint of everything applied, if one is needed.
    pub fn stop(&mut self) -> (Vec<T>, Option<Job>) {
        let mut waiting = self.waiters.drain();
        waiting.extend(self.reads.close());
        waiting.extend(self.drain_transfers());
        waiting.extend(self.compactions.drain(..).map(|(_, waiter)| waiter));
        waiting.extend(self.defragmentation.drain());
        waiting.extend(self.lessor.lock().demote());
        self.state.stop_defragmenting();
        (
            waiting,
            self.state.next_job(&self.options.checkpoint, Reason::Aged),
        )
    }

    /// Proposals that wait for their result.
    pub fn pending(&self) -> usize {
        self.waiters.len()
    }

    fn tick(&mut self) {
        self.now += 1;
        self.retry_append = self.log_full;
        if self.log_full {
            self.hand_over_when_due();
        }
        self.driver.tick();
        self.queue.release();
        while let Some(Expired {
            id,
            deadline,
            waiter,
        }) = self.waiters.expired(self.now)
        {
            // A proposal that never left the queue ends differently from one that may apply yet.
            let error = if self.queue.remove(id) {
                Error::status(Code::DeadlineExceeded, "context deadline exceeded")
            } else {
                self.timeout(deadline).into()
            };
            self.replies.push((waiter, Reply::Failed(error)));
        }
        self.tick_reads();
        self.tick_transfers();
        self.tick_survey();
        self.tick_schema();
        self.introduce();
        if self.now - self.last_checkpoint >= self.options.checkpoint_ticks {
            self.last_checkpoint = self.now;
            self.want_job(Reason::Aged);
        }
    }

    /// A message of another member.
    fn hear(&mut self, from: MemberId, message: Message) {
        match message {
            Message::Raft(message) => {
                if let Err(error) = self.driver.step(&message) {
                    tracing::debug!(%from, %error, "a message of a peer was not taken");
                }
            }
            Message::Propose { term, proposals } => self.take_forwarded(from, term, proposals),
            Message::Refused { term, ids } => self.take_back(term, &ids),
            Message::Read(message) => {
                let does = self.reads.hear(from, message);
                self.do_for_reads(does);
            }
            Message::VersionQuestion { number } => self.version_asked(from, number),
            Message::VersionAnswer { number, version } => {
                self.version_answered(from, number, version);
            }
        }
    }

    fn say(&mut self, to: MemberId, message: Message) {
        self.send.push((to, message));
    }

    fn reachable(&mut self, peer: MemberId, reachable: bool) {
        self.links.set(peer, reachable, self.now);
        if !reachable {
            self.driver.report_unreachable(peer.get());
            self.reads_lose(peer);
        }
    }

    fn peers(&self) -> Others {
        let (own, members) = (self.state.member_id(), self.state.members());
        let peers = members.iter().map(|member| Peer {
            id: MemberId::new(member.id),
            urls: member
                .raft_attributes
                .as_ref()
                .map_or_else(Vec::new, |raft| raft.peer_urls.clone()),
        });
        Others {
            peers: peers.filter(|peer| peer.id != own).collect(),
            removed: members.removed().collect(),
        }
    }

    fn drive(&mut self) -> Result<(), Fatal> {
        let effects = self.driver.effects();
        if let Some(failure) = effects.failure {
            return Err(failure.into());
        }
        let messages = effects.send.into_iter();
        self.send
            .extend(messages.map(|(to, bytes)| (MemberId::new(to), Message::Raft(bytes))));
        self.append.extend(effects.append);
        if effects.recovered {
            tracing::info!(
                applied = self.state.applied().get(),
                "has everything again that the log had lost; takes part in elections"
            );
            self.recovered = true;
        }
        if let Some(leadership) = effects.leadership {
            self.leadership_changed(leadership);
        }
        self.apply(effects.committed)?;
        if effects.install.is_some() {
            self.place();
        }
        self.export(effects.snapshots_wanted);
        self.send_snapshots(effects.snapshots);
        self.publish_raft();
        Ok(())
    }

    fn apply(&mut self, committed: Vec<ferrite_raft::Committed>) -> Result<(), Fatal> {
        let Some(last) = committed.last().map(|entry| (entry.index, entry.term)) else {
            return Ok(());
        };
        let cluster_changes = self.state.cluster_changes();
        let allocated = self.state.store().page().sizes().allocated;
        let (mut results, mut leases) = (Vec::new(), Vec::new());
        let term_before = self.state.applied_term().get();
        for entry in committed {
            // Raft hands out entries from the consistent index on; a replay below it is skipped.
            if entry.index <= self.state.applied().get() {
                continue;
            }
            let cluster_version = self.state.cluster_version();
            let applied = match &entry.kind {
                EntryKind::Normal => self.state.apply(entry.index, entry.term, &entry.data)?,
                EntryKind::ConfChange(change) => Some(self.apply_change(&entry, change)?),
            };
            if self.state.cluster_version() != cluster_version {
                self.cluster_version_changed(cluster_version)?;
            }
            let Some(applied) = applied else { continue };
            self.note_introduction(applied.request);
            self.note_cluster_version(applied.request);
            leases.extend(LeaseChange::of(&applied.result));
            self.note_tokens(&applied.result);
            let verdict = applied.result.and_then(|response| {
                self.check_quota(allocated, applied.cost)?;
                Ok(response)
            });
            if let Some(waiter) = self.waiters.take(applied.request) {
                results.push((waiter, verdict));
            }
        }
        self.driver.applied(last.0);
        if last.1 > term_before {
            self.propose_lost(last.1);
        }
        self.publish_auth();
        self.published.set_view(self.state.view());
        if self.state.cluster_changes() != cluster_changes {
            self.published.set_cluster(cluster_of(&self.state));
        }
        self.note_leases(leases);
        self.published.set_applied(self.state.applied().get());
        let view = self.published.view();
        for (waiter, result) in results {
            let needs = result.as_ref().ok().and_then(Response::needs);
            let pin = needs.map(|revision| view.pins.pin(revision));
            if let Ok(Response::Compaction { revision }) = &result {
                self.published.roots().compacted(*revision);
            }
            let applied = Applied {
                result,
                view: Arc::clone(&view),
                pin,
            };
            self.replies.push((waiter, Reply::Applied(applied)));
        }
        self.lead(last.1);
        self.introduce();
        Ok(())
    }

    /// Tells what consensus says, before anything leaves that follows from it, and after what is applied
    /// was published.
    fn publish_raft(&mut self) {
        let status = self.driver.status();
        let (term, leader, commit) = (status.term, status.leader, status.commit);
        let reads_locally = self.driver.sole_voter();
        self.published.set_raft(term, leader, commit, reads_locally);
        let does = self.reads.stand(Consensus {
            term,
            leader,
            serves: self.driver.serves_reads(),
            commit,
            conf: self.driver.conf_state(),
        });
        self.do_for_reads(does);
    }

    fn fail(&mut self, waiter: T, error: ferrite_api::Error) {
        self.replies.push((waiter, Reply::Failed(error.into())));
    }
}

fn cluster_of(state: &State) -> Cluster {
    Cluster {
        members: state.members().clone(),
        alarms: state.alarms().clone(),
        version: state.cluster_version(),
        downgrade: state.downgrade(),
    }
}
