//! What a member that is not one yet asks the members of a cluster.

use std::time::Duration;

use ferrite_api::types::ClusterId;
use serde::Deserialize;

use super::call::{self, CallError};
use super::identity;
use super::pages::{MemberInfo, parse_members};
use super::via::Via;
use crate::config::Url;

/// Longest member list that is read, in bytes.
const MAX_MEMBERS: usize = 1 << 20;

/// Longest answer of `/version` and `/downgrade/enabled` that is read, in bytes.
const MAX_VERSION: usize = 64 << 10;

/// A cluster, as one of its members describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteCluster {
    /// Its id.
    pub cluster_id: ClusterId,
    /// Its members.
    pub members: Vec<MemberInfo>,
}

/// The versions of another member.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RemoteVersions {
    /// The program's.
    #[serde(rename = "etcdserver")]
    pub server: String,
    /// The cluster's; `not_decided` until it is.
    #[serde(rename = "etcdcluster")]
    pub cluster: String,
}

/// Nobody has given a usable answer.
#[derive(Debug, thiserror::Error)]
#[error("no member has answered{}", .0.iter().map(|(url, error)| format!("; {url}: {error}")).collect::<String>())]
pub struct NoAnswer(pub Vec<(Url, CallError)>);

/// Asks the members at peer URLs who is in their cluster. The first usable answer counts; each has
/// `patience`.
///
/// # Errors
/// There is none.
pub async fn fetch_members(
    via: &Via,
    urls: &[Url],
    patience: Duration,
) -> Result<RemoteCluster, NoAnswer> {
    let mut failures = NoAnswer(Vec::new());
    for url in urls {
        match members_of(via, url, patience).await {
            Ok(cluster) => return Ok(cluster),
            Err(error) => failures.0.push((url.clone(), error)),
        }
    }
    Err(failures)
}

async fn members_of(via: &Via, url: &Url, patience: Duration) -> Result<RemoteCluster, CallError> {
    let (headers, body) = call::get(via, url, "/members", MAX_MEMBERS, patience).await?;
    let nonsense = |what: &str| CallError::Nonsense(what.to_owned());
    let cluster_id = identity::cluster(&headers).ok_or_else(|| nonsense("it names no cluster"))?;
    let members = parse_members(&body).map_err(|error| nonsense(&error.to_string()))?;
    Ok(RemoteCluster {
        cluster_id,
        members,
    })
}

/// Asks the member at peer URLs for its versions, one URL after the other, each with `patience`.
///
/// # Errors
/// There is no usable answer.
pub async fn fetch_version(
    via: &Via,
    urls: &[Url],
    patience: Duration,
) -> Result<RemoteVersions, NoAnswer> {
    let mut failures = NoAnswer(Vec::new());
    for url in urls {
        match version_of(via, url, patience).await {
            Ok(versions) => return Ok(versions),
            Err(error) => failures.0.push((url.clone(), error)),
        }
    }
    Err(failures)
}

/// Asks the member at peer URLs whether the cluster goes back to an earlier version, one URL after the
/// other, each with `patience`.
///
/// # Errors
/// There is no usable answer.
pub async fn fetch_downgrade_enabled(
    via: &Via,
    urls: &[Url],
    patience: Duration,
) -> Result<bool, NoAnswer> {
    let mut failures = NoAnswer(Vec::new());
    for url in urls {
        match downgrade_enabled_of(via, url, patience).await {
            Ok(enabled) => return Ok(enabled),
            Err(error) => failures.0.push((url.clone(), error)),
        }
    }
    Err(failures)
}

async fn downgrade_enabled_of(via: &Via, url: &Url, patience: Duration) -> Result<bool, CallError> {
    let (_, body) = call::get(via, url, "/downgrade/enabled", MAX_VERSION, patience).await?;
    match &body[..] {
        b"true" => Ok(true),
        b"false" => Ok(false),
        _ => Err(CallError::Nonsense("neither true nor false".to_owned())),
    }
}

async fn version_of(via: &Via, url: &Url, patience: Duration) -> Result<RemoteVersions, CallError> {
    let (_, body) = call::get(via, url, "/version", MAX_VERSION, patience).await?;
    serde_json::from_slice(&body).map_err(|error| CallError::Nonsense(error.to_string()))
}
