//! What a member without data makes of what others say.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use ferrite_api::types::ClusterId;

use super::existing::{are_compatible, find_own};
use super::*;
use crate::peer::{MemberInfo, RemoteCluster, RemoteVersions};

fn member(id: u64, url: &str) -> MemberInfo {
    MemberInfo {
        id: MemberId::new(id),
        peer_urls: vec![url.to_owned()],
        is_learner: false,
        name: String::new(),
        client_urls: Vec::new(),
    }
}

fn lookup(host: &str) -> io::Result<Vec<IpAddr>> {
    match host {
        "a.example" => Ok(vec![Ipv4Addr::new(10, 0, 0, 1).into()]),
        _ => Err(io::Error::other("no such host")),
    }
}

/// Who member `b` is in a cluster of `members`, in which it was told of `named`.
fn own(members: Vec<MemberInfo>, named: &str) -> Result<u64, String> {
    let remote = RemoteCluster {
        cluster_id: ClusterId::new(0xc1),
        members,
    };
    let named = UrlsMap::parse(named).unwrap();
    find_own(&named, "b", &remote, &lookup)
        .map(|own| own.id.get())
        .map_err(|error| error.to_string())
}

#[test]
fn members_are_matched_by_their_urls() {
    let members = || {
        vec![
            member(1, "http://10.0.0.1:1"),
            member(2, "http://10.0.0.2:1"),
        ]
    };
    let named = "a=http://10.0.0.1:1,b=http://10.0.0.2:1";
    assert_eq!(own(members(), named), Ok(2));
    let swapped = "b=http://10.0.0.1:1,a=http://10.0.0.2:1";
    assert_eq!(own(members(), swapped), Ok(1));
    // The other has another name here than there, and a host that must be resolved.
    let resolved = "x=http://a.example:1,b=http://10.0.0.2:1";
    assert_eq!(own(members(), resolved), Ok(2));
    // Several URLs, in any order.
    let mut two = member(2, "http://10.0.0.2:2");
    two.peer_urls.push("http://10.0.0.2:1".to_owned());
    let named = "b=http://10.0.0.2:1,b=http://10.0.0.2:2";
    assert_eq!(own(vec![two], named), Ok(2));
}

#[test]
fn clusters_that_do_not_match_are_refused_in_etcds_words() {
    let one = || vec![member(1, "http://10.0.0.1:1")];
    assert_eq!(
        own(vec![], "b=http://10.0.0.1:1").unwrap_err(),
        "cannot fetch cluster info from peer urls: failed to get raft cluster member(s) from the given URLs"
    );
    assert_eq!(
        own(one(), "a=http://10.0.0.1:1,b=http://10.0.0.2:1").unwrap_err(),
        "error validating peerURLs {ClusterID:c1 Members:[&{ID:1 RaftAttributes:{PeerURLs:[http://10.0.0.1:1] IsLearner:false} Attributes:{Name: ClientURLs:[]}}] RemovedMemberIDs:[]}: member count is unequal"
    );
    let no_match = |error: String, reason: &str| {
        let end = format!(
            "PeerURLs: no match found for existing member (1, [http://10.0.0.1:1]), last resolver error ({reason})"
        );
        assert!(error.ends_with(&end), "{error} does not end in {end}");
    };
    no_match(
        own(one(), "b=http://10.0.0.2:1").unwrap_err(),
        r#"resolved urls: "http://10.0.0.1:1" != "http://10.0.0.2:1""#,
    );
    no_match(
        own(one(), "b=http://nowhere.example:1").unwrap_err(),
        r#"failed to resolve "http://nowhere.example:1" (lookup nowhere.example: no such host)"#,
    );
    // One entry cannot stand for two members.
    let twins = vec![
        member(1, "http://10.0.0.1:1"),
        member(2, "http://10.0.0.1:1"),
    ];
    let error = own(twins, "a=http://10.0.0.1:1,b=http://10.0.0.2:1").unwrap_err();
    assert!(
        error.contains("no match found for existing member (2, "),
        "{error}"
    );
    // What is no URL at all.
    let error = own(vec![member(1, "nonsense")], "b=http://10.0.0.1:1").unwrap_err();
    assert!(error.contains("URL scheme must be"), "{error}");
}

#[test]
fn versions_that_can_be_joined() {
    let says = |cluster: &str| {
        Some(RemoteVersions {
            server: "3.7.1".to_owned(),
            cluster: cluster.to_owned(),
        })
    };
    for (versions, compatible) in [
        (vec![], false),
        (vec![None], false),
        (vec![says("not_decided")], false),
        (vec![says("3.7.0")], true),
        (vec![says("3.0.0"), None, says("not_decided")], true),
        (vec![says("3.7.0"), says("3.8.0")], false),
        (vec![says("2.3.0")], false),
        (vec![says("4.0.0")], false),
        (vec![says("3.7")], false),
    ] {
        assert_eq!(are_compatible(&versions), compatible, "{versions:?}");
    }
}

#[tokio::test]
async fn errors_before_anybody_is_asked() {
    for (new_cluster, cluster, error) in [
        (
            true,
            "b=http://127.0.0.1:1",
            "couldn't find local name \"default\" in the initial cluster configuration",
        ),
        (
            false,
            "b=http://127.0.0.1:1",
            "couldn't find local name \"default\" in the initial cluster configuration",
        ),
        (
            false,
            "default=http://127.0.0.1:1,b=http://127.0.0.1:1",
            "initial cluster b=http://127.0.0.1:1,default=http://127.0.0.1:1 has duplicate url",
        ),
        // There is nobody else to ask.
        (
            false,
            "default=http://127.0.0.1:1",
            "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs",
        ),
    ] {
        let config = Config {
            initial_cluster: cluster.to_owned(),
            new_cluster,
            ..Config::default()
        };
        let found = find(&config).await.unwrap_err();
        assert_eq!(found.to_string(), error);
    }
}
