//! Spec validation.md section 7 and the rows of several members: three servers in this process.

use std::net::TcpListener;
use std::time::Duration;

use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::etcdserverpb::cluster_client::ClusterClient;
use ferrite_api::pb::etcdserverpb::lease_client::LeaseClient;
use ferrite_api::pb::etcdserverpb::maintenance_client::MaintenanceClient;
use ferrite_server::config::{Config, Url};
use tokio::task::JoinSet;
use tonic::Code;
use tonic::transport::Channel;

use crate::support::{Member, get, put, refused};

/// Three members, in the order of their names.
struct Trio {
    members: Vec<Member>,
}

impl Trio {
    async fn start(change: fn(&mut Config)) -> Self {
        // Each member needs the others' addresses before anybody listens.
        let listeners: Vec<_> = (0..3)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let urls: Vec<String> = listeners.iter().map(url).collect();
        drop(listeners);
        let cluster: Vec<String> = (0..)
            .zip(&urls)
            .map(|(n, url)| format!("m{n}={url}"))
            .collect();
        let cluster = cluster.join(",");
        let mut starting = JoinSet::new();
        for (n, url) in urls.into_iter().enumerate() {
            let cluster = cluster.clone();
            starting.spawn(async move {
                let url = vec![Url::parse(&url).unwrap()];
                let member = Member::start_with(|config| {
                    config.name = format!("m{n}");
                    config.listen_peer_urls = url.clone();
                    config.advertise_peer_urls = url;
                    config.initial_cluster = cluster;
                    // Elections and timeouts of a tenth of their usual length.
                    config.heartbeat_interval = Duration::from_millis(20);
                    config.election_timeout = Duration::from_millis(200);
                    change(config);
                });
                (n, member.await)
            });
        }
        let mut members = starting.join_all().await;
        members.sort_by_key(|(n, _)| *n);
        Self {
            members: members.into_iter().map(|(_, member)| member).collect(),
        }
    }

    /// The members, the leader first.
    async fn by_rank(&self) -> Vec<&Member> {
        let status = status(&self.members[0]).await;
        let mut ranked: Vec<&Member> = Vec::new();
        for member in &self.members {
            match id(member).await == status.leader {
                true => ranked.insert(0, member),
                false => ranked.push(member),
            }
        }
        ranked
    }
}

fn cluster(member: &Member) -> ClusterClient<Channel> {
    ClusterClient::new(member.channel.clone())
}

fn maintenance(member: &Member) -> MaintenanceClient<Channel> {
    MaintenanceClient::new(member.channel.clone())
}

async fn status(member: &Member) -> pb::StatusResponse {
    let answer = maintenance(member).status(pb::StatusRequest {}).await;
    answer.unwrap().into_inner()
}

async fn id(member: &Member) -> u64 {
    status(member).await.header.unwrap().member_id
}

fn add(url: &str, is_learner: bool) -> pb::MemberAddRequest {
    pb::MemberAddRequest {
        peer_ur_ls: vec![url.to_owned()],
        is_learner,
    }
}

fn lax(config: &mut Config) {
    config.strict_reconfig_check = false;
}

#[tokio::test(flavor = "multi_thread")]
async fn s7_members_come_and_go_by_etcds_rules() {
    let trio = Trio::start(lax).await;
    let ranked = trio.by_rank().await;
    let mut cluster = cluster(ranked[1]);
    let fresh = "http://127.0.0.1:1";

    for bad in [
        vec![],
        vec!["ftp://x:1"],
        vec!["http://x"],
        vec!["http://x:1/"],
    ] {
        let request = pb::MemberAddRequest {
            peer_ur_ls: bad.into_iter().map(str::to_owned).collect(),
            is_learner: false,
        };
        let text = "etcdserver: given member URLs are invalid";
        refused(
            cluster.member_add(request).await,
            Code::InvalidArgument,
            text,
        );
    }
    let taken = {
        let list = cluster
            .member_list(pb::MemberListRequest { linearizable: true })
            .await;
        let members = list.unwrap().into_inner().members;
        assert_eq!(members.len(), 3);
        assert!(members.is_sorted_by_key(|member| member.id));
        members[0].clone()
    };
    let answer = cluster.member_add(add(&taken.peer_ur_ls[0], true)).await;
    let text = "etcdserver: Peer URLs already exists";
    refused(answer, Code::FailedPrecondition, text);

    let answer = cluster.member_add(add(&format!(" {fresh} "), true)).await;
    let added = answer.unwrap().into_inner();
    let header = added.header.unwrap();
    assert_eq!((header.revision, added.members.len()), (0, 4));
    let learner = added.member.unwrap();
    assert_eq!(learner.peer_ur_ls, [fresh]);
    assert!(learner.is_learner && learner.name.is_empty() && learner.client_ur_ls.is_empty());

    let answer = cluster.member_add(add("http://127.0.0.1:2", true)).await;
    let text = "etcdserver: too many learner members in cluster";
    refused(answer, Code::FailedPrecondition, text);

    let text = "etcdserver: member not found";
    for id in [0, 1] {
        let unknown = pb::MemberPromoteRequest { id };
        refused(cluster.member_promote(unknown).await, Code::NotFound, text);
    }
    let absent = pb::MemberPromoteRequest { id: learner.id };
    let text = "etcdserver: can only promote a learner member which is in sync with leader";
    refused(
        cluster.member_promote(absent).await,
        Code::FailedPrecondition,
        text,
    );
    let voter = pb::MemberPromoteRequest { id: taken.id };
    let text = "etcdserver: can only promote a learner member";
    refused(
        cluster.member_promote(voter).await,
        Code::FailedPrecondition,
        text,
    );

    let update = |id, url: &str| pb::MemberUpdateRequest {
        id,
        peer_ur_ls: vec![url.to_owned()],
    };
    let text = "etcdserver: member not found";
    for id in [0, 1] {
        let answer = cluster.member_update(update(id, fresh)).await;
        refused(answer, Code::NotFound, text);
    }
    let answer = cluster
        .member_update(update(learner.id, &taken.peer_ur_ls[0]))
        .await;
    let text = "etcdserver: Peer URLs already exists";
    refused(answer, Code::FailedPrecondition, text);
    // Not looked at: whoever updates URLs may know better.
    let answer = cluster.member_update(update(learner.id, "elsewhere")).await;
    let members = answer.unwrap().into_inner().members;
    let updated = members.iter().find(|member| member.id == learner.id);
    assert_eq!(updated.unwrap().peer_ur_ls, ["elsewhere"]);

    let text = "etcdserver: member not found";
    for id in [0, 1] {
        let remove = pb::MemberRemoveRequest { id };
        refused(cluster.member_remove(remove).await, Code::NotFound, text);
    }
    let remove = pb::MemberRemoveRequest { id: learner.id };
    let removed = cluster.member_remove(remove).await.unwrap().into_inner();
    assert_eq!(
        (removed.header.unwrap().revision, removed.members.len()),
        (0, 3)
    );
    refused(cluster.member_remove(remove).await, Code::NotFound, text);
}

#[tokio::test(flavor = "multi_thread")]
async fn s7_changes_that_could_cost_the_quorum_are_refused() {
    let trio = Trio::start(|_| {}).await;
    // Nobody has been connected for 5 s.
    let answer = cluster(&trio.members[0])
        .member_add(add("http://127.0.0.1:1", false))
        .await;
    refused(answer, Code::Unavailable, "etcdserver: unhealthy cluster");

    let sole = Member::start().await;
    let text = "etcdserver: re-configuration failed due to not enough started members";
    // Not even without the check is the last one removed.
    for sole in [&sole, &Member::start_with(lax).await] {
        let id = id(sole).await;
        let remove = pb::MemberRemoveRequest { id };
        refused(
            cluster(sole).member_remove(remove).await,
            Code::Unknown,
            text,
        );
    }
    // The first one passes. It does not run, so the second one must not.
    cluster(&sole)
        .member_add(add("http://127.0.0.1:1", false))
        .await
        .unwrap();
    let answer = cluster(&sole)
        .member_add(add("http://127.0.0.1:2", false))
        .await;
    refused(answer, Code::Unknown, text);
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_move_leader() {
    let trio = Trio::start(lax).await;
    let ranked = trio.by_rank().await;
    let target = |id| pb::MoveLeaderRequest { target_id: id };
    let follower = id(ranked[1]).await;
    let answer = maintenance(ranked[1]).move_leader(target(follower)).await;
    refused(answer, Code::FailedPrecondition, "etcdserver: not leader");
    let mut leader = maintenance(ranked[0]);
    let text = "etcdserver: bad leader transferee";
    refused(
        leader.move_leader(target(1)).await,
        Code::FailedPrecondition,
        text,
    );
    let added = cluster(ranked[0])
        .member_add(add("http://127.0.0.1:1", true))
        .await;
    let learner = added.unwrap().into_inner().member.unwrap().id;
    refused(
        leader.move_leader(target(learner)).await,
        Code::FailedPrecondition,
        text,
    );
    let answer = leader
        .move_leader(target(follower))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.header, None);
    assert_eq!(status(ranked[0]).await.leader, follower);
}

/// Writes and linearizable reads on every member; leases are renewed and looked up wherever the client
/// asks.
#[tokio::test(flavor = "multi_thread")]
async fn s2_4_every_member_serves_what_the_leader_knows() {
    let trio = Trio::start(lax).await;
    let grant = pb::LeaseGrantRequest { ttl: 60, id: 7 };
    let mut lease = LeaseClient::new(trio.members[0].channel.clone());
    lease.lease_grant(grant).await.unwrap();
    for (number, member) in (1..).zip(&trio.members) {
        let value = number.to_string();
        let revision = member.put("k", &value).await;
        for other in &trio.members {
            let pair = other.pair("k").await.unwrap();
            assert_eq!(
                (pair.mod_revision, &pair.value[..]),
                (revision, value.as_bytes())
            );
        }
        let mut lease = LeaseClient::new(member.channel.clone());
        let request = pb::LeaseTimeToLiveRequest { id: 7, keys: true };
        let answer = lease
            .lease_time_to_live(request)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.granted_ttl, 60);
        let unknown = pb::LeaseTimeToLiveRequest { id: 8, keys: true };
        let answer = lease
            .lease_time_to_live(unknown)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.ttl, -1);
        let renew = tokio_stream::iter([pb::LeaseKeepAliveRequest { id: 7 }]);
        let mut renewals = lease.lease_keep_alive(renew).await.unwrap().into_inner();
        let renewed = renewals.message().await.unwrap().unwrap();
        let header = renewed.header.unwrap();
        assert_eq!((renewed.ttl, header.member_id), (60, id(member).await));
    }
}

/// A member that is left alone answers what it may, and refuses the rest in time.
#[tokio::test(flavor = "multi_thread")]
async fn e2_6_without_a_quorum_nothing_stale_and_nothing_for_ever() {
    let trio = Trio::start(lax).await;
    trio.members[0].put("k", "v").await;
    let mut members = trio.members.into_iter();
    let left = members.next().unwrap();
    assert!(left.pair("k").await.is_some());
    for member in members {
        member.stop().await;
    }
    let lost = "etcdserver: request timed out, possibly due to connection lost";
    let timeout = "etcdserver: request timed out";
    let (mut writer, mut reader) = (left.kv(), left.kv());
    let (written, read) = tokio::join!(writer.put(put("k", "w")), reader.range(get("k")));
    for error in [written.unwrap_err(), read.unwrap_err()] {
        let found = (error.code(), error.message());
        // A proposal that had nobody to go to ends with the clock's own text.
        let never_left = (Code::DeadlineExceeded, "context deadline exceeded");
        let ends = [
            (Code::Unavailable, lost),
            (Code::Unavailable, timeout),
            never_left,
        ];
        assert!(ends.contains(&found), "{found:?}");
    }
    let serializable = pb::RangeRequest {
        serializable: true,
        ..get("k")
    };
    let local = left.kv().range(serializable).await.unwrap().into_inner();
    assert_eq!(local.kvs.len(), 1);
    let status = status(&left).await;
    assert_eq!(
        (status.leader, &status.errors[..]),
        (0, &["etcdserver: no leader".to_owned()][..])
    );
}
