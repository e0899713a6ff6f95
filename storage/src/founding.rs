//! The first state of a new cluster: every member derives the same ids and the same state from the
//! same names, URLs and token, whether it begins with nothing or with the data of another cluster.

use std::collections::BTreeMap;

use ferrite_api::types::{ClusterId, MemberId};
use sha1::{Digest, Sha1};

use crate::members;
use crate::page::{ConfState, Initial, MetaUpdate};

/// The index and term at which the log of a new cluster's member begins: the initial members are in
/// the state.
pub const FIRST: u64 = 1;

/// The id of a member: the first 8 bytes of SHA-1 over its sorted peer URLs and the cluster token
/// (spec cluster.md section 1).
pub fn member_id(peer_urls: &[String], token: &str) -> MemberId {
    let mut urls: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    urls.sort_unstable();
    let mut hash = Sha1::new();
    for url in urls {
        hash.update(url);
    }
    hash.update(token);
    MemberId::new(first_8(&hash.finalize()))
}

/// The id of a cluster: the first 8 bytes of SHA-1 over its members' ids in ascending order.
pub fn cluster_id(members: &[MemberId]) -> ClusterId {
    let mut members = members.to_vec();
    members.sort_unstable();
    let mut hash = Sha1::new();
    for member in members {
        hash.update(member.get().to_be_bytes());
    }
    ClusterId::new(first_8(&hash.finalize()))
}

fn first_8(hash: &[u8]) -> u64 {
    hash.iter()
        .take(8)
        .fold(0, |id, byte| id << 8 | u64::from(*byte))
}

/// The first state of a new cluster of `members` (by name, with their peer URLs), as its member
/// `name` lays it out; `None` if there is no member of that name.
pub fn found(name: &str, members: &BTreeMap<String, Vec<String>>, token: &str) -> Option<Initial> {
    let id = |urls: &[String]| member_id(urls, token);
    let own = members.get(name)?;
    let mut ids: Vec<MemberId> = members.values().map(|urls| id(urls)).collect();
    ids.sort_unstable();
    let tables = members
        .iter()
        .map(|(name, urls)| members::row(&members::founder(id(urls), name.clone(), urls.clone())));
    Some(Initial {
        cluster_id: cluster_id(&ids).get(),
        member_id: id(own).get(),
        tables: tables.collect(),
        meta: MetaUpdate {
            consistent_index: Some(FIRST),
            term: Some(FIRST),
            conf_state: Some(ConfState {
                voters: ids.iter().map(|id| id.get()).collect(),
                ..ConfState::default()
            }),
            ..MetaUpdate::default()
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_etcds() {
        // The ids of etcd's defaults, which every tutorial shows.
        let member = member_id(&["http://localhost:2380".to_owned()], "etcd-cluster");
        assert_eq!(member.to_string(), "8e9e05c52164694d");
        assert_eq!(cluster_id(&[member]).to_string(), "cdf818194e3a8c32");
    }
}
