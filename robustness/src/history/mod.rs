//! A history: what clients did and saw, and the check of it.
//!
//! Clients record every operation with the times of its call and its return, watchers every event.
//! One watcher sees the whole key space from the first revision to the last: its events are the
//! *log*, a candidate order of everything that happened. [`check`](check::check) then proves, in time
//! `O(n log n)`, that the history is linearizable **in that order**, and that every watch kept its
//! promises:
//!
//! * Replaying the log gives each event's create revision, version and previous pair.
//! * Every acknowledged write is in the log once, at the revision its client was told, and its
//!   compare held just before. Every other event is a write without an answer, at most once, or the
//!   end of a lease, which somebody revoked or whose time was up.
//! * Every read, and every compare that failed, saw the state of the log at its revision.
//! * Real time: an operation's revision is not below (a write's: above) any revision that had been
//!   returned before its call, and no read returns what nobody had written yet.
//!
//! (The witness check of the linearizability literature: a proof needs no search if the system says
//! where each operation stands.)

pub mod check;
mod digest;
mod watch;

use std::time::Duration;

use bytes::Bytes;
use ferrite_api::pb::mvccpb::KeyValue;

pub use digest::{Digest, hash_value};
pub use watch::{Watched, fingerprint};

/// Time since the run began, from one monotonic clock.
pub type Moment = Duration;

/// One operation of a client.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Just before the request was sent.
    pub called: Moment,
    /// Just after the answer came, or when the client gave up.
    pub returned: Moment,
    /// What was asked.
    pub action: Action,
    /// What came of it.
    pub outcome: Outcome,
}

/// What a client asks.
#[derive(Clone, Debug)]
pub enum Action {
    /// If the key's mod revision is `expected` (0: the key is absent), change it, else read it.
    Swap {
        /// The key.
        key: Bytes,
        /// The mod revision compared with.
        expected: i64,
        /// What is written if it is equal.
        change: Change,
    },
    /// A linearizable read of one key.
    Get {
        /// The key.
        key: Bytes,
    },
    /// Changes of different keys in one transaction. To delete a key that is not there changes nothing.
    Write {
        /// The changes, in order.
        changes: Vec<(Bytes, Change)>,
    },
    /// The end of a lease, asked for by a client.
    Revoke {
        /// Its id.
        lease: i64,
    },
    /// A read of all keys of a prefix, perhaps in pages at one revision.
    List {
        /// The prefix.
        prefix: Bytes,
    },
    /// A read of one key that may be old: serializable, or at a given revision.
    Peek {
        /// The key.
        key: Bytes,
    },
    /// A read of all keys of a prefix that may be old.
    PeekList {
        /// The prefix.
        prefix: Bytes,
    },
}

/// A change of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// A new value.
    Put {
        /// [`hash_value`] of the value. No two writes of a run have the same value.
        value: u64,
        /// The lease; 0 = none.
        lease: i64,
    },
    /// A deletion.
    Delete,
}

/// What came of an operation.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The change was made at this revision.
    Applied {
        /// The revision.
        revision: i64,
    },
    /// Nothing was changed: what was to be deleted, or to be taken off the lease, is not there at this
    /// revision.
    Absent {
        /// The header's revision.
        revision: i64,
    },
    /// The compare failed; the pair that was there instead.
    Refused {
        /// The header's revision.
        revision: i64,
        /// What the key held.
        current: Option<Pair>,
    },
    /// The pair that a get found.
    Found {
        /// The header's revision.
        revision: i64,
        /// The pair, if the key was there.
        pair: Option<Pair>,
    },
    /// What a list found.
    Listed {
        /// The revision that was read.
        revision: i64,
        /// Digest of the pairs.
        digest: Digest,
    },
    /// No answer: a write may have happened, now or later.
    Unknown,
}

/// A pair, with a hash for its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Revision of its creation.
    pub created: i64,
    /// Revision of its last change.
    pub modified: i64,
    /// Changes since its creation.
    pub version: i64,
    /// [`hash_value`] of the value.
    pub value: u64,
    /// Its lease; 0 = none.
    pub lease: i64,
}

impl From<&KeyValue> for Pair {
    fn from(kv: &KeyValue) -> Self {
        Self {
            created: kv.create_revision,
            modified: kv.mod_revision,
            version: kv.version,
            value: hash_value(&kv.value),
            lease: kv.lease,
        }
    }
}

/// One event of the log.
#[derive(Clone, Debug)]
pub struct Event {
    /// The revision.
    pub revision: i64,
    /// The key.
    pub key: Bytes,
    /// The new pair; `None` for a deletion.
    pub pair: Option<Pair>,
    /// The pair before, as the event carried it.
    pub previous: Option<Pair>,
    /// When it was received.
    pub received: Moment,
}

/// A lease that was granted.
#[derive(Clone, Copy, Debug)]
pub struct Granted {
    /// The id.
    pub id: i64,
    /// Its time to live; less if the leader's clock may be fast.
    pub ttl: Duration,
    /// When it was asked for: it cannot end earlier than this plus its time to live.
    pub called: Moment,
}

/// A lease that was renewed: it lasts another time to live.
#[derive(Clone, Copy, Debug)]
pub struct Renewed {
    /// The id.
    pub id: i64,
    /// When it was asked for.
    pub called: Moment,
}

/// Everything that was recorded.
#[derive(Debug, Default)]
pub struct History {
    /// Operations of all clients, in any order.
    pub operations: Vec<Operation>,
    /// Leases, each granted once. What revokes them is in `operations`.
    pub leases: Vec<Granted>,
    /// Renewals that were acknowledged.
    pub renewals: Vec<Renewed>,
    /// All events from the first revision on, in the order received by the witness.
    pub log: Vec<Event>,
    /// What the other watchers saw.
    pub watched: Vec<Watched>,
}
