//! Section 6 of spec validation.md and the sections of spec lease.md that a client can see (`l3` is
//! section 3 of that page).

use std::time::{Duration, Instant};

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use ferrite_api::pb::etcdserverpb::lease_client::LeaseClient;
use ferrite_api::pb::etcdserverpb::maintenance_client::MaintenanceClient;
use ferrite_api::pb::etcdserverpb::request_op::Request;
use ferrite_server::config::{Config, Feature};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use crate::support::*;
use crate::watch::{self, Watch};

const LEASE_EXISTS: &str = "etcdserver: lease already exists";
const TTL_TOO_LARGE: &str = "etcdserver: too large lease TTL";

pub(crate) fn leases(member: &Member) -> LeaseClient<Channel> {
    LeaseClient::new(member.channel.clone())
}

pub(crate) async fn grant(member: &Member, id: i64, ttl: i64) -> pb::LeaseGrantResponse {
    let request = pb::LeaseGrantRequest { id, ttl };
    let answer = leases(member).lease_grant(request).await;
    answer.unwrap().into_inner()
}

async fn revoke(member: &Member, id: i64) -> Answer<pb::LeaseRevokeResponse> {
    let request = pb::LeaseRevokeRequest { id };
    leases(member).lease_revoke(request).await
}

async fn time_to_live(member: &Member, id: i64) -> pb::LeaseTimeToLiveResponse {
    let request = pb::LeaseTimeToLiveRequest { id, keys: true };
    let answer = leases(member).lease_time_to_live(request).await;
    answer.unwrap().into_inner()
}

/// The keys attached to a lease, as text.
async fn keys_of(member: &Member, id: i64) -> Vec<String> {
    let keys = time_to_live(member, id).await.keys.into_iter();
    keys.map(|key| String::from_utf8(key.to_vec()).unwrap())
        .collect()
}

pub(crate) fn put_with(key: &str, lease: i64) -> pb::PutRequest {
    pb::PutRequest {
        lease,
        ..put(key, "v")
    }
}

/// A stream of keep-alives.
struct KeepAlive {
    requests: mpsc::Sender<pb::LeaseKeepAliveRequest>,
    responses: Streaming<pb::LeaseKeepAliveResponse>,
}

impl KeepAlive {
    /// Opens the stream with its first request: there are no headers before the first answer.
    async fn open(member: &Member, id: i64) -> Self {
        let (requests, outgoing) = mpsc::channel(8);
        requests
            .send(pb::LeaseKeepAliveRequest { id })
            .await
            .unwrap();
        let responses = leases(member)
            .lease_keep_alive(ReceiverStream::new(outgoing))
            .await
            .unwrap()
            .into_inner();
        Self {
            requests,
            responses,
        }
    }

    async fn send(&self, id: i64) {
        let request = pb::LeaseKeepAliveRequest { id };
        self.requests.send(request).await.unwrap();
    }

    async fn next(&mut self) -> pb::LeaseKeepAliveResponse {
        self.responses.message().await.unwrap().unwrap()
    }
}

/// A member whose shortest lease lives a second.
async fn quick() -> Member {
    Member::start_with(|config| {
        config.heartbeat_interval = Duration::from_millis(10);
        config.election_timeout = Duration::from_millis(50);
    })
    .await
}

#[tokio::test]
async fn s2_headers_of_lease_answers() {
    let member = Member::start().await;
    full(grant(&member, 7, 60).await.header, 1);
    member.kv().put(put_with("a", 7)).await.unwrap();
    full(time_to_live(&member, 7).await.header, 2);
    full(KeepAlive::open(&member, 7).await.next().await.header, 2);
    let list = leases(&member)
        .lease_leases(pb::LeaseLeasesRequest {})
        .await;
    full(list.unwrap().into_inner().header, 2);
    // After the deletes.
    full(revoke(&member, 7).await.unwrap().into_inner().header, 3);
}

#[tokio::test]
async fn s6_grant_chooses_a_positive_id() {
    let member = Member::start().await;
    let (first, second) = (grant(&member, 0, 60).await, grant(&member, 0, 60).await);
    assert!(first.id > 0 && second.id > 0 && first.id != second.id);
    assert_eq!((first.ttl, first.error.as_str()), (60, ""));
}

#[tokio::test]
async fn s6_grant_accepts_any_id_once() {
    let member = Member::start().await;
    for id in [i64::MIN, -1, 1, i64::MAX] {
        assert_eq!(grant(&member, id, 60).await.id, id);
        let request = pb::LeaseGrantRequest { id, ttl: 60 };
        let again = leases(&member).lease_grant(request).await;
        refused(again, Code::FailedPrecondition, LEASE_EXISTS);
    }
    let mut ids: Vec<_> = leases(&member)
        .lease_leases(pb::LeaseLeasesRequest {})
        .await
        .unwrap()
        .into_inner()
        .leases
        .into_iter()
        .map(|lease| lease.id)
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, [i64::MIN, -1, 1, i64::MAX]);
    // A negative one is as good as any.
    member.kv().put(put_with("a", -1)).await.unwrap();
    assert_eq!(member.pair("a").await.unwrap().lease, -1);
    assert_eq!(keys_of(&member, -1).await, ["a"]);
    revoke(&member, -1).await.unwrap();
    assert!(member.pair("a").await.is_none());
}

#[tokio::test]
async fn s6_grant_raises_short_times_and_refuses_long_ones() {
    let member = Member::start().await;
    for (id, ttl, effective) in [
        (1, i64::MIN, 2),
        (2, -1, 2),
        (3, 0, 2),
        (4, 1, 2),
        (5, 2, 2),
        (6, 3, 3),
        (7, 9_000_000_000, 9_000_000_000),
    ] {
        assert_eq!(grant(&member, id, ttl).await.ttl, effective, "asked {ttl}");
    }
    for id in [0, 7, 8] {
        // Checked before the id.
        let request = pb::LeaseGrantRequest {
            id,
            ttl: 9_000_000_001,
        };
        let answer = leases(&member).lease_grant(request).await;
        refused(answer, Code::OutOfRange, TTL_TOO_LARGE);
    }
}

#[tokio::test]
async fn l1_the_least_time_follows_from_the_election_timeout() {
    assert_eq!(grant(&quick().await, 1, 0).await.ttl, 1);
}

#[tokio::test]
async fn s6_grant_costs_64_bytes_of_the_quota() {
    let member = Member::start_with(|config| config.quota_backend_bytes = 1).await;
    let request = pb::LeaseGrantRequest { id: 1, ttl: 60 };
    let answer = leases(&member).lease_grant(request).await;
    refused(answer, Code::ResourceExhausted, NO_SPACE);
    // The alarm is raised; what is left to do is not refused by it.
    refused(revoke(&member, 1).await, Code::NotFound, LEASE_NOT_FOUND);
    let mut keep_alive = KeepAlive::open(&member, 1).await;
    assert_eq!(keep_alive.next().await.ttl, 0);
}

#[tokio::test]
async fn s6_alarms_refuse_grants_and_corrupt_ones_revocations() {
    let member = Member::start().await;
    grant(&member, 1, 60).await;
    let alarm = |action, kind| pb::AlarmRequest {
        action: action as i32,
        member_id: 1,
        alarm: kind as i32,
    };
    use pb::AlarmType::{Corrupt, Nospace};
    use pb::alarm_request::AlarmAction::{Activate, Deactivate};
    let mut maintenance = MaintenanceClient::new(member.channel.clone());
    maintenance.alarm(alarm(Activate, Nospace)).await.unwrap();
    let request = pb::LeaseGrantRequest { id: 2, ttl: 60 };
    let answer = leases(&member).lease_grant(request).await;
    refused(answer, Code::ResourceExhausted, NO_SPACE);
    maintenance.alarm(alarm(Activate, Corrupt)).await.unwrap();
    let answer = leases(&member).lease_grant(request).await;
    refused(answer, Code::DataLoss, CORRUPT);
    refused(revoke(&member, 1).await, Code::DataLoss, CORRUPT);
    let mut keep_alive = KeepAlive::open(&member, 1).await;
    assert_eq!(keep_alive.next().await.ttl, 60);
    maintenance.alarm(alarm(Deactivate, Corrupt)).await.unwrap();
    revoke(&member, 1).await.unwrap();
}

#[tokio::test]
async fn s6_revoke_deletes_the_keys_in_one_revision() {
    let member = Member::start().await;
    grant(&member, 1, 60).await;
    for key in ["c", "a", "b"] {
        member.kv().put(put_with(key, 1)).await.unwrap();
    }
    member.put("d", "stays").await;
    full(revoke(&member, 1).await.unwrap().into_inner().header, 6);
    let answer = member.kv().range(range("a", "z")).await.unwrap();
    assert_eq!(keys(&answer.into_inner().kvs), ["d"]);
    refused(revoke(&member, 1).await, Code::NotFound, LEASE_NOT_FOUND);
    // Without keys there is no revision.
    grant(&member, 2, 60).await;
    full(revoke(&member, 2).await.unwrap().into_inner().header, 6);
}

/// Only a grant chooses another.
#[tokio::test]
async fn s6_no_lease_has_the_id_0() {
    let member = Member::start().await;
    grant(&member, 0, 60).await;
    refused(revoke(&member, 0).await, Code::NotFound, LEASE_NOT_FOUND);
    assert_eq!(KeepAlive::open(&member, 0).await.next().await.ttl, 0);
    let left = time_to_live(&member, 0).await;
    assert_eq!((left.id, left.ttl, left.granted_ttl), (0, -1, 0));
}

#[tokio::test]
async fn s6_revoke_deletes_in_the_order_of_keys() {
    let member = Member::start().await;
    grant(&member, 1, 60).await;
    for key in ["c", "a", "b"] {
        member.kv().put(put_with(key, 1)).await.unwrap();
    }
    let mut watch = Watch::open(&member, watch::keys("a", "z")).await;
    watch.created(0, 4).await;
    revoke(&member, 1).await.unwrap();
    assert_eq!(
        watch.events(0).await,
        ["DELETE a@5", "DELETE b@5", "DELETE c@5"]
    );
}

#[tokio::test]
async fn s6_keep_alive_of_an_unknown_lease_is_an_answer_and_not_the_end() {
    let member = Member::start().await;
    let mut stream = KeepAlive::open(&member, 9).await;
    let answer = stream.next().await;
    assert_eq!((answer.id, answer.ttl), (9, 0));
    full(answer.header, 1);
    grant(&member, 9, 60).await;
    stream.send(9).await;
    assert_eq!(stream.next().await.ttl, 60);
    // Nor is one that was revoked.
    revoke(&member, 9).await.unwrap();
    stream.send(9).await;
    assert_eq!(stream.next().await.ttl, 0);
}

#[tokio::test]
async fn s6_keep_alive_answers_in_order_until_the_client_closes_its_side() {
    let member = Member::start().await;
    for (id, ttl) in [(1, 60), (2, 70)] {
        grant(&member, id, ttl).await;
    }
    let mut stream = KeepAlive::open(&member, 1).await;
    for id in [2, 99, 1, 1, 2] {
        stream.send(id).await;
    }
    for (id, ttl) in [(1, 60), (2, 70), (99, 0), (1, 60), (1, 60), (2, 70)] {
        let answer = stream.next().await;
        assert_eq!((answer.id, answer.ttl), (id, ttl));
    }
    drop(stream.requests);
    assert!(stream.responses.message().await.unwrap().is_none());
}

#[tokio::test]
async fn s6_keep_alive_renews_for_the_granted_time() {
    let member = Member::start().await;
    grant(&member, 1, 9_000_000_000).await;
    let answer = KeepAlive::open(&member, 1).await.next().await;
    assert_eq!(answer.ttl, 9_000_000_000);
    let left = time_to_live(&member, 1).await.ttl;
    assert!((8_999_999_000..9_000_000_000).contains(&left), "{left}");
}

#[tokio::test]
async fn f6_keep_alives_are_answered_without_the_fast_way_too() {
    let slow = |config: &mut Config| config.features.set(Feature::FastLeaseKeepAlive, false);
    let member = Member::start_with(slow).await;
    grant(&member, 1, 60).await;
    let mut keep_alive = KeepAlive::open(&member, 1).await;
    assert_eq!(keep_alive.next().await.ttl, 60);
    let mut unknown = KeepAlive::open(&member, 2).await;
    assert_eq!(unknown.next().await.ttl, 0);
}

#[tokio::test]
async fn s6_time_to_live() {
    let member = Member::start().await;
    grant(&member, 1, 3600).await;
    for key in ["b", "a"] {
        member.kv().put(put_with(key, 1)).await.unwrap();
    }
    let answer = time_to_live(&member, 1).await;
    assert_eq!((answer.id, answer.granted_ttl), (1, 3600));
    assert!((3000..3600).contains(&answer.ttl), "{}", answer.ttl);
    assert_eq!(keys_of(&member, 1).await, ["a", "b"]);
    let request = pb::LeaseTimeToLiveRequest { id: 1, keys: false };
    let answer = leases(&member).lease_time_to_live(request).await.unwrap();
    assert!(answer.into_inner().keys.is_empty());
    // Unknown: an answer, not an error.
    let unknown = time_to_live(&member, 2).await;
    assert_eq!((unknown.id, unknown.ttl, unknown.granted_ttl), (2, -1, 0));
    full(unknown.header, 3);
}

#[tokio::test]
async fn s6_leases_are_listed_by_the_time_that_is_left() {
    let member = Member::start().await;
    for (id, ttl) in [(1, 300), (2, 100), (3, 200)] {
        grant(&member, id, ttl).await;
    }
    let list = async || {
        let request = pb::LeaseLeasesRequest {};
        let answer = leases(&member).lease_leases(request).await.unwrap();
        let leases = answer.into_inner().leases.into_iter();
        leases.map(|lease| lease.id).collect::<Vec<_>>()
    };
    assert_eq!(list().await, [2, 3, 1]);
    revoke(&member, 3).await.unwrap();
    assert_eq!(list().await, [2, 1]);
}

#[tokio::test]
async fn l5_a_put_names_a_lease_that_exists() {
    let member = Member::start().await;
    refused(
        member.kv().put(put_with("a", 1)).await,
        Code::NotFound,
        LEASE_NOT_FOUND,
    );
    assert!(member.pair("a").await.is_none());
    // Before the check that the key exists.
    let keep = pb::PutRequest {
        ignore_value: true,
        value: Bytes::new(),
        ..put_with("a", 1)
    };
    refused(member.kv().put(keep).await, Code::NotFound, LEASE_NOT_FOUND);
}

#[tokio::test]
async fn l5_the_newest_put_decides_which_lease_a_key_has() {
    let member = Member::start().await;
    for id in [1, 2] {
        grant(&member, id, 60).await;
    }
    let mut kv = member.kv();
    let both = async || (keys_of(&member, 1).await, keys_of(&member, 2).await);
    let (none, key) = (Vec::<String>::new(), vec!["k".to_owned()]);
    kv.put(put_with("k", 1)).await.unwrap();
    kv.put(put_with("k", 1)).await.unwrap();
    assert_eq!(both().await, (key.clone(), none.clone()));
    // Another lease takes it over.
    kv.put(put_with("k", 2)).await.unwrap();
    assert_eq!(both().await, (none.clone(), key.clone()));
    // It stays, if asked to.
    let keep = pb::PutRequest {
        ignore_lease: true,
        ..put("k", "other")
    };
    kv.put(keep).await.unwrap();
    assert_eq!(both().await, (none.clone(), key.clone()));
    assert_eq!(member.pair("k").await.unwrap().lease, 2);
    // No lease, none.
    kv.put(put("k", "v")).await.unwrap();
    assert_eq!(both().await, (none.clone(), none.clone()));
    // A key that was deleted has none either.
    kv.put(put_with("k", 1)).await.unwrap();
    kv.delete_range(delete("k", "")).await.unwrap();
    assert_eq!(both().await, (none.clone(), none.clone()));
    kv.put(put("k", "v")).await.unwrap();
    for id in [1, 2] {
        revoke(&member, id).await.unwrap();
    }
    assert!(member.pair("k").await.is_some());
}

#[tokio::test]
async fn l5_a_txn_needs_the_leases_of_the_branch_it_takes() {
    let member = Member::start().await;
    grant(&member, 1, 60).await;
    let op = |key: &str, lease| pb::RequestOp {
        request: Some(Request::RequestPut(put_with(key, lease))),
    };
    let txn = |success, failure| pb::TxnRequest {
        compare: vec![],
        success,
        failure,
    };
    let answer = member
        .kv()
        .txn(txn(vec![op("a", 1), op("b", 2)], vec![]))
        .await;
    refused(answer, Code::NotFound, LEASE_NOT_FOUND);
    assert!(member.pair("a").await.is_none());
    assert!(keys_of(&member, 1).await.is_empty());
    let answer = member
        .kv()
        .txn(txn(vec![op("a", 1)], vec![op("b", 2)]))
        .await;
    full(answer.unwrap().into_inner().header, 2);
    assert_eq!(keys_of(&member, 1).await, ["a"]);
}

#[tokio::test]
async fn l5_a_compare_reads_the_lease_of_a_key() {
    let member = Member::start().await;
    grant(&member, 1, 60).await;
    member.kv().put(put_with("a", 1)).await.unwrap();
    for (key, lease, holds) in [("a", 1, true), ("a", 0, false), ("b", 0, true)] {
        let compare = pb::Compare {
            result: CompareResult::Equal as i32,
            target: CompareTarget::Lease as i32,
            key: Bytes::from(key.to_owned()),
            range_end: Bytes::new(),
            target_union: Some(TargetUnion::Lease(lease)),
        };
        let txn = pb::TxnRequest {
            compare: vec![compare],
            ..Default::default()
        };
        let answer = member.kv().txn(txn).await.unwrap().into_inner();
        assert_eq!(answer.succeeded, holds, "lease of {key} is {lease}");
    }
}

#[tokio::test]
async fn l6_a_lease_that_nobody_renews_ends_with_its_keys_and_no_earlier() {
    let member = quick().await;
    let asked = Instant::now();
    grant(&member, 1, 1).await;
    grant(&member, 2, 60).await;
    member.kv().put(put_with("a", 1)).await.unwrap();
    member.kv().put(put_with("b", 2)).await.unwrap();
    while member.pair("a").await.is_some() {
        tokio::task::yield_now().await;
    }
    let lived = asked.elapsed();
    assert!(lived >= Duration::from_secs(1), "only {lived:?}");
    assert_eq!(time_to_live(&member, 1).await.ttl, -1);
    refused(revoke(&member, 1).await, Code::NotFound, LEASE_NOT_FOUND);
    refused(
        member.kv().put(put_with("c", 1)).await,
        Code::NotFound,
        LEASE_NOT_FOUND,
    );
    let pair = member.pair("b").await.unwrap();
    full(
        member
            .kv()
            .range(get("b"))
            .await
            .unwrap()
            .into_inner()
            .header,
        pair.mod_revision + 1,
    );
    assert_eq!(
        metric(&member, "etcd_debugging_server_lease_expired_total").await,
        1.0
    );
}

#[tokio::test]
async fn l3_a_keep_alive_never_revives_a_lease() {
    let member = quick().await;
    grant(&member, 1, 1).await;
    member.kv().put(put_with("a", 1)).await.unwrap();
    let mut stream = KeepAlive::open(&member, 1).await;
    assert_eq!(stream.next().await.ttl, 1);
    // Over for certain, whether it is revoked by now or waits for that.
    tokio::time::sleep(Duration::from_secs(1)).await;
    stream.send(1).await;
    assert_eq!(stream.next().await.ttl, 0);
    assert!(member.pair("a").await.is_none(), "the keys go first");
    assert_eq!(time_to_live(&member, 1).await.ttl, -1);
}

#[tokio::test]
async fn m5_metrics_of_leases() {
    let member = Member::start().await;
    for (id, ttl) in [(1, 60), (2, 600)] {
        grant(&member, id, ttl).await;
    }
    let mut stream = KeepAlive::open(&member, 1).await;
    stream.send(9).await;
    for _ in 0..2 {
        stream.next().await;
    }
    revoke(&member, 1).await.unwrap();
    for (series, value) in [
        ("etcd_debugging_lease_granted_total", 2.0),
        ("etcd_debugging_lease_revoked_total", 1.0),
        ("etcd_debugging_lease_renewed_total", 1.0),
        ("etcd_debugging_lease_ttl_total_count", 2.0),
        ("etcd_debugging_lease_ttl_total_sum", 660.0),
        ("etcd_debugging_lease_ttl_total_bucket{le=\"64\"}", 1.0),
        ("etcd_debugging_server_lease_expired_total", 0.0),
        (
            "etcd_server_apply_duration_seconds_count{op=\"LeaseGrant\",success=\"true\",version=\"v3\"}",
            2.0,
        ),
        (
            "etcd_server_request_duration_seconds_count{success=\"true\",type=\"LeaseRevoke\"}",
            1.0,
        ),
        (
            "grpc_server_msg_sent_total{grpc_method=\"LeaseKeepAlive\",grpc_service=\"etcdserverpb.Lease\",grpc_type=\"bidi_stream\"}",
            2.0,
        ),
        (
            "etcd_server_feature_enabled{name=\"LeaseCheckpoint\",stage=\"ALPHA\"}",
            0.0,
        ),
    ] {
        assert_eq!(metric(&member, series).await, value, "{series}");
    }
}

/// The value of a line of `/metrics`. The member's thread counts after it has answered: once it has
/// answered a put that came later, it has counted what was before.
async fn metric(member: &Member, series: &str) -> f64 {
    member.put("metric", "").await;
    let mut stream = tokio::net::TcpStream::connect(member.address())
        .await
        .unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text.lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
        .unwrap_or_else(|| panic!("no series {series} in:\n{text}"))
}
