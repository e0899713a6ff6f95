//! What a member without data makes of what others say.

mod dns;

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use ferrite_api::Version;
use ferrite_api::pb::mvccpb::KeyValue;
use ferrite_api::types::ClusterId;

use super::discovery::{Keys, Registered, size_of};
use super::existing::{are_compatible, find_own};
use super::*;
use crate::peer::{MemberInfo, RemoteCluster, RemoteVersions};
use crate::release::joinable;

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
        let found = are_compatible(&versions, &joinable(Version::RELEASE, false));
        assert_eq!(found, compatible, "{versions:?}");
    }
    // While it goes back to this level, the cluster is at the one above.
    let joinable = joinable(Version::new(3, 6, 11), true);
    assert!(are_compatible(&[says("3.7.0")], &joinable));
    assert!(!are_compatible(&[says("3.6.0")], &joinable));
    assert!(!are_compatible(&[says("3.8.0")], &joinable));
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
        let found = find(&config, &Via::default()).await.unwrap_err();
        assert_eq!(found.to_string(), error);
    }
}

#[test]
fn the_registry_is_laid_out_as_etcds() {
    let keys = Keys::of("tok", MemberId::new(0x8e9e));
    assert_eq!(keys.size, "/_etcd/registry/tok/_config/size");
    assert_eq!(keys.members, "/_etcd/registry/tok/members");
    assert_eq!(keys.own, "/_etcd/registry/tok/members/8e9e");
    // As Go joins paths.
    let keys = Keys::of("a//b/../c/", MemberId::new(1));
    assert_eq!(keys.own, "/_etcd/registry/a/c/members/1");
}

#[test]
fn sizes_are_numbers_of_members() {
    assert_eq!(size_of(b"3"), Ok(3));
    assert_eq!(size_of(b"+3"), Ok(3));
    for bad in [
        &b"0"[..],
        b"-1",
        b"",
        b"three",
        b" 3",
        b"3.0",
        b"\xff",
        b"99999999999999999999",
    ] {
        assert_eq!(size_of(bad), Err(DiscoveryError::BadSize), "{bad:?}");
    }
}

#[test]
fn the_first_to_register_are_members() {
    let key = |id: u64, created: i64, value: &str| KeyValue {
        key: format!("/_etcd/registry/t/members/{id:x}").into(),
        value: value.to_owned().into(),
        create_revision: created,
        ..KeyValue::default()
    };
    let own = Keys::of("t", MemberId::new(3)).own;
    let mut registered = Registered::default();
    assert!(!registered.is_full(&own, 1));
    registered.add(&key(2, 20, " b=http://b:1\n"));
    registered.add(&key(1, 10, "a=http://a:1"));
    // No pair, and a second time.
    registered.add(&key(4, 30, "nonsense"));
    registered.add(&key(2, 40, "b=http://b:2"));
    assert_eq!(registered.members.len(), 2);
    assert!(registered.is_full(&own, 2));
    assert!(!registered.is_full(&own, 3));
    registered.add(&key(3, 15, "c=http://c:1"));
    assert!(!registered.is_full(&own, 2));
    assert!(registered.is_full(&own, 1));
    assert_eq!(registered.cluster(2).unwrap(), "a=http://a:1,c=http://c:1");
    registered.add(&key(5, 5, "d=nonsense"));
    assert_eq!(registered.cluster(3), Err(DiscoveryError::InvalidUrl));
}

#[tokio::test]
async fn discovery_is_not_for_those_who_join() {
    let config = Config {
        new_cluster: false,
        discovery: Some(config::Discovery {
            token: "t".to_owned(),
            endpoints: vec!["127.0.0.1:1".to_owned()],
            dial_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(1),
            keepalive_time: Duration::from_secs(1),
            keepalive_timeout: Duration::from_secs(1),
            tls: None,
        }),
        ..Config::default()
    };
    let error = find(&config, &Via::default())
        .await
        .unwrap_err()
        .to_string();
    let text = "discovery URL should not be set when joining existing initial cluster";
    assert_eq!(error, text);
}

/// Who embeds a server starts it in a task.
#[test]
fn a_start_may_move_to_another_thread() {
    fn is_send(_: impl Send) {}
    is_send(crate::Server::start(Config::default()));
}
