//! The model: what the committed entries mean, in the plainest way. Every member must come to the same, and
//! every client must be told the same.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{bail, ensure};
use bytes::Bytes;
use ferrite_api::Error as ApiError;
use ferrite_api::pb::etcdserverpb as pb;
use pb::compare::TargetUnion;
use pb::request_op::Request;
use prost::Message;

use super::request::Answer;
use crate::history::{Event, Moment, Outcome, Pair, hash_value};

/// What a request has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It changed keys.
    Changed { revision: i64 },
    /// It changed none.
    Unchanged { revision: i64 },
    /// Its compare did not hold, and it read this instead.
    Compared {
        revision: i64,
        current: Option<Pair>,
    },
    /// The lease is gone.
    Revoked { revision: i64 },
    /// The lease is there, the compaction has taken effect.
    Granted,
    /// It was refused.
    Refused(ApiError),
}

/// A lease that an entry has revoked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Revoked {
    pub(super) lease: i64,
    /// The id of the request.
    pub(super) request: u64,
}

/// The state after all entries that were committed so far.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) revision: i64,
    compacted: i64,
    pub(super) pairs: BTreeMap<Bytes, Pair>,
    /// Leases, with their keys.
    leases: BTreeMap<i64, BTreeSet<Bytes>>,
    /// When leases were revoked.
    ended: BTreeMap<i64, Moment>,
    /// All events.
    pub(super) events: Vec<Event>,
    /// By the id of the request.
    verdicts: BTreeMap<u64, Verdict>,
    /// Requests whose clients were told that they were not carried out, and will not be.
    given_up: BTreeSet<u64>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            revision: 1,
            compacted: -1,
            pairs: BTreeMap::new(),
            leases: BTreeMap::new(),
            ended: BTreeMap::new(),
            events: Vec::new(),
            verdicts: BTreeMap::new(),
            given_up: BTreeSet::new(),
        }
    }
}

impl Model {
    /// What became of a request; `None` if it is not in the log.
    pub(super) fn verdict(&self, id: u64) -> Option<&Verdict> {
        self.verdicts.get(&id)
    }

    /// Whether there is such a lease.
    pub(super) fn has_lease(&self, lease: i64) -> bool {
        self.leases.contains_key(&lease)
    }

    /// When a lease was revoked.
    pub(super) fn ended(&self, lease: i64) -> Option<Moment> {
        self.ended.get(&lease).copied()
    }

    /// A client was told that its request was not carried out, and will not be.
    pub(super) fn give_up(&mut self, id: u64) -> anyhow::Result<()> {
        ensure!(
            !self.verdicts.contains_key(&id),
            "request {id:x} is in the log, its client is told that it is not"
        );
        self.given_up.insert(id);
        Ok(())
    }

    /// A client was told this about its request, which was applied.
    pub(super) fn told(&self, id: u64, answer: &Answer) -> anyhow::Result<()> {
        let Some(verdict) = self.verdicts.get(&id) else {
            bail!("request {id:x} is answered by {answer:?}, and is not in the log");
        };
        let right = match (verdict, answer) {
            (Verdict::Changed { revision }, Answer::Done(Outcome::Applied { revision: told }))
            | (
                Verdict::Unchanged { revision } | Verdict::Revoked { revision },
                Answer::Done(Outcome::Absent { revision: told }),
            ) => revision == told,
            (
                Verdict::Compared { revision, current },
                Answer::Done(Outcome::Refused {
                    revision: told,
                    current: shown,
                }),
            ) => revision == told && current == shown,
            (Verdict::Granted, Answer::Granted) => true,
            (Verdict::Refused(error), Answer::Refused(told)) => error == told,
            _ => false,
        };
        ensure!(
            right,
            "request {id:x} came to {verdict:?}, its client is told {answer:?}"
        );
        Ok(())
    }

    /// The next entry is committed. The lease that it has revoked, if it has.
    pub(super) fn apply(&mut self, now: Moment, data: &Bytes) -> anyhow::Result<Option<Revoked>> {
        if data.is_empty() {
            return Ok(None);
        }
        let request = pb::InternalRaftRequest::decode(data.clone())?;
        let id = request.header.as_ref().map_or(0, |header| header.id);
        ensure!(
            !self.given_up.contains(&id),
            "request {id:x} is in the log, its client was told that it never will be"
        );
        let revokes = request.lease_revoke.as_ref().map(|revoke| revoke.id);
        let verdict = self
            .carry_out(now, request)
            .unwrap_or_else(Verdict::Refused);
        let gone = revokes.filter(|_| matches!(verdict, Verdict::Revoked { .. }));
        let twice = self.verdicts.insert(id, verdict);
        ensure!(twice.is_none(), "request {id:x} is in the log twice");
        let Some(lease) = gone else { return Ok(None) };
        self.ended.insert(lease, now);
        Ok(Some(Revoked { lease, request: id }))
    }

    fn carry_out(
        &mut self,
        now: Moment,
        request: pb::InternalRaftRequest,
    ) -> Result<Verdict, ApiError> {
        if let Some(put) = request.put {
            self.change(now, vec![Request::RequestPut(put)])
        } else if let Some(delete) = request.delete_range {
            self.change(now, vec![Request::RequestDeleteRange(delete)])
        } else if let Some(txn) = request.txn {
            self.txn(now, txn)
        } else if let Some(compaction) = request.compaction {
            if compaction.revision <= self.compacted {
                return Err(ApiError::Compacted);
            }
            if compaction.revision > self.revision {
                return Err(ApiError::FutureRev);
            }
            self.compacted = compaction.revision;
            Ok(Verdict::Granted)
        } else if let Some(grant) = request.lease_grant {
            if self.leases.contains_key(&grant.id) {
                return Err(ApiError::LeaseExist);
            }
            self.leases.insert(grant.id, BTreeSet::new());
            Ok(Verdict::Granted)
        } else if let Some(revoke) = request.lease_revoke {
            let keys = self.leases.remove(&revoke.id);
            let keys = keys.ok_or(ApiError::LeaseNotFound)?;
            self.revision += i64::from(!keys.is_empty());
            for key in keys {
                self.set(now, key, None);
            }
            let revision = self.revision;
            Ok(Verdict::Revoked { revision })
        } else {
            let revision = self.revision;
            Ok(Verdict::Unchanged { revision })
        }
    }

    fn txn(&mut self, now: Moment, txn: pb::TxnRequest) -> Result<Verdict, ApiError> {
        let holds = |compare: &pb::Compare| {
            let modified = self.pairs.get(&compare.key).map_or(0, |pair| pair.modified);
            compare.target_union == Some(TargetUnion::ModRevision(modified))
        };
        if txn.compare.iter().all(holds) {
            let ops = txn.success.into_iter().filter_map(|op| op.request);
            return self.change(now, ops.collect());
        }
        let read = txn.failure.into_iter().find_map(|op| match op.request {
            Some(Request::RequestRange(range)) => Some(range.key),
            _ => None,
        });
        Ok(Verdict::Compared {
            revision: self.revision,
            current: read.and_then(|key| self.pairs.get(&key).copied()),
        })
    }

    /// Carries out puts and deletions of single keys, all at one revision.
    fn change(&mut self, now: Moment, ops: Vec<Request>) -> Result<Verdict, ApiError> {
        let unknown = |op: &Request| match op {
            Request::RequestPut(put) => put.lease != 0 && !self.leases.contains_key(&put.lease),
            _ => false,
        };
        if ops.iter().any(unknown) {
            return Err(ApiError::LeaseNotFound);
        }
        let changes = |op: &Request| match op {
            Request::RequestDeleteRange(delete) => self.pairs.contains_key(&delete.key),
            _ => true,
        };
        if !ops.iter().any(changes) {
            let revision = self.revision;
            return Ok(Verdict::Unchanged { revision });
        }
        self.revision += 1;
        for op in ops {
            match op {
                Request::RequestPut(put) => {
                    let before = self.pairs.get(&put.key);
                    let pair = Pair {
                        created: before.map_or(self.revision, |pair| pair.created),
                        modified: self.revision,
                        version: before.map_or(0, |pair| pair.version) + 1,
                        value: hash_value(&put.value),
                        lease: put.lease,
                    };
                    self.set(now, put.key, Some(pair));
                }
                Request::RequestDeleteRange(delete) => {
                    if self.pairs.contains_key(&delete.key) {
                        self.set(now, delete.key, None);
                    }
                }
                Request::RequestRange(_) | Request::RequestTxn(_) => {}
            }
        }
        let revision = self.revision;
        Ok(Verdict::Changed { revision })
    }

    fn set(&mut self, now: Moment, key: Bytes, pair: Option<Pair>) {
        let previous = match pair {
            Some(pair) => self.pairs.insert(key.clone(), pair),
            None => self.pairs.remove(&key),
        };
        let of = |pair: Option<Pair>| pair.map(|pair| pair.lease);
        if let Some(keys) = of(previous).and_then(|lease| self.leases.get_mut(&lease)) {
            keys.remove(&key);
        }
        if let Some(keys) = of(pair).and_then(|lease| self.leases.get_mut(&lease)) {
            keys.insert(key.clone());
        }
        self.events.push(Event {
            revision: self.revision,
            key,
            pair,
            previous,
            received: now,
        });
    }
}
