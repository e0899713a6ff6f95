//! What goes into a member and what comes out of it.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use ferrite_api::types::{LeaseId, MemberId, RequestId};
use ferrite_raft::Append;
use ferrite_storage::apply::outcome::Response;
use ferrite_storage::checkpoint::{CompactionHash, Done, Hashed, Job};
use ferrite_storage::etcd::Backup;
use ferrite_storage::membership::MembershipChange;
use ferrite_storage::mvcc::pins::Pin;
use ferrite_storage::mvcc::view::View;
use ferrite_storage::page;
use ferrite_storage::snapshot;

use super::{Incoming, LeaseCheck, Outgoing};
use crate::error::Error;
use crate::peer::{Message, Peer};
use crate::release::InvalidDowngrade;

/// What happens to a member. `T` is the shell's way to reach the client that waits.
#[derive(Debug)]
pub enum Input<T> {
    /// A heartbeat interval has passed.
    Tick,
    /// A client's write: an encoded `InternalRaftRequest` with this id in its header.
    Propose {
        /// The id in the header.
        id: RequestId,
        /// The encoded request.
        payload: Bytes,
        /// Whether it is taken while others are refused because too much is not applied yet.
        urgent: bool,
        /// Who waits.
        waiter: T,
    },
    /// A client wants to change the membership.
    ChangeMembers {
        /// The change.
        change: MembershipChange,
        /// Who waits.
        waiter: T,
    },
    /// A client wants another member to lead.
    MoveLeader {
        /// The member.
        to: MemberId,
        /// Who waits.
        waiter: T,
    },
    /// Messages of another member, in the order in which they arrived.
    Peer {
        /// The member.
        from: MemberId,
        /// The messages.
        messages: Vec<Message>,
    },
    /// Another member can be reached, or cannot any more.
    Reachable {
        /// The member.
        peer: MemberId,
        /// Whether it can.
        reachable: bool,
    },
    /// A client waits until a compaction has removed its rows.
    AwaitCompaction {
        /// The revision compacted to.
        revision: i64,
        /// Who waits.
        waiter: T,
    },
    /// A client wants the page file to have no more room than it needs. Answered with [`Reply::Done`].
    Defragment {
        /// Where the page file is.
        path: PathBuf,
        /// Who waits.
        waiter: T,
    },
    /// A client asks for the keys of a lease.
    LeaseKeys {
        /// The lease.
        id: LeaseId,
        /// Who waits.
        waiter: T,
    },
    /// A client wants to do something to the keys of a lease. Answered with [`Reply::Done`] if it may.
    CheckLease {
        /// Who and what.
        check: LeaseCheck,
        /// Who waits.
        waiter: T,
    },
    /// A client wants a snapshot of the state as it is now.
    Backup {
        /// Who waits.
        waiter: T,
    },
    /// A leader wants to send a snapshot. Answered with [`Reply::Done`] if its content is wanted.
    SnapshotOffered {
        /// What consensus says of it.
        message: Bytes,
        /// Who waits.
        waiter: T,
    },
    /// The content of a snapshot was received. Answered with [`Reply::Done`] when it is this member's
    /// state, with [`Reply::Discard`] if it was not needed any more.
    SnapshotReceived {
        /// The snapshot.
        snapshot: Incoming,
        /// Who waits.
        waiter: T,
    },
    /// What became of [`Effects::snapshots`].
    SnapshotSent {
        /// The member that needs it.
        to: MemberId,
        /// Whether it has it now.
        taken: bool,
    },
    /// Another member says that this one was removed from the cluster.
    Removed {
        /// The other one.
        by: MemberId,
    },
    /// A job has ended.
    JobDone(Done),
    /// The hash of a compaction has ended.
    HashDone(Hashed),
}

/// The end of a request.
#[derive(Debug)]
pub enum Reply {
    /// Applied: the verdict, and what is needed to turn it into a response.
    Applied(Applied),
    /// A view that is fresh enough for the read.
    View(Arc<View>),
    /// The keys attached to a lease, in byte order; `None` if there is no such lease.
    LeaseKeys(Option<Vec<Bytes>>),
    /// The state, for a client.
    Backup(Box<Backup>),
    /// What was asked for has happened.
    Done,
    /// The content of the snapshot is not needed.
    Discard,
    /// The request has failed, or its outcome is not known here.
    Failed(Error),
}

/// A verdict of apply.
#[derive(Debug)]
pub struct Applied {
    /// The answer.
    pub result: Result<Response, ferrite_api::Error>,
    /// A view that holds every row which the answer names.
    pub view: Arc<View>,
    /// Keeps those rows from being compacted away.
    pub pin: Option<Pin>,
}

/// The other members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Others {
    /// Those that are members now.
    pub peers: Vec<Peer>,
    /// Those that were, and will not be again.
    pub removed: Vec<MemberId>,
}

/// What the owner has to do, in the order of the fields.
#[derive(Debug)]
pub struct Effects<T> {
    /// Who the other members are, if that has changed.
    pub peers: Option<Others>,
    /// Messages to other members.
    pub send: Vec<(MemberId, Message)>,
    /// Snapshots to be sent to other members.
    pub snapshots: Vec<Outgoing>,
    /// Clients to answer.
    pub replies: Vec<(T, Reply)>,
    /// Put the received page file in the place of the one in use, then [`Member::installed`].
    pub install: bool,
    /// A job to run.
    pub job: Option<Job>,
    /// A hash to compute, in steps beside the jobs.
    pub hash: Option<CompactionHash>,
    /// Log segments below this number are not needed any more.
    pub release_before: Option<u64>,
    /// The member has what its log had lost: [`BallotFile::recovered`](ferrite_raft::BallotFile::recovered).
    pub recovered: bool,
    /// Records to append to the log and to sync, and a promise to keep in the ballot after that; then
    /// [`Member::appended`].
    pub append: Option<Append>,
}

/// Why a member cannot go on. Its process stops; its disk tells the rest.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// The state machine or the page file.
    #[error(transparent)]
    Storage(#[from] ferrite_storage::Error),
    /// Consensus.
    #[error(transparent)]
    Raft(#[from] ferrite_raft::Error),
    /// The log.
    #[error(transparent)]
    Wal(#[from] ferrite_disk::wal::Error),
    /// A received snapshot could not be put in place.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    /// The cluster's version is above the program's.
    #[error(transparent)]
    InvalidDowngrade(#[from] InvalidDowngrade),
    /// A committed entry that this build cannot apply.
    #[error("raft entry {index}: {why}")]
    Entry {
        /// The index of the entry.
        index: u64,
        /// Why.
        why: String,
    },
}

impl From<page::Error> for Fatal {
    fn from(error: page::Error) -> Self {
        Fatal::Storage(error.into())
    }
}
