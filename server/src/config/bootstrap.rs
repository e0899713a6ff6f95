//! The rules for a member without data (spec/server-flags.md section 7): its own entry in
//! `--initial-cluster` must be what it advertises. A member that has a log skips all of this.

use std::net::IpAddr;

use super::Config;
use super::error::Error;
use super::urls::{Url, UrlsMap, join};

impl Config {
    /// The members of the new cluster that this member bootstraps. To be asked only when there is
    /// no log yet: later starts ignore these flags. `lookup` resolves host names
    /// ([`super::lookup_host`]).
    ///
    /// # Errors
    /// etcd's, in its order; [`Error::NotBuilt`] for joining an existing cluster.
    pub fn bootstrap_cluster(
        &self,
        lookup: &dyn Fn(&str) -> std::io::Result<Vec<IpAddr>>,
    ) -> Result<UrlsMap, Error> {
        let cluster = UrlsMap::parse(&self.initial_cluster).map_err(Error::InitialCluster)?;
        let Some(own) = cluster.get(&self.name) else {
            return Err(Error::LocalNameMissing(self.name.clone()));
        };
        if !self.new_cluster {
            return Err(Error::NotBuilt {
                flag: "initial-cluster-state",
                value: "existing".to_owned(),
                reason: "joining a cluster is not built yet",
                default: "new",
            });
        }
        self.check_advertised(own, lookup)?;
        if cluster.has_duplicate_url() {
            return Err(Error::DuplicateUrl(cluster.to_string()));
        }
        Ok(cluster)
    }

    /// The advertised URLs must be those of the own entry, literally or once resolved.
    fn check_advertised(
        &self,
        own: &[Url],
        lookup: &dyn Fn(&str) -> std::io::Result<Vec<IpAddr>>,
    ) -> Result<(), Error> {
        let Err(reason) = same_urls(&self.advertise_peer_urls, own, lookup) else {
            return Ok(());
        };
        let absent = |from: &[Url], of: &[Url]| -> Vec<Url> {
            of.iter()
                .filter(|url| !from.contains(url))
                .cloned()
                .collect()
        };
        let missing = absent(&self.advertise_peer_urls, own);
        if !missing.is_empty() {
            let pairs: Vec<String> = missing
                .iter()
                .map(|url| format!("{}={url}", self.name))
                .collect();
            return Err(Error::NotAdvertised {
                missing: pairs.join(","),
                advertised: join(&self.advertise_peer_urls),
                reason,
            });
        }
        Err(Error::NotInCluster {
            missing: join(&absent(own, &self.advertise_peer_urls)),
            cluster: UrlsMap::single(&self.name, &self.advertise_peer_urls).to_string(),
        })
    }
}

/// Whether two sorted lists name the same places. Names other than `localhost` are resolved when
/// the texts differ.
fn same_urls(
    advertised: &[Url],
    own: &[Url],
    lookup: &dyn Fn(&str) -> std::io::Result<Vec<IpAddr>>,
) -> Result<(), String> {
    if advertised.len() != own.len() {
        return Err(format!(
            "len({}) != len({})",
            quoted(advertised),
            quoted(own)
        ));
    }
    if advertised == own {
        return Ok(());
    }
    let resolve = |urls: &[Url]| -> Result<Vec<Url>, String> {
        let mut resolved = urls
            .iter()
            .map(|url| resolve_url(url, lookup))
            .collect::<Result<Vec<_>, _>>()?;
        resolved.sort();
        Ok(resolved)
    };
    let (advertised, own) = (resolve(advertised)?, resolve(own)?);
    match advertised.iter().zip(&own).find(|(a, b)| a != b) {
        Some((a, b)) => Err(format!(
            "resolved urls: {:?} != {:?}",
            a.as_str(),
            b.as_str()
        )),
        None => Ok(()),
    }
}

fn resolve_url(
    url: &Url,
    lookup: &dyn Fn(&str) -> std::io::Result<Vec<IpAddr>>,
) -> Result<Url, String> {
    let host = url.host();
    if url.scheme().is_unix() || host == "localhost" {
        return Ok(url.clone());
    }
    if let Ok(ip) = host.parse() {
        return Ok(url.with_host(ip));
    }
    let failed = |reason: String| format!("failed to resolve {:?} ({reason})", url.as_str());
    match lookup(host) {
        Ok(addresses) => match addresses.first() {
            Some(ip) => Ok(url.with_host(*ip)),
            None => Err(failed(format!("lookup {host}: no such host"))),
        },
        Err(error) => Err(failed(format!("lookup {host}: {error}"))),
    }
}

/// Go's `%q` of a list of texts.
fn quoted(urls: &[Url]) -> String {
    let texts: Vec<String> = urls
        .iter()
        .map(|url| format!("{:?}", url.as_str()))
        .collect();
    format!("[{}]", texts.join(" "))
}
