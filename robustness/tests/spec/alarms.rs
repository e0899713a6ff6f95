//! Sections 1.2 and 8, section 4.4 of spec errors.md (`e4_4`) and section 5 of spec cluster.md: the
//! space quota and the alarms.

use std::time::Duration;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::etcdserverpb::alarm_request::AlarmAction;
use ferrite_api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use ferrite_api::pb::etcdserverpb::request_op::Request;
use ferrite_server::config::Config;
use tokio::time::timeout;
use tonic::Code;

use crate::lease::{self, leases};
use crate::support::*;

pub(crate) fn alarm(action: AlarmAction, member_id: u64, alarm: pb::AlarmType) -> pb::AlarmRequest {
    pb::AlarmRequest {
        action: action as i32,
        member_id,
        alarm: alarm as i32,
    }
}

/// A Txn with these operations if `k` exists, which it never does, and nothing otherwise.
fn txn(success: Vec<Request>) -> pb::TxnRequest {
    let exists = pb::Compare {
        result: CompareResult::Greater as i32,
        target: CompareTarget::Version as i32,
        key: Bytes::from_static(b"k"),
        target_union: Some(TargetUnion::Version(0)),
        ..Default::default()
    };
    let op = |request| pb::RequestOp {
        request: Some(request),
    };
    pb::TxnRequest {
        compare: vec![exists],
        success: success.into_iter().map(op).collect(),
        failure: vec![],
    }
}

impl Member {
    pub(crate) async fn alarm(&self, request: pb::AlarmRequest) -> Vec<pb::AlarmMember> {
        let answer = self.maintenance().alarm(request).await.unwrap();
        answer.into_inner().alarms
    }

    /// The active alarms, as Alarm GET and Status tell.
    async fn alarms(&self) -> Vec<pb::AlarmMember> {
        let alarms = self
            .alarm(alarm(AlarmAction::Get, 0, pb::AlarmType::None))
            .await;
        assert_eq!(self.status().await.errors.len(), alarms.len());
        alarms
    }

    pub(crate) async fn status(&self) -> pb::StatusResponse {
        let request = pb::StatusRequest {};
        let answer = self.maintenance().status(request).await.unwrap();
        answer.into_inner()
    }

    fn compaction(revision: i64) -> pb::CompactionRequest {
        pb::CompactionRequest {
            revision,
            physical: false,
        }
    }

    async fn id(&self) -> u64 {
        self.status().await.header.unwrap().member_id
    }

    /// Puts large values until one is refused.
    async fn fill(&self) {
        let value = "x".repeat(1 << 20);
        let filled = async {
            loop {
                let answer = self.kv().put(put("fill", &value)).await;
                if answer.is_err() {
                    return refused(answer, Code::ResourceExhausted, NO_SPACE);
                }
            }
        };
        timeout(Duration::from_secs(60), filled).await.unwrap();
    }
}

pub(crate) fn quota(bytes: i64) -> impl Fn(&mut Config) {
    move |config| config.quota_backend_bytes = bytes
}

/// Full, alarm, what is refused and what is not, disarm while still full, compaction, room, disarm,
/// write.
#[tokio::test]
async fn e4_4_a_full_store_alarms_until_there_is_room_and_somebody_disarms_it() {
    let member = Member::start_with(quota(8 << 20)).await;
    member.fill().await;
    let id = member.id().await;
    let nospace = pb::AlarmMember {
        member_id: id,
        alarm: pb::AlarmType::Nospace as i32,
    };
    assert_eq!(member.alarms().await, [nospace]);

    // Before the check of the key, even.
    for request in [put("k", "v"), put("", "")] {
        let answer = member.kv().put(request).await;
        refused(answer, Code::ResourceExhausted, NO_SPACE);
    }
    // The branch that is not taken counts.
    let puts = txn(vec![Request::RequestPut(put("k", "v"))]);
    let answer = member.kv().txn(puts).await;
    refused(answer, Code::ResourceExhausted, NO_SPACE);
    let grant = pb::LeaseGrantRequest { ttl: 60, id: 1 };
    let answer = leases(&member).lease_grant(grant).await;
    refused(answer, Code::ResourceExhausted, NO_SPACE);
    let deletes = txn(vec![Request::RequestDeleteRange(delete("k", ""))]);
    member.kv().txn(deletes).await.unwrap();
    member.kv().range(get("fill")).await.unwrap();

    // Disarmed without room it comes back with the next put.
    let disarm = alarm(AlarmAction::Deactivate, id, pb::AlarmType::Nospace);
    assert_eq!(member.alarm(disarm).await, [nospace]);
    assert_eq!(member.alarm(disarm).await, []);
    assert_eq!(member.alarms().await, []);
    refused(
        member.kv().put(put("k", "v")).await,
        Code::ResourceExhausted,
        NO_SPACE,
    );
    assert_eq!(member.alarms().await, [nospace]);

    member.delete("fill", "").await;
    let revision = member.kv().range(get("x")).await.unwrap().into_inner();
    member.compact(revision.header.unwrap().revision).await;
    // Compaction frees pages inside the file, which is not smaller for it.
    member.alarm(disarm).await;
    let answer = member.kv().put(put("k", "v")).await;
    refused(answer, Code::ResourceExhausted, NO_SPACE);

    // Room alone does not help as long as the alarm is there.
    let member = member.restart(quota(1 << 30)).await;
    let answer = member.kv().put(put("k", "v")).await;
    refused(answer, Code::ResourceExhausted, NO_SPACE);
    assert_eq!(member.alarm(disarm).await, [nospace]);
    member.put("k", "v").await;
    assert_eq!(member.alarms().await, []);
}

#[tokio::test]
async fn s1_2_a_nospace_alarm_of_any_member_stops_puts_also_after_a_restart() {
    let mut member = Member::start_with(quota(-1)).await;
    let raised = pb::AlarmMember {
        member_id: 7,
        alarm: pb::AlarmType::Nospace as i32,
    };
    let raise = alarm(AlarmAction::Activate, 7, pb::AlarmType::Nospace);
    // Raising it again changes nothing, and neither does the type NONE.
    for _ in 0..2 {
        assert_eq!(member.alarm(raise).await, [raised]);
    }
    let none = alarm(AlarmAction::Activate, 7, pb::AlarmType::None);
    assert_eq!(member.alarm(none).await, []);
    // Repeats count, and the counting begins with the process.
    let series = "etcd_debugging_server_alarms{alarm_type=\"NOSPACE\",server_id=\"7\"} 2";
    assert!(member.metrics().await.iter().any(|line| line == series));
    for restarted in [false, true] {
        if restarted {
            member = member.restart(quota(-1)).await;
        }
        let answer = member.kv().put(put("k", "v")).await;
        refused(answer, Code::ResourceExhausted, NO_SPACE);
        assert_eq!(member.alarms().await, [raised]);
    }
    assert_eq!(member.status().await.errors, ["memberID:7 alarm:NOSPACE"]);
}

#[tokio::test]
async fn s1_2_a_corrupt_alarm_refuses_every_write_and_no_read() {
    let member = Member::start().await;
    member.put("a", "1").await;
    let raise = alarm(AlarmAction::Activate, 7, pb::AlarmType::Corrupt);
    member.alarm(raise).await;
    // NOSPACE comes second.
    member
        .alarm(alarm(AlarmAction::Activate, 7, pb::AlarmType::Nospace))
        .await;
    let mut kv = member.kv();
    refused(kv.put(put("k", "v")).await, Code::DataLoss, CORRUPT);
    refused(
        kv.delete_range(delete("k", "")).await,
        Code::DataLoss,
        CORRUPT,
    );
    let deletes = txn(vec![Request::RequestDeleteRange(delete("k", ""))]);
    refused(kv.txn(deletes).await, Code::DataLoss, CORRUPT);
    refused(
        kv.compact(Member::compaction(1)).await,
        Code::DataLoss,
        CORRUPT,
    );
    let mut lease = leases(&member);
    let grant = pb::LeaseGrantRequest { ttl: 60, id: 1 };
    refused(lease.lease_grant(grant).await, Code::DataLoss, CORRUPT);
    let revoke = pb::LeaseRevokeRequest { id: 1 };
    refused(lease.lease_revoke(revoke).await, Code::DataLoss, CORRUPT);

    let answer = kv.range(get("a")).await.unwrap().into_inner();
    assert_eq!(answer.count, 1);
    let reads = txn(vec![Request::RequestRange(get("a"))]);
    kv.txn(reads).await.unwrap();
    member
        .maintenance()
        .hash_kv(pb::HashKvRequest { revision: 0 })
        .await
        .unwrap();
    assert_eq!(member.alarms().await.len(), 2);
    for kind in [pb::AlarmType::Nospace, pb::AlarmType::Corrupt] {
        member.alarm(alarm(AlarmAction::Deactivate, 7, kind)).await;
    }
    member.put("a", "2").await;
}

/// The second look, after apply: a batch that passed the first one fills the store.
#[tokio::test]
async fn e4_4_a_put_that_finds_the_store_full_while_applying_raises_the_alarm() {
    let member = Member::start_with(quota(8 << 20)).await;
    let value = "x".repeat(1 << 20);
    let mut puts = Vec::new();
    for _ in 0..64 {
        let (mut kv, request) = (member.kv(), put("fill", &value));
        puts.push(tokio::spawn(async move { kv.put(request).await }));
    }
    let mut revision = 1;
    for put in puts {
        match put.await.unwrap() {
            Ok(_) => revision += 1,
            answer => refused(answer, Code::ResourceExhausted, NO_SPACE),
        }
    }
    // Some of the refused ones were applied all the same, others were not.
    let answer = member.kv().range(get("fill")).await.unwrap().into_inner();
    assert!((revision..=65).contains(&answer.header.unwrap().revision));
    member.fill().await;
    assert_eq!(member.alarms().await.len(), 1);
}

#[tokio::test]
async fn s8_alarm_get_asks_for_a_type_and_never_for_a_member() {
    use pb::AlarmType::{Corrupt, Nospace};
    let member = Member::start().await;
    let alarms = [(7, Nospace), (8, Nospace), (7, Corrupt)];
    for (id, kind) in alarms {
        member.alarm(alarm(AlarmAction::Activate, id, kind)).await;
    }
    for (asked, expected) in [
        (pb::AlarmType::None, &alarms[..]),
        (Nospace, &alarms[..2]),
        (Corrupt, &alarms[2..]),
    ] {
        for id in [0, 7, 99] {
            let found = member.alarm(alarm(AlarmAction::Get, id, asked)).await;
            assert_eq!(found.len(), expected.len(), "{asked:?} of {id}");
            for (member_id, kind) in expected {
                let wanted = pb::AlarmMember {
                    member_id: *member_id,
                    alarm: *kind as i32,
                };
                assert!(found.contains(&wanted), "{asked:?} of {id}: {found:?}");
            }
        }
    }
}

#[tokio::test]
async fn s8_alarm_deactivate_knows_no_wildcard() {
    let member = Member::start().await;
    let nospace = |action, id| alarm(action, id, pb::AlarmType::Nospace);
    let raised = member.alarm(nospace(AlarmAction::Activate, 7)).await;
    assert_eq!(raised.len(), 1);
    for wrong in [
        nospace(AlarmAction::Deactivate, 0),
        nospace(AlarmAction::Deactivate, 8),
        alarm(AlarmAction::Deactivate, 7, pb::AlarmType::None),
        alarm(AlarmAction::Deactivate, 7, pb::AlarmType::Corrupt),
    ] {
        assert_eq!(member.alarm(wrong).await, [], "{wrong:?}");
        assert_eq!(member.alarms().await, raised);
    }
    let right = nospace(AlarmAction::Deactivate, 7);
    assert_eq!(member.alarm(right).await, raised);
    assert_eq!(member.alarms().await, []);
}

#[tokio::test]
async fn s1_2_5_a_nospace_alarm_refuses_txns_that_put_and_lets_the_rest_pass() {
    let member = Member::start_with(quota(-1)).await;
    member.put("a", "1").await;
    lease::grant(&member, 1, 60).await;
    let raise = alarm(AlarmAction::Activate, 7, pb::AlarmType::Nospace);
    member.alarm(raise).await;
    let put_op = Request::RequestPut(put("k", "v"));
    let nested = Request::RequestTxn(txn(vec![put_op.clone()]));
    for costly in [put_op, nested] {
        let answer = member.kv().txn(txn(vec![costly])).await;
        refused(answer, Code::ResourceExhausted, NO_SPACE);
    }
    let free = txn(vec![Request::RequestDeleteRange(delete("k", ""))]);
    member.kv().txn(free).await.unwrap();
    member.delete("a", "").await;
    member.compact(3).await;
    let revoke = pb::LeaseRevokeRequest { id: 1 };
    leases(&member).lease_revoke(revoke).await.unwrap();
}

#[tokio::test]
async fn s1_2_5_alarms_are_seen_before_what_the_request_would_find() {
    let member = Member::start_with(quota(-1)).await;
    let raise = |kind| alarm(AlarmAction::Activate, 7, kind);
    member.alarm(raise(pb::AlarmType::Nospace)).await;
    let unknown_lease = pb::PutRequest {
        lease: 99,
        ..put("k", "v")
    };
    let too_long = pb::LeaseGrantRequest {
        id: 1,
        ttl: i64::MAX,
    };
    let (mut kv, mut lease) = (member.kv(), leases(&member));
    let full = Code::ResourceExhausted;
    refused(kv.put(unknown_lease.clone()).await, full, NO_SPACE);
    refused(lease.lease_grant(too_long).await, full, NO_SPACE);
    member.alarm(raise(pb::AlarmType::Corrupt)).await;
    let corrupt = Code::DataLoss;
    refused(kv.put(unknown_lease).await, corrupt, CORRUPT);
    refused(lease.lease_grant(too_long).await, corrupt, CORRUPT);
    let unknown = pb::LeaseRevokeRequest { id: 99 };
    refused(lease.lease_revoke(unknown).await, corrupt, CORRUPT);
    let future = Member::compaction(99);
    refused(kv.compact(future).await, corrupt, CORRUPT);
    // What the answering member checks comes first.
    let no_key = kv.put(put("", "")).await;
    refused(no_key, Code::InvalidArgument, EMPTY_KEY);
    let no_key = kv.delete_range(delete("", "")).await;
    refused(no_key, Code::InvalidArgument, EMPTY_KEY);
}

#[tokio::test]
async fn s8_alarm_actions_that_do_not_exist_are_refused() {
    let member = Member::start().await;
    let request = pb::AlarmRequest {
        action: 9,
        ..Default::default()
    };
    let answer = member.maintenance().alarm(request).await;
    refused(
        answer,
        Code::InvalidArgument,
        "etcdserver: unknown alarm action",
    );
}
