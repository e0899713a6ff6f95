//! Sections 1 and 3, and section 5 of spec errors.md (`e5_…`): what is the same for many RPCs.

use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::etcdserverpb::compare::CompareResult;
use ferrite_api::pb::health::health_client::HealthClient;
use ferrite_api::pb::health::{HealthCheckRequest, HealthListRequest};
use prost::Message;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use crate::alarms::alarm;
use crate::lease::{grant, leases};
use crate::maintenance::CURRENT_HASH;
use crate::support::*;
use crate::txn::{delete_op, get_op, nested, put_op, then, value, version};

const API_VERSION: &str = "etcdserver: invalid client api version";

impl Member {
    /// Sends a Put to any path; what comes back is of no interest but for its status.
    async fn call(&self, path: &'static str, request: Request<pb::PutRequest>) -> Answer<()> {
        let mut client = Grpc::new(self.channel.clone());
        client.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static(path);
        let codec = ProstCodec::<_, ()>::default();
        client.unary(request, path, codec).await
    }

    /// A Put that would be refused for its key, if it came that far.
    fn keyless(header: &'static str, text: &[u8]) -> Request<pb::PutRequest> {
        let mut request = Request::new(put("", ""));
        let text = MetadataValue::try_from(text).unwrap();
        request.metadata_mut().insert(header, text);
        request
    }
}

#[tokio::test]
async fn s1_1_1_messages_are_bounded() {
    let member = Member::start().await;
    let sized = |length: usize| {
        let around = put("k", &"v".repeat(1 << 20)).encoded_len() - (1 << 20);
        let request = put("k", &"v".repeat(length - around));
        assert_eq!(request.encoded_len(), length);
        request
    };
    let answer = member.kv().put(sized(2_097_153)).await;
    let text = "grpc: received message larger than max (2097153 vs. 2097152)";
    refused(answer, Code::ResourceExhausted, text);
    // The longest message is received, and then it is too long for the log.
    let answer = member.kv().put(sized(2_097_152)).await;
    refused(answer, Code::InvalidArgument, TOO_LARGE);
}

#[tokio::test]
async fn s1_1_1_messages_are_decodable_and_their_strings_utf8() {
    let member = Member::start().await;
    // The same field, once as bytes and once as the string that it is.
    let name = |bytes: &'static [u8]| {
        Request::new(pb::PutRequest {
            key: bytes.into(),
            ..Default::default()
        })
    };
    let check = "/grpc.health.v1.Health/Check";
    let answer = member.call(check, name(b"etcd")).await;
    refused(answer, Code::NotFound, "unknown service");
    let status = member.call(check, name(b"etcd\xff")).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    let text = "grpc: error unmarshalling request: ";
    assert!(status.message().starts_with(text), "{status:?}");
}

#[tokio::test]
async fn s1_1_4_the_version_of_a_client_is_utf8() {
    let member = Member::start().await;
    let version = |text: &[u8]| Member::keyless("client-api-version", text);
    let answer = member.kv().put(version(b"3.\xff")).await;
    refused(answer, Code::InvalidArgument, API_VERSION);
    for any in [&b"3.7"[..], b"", "ü".as_bytes()] {
        let answer = member.kv().put(version(any)).await;
        refused(answer, Code::InvalidArgument, EMPTY_KEY);
    }
}

#[tokio::test]
async fn s1_1_5_a_client_that_insists_on_a_leader_is_served_while_there_is_one() {
    let member = Member::start().await;
    for any in ["true", "false", "TRUE"] {
        let answer = member
            .kv()
            .put(Member::keyless("hasleader", any.as_bytes()))
            .await;
        refused(answer, Code::InvalidArgument, EMPTY_KEY);
    }
}

#[tokio::test]
async fn s1_2_3_the_size_is_checked_after_the_request_and_only_on_the_way_to_the_log() {
    let member = Member::start_with(|config| config.max_request_bytes = 1000).await;
    let long = "k".repeat(1000);
    let mut kv = member.kv();
    let invalid = Code::InvalidArgument;
    refused(kv.put(put("", &long)).await, invalid, EMPTY_KEY);
    refused(kv.put(put("k", &long)).await, invalid, TOO_LARGE);
    refused(kv.put(put(&long, "")).await, invalid, TOO_LARGE);
    let answer = kv.delete_range(delete(&long, "")).await;
    refused(answer, invalid, TOO_LARGE);
    let answer = kv.txn(then(vec![delete_op(&long, "")])).await;
    refused(answer, invalid, TOO_LARGE);
    // A nested Txn writes, whatever is in it.
    let reads = then(vec![get_op(&long)]);
    let answer = kv.txn(then(vec![nested(reads.clone())])).await;
    refused(answer, invalid, TOO_LARGE);
    kv.range(get(&long)).await.unwrap();
    kv.txn(reads).await.unwrap();
    let compare = pb::TxnRequest {
        compare: vec![version(&long, CompareResult::Equal, 0)],
        ..Default::default()
    };
    assert!(kv.txn(compare).await.unwrap().into_inner().succeeded);
}

#[tokio::test]
async fn s1_5_a_key_is_bounded_by_the_request_only_and_a_value_may_be_empty() {
    let member = Member::start().await;
    let long = "k".repeat(1_500_000);
    member.put(&long, "").await;
    let pair = member.pair(&long).await.unwrap();
    assert_eq!((pair.key.len(), pair.value.len()), (1_500_000, 0));
}

#[tokio::test]
async fn s1_5_max_txn_ops_is_an_option() {
    let member = Member::start_with(|config| config.max_txn_ops = 2).await;
    let two = vec![get_op("a"), get_op("b")];
    member.kv().txn(then(two.clone())).await.unwrap();
    let three = [two, vec![get_op("c")]].concat();
    let answer = member.kv().txn(then(three)).await;
    refused(answer, Code::InvalidArgument, TOO_MANY_OPS);
    // One for the outer level, one for the inner.
    let inner = then(vec![get_op("a")]);
    member.kv().txn(then(vec![nested(inner)])).await.unwrap();
}

/// What goes through the log moves its index, and nothing else does.
#[tokio::test]
async fn s3_what_goes_through_the_log() {
    let member = Member::start().await;
    let (mut kv, mut maintenance) = (member.kv(), member.maintenance());
    let mut lease = leases(&member);
    let mut last = member.status().await.raft_index;
    let mut moved = async |expected: bool, what: &str| {
        let index = member.status().await.raft_index;
        assert_eq!(index - last, u64::from(expected), "{what}");
        last = index;
    };
    kv.put(put("a", "1")).await.unwrap();
    moved(true, "Put").await;
    kv.delete_range(delete("none", "")).await.unwrap();
    moved(true, "DeleteRange without a match").await;
    kv.txn(then(vec![put_op("a", "2")])).await.unwrap();
    moved(true, "Txn").await;
    let reads = then(vec![get_op("a")]);
    kv.txn(then(vec![nested(reads.clone())])).await.unwrap();
    moved(true, "Txn with a nested one that only reads").await;
    grant(&member, 1, 60).await;
    moved(true, "LeaseGrant").await;
    let compaction = pb::CompactionRequest {
        revision: 2,
        physical: true,
    };
    kv.compact(compaction).await.unwrap();
    moved(true, "Compact").await;
    kv.compact(compaction).await.unwrap_err();
    moved(true, "a Compact that fails").await;
    let all = alarm(pb::alarm_request::AlarmAction::Get, 0, pb::AlarmType::None);
    maintenance.alarm(all).await.unwrap();
    moved(true, "Alarm GET").await;

    kv.range(get("a")).await.unwrap();
    moved(false, "Range").await;
    let mut stream = kv.range_stream(get("a")).await.unwrap().into_inner();
    while stream.message().await.unwrap().is_some() {}
    moved(false, "RangeStream").await;
    kv.txn(reads).await.unwrap();
    moved(false, "Txn that only reads").await;
    let compare = pb::TxnRequest {
        compare: vec![value("a", CompareResult::Equal, "2")],
        ..Default::default()
    };
    assert!(kv.txn(compare).await.unwrap().into_inner().succeeded);
    moved(false, "Txn that only compares").await;
    let alive = tokio_stream::once(pb::LeaseKeepAliveRequest { id: 1 });
    let mut alive = lease.lease_keep_alive(alive).await.unwrap().into_inner();
    assert_eq!(alive.message().await.unwrap().unwrap().ttl, 60);
    moved(false, "LeaseKeepAlive").await;
    let lookup = pb::LeaseTimeToLiveRequest { id: 1, keys: true };
    lease.lease_time_to_live(lookup).await.unwrap();
    moved(false, "LeaseTimeToLive").await;
    lease.lease_leases(pb::LeaseLeasesRequest {}).await.unwrap();
    moved(false, "LeaseLeases").await;
    maintenance.hash_kv(CURRENT_HASH).await.unwrap();
    maintenance.hash(pb::HashRequest {}).await.unwrap();
    moved(false, "HashKV, Hash").await;
    member.members(true).await;
    moved(false, "MemberList").await;

    let revoke = pb::LeaseRevokeRequest { id: 1 };
    lease.lease_revoke(revoke).await.unwrap();
    moved(true, "LeaseRevoke").await;
}

#[tokio::test]
async fn e5_compressions_that_are_not_there() {
    let member = Member::start().await;
    let mut request = Request::new(put("a", "1"));
    let zstd = MetadataValue::from_static("zstd");
    request.metadata_mut().insert("grpc-encoding", zstd);
    let text = "grpc: Decompressor is not installed for grpc-encoding \"zstd\"";
    let answer = member.call("/etcdserverpb.KV/Put", request).await;
    refused(answer, Code::Unimplemented, text);
}

#[tokio::test]
async fn e5_health_knows_the_empty_name_only() {
    let member = Member::start().await;
    let mut client = HealthClient::new(member.channel.clone());
    let named = |service: &str| HealthCheckRequest {
        service: service.to_owned(),
    };
    let (serving, unknown) = (1, 3);
    let answer = client.check(named("")).await.unwrap().into_inner();
    assert_eq!(answer.status, serving);
    let answer = client.check(named("etcdserverpb.KV")).await;
    refused(answer, Code::NotFound, "unknown service");
    let list = client.list(HealthListRequest {}).await.unwrap();
    let list: Vec<_> = list.into_inner().statuses.into_iter().collect();
    assert_eq!(list.len(), 1);
    assert_eq!((list[0].0.as_str(), list[0].1.status), ("", serving));
    let mut streams = Vec::new();
    for (name, status) in [("", serving), ("etcdserverpb.KV", unknown)] {
        let mut stream = client.watch(named(name)).await.unwrap().into_inner();
        let first = stream.message().await.unwrap().unwrap();
        assert_eq!(first.status, status);
        streams.push(stream);
    }
    let _stopped = member.stop().await;
    for mut stream in streams {
        let end = stream.message().await.unwrap_err();
        refused::<()>(Err(end), Code::Cancelled, "Stream has ended.");
    }
}
