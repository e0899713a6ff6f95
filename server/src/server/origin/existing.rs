//! Joining a cluster that has added this member.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ferrite_api::Version;
use ferrite_api::pb::membershippb::{Attributes, Member, RaftAttributes};
use tokio::task::JoinSet;

use super::{Error, others};
use crate::bootstrap::Origin;
use crate::config::{self, Config, Url, UrlsMap};
use crate::peer::{self, MemberInfo, RemoteCluster, RemoteVersions, Via};
use crate::release::joinable;

/// How long a member may take to name the members of the cluster.
const MEMBERS_PATIENCE: Duration = Duration::from_secs(10);

/// Asks the others who is in their cluster, and under which id this member is.
pub(super) async fn join(config: &Config, via: &Via, cluster: UrlsMap) -> Result<Origin, Error> {
    let others = others(&cluster, &config.name);
    let remote = peer::fetch_members(via, &others, MEMBERS_PATIENCE).await;
    let remote = remote.map_err(|failures| {
        for (url, error) in failures.0 {
            tracing::warn!(address = %url, %error, "failed to get cluster response");
        }
        Error::NoAnswer
    })?;
    let (named, name) = (cluster.clone(), config.name.clone());
    // Names may have to be resolved, which blocks.
    let compared = tokio::task::spawn_blocking(move || {
        let own = find_own(&named, &name, &remote, &config::lookup_host)?;
        Ok::<_, Error>((own, remote))
    });
    let (own, remote) = match compared.await {
        Ok(compared) => compared?,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    };
    let patience = config.request_timeout();
    let versions = fetch_versions(via, &cluster, &config.name, patience).await;
    let downgrading = is_downgrading(via, &cluster, &config.name, patience).await;
    if !are_compatible(&versions, &joinable(config.release, downgrading)) {
        return Err(Error::Incompatible);
    }
    let learners = remote.members.iter().filter(|member| member.is_learner);
    if i64::try_from(learners.count()).unwrap_or(i64::MAX) > config.max_learners {
        return Err(Error::TooManyLearners);
    }
    if !own.name.is_empty() || !own.client_urls.is_empty() {
        return Err(Error::DataLost(own.id));
    }
    tracing::info!(member_id = %own.id, cluster_id = %remote.cluster_id, "joining a cluster");
    Ok(Origin::Join {
        cluster_id: remote.cluster_id,
        member_id: own.id,
        members: remote.members.iter().map(to_member).collect(),
    })
}

/// Compares the members that `--initial-cluster` names with those of the cluster, one to one, and
/// gives this one. Names of members do not count: those of the others may be anything.
pub(super) fn find_own(
    named: &UrlsMap,
    name: &str,
    remote: &RemoteCluster,
    lookup: &dyn Fn(&str) -> std::io::Result<Vec<IpAddr>>,
) -> Result<MemberInfo, Error> {
    if remote.members.is_empty() {
        return Err(Error::NoMembers);
    }
    if remote.members.len() != named.len() {
        return Err(Error::MemberCount {
            cluster: shown(remote),
        });
    }
    let mut left: Vec<(&str, &[Url])> = named.iter().collect();
    let mut own = None;
    for member in &remote.members {
        let at = position(member, &left, lookup).map_err(|reason| Error::NoMatch {
            cluster: shown(remote),
            id: member.id,
            urls: member.peer_urls.join(" "),
            reason,
        })?;
        if left.remove(at).0 == name {
            own = Some(member.clone());
        }
    }
    // All are matched, this one too.
    own.ok_or_else(|| config::Error::LocalNameMissing(name.to_owned()).into())
}

/// Where a member stands among those that are left; otherwise how the last comparison failed.
fn position(
    member: &MemberInfo,
    left: &[(&str, &[Url])],
    lookup: &dyn Fn(&str) -> std::io::Result<Vec<IpAddr>>,
) -> Result<usize, String> {
    let urls = member.peer_urls.iter().map(|url| Url::parse(url));
    let mut urls = urls.collect::<Result<Vec<Url>, _>>()?;
    urls.sort();
    // No name is resolved if one of them is the same letter by letter.
    if let Some(at) = left.iter().position(|(_, named)| *named == urls) {
        return Ok(at);
    }
    let mut reason = String::new();
    for (at, (_, named)) in left.iter().enumerate() {
        match config::same_urls(&urls, named, lookup) {
            Ok(()) => return Ok(at),
            Err(why) => reason = why,
        }
    }
    Err(reason)
}

/// What the others say of their versions; `None` for each that does not answer.
async fn fetch_versions(
    via: &Via,
    cluster: &UrlsMap,
    name: &str,
    patience: Duration,
) -> Vec<Option<RemoteVersions>> {
    let mut asked = JoinSet::new();
    for (_, urls) in cluster.iter().filter(|(other, _)| *other != name) {
        let (via, urls) = (via.clone(), urls.to_vec());
        asked.spawn(async move {
            match peer::fetch_version(&via, &urls, patience).await {
                Ok(versions) => Some(versions),
                Err(error) => {
                    tracing::warn!(%error, "failed to get version");
                    None
                }
            }
        });
    }
    let mut versions = Vec::new();
    while let Some(answer) = asked.join_next().await {
        versions.push(answer.ok().flatten());
    }
    versions
}

/// Whether the cluster goes back to an earlier version, as the first of the others says that answers.
async fn is_downgrading(via: &Via, cluster: &UrlsMap, name: &str, patience: Duration) -> bool {
    for (_, urls) in cluster.iter().filter(|(other, _)| *other != name) {
        match peer::fetch_downgrade_enabled(via, urls, patience).await {
            Ok(enabled) => return enabled,
            Err(error) => tracing::warn!(%error, "failed to get downgrade enabled status"),
        }
    }
    false
}

/// Whether at least one member says that the cluster is of one of these versions, and none that it is of
/// another. Members that are down do not count.
pub(super) fn are_compatible(
    versions: &[Option<RemoteVersions>],
    joinable: &RangeInclusive<Version>,
) -> bool {
    let mut known = false;
    for RemoteVersions { cluster, .. } in versions.iter().flatten() {
        let Some(version) = Version::parse(cluster) else {
            tracing::warn!(
                "remote-member-cluster-version" = cluster,
                "failed to parse cluster version of remote member"
            );
            continue;
        };
        if version < *joinable.start() {
            tracing::warn!(
                "remote-member-cluster-version" = cluster,
                "minimum-cluster-version-supported" = %joinable.start(),
                "cluster version of remote member is not compatible; too low"
            );
            return false;
        }
        if version > *joinable.end() {
            tracing::warn!(
                "remote-member-cluster-version" = cluster,
                "maximum-cluster-version-supported" = %joinable.end(),
                "cluster version of remote member is not compatible; too high"
            );
            return false;
        }
        known = true;
    }
    known
}

fn to_member(member: &MemberInfo) -> Member {
    let started = !member.name.is_empty() || !member.client_urls.is_empty();
    Member {
        id: member.id.get(),
        raft_attributes: Some(RaftAttributes {
            peer_urls: member.peer_urls.clone(),
            is_learner: member.is_learner,
        }),
        member_attributes: started.then(|| Attributes {
            name: member.name.clone(),
            client_urls: member.client_urls.clone(),
        }),
    }
}

/// A cluster as etcd prints it in errors.
fn shown(remote: &RemoteCluster) -> String {
    let members: Vec<String> = remote
        .members
        .iter()
        .map(|member| {
            format!(
                "&{{ID:{} RaftAttributes:{{PeerURLs:[{}] IsLearner:{}}} Attributes:{{Name:{} ClientURLs:[{}]}}}}",
                member.id,
                member.peer_urls.join(" "),
                member.is_learner,
                member.name,
                member.client_urls.join(" ")
            )
        })
        .collect();
    format!(
        "{{ClusterID:{} Members:[{}] RemovedMemberIDs:[]}}",
        remote.cluster_id,
        members.join(" ")
    )
}
