//! The flags that say which new cluster a member is made for, and whether they fit together.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ferrite_api::urls::{Url, UrlsMap, join, parse_urls};
use ferrite_storage::founding::found;
use ferrite_storage::page::Initial;

use crate::cli::{Flag, Kind, Matches};
use crate::failure::Failure;

const NAME: &str = "default";
const CLUSTER: &str = "default=http://localhost:2380";
const TOKEN: &str = "etcd-cluster";
const PEER_URLS: &str = "http://localhost:2380";

pub(crate) const NAME_FLAG: Flag = Flag::new(
    "name",
    Kind::Text(NAME),
    "Human-readable name for this member",
);
pub(crate) const CLUSTER_FLAG: Flag = Flag::new(
    "initial-cluster",
    Kind::Text(CLUSTER),
    "Initial cluster configuration for restore bootstrap",
);
pub(crate) const TOKEN_FLAG: Flag = Flag::new(
    "initial-cluster-token",
    Kind::Text(TOKEN),
    "Initial cluster token for the etcd cluster during restore bootstrap",
);
pub(crate) const PEER_URLS_FLAG: Flag = Flag::new(
    "initial-advertise-peer-urls",
    Kind::Text(PEER_URLS),
    "List of this member's peer URLs to advertise to the rest of the cluster",
);
pub(crate) const DATA_DIR_FLAG: Flag = Flag::new(
    "data-dir",
    Kind::Text(""),
    "Path to the output data directory (default \"<name>.etcd\")",
);
pub(crate) const WAL_DIR_FLAG: Flag = Flag::new(
    "wal-dir",
    Kind::Text(""),
    "Path to the WAL directory (use --data-dir if none given)",
);

/// What a command line asks for.
#[derive(Debug)]
pub(crate) struct NewCluster {
    /// The members, by name.
    pub(crate) members: UrlsMap,
    /// The first state of this one.
    pub(crate) founding: Initial,
    pub(crate) data_dir: PathBuf,
    /// If it is not in the data directory.
    pub(crate) wal_dir: Option<PathBuf>,
}

impl NewCluster {
    /// Checks the flags, in etcd's order.
    ///
    /// Deviation: names are not resolved, advertised URLs must be those of `--initial-cluster` letter
    /// by letter.
    pub(crate) fn of(matches: &Matches) -> Result<Self, Failure> {
        let name = matches.text("name", NAME);
        let own = parse_urls(&matches.text("initial-advertise-peer-urls", PEER_URLS))
            .map_err(Failure::new)?;
        let members =
            UrlsMap::parse(&matches.text("initial-cluster", CLUSTER)).map_err(Failure::new)?;
        let token = matches.text("initial-cluster-token", TOKEN);
        check(&name, &own, &members).map_err(Failure::new)?;
        let urls = |urls: &[Url]| urls.iter().map(|url| url.as_str().to_owned()).collect();
        let by_name: BTreeMap<String, Vec<String>> = members
            .iter()
            .map(|(name, of)| (name.to_owned(), urls(of)))
            .collect();
        let founding =
            found(&name, &by_name, &token).ok_or_else(|| Failure::new(missing_name(&name)))?;
        Ok(Self {
            data_dir: matches
                .path("data-dir")
                .unwrap_or_else(|| format!("{name}.etcd").into()),
            wal_dir: matches.path("wal-dir"),
            members,
            founding,
        })
    }
}

fn missing_name(name: &str) -> String {
    format!("couldn't find local name \"{name}\" in the initial cluster configuration")
}

fn check(name: &str, own: &[Url], members: &UrlsMap) -> Result<(), String> {
    let named = members.get(name).ok_or_else(|| missing_name(name))?;
    let beyond = |these: &[Url], those: &[Url]| -> Vec<Url> {
        let only = these.iter().filter(|url| !those.contains(url));
        only.cloned().collect()
    };
    let (unadvertised, unnamed) = (beyond(named, own), beyond(own, named));
    if !unadvertised.is_empty() {
        return Err(format!(
            "--initial-cluster has {} but missing from --initial-advertise-peer-urls={}",
            UrlsMap::single(name, &unadvertised),
            join(own)
        ));
    }
    if !unnamed.is_empty() {
        return Err(format!(
            "--initial-advertise-peer-urls has {} but missing from --initial-cluster={}",
            join(&unnamed),
            UrlsMap::single(name, named)
        ));
    }
    if members.has_duplicate_url() {
        return Err(format!("initial cluster {members} has duplicate url"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_must_fit_together() {
        let check = |name: &str, own: &str, members: &str| {
            let own = parse_urls(own).unwrap();
            check(name, &own, &UrlsMap::parse(members).unwrap())
        };
        let (a, b) = ("http://a:1", "http://b:1");
        assert_eq!(check("a", a, "a=http://a:1,b=http://b:1"), Ok(()));
        for (name, own, members, text) in [
            (
                "c",
                a,
                "a=http://a:1",
                "couldn't find local name \"c\" in the",
            ),
            (
                "a",
                b,
                "a=http://a:1",
                "--initial-cluster has a=http://a:1 but missing from \
                 --initial-advertise-peer-urls=http://b:1",
            ),
            (
                "a",
                "http://a:1,http://b:1",
                "a=http://a:1",
                "--initial-advertise-peer-urls has http://b:1 but missing from \
                 --initial-cluster=a=http://a:1",
            ),
            (
                "a",
                a,
                "a=http://a:1,b=http://a:1",
                "initial cluster a=http://a:1,b=http://a:1 has duplicate url",
            ),
        ] {
            let error = check(name, own, members).unwrap_err();
            assert!(error.starts_with(text), "{error}");
        }
    }
}
