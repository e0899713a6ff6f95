//! The driver.

use std::fmt;

use bytes::Bytes;
use ferrite_disk::wal::Position;
use protobuf::Message as _;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use raft::{Changer, RawNode, Ready, StateRole};

use crate::appends::{Appends, Pending};
use crate::conf::{Change, ConfChange, ConfState};
use crate::effects::{Append, Committed, Effects, EntryKind, Leadership, Role, Status, Ticket};
use crate::election::ElectionTimeouts;
use crate::error::{DropReason, Error, ProposeError, ReadError, StepError};
use crate::log::{self, HardState, Head, MAX_ENTRY_BYTES, Mark, RaftLog};
use crate::logger;
use crate::read_index::{ReadToken, Reads};
use crate::wire;

/// How a driver behaves. Every option of raft-rs that matters is here or fixed in [`Driver::new`]: its defaults are not usable.
#[derive(Debug, Clone)]
pub struct Config {
    /// This member's id; not 0.
    pub id: u64,
    /// Entries up to here are in the checkpoint and are not handed out again.
    pub applied: u64,
    /// The configuration as of `applied`.
    pub conf_state: ConfState,
    /// Where the election timeouts come from. Members of one cluster need different ones.
    pub seed: u64,
    /// Ticks without a leader before this member campaigns; the timeout is drawn from `[election_ticks, 2 * election_ticks)`. Default 10.
    pub election_ticks: usize,
    /// Ticks between heartbeats; less than `election_ticks`. Default 1.
    pub heartbeat_ticks: usize,
    /// Whether to ask before campaigning, so that a member that was cut off does not disturb the others. Default true.
    pub pre_vote: bool,
    /// Bytes of entries in one message to a follower, at least one entry. Default 1 MiB.
    pub max_size_per_msg: u64,
    /// Bytes of entries handed out for applying at once, at least one entry. Default 4 MiB.
    pub max_committed_size_per_ready: u64,
    /// Append messages under way to one follower. Default 512.
    pub max_inflight: usize,
    /// Bytes of proposals that a leader holds uncommitted before it drops more. etcd has no limit, and then a leader without a quorum fills its memory.
    /// It must be far above what arrives during one slow sync, or it caps group commit. Default 256 MiB.
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
            // Proposals are batched before they reach raft. Its own batching ignores `max_size_per_msg`.
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
    reads: Reads,
    /// The term in which this member leads.
    leading: Option<u64>,
    /// Whether raft takes reads: it drops them silently before an entry of the leader's own term is committed.
    reads_open: bool,
    /// What the records handed out so far amount to.
    head: Head,
    appends: Appends,
    /// The newest truncation mark that is not handed out yet, and from which segment on the log is needed then.
    mark: Option<(Mark, Option<u64>)>,
    releasable: u64,
    handed_out: u64,
    /// Messages whose promises are durable.
    outbox: Vec<(u64, Bytes)>,
    announced: Leadership,
    removed: bool,
    failed: bool,
}

impl Driver {
    /// Starts from a recovered log. Nothing happens before the first tick, unless [`Driver::campaign`] is called.
    ///
    /// The commit index on the disk may lag behind the checkpoint, since it is not synced on its own: it is raised to `config.applied`.
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
        let head = log.head();
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
            reads: Reads::default(),
            leading: None,
            reads_open: false,
            head,
            appends: Appends::new(last),
            mark: None,
            releasable: 0,
            handed_out: applied,
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
            return;
        }
        self.node.tick();
        self.after_input();
        if self.reads_open && self.reads.tick() {
            self.ask();
        }
    }

    /// Campaigns now instead of when the election timeout passes: a sole voter need not wait for anybody. Does nothing on a leader, while
    /// a configuration change is committed but not applied, and while entries are on their way to the disk.
    pub fn campaign(&mut self) {
        if self.is_stopped() || self.has_unpersisted_entries() {
            return;
        }
        if let Err(error) = self.node.campaign() {
            tracing::debug!(%error, "could not campaign");
        }
        self.after_input();
    }

    /// Proposes an entry. It enters the log, unless this fails; whether it is ever committed shows in [`Effects::committed`] only.
    ///
    /// # Errors
    /// In all cases nothing entered the log.
    pub fn propose(&mut self, data: Bytes) -> Result<(), ProposeError> {
        self.check_proposal(data.len())?;
        self.proposals_bytes += data.len();
        let mut entry = Entry::default();
        entry.data = data;
        self.proposals.push(entry);
        Ok(())
    }

    /// Proposes a change of the configuration. It takes effect when its entry is applied, with [`Driver::apply_conf_change`].
    ///
    /// # Errors
    /// In all cases nothing entered the log.
    pub fn propose_conf_change(&mut self, change: &ConfChange) -> Result<(), ProposeError> {
        self.flush();
        let data = change.to_raft().write_to_bytes();
        let data = data.expect("a proto3 message always encodes into memory");
        self.check_proposal(data.len())?;
        let raft = &self.node.raft;
        // Trap: raft-rs takes it all the same, as an empty entry, and the proposer waits for ever.
        if raft.has_pending_conf() {
            return Err(ProposeError::Dropped(DropReason::ConfChangePending));
        }
        let removes_self = change.changes.contains(&Change::Remove(self.config.id));
        if removes_self && self.transfer_target().is_some() {
            return Err(ProposeError::Dropped(DropReason::RemovesLeader));
        }
        let raft_change = change.to_raft();
        let mut changer = Changer::new(raft.prs());
        let checked = match change.changes.len() {
            0 => changer.leave_joint(),
            1 => changer.simple(&raft_change.changes),
            _ => changer.enter_joint(true, &raft_change.changes),
        };
        checked.map_err(|error| ProposeError::InvalidChange(error.to_string()))?;

        let mut entry = Entry::default();
        entry.entry_type = EntryType::EntryConfChangeV2;
        entry.data = data.into();
        self.step_proposals(vec![entry]);
        Ok(())
    }

    /// To be called when a configuration change is applied, unless the applier rejects it. Gives the new configuration. If this member is no
    /// longer part of it, its raft is gone: nothing happens any more, see [`Status::removed`].
    ///
    /// # Errors
    /// [`Error::Config`] if raft refuses the change; then the configuration is as before, on every member.
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
            // Trap: with its own progress gone, raft-rs panics on the next tick, message or notice of persistence.
            self.removed = true;
            self.reads.fail_all(ReadError::LeaderChanged);
        }
        Ok(self.conf.clone())
    }

    /// Asks for an index from which on a read that begins now is linearizable. The answer comes in [`Effects::reads`].
    /// Only a leader answers; others must ask it.
    pub fn read_index(&mut self) -> ReadToken {
        if self.is_stopped() || self.leading.is_none() {
            let leader = if self.removed {
                0
            } else {
                self.node.raft.leader_id
            };
            return self.reads.refuse(ReadError::NotLeader { leader });
        }
        self.flush();
        let token = self.reads.begin();
        self.ask();
        token
    }

    /// Whether reads may be served from the applied state as it is, without asking for an index. True on a leader that is its configuration's
    /// only voter and has *applied* an entry of its own term.
    pub fn sole_voter(&self) -> bool {
        !self.removed
            && self.leading.is_some()
            && self.conf.is_only_voter(self.config.id)
            && self.node.raft.apply_to_current_term()
    }

    /// Hands leadership to another voter. False if this member does not lead or the other has no vote.
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

    /// The voter that would take over leadership fastest, if this member leads and there is another.
    pub fn transfer_target(&self) -> Option<u64> {
        self.leading?;
        let matched = |id: &u64| {
            self.node
                .raft
                .prs()
                .get(*id)
                .map_or(0, |progress| progress.matched)
        };
        let others = self
            .conf
            .voters
            .iter()
            .copied()
            .filter(|id| *id != self.config.id);
        others.max_by_key(|id| (matched(id), std::cmp::Reverse(*id)))
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
        let message = wire::decode(message, self.config.id)?;
        if self.check_message(&message)? {
            let from = message.from;
            self.node.step(message).map_err(|error| match error {
                raft::Error::StepPeerNotFound => StepError::UnknownPeer { from },
                other => StepError::Malformed(other.to_string()),
            })?;
            self.after_input();
        }
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
        let raft_has = !self.is_stopped()
            && (!self.proposals.is_empty()
                || self.mark.is_some()
                || log.has_deferred()
                || self.node.has_ready());
        raft_has
            || !self.outbox.is_empty()
            || self.reads.has_done()
            || (!self.failed && log.has_failed())
            || self.leadership() != self.announced
            || log.wants_snapshots()
    }

    /// What is to be done now. To be called again while [`Driver::has_effects`].
    pub fn effects(&mut self) -> Effects {
        let mut effects = Effects::default();
        if !self.is_stopped() {
            self.flush();
            for request in self.node.mut_store().next_turn() {
                self.node.on_entries_fetched(request);
            }
            if self.node.has_ready() {
                let ready = self.node.ready();
                self.carry_out(ready, &mut effects);
            } else if self.mark.is_some() {
                effects.append = self.append(Vec::new(), self.raft_state(), 0);
            }
        }
        effects.send.append(&mut self.outbox);
        effects.reads = self.reads.take_done();
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

    /// The append of this ticket is in the WAL, and durable if it asked for that. Appends are reported in the order in which they were handed out.
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
        self.releasable = self.releasable.max(pending.needed_from.unwrap_or(0));
        self.outbox.extend(pending.messages);
        if !self.is_stopped() {
            self.node.on_persist_ready(pending.ready);
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

    /// Drops entries up to `to` from the log; all must have been applied, and be in a durable checkpoint. False if they are gone already. The mark
    /// that says so in the WAL comes with the next effects.
    ///
    /// # Panics
    /// If `to` has not been applied.
    pub fn compact(&mut self, to: u64) -> bool {
        if self.is_stopped() || to <= self.node.store().mark().index {
            return false;
        }
        let applied = self.node.raft.raft_log.applied;
        assert!(to <= applied, "compacting to {to}, applied {applied}");
        self.mark = Some(self.node.mut_store().compact(to));
        true
    }

    /// Segments of the WAL with numbers below this one are no longer needed. 0 until something was compacted.
    pub fn releasable_before(&self) -> u64 {
        self.releasable
    }

    /// The configuration, as of what has been applied.
    pub fn conf_state(&self) -> &ConfState {
        &self.conf
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
            reads_waiting: self.reads.waiting(),
            reads_asked_again: self.reads.asked_again(),
            sole_voter: self.conf.is_only_voter(self.config.id),
            removed: self.removed,
        }
    }

    /// Carries a `Ready` of raft-rs out, as far as the driver can, and acknowledges it.
    fn carry_out(&mut self, mut ready: Ready, effects: &mut Effects) {
        assert!(
            ready.snapshot().is_empty(),
            "snapshots are refused before raft sees them"
        );
        let leads = self.node.raft.state == StateRole::Leader;
        let messages = match leads {
            true => ready.take_messages(),
            false => ready.take_persisted_messages(),
        };
        let entries = ready.take_entries();
        let promises = self.head.hard_state.promises_differ(&self.raft_state());
        let must_sync = promises || !entries.is_empty();
        assert!(must_sync == ready.must_sync(), "must_sync of {ready:?}");
        self.hand_out(ready.take_committed_entries(), effects);
        let number = ready.number();
        if must_sync || self.mark.is_some() {
            effects.append = self.append(entries, self.raft_state(), number);
        } else if let Some(last) = self.appends.last_mut() {
            last.ready = number;
        }
        self.node.advance_append_async(ready);
        if self.appends.is_empty() {
            self.node.on_persist_ready(number);
        }
        self.post(messages, leads, effects);
    }

    /// Sends the messages, or keeps them until what they promise is durable.
    fn post(&mut self, messages: Vec<Message>, leads: bool, effects: &mut Effects) {
        let promises = self.appends.has_promises();
        for message in messages {
            let early = leads && !promises && is_leaders(&message);
            let (to, bytes) = (message.to, wire::encode(&message));
            match self.appends.last_mut() {
                Some(pending) if !early => pending.messages.push((to, bytes)),
                _ => effects.send.push((to, bytes)),
            }
        }
    }

    /// Makes the next append, of these entries and of all else that is not in the WAL yet.
    fn append(&mut self, entries: Vec<Entry>, state: HardState, ready: u64) -> Option<Append> {
        let head = self.head;
        let promises = head.hard_state.promises_differ(&state);
        let mut records = Vec::with_capacity(entries.len() + 3);
        if promises && !entries.is_empty() {
            // The order is that of `log/record.rs`: every prefix of it is a log that raft can start from.
            let first = HardState {
                commit: head.hard_state.commit,
                ..state
            };
            records.push(RaftLog::hard_state_record(&first));
        }
        let first_record = records.len();
        RaftLog::entry_records(&entries, &mut records);
        if state.commit != head.hard_state.commit || (promises && entries.is_empty()) {
            records.push(RaftLog::hard_state_record(&state));
        }
        self.head.hard_state = state;
        let mut needed_from = None;
        if let Some((mark, segment)) = self.mark.take() {
            records.push(RaftLog::truncated_record(&mark));
            self.head.mark = mark;
            needed_from = segment;
        }
        let range = entries
            .first()
            .zip(entries.last())
            .map(|(first, last)| (first.index, last.index));
        let (first, last) = range.unwrap_or((1, 0));
        if range.is_some() {
            self.appends.replaced_from(first);
        }
        let ticket = self.appends.next_ticket();
        self.appends.push(Pending {
            ticket,
            records: records.len(),
            first_record,
            first,
            last,
            has_entries: range.is_some(),
            promises,
            needed_from,
            ready,
            messages: Vec::new(),
        });
        let must_sync = promises || range.is_some();
        self.node.mut_store().append(entries);
        Some(Append {
            ticket,
            records,
            must_sync,
            head,
        })
    }

    /// Hands committed entries out for applying.
    fn hand_out(&mut self, entries: Vec<Entry>, effects: &mut Effects) {
        effects.committed.reserve(entries.len());
        for entry in entries {
            assert!(
                entry.index == self.handed_out + 1 && entry.index <= self.appends.durable(),
                "entry {} handed out after {}, durable {}",
                entry.index,
                self.handed_out,
                self.appends.durable()
            );
            self.handed_out = entry.index;
            let (kind, data) = match entry.entry_type {
                EntryType::EntryNormal => (EntryKind::Normal, entry.data),
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                    let change = ConfChange::decode(&entry);
                    let change =
                        change.expect("decoded when it was proposed, received or recovered");
                    (EntryKind::ConfChange(change), Bytes::new())
                }
            };
            effects.committed.push(Committed {
                index: entry.index,
                term: entry.term,
                kind,
                data,
            });
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
            // Nobody can acknowledge what the leader of this term does not have. (A former leader may have sent it and lost it.)
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
            // Trap: raft-rs panics when it becomes leader with entries that are not persisted. A correct peer answers to requests that were
            // held back until they were.
            MessageType::MsgTimeoutNow
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgRequestPreVoteResponse => Ok(!self.has_unpersisted_entries()),
            _ => Ok(true),
        }
    }

    fn check_proposal(&self, bytes: usize) -> Result<(), ProposeError> {
        if self.is_stopped() {
            return Err(ProposeError::Stopped);
        }
        let raft = &self.node.raft;
        if self.leading.is_none() {
            return Err(match raft.leader_id {
                0 => ProposeError::NoLeader,
                leader => ProposeError::NotLeader { leader },
            });
        }
        if bytes > MAX_ENTRY_BYTES {
            return Err(ProposeError::TooLarge { bytes });
        }
        if raft.lead_transferee.is_some() {
            return Err(ProposeError::Dropped(DropReason::LeaderTransfer));
        }
        // raft-rs's own rule, which must never fail later: one entry of any size, otherwise as much as the limit allows.
        let uncommitted = raft.uncommitted_size() + self.proposals_bytes;
        let allowed = usize::try_from(self.config.max_uncommitted_size).unwrap_or(usize::MAX);
        if uncommitted > 0 && uncommitted.saturating_add(bytes) > allowed {
            return Err(ProposeError::Dropped(DropReason::Uncommitted {
                bytes: uncommitted,
            }));
        }
        Ok(())
    }

    /// Gives raft the proposals that came since the last input of another kind, in one step: each step sends messages to all followers.
    fn flush(&mut self) {
        if !self.proposals.is_empty() {
            self.proposals_bytes = 0;
            let entries = std::mem::take(&mut self.proposals);
            self.step_proposals(entries);
        }
    }

    fn step_proposals(&mut self, entries: Vec<Entry>) {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.config.id;
        message.set_entries(entries.into());
        let stepped = self.node.step(message);
        stepped.expect("everything for which raft-rs drops a proposal was checked, and nothing has happened since");
        self.after_input();
    }

    /// What has to follow every input.
    fn after_input(&mut self) {
        let raft = &mut self.node.raft;
        self.timeouts.impose(raft);
        // What was confirmed before leadership ended is good.
        for read in std::mem::take(&mut raft.read_states) {
            self.reads.confirmed(&read.request_ctx, read.index);
        }
        let leading = (raft.state == StateRole::Leader).then_some(raft.term);
        if leading != self.leading {
            self.leading = leading;
            self.reads_open = false;
            self.reads.fail_all(ReadError::LeaderChanged);
        }
        if leading.is_some() && !self.reads_open && raft.commit_to_current_term() {
            self.reads_open = true;
            self.ask();
        }
    }

    /// Asks raft for an index for all reads that wait.
    fn ask(&mut self) {
        if !self.reads_open {
            return;
        }
        if let Some(context) = self.reads.ask(self.node.raft.term) {
            self.node.read_index(context.to_vec());
            for read in std::mem::take(&mut self.node.raft.read_states) {
                self.reads.confirmed(&read.request_ctx, read.index);
            }
        }
    }

    /// A sole voter that campaigns leads at once; raft-rs panics if it has entries then that are not persisted. Others ask first, in messages
    /// that are held back until they are.
    fn must_not_campaign(&self) -> bool {
        self.leading.is_none()
            && self.conf.is_only_voter(self.config.id)
            && self.has_unpersisted_entries()
    }

    fn has_unpersisted_entries(&self) -> bool {
        self.appends.has_entries() || !self.node.raft.raft_log.unstable_entries().is_empty()
    }

    fn evict(&mut self) {
        // Followers get their entries from memory; without any, what was handed out is not needed again.
        let done = if self.conf.is_alone(self.config.id) {
            self.handed_out
        } else {
            0
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

/// Whether only a leader sends it, and it promises nothing but the term.
fn is_leaders(message: &Message) -> bool {
    matches!(
        message.get_msg_type(),
        MessageType::MsgAppend
            | MessageType::MsgHeartbeat
            | MessageType::MsgSnapshot
            | MessageType::MsgTimeoutNow
    )
}
