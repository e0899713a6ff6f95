//! What the peer port tells whoever asks: the members, the versions, the time.

use std::pin::Pin;
use std::time::SystemTime;

use axum::response::Response;
use ferrite_api::types::{ClusterId, MemberId};
use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use super::hash_kv::HashAnswer;
use super::identity::CLUSTER_ID;
use crate::handle::Versions;
use crate::http::reply;
use crate::logging;

/// What the peer port has to know about the cluster.
pub trait Directory: Send + Sync + 'static {
    /// All members, this one included, in any order.
    fn members(&self) -> Vec<MemberInfo>;

    /// The versions of `/version`.
    fn versions(&self) -> Versions;

    /// The hash of the key space at a revision.
    fn hash_kv(&self, revision: i64) -> HashAnswer;

    /// Whether the cluster goes back to an earlier version, as far as it knows now; or why that cannot be
    /// told.
    fn downgrade_enabled(&self) -> Asking;
}

/// The answer to a question, once it is there.
pub type Asking = Pin<Box<dyn Future<Output = Result<bool, String>> + Send>>;

/// A member, as the members tell each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// Its id.
    pub id: MemberId,
    /// Where it listens for its peers.
    pub peer_urls: Vec<String>,
    /// Whether it has no vote.
    pub is_learner: bool,
    /// Its name; empty until it has introduced itself.
    pub name: String,
    /// Where it listens for clients; empty until it has introduced itself.
    pub client_urls: Vec<String>,
}

/// [`MemberInfo`] in etcd's JSON.
#[derive(Serialize, Deserialize)]
struct Json {
    id: u64,
    #[serde(rename = "peerURLs", default)]
    peer_urls: Vec<String>,
    #[serde(rename = "isLearner", default, skip_serializing_if = "is_false")]
    is_learner: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(rename = "clientURLs", default, skip_serializing_if = "Vec::is_empty")]
    client_urls: Vec<String>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

pub(super) fn members(cluster: ClusterId, members: &[MemberInfo]) -> Response {
    let mut list: Vec<Json> = members
        .iter()
        .map(|member| Json {
            id: member.id.get(),
            peer_urls: member.peer_urls.clone(),
            is_learner: member.is_learner,
            name: member.name.clone(),
            client_urls: member.client_urls.clone(),
        })
        .collect();
    list.sort_unstable_by_key(|member| member.id);
    let body = match serde_json::to_string(&list) {
        Ok(text) => format!("{}\n", escaped(&text)),
        Err(error) => return reply::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    };
    of_cluster(
        cluster,
        reply::with_type(StatusCode::OK, "application/json", body),
    )
}

/// Go's encoder escapes what HTML would take for markup. In JSON these can be in strings only.
fn escaped(json: &str) -> String {
    json.replace('&', "\\u0026")
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
}

/// The members in the body of an answer to `/members`.
pub(super) fn parse_members(body: &[u8]) -> Result<Vec<MemberInfo>, serde_json::Error> {
    let list: Vec<Json> = serde_json::from_slice(body)?;
    Ok(list
        .into_iter()
        .map(|member| MemberInfo {
            id: MemberId::new(member.id),
            peer_urls: member.peer_urls,
            is_learner: member.is_learner,
            name: member.name,
            client_urls: member.client_urls,
        })
        .collect())
}

pub(super) fn downgrade_enabled(cluster: ClusterId, enabled: Result<bool, String>) -> Response {
    let answer = match enabled {
        Ok(enabled) => reply::with_type(StatusCode::OK, "text/plain", enabled.to_string()),
        Err(why) => {
            let text = format!("failed linearized read: {why}");
            reply::error(StatusCode::INTERNAL_SERVER_ERROR, &text)
        }
    };
    of_cluster(cluster, answer)
}

fn of_cluster(cluster: ClusterId, mut answer: Response) -> Response {
    let cluster = HeaderValue::from_str(&cluster.to_string());
    let cluster = cluster.expect("hex digits are a header value");
    answer.headers_mut().insert(CLUSTER_ID, cluster);
    answer
}

/// The time here, for others to compare.
pub(super) fn probing() -> Response {
    let now = logging::rfc3339_nanos(SystemTime::now());
    let body = format!("{{\"OK\":true,\"Now\":\"{now}\"}}\n");
    reply::with_type(StatusCode::OK, reply::PLAIN, body)
}
