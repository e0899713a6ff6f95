//! Locks and elections, for clients that have no recipes of their own (spec concurrency.md).
//!
//! Both are a queue of keys under a name, each attached to the lease of its owner: who has the
//! oldest key is first, everybody else waits for the key before its own ([`queue`]). The server keeps
//! nothing beside those keys, so locks taken here and by a client's own recipe exclude each other.
//!
//! Everything goes through the calls that clients have ([`Kv`]), with their checks.
//!
//! Deviations from etcd, whose server has a client inside:
//! * A lease that is given is not renewed; etcd may renew it once.
//! * A wait that ends early takes its key back only if it is still the one that was put, and Resign
//!   without a lease does not grant one to throw it away.
//! * A campaign that had to wait looks whether its key is still there, like Lock, and answers
//!   `election: not leader` if not. etcd tells a campaigner whose lease has expired that it has won.

pub(crate) mod election;
pub(crate) mod lock;
mod queue;
mod wait;

use std::borrow::Cow;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::mvccpb::KeyValue;
use ferrite_api::types::LeaseId;
use prost::Message;
use tonic::Code;

use crate::error::Error;
use crate::grpc::Kv;

/// Time to live of a lease that is granted because the caller gave none. Nobody renews it.
const SESSION_TTL: i64 = 60;

/// The caller's lease, or a new one.
async fn session<K: Kv>(kv: &K, lease: i64) -> Result<LeaseId, Error> {
    if lease != 0 {
        // Unknown ones are found out when a key is attached.
        return Ok(LeaseId::new(lease));
    }
    let request = pb::LeaseGrantRequest {
        ttl: SESSION_TTL,
        id: 0,
    };
    Ok(LeaseId::new(kv.lease_grant(request).await?.id))
}

/// The first pair of a range, and the header.
async fn first<K: Kv>(
    kv: &K,
    request: pb::RangeRequest,
) -> Result<(pb::ResponseHeader, Option<KeyValue>), Error> {
    let reply = kv.list(request).await?.collect().await?;
    let pair = reply.kvs.into_iter().next().map(decode).transpose()?;
    Ok((reply.header, pair))
}

fn decode(pair: Bytes) -> Result<KeyValue, Error> {
    KeyValue::decode(pair).map_err(|error| Error::status(Code::DataLoss, error.to_string()))
}

/// An error of these services: code `UNKNOWN` whatever went wrong, with the text of it. Only a call
/// that was given up says so. Clients know that peculiarity.
fn bare(error: Error) -> Error {
    match error.code() {
        Code::Cancelled | Code::DeadlineExceeded => error,
        _ => unknown(error.message()),
    }
}

fn unknown(text: impl Into<Cow<'static, str>>) -> Error {
    Error::status(Code::Unknown, text)
}
