//! Apply: the pure state machine. `(state, entry) -> (state, response)`.
//!
//! Every member applies the same log, so every member must come to the same state: nothing here
//! reads a clock, a configuration of the member, its disk usage, or the order of a hash map, and
//! every check that can fail gives the same verdict everywhere. An error that is an *answer*
//! (`ferrite_api::Error`) is part of that verdict; [`crate::Error`] means that this member's
//! storage failed, and stops it.
//!
//! Apply changes memory only. What must be read to decide (compares, `ignore_value`) is read here;
//! what is only shown to the client (prev_kv, ranges inside a transaction) is remembered as
//! revisions and index roots in an [`outcome`], and fetched after apply, on another thread.
//!
//! The order of checks is that of spec validation.md sections 1.2 and 4.

mod auth;
pub mod cost;
mod lease;
mod membership;
pub mod outcome;
pub mod tally;
mod txn;

use bytes::Bytes;
use ferrite_api::Version;
use ferrite_api::pb::etcdserverpb::{
    AlarmType, CompactionRequest, DeleteRangeRequest, InternalRaftRequest, PutRequest, TxnRequest,
};
use ferrite_api::types::{LeaseId, RequestId};
use prost::Message;

use crate::auth::Identity;
use crate::error::Error;
use crate::leases::NO_LEASE;
use crate::mvcc::range::KeyRange;
use crate::mvcc::store::WriteTxn;
use crate::state::State;
use outcome::{DeleteOutcome, PutOutcome, Response};
use tally::Kind;

pub use auth::check_read_only;
pub use txn::read_only;

/// What became of one entry.
#[derive(Debug)]
pub struct Applied {
    /// The request that the entry carried, for whoever waits for it; 0 when there was none.
    pub request: RequestId,
    /// The answer.
    pub result: Result<Response, ferrite_api::Error>,
    /// What the request costs against the space quota (bytes).
    pub cost: u64,
}

/// Distinguishes the verdict (an answer, the same on every member) from this member's failure.
#[derive(Debug)]
pub(crate) enum Failure {
    Answer(ferrite_api::Error),
    Fatal(Error),
}

impl From<ferrite_api::Error> for Failure {
    fn from(error: ferrite_api::Error) -> Self {
        Failure::Answer(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Fatal(error)
    }
}

impl State {
    /// Applies the entry at `index`, which must be the one after the last applied. An empty entry
    /// (a new term) only moves the applied index.
    ///
    /// # Errors
    /// This member's storage failed or cannot apply the entry: it must stop. The state is then not
    /// to be used any more.
    pub fn apply(&mut self, index: u64, term: u64, data: &Bytes) -> Result<Option<Applied>, Error> {
        self.expect_next(index, term);
        let applied = if data.is_empty() {
            None
        } else {
            Some(self.apply_request(index, data)?)
        };
        self.advance(index, term);
        Ok(applied)
    }

    fn apply_request(&mut self, index: u64, data: &Bytes) -> Result<Applied, Error> {
        let request = InternalRaftRequest::decode(data.clone()).map_err(|error| Error::Entry {
            index,
            why: format!("does not decode: {error}"),
        })?;
        let header_id = request.header.as_ref().map_or(0, |header| header.id);
        let id = if request.id != 0 {
            request.id
        } else {
            header_id
        };
        let cost = cost::of(&request);
        let identity = Identity::of(request.header.as_ref());
        let result = match self.dispatch(index, &identity, request) {
            Ok(response) => Ok(response),
            Err(Failure::Answer(error)) => Err(error),
            Err(Failure::Fatal(error)) => return Err(error),
        };
        Ok(Applied {
            request: RequestId::new(id),
            result,
            cost,
        })
    }

    fn dispatch(
        &mut self,
        index: u64,
        identity: &Identity,
        request: InternalRaftRequest,
    ) -> Result<Response, Failure> {
        let (kind, result) = if let Some(put) = request.put {
            (Kind::Put, self.put(identity, put))
        } else if let Some(delete) = request.delete_range {
            (Kind::DeleteRange, self.delete_range(identity, &delete))
        } else if let Some(txn) = request.txn {
            (Kind::Txn, self.txn(identity, txn))
        } else if let Some(compaction) = request.compaction {
            (Kind::Compaction, self.compact(&compaction))
        } else if let Some(grant) = request.lease_grant {
            (Kind::LeaseGrant, self.lease_grant(&grant))
        } else if let Some(revoke) = request.lease_revoke {
            (Kind::LeaseRevoke, self.lease_revoke(identity, &revoke))
        } else if let Some(checkpoint) = request.lease_checkpoint {
            (Kind::LeaseCheckpoint, self.lease_checkpoint(checkpoint))
        } else if let Some(alarm) = request.alarm {
            (Kind::Alarm, Ok(Response::Alarm(self.apply_alarm(&alarm))))
        } else if let Some(set) = request.cluster_version_set {
            self.set_cluster_version(version(index, &set.ver)?);
            (Kind::ClusterVersionSet, Ok(Response::Done))
        } else if let Some(set) = request.cluster_member_attr_set {
            self.set_member_attributes(set.member_id, set.member_attributes);
            (Kind::ClusterMemberAttrSet, Ok(Response::Done))
        } else if let Some(set) = request.downgrade_info_set {
            let target = set.enabled.then(|| version(index, &set.ver));
            self.set_downgrade(target.transpose()?);
            (Kind::DowngradeInfoSet, Ok(Response::Done))
        } else if let Some(applied) = self.auth_request(index, identity, &request) {
            applied
        } else if request.downgrade_version_test.is_some() {
            // Does nothing: it is there for the version that it needs (`schema::log`).
            (Kind::DowngradeVersionTest, Ok(Response::Done))
        } else {
            // Skipping an entry that others apply would make the stores differ for ever.
            let why = "carries a request that this build does not know".to_owned();
            return Err(Failure::Fatal(Error::Entry { index, why }));
        };
        self.tally.request(kind, result.is_ok());
        result
    }

    /// Refuses what active alarms forbid: every write while a member is corrupt, and writes that
    /// need space while one has none.
    fn check_alarms(&self, needs_space: bool) -> Result<(), Failure> {
        if self.alarms().is_active(AlarmType::Corrupt) {
            return Err(ferrite_api::Error::Corrupt.into());
        }
        if needs_space && self.alarms().is_active(AlarmType::Nospace) {
            return Err(ferrite_api::Error::NoSpace.into());
        }
        Ok(())
    }

    fn put(&mut self, identity: &Identity, request: PutRequest) -> Result<Response, Failure> {
        self.check_alarms(true)?;
        self.checks(identity).put(&request)?;
        let bytes = (request.key.len() + request.value.len()) as u64;
        let mut txn = self.store_mut().begin(false);
        check_put(&txn, &request)?;
        let outcome = put(&mut txn, request)?;
        txn.commit();
        self.tally.puts += 1;
        self.tally.put_bytes += bytes;
        Ok(Response::Put(outcome))
    }

    fn txn(&mut self, identity: &Identity, request: TxnRequest) -> Result<Response, Failure> {
        self.check_alarms(cost::txn(&request) > 0)?;
        self.checks(identity).txn(&request)?;
        let outcome = txn::write(self.store_mut(), request)?;
        outcome.count(&mut self.tally);
        self.tally.txns += u64::from(outcome.ops.len() > 1);
        Ok(Response::Txn(outcome))
    }

    fn delete_range(
        &mut self,
        identity: &Identity,
        request: &DeleteRangeRequest,
    ) -> Result<Response, Failure> {
        self.check_alarms(false)?;
        self.checks(identity).delete_range(request)?;
        let mut txn = self.store_mut().begin(false);
        let outcome = delete_range(&mut txn, request);
        txn.commit();
        self.tally.deletes += 1;
        Ok(Response::DeleteRange(outcome))
    }

    fn compact(&mut self, request: &CompactionRequest) -> Result<Response, Failure> {
        self.check_alarms(false)?;
        if request.revision <= self.store().compacted() {
            return Err(ferrite_api::Error::Compacted.into());
        }
        if request.revision > self.store().revision() {
            return Err(ferrite_api::Error::FutureRev.into());
        }
        self.schedule_compaction(request.revision);
        Ok(Response::Compaction {
            revision: request.revision,
        })
    }
}

/// The version in an entry. Only members write such entries, and only versions into them.
fn version(index: u64, text: &str) -> Result<Version, Failure> {
    Version::parse(text).ok_or_else(|| {
        let why = format!("{text:?} is no version");
        Failure::Fatal(Error::Entry { index, why })
    })
}

/// The checks of a put that depend on the store: lease, then `ignore_value` and `ignore_lease`.
fn check_put(txn: &WriteTxn<'_>, request: &PutRequest) -> Result<(), Failure> {
    let lease = LeaseId::new(request.lease);
    if lease != NO_LEASE && txn.leases().get(lease).is_none() {
        return Err(ferrite_api::Error::LeaseNotFound.into());
    }
    if (request.ignore_value || request.ignore_lease) && txn.index().latest(&request.key).is_none()
    {
        return Err(ferrite_api::Error::KeyNotFound.into());
    }
    Ok(())
}

fn put(txn: &mut WriteTxn<'_>, request: PutRequest) -> Result<PutOutcome, Failure> {
    let PutRequest {
        key,
        mut value,
        mut lease,
        prev_kv,
        ignore_value,
        ignore_lease,
    } = request;
    if ignore_value || ignore_lease {
        let Some(meta) = txn.index().latest(&key) else {
            return Err(ferrite_api::Error::KeyNotFound.into());
        };
        let current = txn.read(meta.modified)?;
        if ignore_value {
            value = current.value;
        }
        if ignore_lease {
            lease = current.lease;
        }
    }
    let previous = txn.put(key, value, lease);
    Ok(PutOutcome {
        revision: txn.revision(),
        previous: previous.filter(|_| prev_kv).map(|meta| meta.modified),
    })
}

fn delete_range(txn: &mut WriteTxn<'_>, request: &DeleteRangeRequest) -> DeleteOutcome {
    let range = KeyRange::new(request.key.clone(), &request.range_end);
    let deleted = txn.delete_range(&range);
    DeleteOutcome {
        revision: txn.revision(),
        deleted: i64::try_from(deleted.len()).expect("keys in memory fit i64"),
        previous: if request.prev_kv {
            deleted.into_iter().map(|meta| meta.modified).collect()
        } else {
            Vec::new()
        },
    }
}
