//! A part of the keyspace as if it were all of it: keys get a prefix on their way to the server
//! and lose it on the way back.

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::mvccpb::{Event, KeyValue};
use pb::request_op::Request;
use pb::response_op::Response;

use crate::range::{ZERO, prefix_end};
use crate::{Client, Error, EtcdError};

impl Client {
    /// The same client, for which only the keys that start with `prefix` exist: every key that it
    /// sends gets the prefix, every key that it returns has lost it. Ranges without an end reach
    /// to the end of the prefix.
    ///
    /// That holds for reads, writes, transactions, watches, the keys of leases and everything in
    /// [`concurrency`](crate::concurrency) that runs in the client. It does not hold for what the
    /// server runs ([`Client::lock_service`], [`Client::election_service`]), nor for what is
    /// not about keys: compaction, members, maintenance. A namespace within a namespace adds to
    /// its prefix.
    ///
    /// ```no_run
    /// # use ferrite_client::{Client, Error, GetOptions, PutOptions};
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let app = client.with_namespace("app/");
    /// app.put("color", "red", PutOptions::new()).await?; // writes app/color
    /// let all = app.get("", GetOptions::new().prefix()).await?; // reads app/ only
    /// assert_eq!(all.kvs[0].key, "color");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Empty keys are refused with [`EtcdError::EmptyKey`], as by the server.
    #[must_use]
    pub fn with_namespace(&self, prefix: impl Into<Bytes>) -> Client {
        let mut client = self.clone();
        client.scope.namespace.extend(prefix.into());
        client
    }
}

/// The prefix; empty for the whole keyspace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Namespace {
    prefix: Bytes,
}

impl Namespace {
    pub(crate) fn new(prefix: Bytes) -> Namespace {
        Namespace { prefix }
    }

    fn extend(&mut self, prefix: Bytes) {
        self.prefix = self.key(&prefix);
    }

    /// A key of the namespace as the server knows it.
    pub(crate) fn key(&self, key: &[u8]) -> Bytes {
        [self.prefix.as_ref(), key].concat().into()
    }

    /// Puts the prefix before a range. An empty key is no key, whatever the prefix.
    pub(crate) fn enter_range(&self, key: &mut Bytes, end: &mut Bytes) -> Result<(), Error> {
        if self.prefix.is_empty() {
            return Ok(());
        }
        if key.is_empty() {
            return Err(Error::Etcd(EtcdError::EmptyKey));
        }
        *key = self.key(key);
        if *end == ZERO {
            *end = prefix_end(&self.prefix);
        } else if !end.is_empty() {
            *end = self.key(end);
        }
        Ok(())
    }

    pub(crate) fn enter_get(&self, request: &mut pb::RangeRequest) -> Result<(), Error> {
        self.enter_range(&mut request.key, &mut request.range_end)
    }

    pub(crate) fn enter_put(&self, request: &mut pb::PutRequest) -> Result<(), Error> {
        self.enter_range(&mut request.key, &mut Bytes::new())
    }

    pub(crate) fn enter_delete(&self, request: &mut pb::DeleteRangeRequest) -> Result<(), Error> {
        self.enter_range(&mut request.key, &mut request.range_end)
    }

    /// With all transactions inside it.
    pub(crate) fn enter_txn(&self, request: &mut pb::TxnRequest) -> Result<(), Error> {
        for compare in &mut request.compare {
            self.enter_range(&mut compare.key, &mut compare.range_end)?;
        }
        for op in request.success.iter_mut().chain(&mut request.failure) {
            match &mut op.request {
                Some(Request::RequestRange(request)) => self.enter_get(request)?,
                Some(Request::RequestPut(request)) => self.enter_put(request)?,
                Some(Request::RequestDeleteRange(request)) => self.enter_delete(request)?,
                Some(Request::RequestTxn(request)) => self.enter_txn(request)?,
                None => {}
            }
        }
        Ok(())
    }

    /// Servers take an empty key of a watch for the smallest one.
    pub(crate) fn enter_watch(&self, request: &mut pb::WatchCreateRequest) -> Result<(), Error> {
        if request.key.is_empty() {
            request.key = ZERO;
        }
        self.enter_range(&mut request.key, &mut request.range_end)
    }

    /// Takes the prefix off. A key without it is not of this namespace; servers send none.
    fn leave_key(&self, key: &mut Bytes) {
        if key.starts_with(&self.prefix) {
            *key = key.slice(self.prefix.len()..);
        }
    }

    fn leave_pairs<'a>(&self, pairs: impl IntoIterator<Item = &'a mut KeyValue>) {
        for pair in pairs {
            self.leave_key(&mut pair.key);
        }
    }

    pub(crate) fn leave_get(&self, response: &mut pb::RangeResponse) {
        self.leave_pairs(&mut response.kvs);
    }

    pub(crate) fn leave_put(&self, response: &mut pb::PutResponse) {
        self.leave_pairs(&mut response.prev_kv);
    }

    pub(crate) fn leave_delete(&self, response: &mut pb::DeleteRangeResponse) {
        self.leave_pairs(&mut response.prev_kvs);
    }

    pub(crate) fn leave_txn(&self, response: &mut pb::TxnResponse) {
        for op in &mut response.responses {
            match &mut op.response {
                Some(Response::ResponseRange(response)) => self.leave_get(response),
                Some(Response::ResponsePut(response)) => self.leave_put(response),
                Some(Response::ResponseDeleteRange(response)) => self.leave_delete(response),
                Some(Response::ResponseTxn(response)) => self.leave_txn(response),
                None => {}
            }
        }
    }

    pub(crate) fn leave_events(&self, events: &mut [Event]) {
        for event in events {
            self.leave_pairs(&mut event.kv);
            self.leave_pairs(&mut event.prev_kv);
        }
    }

    /// The keys of a lease may be anybody's: those of others are left out.
    pub(crate) fn leave_keys(&self, keys: &mut Vec<Bytes>) {
        keys.retain(|key| key.starts_with(&self.prefix));
        for key in keys {
            self.leave_key(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(prefix: &'static str) -> Namespace {
        let mut namespace = Namespace::default();
        namespace.extend(prefix.into());
        namespace
    }

    #[test]
    fn ranges_stay_inside() {
        let check = |prefix, (key, end): (&'static str, &'static str), expected: (&str, &[u8])| {
            let (mut key, mut end) = (Bytes::from(key), Bytes::from(end));
            let entered = namespace(prefix).enter_range(&mut key, &mut end);
            entered.expect("a key");
            assert_eq!(
                (key.as_ref(), end.as_ref()),
                (expected.0.as_bytes(), expected.1)
            );
        };
        check("p/", ("k", ""), ("p/k", b""));
        check("p/", ("k", "l"), ("p/k", b"p/l"));
        check("p/", ("k", "\0"), ("p/k", b"p0"));
        check("p/", ("\0", "\0"), ("p/\0", b"p0"));
        check("", ("k", "\0"), ("k", b"\0"));
        // Nothing follows the prefix, so the end is open again.
        let mut high = Namespace::new(Bytes::from_static(b"\xff"));
        let (mut key, mut end) = (Bytes::from("k"), ZERO);
        high.enter_range(&mut key, &mut end).expect("a key");
        assert_eq!((key.as_ref(), end), (&b"\xffk"[..], ZERO));
        high.extend("p".into());
        assert_eq!(high.prefix, &b"\xffp"[..]);
    }

    #[test]
    fn an_empty_key_is_none_with_a_prefix_too() {
        let mut request = pb::PutRequest::default();
        let error = namespace("p/").enter_put(&mut request);
        let error = error.expect_err("refused");
        assert_eq!(error.etcd(), Some(EtcdError::EmptyKey));
    }

    #[test]
    fn keys_of_others_are_no_keys_of_a_lease() {
        let mut keys: Vec<Bytes> = ["p/a", "q/b", "p", "p/"].map(Bytes::from).into();
        namespace("p/").leave_keys(&mut keys);
        assert_eq!(keys, ["a", ""]);
    }
}
