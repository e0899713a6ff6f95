//! The driver: tikv's raft, wrapped so that the order of things cannot be got wrong.
//!
//! ```text
//!   tick ─────────────┐                         ┌─▶ append    records for the WAL   ─▶ persisted
//!   step(message) ────┤                         ├─▶ send      messages to peers
//!   propose ──────────┼─▶ Driver ── effects() ──┼─▶ committed entries to apply      ─▶ applied
//!   install_snapshot ─┤                         ├─▶ install   a snapshot to put in place ─▶ installed
//!   offer_snapshot ───┤                         ├─▶ snapshots to send
//!   persisted, applied┘                         └─▶ leadership, snapshots_wanted, failure
//! ```
//!
//! It decides; it does nothing. Inputs are methods that only change memory. What is to be done
//! comes out of [`Driver::effects`], to be called while [`Driver::has_effects`] after one input or
//! many: the more inputs between two calls, the more share one append and one sync.
//!
//! # The owner's loop
//!
//! ```no_run
//! # use ferrite_raft::{Driver, Append}; use ferrite_disk::wal::Wal;
//! # fn send(_: u64, _: bytes::Bytes) {} fn apply(_: &mut Driver, _: &ferrite_raft::Committed) {}
//! # fn send_snapshot(_: ferrite_raft::OutgoingSnapshot) {} fn capture(_: u64) {}
//! # fn put_in_place(_: &ferrite_raft::Snapshot) {}
//! # fn carry_out(driver: &mut Driver, wal: &mut Wal) -> Result<(), Box<dyn std::error::Error>> {
//! while driver.has_effects() {
//!     let effects = driver.effects();
//!     if let Some(failure) = effects.failure {
//!         return Err(failure.into());
//!     }
//!     for (to, message) in effects.send {
//!         send(to, message); // at any time from now on, also before the sync below
//!     }
//!     for to in effects.snapshots_wanted {
//!         capture(to); // to be offered to the driver when it is done
//!     }
//!     for snapshot in effects.snapshots {
//!         send_snapshot(snapshot); // and report what became of it
//!     }
//!     if let Some(append) = effects.append {
//!         let positions = wal.append(&append.records, &mut || append.head())?;
//!         if append.must_sync {
//!             wal.sync()?; // inputs may come in meanwhile, if another thread does this
//!         }
//!         driver.persisted(append.ticket, &positions);
//!     }
//!     if let Some(snapshot) = effects.install {
//!         put_in_place(&snapshot); // with its configuration
//!         driver.installed(snapshot.index);
//!     }
//!     for entry in &effects.committed {
//!         apply(driver, entry); // with driver.apply_conf_change, if it is one that takes effect
//!     }
//!     if let Some(last) = effects.committed.last() {
//!         driver.applied(last.index);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The owner promises: appends are written in the order of their tickets and reported in that
//! order, each after the sync it asks for; one sync may cover several. An append that found the
//! disk full is tried again, the same one; nothing is lost by waiting. Any other failure of the WAL
//! ends the member: what is on its disk is unknown, and a driver never forgets what it handed out.
//! Committed entries are applied in order, each exactly once, and `applied` is not called before
//! the configuration changes up to there have been given to [`Driver::apply_conf_change`]. Messages
//! are delivered at most once; they may be lost and reordered.
//!
//! # The order of things
//!
//! raft-rs hands its wishes out as a `Ready`. This is what becomes of each part, and the rules that
//! all of Ferrite's durability rests on. They hold for one voter as for many.
//!
//! | Part of the `Ready` | What the driver does with it |
//! |---|---|
//! | entries | records in the append; readable in [`RaftLog`] from then on, as raft-rs demands, though not durable |
//! | term, vote | a record before the entries, synced with them |
//! | commit index | a record after the entries, see rule 5; alone it waits for the next append, needing no write and no sync of its own: recovery without it only means that entries are committed once more |
//! | messages | see rule 2 |
//! | committed entries | handed out for applying, see rule 3 |
//! | read states | none: raft-rs is never asked for a read index, see below |
//! | snapshot | taken as soon as raft accepts one, so that it is in a `Ready` of its own, see below |
//!
//! 1. **Records come in an order of which every prefix is a valid log**: no entry of a term that
//!    the hard state before it does not know, no commit index beyond the entries before it. A power
//!    loss in the middle of a batch leaves a prefix. Recovery demands all of this and refuses
//!    anything else.
//! 2. **No promise leaves before it is durable.** Votes, acknowledgements, and whatever a follower
//!    or candidate sends wait for the append of their `Ready`, and for all appends before it, in
//!    order. Only what a leader sends as leader (entries, heartbeats, the call to take over) may
//!    leave before its own sync, so that followers write while it does; and only if its term is
//!    durable.
//! 3. **Nothing is handed out for applying before it is durable here**, even if a quorum has it: an
//!    answer to a client follows applying, and a sole voter's quorum is its own disk (etcd #14370).
//!    raft-rs counts what is persisted; the driver counts on its own, and asserts.
//! 4. **This member's own vote for an entry counts when the entry is durable here**: raft-rs
//!    advances its own match in `on_persist_ready`, which is called in [`Driver::persisted`] and
//!    nowhere else with entries.
//! 5. **The commit index that came with an entry is durable with it.** raft-rs counts votes by the
//!    configuration that was *applied*, and only refuses to campaign while it knows of a committed
//!    change that was not. A leader that removes two members one after the other commits the second
//!    change by an acknowledgement of a follower which, by then, must know for ever that the first
//!    is committed: otherwise it could restart, and be elected by the members removed.
//! 6. **Only applied entries are compacted**, and a segment is released when the mark that replaces
//!    its entries is in the WAL.
//! 7. **A leader tells nobody that a change of the configuration is committed before its own WAL has
//!    it.** A member that hears of its removal is gone for good. If the leader lost power then, and
//!    found a log in which the removal is not committed, it would count that member's vote in: of two
//!    voters, the one that is left could never lead again.
//!
//! With one voter, a write therefore goes like this; each line is one call:
//!
//! ```text
//!  propose(a) propose(b)        queued
//!  effects()                    raft appends 7, 8; append T1 {entry 7, entry 8}, must_sync
//!      propose(c)               while the disk works: queued
//!  persisted(T1)                raft: match 8, so commit 8
//!  effects()                    committed {7, 8}; append T2 {entry 9, commit 8}, must_sync
//!  applied(8)                   the clients of a and b are answered while the disk works on T2
//!  persisted(T2) …
//! ```
//!
//! # Snapshots
//!
//! What a snapshot contains is the owner's: it captures and sends its state, and receives another's.
//! Consensus knows index, term and configuration ([`Snapshot`](crate::Snapshot)).
//!
//! ```text
//!  leader                                            follower
//!  snapshots_wanted [2]
//!      the owner captures its state
//!  offer_snapshot(2)
//!  effects: snapshots [message]  ── and content ──▶  check_snapshot(message)
//!  log keeps what follows it                         the content is received, verified, made durable
//!                                                    install_snapshot(message)
//!                                                    effects: append T7 {snapshot, hard state}, alone
//!                                                    persisted(T7)
//!  acknowledged; entries follow  ◀────────────────   effects: send [acknowledgement], install
//!  report_snapshot(2, true)                              the content takes the place of the state
//!                                                    installed
//! ```
//!
//! * The content is durable before the log says that it begins after it; the state is replaced after
//!   that. So a power loss finds the old log and the old state; or the new log, and the content in
//!   one place or the other. Who starts puts it in place if the log begins after the state.
//! * From the acceptance to [`Driver::installed`] nothing is handed out for applying and the member
//!   does not campaign. It takes and acknowledges entries, and votes.
//! * raft-rs is told that the snapshot, and what came after it, is persisted only when it is
//!   installed. Acknowledgements do not depend on that: they wait for the appends (rule 2).
//! * A member that joins begins with an empty log and an empty configuration, and takes no entries
//!   before its first snapshot.
//!
//! # Members that have lost entries
//!
//! A member whose log was damaged or replaced may lack entries that it has acknowledged, and a leader
//! may have committed by that. Such a member is started with [`Config::recovering`]. Until it has
//! caught up it gives no vote, does not campaign, and believes no commit index that rests on what it
//! has lost: entries below the end of its log may be others than the acknowledged ones, because the
//! log may end before those were replaced.
//!
//! ```text
//!  leader                                               recovering member
//!  heartbeat                              ───────────▶  commit index ignored
//!  forgets what that member acknowledged  ◀───────────  rejection at its last entry, with the number of this start
//!  entries from there on, or a snapshot   ───────────▶
//!  heartbeat with that number, and the    ───────────▶  goal: this commit index, in this term
//!  commit index since it forgot                         applied up to there, and an entry of this term:
//!                                                       Effects::recovered
//! ```
//!
//! The goal covers all that anybody may have committed with the help of what was lost: earlier
//! leaders' commits lie before the first entry of this leader's term, since no leader was elected by
//! this member since; and this leader has counted only what is durable here since it forgot. Number
//! and commit index travel in fields that raft-rs does not read there (`request_snapshot`; `index` of
//! a heartbeat). It rests on two promises: the term and the vote are not lost (whoever replaces a log
//! keeps them), and messages from before this start are not delivered (transports refuse them).
//!
//! # Reads
//!
//! raft-rs confirms a read by a round of heartbeats, which every member's own loop has to carry, and
//! trusts whoever sends a read's context (etcd #20418). Ferrite's reads are confirmed by rounds of their own beside
//! that loop (`server/src/member/reads.rs`), which need three things from here: the term, the commit
//! index, and [`Driver::serves_reads`].
//!
//! # Reads without a round
//!
//! [`Driver::sole_voter`] says when the applied state may be read as it is. It needs no clock: as
//! long as this member is the only voter *of the configuration that it has applied*, nobody can
//! commit anything without it. So whatever was acknowledged, now or by an earlier run, is committed
//! in this log; what this run acknowledged was applied before, and what earlier runs acknowledged
//! lies before the first entry of this term, which is applied. It ends when a configuration change
//! that adds a voter is applied, the moment from which that voter counts; until then it cannot be
//! elected without this member's vote. A change that is committed and not yet applied is no danger:
//! a quorum of the new configuration still includes this member, which leads and votes for nobody.
//!
//! # Traps of raft-rs 0.7
//!
//! Each of them is handled here and has a test that names it.
//!
//! | Trap | Handling |
//! |---|---|
//! | one entry a message, unlimited `Ready`s and uncommitted entries, no quorum check, no pre-vote by default | every option set, [`Config`] |
//! | `applied` beyond the commit index at start: panic | [`Driver::new`] raises the commit index to it |
//! | election timeouts from the thread's random generator | overridden from the seed after every input |
//! | followers forward proposals and reads | proposals are never given to raft-rs unless this member leads, reads never; both are refused from peers |
//! | a proposal is dropped silently, or turned into an empty entry (second configuration change) | every condition checked before, [`ProposeError`](crate::ProposeError) |
//! | each step of a proposal sends to every follower; `batch_append` ignores the size limit | proposals are queued and stepped together |
//! | a member that wins an election with entries that are not persisted: panic. A sole voter wins at once | it does not campaign, and votes do not count, until they are |
//! | a leader's messages leave at once, even if it became leader in this very `Ready`: a sole voter's new term would reach a learner before the disk, and be led again, with other entries, after a power loss | rule 2: kept until the term is durable |
//! | for the same reason a vote given just before: it would leave unsynced | kept: only a leader's messages leave early |
//! | before a campaign all unapplied entries are read, without a limit | answered from memory, without content |
//! | an entry to apply that cannot be read: panic | nothing is handed out, [`Effects::failure`] |
//! | contents of messages that make it panic | refused, `wire.rs` and [`StepError`] |
//! | a member that applied its own removal panics on any further input | it is stopped: inputs do nothing |
//! | a snapshot's configuration is the tracker's at once, while older changes may be on their way to be applied | [`Driver::install_snapshot`] demands that all that was handed out was applied |
//! | a campaign between a snapshot's `Ready` and the report that it is applied: panic | no campaign, no votes, no call to take over meanwhile |
//! | the persistence of entries that a snapshot dropped may be taken for that of equal ones that come after it | no `Ready` is taken before the restart of the log is durable, so reports are in order |
//! | a snapshot at the commit index with another term replaces the committed entry; one whose configuration raft makes into something else: panic; one without this member: dropped silently | refused, `Snapshot::check`, [`StepError`] |
//! | a follower that lacks what it acknowledged gets no entries: its rejections count as old ones, as do its acknowledgements below `matched`, which never falls; a request for a snapshot from there is ignored as well | the leader's driver lowers `matched`, as described above |
//! | a heartbeat commits up to `matched`, on such a follower perhaps other entries, or more than it has: panic | ignored until the leader has forgotten; refused ([`StepError::CommitBeyondLog`]) if the member is not recovering |
//! | a campaign without any voter is won | [`Driver::campaign`] asks whether this member has a vote |

mod propose;
mod ready;
mod recovering;
mod snapshots;

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use ferrite_disk::wal::{self, Position};
use raft::eraftpb::{Entry, Message, MessageType};
use raft::{ProgressState, RawNode, StateRole};

use crate::appends::Appends;
use crate::conf::{ConfChange, ConfState};
use crate::effects::{Effects, Leadership, Outgoing, Progress, Role, Status, Ticket};
use crate::election::ElectionTimeouts;
use crate::error::{Error, StepError};
use crate::log::{self, HardState, Head, Mark, RaftLog};
use crate::logger;
use crate::wire;
use recovering::Recovery;
use snapshots::Installing;

/// All uncommitted entries may have to go into one batch of the WAL, with room for one more of the
/// largest size.
const MAX_UNCOMMITTED_BYTES: u64 = wal::MAX_BATCH_BYTES / 4 * 3;

/// How a driver behaves. Every option of raft-rs that matters is here or fixed in [`Driver::new`]:
/// its defaults are not usable.
#[derive(Debug, Clone)]
pub struct Config {
    /// This member's id; not 0.
    pub id: u64,
    /// Entries up to here are in the checkpoint and are not handed out again.
    pub applied: u64,
    /// The configuration as of `applied`. Empty for a member that joins: it waits for its first
    /// snapshot.
    pub conf_state: ConfState,
    /// Where the election timeouts come from. Members of one cluster need different ones, and a
    /// member that is recovering needs a new one at each start.
    pub seed: u64,
    /// Whether entries may be missing here that this member has acknowledged, because its log was
    /// damaged or replaced: it takes part, but neither votes nor campaigns until it has caught up,
    /// see [Members that have lost entries](self#members-that-have-lost-entries). To be given at
    /// every start until [`Effects::recovered`]. Default false.
    pub recovering: bool,
    /// Ticks without a leader before this member campaigns; the timeout is drawn from
    /// `[election_ticks, 2 * election_ticks)`. Default 10.
    pub election_ticks: usize,
    /// Ticks between heartbeats; less than `election_ticks`. Default 1.
    pub heartbeat_ticks: usize,
    /// Whether to ask before campaigning, so that a member that was cut off does not disturb the
    /// others. Default true.
    pub pre_vote: bool,
    /// Bytes of entries in one message to a follower, at least one entry. Default 1 MiB.
    pub max_size_per_msg: u64,
    /// Bytes of entries handed out for applying at once, at least one entry. Default 4 MiB.
    pub max_committed_size_per_ready: u64,
    /// Append messages under way to one follower. Default 512.
    pub max_inflight: usize,
    /// Bytes of proposals that a leader holds uncommitted before it drops more. etcd has no limit,
    /// and then a leader without a quorum fills its memory. It must be far above what arrives
    /// during one slow sync, or it caps group commit. Default 256 MiB.
    pub max_uncommitted_size: u64,
}

impl Config {
    /// The defaults.
    pub fn new(id: u64, applied: u64, conf_state: ConfState, seed: u64) -> Config {
        Config {
            id,
            applied,
            conf_state,
            seed,
            recovering: false,
            election_ticks: 10,
            heartbeat_ticks: 1,
            pre_vote: true,
            max_size_per_msg: 1 << 20,
            max_committed_size_per_ready: 4 << 20,
            max_inflight: 512,
            max_uncommitted_size: 256 << 20,
        }
    }

    fn to_raft(&self) -> raft::Config {
        raft::Config {
            id: self.id,
            applied: self.applied,
            election_tick: self.election_ticks,
            heartbeat_tick: self.heartbeat_ticks,
            min_election_tick: self.election_ticks,
            max_election_tick: self.election_ticks.saturating_mul(2),
            pre_vote: self.pre_vote,
            check_quorum: true,
            max_size_per_msg: self.max_size_per_msg,
            max_committed_size_per_ready: self.max_committed_size_per_ready,
            max_inflight_msgs: self.max_inflight,
            max_uncommitted_size: self.max_uncommitted_size,
            // Reads by clock are never safe enough.
            read_only_option: raft::ReadOnlyOption::Safe,
            skip_bcast_commit: false,
            // Proposals are batched before they reach raft. Its own batching ignores
            // `max_size_per_msg`.
            batch_append: false,
            priority: 0,
        }
    }
}

/// Consensus of one member. See the [module](self).
pub struct Driver {
    node: RawNode<RaftLog>,
    config: Config,
    conf: ConfState,
    timeouts: ElectionTimeouts,
    /// Proposals that raft has not seen: they go to it in one step.
    proposals: Vec<Entry>,
    proposals_bytes: usize,
    /// The term in which this member leads.
    leading: Option<u64>,
    /// What the records handed out so far amount to.
    head: Head,
    appends: Appends,
    /// The newest truncation mark that is not handed out yet, and from which segment on the log is
    /// needed then.
    mark: Option<(Mark, u64)>,
    releasable: u64,
    handed_out: u64,
    /// A snapshot that raft has accepted.
    installing: Option<Installing>,
    /// Set until nothing that was lost is missing.
    recovery: Option<Recovery>,
    /// The recovery has ended, and the owner was not told.
    recovered: bool,
    /// Followers that have lost entries and have told so in this term of leadership, with the
    /// number of their start.
    lost_entries: BTreeMap<u64, u64>,
    /// Messages whose promises are durable.
    outbox: Vec<Outgoing>,
    announced: Leadership,
    removed: bool,
    failed: bool,
}

impl Driver {
    /// Starts from a recovered log. Nothing happens before the first tick, unless
    /// [`Driver::campaign`] is called.
    ///
    /// The commit index on the disk may lag behind the checkpoint, since it is not synced on its
    /// own: it is raised to `config.applied`.
    ///
    /// # Errors
    /// [`Error::LogBehindCheckpoint`], [`Error::AppliedBeyondLog`], [`Error::Config`].
    pub fn new(config: Config, mut log: RaftLog) -> Result<Driver, Error> {
        let (applied, mark, last) = (config.applied, log.mark(), log.last());
        if applied < mark.index {
            return Err(Error::LogBehindCheckpoint {
                applied,
                truncated: mark.index,
            });
        }
        if applied > last {
            return Err(Error::AppliedBeyondLog { applied, last });
        }
        config.conf_state.check().map_err(Error::Config)?;
        let member = log.metadata().member_id;
        if config.id != member {
            return Err(Error::Config(format!(
                "the log is of member {member:x}, not {:x}",
                config.id
            )));
        }
        if config.max_uncommitted_size > MAX_UNCOMMITTED_BYTES {
            return Err(Error::Config(format!(
                "max_uncommitted_size is {}, at most {MAX_UNCOMMITTED_BYTES} fits into one append",
                config.max_uncommitted_size
            )));
        }
        let head = log.head();
        // The mark was found in the WAL; what it allows may not have been done.
        let releasable = log.needed_from();
        let mut hard_state = log.hard_state();
        hard_state.commit = hard_state.commit.max(applied);
        log.set_initial(hard_state, config.conf_state.clone());
        let node = RawNode::new(&config.to_raft(), log, &logger::logger())
            .map_err(|error| Error::Config(error.to_string()))?;
        let timeouts = ElectionTimeouts::new(config.seed, config.election_ticks);
        let mut driver = Driver {
            node,
            conf: config.conf_state.clone(),
            timeouts,
            proposals: Vec::new(),
            proposals_bytes: 0,
            leading: None,
            head,
            appends: Appends::new(last),
            mark: None,
            releasable,
            handed_out: applied,
            installing: None,
            recovery: config.recovering.then(|| Recovery::new(config.seed)),
            recovered: false,
            lost_entries: BTreeMap::new(),
            outbox: Vec::new(),
            announced: Leadership {
                term: hard_state.term,
                leader: 0,
                role: Role::Follower,
            },
            removed: false,
            failed: false,
            config,
        };
        driver.after_input();
        Ok(driver)
    }

    /// A tick of the clock passed.
    pub fn tick(&mut self) {
        if self.is_stopped() {
            return;
        }
        self.flush();
        if self.must_not_campaign() {
            // Time passes all the same: while it does, a vote for somebody else is refused for the
            // sake of the leader.
            self.node.raft.election_elapsed += 1;
            return;
        }
        self.node.tick();
        self.after_input();
    }

    /// Campaigns now instead of when the election timeout passes: a sole voter need not wait for
    /// anybody. Does nothing on a leader and on a member without a vote, while a configuration
    /// change is committed but not applied, while entries are on their way to the disk, and while a
    /// snapshot is being installed.
    pub fn campaign(&mut self) {
        if self.is_stopped() || self.has_unpersisted_entries() || self.must_not_campaign() {
            return;
        }
        // Trap: only raft-rs's own timeouts ask this, and without any voter every vote is won.
        if !self.node.raft.promotable() {
            return;
        }
        if let Err(error) = self.node.campaign() {
            tracing::debug!(%error, "could not campaign");
        }
        self.after_input();
    }

    /// To be called when a configuration change is applied, unless the applier rejects it. Gives
    /// the new configuration. If this member is no longer part of it, its raft is gone: nothing
    /// happens any more, see [`Status::removed`].
    ///
    /// # Errors
    /// [`Error::Config`] if raft refuses the change; then the configuration is as before, on every
    /// member.
    pub fn apply_conf_change(&mut self, change: &ConfChange) -> Result<ConfState, Error> {
        if self.is_stopped() {
            return Ok(self.conf.clone());
        }
        self.flush();
        let state = self
            .node
            .apply_conf_change(&change.to_raft())
            .map_err(|error| Error::Config(error.to_string()))?;
        self.conf = ConfState::from_raft(&state);
        if self.conf.contains(self.config.id) {
            self.after_input();
        } else {
            // Trap: with its own progress gone, raft-rs panics on the next tick, message or notice
            // of persistence.
            self.removed = true;
        }
        Ok(self.conf.clone())
    }

    /// Whether this member leads and has committed an entry of its own term. Its commit index is then
    /// one that a read which begins now may go by, once a majority of the voters has confirmed that
    /// none of them knows of a later term.
    pub fn serves_reads(&self) -> bool {
        !self.is_stopped() && self.leading.is_some() && self.node.raft.commit_to_current_term()
    }

    /// Whether reads may be served from the applied state as it is, without asking for an index.
    /// True on a leader that is its configuration's only voter and has *applied* an entry of its
    /// own term; see the [module](self) for why. To be asked for every read.
    pub fn sole_voter(&self) -> bool {
        !self.removed
            && self.leading.is_some()
            && self.conf.is_only_voter(self.config.id)
            && self.node.raft.apply_to_current_term()
    }

    /// Hands leadership to another voter. False if this member does not lead or the other has no
    /// vote.
    pub fn transfer_leader(&mut self, to: u64) -> bool {
        if self.is_stopped() || self.leading.is_none() || to == self.config.id {
            return false;
        }
        if !self.conf.voters.contains(&to) {
            return false;
        }
        self.flush();
        self.node.transfer_leader(to);
        self.after_input();
        true
    }

    /// The voter that would take over leadership fastest, of those that are `fit`, if this member leads
    /// and there is one. Who was heard from lately comes first: where nothing is written, the log of a
    /// dead member is as long as any.
    pub fn transfer_target(&self, fit: impl Fn(u64) -> bool) -> Option<u64> {
        self.leading?;
        let speed = |id: u64| {
            let progress = self.node.raft.prs().get(id);
            progress.map_or((false, 0), |progress| {
                (progress.recent_active, progress.matched)
            })
        };
        let voters = self.conf.voters.iter().copied();
        let others = voters.filter(|id| *id != self.config.id && fit(*id));
        others.max_by_key(|id| (speed(*id), std::cmp::Reverse(*id)))
    }

    /// A message from a peer.
    ///
    /// # Errors
    /// The message was not taken, see [`StepError`].
    pub fn step(&mut self, message: &Bytes) -> Result<(), StepError> {
        if self.is_stopped() {
            return Err(StepError::Stopped);
        }
        self.flush();
        let mut message = wire::decode(message, self.config.id)?;
        let leader = self.must_report_loss(&message).then_some(message.from);
        if !self.filter_recovering(&mut message) || !self.check_message(&message)? {
            return Ok(());
        }
        if self.handle_loss(&mut message) {
            self.step_checked(message)?;
        }
        if let Some(leader) = leader {
            self.report_loss(leader);
        }
        Ok(())
    }

    fn step_checked(&mut self, message: Message) -> Result<(), StepError> {
        let from = message.from;
        self.node.step(message).map_err(|error| match error {
            raft::Error::StepPeerNotFound => StepError::UnknownPeer { from },
            other => StepError::Malformed(other.to_string()),
        })?;
        self.after_input();
        Ok(())
    }

    /// The peer could not be reached: raft sends it less until it answers again.
    pub fn report_unreachable(&mut self, peer: u64) {
        if self.is_stopped() {
            return;
        }
        self.flush();
        self.node.report_unreachable(peer);
        self.after_input();
    }

    /// Whether [`Driver::effects`] would give anything.
    pub fn has_effects(&self) -> bool {
        let log = self.node.store();
        let raft_has = !self.restarts()
            && (!self.proposals.is_empty()
                || self.mark.is_some()
                || log.has_deferred()
                || self.node.has_ready());
        let goes_on = !self.is_stopped() && (raft_has || self.has_install_effects());
        goes_on
            || !self.outbox.is_empty()
            || self.recovered
            || (!self.failed && log.has_failed())
            || self.leadership() != self.announced
            || log.wants_snapshots()
    }

    /// What is to be done now. To be called again while [`Driver::has_effects`].
    pub fn effects(&mut self) -> Effects {
        let mut effects = Effects::default();
        if !self.is_stopped() {
            self.flush();
            let alone = self.restarts();
            self.install_effects(&mut effects);
            if !alone {
                self.raft_effects(&mut effects);
            }
        }
        for outgoing in std::mem::take(&mut self.outbox) {
            outgoing.hand_out(&mut effects);
        }
        effects.recovered = std::mem::take(&mut self.recovered);
        let leadership = self.leadership();
        if leadership != self.announced {
            self.announced = leadership;
            effects.leadership = Some(leadership);
        }
        effects.snapshots_wanted = self.node.mut_store().take_snapshots_wanted();
        effects.failure = self.node.mut_store().take_failure();
        self.failed |= effects.failure.is_some();
        // Not earlier: what was just committed is handed out from memory.
        self.evict();
        effects
    }

    fn raft_effects(&mut self, effects: &mut Effects) {
        for request in self.node.mut_store().next_turn() {
            self.node.on_entries_fetched(request);
        }
        if self.node.has_ready() {
            let ready = self.node.ready();
            self.carry_out(ready, effects);
        } else if self.mark.is_some() {
            effects.append = self.append(Vec::new(), self.raft_state(), 0);
        }
    }

    /// The append of this ticket is in the WAL, and durable if it asked for that. Appends are
    /// reported in the order in which they were handed out.
    ///
    /// # Panics
    /// If they are not, or if there is not one position for each record.
    pub fn persisted(&mut self, ticket: Ticket, positions: &[Position]) {
        self.flush();
        let pending = self.appends.finish(ticket);
        assert!(
            positions.len() == pending.records,
            "{} positions for {} records",
            positions.len(),
            pending.records
        );
        let log = self.node.mut_store();
        let located = positions.iter().skip(pending.first_record);
        for (index, position) in (pending.first..=pending.last).zip(located) {
            log.locate(index, *position);
        }
        self.releasable = self.releasable.max(pending.needed_from);
        if let Some(position) = pending.restart.and_then(|it| positions.get(it.record)) {
            log.locate_restart(*position);
            self.releasable = self.releasable.max(position.segment);
            self.restarted();
        }
        self.outbox.extend(pending.messages);
        if !self.is_stopped() {
            self.ready_persisted(pending.ready);
            self.after_input();
        }
    }

    /// Entries up to `index` have been applied.
    ///
    /// # Panics
    /// If they were not handed out, or if it goes backwards.
    pub fn applied(&mut self, index: u64) {
        let before = self.node.raft.raft_log.applied;
        assert!(
            before <= index && index <= self.handed_out,
            "applied {index}, before {before}, handed out {}",
            self.handed_out
        );
        if !self.is_stopped() {
            self.flush();
            self.node.advance_apply_to(index);
            self.after_input();
        }
    }

    /// Drops entries up to `to` from the log; all must have been applied, and be in a durable
    /// checkpoint. Those after [`Driver::snapshot_floor`] stay. False if nothing is dropped. The
    /// mark that says so in the WAL comes with the next effects.
    ///
    /// # Panics
    /// If `to` has not been applied.
    pub fn compact(&mut self, to: u64) -> bool {
        let to = self.snapshot_floor().map_or(to, |floor| to.min(floor));
        if self.is_stopped() || to <= self.node.store().mark().index {
            return false;
        }
        let applied = self.node.raft.raft_log.applied;
        assert!(to <= applied, "compacting to {to}, applied {applied}");
        let log = self.node.mut_store();
        self.mark = Some((log.compact(to), log.needed_from()));
        true
    }

    /// Segments of the WAL with numbers below this one are no longer needed. 0 until something was
    /// compacted.
    pub fn releasable_before(&self) -> u64 {
        self.releasable
    }

    /// The configuration, as of what has been applied.
    pub fn conf_state(&self) -> &ConfState {
        &self.conf
    }

    /// How far everybody in the configuration has come, by id; empty unless this member leads.
    pub fn progress(&self) -> Vec<Progress> {
        if self.is_stopped() || self.leading.is_none() {
            return Vec::new();
        }
        let tracker = self.node.raft.prs();
        let learners = tracker.conf().learners();
        let known = tracker.iter().map(|(id, progress)| Progress {
            id: *id,
            matched: progress.matched,
            learner: learners.contains(id),
            recent_active: *id == self.config.id || progress.recent_active,
            snapshot: progress.state == ProgressState::Snapshot,
        });
        let mut all: Vec<Progress> = known.collect();
        all.sort_unstable_by_key(|progress| progress.id);
        all
    }

    /// The log.
    pub fn log(&self) -> &RaftLog {
        self.node.store()
    }

    /// Where everything stands.
    pub fn status(&self) -> Status {
        let raft = &self.node.raft;
        let log = self.node.store();
        let Leadership { term, leader, role } = self.leadership();
        Status {
            id: self.config.id,
            term,
            vote: raft.vote,
            leader,
            role,
            commit: raft.raft_log.committed,
            durable: self.appends.durable(),
            handed_out: self.handed_out,
            applied: raft.raft_log.applied,
            first_index: log.first(),
            last_index: raft.raft_log.last_index(),
            cached_entries: log.cached_entries(),
            cached_bytes: log.cached_bytes(),
            uncommitted_bytes: raft.uncommitted_size() + self.proposals_bytes,
            appends_pending: self.appends.len(),
            sole_voter: self.recovery.is_none() && self.conf.is_only_voter(self.config.id),
            recovering: self.recovery.is_some(),
            removed: self.removed,
            installing: self.installing.is_some(),
        }
    }

    /// Checks what depends on raft's state, see [`wire`] for the rest. False: to be ignored.
    fn check_message(&self, message: &Message) -> Result<bool, StepError> {
        let raft = &self.node.raft;
        let last = raft.raft_log.last_index();
        let from = message.from;
        match message.get_msg_type() {
            MessageType::MsgSnapshot => {
                let index = message.get_snapshot().get_metadata().index;
                Err(StepError::Snapshot { from, index })
            }
            // Trap: raft-rs panics.
            MessageType::MsgHeartbeat if message.term >= raft.term && message.commit > last => {
                Err(StepError::CommitBeyondLog {
                    from,
                    commit: message.commit,
                    last,
                })
            }
            // The leader's log may reach back to its very beginning, but the configuration does not.
            MessageType::MsgAppend if self.waits_for_configuration() && message.index == 0 => {
                Err(StepError::NoConfiguration { from })
            }
            // Nobody can acknowledge what the leader of this term does not have. (A former leader
            // may have sent it and lost it.)
            MessageType::MsgAppendResponse
                if self.leading == Some(message.term)
                    && !message.reject
                    && message.index > last =>
            {
                let (kind, what, value) = (wire::kind(message), "index", message.index);
                Err(StepError::Invalid {
                    kind,
                    from,
                    what,
                    value,
                })
            }
            // Trap: raft-rs panics when it becomes leader with entries that are not persisted. A
            // correct peer answers to requests that were held back until they were.
            MessageType::MsgTimeoutNow
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgRequestPreVoteResponse => {
                Ok(!self.has_unpersisted_entries() && !self.must_not_campaign())
            }
            _ => Ok(true),
        }
    }

    /// What has to follow every input.
    fn after_input(&mut self) {
        let raft = &mut self.node.raft;
        self.timeouts.impose(raft);
        let leading = (raft.state == StateRole::Leader).then_some(raft.term);
        if leading != self.leading {
            self.leading = leading;
            self.lost_entries.clear();
        }
        self.check_recovered();
    }

    /// A sole voter that campaigns leads at once; raft-rs panics if it has entries then that are
    /// not persisted. Others ask first, in messages that are held back until they are. It also
    /// panics if a snapshot is not counted as applied yet. And a member that has lost entries must
    /// not lead.
    fn must_not_campaign(&self) -> bool {
        let wins_at_once = self.conf.is_only_voter(self.config.id);
        self.leading.is_none()
            && (self.installing.is_some()
                || self.recovery.is_some()
                || (wins_at_once && self.has_unpersisted_entries()))
    }

    /// Whether this member has joined and nobody has told it whom.
    fn waits_for_configuration(&self) -> bool {
        self.conf == ConfState::default() && self.node.raft.raft_log.committed == 0
    }

    fn has_unpersisted_entries(&self) -> bool {
        self.appends.has_entries() || !self.node.raft.raft_log.unstable_entries().is_empty()
    }

    fn evict(&mut self) {
        // What everybody has is hardly asked for again. A member that does not lead sends nobody
        // anything; if it comes to lead, it reads back what it must.
        let raft = &self.node.raft;
        let done = match self.leading {
            None => self.handed_out,
            Some(_) => {
                let others = raft.prs().iter().filter(|(id, _)| **id != self.config.id);
                let matched = others.map(|(_, progress)| progress.matched).min();
                matched.map_or(self.handed_out, |matched| matched.min(self.handed_out))
            }
        };
        self.node.mut_store().evict(done);
    }

    fn is_stopped(&self) -> bool {
        self.removed || self.failed
    }

    fn raft_state(&self) -> HardState {
        log::from_raft(&self.node.raft.hard_state())
    }

    fn leadership(&self) -> Leadership {
        let raft = &self.node.raft;
        let role = match raft.state {
            StateRole::Follower => Role::Follower,
            StateRole::PreCandidate => Role::PreCandidate,
            StateRole::Candidate => Role::Candidate,
            StateRole::Leader => Role::Leader,
        };
        if self.removed {
            return Leadership {
                term: raft.term,
                leader: 0,
                role: Role::Follower,
            };
        }
        Leadership {
            term: raft.term,
            leader: raft.leader_id,
            role,
        }
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Driver").field(&self.status()).finish()
    }
}
