//! What the driver asks its owner to do, and what it tells about itself.

use bytes::Bytes;
use ferrite_disk::wal::Record;
use raft::eraftpb::{Message, MessageType};

use crate::conf::ConfChange;
use crate::error::Error;
use crate::log::Head;
use crate::snapshot::Snapshot;
use crate::wire;

/// What is to be done now. Every field is to be carried out; in which order is free, as long as
/// appends keep theirs. See the [driver](crate::driver) for what that means.
#[derive(Debug, Default)]
pub struct Effects {
    /// To be written, and to be reported with [`Driver::persisted`](crate::Driver::persisted).
    pub append: Option<Append>,
    /// Receiver and message, to be sent in this order at any time from now on, whatever becomes of
    /// `append`.
    pub send: Vec<(u64, Bytes)>,
    /// To be applied in this order, at any time from now on; to be reported with
    /// [`Driver::applied`](crate::Driver::applied). They follow the ones handed out before without
    /// a gap.
    pub committed: Vec<Committed>,
    /// Set when any of it changed.
    pub leadership: Option<Leadership>,
    /// The log was restarted at this snapshot, durably: its content takes the place of the state,
    /// then [`Driver::installed`](crate::Driver::installed) is called. Nothing is handed out for
    /// applying before.
    pub install: Option<Snapshot>,
    /// Followers that need entries which the log has dropped: they wait for a snapshot, see
    /// [`Driver::offer_snapshot`](crate::Driver::offer_snapshot). Named again, every now and then,
    /// as long as they do.
    pub snapshots_wanted: Vec<u64>,
    /// A member that was started as [recovering](crate::Config::recovering) has caught up: the next
    /// start is an ordinary one. Once.
    pub recovered: bool,
    /// Snapshots that are to be sent; each is to be followed by
    /// [`Driver::report_snapshot`](crate::Driver::report_snapshot).
    pub snapshots: Vec<OutgoingSnapshot>,
    /// The member cannot go on: an entry that must be applied cannot be read. Nothing comes after
    /// it.
    pub failure: Option<Error>,
}

/// A snapshot for a follower, which needs both: the message for
/// [`Driver::install_snapshot`](crate::Driver::install_snapshot), and the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingSnapshot {
    /// The follower.
    pub to: u64,
    /// Which one was offered.
    pub snapshot: Snapshot,
    /// What the follower's raft is told, after the content has arrived there.
    pub message: Bytes,
}

/// Something to be sent.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Message(u64, Bytes),
    Snapshot(OutgoingSnapshot),
}

impl Outgoing {
    pub(crate) fn of(message: &Message) -> Outgoing {
        let (to, bytes) = (message.to, wire::encode(message));
        if message.get_msg_type() != MessageType::MsgSnapshot {
            return Outgoing::Message(to, bytes);
        }
        Outgoing::Snapshot(OutgoingSnapshot {
            to,
            snapshot: Snapshot::from_raft(message.get_snapshot()),
            message: bytes,
        })
    }

    pub(crate) fn hand_out(self, effects: &mut Effects) {
        match self {
            Outgoing::Message(to, bytes) => effects.send.push((to, bytes)),
            Outgoing::Snapshot(snapshot) => effects.snapshots.push(snapshot),
        }
    }
}

/// Names an [`Append`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(crate) u64);

/// Records for the WAL, one batch. Appends must be written in the order in which they were handed
/// out; several may share one sync.
#[derive(Debug)]
pub struct Append {
    /// To be given back when the records are durable.
    pub ticket: Ticket,
    /// The records; never empty.
    pub records: Vec<Record>,
    /// Whether a sync is needed before [`Driver::persisted`](crate::Driver::persisted) is called.
    /// If not, writing is enough.
    pub must_sync: bool,
    /// Term and vote, if they change: to be kept in the [`BallotFile`](crate::BallotFile), after the
    /// sync.
    pub promise: Option<(u64, u64)>,
    pub(crate) head: Head,
}

impl Append {
    /// What must stand at the beginning of a segment that is begun with this batch:
    /// `wal.append(&append.records, &mut || append.head())`. As of before this batch, whatever the
    /// driver has done since.
    pub fn head(&self) -> Vec<Record> {
        self.head.records()
    }
}

/// A committed entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// What it is.
    pub kind: EntryKind,
    /// What was proposed. Empty if a new leader began its term with it, or if it is a configuration
    /// change.
    pub data: Bytes,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A proposal, opaque here, or the empty entry of a new term.
    Normal,
    /// A change of the configuration. The applier decides whether it takes effect, see
    /// [`Driver::apply_conf_change`](crate::Driver::apply_conf_change).
    ConfChange(ConfChange),
}

/// What this member is in its term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether it would be elected.
    PreCandidate,
    /// Asks to be elected.
    Candidate,
    /// Leads.
    Leader,
}

/// Who leads, as far as this member knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leadership {
    /// The term.
    pub term: u64,
    /// The leader, 0 if none is known.
    pub leader: u64,
    /// This member's role.
    pub role: Role,
}

/// How far a member has come, as its leader knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The member.
    pub id: u64,
    /// It has acknowledged the entries up to here.
    pub matched: u64,
    /// Whether it listens without a vote.
    pub learner: bool,
    /// Whether it was heard of since the leader last looked: it looks once in an election timeout.
    pub recent_active: bool,
    /// Whether a snapshot was sent to it and it is not known what became of that.
    pub snapshot: bool,
}

/// The driver at a glance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// This member.
    pub id: u64,
    /// The term.
    pub term: u64,
    /// Whom it voted for in the term, 0 if nobody.
    pub vote: u64,
    /// The leader, 0 if none is known.
    pub leader: u64,
    /// Its role.
    pub role: Role,
    /// Entries up to here are committed.
    pub commit: u64,
    /// Entries up to here are durable on this member.
    pub durable: u64,
    /// Entries up to here were handed out for applying: at most `commit` and `durable`.
    pub handed_out: u64,
    /// Entries up to here were reported as applied.
    pub applied: u64,
    /// Index of the first entry in the log, or of the next one if there is none.
    pub first_index: u64,
    /// Index of the last entry in the log.
    pub last_index: u64,
    /// Entries in memory.
    pub cached_entries: usize,
    /// What they take, in bytes.
    pub cached_bytes: usize,
    /// Bytes of proposals that are not handed out for applying yet, on a leader.
    pub uncommitted_bytes: usize,
    /// Appends handed out and not reported as durable.
    pub appends_pending: usize,
    /// Whether this member is the configuration's only voter, leader or not, and not recovering.
    /// Not the condition for serving reads: that is
    /// [`Driver::sole_voter`](crate::Driver::sole_voter).
    pub sole_voter: bool,
    /// Whether it may have lost entries and has not caught up, see
    /// [`Config::recovering`](crate::Config::recovering).
    pub recovering: bool,
    /// Whether this member was removed from the configuration.
    pub removed: bool,
    /// Whether a snapshot was taken and [`Driver::installed`](crate::Driver::installed) has not
    /// been called for it.
    pub installing: bool,
}
