//! `/members/hashkv`: the hash of a member's key space, for the members that compare theirs.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use ferrite_api::Error as ApiError;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::types::ClusterId;
use ferrite_storage::mvcc::hash::KeyValueHash;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::call::{CallError, Caller};
use super::identity::{self, CLUSTER_ID, Refusal};
use super::shared::Shared;
use super::via::Via;
use crate::config::Url;
use crate::error::Error;
use crate::http::reply;

pub(super) const PATH: &str = "/members/hashkv";

/// Longest question that is read, in bytes.
const MAX_QUESTION: usize = 4096;

/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 4096;

const JSON: &str = "application/json";

/// The answer to [`Directory::hash_kv`](super::Directory::hash_kv), once it is there.
pub type HashAnswer = Pin<Box<dyn Future<Output = Result<pb::HashKvResponse, Error>> + Send>>;

#[derive(Serialize, Deserialize)]
struct Question {
    #[serde(default)]
    revision: i64,
}

/// The text of an error as it goes between members: without the server's name in front.
fn bare(text: &str) -> &str {
    text.strip_prefix("etcdserver: ").unwrap_or(text)
}

/// What a member says about its key space, in etcd's JSON: zeros are left out.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Json {
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "is_zero")]
    hash: u32,
    #[serde(skip_serializing_if = "is_zero")]
    compact_revision: i64,
    #[serde(skip_serializing_if = "is_zero")]
    hash_revision: i64,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Header {
    #[serde(skip_serializing_if = "is_zero")]
    revision: i64,
}

fn is_zero<N: Default + PartialEq>(number: &N) -> bool {
    *number == N::default()
}

/// What a member says about its key space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteHash {
    /// The hash, at the revision that was asked for.
    pub hash: KeyValueHash,
    /// The member's newest revision.
    pub revision: i64,
}

/// Why a member has given no hash.
#[derive(Debug, thiserror::Error)]
pub enum NoHash {
    /// The member has compacted the revision away.
    #[error("{}", ApiError::Compacted.message())]
    Compacted,
    /// The member is not at that revision yet.
    #[error("{}", ApiError::FutureRev.message())]
    Future,
    /// It is a member of another cluster.
    #[error("cluster ID mismatch")]
    OtherCluster,
    /// No URL can be used.
    #[error("the member has no usable URL")]
    NoUrl,
    /// Anything else.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl NoHash {
    fn of(error: CallError) -> Self {
        let CallError::Refused { status, text, .. } = &error else {
            return error.into();
        };
        match *status {
            StatusCode::BAD_REQUEST if text == bare(ApiError::Compacted.message()) => {
                Self::Compacted
            }
            StatusCode::BAD_REQUEST if text == bare(ApiError::FutureRev.message()) => Self::Future,
            StatusCode::PRECONDITION_FAILED => Self::OtherCluster,
            _ => error.into(),
        }
    }
}

/// See [`Peers::fetch_hash`](super::Peers::fetch_hash).
pub(super) async fn fetch(
    urls: &[Url],
    (cluster, via): (ClusterId, &Via),
    revision: i64,
    patience: Duration,
) -> Result<RemoteHash, NoHash> {
    let mut failure = NoHash::NoUrl;
    for url in urls {
        let asked = timeout(patience, hash_at(url, via, cluster, revision)).await;
        match asked.unwrap_or(Err(CallError::TimedOut)) {
            Ok(hash) => return Ok(hash),
            Err(error) => {
                failure = NoHash::of(error);
                tracing::warn!(
                    "requested-revision" = revision,
                    "remote-peer-endpoint" = url.as_str(),
                    error = %failure,
                    "failed hash kv request"
                );
            }
        }
    }
    Err(failure)
}

async fn hash_at(
    url: &Url,
    via: &Via,
    cluster: ClusterId,
    revision: i64,
) -> Result<RemoteHash, CallError> {
    let nonsense = |error: serde_json::Error| CallError::Nonsense(error.to_string());
    let question = serde_json::to_vec(&Question { revision }).map_err(nonsense)?;
    let mut request = Request::new(Full::new(Bytes::from(question)));
    *request.method_mut() = Method::GET;
    *request.uri_mut() = http::Uri::from_static(PATH);
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    headers.insert(CLUSTER_ID, identity::hex(cluster.get()));
    let mut caller = Caller::connect(url, via).await?;
    let (_, answer) = caller.ask(request, MAX_ANSWER).await?;
    let json: Json = serde_json::from_slice(&answer).map_err(nonsense)?;
    Ok(RemoteHash {
        hash: KeyValueHash {
            hash: json.hash,
            compact_revision: json.compact_revision,
            revision: json.hash_revision,
        },
        revision: json.header.unwrap_or_default().revision,
    })
}

/// Answers a member, or whoever asks.
pub(super) async fn answer(shared: &Shared, request: Request<Incoming>) -> Response {
    let own = shared.identity.cluster;
    if !meant_for(request.headers(), own) {
        let refusal = Refusal::OtherCluster(None);
        return reply::error(refusal.status(), refusal.text());
    }
    let body = Limited::new(request.into_body(), MAX_QUESTION);
    let Ok(body) = body.collect().await else {
        return reply::error(StatusCode::BAD_REQUEST, "error reading body");
    };
    let Ok(question) = serde_json::from_slice::<Question>(&body.to_bytes()) else {
        return reply::error(StatusCode::BAD_REQUEST, "error unmarshalling request");
    };
    let response = match shared.directory.hash_kv(question.revision).await {
        Ok(response) => response,
        Err(error) => {
            tracing::warn!(
                "requested-revision" = question.revision,
                %error,
                "failed to get hashKV"
            );
            return reply::error(StatusCode::BAD_REQUEST, bare(&error.message()));
        }
    };
    let header = response.header.unwrap_or_default();
    let json = Json {
        header: Some(Header {
            revision: header.revision,
        }),
        hash: response.hash,
        compact_revision: response.compact_revision,
        hash_revision: response.hash_revision,
    };
    match serde_json::to_vec(&json) {
        Ok(body) => {
            let mut answer = reply::with_type(StatusCode::OK, JSON, body);
            let headers = answer.headers_mut();
            headers.insert(CLUSTER_ID, identity::hex(own.get()));
            answer
        }
        Err(error) => reply::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// Whether who asks means this cluster; who does not say is not asked.
fn meant_for(headers: &HeaderMap, own: ClusterId) -> bool {
    match identity::text(headers, CLUSTER_ID) {
        None | Some("") => true,
        Some(named) => named == own.to_string(),
    }
}
