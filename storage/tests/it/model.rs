//! A naive model of the store: every revision keeps a whole copy of the key space. Slow, obvious,
//! and written from the spec (mvcc.md sections 1 to 6), not from the code.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use bytes::Bytes;
use ferrite_api::Error;
use ferrite_api::pb::etcdserverpb::compare::TargetUnion;
use ferrite_api::pb::etcdserverpb::request_op::Request;
use ferrite_api::pb::etcdserverpb::response_op::Response;
use ferrite_api::pb::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};
use ferrite_api::pb::mvccpb::KeyValue;

type Space = BTreeMap<Bytes, KeyValue>;

/// The model. `states[r]` is the key space at revision `r`. A lease has the keys that name it.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) states: Vec<Space>,
    pub(crate) compacted: i64,
    /// Time to live and what is left of it, by id.
    pub(crate) leases: BTreeMap<i64, (i64, i64)>,
}

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader {
        revision,
        ..Default::default()
    })
}

fn selects(key: &Bytes, range_end: &Bytes, candidate: &Bytes) -> bool {
    if range_end.is_empty() {
        candidate == key
    } else if range_end[..] == [0] {
        candidate >= key
    } else {
        candidate >= key && candidate < range_end
    }
}

impl Model {
    pub(crate) fn new() -> Self {
        Self {
            states: vec![Space::new(), Space::new()],
            compacted: -1,
            leases: BTreeMap::new(),
        }
    }

    pub(crate) fn revision(&self) -> i64 {
        self.states.len() as i64 - 1
    }

    fn current(&self) -> &Space {
        self.states.last().unwrap()
    }

    pub(crate) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        if request.revision > self.revision() {
            return Err(Error::FutureRev);
        }
        if request.revision > 0 && request.revision < self.compacted {
            return Err(Error::Compacted);
        }
        let at = if request.revision <= 0 {
            self.revision()
        } else {
            request.revision
        };
        Ok(range(&self.states[at as usize], request, self.revision()))
    }

    pub(crate) fn put(&mut self, request: &PutRequest) -> Result<PutResponse, Error> {
        self.check_lease(request)?;
        let mut space = self.current().clone();
        let mut subs = 0;
        let response = put(&mut space, request, self.revision() + 1, &mut subs)?;
        self.states.push(space);
        Ok(response)
    }

    pub(crate) fn delete(&mut self, request: &DeleteRangeRequest) -> DeleteRangeResponse {
        let mut space = self.current().clone();
        let mut response = delete(&mut space, request, self.revision() + 1);
        if response.deleted > 0 {
            self.states.push(space);
        }
        response.header = header(self.revision());
        response
    }

    pub(crate) fn txn(&mut self, request: &TxnRequest) -> Result<TxnResponse, Error> {
        let mut taken = Vec::new();
        self.paths(request, &mut taken);
        let mut path = taken.iter().copied();
        self.check(request, &mut path)?;
        let mut space = self.current().clone();
        let (base, mut subs) = (self.revision(), 0);
        let mut path = taken.into_iter();
        let mut response = self.run(request, &mut path, &mut space, base, &mut subs)?;
        if subs > 0 {
            self.states.push(space);
        }
        response.header = header(self.revision());
        Ok(response)
    }

    pub(crate) fn compact(&mut self, revision: i64) -> Result<(), Error> {
        if revision <= self.compacted {
            return Err(Error::Compacted);
        }
        if revision > self.revision() {
            return Err(Error::FutureRev);
        }
        self.compacted = revision;
        Ok(())
    }

    pub(crate) fn grant(&mut self, id: i64, ttl: i64) -> Result<(), Error> {
        if id == 0 {
            return Err(Error::LeaseNotFound);
        }
        if ttl > 9_000_000_000 {
            return Err(Error::LeaseTTLTooLarge);
        }
        if self.leases.contains_key(&id) {
            return Err(Error::LeaseExist);
        }
        self.leases.insert(id, (ttl, 0));
        Ok(())
    }

    pub(crate) fn revoke(&mut self, id: i64) -> Result<(), Error> {
        if self.leases.remove(&id).is_none() {
            return Err(Error::LeaseNotFound);
        }
        let mut space = self.current().clone();
        space.retain(|_, kv| kv.lease != id);
        if space.len() < self.current().len() {
            self.states.push(space);
        }
        Ok(())
    }

    pub(crate) fn checkpoint(&mut self, id: i64, remaining: i64) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.1 = remaining;
        }
    }

    /// The keys of a lease, in byte order.
    pub(crate) fn keys_of(&self, id: i64) -> Vec<Bytes> {
        let named = self.current().iter().filter(|(_, kv)| kv.lease == id);
        named.map(|(key, _)| key.clone()).collect()
    }

    fn check_lease(&self, put: &PutRequest) -> Result<(), Error> {
        if put.lease != 0 && !self.leases.contains_key(&put.lease) {
            return Err(Error::LeaseNotFound);
        }
        Ok(())
    }

    /// The outcome of every compare on the path, depth first, all against the state before.
    fn paths(&self, request: &TxnRequest, taken: &mut Vec<bool>) {
        let holds = request
            .compare
            .iter()
            .all(|compare| holds(self.current(), compare));
        taken.push(holds);
        for op in if holds {
            &request.success
        } else {
            &request.failure
        } {
            if let Some(Request::RequestTxn(nested)) = &op.request {
                self.paths(nested, taken);
            }
        }
    }

    /// Ranges and puts of the path in the order of the ops, depth first, against the state before.
    fn check(
        &self,
        request: &TxnRequest,
        path: &mut dyn Iterator<Item = bool>,
    ) -> Result<(), Error> {
        for op in branch(request, path) {
            match op.request.as_ref().unwrap() {
                Request::RequestRange(range) => {
                    if range.revision > self.revision() {
                        return Err(Error::FutureRev);
                    }
                    if range.revision != 0 && range.revision < self.compacted {
                        return Err(Error::Compacted);
                    }
                }
                Request::RequestPut(put) => {
                    self.check_lease(put)?;
                    let keeps = put.ignore_value || put.ignore_lease;
                    if keeps && !self.current().contains_key(&put.key) {
                        return Err(Error::KeyNotFound);
                    }
                }
                Request::RequestTxn(nested) => self.check(nested, path)?,
                Request::RequestDeleteRange(_) => {}
            }
        }
        Ok(())
    }

    fn run(
        &self,
        request: &TxnRequest,
        path: &mut dyn Iterator<Item = bool>,
        space: &mut Space,
        base: i64,
        subs: &mut i64,
    ) -> Result<TxnResponse, Error> {
        let succeeded = path.next().unwrap();
        let mut responses = Vec::new();
        for op in if succeeded {
            &request.success
        } else {
            &request.failure
        } {
            let response = match op.request.as_ref().unwrap() {
                Request::RequestRange(request) => {
                    let revision = base + i64::from(*subs > 0);
                    let state = if request.revision > 0 {
                        &self.states[request.revision as usize]
                    } else {
                        &*space
                    };
                    Response::ResponseRange(range(state, request, revision))
                }
                Request::RequestPut(request) => {
                    Response::ResponsePut(put(space, request, base + 1, subs)?)
                }
                Request::RequestDeleteRange(request) => {
                    let mut response = delete(space, request, base + 1);
                    *subs += response.deleted;
                    response.header = header(base + i64::from(*subs > 0));
                    Response::ResponseDeleteRange(response)
                }
                Request::RequestTxn(nested) => {
                    let nested = self.run(nested, path, space, base, subs)?;
                    let header = Some(ResponseHeader::default());
                    Response::ResponseTxn(TxnResponse { header, ..nested })
                }
            };
            responses.push(ResponseOp {
                response: Some(response),
            });
        }
        Ok(TxnResponse {
            header: None,
            succeeded,
            responses,
        })
    }
}

fn branch<'a>(request: &'a TxnRequest, path: &mut dyn Iterator<Item = bool>) -> &'a [RequestOp] {
    if path.next().unwrap() {
        &request.success
    } else {
        &request.failure
    }
}

fn put(
    space: &mut Space,
    request: &PutRequest,
    main: i64,
    subs: &mut i64,
) -> Result<PutResponse, Error> {
    let old = space.get(&request.key).cloned();
    if (request.ignore_value || request.ignore_lease) && old.is_none() {
        return Err(Error::KeyNotFound);
    }
    let kept = old.clone().unwrap_or_default();
    let kv = KeyValue {
        key: request.key.clone(),
        create_revision: old.as_ref().map_or(main, |old| old.create_revision),
        mod_revision: main,
        version: kept.version + 1,
        value: if request.ignore_value {
            kept.value
        } else {
            request.value.clone()
        },
        lease: if request.ignore_lease {
            kept.lease
        } else {
            request.lease
        },
    };
    space.insert(request.key.clone(), kv);
    *subs += 1;
    Ok(PutResponse {
        header: header(main),
        prev_kv: old.filter(|_| request.prev_kv),
    })
}

fn delete(space: &mut Space, request: &DeleteRangeRequest, main: i64) -> DeleteRangeResponse {
    let (gone, kept): (Space, Space) = std::mem::take(space)
        .into_iter()
        .partition(|(key, _)| selects(&request.key, &request.range_end, key));
    *space = kept;
    let deleted = gone.len() as i64;
    let prev_kvs = if request.prev_kv {
        gone.into_values().collect()
    } else {
        Vec::new()
    };
    DeleteRangeResponse {
        header: header(main),
        deleted,
        prev_kvs,
    }
}

fn range(space: &Space, request: &RangeRequest, revision: i64) -> RangeResponse {
    let mut kvs: Vec<KeyValue> = space
        .values()
        .filter(|kv| selects(&request.key, &request.range_end, &kv.key))
        .cloned()
        .collect();
    let mut response = RangeResponse {
        header: header(revision),
        count: kvs.len() as i64,
        ..Default::default()
    };
    if request.count_only {
        return response;
    }
    let limit = if request.limit > 0 {
        request.limit as usize
    } else {
        usize::MAX
    };
    let bounds = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    let filtered = bounds.iter().any(|bound| *bound != 0);
    let [min_mod, max_mod, min_create, max_create] = bounds;
    kvs.retain(|kv| {
        (min_mod == 0 || kv.mod_revision >= min_mod)
            && (max_mod == 0 || kv.mod_revision <= max_mod)
            && (min_create == 0 || kv.create_revision >= min_create)
            && (max_create == 0 || kv.create_revision <= max_create)
    });
    let (order, target) = (request.sort_order, request.sort_target);
    if order == 0 && target != 0 && !filtered && limit != usize::MAX {
        kvs.truncate(limit + 1);
    }
    // Ties stay in key order, in both directions.
    kvs.sort_by(|a, b| {
        let ordering = match target {
            1 => a.version.cmp(&b.version),
            2 => a.create_revision.cmp(&b.create_revision),
            3 => a.mod_revision.cmp(&b.mod_revision),
            4 => a.value.cmp(&b.value),
            _ => a.key.cmp(&b.key),
        };
        if order == 2 {
            ordering.reverse()
        } else {
            ordering
        }
    });
    response.more = kvs.len() > limit;
    kvs.truncate(limit);
    if request.keys_only {
        for kv in &mut kvs {
            kv.value = Bytes::new();
            if target != 4 {
                kv.lease = 0;
            }
        }
    }
    response.kvs = kvs;
    response
}

fn holds(space: &Space, compare: &Compare) -> bool {
    let keys: Vec<&KeyValue> = space
        .values()
        .filter(|kv| selects(&compare.key, &compare.range_end, &kv.key))
        .collect();
    let absent = KeyValue::default();
    if keys.is_empty() {
        return compare.target != 3 && holds_for(compare, &absent);
    }
    keys.into_iter().all(|kv| holds_for(compare, kv))
}

fn holds_for(compare: &Compare, kv: &KeyValue) -> bool {
    use TargetUnion as U;
    let union = &compare.target_union;
    let ordering = match (compare.target, union) {
        (0, Some(U::Version(v))) => kv.version.cmp(v),
        (0, _) => kv.version.cmp(&0),
        (1, Some(U::CreateRevision(v))) => kv.create_revision.cmp(v),
        (1, _) => kv.create_revision.cmp(&0),
        (2, Some(U::ModRevision(v))) => kv.mod_revision.cmp(v),
        (2, _) => kv.mod_revision.cmp(&0),
        (3, Some(U::Value(v))) => kv.value.cmp(v),
        (3, _) => kv.value.cmp(&Bytes::new()),
        (4, Some(U::Lease(v))) => kv.lease.cmp(v),
        (4, _) => kv.lease.cmp(&0),
        _ => Ordering::Equal,
    };
    match compare.result {
        0 => ordering == Ordering::Equal,
        1 => ordering == Ordering::Greater,
        2 => ordering == Ordering::Less,
        3 => ordering != Ordering::Equal,
        _ => true,
    }
}
