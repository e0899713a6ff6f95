//! What apply leaves to be shown to the client: revisions and index roots instead of pairs.
//!
//! The outcome is turned into a response after apply, off its thread, against the [`View`] that was
//! published after the batch: the rows are immutable and named by their revision.

use bytes::Bytes;
use ferrite_api::pb::authpb::Permission;
use ferrite_api::pb::etcdserverpb::{
    AlarmMember, DeleteRangeResponse, PutResponse, RangeRequest, RangeResponse, ResponseHeader,
    ResponseOp, TxnResponse, response_op,
};
use ferrite_api::pb::mvccpb::KeyValue;
use ferrite_api::types::{LeaseId, Revision};

use super::tally::Tally;
use crate::mvcc::decode_record;
use crate::mvcc::index::KeyIndex;
use crate::mvcc::read::RangeError;
use crate::mvcc::view::{Rows, View};

/// The answer of an applied request.
#[derive(Clone, Debug)]
pub enum Response {
    /// Of a put.
    Put(PutOutcome),
    /// Of a delete.
    DeleteRange(DeleteOutcome),
    /// Of a transaction.
    Txn(TxnOutcome),
    /// Of a compaction: it has taken effect, rows are removed later.
    Compaction {
        /// The revision compacted to.
        revision: i64,
    },
    /// Of the grant of a lease.
    LeaseGrant {
        /// Its id.
        id: LeaseId,
        /// Its time to live, seconds.
        ttl: i64,
    },
    /// Of the end of a lease.
    LeaseRevoke {
        /// Its id.
        id: LeaseId,
        /// The store revision after its keys were deleted.
        revision: i64,
    },
    /// Of a checkpoint of leases: those that exist, with what is left of them, seconds.
    LeaseCheckpoint(Vec<(LeaseId, i64)>),
    /// Of an alarm request: the alarms to show.
    Alarm(Vec<AlarmMember>),
    /// Of a request about users and roles.
    Auth(AuthOutcome),
    /// Of a request that answers nothing.
    Done,
}

/// The answer of a request about users and roles, and what it means to tokens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AuthOutcome {
    /// Authentication is on.
    Enabled,
    /// Authentication is off: no token is good any more.
    Disabled,
    /// Something has changed that leaves tokens alone.
    Done,
    /// The tokens of this user are not good any more.
    TokensEnd(String),
    /// How the switch stands.
    Status {
        /// Whether authentication is on.
        enabled: bool,
        /// The auth revision.
        revision: u64,
    },
    /// Somebody whose password was checked gets a token.
    Authenticated {
        /// The user.
        user: String,
        /// The auth revision.
        revision: u64,
        /// The token, if tokens are simple.
        token: String,
    },
    /// The roles of a user.
    User(Vec<String>),
    /// The names of all users.
    Users(Vec<String>),
    /// The permissions of a role.
    Role(Vec<Permission>),
    /// The names of all roles.
    Roles(Vec<String>),
}

impl Response {
    /// The lowest revision whose rows the response still has to fetch; `None` when it is complete.
    /// Whoever holds the response for later pins it.
    pub fn needs(&self) -> Option<i64> {
        match self {
            Response::Put(put) => put.previous.map(|revision| revision.main),
            Response::DeleteRange(delete) => delete.previous.iter().map(|at| at.main).min(),
            Response::Txn(txn) => txn.needs(),
            Response::Compaction { .. }
            | Response::LeaseGrant { .. }
            | Response::LeaseRevoke { .. }
            | Response::LeaseCheckpoint(_)
            | Response::Alarm(_)
            | Response::Auth(_)
            | Response::Done => None,
        }
    }
}

/// A put, executed.
#[derive(Clone, Debug)]
pub struct PutOutcome {
    /// The revision of the put.
    pub revision: i64,
    /// The replaced pair, if the client asked for it and there was one.
    pub previous: Option<Revision>,
}

/// A delete, executed.
#[derive(Clone, Debug)]
pub struct DeleteOutcome {
    /// The store revision after it: unchanged when nothing was deleted.
    pub revision: i64,
    /// Keys deleted.
    pub deleted: i64,
    /// The deleted pairs in key order, if the client asked for them.
    pub previous: Vec<Revision>,
}

/// A transaction, executed.
#[derive(Clone, Debug)]
pub struct TxnOutcome {
    /// The store revision after it.
    pub revision: i64,
    /// Whether the compares held.
    pub succeeded: bool,
    /// The operations of the branch taken, in order.
    pub ops: Vec<OpOutcome>,
}

/// One operation of a transaction, executed.
#[derive(Clone, Debug)]
pub enum OpOutcome {
    /// A range: still to be read, from the root that the operation saw.
    Range {
        /// The index as the operation saw it.
        index: KeyIndex,
        /// The revision to read at.
        at: i64,
        /// The store revision that the operation saw.
        revision: i64,
        /// What to read.
        request: RangeRequest,
    },
    /// A put.
    Put(PutOutcome),
    /// A delete.
    DeleteRange(DeleteOutcome),
    /// A nested transaction.
    Txn(TxnOutcome),
}

/// Operations carry a header with nothing but the revision.
fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader {
        revision,
        ..ResponseHeader::default()
    })
}

fn pair(rows: &mut Rows<'_>, revision: Revision) -> Result<KeyValue, RangeError> {
    let record = rows.get(revision)?;
    Ok(decode_record(revision, &record)?)
}

fn pairs(records: &[Bytes]) -> Result<Vec<KeyValue>, RangeError> {
    // The revision is only for the message of a record that does not decode, which a CRC excludes.
    records
        .iter()
        .map(|record| Ok(decode_record(Revision::default(), record)?))
        .collect()
}

impl PutOutcome {
    /// The response; its header holds the revision only.
    ///
    /// # Errors
    /// The previous pair could not be fetched.
    pub fn resolve(&self, view: &View) -> Result<PutResponse, RangeError> {
        let prev_kv = match self.previous {
            Some(previous) => Some(pair(&mut view.rows(), previous)?),
            None => None,
        };
        Ok(PutResponse {
            header: header(self.revision),
            prev_kv,
        })
    }
}

impl DeleteOutcome {
    /// The response; its header holds the revision only.
    ///
    /// # Errors
    /// A previous pair could not be fetched.
    pub fn resolve(&self, view: &View) -> Result<DeleteRangeResponse, RangeError> {
        let mut rows = view.rows();
        let prev_kvs = self
            .previous
            .iter()
            .map(|at| pair(&mut rows, *at))
            .collect::<Result<_, _>>()?;
        Ok(DeleteRangeResponse {
            header: header(self.revision),
            deleted: self.deleted,
            prev_kvs,
        })
    }
}

impl TxnOutcome {
    fn needs(&self) -> Option<i64> {
        let of_op = |op: &OpOutcome| match op {
            OpOutcome::Range { at, .. } => Some(*at),
            OpOutcome::Put(put) => put.previous.map(|revision| revision.main),
            OpOutcome::DeleteRange(delete) => delete.previous.iter().map(|at| at.main).min(),
            OpOutcome::Txn(txn) => txn.needs(),
        };
        self.ops.iter().filter_map(of_op).min()
    }

    /// Counts the operations, nested ones included.
    pub(super) fn count(&self, tally: &mut Tally) {
        for op in &self.ops {
            match op {
                OpOutcome::Range { .. } => tally.ranges += 1,
                OpOutcome::Put(_) => tally.puts += 1,
                OpOutcome::DeleteRange(_) => tally.deletes += 1,
                OpOutcome::Txn(nested) => nested.count(tally),
            }
        }
    }

    /// The response; its header holds the revision only.
    ///
    /// # Errors
    /// A pair could not be fetched.
    pub fn resolve(&self, view: &View) -> Result<TxnResponse, RangeError> {
        let responses = self
            .ops
            .iter()
            .map(|op| {
                Ok(ResponseOp {
                    response: Some(op.resolve(view)?),
                })
            })
            .collect::<Result<_, RangeError>>()?;
        Ok(TxnResponse {
            header: header(self.revision),
            succeeded: self.succeeded,
            responses,
        })
    }
}

impl OpOutcome {
    fn resolve(&self, view: &View) -> Result<response_op::Response, RangeError> {
        Ok(match self {
            OpOutcome::Range {
                index,
                at,
                revision,
                request,
            } => {
                let range = view.range_at(index, *at, request)?;
                response_op::Response::ResponseRange(RangeResponse {
                    header: header(*revision),
                    kvs: pairs(&range.kvs)?,
                    more: range.more,
                    count: range.count,
                })
            }
            OpOutcome::Put(put) => response_op::Response::ResponsePut(put.resolve(view)?),
            OpOutcome::DeleteRange(delete) => {
                response_op::Response::ResponseDeleteRange(delete.resolve(view)?)
            }
            OpOutcome::Txn(txn) => {
                // etcd leaves the header of a nested transaction empty.
                let header = Some(ResponseHeader::default());
                response_op::Response::ResponseTxn(TxnResponse {
                    header,
                    ..txn.resolve(view)?
                })
            }
        })
    }
}
