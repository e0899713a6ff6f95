//! What can go wrong, and what it means for the member.

use std::io;
use std::path::PathBuf;

use ferrite_disk::wal;

use crate::ballot::Ballot;
use crate::log::{BadRecord, HardState, Mark, Metadata};

/// Errors of the raft log and of starting a [`Driver`](crate::Driver). All of them are final for
/// this run of the member.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The WAL could not be created, opened or read.
    #[error(transparent)]
    Wal(#[from] wal::Error),

    /// An intact record of the WAL is not one of the raft log's.
    #[error("segment {segment}, offset {offset}: {source}")]
    Record {
        /// Number of the segment.
        segment: u64,
        /// Byte offset of the record.
        offset: u64,
        /// What is wrong with it.
        source: BadRecord,
    },

    /// Two segments say that they belong to different members: files were mixed up.
    #[error(
        "conflicting metadata: member {:x} of cluster {:x} before, member {:x} of cluster {:x} in \
         segment {segment}",
        before.member_id, before.cluster_id, found.member_id, found.cluster_id
    )]
    MetadataConflict {
        /// What earlier segments say.
        before: Metadata,
        /// What this segment says.
        found: Metadata,
        /// Number of the segment.
        segment: u64,
    },

    /// The WAL has records but does not say whose they are.
    #[error("the log holds no metadata")]
    NoMetadata,

    /// An entry does not follow the one before it.
    #[error(
        "entry gap: the log ends at index {last}, segment {segment} goes on with index {index}"
    )]
    Gap {
        /// Last index before the gap.
        last: u64,
        /// Index of the entry found.
        index: u64,
        /// Number of the segment.
        segment: u64,
    },

    /// Entries between the truncation mark and the first entry are missing.
    #[error("the log is truncated at index {truncated} but begins at index {first}")]
    MissingEntries {
        /// Index of the truncation mark.
        truncated: u64,
        /// Index of the first entry.
        first: u64,
    },

    /// The term of an entry is lower than the term of the entry before it.
    #[error("terms go backwards: entry {index} has term {term}, the one before it {before}")]
    TermBackwards {
        /// Index of the entry.
        index: u64,
        /// Its term.
        term: u64,
        /// Term of the entry before it.
        before: u64,
    },

    /// An entry is newer than the hard state that was written before it.
    #[error("entry {index} has term {term}, the hard state before it only term {known}")]
    TermUnknown {
        /// Index of the entry.
        index: u64,
        /// Its term.
        term: u64,
        /// Term of the hard state.
        known: u64,
    },

    /// An entry would replace one that was committed or dropped.
    #[error(
        "entry {index} follows in the log although entries up to {committed} were committed before"
    )]
    OverwritesCommitted {
        /// Index of the entry.
        index: u64,
        /// Commit index or truncation mark at that point of the log.
        committed: u64,
    },

    /// A hard state takes back what an earlier one promised.
    #[error("hard state goes backwards: {before:?}, then {found:?}")]
    HardStateRegressed {
        /// The earlier one.
        before: HardState,
        /// The later one.
        found: HardState,
    },

    /// A truncation mark does not fit the log.
    #[error(
        "truncation mark {found:?} does not fit the log, which is truncated at {before:?} and ends \
         at index {last}"
    )]
    BadMark {
        /// The mark before it.
        before: Mark,
        /// The mark found.
        found: Mark,
        /// Last index of the log.
        last: u64,
    },

    /// A snapshot record would take the log back, or is newer than the hard state before it.
    #[error(
        "snapshot {found:?} does not fit the log, which is committed up to index {commit} and knows \
         term {term}"
    )]
    BadSnapshot {
        /// The snapshot found.
        found: Mark,
        /// Term of the hard state.
        term: u64,
        /// Commit index at that point of the log.
        commit: u64,
    },

    /// The hard state commits entries that the log does not hold: it lost its end.
    #[error("the hard state commits up to index {commit} but the log ends at index {last}")]
    CommitBeyondLog {
        /// Commit index of the hard state.
        commit: u64,
        /// Last index of the log.
        last: u64,
    },

    /// The log begins after the checkpoint: entries between them are missing, so the state cannot
    /// be brought up to date.
    #[error(
        "the log does not reach back to the checkpoint: applied up to index {applied}, log \
         truncated at index {truncated}"
    )]
    LogBehindCheckpoint {
        /// Consistent index of the checkpoint.
        applied: u64,
        /// Index of the truncation mark.
        truncated: u64,
    },

    /// The checkpoint holds entries that the log does not: it lost its end, or belongs to other
    /// data.
    #[error(
        "the checkpoint is ahead of the log: applied up to index {applied}, log ends at index \
         {last}"
    )]
    AppliedBeyondLog {
        /// Consistent index of the checkpoint.
        applied: u64,
        /// Last index of the log.
        last: u64,
    },

    /// An entry that must be applied could not be read back from the WAL.
    #[error("entry {index} cannot be read back: {source}")]
    ReadBack {
        /// Index of the entry.
        index: u64,
        /// What the WAL said.
        source: wal::Error,
    },

    /// What was read back in place of an entry is not that entry.
    #[error("entry {index} was read back as something else: {why}")]
    ReadBackMismatch {
        /// Index of the entry.
        index: u64,
        /// What was found.
        why: String,
    },

    /// A configuration is not valid.
    #[error("raft configuration: {0}")]
    Config(String),

    /// The ballot could not be read or kept.
    #[error("{}: {source}", path.display())]
    Ballot {
        /// The file.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },

    /// The log is older than the ballot: it has lost its end, or was replaced.
    #[error(
        "the log is older than the ballot beside it: it knows term {} and vote {:x}, this member has \
         promised term {} and vote {:x}; put back the log that belongs to the ballot, or the whole \
         data directory of one moment", found.term, found.vote, promised.term, promised.vote
    )]
    BehindBallot {
        /// The hard state in the log.
        found: HardState,
        /// The ballot.
        promised: Ballot,
    },
}

impl Error {
    /// Whether the log has lost what was in it, as opposed to being unreadable right now, full, of
    /// another format, or somebody else's.
    pub fn is_loss(&self) -> bool {
        match self {
            Error::Wal(error) => error.is_corrupt(),
            Error::NoMetadata
            | Error::Gap { .. }
            | Error::MissingEntries { .. }
            | Error::TermBackwards { .. }
            | Error::TermUnknown { .. }
            | Error::OverwritesCommitted { .. }
            | Error::HardStateRegressed { .. }
            | Error::BadMark { .. }
            | Error::BadSnapshot { .. }
            | Error::CommitBeyondLog { .. }
            | Error::AppliedBeyondLog { .. }
            | Error::BehindBallot { .. } => true,
            Error::Record { .. }
            | Error::MetadataConflict { .. }
            | Error::LogBehindCheckpoint { .. }
            | Error::ReadBack { .. }
            | Error::ReadBackMismatch { .. }
            | Error::Config(_)
            | Error::Ballot { .. } => false,
        }
    }
}

/// Why a message from a peer was not taken. Nothing changed; the caller logs it, counts it, and
/// goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// Not a raft message.
    #[error("malformed raft message: {0}")]
    Malformed(String),
    /// A message of a kind that peers must not send here: local ones, and what Ferrite never
    /// forwards through raft.
    #[error("message of type {0} is not taken from peers")]
    Kind(&'static str),
    /// A message with contents that no correct peer sends.
    #[error("{kind} from {from:x}: {what} is {value}")]
    Invalid {
        /// The message's type.
        kind: &'static str,
        /// Sender, as the message says.
        from: u64,
        /// The field.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// A response from somebody who is no member of the configuration.
    #[error("{from:x} is not in the configuration")]
    UnknownPeer {
        /// Sender, as the message says.
        from: u64,
    },
    /// The leader says that this member has acknowledged entries that its log does not hold: the
    /// log lost its end.
    #[error("leader {from:x} commits up to index {commit} but this log ends at index {last}")]
    CommitBeyondLog {
        /// The leader.
        from: u64,
        /// Commit index in the message.
        commit: u64,
        /// Last index here.
        last: u64,
    },
    /// A snapshot comes with its content, by
    /// [`Driver::install_snapshot`](crate::Driver::install_snapshot), not among the messages.
    #[error("snapshot at index {index} from {from:x} came without its content")]
    Snapshot {
        /// The leader.
        from: u64,
        /// Index of the snapshot.
        index: u64,
    },
    /// A snapshot that contradicts what this member knows to be committed.
    #[error(
        "snapshot at index {index}, term {term}, from {from:x} contradicts entry {commit} of term \
         {commit_term}, which is committed"
    )]
    SnapshotConflict {
        /// The leader.
        from: u64,
        /// Index of the snapshot.
        index: u64,
        /// Its term.
        term: u64,
        /// Commit index here.
        commit: u64,
        /// Term of the entry there.
        commit_term: u64,
    },
    /// An earlier snapshot is being installed.
    #[error("a snapshot at index {index} is being installed")]
    SnapshotUnderWay {
        /// Index of the earlier one.
        index: u64,
    },
    /// This member has no configuration yet, which comes with its first snapshot: entries are not
    /// taken before.
    #[error("entries from {from:x}, but this member waits for its first snapshot")]
    NoConfiguration {
        /// The leader.
        from: u64,
    },
    /// This member was removed from the configuration, or has failed: nothing happens here any
    /// more.
    #[error("this member takes part no more")]
    Stopped,
}

/// Why a proposal did not enter the log. In every case nothing entered it, so proposing again is
/// safe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// No leader is known.
    #[error("no leader")]
    NoLeader,
    /// Somebody else leads; Ferrite never lets raft forward proposals.
    #[error("not leader, {leader:x} is")]
    NotLeader {
        /// The leader.
        leader: u64,
    },
    /// The leader does not take it now; later it may.
    #[error("proposal dropped: {0}")]
    Dropped(DropReason),
    /// Larger than [`MAX_ENTRY_BYTES`](crate::MAX_ENTRY_BYTES): it never fits.
    #[error("proposal of {bytes} bytes does not fit into the log")]
    TooLarge {
        /// Bytes of data and context.
        bytes: usize,
    },
    /// The configuration change contradicts the configuration; the text says how.
    #[error("invalid configuration change: {0}")]
    InvalidChange(String),
    /// This member was removed from the configuration, or has failed: nothing happens here any
    /// more.
    #[error("this member takes part no more")]
    Stopped,
}

/// Why a leader did not take a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DropReason {
    /// As much is uncommitted as
    /// [`Config::max_uncommitted_size`](crate::Config::max_uncommitted_size) allows.
    #[error("{bytes} bytes are uncommitted")]
    Uncommitted {
        /// Bytes of data of uncommitted entries.
        bytes: usize,
    },
    /// Leadership is being handed over.
    #[error("leadership is being transferred")]
    LeaderTransfer,
    /// An earlier configuration change may not have been applied yet. raft-rs would replace the
    /// change by an empty entry.
    #[error("an earlier configuration change is pending")]
    ConfChangePending,
    /// The change removes the leader while others could lead: hand over first, see
    /// [`Driver::transfer_target`](crate::Driver::transfer_target).
    #[error("the leader must hand over before it is removed")]
    RemovesLeader,
}
