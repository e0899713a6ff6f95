//! Section 8: Maintenance.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::etcdserverpb::maintenance_client::MaintenanceClient;
use ferrite_api::pb::etcdserverpb::request_op::Request;
use ferrite_server::config::AutoCompaction;
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::Channel;

use crate::support::*;

impl Member {
    pub(crate) fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel.clone())
    }

    pub(crate) async fn delete(&self, key: &str, end: &str) {
        self.kv().delete_range(delete(key, end)).await.unwrap();
    }

    /// Compacts and waits until the rows are gone.
    pub(crate) async fn compact(&self, revision: i64) {
        let request = pb::CompactionRequest {
            revision,
            physical: true,
        };
        self.kv().compact(request).await.unwrap();
    }

    /// HashKV at every revision there is, and one more on both sides.
    async fn hashes(&self, when: &str, out: &mut String) {
        let now = self.kv().range(get("x")).await.unwrap().into_inner();
        for at in -1..=now.header.unwrap().revision + 1 {
            let request = pb::HashKvRequest { revision: at };
            let line = match self.maintenance().hash_kv(request).await {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    let revision = answer.header.unwrap().revision;
                    let (hash, compact) = (answer.hash, answer.compact_revision);
                    format!("{hash} {compact} {} {revision}", answer.hash_revision)
                }
                Err(status) => {
                    assert_eq!(status.code(), Code::OutOfRange);
                    match status.message() {
                        COMPACTED => "compacted".to_owned(),
                        FUTURE => "future".to_owned(),
                        other => panic!("{other}"),
                    }
                }
            };
            writeln!(out, "{when} {at} {line}").unwrap();
        }
    }
}

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(request),
    }
}

/// `hashkv.txt` is what etcd 3.7.1 answered to the same requests: when, the revision asked for, then
/// hash, `compact_revision`, `hash_revision` and the header's revision, or the error.
#[tokio::test]
async fn s8_hash_kv_is_etcds_at_every_revision_of_a_history() {
    let member = Member::start().await;
    let mut out = String::new();
    member.hashes("fresh", &mut out).await;
    for i in 0..6 {
        let (key, value) = (format!("k{}", i % 3), format!("value {i}"));
        member.put(&key, &value).await;
    }
    member.hashes("puts", &mut out).await;
    member.delete("k1", "").await;
    member.delete("missing", "").await;
    member.put("k1", "again").await;
    member.delete("k", "l").await;
    member.hashes("deleted", &mut out).await;
    member.compact(8).await;
    member.hashes("compact at a tombstone", &mut out).await;
    member.compact(10).await;
    member
        .hashes("compact at the deletion of all", &mut out)
        .await;
    member.put("a", &"x".repeat(5000)).await;
    member.put("b", "").await;
    let nested = pb::TxnRequest {
        success: vec![op(Request::RequestPut(put("e", "3")))],
        ..Default::default()
    };
    let txn = pb::TxnRequest {
        success: vec![
            op(Request::RequestPut(put("c", "1"))),
            op(Request::RequestPut(put("d", "2"))),
            op(Request::RequestDeleteRange(delete("a", ""))),
            op(Request::RequestTxn(nested)),
        ],
        ..Default::default()
    };
    member.kv().txn(txn).await.unwrap();
    member.hashes("txn", &mut out).await;
    member.compact(12).await;
    member.hashes("compact below the deletion", &mut out).await;
    let all = pb::DeleteRangeRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        ..Default::default()
    };
    member.kv().delete_range(all).await.unwrap();
    member.put("f", "1").await;
    member.put("f", "2").await;
    member.delete("f", "").await;
    member.hashes("nothing left", &mut out).await;
    member.compact(15).await;
    member
        .hashes("compacted while nothing is left", &mut out)
        .await;
    member.compact(17).await;
    member
        .hashes("compacted at the last tombstone", &mut out)
        .await;
    for i in 0..15 {
        let revision = member.put("many", &i.to_string()).await;
        member.compact(revision).await;
    }
    member.hashes("many compactions", &mut out).await;
    let golden = include_str!("hashkv.txt");
    for (ours, etcds) in out.lines().zip(golden.lines()) {
        assert_eq!(ours, etcds);
    }
    assert_eq!(out.len(), golden.len());
}

#[tokio::test]
async fn s8_hash_follows_the_state() {
    let member = Member::start().await;
    let hash = async || {
        let request = pb::HashRequest {};
        member
            .maintenance()
            .hash(request)
            .await
            .unwrap()
            .into_inner()
    };
    let fresh = hash().await;
    full(fresh.header, 1);
    assert_eq!(fresh, hash().await);
    member.put("a", "1").await;
    let written = hash().await;
    full(written.header, 2);
    assert_ne!(written.hash, fresh.hash);
    let raise = pb::AlarmRequest {
        action: pb::alarm_request::AlarmAction::Activate as i32,
        member_id: 7,
        alarm: pb::AlarmType::Nospace as i32,
    };
    member.maintenance().alarm(raise).await.unwrap();
    let alarmed = hash().await;
    assert_ne!(alarmed.hash, written.hash);
}

#[tokio::test]
async fn automatic_compaction_forgets_what_is_older_than_the_retention() {
    let retention = Duration::from_millis(20);
    let member = Member::start_with(|config| {
        config.auto_compaction = Some(AutoCompaction::Periodic(retention));
    })
    .await;
    let first = member.put("a", "0").await;
    let forgotten = async {
        loop {
            member.put("a", "1").await;
            let old = pb::RangeRequest {
                revision: first,
                ..get("a")
            };
            if let Err(status) = member.kv().range(old).await {
                return status;
            }
        }
    };
    let status = timeout(Duration::from_secs(60), forgotten).await.unwrap();
    refused::<()>(Err(status), Code::OutOfRange, COMPACTED);
}
