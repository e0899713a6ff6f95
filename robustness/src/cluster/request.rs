//! What clients ask, and what a member's answer means to them.

use std::fmt;

use anyhow::{bail, ensure};
use bytes::Bytes;
use ferrite_api::Error as ApiError;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::mvccpb::KeyValue;
use ferrite_server::error::Error;
use ferrite_server::member::{Applied, Reply};
use ferrite_storage::apply::outcome::Response;
use ferrite_storage::mvcc::read::RangeError;
use ferrite_storage::mvcc::view::View;
use ferrite_storage::state::overtaken;
use prost::Message;
use tonic::Code;

use crate::history::{Action, Digest, Outcome, Pair};

/// A request.
#[derive(Clone)]
pub(super) enum Ask {
    /// A write.
    Propose {
        /// What it is to a history.
        action: Proposed,
        /// What it is to a member.
        request: Box<pb::InternalRaftRequest>,
    },
    /// A read.
    Read {
        /// What it is to a history.
        action: Action,
        /// Whether any state of the member will do.
        local: bool,
        /// The revision to read at; 0 = the newest.
        at: i64,
    },
    /// The renewal of a lease.
    Renew {
        /// The lease.
        lease: i64,
    },
}

/// What a write is to a history.
#[derive(Clone, Debug)]
pub(super) enum Proposed {
    /// Changes of keys, or the end of a lease.
    Change(Action),
    /// A new lease.
    Grant {
        /// Its id.
        id: i64,
        /// Its time to live, seconds.
        ttl: i64,
    },
    /// A compaction.
    Compact {
        /// The revision compacted to.
        revision: i64,
    },
}

/// What a client is told.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// It has come to this.
    Done(Outcome),
    /// The lease is there, the compaction has taken effect.
    Granted,
    /// The lease was renewed.
    Renewed {
        /// The lease.
        lease: i64,
    },
    /// Nothing was done, and will not be.
    Refused(ApiError),
    /// Nobody knows, or the read has failed.
    Unknown,
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ask::Propose { action, .. } => write!(f, "{action:?}"),
            Ask::Read { action, local, at } => {
                let local = if *local { "local " } else { "" };
                write!(f, "{local}{action:?} at {at}")
            }
            Ask::Renew { lease } => write!(f, "renew lease {lease}"),
        }
    }
}

impl Ask {
    /// What a member's reply means.
    ///
    /// # Errors
    /// It must not answer so.
    pub(super) fn answer(&self, reply: &Reply, newest: &View) -> anyhow::Result<Answer> {
        match (self, reply) {
            (_, Reply::Failed(error)) => Ok(failed(error)),
            (Ask::Propose { action, .. }, Reply::Applied(applied)) => action.applied(applied),
            (Ask::Read { action, at, .. }, Reply::View(view)) => read(action, *at, view, newest),
            (ask, reply) => bail!("{ask:?} is answered by {reply:?}"),
        }
    }
}

fn failed(error: &Error) -> Answer {
    match error {
        Error::Api(error @ (ApiError::RequestTooManyRequests | ApiError::NoSpace)) => {
            Answer::Refused(*error)
        }
        // It never left the queue.
        Error::Status {
            code: Code::DeadlineExceeded,
            ..
        } => Answer::Refused(ApiError::Timeout),
        _ => Answer::Unknown,
    }
}

impl Proposed {
    fn applied(&self, applied: &Applied) -> anyhow::Result<Answer> {
        let response = match &applied.result {
            Ok(response) => response,
            Err(error) => {
                let may = match self {
                    Proposed::Change(_) => matches!(error, ApiError::LeaseNotFound),
                    Proposed::Grant { .. } => false,
                    Proposed::Compact { .. } => {
                        matches!(error, ApiError::Compacted | ApiError::FutureRev)
                    }
                };
                ensure!(may, "{self:?} is refused: {error}");
                return Ok(Answer::Refused(*error));
            }
        };
        Ok(match (self, response) {
            (Proposed::Change(_), Response::Put(put)) => Answer::Done(Outcome::Applied {
                revision: put.revision,
            }),
            (Proposed::Change(_), Response::DeleteRange(delete)) => {
                Answer::Done(changed(delete.deleted > 0, delete.revision))
            }
            (Proposed::Change(Action::Swap { .. }), Response::Txn(txn)) => {
                let revision = txn.revision;
                let response = txn.resolve(&applied.view)?;
                if response.succeeded {
                    return Ok(Answer::Done(Outcome::Applied { revision }));
                }
                let Some(pb::response_op::Response::ResponseRange(range)) = response
                    .responses
                    .first()
                    .and_then(|op| op.response.as_ref())
                else {
                    bail!("the failed branch reads: {response:?}");
                };
                let current = range.kvs.first().map(Pair::from);
                Answer::Done(Outcome::Refused { revision, current })
            }
            (Proposed::Change(_), Response::Txn(txn)) => {
                let response = txn.resolve(&applied.view)?;
                let changes = response.responses.iter().any(|op| match &op.response {
                    Some(pb::response_op::Response::ResponseDeleteRange(delete)) => {
                        delete.deleted > 0
                    }
                    _ => true,
                });
                Answer::Done(changed(changes, txn.revision))
            }
            (Proposed::Change(_), Response::LeaseRevoke { revision, .. }) => {
                Answer::Done(changed(false, *revision))
            }
            (Proposed::Grant { .. }, Response::LeaseGrant { .. })
            | (Proposed::Compact { .. }, Response::Compaction { .. }) => Answer::Granted,
            (proposed, response) => bail!("{proposed:?} is answered by {response:?}"),
        })
    }
}

fn changed(changed: bool, revision: i64) -> Outcome {
    match changed {
        true => Outcome::Applied { revision },
        false => Outcome::Absent { revision },
    }
}

/// Reads at revision `at` of a view. `newest`: what the member has by now.
fn read(action: &Action, at: i64, view: &View, newest: &View) -> anyhow::Result<Answer> {
    let (key, range_end) = match action {
        Action::Get { key } | Action::Peek { key } => (key.clone(), Bytes::new()),
        Action::List { prefix } | Action::PeekList { prefix } => {
            (prefix.clone(), prefix_end(prefix))
        }
        other => bail!("{other:?} is no read"),
    };
    let request = pb::RangeRequest {
        key,
        range_end,
        revision: at,
        ..pb::RangeRequest::default()
    };
    let revision = if at == 0 { view.revision } else { at };
    let records = match view.range(&request) {
        Ok(range) => range.kvs,
        Err(error) => return unreadable(error, revision, newest),
    };
    let mut digest = Digest::default();
    let mut pair = None;
    for record in records {
        let kv = KeyValue::decode(record)?;
        let found = Pair::from(&kv);
        digest.add(&kv.key, &found);
        pair = Some(found);
    }
    Ok(Answer::Done(match action {
        Action::Get { .. } | Action::Peek { .. } => Outcome::Found { revision, pair },
        _ => Outcome::Listed { revision, digest },
    }))
}

fn unreadable(error: RangeError, at: i64, newest: &View) -> anyhow::Result<Answer> {
    Ok(Answer::Refused(overtaken(error, at, newest.compacted)?))
}

/// The end of the range of all keys that begin with `prefix`.
pub(super) fn prefix_end(prefix: &Bytes) -> Bytes {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    Bytes::from(end)
}
