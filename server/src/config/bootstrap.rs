//! The rules for a member without data (spec/server-flags.md section 7): its own entry in
//! `--initial-cluster` must be there, and be what it advertises. A member that has a log skips all
//! of this.

use std::net::IpAddr;

use super::Config;
use super::error::Error;
use super::urls::{Url, UrlsMap, join};

impl Config {
    /// The members that `--initial-cluster` names, this one among them.
    ///
    /// # Errors
    /// It does not parse, or this member is missing.
    pub fn named_cluster(&self) -> Result<UrlsMap, Error> {
        let cluster = UrlsMap::parse(&self.initial_cluster).map_err(Error::InitialCluster)?;
        self.check_named(&cluster)?;
        Ok(cluster)
    }

    /// Checks that this member can begin a new cluster of these members. `lookup` resolves host
    /// names ([`super::lookup_host`]).
    ///
    /// # Errors
    /// etcd's, in its order.
    pub fn check_new_cluster(
        &self,
        cluster: &UrlsMap,
        lookup: &dyn Fn(&str) -> std::io::Result<Vec<IpAddr>>,
    ) -> Result<(), Error> {
        let own = self.check_named(cluster)?;
        self.check_advertised(own, lookup)?;
        check_unique(cluster)
    }

    /// Checks that this member can join a cluster of these members.
    ///
    /// # Errors
    /// etcd's, in its order.
    pub fn check_existing_cluster(&self, cluster: &UrlsMap) -> Result<(), Error> {
        self.check_named(cluster)?;
        check_unique(cluster)?;
        match self.discovery {
            Some(_) => Err(Error::DiscoveryOfExisting),
            None => Ok(()),
        }
    }

    fn check_named<'a>(&self, cluster: &'a UrlsMap) -> Result<&'a [Url], Error> {
        cluster
            .get(&self.name)
            .ok_or_else(|| Error::LocalNameMissing(self.name.clone()))
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
        let cluster = UrlsMap::single(&self.name, &self.advertise_peer_urls).to_string();
        let missing = absent(own, &self.advertise_peer_urls);
        if missing.is_empty() {
            return Err(Error::Unresolved {
                advertised: join(&self.advertise_peer_urls),
                cluster,
                reason,
            });
        }
        Err(Error::NotInCluster {
            missing: join(&missing),
            cluster,
        })
    }
}

fn check_unique(cluster: &UrlsMap) -> Result<(), Error> {
    match cluster.has_duplicate_url() {
        true => Err(Error::DuplicateUrl(cluster.to_string())),
        false => Ok(()),
    }
}

/// Whether two sorted lists name the same places. Names other than `localhost` are resolved when
/// the texts differ.
///
/// # Errors
/// They do not, or a name does not resolve: etcd's text for it.
pub(crate) fn same_urls(
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
