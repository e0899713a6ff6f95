//! The keys: every version of each, and the leases they hang on.

use std::collections::BTreeMap;

use bytes::Bytes;
use ferrite_api::Error;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::mvccpb::event::EventType;
use ferrite_api::pb::mvccpb::{Event, KeyValue};
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::range_request::{SortOrder, SortTarget};
use pb::request_op::Request;
use pb::response_op::Response;
use tonic::Status;

type State = BTreeMap<Bytes, KeyValue>;

/// All revisions.
#[derive(Debug)]
pub(crate) struct Store {
    /// The state after each revision; the index is the revision.
    states: Vec<State>,
    /// What each revision changed.
    events: Vec<Vec<Event>>,
    compacted: i64,
    /// Time to live of each lease, in seconds.
    leases: BTreeMap<i64, i64>,
    next_lease: i64,
}

impl Default for Store {
    fn default() -> Self {
        Store {
            states: vec![State::new(), State::new()],
            events: vec![Vec::new(), Vec::new()],
            compacted: 0,
            leases: BTreeMap::new(),
            next_lease: 0x1000,
        }
    }
}

/// A change in the making: one revision.
struct Change<'a> {
    store: &'a mut Store,
    state: State,
    events: Vec<Event>,
}

impl Store {
    pub(crate) fn revision(&self) -> i64 {
        i64::try_from(self.states.len()).expect("short") - 1
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.states.last().map_or(0, State::len)
    }

    pub(crate) fn compacted(&self) -> i64 {
        self.compacted
    }

    pub(crate) fn leases(&self) -> Vec<i64> {
        self.leases.keys().copied().collect()
    }

    pub(crate) fn time_to_live(&self, lease: i64) -> Option<i64> {
        self.leases.get(&lease).copied()
    }

    pub(crate) fn keys_of(&self, lease: i64) -> Vec<Bytes> {
        let now = &self.states[self.states.len() - 1];
        let of = |kv: &&KeyValue| kv.lease == lease;
        now.values().filter(of).map(|kv| kv.key.clone()).collect()
    }

    /// The id of a new lease.
    pub(crate) fn grant(&mut self, id: i64, ttl: i64) -> Result<i64, Status> {
        let id = match id {
            0 => {
                self.next_lease += 1;
                self.next_lease
            }
            id => id,
        };
        if self.leases.contains_key(&id) {
            return Err(Error::LeaseExist.into());
        }
        self.leases.insert(id, ttl);
        Ok(id)
    }

    pub(crate) fn revoke(&mut self, lease: i64) -> Result<(), Status> {
        if self.leases.remove(&lease).is_none() {
            return Err(Error::LeaseNotFound.into());
        }
        let keys = self.keys_of(lease);
        let mut change = self.change();
        for key in keys {
            change.delete(&key);
        }
        change.commit();
        Ok(())
    }

    pub(crate) fn compact(&mut self, revision: i64) -> Result<(), Status> {
        if revision <= self.compacted {
            return Err(Error::Compacted.into());
        }
        if revision > self.revision() {
            return Err(Error::FutureRev.into());
        }
        self.compacted = revision;
        Ok(())
    }

    pub(crate) fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
        let revision = match request.revision {
            revision if revision <= 0 => self.revision(),
            revision if revision > self.revision() => return Err(Error::FutureRev.into()),
            revision if revision < self.compacted => return Err(Error::Compacted.into()),
            revision => revision,
        };
        let index = usize::try_from(revision).expect("checked above");
        Ok(ranged(&self.states[index], request))
    }

    pub(crate) fn put(&mut self, request: &pb::PutRequest) -> Result<pb::PutResponse, Status> {
        let mut change = self.change();
        let response = change.put(request)?;
        change.commit();
        Ok(response)
    }

    pub(crate) fn delete(&mut self, request: &pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        let mut change = self.change();
        let response = change.delete_range(request);
        change.commit();
        response
    }

    pub(crate) fn txn(&mut self, request: &pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
        let mut change = self.change();
        let response = change.txn(request)?;
        change.commit();
        Ok(response)
    }

    /// The events of one revision that a watch is about, with the pairs before if they are wanted.
    pub(crate) fn events(&self, revision: i64, create: &pb::WatchCreateRequest) -> Vec<Event> {
        let index = usize::try_from(revision).expect("revisions are positive");
        let before = &self.states[index - 1];
        let wanted = |event: &&Event| {
            let kv = event.kv.as_ref().expect("events have keys");
            contains(&create.key, &create.range_end, &kv.key)
                // A filter has the number of the kind that it keeps away.
                && !create.filters.contains(&event.r#type)
        };
        let shown = |event: &Event| {
            let key = &event.kv.as_ref().expect("events have keys").key;
            let mut event = event.clone();
            if create.prev_kv {
                event.prev_kv = before.get(key).cloned();
            }
            event
        };
        self.events[index]
            .iter()
            .filter(wanted)
            .map(shown)
            .collect()
    }

    fn change(&mut self) -> Change<'_> {
        let state = self.states[self.states.len() - 1].clone();
        Change {
            store: self,
            state,
            events: Vec::new(),
        }
    }
}

impl Change<'_> {
    fn revision(&self) -> i64 {
        self.store.revision() + 1
    }

    /// A change that changes nothing is none.
    fn commit(self) {
        if !self.events.is_empty() {
            self.store.states.push(self.state);
            self.store.events.push(self.events);
        }
    }

    fn put(&mut self, request: &pb::PutRequest) -> Result<pb::PutResponse, Status> {
        if request.key.is_empty() {
            return Err(Error::EmptyKey.into());
        }
        if request.lease != 0 && !self.store.leases.contains_key(&request.lease) {
            return Err(Error::LeaseNotFound.into());
        }
        let revision = self.revision();
        let before = self.state.get(&request.key).cloned();
        if before.is_none() && (request.ignore_value || request.ignore_lease) {
            return Err(Error::KeyNotFound.into());
        }
        let old = before.clone().unwrap_or_default();
        let kv = KeyValue {
            key: request.key.clone(),
            create_revision: before.as_ref().map_or(revision, |kv| kv.create_revision),
            mod_revision: revision,
            version: old.version + 1,
            value: match request.ignore_value {
                true => old.value,
                false => request.value.clone(),
            },
            lease: match request.ignore_lease {
                true => old.lease,
                false => request.lease,
            },
        };
        self.state.insert(kv.key.clone(), kv.clone());
        self.events.push(Event {
            r#type: EventType::Put.into(),
            kv: Some(kv),
            prev_kv: None,
        });
        Ok(pb::PutResponse {
            header: None,
            prev_kv: before.filter(|_| request.prev_kv),
        })
    }

    fn delete(&mut self, key: &Bytes) -> Option<KeyValue> {
        let gone = self.state.remove(key)?;
        let tombstone = KeyValue {
            key: key.clone(),
            mod_revision: self.revision(),
            ..Default::default()
        };
        self.events.push(Event {
            r#type: EventType::Delete.into(),
            kv: Some(tombstone),
            prev_kv: None,
        });
        Some(gone)
    }

    fn delete_range(&mut self, request: &pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        let keys: Vec<Bytes> = self
            .state
            .keys()
            .filter(|key| contains(&request.key, &request.range_end, key))
            .cloned()
            .collect();
        let gone: Vec<KeyValue> = keys.iter().filter_map(|key| self.delete(key)).collect();
        pb::DeleteRangeResponse {
            header: None,
            deleted: i64::try_from(gone.len()).expect("few keys"),
            prev_kvs: if request.prev_kv { gone } else { Vec::new() },
        }
    }

    fn txn(&mut self, request: &pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
        let succeeded = request.compare.iter().all(|compare| self.holds(compare));
        let ops = match succeeded {
            true => &request.success,
            false => &request.failure,
        };
        let mut responses = Vec::new();
        for op in ops {
            let response = match op.request.as_ref().expect("clients set it") {
                Request::RequestRange(range) => {
                    let response = match range.revision {
                        0 => ranged(&self.state, range),
                        _ => self.store.range(range)?,
                    };
                    Response::ResponseRange(response)
                }
                Request::RequestPut(put) => Response::ResponsePut(self.put(put)?),
                Request::RequestDeleteRange(delete) => {
                    Response::ResponseDeleteRange(self.delete_range(delete))
                }
                Request::RequestTxn(txn) => Response::ResponseTxn(self.txn(txn)?),
            };
            responses.push(pb::ResponseOp {
                response: Some(response),
            });
        }
        Ok(pb::TxnResponse {
            header: None,
            succeeded,
            responses,
        })
    }

    /// Compares of single keys only.
    fn holds(&self, compare: &pb::Compare) -> bool {
        let found = self.state.get(&compare.key);
        let kv = found.cloned().unwrap_or_default();
        let number = |stored: i64, wanted: i64| stored.cmp(&wanted);
        let order = match (compare.target(), compare.target_union.as_ref()) {
            (CompareTarget::Value, Some(TargetUnion::Value(value))) => match found {
                Some(kv) => kv.value.cmp(value),
                None => return false,
            },
            (CompareTarget::Version, Some(TargetUnion::Version(to))) => number(kv.version, *to),
            (CompareTarget::Create, Some(TargetUnion::CreateRevision(to))) => {
                number(kv.create_revision, *to)
            }
            (CompareTarget::Mod, Some(TargetUnion::ModRevision(to))) => {
                number(kv.mod_revision, *to)
            }
            (CompareTarget::Lease, Some(TargetUnion::Lease(to))) => number(kv.lease, *to),
            // Compared with nothing, which is 0.
            (_, _) => number(kv.version, 0),
        };
        match compare.result() {
            CompareResult::Equal => order.is_eq(),
            CompareResult::NotEqual => order.is_ne(),
            CompareResult::Greater => order.is_gt(),
            CompareResult::Less => order.is_lt(),
        }
    }
}

/// Whether a range contains a key.
pub(crate) fn contains(key: &[u8], range_end: &[u8], candidate: &[u8]) -> bool {
    match range_end {
        [] => candidate == key,
        [0] => candidate >= key,
        end => candidate >= key && candidate < end,
    }
}

/// A range of one state, with the options that clients' recipes use.
fn ranged(state: &State, request: &pb::RangeRequest) -> pb::RangeResponse {
    let bound =
        |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
    let mut kvs: Vec<KeyValue> = state
        .values()
        .filter(|kv| contains(&request.key, &request.range_end, &kv.key))
        .filter(|kv| {
            let (min, max) = (request.min_mod_revision, request.max_mod_revision);
            bound(kv.mod_revision, min, max)
        })
        .filter(|kv| {
            let (min, max) = (request.min_create_revision, request.max_create_revision);
            bound(kv.create_revision, min, max)
        })
        .cloned()
        .collect();
    let count = i64::try_from(kvs.len()).expect("few keys");
    match request.sort_target() {
        SortTarget::Key => {}
        SortTarget::Version => kvs.sort_by_key(|kv| kv.version),
        SortTarget::Create => kvs.sort_by_key(|kv| kv.create_revision),
        SortTarget::Mod => kvs.sort_by_key(|kv| kv.mod_revision),
        SortTarget::Value => kvs.sort_by_key(|kv| kv.value.clone()),
    }
    if request.sort_order() == SortOrder::Descend {
        kvs.reverse();
    }
    let limit = usize::try_from(request.limit).unwrap_or(0);
    let more = limit > 0 && kvs.len() > limit;
    if more {
        kvs.truncate(limit);
    }
    if request.keys_only {
        for kv in &mut kvs {
            kv.value = Bytes::new();
        }
    }
    if request.count_only {
        kvs.clear();
    }
    pb::RangeResponse {
        header: None,
        kvs,
        more,
        count,
    }
}
