//! What a member without data starts from: it begins a new cluster with others, or joins one that
//! has added it (spec/server-flags.md section 7). Others are asked over their peer ports.

mod discovery;
mod existing;
mod srv;
#[cfg(test)]
mod tests;

use std::time::Duration;

use ferrite_api::types::MemberId;
use tokio::task::JoinSet;

use super::strings;
use crate::bootstrap::{self, Origin};
use crate::config::{self, Config, DEFAULT_PEER_URL, Url, UrlsMap};
use crate::peer::{self, Via};
pub use discovery::Error as DiscoveryError;
pub use srv::Error as SrvError;

/// How long a member may take to say whether this one has been started before.
const BOOTSTRAPPED_PATIENCE: Duration = Duration::from_secs(1);

/// Why a member without data cannot start. Most texts are etcd's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `--initial-cluster` does not fit this member.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// A running cluster knows this member: it had data before.
    #[error("member {0} has already been bootstrapped")]
    Bootstrapped(MemberId),
    /// The same, of a member that is to join.
    ///
    /// Deviation: etcd lets it join again with nothing, although it has promised its vote and its
    /// entries to others, and dies when the leader goes on where it stood.
    #[error(
        "member {0} has already been bootstrapped, and its data is not here; remove it from the cluster and add it again"
    )]
    DataLost(MemberId),
    /// Discovery has found no cluster.
    #[error("failed to join discovery cluster ({0})")]
    Discovery(#[from] DiscoveryError),
    /// Discovery has found one URL twice.
    #[error("discovery cluster {0} has duplicate url")]
    DiscoveredTwice(String),
    /// DNS does not name a cluster of which this member is.
    #[error("error setting up initial cluster: {0}")]
    Srv(#[from] SrvError),
    /// No member of the cluster has answered.
    #[error(
        "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs"
    )]
    NoAnswer,
    /// A member has answered that there is none.
    #[error(
        "cannot fetch cluster info from peer urls: failed to get raft cluster member(s) from the given URLs"
    )]
    NoMembers,
    /// The cluster has another number of members than `--initial-cluster`.
    #[error("error validating peerURLs {cluster}: member count is unequal")]
    MemberCount {
        /// The cluster, as etcd prints it.
        cluster: String,
    },
    /// A member of the cluster is not in `--initial-cluster`.
    #[error(
        "error validating peerURLs {cluster}: PeerURLs: no match found for existing member ({id}, [{urls}]), last resolver error ({reason})"
    )]
    NoMatch {
        /// The cluster, as etcd prints it.
        cluster: String,
        /// The member.
        id: MemberId,
        /// Its peer URLs.
        urls: String,
        /// How the last comparison failed.
        reason: String,
    },
    /// The cluster is of a version that this program does not serve, or of an unknown one.
    #[error("incompatible with current running cluster")]
    Incompatible,
    /// The cluster has more learners than this member allows.
    #[error("membership: too many learner members in cluster")]
    TooManyLearners,
}

impl Error {
    /// What was perhaps forgotten, for whoever reads the log.
    pub fn hints(&self, config: &Config) -> Vec<&'static str> {
        let mut hints = Vec::new();
        if !matches!(self, Error::Config(_)) {
            return hints;
        }
        let advertised = &config.advertise_peer_urls;
        if config.initial_cluster == UrlsMap::single(&config.name, advertised).to_string() {
            hints.push("forgot to set --initial-cluster?");
        }
        if strings(advertised) == [DEFAULT_PEER_URL] {
            hints.push("forgot to set --initial-advertise-peer-urls?");
        }
        if hints.contains(&"forgot to set --initial-cluster?") {
            hints.push(
                "V3 discovery settings (i.e., --discovery-token, --discovery-endpoints) are not set",
            );
        }
        hints
    }
}

/// Finds out what a member without data starts from.
///
/// # Errors
/// See [`Error`]; nothing was changed anywhere.
pub(super) async fn find(config: &Config, via: &Via) -> Result<Origin, Error> {
    let (cluster, token) = named(config).await?;
    if !config.new_cluster {
        config.check_existing_cluster(&cluster)?;
        return existing::join(config, via, cluster).await;
    }
    check(config, &cluster).await?;
    let own = cluster.get(&config.name).unwrap_or_default();
    let id = bootstrap::member_id(&strings(own), token);
    if is_bootstrapped(via, id, others(&cluster, &config.name)).await {
        return Err(Error::Bootstrapped(id));
    }
    let cluster = match &config.discovery {
        Some(discovery) => {
            let found = discovery::join(discovery, id, &cluster.to_string()).await?;
            let found = UrlsMap::parse(&found).map_err(config::Error::InitialCluster)?;
            if found.has_duplicate_url() {
                return Err(Error::DiscoveredTwice(found.to_string()));
            }
            // Another may have taken this member's name.
            check(config, &found).await?;
            found
        }
        None => cluster,
    };
    Ok(Origin::New {
        name: config.name.clone(),
        members: cluster
            .iter()
            .map(|(name, urls)| (name.to_owned(), strings(urls)))
            .collect(),
        token: token.to_owned(),
    })
}

/// The members as far as flags and DNS name them, and the token of the cluster.
async fn named(config: &Config) -> Result<(UrlsMap, &str), Error> {
    if let Some(discovery) = &config.discovery {
        let own = UrlsMap::single(&config.name, &config.advertise_peer_urls);
        return Ok((own, &discovery.token));
    }
    let cluster = match &config.discovery_srv {
        Some(srv) => srv::cluster(config, srv, &srv::Dns::of_the_system()?).await?,
        None => config.named_cluster()?,
    };
    Ok((cluster, &config.initial_cluster_token))
}

/// Checks that this member can begin this cluster. Names may have to be resolved, which blocks.
async fn check(config: &Config, cluster: &UrlsMap) -> Result<(), Error> {
    let (config, cluster) = (config.clone(), cluster.clone());
    let checked = tokio::task::spawn_blocking(move || {
        config.check_new_cluster(&cluster, &config::lookup_host)
    });
    match checked.await {
        Ok(checked) => Ok(checked?),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// The peer URLs of all members but one, sorted.
fn others(cluster: &UrlsMap, name: &str) -> Vec<Url> {
    let others = cluster.iter().filter(|(other, _)| *other != name);
    let mut urls: Vec<Url> = others.flat_map(|(_, urls)| urls).cloned().collect();
    urls.sort();
    urls
}

/// Whether a running cluster says that this member has served clients. Who does not answer in time
/// has no say: usually the whole cluster is new.
async fn is_bootstrapped(via: &Via, id: MemberId, others: Vec<Url>) -> bool {
    let mut asked = JoinSet::new();
    for url in others {
        let via = via.clone();
        asked.spawn(async move { peer::fetch_members(&via, &[url], BOOTSTRAPPED_PATIENCE).await });
    }
    while let Some(answer) = asked.join_next().await {
        let Ok(Ok(cluster)) = answer else {
            continue;
        };
        let own = cluster.members.iter().find(|member| member.id == id);
        if own.is_some_and(|member| !member.client_urls.is_empty()) {
            return true;
        }
    }
    false
}
