//! Sections 2, 7 and 8: Cluster and Maintenance.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::etcdserverpb::alarm_request::AlarmAction;
use ferrite_api::pb::etcdserverpb::cluster_client::ClusterClient;
use ferrite_api::pb::etcdserverpb::maintenance_client::MaintenanceClient;
use ferrite_disk::{Disk, RealDisk};
use ferrite_server::config::AutoCompaction;
use ferrite_storage::etcd;
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::Channel;

use crate::alarms::{alarm, quota};
use crate::support::*;
use crate::txn::{delete_op, nested, put_op, then};

/// HashKV of everything there is.
pub(crate) const CURRENT_HASH: pb::HashKvRequest = pb::HashKvRequest { revision: 0 };

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

    pub(crate) async fn members(&self, linearizable: bool) -> pb::MemberListResponse {
        let request = pb::MemberListRequest { linearizable };
        let mut client = ClusterClient::new(self.channel.clone());
        client.member_list(request).await.unwrap().into_inner()
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

#[tokio::test]
async fn s2_headers_of_cluster_and_maintenance_answers() {
    let member = Member::start().await;
    member.put("a", "1").await;
    member.put("a", "2").await;
    // Membership has no revision.
    for linearizable in [false, true] {
        full(member.members(linearizable).await.header, 0);
    }
    let mut maintenance = member.maintenance();
    for action in [
        AlarmAction::Get,
        AlarmAction::Activate,
        AlarmAction::Deactivate,
    ] {
        let request = alarm(action, 7, pb::AlarmType::Nospace);
        let answer = maintenance.alarm(request).await.unwrap();
        full(answer.into_inner().header, 3);
    }
    full(member.status().await.header, 3);
    let hash = maintenance.hash(pb::HashRequest {}).await.unwrap();
    full(hash.into_inner().header, 3);
    // Not the revision that was asked for.
    let request = pb::HashKvRequest { revision: 2 };
    let hash = maintenance.hash_kv(request).await.unwrap();
    full(hash.into_inner().header, 3);
}

#[tokio::test]
async fn s8_snapshot() {
    let member = Member::start().await;
    for number in 0..40 {
        member.put(&format!("k{number}"), &"v".repeat(5000)).await;
    }
    member.delete("k0", "").await;
    let mut maintenance = member.maintenance();
    let answers = maintenance.snapshot(pb::SnapshotRequest {}).await.unwrap();
    let (mut answers, mut file) = (answers.into_inner(), Vec::new());
    let mut sizes = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        assert_eq!((answer.header, answer.version.as_str()), (None, "3.7.0"));
        assert!(answer.blob.len() <= 32 << 10);
        file.extend_from_slice(&answer.blob);
        sizes.push((answer.blob.len() as u64, answer.remaining_bytes));
    }
    // The checksum comes after what was announced.
    assert_eq!(sizes.pop(), Some((32, 0)));
    let mut left = file.len() as u64 - 32;
    assert!(left > 200_000 && left.is_multiple_of(512), "{left}");
    for (blob, remaining) in sizes {
        left -= blob;
        assert_eq!(remaining, left);
    }
    assert_eq!(left, 0);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("snapshot");
    std::fs::write(&path, &file).unwrap();
    let file = RealDisk.open(&path).unwrap();
    etcd::verify_checksum(file.as_ref(), &mut |_, _| {}).unwrap();
    let status = etcd::Database::open(file)
        .unwrap()
        .status(&mut |_, _| {})
        .unwrap();
    assert_eq!((status.revision, status.total_key), (42, 39));
}

#[tokio::test]
async fn s7_member_list() {
    let member = Member::start().await;
    for linearizable in [false, true] {
        let list = member.members(linearizable).await;
        let [only] = &list.members[..] else {
            panic!("{list:?}");
        };
        assert_eq!(only.id, list.header.unwrap().member_id);
        assert_eq!((only.name.as_str(), only.is_learner), ("default", false));
        assert_eq!(only.peer_ur_ls, ["http://localhost:2380"]);
        assert_eq!(only.client_ur_ls, ["http://localhost:2379"]);
    }
}

#[tokio::test]
async fn s8_status() {
    let member = Member::start().await;
    let before = member.status().await;
    member.put("a", "1").await;
    let status = member.status().await;
    let header = status.header.unwrap();
    assert_eq!(status.version, "3.7.1");
    assert_eq!(
        (status.leader, status.is_learner),
        (header.member_id, false)
    );
    assert_eq!(status.raft_index, before.raft_index + 1);
    assert_eq!(status.raft_applied_index, status.raft_index);
    assert_eq!(status.raft_term, header.raft_term);
    assert!(0 < status.db_size_in_use && status.db_size_in_use <= status.db_size);
    assert_eq!(status.db_size_quota, 2_147_483_648);
    assert_eq!(status.downgrade_info, Some(pb::DowngradeInfo::default()));
    assert_eq!(status.errors, Vec::<String>::new());
}

#[tokio::test]
async fn s8_status_knows_the_storage_version_once_the_cluster_has_one() {
    let member = Member::start().await;
    let known = async {
        loop {
            let version = member.status().await.storage_version;
            if !version.is_empty() {
                return version;
            }
            tokio::task::yield_now().await;
        }
    };
    let version = timeout(Duration::from_secs(60), known).await.unwrap();
    assert_eq!(version, "3.7.0");
}

#[tokio::test]
async fn s8_status_shows_the_quota_and_every_alarm() {
    let member = Member::start_with(quota(-1)).await;
    for kind in [pb::AlarmType::Corrupt, pb::AlarmType::Nospace] {
        member.alarm(alarm(AlarmAction::Activate, 7, kind)).await;
    }
    let mut status = member.status().await;
    status.errors.sort_unstable();
    assert_eq!(
        status.errors,
        ["memberID:7 alarm:CORRUPT", "memberID:7 alarm:NOSPACE"]
    );
    assert_eq!(status.db_size_quota, -1);
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
    let txn = then(vec![
        put_op("c", "1"),
        put_op("d", "2"),
        delete_op("a", ""),
        nested(then(vec![put_op("e", "3")])),
    ]);
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

/// A transaction may not delete and put one key, but ranges without an end are not compared with its puts.
/// etcd's index then overlooks the key, and where it finds nothing else, its hash has more rows. The
/// golden value is etcd 3.7.1's.
#[tokio::test]
async fn s8_hash_kv_of_a_revision_that_deletes_everything_and_puts_a_key_again() {
    let member = Member::start().await;
    member.put("0", "").await;
    member.put("b", "x").await;
    member.put("a", "y").await;
    member.delete("b", "").await;
    member.compact(5).await;
    member.put("c", "y").await;
    let again = then(vec![delete_op("\0", "\0"), put_op("c", "c")]);
    member.kv().txn(again).await.unwrap();
    let request = pb::HashKvRequest { revision: 0 };
    let answer = member.maintenance().hash_kv(request).await.unwrap();
    assert_eq!(answer.into_inner().hash, 2_916_157_482);
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

/// Reads and writes go on, and watchers miss nothing; what etcd stops for.
#[tokio::test(flavor = "multi_thread")]
async fn s8_defragment_gives_space_back_while_everything_goes_on() {
    let member = Member::start().await;
    let value = "v".repeat(8 << 10);
    for n in 0..3_000 {
        member.put(&format!("k{n:04}"), &value).await;
    }
    member.delete("k0100", "l").await;
    member.compact(member.put("last", "1").await).await;
    // The hash of the compaction itself is forgotten by a restart.
    let revision = member.put("last", "2").await;
    let hash = |member: &Member| {
        let mut client = member.maintenance();
        async move {
            let request = pb::HashKvRequest { revision };
            client.hash_kv(request).await.unwrap().into_inner().hash
        }
    };
    let status = |member: &Member| {
        let mut client = member.maintenance();
        async move {
            client
                .status(pb::StatusRequest {})
                .await
                .unwrap()
                .into_inner()
        }
    };
    let (before, hashed) = (status(&member).await, hash(&member).await);
    assert!(before.db_size > 2 * before.db_size_in_use, "{before:?}");

    let mut maintenance = member.maintenance();
    let defragment =
        tokio::spawn(async move { maintenance.defragment(pb::DefragmentRequest {}).await });
    let mut written = 0;
    while !defragment.is_finished() || written < 100 {
        written += 1;
        member.put(&format!("w{written:06}"), "while").await;
        assert!(member.pair("k0099").await.is_some());
    }
    let answer = defragment.await.unwrap().unwrap().into_inner();
    assert_eq!(answer, pb::DefragmentResponse { header: None });

    let after = status(&member).await;
    assert!(after.db_size < before.db_size / 2, "{before:?} {after:?}");
    assert_eq!(hash(&member).await, hashed);
    // What is in the file now, and in the log, is everything.
    let member = member.restart(|_| {}).await;
    assert_eq!(hash(&member).await, hashed);
    for n in 1..=written {
        assert!(member.pair(&format!("w{n:06}")).await.is_some(), "{n}");
    }
    assert_eq!(member.pair("last").await.unwrap().mod_revision, revision);
}
