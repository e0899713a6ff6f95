//! What members of a cluster answer that cannot decide by themselves: followers, learners, and those
//! without a quorum.

use std::time::{Duration, Instant};

use ferrite_api::pb::etcdserverpb as pb;
use prost::Message;
use tonic::{Code, Status};

use crate::clusters::{Client, EXISTING, Place, begin_cluster, begin_cluster_with};

/// Keeps a test that fails from hanging.
const PATIENCE: Duration = Duration::from_secs(60);

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";
const TXN: &str = "/etcdserverpb.KV/Txn";
const MOVE_LEADER: &str = "/etcdserverpb.Maintenance/MoveLeader";
const TIME_TO_LIVE: &str = "/etcdserverpb.Lease/LeaseTimeToLive";

fn put() -> pb::PutRequest {
    pb::PutRequest {
        key: "k".into(),
        ..pb::PutRequest::default()
    }
}

fn range(serializable: bool) -> pb::RangeRequest {
    pb::RangeRequest {
        key: "k".into(),
        serializable,
        ..pb::RangeRequest::default()
    }
}

fn txn(op: pb::request_op::Request) -> pb::TxnRequest {
    pb::TxnRequest {
        success: vec![pb::RequestOp { request: Some(op) }],
        ..pb::TxnRequest::default()
    }
}

fn time_to_live(id: i64) -> pb::LeaseTimeToLiveRequest {
    pb::LeaseTimeToLiveRequest { id, keys: true }
}

async fn status(client: &Client) -> pb::StatusResponse {
    let path = "/etcdserverpb.Maintenance/Status";
    client.call(path, pb::StatusRequest {}).await.unwrap()
}

async fn grant(client: &Client, ttl: i64) -> i64 {
    let request = pb::LeaseGrantRequest { ttl, id: 0 };
    let path = "/etcdserverpb.Lease/LeaseGrant";
    let answer: pb::LeaseGrantResponse = client.call(path, request).await.unwrap();
    answer.id
}

/// How a call was refused.
async fn refused<A: Message + Default + 'static>(
    client: &Client,
    path: &'static str,
    request: impl Message + Default + 'static,
) -> (Code, String) {
    told(client.call::<_, A>(path, request).await)
}

fn told<A>(answer: Result<A, Status>) -> (Code, String) {
    match answer {
        Ok(_) => (Code::Ok, String::new()),
        Err(status) => (status.code(), status.message().to_owned()),
    }
}

fn unavailable(text: &str) -> (Code, String) {
    (Code::Unavailable, text.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_member_renews_and_shows_the_leases_of_all() {
    let dir = tempfile::tempdir().unwrap();
    let places = ["a", "b", "c"].map(|name| Place::new(dir.path(), name));
    let (_running, _) = begin_cluster(&places);
    let mut clients = Vec::new();
    for place in &places {
        clients.push(place.client().await);
    }
    for (at, granting) in clients.iter().enumerate() {
        let id = grant(granting, 600).await;
        let key = format!("k{at}");
        let attach = pb::PutRequest {
            key: key.clone().into(),
            lease: id,
            ..pb::PutRequest::default()
        };
        let _: pb::PutResponse = granting.call(PUT, attach).await.unwrap();
        for client in &clients {
            assert_eq!(client.keep_alive(id).await.unwrap(), 600);
            assert_eq!(
                client.keep_alive(id + 1).await.unwrap(),
                0,
                "there is no such lease"
            );
            let answer: pb::LeaseTimeToLiveResponse =
                client.call(TIME_TO_LIVE, time_to_live(id)).await.unwrap();
            assert_eq!(
                (answer.granted_ttl, &answer.keys[..]),
                (600, &[key.clone().into()][..])
            );
            let answer: pb::LeaseTimeToLiveResponse = client
                .call(TIME_TO_LIVE, time_to_live(id + 1))
                .await
                .unwrap();
            assert_eq!((answer.id, answer.ttl), (id + 1, -1));
        }
    }
    // Only who leads can hand over.
    let leader = status(&clients[0]).await.leader;
    for client in &clients {
        let own = status(client).await.header.unwrap().member_id;
        let ask = pb::MoveLeaderRequest { target_id: leader };
        let answer = refused::<pb::MoveLeaderResponse>(client, MOVE_LEADER, ask).await;
        match own == leader {
            true => assert_eq!(answer.0, Code::Ok),
            false => {
                let not_leader = "etcdserver: not leader".to_owned();
                assert_eq!(answer, (Code::FailedPrecondition, not_leader));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_hands_over_to_a_member_that_is_dead() {
    let dir = tempfile::tempdir().unwrap();
    let places = ["a", "b", "c"].map(|name| Place::new(dir.path(), name));
    let (mut running, _) = begin_cluster(&places);
    let (mut leading, mut other) = (None, None);
    for (at, place) in places.iter().enumerate() {
        let client = place.client().await;
        let status = status(&client).await;
        let id = status.header.unwrap().member_id;
        match id == status.leader {
            true => leading = Some(client),
            false => other = Some((at, id)),
        }
    }
    let (leading, (at, target_id)) = (leading.unwrap(), other.unwrap());
    drop(running.remove(at));
    let ask = pb::MoveLeaderRequest { target_id };
    let answer = refused::<pb::MoveLeaderResponse>(&leading, MOVE_LEADER, ask).await;
    let text = "etcdserver: request timed out, leader transfer took too long";
    assert_eq!(answer, (Code::Unknown, text.to_owned()));
    leading.put("k", "v").await;
}

/// In a cluster where nothing is written, a member that is dead has as much of the log as any.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_removed_hands_over_to_a_member_that_lives() {
    let dir = tempfile::tempdir().unwrap();
    let places = ["a", "b", "c", "d"].map(|name| Place::new(dir.path(), name));
    let lenient = ["--strict-reconfig-check=false"];
    let (mut running, _) = begin_cluster_with(&places, &lenient);
    let mut followers = Vec::new();
    let mut leader = 0;
    for (at, place) in places.iter().enumerate() {
        let client = place.client().await;
        let status = status(&client).await;
        leader = status.leader;
        let id = status.header.unwrap().member_id;
        if id != leader {
            followers.push((id, at, client));
        }
    }
    // Of equals, the one with the lowest id would be asked.
    followers.sort_by_key(|(id, ..)| *id);
    let (_, dead, _) = followers.remove(0);
    drop(running.remove(dead));
    let (_, _, client) = &followers[0];
    let path = "/etcdserverpb.Cluster/MemberRemove";
    let request = pb::MemberRemoveRequest { id: leader };
    let answer: pb::MemberRemoveResponse = client.call(path, request).await.unwrap();
    assert_eq!(answer.members.len(), 3);
    client.put("k", "v").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_asked_to_remove_itself_answers_before_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let places = ["a", "b", "c", "d"].map(|name| Place::new(dir.path(), name));
    let (_running, _) = begin_cluster_with(&places, &["--strict-reconfig-check=false"]);
    let mut clients = Vec::new();
    for place in &places {
        clients.push(place.client().await);
    }
    let first = status(&clients[0]).await;
    let leads = |status: &pb::StatusResponse| {
        status.header.as_ref().map(|header| header.member_id) == Some(status.leader)
    };
    // A follower, then the leader.
    let mut order = Vec::new();
    for client in clients {
        let status = status(&client).await;
        order.push((leads(&status), status.header.unwrap().member_id, client));
    }
    order.sort_by_key(|(leads, ..)| *leads);
    let (_, follower, client) = order.remove(0);
    let (_, leader, leading) = order.pop().unwrap();
    assert_eq!(leader, first.leader);
    let path = "/etcdserverpb.Cluster/MemberRemove";
    for (id, client, left) in [(follower, client, 3), (leader, leading, 2)] {
        let request = pb::MemberRemoveRequest { id };
        let answer: pb::MemberRemoveResponse = client.call(path, request).await.unwrap();
        assert_eq!(answer.members.len(), left);
    }
}

/// An address may be wrong, or one at which the member listens only after its next start.
#[tokio::test(flavor = "multi_thread")]
async fn members_reach_each_other_when_an_address_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let places = ["a", "b"].map(|name| Place::new(dir.path(), name));
    let (mut running, _) = begin_cluster(&places);
    let client = places[0].client().await;
    let id = status(&places[1].client().await)
        .await
        .header
        .unwrap()
        .member_id;
    let path = "/etcdserverpb.Cluster/MemberUpdate";
    let update = |url: &str| pb::MemberUpdateRequest {
        id,
        peer_ur_ls: vec![url.to_owned()],
    };
    let wrong = update("http://127.0.0.1:1");
    let _: pb::MemberUpdateResponse = client.call(path, wrong).await.unwrap();
    // What is connected stays so.
    client.put("k", "1").await;
    // What is not is connected from the other side, which can.
    running.remove(0);
    running.push(places[0].begin(&[]));
    places[0].serves(&mut running[1], 2);
    let client = places[0].client().await;
    client.put("k", "2").await;
    let right = update(&places[1].peer);
    let _: pb::MemberUpdateResponse = client.call(path, right).await.unwrap();
    client.put("k", "3").await;
}

/// As etcd: what nobody is cannot be removed either while too few have started.
#[tokio::test(flavor = "multi_thread")]
async fn the_removal_of_somebody_unknown_does_not_wait_for_a_quorum() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::new(dir.path(), "a");
    let (_running, _) = begin_cluster(std::slice::from_ref(&place));
    let client = place.client().await;
    let add = pb::MemberAddRequest {
        peer_ur_ls: vec!["http://127.0.0.1:1".to_owned()],
        is_learner: false,
    };
    let path = "/etcdserverpb.Cluster/MemberAdd";
    let _: pb::MemberAddResponse = client.call(path, add).await.unwrap();
    let path = "/etcdserverpb.Cluster/MemberRemove";
    let remove = pb::MemberRemoveRequest { id: 123 };
    let answer = refused::<pb::MemberRemoveResponse>(&client, path, remove).await;
    let text = "etcdserver: re-configuration failed due to not enough started members";
    assert_eq!(answer, (Code::Unknown, text.to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_of_a_cluster_answers_little_until_it_is_promoted() {
    let dir = tempfile::tempdir().unwrap();
    let places = ["a", "b"].map(|name| Place::new(dir.path(), name));
    let [voter, learner] = &places;
    let (_running, cluster) = begin_cluster(std::slice::from_ref(voter));
    let client = voter.client().await;
    client.put("k", "v").await;
    let add = |url: &str| pb::MemberAddRequest {
        peer_ur_ls: vec![url.to_owned()],
        is_learner: true,
    };
    let path = "/etcdserverpb.Cluster/MemberAdd";
    let added: pb::MemberAddResponse = client.call(path, add(&learner.peer)).await.unwrap();
    let id = added.member.unwrap().id;
    // `--max-learners` is 1.
    let second = refused::<pb::MemberAddResponse>(&client, path, add("http://127.0.0.1:1"));
    let too_many = "etcdserver: too many learner members in cluster".to_owned();
    assert_eq!(second.await, (Code::FailedPrecondition, too_many));

    let cluster = format!("{cluster},{}", learner.entry());
    let mut joined = learner.begin(&[EXISTING[0], EXISTING[1], &cluster]);
    learner.serves(&mut joined, 1);
    let there = learner.client().await;
    assert!(status(&there).await.is_learner);
    let unsupported = "etcdserver: rpc not supported for learner".to_owned();
    let unsupported = (Code::FailedPrecondition, unsupported);
    let answer = refused::<pb::PutResponse>(&there, PUT, put()).await;
    assert_eq!(answer, unsupported);
    let answer = refused::<pb::RangeResponse>(&there, RANGE, range(false)).await;
    assert_eq!(answer, unsupported);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer: pb::RangeResponse = there.call(RANGE, range(true)).await.unwrap();
        if answer.count == 1 {
            break;
        }
        assert!(Instant::now() < deadline, "it does not catch up");
        tokio::task::yield_now().await;
    }

    let path = "/etcdserverpb.Cluster/MemberPromote";
    let refusal = |text: &str| (Code::FailedPrecondition, text.to_owned());
    // It may be behind at any moment: with so few entries, one is more than a tenth of them.
    let behind = "etcdserver: can only promote a learner member which is in sync with leader";
    let mut promoted = 0;
    loop {
        let request = pb::MemberPromoteRequest { id };
        let answer = refused::<pb::MemberPromoteResponse>(&client, path, request).await;
        if answer.0 == Code::Ok {
            promoted += 1;
        } else if answer != refusal(behind) {
            let no_learner = "etcdserver: can only promote a learner member";
            assert_eq!((promoted, answer), (1, refusal(no_learner)));
            break;
        }
        assert!(Instant::now() < deadline, "it is never in sync");
        tokio::task::yield_now().await;
    }
    // It takes part as soon as it knows.
    while status(&there).await.is_learner {
        assert!(Instant::now() < deadline, "it does not learn of it");
        tokio::task::yield_now().await;
    }
    there.put("k", "w").await;
    assert_eq!(client.get("k").await.as_deref(), Some("w"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_each_call_ends_in_its_own_way() {
    let dir = tempfile::tempdir().unwrap();
    let places = ["a", "b", "c"].map(|name| Place::new(dir.path(), name));
    let (mut running, _) = begin_cluster(&places);
    let client = places[0].client().await;
    client.put("k", "v").await;
    let lease = grant(&client, 600).await;
    running.truncate(1);
    let deadline = Instant::now() + PATIENCE;
    while status(&client).await.leader != 0 {
        assert!(Instant::now() < deadline, "it still has a leader");
        tokio::task::yield_now().await;
    }

    let answer: pb::RangeResponse = client.call(RANGE, range(true)).await.unwrap();
    assert_eq!(answer.count, 1);
    let insisting = client.insisting_on_a_leader();
    let answer = refused::<pb::PutResponse>(&insisting, PUT, put()).await;
    assert_eq!(answer, unavailable("etcdserver: no leader"));

    // What was never proposed: the deadline of the server's own.
    let never = (
        Code::DeadlineExceeded,
        "context deadline exceeded".to_owned(),
    );
    let timed_out = unavailable("etcdserver: request timed out");
    let no_leader = unavailable("etcdserver: no leader");
    let write = txn(pb::request_op::Request::RequestPut(put()));
    let read = txn(pb::request_op::Request::RequestRange(range(false)));
    let compaction = pb::CompactionRequest {
        revision: 1,
        physical: false,
    };
    let answers = tokio::join!(
        refused::<pb::PutResponse>(&client, PUT, put()),
        refused::<pb::TxnResponse>(&client, TXN, write),
        refused::<pb::CompactionResponse>(&client, "/etcdserverpb.KV/Compact", compaction),
        refused::<pb::LeaseGrantResponse>(
            &client,
            "/etcdserverpb.Lease/LeaseGrant",
            pb::LeaseGrantRequest { ttl: 60, id: 0 }
        ),
        refused::<pb::RangeResponse>(&client, RANGE, range(false)),
        refused::<pb::TxnResponse>(&client, TXN, read),
        refused::<pb::MemberListResponse>(
            &client,
            "/etcdserverpb.Cluster/MemberList",
            pb::MemberListRequest { linearizable: true }
        ),
        refused::<pb::LeaseTimeToLiveResponse>(&client, TIME_TO_LIVE, time_to_live(lease)),
        async { told(client.keep_alive(lease).await) },
    );
    let (a, b, c, d, e, f, g, h, i) = answers;
    for (what, answer, expected) in [
        ("Put", a, &never),
        ("Txn that writes", b, &never),
        ("Compact", c, &never),
        ("LeaseGrant", d, &never),
        ("Range", e, &timed_out),
        ("Txn that reads", f, &timed_out),
        ("MemberList", g, &timed_out),
        ("LeaseTimeToLive", h, &no_leader),
        ("LeaseKeepAlive", i, &no_leader),
    ] {
        assert_eq!(answer, *expected, "{what}");
    }
}
