//! Unary calls, straight on hyper: one message in, one prepared reply out, no layer in between.
//! This is the path of every KV call, so it is kept short: the request is decoded from the frame it
//! arrived in, the answer is one allocation with its length prefix.
//!
//! A method is one `impl` of [`Unary`] and one line in `Server::dispatch`.

use std::future::Future;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use http::{HeaderMap, Response};
use prost::Message;
use tonic::Code;

use super::body::Body;
use super::call::{self, Account, Call};
use super::message::{Fault, Messages};
use super::reply::{self, Encoded, Reply};
use super::{Kv, Server, status};
use crate::error::Error;
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
    pub(super) async fn unary<M: Unary, B>(
        &self,
        call: Call,
        headers: &HeaderMap,
        body: B,
    ) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let handler = call::catching(self.answer::<M, B>(call, headers, body));
        let answer = match call.deadline {
            None => handler.await,
            Some(deadline) => match tokio::time::timeout_at(deadline, handler).await {
                Ok(answer) => answer,
                Err(_) => Err(call::deadline_exceeded()),
            },
        };
        match answer {
            Ok(encoded) => encoded.into_response(call.gzip),
            Err(error) => status::refuse(&error),
        }
    }

    async fn answer<M: Unary, B>(
        &self,
        call: Call,
        headers: &HeaderMap,
        body: B,
    ) -> Result<Encoded, Error>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let message = first_message(body, self.max_message_bytes(), call.gzip).await?;
        self.metrics()
            .network
            .client_grpc_received_bytes
            .inc_by(message.len() as u64);
        let request = decode::<M::Request>(message)?;
        // From here on the call counts: etcd's interceptors run after decoding, too.
        let mut account = Account::begin(self.metrics(), M::METHOD, call.deadline);
        let rpc = self.metrics().grpc.method(M::METHOD);
        rpc.received();
        let answer = self
            .admitted::<M>(headers, request)
            .await
            .and_then(|r| r.encode(call.gzip));
        rpc.sent();
        match answer {
            Ok(encoded) => {
                account.end(Code::Ok);
                self.metrics()
                    .network
                    .client_grpc_sent_bytes
                    .inc_by(encoded.length as u64);
                Ok(encoded)
            }
            Err(error) => {
                account.end(error.code());
                Err(error)
            }
        }
    }

    async fn admitted<M: Unary>(
        &self,
        headers: &HeaderMap,
        request: M::Request,
    ) -> Result<M::Reply, Error> {
        let serves_learner = M::serves_learner(&request);
        call::admit(
            self.kv(),
            self.metrics(),
            headers,
            CallKind::Unary,
            serves_learner,
        )?;
        M::call(self.kv(), request).await
    }
}

/// The message of a unary call. The codes of a body that ends early are odd, but etcd's.
async fn first_message<B>(body: B, limit: usize, gzip: bool) -> Result<Bytes, Error>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    match Messages::new(body, limit, gzip).next().await {
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
    type Reply = reply::Range;

    fn serves_learner(request: &pb::RangeRequest) -> bool {
        request.serializable
    }

    async fn call<K: Kv>(kv: &K, request: pb::RangeRequest) -> Result<reply::Range, Error> {
        kv.range(request).await.map(reply::Range)
    }
}

/// KV.Put.
pub(super) struct Put;

impl Unary for Put {
    const METHOD: Method = Method::KvPut;
    type Request = pb::PutRequest;
    type Reply = pb::PutResponse;

    async fn call<K: Kv>(kv: &K, request: pb::PutRequest) -> Result<pb::PutResponse, Error> {
        kv.put(request).await
    }
}

/// KV.DeleteRange.
pub(super) struct DeleteRange;

impl Unary for DeleteRange {
    const METHOD: Method = Method::KvDeleteRange;
    type Request = pb::DeleteRangeRequest;
    type Reply = pb::DeleteRangeResponse;

    async fn call<K: Kv>(
        kv: &K,
        request: pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, Error> {
        kv.delete_range(request).await
    }
}

/// KV.Txn.
pub(super) struct Txn;

impl Unary for Txn {
    const METHOD: Method = Method::KvTxn;
    type Request = pb::TxnRequest;
    type Reply = pb::TxnResponse;

    async fn call<K: Kv>(kv: &K, request: pb::TxnRequest) -> Result<pb::TxnResponse, Error> {
        kv.txn(request).await
    }
}

/// KV.Compact.
pub(super) struct Compact;

impl Unary for Compact {
    const METHOD: Method = Method::KvCompact;
    type Request = pb::CompactionRequest;
    type Reply = pb::CompactionResponse;

    async fn call<K: Kv>(
        kv: &K,
        request: pb::CompactionRequest,
    ) -> Result<pb::CompactionResponse, Error> {
        kv.compact(request).await
    }
}

/// Cluster.MemberList.
pub(super) struct MemberList;

impl Unary for MemberList {
    const METHOD: Method = Method::ClusterMemberList;
    type Request = pb::MemberListRequest;
    type Reply = pb::MemberListResponse;

    async fn call<K: Kv>(
        kv: &K,
        request: pb::MemberListRequest,
    ) -> Result<pb::MemberListResponse, Error> {
        kv.member_list(request).await
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

    async fn call<K: Kv>(kv: &K, _: pb::StatusRequest) -> Result<pb::StatusResponse, Error> {
        Ok(kv.status())
    }
}
