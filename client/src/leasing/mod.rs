//! Keys that one client at a time owns, and then reads from its own memory, linearizably.
//!
//! Protocol, that of etcd's Go client; both kinds of clients may share a prefix:
//!
//! * Whoever has the key `<prefix><key>`, attached to a lease that is kept alive, owns `<key>`.
//!   A read acquires it, if nobody has it and the key itself has no lease.
//! * Who writes a key compares in the same transaction that nobody else owns it. Otherwise the
//!   value of `<prefix><key>` is set to `REVOKE`, and the owner deletes it: then the write is tried
//!   again. An owner that is gone loses its lease.
//!
//! [`owned`] decides what may be shown, [`session`] keeps the lease and gives keys up.

mod owned;
mod session;

use std::sync::Arc;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::mvccpb::KeyValue;
use pb::response_op::Response;

use crate::call::until;
use crate::concurrency::{SessionOptions, malformed, range_at, wait_for_deletion};
use crate::namespace::Namespace;
use crate::{
    Client, Compare, CompareOp, DeleteOptions, Error, EtcdError, GetOptions, LeaseId, PutOptions,
    Txn, TxnOp, local,
};

use owned::Known;
use session::Shared;

/// What a writer makes of the key of an owner.
const REVOKE: &[u8] = b"REVOKE";

/// Reads and writes by the protocol of the module: see [`Leasing::start`].
///
/// Dropping it gives nothing up before the lease expires: [`Leasing::close`] does.
#[derive(Debug)]
pub struct Leasing {
    shared: Arc<Shared>,
}

impl Leasing {
    /// Begins a session for the keys `<prefix><key>`, which should be of use to nobody else. Until
    /// it is there, and while another one is begun after its loss, reads go to the server. Must be
    /// called inside a tokio runtime.
    ///
    /// **Everyone who writes the keys must do so by this protocol**: an owner does not hear of
    /// other writes. For keys that are read much more often than written, by few.
    ///
    /// ```no_run
    /// # use ferrite_client::{Client, Error, GetOptions, Leasing, PutOptions};
    /// # use ferrite_client::concurrency::SessionOptions;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let leasing = Leasing::start(&client, "owners/", SessionOptions::new().ttl(10));
    /// leasing.get("config", GetOptions::new()).await?; // from the server, acquires
    /// leasing.get("config", GetOptions::new()).await?; // from memory
    /// leasing.put("config", "new", PutOptions::new()).await?;
    /// leasing.close().await
    /// # }
    /// ```
    pub fn start(client: &Client, prefix: impl Into<Bytes>, session: SessionOptions) -> Leasing {
        let owners = Namespace::new(prefix.into());
        Leasing {
            shared: Shared::start(client.clone(), owners, session),
        }
    }

    /// Waits until there is a session: from then on reads are remembered.
    ///
    /// Cancel safety: nothing is lost.
    pub async fn ready(&self) {
        self.shared.ready().await;
    }

    /// Reads as [`Client::get`]. A read of one key as of now acquires the key, and comes from
    /// memory as long as the key is owned; everything else goes to the server.
    ///
    /// # Errors
    ///
    /// The call's. None from memory.
    pub async fn get(
        &self,
        key: impl Into<Bytes>,
        options: GetOptions,
    ) -> Result<pb::RangeResponse, Error> {
        let key = key.into();
        let request = options.clone().into_request(key.clone());
        let client = &self.shared.client;
        if key.is_empty() || !request.range_end.is_empty() || request.revision > 0 {
            return client.get(key, options).await;
        }
        if let Some(known) = self.shared.known(&key) {
            return Ok(shown(known, &request));
        }
        let lease = self.shared.may_acquire(&key);
        let Some(lease) = lease.filter(|_| !request.serializable) else {
            return client.get(key, options).await;
        };
        match self.acquire(&key, lease).await {
            Ok(known) => Ok(shown(known, &request)),
            Err(error) if error.may_have_been_applied() => {
                // Perhaps it is ours now, and someone will ask for it.
                self.shared.watch_over(key.clone(), None, lease);
                client.get(key, options).await
            }
            Err(error) => Err(error),
        }
    }

    /// Reads a key and makes it ours, if nobody has it.
    async fn acquire(&self, key: &Bytes, lease: LeaseId) -> Result<Known, Error> {
        let owner = self.shared.owners.key(key);
        let began = self.shared.owned().begin_read();
        let read = || TxnOp::get(key.clone(), GetOptions::new());
        let acquire = PutOptions::new().lease(lease);
        let txn = Txn::new()
            .when([
                Compare::key_missing(owner.clone()),
                Compare::lease(key.clone(), CompareOp::Equal, LeaseId::new(0)),
            ])
            .and_then([read(), TxnOp::put(owner.clone(), "", acquire)])
            .or_else([read(), TxnOp::get(owner, GetOptions::new())]);
        let answer = self.shared.client.txn(txn).await?;
        let known = Known {
            header: answer.header.unwrap_or_default(),
            pair: range_at(&answer, 0)?.kvs.first().cloned(),
        };
        let revision = match answer.succeeded {
            true => Some(known.header.revision),
            false => {
                let owner = range_at(&answer, 1)?.kvs.first();
                let ours = |kv: &&KeyValue| kv.lease == lease.get() && kv.value != REVOKE;
                owner.filter(ours).map(|kv| kv.create_revision)
            }
        };
        // A key with a lease may go without anybody writing it.
        let lasts = known.pair.as_ref().is_none_or(|kv| kv.lease == 0);
        if let Some(revision) = revision.filter(|_| lasts) {
            self.shared
                .remember(began, key, revision, lease, known.clone());
        }
        Ok(known)
    }

    /// Writes as [`Client::put`], once nobody else owns the key.
    ///
    /// # Errors
    ///
    /// The calls'. A failure while another owner is waited for has written nothing; see
    /// [`Error::may_have_been_applied`] for the others.
    pub async fn put(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        options: PutOptions,
    ) -> Result<pb::PutResponse, Error> {
        let (key, value) = (key.into(), value.into());
        let op = TxnOp::put(key.clone(), value, options);
        let (response, header) = self.write(key, op).await?;
        match response {
            Response::ResponsePut(mut response) => {
                response.header = header;
                Ok(response)
            }
            _ => Err(malformed()),
        }
    }

    /// Deletes as [`Client::delete`], once nobody else owns any of the keys.
    ///
    /// # Errors
    ///
    /// As [`Leasing::put`].
    pub async fn delete(
        &self,
        key: impl Into<Bytes>,
        options: DeleteOptions,
    ) -> Result<pb::DeleteRangeResponse, Error> {
        let key = key.into();
        let request = options.clone().into_request(key.clone());
        let op = TxnOp::delete(key.clone(), options);
        let (response, header) = if request.range_end.is_empty() {
            self.write(key, op).await?
        } else {
            let mut answer = self.txn(Txn::new().and_then([op])).await?;
            (taken(&mut answer, 0)?, answer.header)
        };
        match response {
            Response::ResponseDeleteRange(mut response) => {
                response.header = header;
                Ok(response)
            }
            _ => Err(malformed()),
        }
    }

    /// Writes one key. Afterwards its new state is known, if it is ours.
    async fn write(
        &self,
        key: Bytes,
        op: TxnOp,
    ) -> Result<(Response, Option<pb::ResponseHeader>), Error> {
        if key.is_empty() {
            return Err(Error::Etcd(EtcdError::EmptyKey));
        }
        let client = self.shared.client.with_one_deadline();
        let owner = self.shared.owners.key(&key);
        let revoke = PutOptions::new().ignore_lease();
        loop {
            let writing = self.shared.writing(&key);
            let nobody_else =
                Compare::create_revision(owner.clone(), CompareOp::Less, writing.revision + 1);
            let txn = Txn::new()
                .when([nobody_else])
                .and_then([op.clone(), TxnOp::get(key.clone(), GetOptions::new())])
                .or_else([TxnOp::put(owner.clone(), REVOKE, revoke.clone())]);
            let mut answer = client.txn(txn).await?;
            let header = answer.header;
            if answer.succeeded {
                let pair = range_at(&answer, 1)?.kvs.first().cloned();
                writing.done(Known {
                    header: header.unwrap_or_default(),
                    pair,
                });
                return Ok((taken(&mut answer, 0)?, header));
            }
            drop(writing);
            let from = header.unwrap_or_default().revision;
            wait(&client, owner.clone(), from).await?;
        }
    }

    /// Runs a transaction as [`Client::txn`], once nobody else owns any of the keys that it might
    /// write. The server runs it, also if it only reads.
    ///
    /// # Errors
    ///
    /// As [`Leasing::put`].
    pub async fn txn(&self, txn: Txn) -> Result<pb::TxnResponse, Error> {
        let client = self.shared.client.with_one_deadline();
        let writes = txn.writes();
        if writes.is_empty() {
            return client.txn(txn).await;
        }
        loop {
            let mut guards = Vec::new();
            let mut under_way = Vec::new();
            for (key, end) in &writes {
                let (mut owner, mut owners_end) = (key.clone(), end.clone());
                self.shared
                    .owners
                    .enter_range(&mut owner, &mut owners_end)?;
                if end.is_empty() {
                    let writing = self.shared.writing(key);
                    let limit = writing.revision + 1;
                    guards.push(Compare::create_revision(owner, CompareOp::Less, limit));
                    under_way.push(writing);
                } else {
                    let newest = self.revoke_range(&client, &owner, &owners_end).await?;
                    let none_newer = Compare::create_revision(owner, CompareOp::Less, newest + 1);
                    guards.push(none_newer.range(owners_end));
                    under_way.push(self.shared.writing_range(key, end));
                }
            }
            let guarded = Txn::new().when(guards).and_then([TxnOp::txn(txn.clone())]);
            let mut answer = client.txn(guarded).await?;
            drop(under_way);
            if answer.succeeded {
                let Response::ResponseTxn(mut inner) = taken(&mut answer, 0)? else {
                    return Err(malformed());
                };
                inner.header = answer.header;
                return Ok(inner);
            }
            for (key, end) in &writes {
                if end.is_empty() {
                    let owner = self.shared.owners.key(key);
                    self.revoke_range(&client, &owner, &Bytes::new()).await?;
                }
            }
        }
    }

    /// Has the keys of a range given up by their owners, but for what is ours. The newest revision
    /// at which one of the owners' keys that are left was made.
    async fn revoke_range(
        &self,
        client: &Client,
        owner: &Bytes,
        end: &Bytes,
    ) -> Result<i64, Error> {
        let options = match end.is_empty() {
            true => GetOptions::new(),
            false => GetOptions::new().range(end.clone()),
        };
        let owners = client.get(owner.clone(), options).await?.kvs;
        let mut newest = 0;
        for kv in owners {
            if self.shared.is_ours(&kv) {
                newest = newest.max(kv.create_revision);
                continue;
            }
            let same =
                Compare::create_revision(kv.key.clone(), CompareOp::Equal, kv.create_revision);
            let revoke = PutOptions::new().ignore_lease();
            let revoke =
                Txn::new()
                    .when([same])
                    .and_then([TxnOp::put(kv.key.clone(), REVOKE, revoke)]);
            let answer = client.txn(revoke).await?;
            if answer.succeeded {
                let from = answer.header.unwrap_or_default().revision;
                wait(client, kv.key, from).await?;
            }
        }
        Ok(newest)
    }

    /// Ends the session: everything is given up now.
    ///
    /// # Errors
    ///
    /// The revocation's; the lease expires by itself then.
    pub async fn close(self) -> Result<(), Error> {
        match self.shared.stop() {
            Some(lease) => self.shared.client.leases().revoke(lease).await.map(drop),
            None => Ok(()),
        }
    }
}

impl Drop for Leasing {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

/// Waits until an owner has given its key up. That it was some time ago is as good.
async fn wait(client: &Client, owner: Bytes, from: i64) -> Result<(), Error> {
    let deadline = client.scope.limit.deadline();
    match until(deadline, wait_for_deletion(client, owner, from)).await {
        Some(Err(Error::Etcd(EtcdError::Compacted))) => Ok(()),
        Some(result) => result,
        None => Err(client.late(None)),
    }
}

/// The answer to the operation at `index` of a transaction.
fn taken(answer: &mut pb::TxnResponse, index: usize) -> Result<Response, Error> {
    let op = answer.responses.get_mut(index);
    op.and_then(|op| op.response.take()).ok_or_else(malformed)
}

fn shown(known: Known, request: &pb::RangeRequest) -> pb::RangeResponse {
    let pairs = known.pair.into_iter().collect();
    local::answer(pairs, request, Some(known.header))
}
