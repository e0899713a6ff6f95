//! What clients ask for: a mix of everything, over few keys.

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request;
use rand::Rng;
use rand::seq::IndexedRandom;

use super::clients::{Client, Records};
use super::plan::Plan;
use super::request::{Ask, Proposed};
use crate::history::{Action, Change, hash_value};

impl Client {
    /// The next request.
    pub(super) fn ask(&mut self, plan: &Plan, records: &mut Records) -> Ask {
        let local = self.rng.random_bool(0.4);
        match self.rng.random_range(0..100) {
            0..25 => {
                let key = self.key(plan);
                let (change, put) = self.put(records, &key);
                let request = pb::InternalRaftRequest {
                    put: Some(put),
                    ..Default::default()
                };
                change_of(vec![(key, change)], request)
            }
            25..45 => self.swap(plan, records),
            45..52 => {
                let key = self.key(plan);
                let request = pb::InternalRaftRequest {
                    delete_range: Some(delete(&key)),
                    ..Default::default()
                };
                change_of(vec![(key, Change::Delete)], request)
            }
            52..60 => self.multi(plan, records),
            60..76 => {
                let key = self.key(plan);
                let action = match local {
                    true => Action::Peek { key },
                    false => Action::Get { key },
                };
                Ask::Read {
                    action,
                    local,
                    at: 0,
                }
            }
            76..84 => {
                let prefix =
                    Bytes::from_static([&b"k/"[..], b"k/00", b"k/01"][self.rng.random_range(0..3)]);
                let action = match local {
                    true => Action::PeekList { prefix },
                    false => Action::List { prefix },
                };
                Ask::Read {
                    action,
                    local,
                    at: 0,
                }
            }
            84..90 => Ask::Read {
                action: Action::Peek {
                    key: self.key(plan),
                },
                local,
                at: self.past(30).max(1).min(self.seen.max(1)),
            },
            90..92 => {
                let revision = self.past(20);
                propose(
                    Proposed::Compact { revision },
                    pb::InternalRaftRequest {
                        compaction: Some(pb::CompactionRequest {
                            revision,
                            physical: false,
                        }),
                        ..Default::default()
                    },
                )
            }
            92..95 if !self.leases.is_empty() => {
                let lease = self.leases.choose(&mut self.rng).copied();
                Ask::Renew {
                    lease: lease.unwrap_or(0),
                }
            }
            92..96 => {
                records.next += 1;
                let (id, ttl) = (records.next, self.rng.random_range(2..8));
                propose(
                    Proposed::Grant { id, ttl },
                    pb::InternalRaftRequest {
                        lease_grant: Some(pb::LeaseGrantRequest { id, ttl }),
                        ..Default::default()
                    },
                )
            }
            _ => match self.leases.choose(&mut self.rng).copied() {
                Some(lease) => {
                    self.leases.retain(|own| *own != lease);
                    propose(
                        Proposed::Change(Action::Revoke { lease }),
                        pb::InternalRaftRequest {
                            lease_revoke: Some(pb::LeaseRevokeRequest { id: lease }),
                            ..Default::default()
                        },
                    )
                }
                None => self.multi(plan, records),
            },
        }
    }

    /// A revision so many or fewer before the newest that is known.
    fn past(&mut self, before: i64) -> i64 {
        (self.seen - self.rng.random_range(0..=before)).max(1)
    }

    fn key(&mut self, plan: &Plan) -> Bytes {
        Bytes::from(format!("k/{:03}", self.rng.random_range(0..plan.keys)))
    }

    fn put(&mut self, records: &mut Records, key: &Bytes) -> (Change, pb::PutRequest) {
        records.next += 1;
        let mut value = format!("{:x}.", records.next).into_bytes();
        let length = match self.rng.random_range(0..30) {
            0 => self.rng.random_range(1000..5000),
            _ => self.rng.random_range(0..100),
        };
        value.resize(value.len() + length, b'v');
        let lease = match self.rng.random_bool(0.2) {
            true => self.leases.choose(&mut self.rng).copied().unwrap_or(0),
            false => 0,
        };
        let change = Change::Put {
            value: hash_value(&value),
            lease,
        };
        let put = pb::PutRequest {
            key: key.clone(),
            value: Bytes::from(value),
            lease,
            ..Default::default()
        };
        (change, put)
    }

    fn swap(&mut self, plan: &Plan, records: &mut Records) -> Ask {
        let key = self.key(plan);
        let known = self.known.get(&key).copied().unwrap_or(0);
        let expected = match self.rng.random_bool(0.1) {
            true => self.seen,
            false => known,
        };
        let (change, op) = if expected != 0 && self.rng.random_bool(0.3) {
            (Change::Delete, Request::RequestDeleteRange(delete(&key)))
        } else {
            let (change, put) = self.put(records, &key);
            (change, Request::RequestPut(put))
        };
        let range = pb::RangeRequest {
            key: key.clone(),
            ..Default::default()
        };
        let txn = pb::TxnRequest {
            compare: vec![pb::Compare {
                result: CompareResult::Equal as i32,
                target: CompareTarget::Mod as i32,
                key: key.clone(),
                target_union: Some(TargetUnion::ModRevision(expected)),
                ..Default::default()
            }],
            success: vec![pb::RequestOp { request: Some(op) }],
            failure: vec![pb::RequestOp {
                request: Some(Request::RequestRange(range)),
            }],
        };
        let action = Action::Swap {
            key,
            expected,
            change,
        };
        propose(
            Proposed::Change(action),
            pb::InternalRaftRequest {
                txn: Some(txn),
                ..Default::default()
            },
        )
    }

    fn multi(&mut self, plan: &Plan, records: &mut Records) -> Ask {
        let mut changes: Vec<(Bytes, Change)> = Vec::new();
        let mut ops = Vec::new();
        for _ in 0..self.rng.random_range(1..5) {
            let key = self.key(plan);
            if changes.iter().any(|(other, _)| *other == key) {
                continue;
            }
            let (change, op) = if self.rng.random_bool(0.3) {
                (Change::Delete, Request::RequestDeleteRange(delete(&key)))
            } else {
                let (change, put) = self.put(records, &key);
                (change, Request::RequestPut(put))
            };
            changes.push((key, change));
            ops.push(pb::RequestOp { request: Some(op) });
        }
        let txn = pb::TxnRequest {
            success: ops,
            ..Default::default()
        };
        change_of(
            changes,
            pb::InternalRaftRequest {
                txn: Some(txn),
                ..Default::default()
            },
        )
    }
}

fn delete(key: &Bytes) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest {
        key: key.clone(),
        ..Default::default()
    }
}

fn change_of(changes: Vec<(Bytes, Change)>, request: pb::InternalRaftRequest) -> Ask {
    propose(Proposed::Change(Action::Write { changes }), request)
}

fn propose(action: Proposed, request: pb::InternalRaftRequest) -> Ask {
    Ask::Propose {
        action,
        request: Box::new(request),
    }
}
