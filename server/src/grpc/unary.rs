//! Unary calls, straight on hyper: one message in, one prepared reply out, no layer in between.
//! This is the path of every KV call, so it is kept short: the request is decoded from the frame it
//! arrived in, the answer is one allocation with its length prefix.
//!
//! A method is one `impl` of [`Unary`] and one line in `Server::finish`.

use std::future::Future;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use http::Response;
use prost::Message;
use tonic::Code;

use super::body::Body;
use super::call::{Account, Bounded, Call};
use super::message::{Fault, Messages};
use super::reply::{Encoded, Reply};
use super::{Kv, Server, status};
use crate::error::Error;
use crate::handle::List;
use crate::metrics::Method;
use crate::metrics::server::CallKind;

/// A unary method.
pub(super) trait Unary {
    const METHOD: Method;
    type Request: Message + Default;
    type Reply: Reply;

    /// Whether a learner answers this request.
    fn serves_learner(_request: &Self::Request) -> bool {
        false
    }

    fn call<K: Kv>(
        kv: &K,
        request: Self::Request,
    ) -> impl Future<Output = Result<Self::Reply, Error>> + Send;
}

impl<K: Kv> Server<K> {
    /// Serves a unary call from its first message to its reply.
    ///
    /// What follows the first message is not looked at, as in etcd's gRPC library: the answer may
    /// leave before the client has closed its side.
    pub(super) async fn unary<M: Unary, B>(&self, call: &Call, body: B) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        match Bounded::new(self.answer::<M, B>(call, body), call.deadline).await {
            Ok(encoded) => encoded.into_response(call.gzip),
            Err(error) => status::refuse(&error),
        }
    }

    async fn answer<M: Unary, B>(&self, call: &Call, body: B) -> Result<Encoded, Error>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let request = {
            let mut messages = Messages::new(body, self.max_message_bytes(), call.gzip);
            let message = only_message(messages.next().await)?;
            let received = &self.metrics().network.client_grpc_received_bytes;
            received.inc_by(message.len() as u64);
            decode::<M::Request>(message)?
        };
        // From here on the call counts: etcd's interceptors run after decoding, too.
        let mut account = Account::begin(
            self.metrics(),
            M::METHOD,
            call.deadline,
            self.inner.slow_call,
        )
        .traced(self.inner.spans.as_ref(), call);
        let rpc = self.metrics().grpc.method(M::METHOD);
        rpc.received();
        let serves_learner = M::serves_learner(&request);
        let admitted = call.admit(self.kv(), self.metrics(), CallKind::Unary, serves_learner);
        let answer = match admitted {
            Ok(()) => match self.credentials(call) {
                None => M::call(self.kv(), request).await,
                Some(credentials) => {
                    let kv = self.kv().with_credentials(credentials);
                    M::call(&kv, request).await
                }
            },
            Err(error) => Err(error.into()),
        };
        rpc.sent();
        let encoded = match answer {
            Ok(reply) => reply.encode(call.gzip).await,
            Err(error) => Err(error),
        };
        match encoded {
            Ok(mut encoded) => {
                match encoded.body.range_mut() {
                    None => account.end(Code::Ok),
                    Some(range) => range.bound(account.without_slow(), call.deadline),
                }
                let sent = &self.metrics().network.client_grpc_sent_bytes;
                sent.inc_by(encoded.length as u64);
                Ok(encoded)
            }
            Err(error) => {
                account.end(error.code());
                Err(error)
            }
        }
    }
}

/// The message of a unary call. The codes of a body that ends early are odd, but etcd's.
fn only_message(read: Result<Option<Bytes>, Fault>) -> Result<Bytes, Error> {
    match read {
        Ok(Some(message)) => Ok(message),
        Ok(None) => Err(Error::status(Code::Unknown, "EOF")),
        Err(Fault::Truncated) => Err(Error::status(Code::Unknown, "unexpected EOF")),
        Err(Fault::Gone) => Err(Error::status(Code::Cancelled, "context canceled")),
        Err(Fault::Refused(error)) => Err(error),
    }
}

/// Decodes a message; keys and values stay slices of it.
pub(super) fn decode<M: Message + Default>(message: Bytes) -> Result<M, Error> {
    M::decode(message).map_err(|error| {
        Error::status(
            Code::Internal,
            format!("grpc: error unmarshalling request: {error}"),
        )
    })
}

/// KV.Range.
pub(super) struct Range;

impl Unary for Range {
    const METHOD: Method = Method::KvRange;
    type Request = pb::RangeRequest;
    type Reply = List;

    fn serves_learner(request: &pb::RangeRequest) -> bool {
        request.serializable
    }

    fn call<K: Kv>(
        kv: &K,
        request: pb::RangeRequest,
    ) -> impl Future<Output = Result<List, Error>> + Send {
        kv.list(request)
    }
}

/// KV.Put.
pub(super) struct Put;

impl Unary for Put {
    const METHOD: Method = Method::KvPut;
    type Request = pb::PutRequest;
    type Reply = pb::PutResponse;

    fn call<K: Kv>(
        kv: &K,
        request: pb::PutRequest,
    ) -> impl Future<Output = Result<pb::PutResponse, Error>> + Send {
        kv.put(request)
    }
}

/// KV.DeleteRange.
pub(super) struct DeleteRange;

impl Unary for DeleteRange {
    const METHOD: Method = Method::KvDeleteRange;
    type Request = pb::DeleteRangeRequest;
    type Reply = pb::DeleteRangeResponse;

    fn call<K: Kv>(
        kv: &K,
        request: pb::DeleteRangeRequest,
    ) -> impl Future<Output = Result<pb::DeleteRangeResponse, Error>> + Send {
        kv.delete_range(request)
    }
}

/// KV.Txn.
pub(super) struct Txn;

impl Unary for Txn {
    const METHOD: Method = Method::KvTxn;
    type Request = pb::TxnRequest;
    type Reply = pb::TxnResponse;

    fn call<K: Kv>(
        kv: &K,
        request: pb::TxnRequest,
    ) -> impl Future<Output = Result<pb::TxnResponse, Error>> + Send {
        kv.txn(request)
    }
}

/// KV.Compact.
pub(super) struct Compact;

impl Unary for Compact {
    const METHOD: Method = Method::KvCompact;
    type Request = pb::CompactionRequest;
    type Reply = pb::CompactionResponse;

    fn call<K: Kv>(
        kv: &K,
        request: pb::CompactionRequest,
    ) -> impl Future<Output = Result<pb::CompactionResponse, Error>> + Send {
        kv.compact(request)
    }
}

/// Cluster.MemberList.
pub(super) struct MemberList;

impl Unary for MemberList {
    const METHOD: Method = Method::ClusterMemberList;
    type Request = pb::MemberListRequest;
    type Reply = pb::MemberListResponse;

    fn call<K: Kv>(
        kv: &K,
        request: pb::MemberListRequest,
    ) -> impl Future<Output = Result<pb::MemberListResponse, Error>> + Send {
        kv.member_list(request)
    }
}

/// Maintenance.Alarm.
pub(super) struct Alarm;

impl Unary for Alarm {
    const METHOD: Method = Method::MaintenanceAlarm;
    type Request = pb::AlarmRequest;
    type Reply = pb::AlarmResponse;

    fn call<K: Kv>(
        kv: &K,
        request: pb::AlarmRequest,
    ) -> impl Future<Output = Result<pb::AlarmResponse, Error>> + Send {
        kv.alarm(request)
    }
}

/// Maintenance.Downgrade.
pub(super) struct Downgrade;

impl Unary for Downgrade {
    const METHOD: Method = Method::MaintenanceDowngrade;
    type Request = pb::DowngradeRequest;
    type Reply = pb::DowngradeResponse;

    fn call<K: Kv>(
        kv: &K,
        request: pb::DowngradeRequest,
    ) -> impl Future<Output = Result<pb::DowngradeResponse, Error>> + Send {
        kv.downgrade(request)
    }
}

/// Maintenance.Hash.
pub(super) struct Hash;

impl Unary for Hash {
    const METHOD: Method = Method::MaintenanceHash;
    type Request = pb::HashRequest;
    type Reply = pb::HashResponse;

    fn call<K: Kv>(
        kv: &K,
        _: pb::HashRequest,
    ) -> impl Future<Output = Result<pb::HashResponse, Error>> + Send {
        kv.hash()
    }
}

/// Maintenance.Defragment.
pub(super) struct Defragment;

impl Unary for Defragment {
    const METHOD: Method = Method::MaintenanceDefragment;
    type Request = pb::DefragmentRequest;
    type Reply = pb::DefragmentResponse;

    fn call<K: Kv>(
        kv: &K,
        _: pb::DefragmentRequest,
    ) -> impl Future<Output = Result<pb::DefragmentResponse, Error>> + Send {
        kv.defragment()
    }
}

/// Maintenance.HashKV.
pub(super) struct HashKv;

impl Unary for HashKv {
    const METHOD: Method = Method::MaintenanceHashKv;
    type Request = pb::HashKvRequest;
    type Reply = pb::HashKvResponse;

    fn call<K: Kv>(
        kv: &K,
        request: pb::HashKvRequest,
    ) -> impl Future<Output = Result<pb::HashKvResponse, Error>> + Send {
        kv.hash_kv(request)
    }
}

/// Maintenance.Status.
pub(super) struct Status;

impl Unary for Status {
    const METHOD: Method = Method::MaintenanceStatus;
    type Request = pb::StatusRequest;
    type Reply = pb::StatusResponse;

    fn serves_learner(_: &pb::StatusRequest) -> bool {
        true
    }

    fn call<K: Kv>(
        kv: &K,
        _: pb::StatusRequest,
    ) -> impl Future<Output = Result<pb::StatusResponse, Error>> + Send {
        kv.status()
    }
}
