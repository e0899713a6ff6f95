//! Lock and Election: section 10 of spec validation.md, and sections 1 (`c1_…`) to 3 of spec
//! concurrency.md.

use std::time::Duration;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::etcdserverpb::alarm_request::AlarmAction;
use ferrite_api::pb::v3electionpb::election_client::ElectionClient;
use ferrite_api::pb::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest,
};
use ferrite_api::pb::v3lockpb::lock_client::LockClient;
use ferrite_api::pb::v3lockpb::{LockRequest, LockResponse, UnlockRequest};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::alarms::alarm;
use crate::lease::leases;
use crate::support::*;

const PATIENCE: Duration = Duration::from_secs(60);
const LOST_LEASE: &str = "mutex: session is expired";
const NO_LEADER: &str = "election: no leader";
const NOT_LEADER: &str = "election: not leader";
const MISSING_LEADER: &str = "\"leader\" field must be provided";

fn locks(member: &Member) -> LockClient<Channel> {
    LockClient::new(member.channel.clone())
}

fn elections(member: &Member) -> ElectionClient<Channel> {
    ElectionClient::new(member.channel.clone())
}

fn text(text: &str) -> Bytes {
    Bytes::from(text.to_owned())
}

fn lock(name: &str, lease: i64) -> LockRequest {
    LockRequest {
        name: text(name),
        lease,
    }
}

fn campaign(lease: i64, value: &str) -> CampaignRequest {
    CampaignRequest {
        name: text("e"),
        lease,
        value: text(value),
    }
}

impl Member {
    async fn grant(&self, ids: &[i64]) {
        for id in ids {
            let request = pb::LeaseGrantRequest { ttl: 600, id: *id };
            leases(self).lease_grant(request).await.unwrap();
        }
    }

    async fn revoke(&self, id: i64) {
        let request = pb::LeaseRevokeRequest { id };
        leases(self).lease_revoke(request).await.unwrap();
    }

    /// Waits until this many keys begin with `prefix`.
    async fn members_of(&self, prefix: &str, keys: i64) {
        let end = prefix.replace('/', "0");
        let there = async {
            loop {
                let answer = self.kv().range(range(prefix, &end)).await.unwrap();
                if answer.into_inner().count == keys {
                    return;
                }
            }
        };
        timeout(PATIENCE, there).await.unwrap();
    }

    /// A Lock that waits, as the `place`th in the queue.
    async fn waits(
        &self,
        request: LockRequest,
        place: i64,
    ) -> JoinHandle<Result<LockResponse, Status>> {
        let prefix = format!("{}/", std::str::from_utf8(&request.name).unwrap());
        let mut client = locks(self);
        let call = tokio::spawn(async move { Ok(client.lock(request).await?.into_inner()) });
        self.members_of(&prefix, place).await;
        call
    }

    async fn unlock(&self, key: &str) -> i64 {
        let request = UnlockRequest { key: text(key) };
        let answer = locks(self).unlock(request).await.unwrap().into_inner();
        answer.header.unwrap().revision
    }
}

async fn end<T>(call: JoinHandle<Result<T, Status>>) -> Result<tonic::Response<T>, Status> {
    let answer = timeout(PATIENCE, call).await.unwrap().unwrap();
    answer.map(tonic::Response::new)
}

#[tokio::test]
async fn c2_a_lease_gets_the_lock_again_and_others_in_the_order_of_the_log() {
    let member = Member::start().await;
    member.grant(&[1, 2, 0x2a]).await;
    let first = locks(&member).lock(lock("l", 1)).await.unwrap();
    let first = first.into_inner();
    full(first.header, 2);
    assert_eq!(first.key, "l/1");
    let pair = member.pair("l/1").await.unwrap();
    assert_eq!((pair.value, pair.lease), (Bytes::new(), 1));
    let again = locks(&member).lock(lock("l", 1)).await.unwrap();
    assert_eq!(again.into_inner().key, "l/1");

    let second = member.waits(lock("l", 0x2a), 2).await;
    let third = member.waits(lock("l", 2), 3).await;
    let unlocked = member.unlock("l/1").await;
    let second = end(second).await.unwrap().into_inner();
    assert_eq!(second.key, "l/2a");
    assert!(second.header.unwrap().revision >= unlocked);
    assert!(!third.is_finished());
    // The owner's lease ends.
    member.revoke(0x2a).await;
    assert_eq!(end(third).await.unwrap().into_inner().key, "l/2");

    // A missing key, and none.
    let before = member.unlock("l/2").await;
    assert_eq!(member.unlock("l/2").await, before);
    let request = UnlockRequest::default();
    refused(
        locks(&member).unlock(request).await,
        Code::Unknown,
        EMPTY_KEY,
    );
}

#[tokio::test]
async fn c2_a_waiter_that_has_lost_its_key_is_told_in_its_turn() {
    let member = Member::start().await;
    member.grant(&[1, 2, 3, 4]).await;
    locks(&member).lock(lock("l", 1)).await.unwrap();
    let expired = member.waits(lock("l", 2), 2).await;
    let deleted = member.waits(lock("l", 3), 3).await;
    let last = member.waits(lock("l", 4), 4).await;
    member.revoke(2).await;
    member.delete("l/3", "").await;
    member.members_of("l/", 2).await;
    assert!(!expired.is_finished() && !deleted.is_finished());
    member.unlock("l/1").await;
    refused(end(expired).await, Code::Unknown, LOST_LEASE);
    refused(end(deleted).await, Code::Unknown, LOST_LEASE);
    assert_eq!(end(last).await.unwrap().into_inner().key, "l/4");
}

#[tokio::test]
async fn c2_a_wait_that_is_given_up_takes_its_key_back() {
    let member = Member::start().await;
    member.grant(&[1, 2, 3]).await;
    locks(&member).lock(lock("l", 1)).await.unwrap();
    let cancelled = member.waits(lock("l", 2), 2).await;
    let next = member.waits(lock("l", 3), 3).await;
    cancelled.abort();
    member.members_of("l/", 2).await;
    let mut late = Request::new(lock("l", 2));
    late.set_timeout(Duration::from_millis(200));
    let status = locks(&member).lock(late).await.unwrap_err();
    // The client's own clock may be first.
    assert!(matches!(
        status.code(),
        Code::DeadlineExceeded | Code::Cancelled
    ));
    member.members_of("l/", 2).await;
    member.unlock("l/1").await;
    assert_eq!(end(next).await.unwrap().into_inner().key, "l/3");
}

#[tokio::test]
async fn c2_names_leases_and_errors() {
    let member = Member::start().await;
    member.grant(&[1, -9]).await;
    let mut locks = locks(&member);
    refused(
        locks.lock(lock("l", 99)).await,
        Code::Unknown,
        LEASE_NOT_FOUND,
    );
    for (name, lease, key) in [("", 1, "/1"), ("a/b", 1, "a/b/1"), ("n", -9, "n/-9")] {
        let answer = locks.lock(lock(name, lease)).await.unwrap();
        assert_eq!(answer.into_inner().key, key);
    }
    // No lease: one of a minute, found in the key.
    let answer = locks.lock(lock("z", 0)).await.unwrap().into_inner();
    let key = std::str::from_utf8(&answer.key).unwrap();
    let lease = i64::from_str_radix(key.strip_prefix("z/").unwrap(), 16).unwrap();
    assert_eq!(member.pair(key).await.unwrap().lease, lease);
    let request = pb::LeaseTimeToLiveRequest {
        id: lease,
        keys: false,
    };
    let granted = leases(&member).lease_time_to_live(request).await.unwrap();
    assert_eq!(granted.into_inner().granted_ttl, 60);

    let raise = alarm(AlarmAction::Activate, 7, pb::AlarmType::Nospace);
    member.alarm(raise).await;
    for lease in [1, 0] {
        let answer = locks.lock(lock("full", lease)).await;
        refused(answer, Code::Unknown, NO_SPACE);
    }
}

#[tokio::test]
async fn c2_a_server_that_stops_does_not_wait_for_those_who_wait() {
    let member = Member::start().await;
    member.grant(&[1, 2]).await;
    locks(&member).lock(lock("l", 1)).await.unwrap();
    let waiter = member.waits(lock("l", 2), 2).await;
    let member = timeout(Duration::from_secs(5), member.restart(|_| {})).await;
    let member = member.expect("the call that waits holds the stop up");
    let text = "etcdserver: server stopped";
    refused(end(waiter).await, Code::Unavailable, text);
    assert!(member.pair("l/1").await.is_some());
}

#[tokio::test]
async fn c3_an_election_from_the_first_candidate_to_the_second() {
    let member = Member::start().await;
    member.grant(&[1, 2, 3]).await;
    let mut election = elections(&member);
    let name = LeaderRequest { name: text("e") };
    refused(
        election.leader(name.clone()).await,
        Code::Unknown,
        NO_LEADER,
    );
    refused(
        election.campaign(campaign(99, "x")).await,
        Code::Unknown,
        LEASE_NOT_FOUND,
    );
    let won = election.campaign(campaign(1, "a")).await.unwrap();
    let won = won.into_inner();
    full(won.header, 2);
    let first = LeaderKey {
        name: text("e"),
        key: text("e/1"),
        rev: 2,
        lease: 1,
    };
    assert_eq!(won.leader, Some(first.clone()));
    // Again, with another value: proclaimed, and still the header of the first step.
    let again = election.campaign(campaign(1, "b")).await.unwrap();
    let again = again.into_inner();
    full(again.header, 2);
    assert_eq!(again.leader, won.leader);
    let leader = election.leader(name.clone()).await.unwrap().into_inner();
    full(leader.header, 3);
    let pair = leader.kv.unwrap();
    assert_eq!((pair.value, pair.create_revision), (text("b"), 2));

    let mut waiting = elections(&member);
    let second: JoinHandle<Result<CampaignResponse, Status>> =
        tokio::spawn(async move { Ok(waiting.campaign(campaign(2, "c")).await?.into_inner()) });
    member.members_of("e/", 2).await;
    let mut late = Request::new(campaign(3, "d"));
    late.set_timeout(Duration::from_millis(200));
    assert!(election.campaign(late).await.is_err());
    member.members_of("e/", 2).await;

    let resign = |leader| ResignRequest {
        leader: Some(leader),
    };
    // Of another creation: a success that changes nothing.
    let other = LeaderKey {
        rev: 9,
        ..first.clone()
    };
    election.resign(resign(other)).await.unwrap();
    member.members_of("e/", 2).await;
    election.resign(resign(first)).await.unwrap();
    let second = end(second).await.unwrap().into_inner();
    assert_eq!(second.leader.unwrap().key, "e/2");
    let leader = election.leader(name).await.unwrap().into_inner();
    assert_eq!(leader.kv.unwrap().value, "c");
}

#[tokio::test]
async fn c3_a_candidate_that_has_lost_its_key_has_not_won() {
    let member = Member::start().await;
    member.grant(&[1, 2]).await;
    elections(&member).campaign(campaign(1, "a")).await.unwrap();
    let mut waiting = elections(&member);
    let second: JoinHandle<Result<CampaignResponse, Status>> =
        tokio::spawn(async move { Ok(waiting.campaign(campaign(2, "b")).await?.into_inner()) });
    member.members_of("e/", 2).await;
    member.revoke(2).await;
    member.revoke(1).await;
    refused(end(second).await, Code::Unknown, NOT_LEADER);
}

#[tokio::test]
async fn c3_proclaim_and_resign() {
    let member = Member::start().await;
    member.grant(&[1]).await;
    let mut election = elections(&member);
    election.campaign(campaign(1, "a")).await.unwrap();
    let own = LeaderKey {
        name: text("e"),
        key: text("e/1"),
        rev: 2,
        lease: 1,
    };
    let proclaim = |leader: Option<LeaderKey>| ProclaimRequest {
        leader,
        value: text("new"),
    };
    let answer = election.proclaim(proclaim(Some(own.clone()))).await;
    full(answer.unwrap().into_inner().header, 3);
    assert_eq!(member.pair("e/1").await.unwrap().value, "new");
    let other = LeaderKey {
        rev: 3,
        ..own.clone()
    };
    let unknown_lease = LeaderKey {
        lease: 99,
        ..own.clone()
    };
    let no_key = LeaderKey {
        key: Bytes::new(),
        ..own.clone()
    };
    for (leader, text) in [
        (Some(other), NOT_LEADER),
        (Some(unknown_lease), LEASE_NOT_FOUND),
        (Some(no_key), EMPTY_KEY),
        (None, MISSING_LEADER),
    ] {
        let answer = election.proclaim(proclaim(leader)).await;
        refused(answer, Code::Unknown, text);
    }
    let nobody = ResignRequest {
        leader: Some(LeaderKey::default()),
    };
    refused(election.resign(nobody).await, Code::Unknown, EMPTY_KEY);
    let answer = election.resign(ResignRequest { leader: None }).await;
    refused(answer, Code::Unknown, MISSING_LEADER);
    // Without a lease the key gets one that nobody renews.
    let orphan = LeaderKey { lease: 0, ..own };
    election.proclaim(proclaim(Some(orphan))).await.unwrap();
    let lease = member.pair("e/1").await.unwrap().lease;
    assert!(lease != 0 && lease != 1);
}

#[tokio::test]
async fn c3_observe_sees_the_leader_its_values_and_the_next_leader() {
    let member = Member::start().await;
    member.grant(&[1, 2]).await;
    let mut election = elections(&member);
    let name = LeaderRequest { name: text("e") };
    // No leader yet: the headers come with the first message, so the call itself waits.
    let mut observing = elections(&member);
    let request = name.clone();
    let stream = tokio::spawn(async move { observing.observe(request).await });
    let won = election.campaign(campaign(1, "a")).await.unwrap();
    let mut stream = timeout(PATIENCE, stream)
        .await
        .unwrap()
        .unwrap()
        .unwrap()
        .into_inner();
    let mut next = async || {
        let response = timeout(PATIENCE, stream.message()).await.unwrap();
        let response = response.unwrap().unwrap();
        let (header, pair) = (response.header.unwrap(), response.kv.unwrap());
        assert!(header.raft_term != 0);
        (pair.key, pair.value, pair.mod_revision, header.revision)
    };
    assert_eq!(next().await, (text("e/1"), text("a"), 2, 2));
    let own = won.into_inner().leader.unwrap();
    let proclaim = ProclaimRequest {
        leader: Some(own.clone()),
        value: text("b"),
    };
    election.proclaim(proclaim).await.unwrap();
    assert_eq!(next().await, (text("e/1"), text("b"), 3, 3));
    election
        .resign(ResignRequest { leader: Some(own) })
        .await
        .unwrap();
    election.campaign(campaign(2, "c")).await.unwrap();
    assert_eq!(next().await, (text("e/2"), text("c"), 5, 5));
}

/// What the calls inside are refused with comes out with its text and without its code.
#[tokio::test]
async fn s10_errors_of_the_calls_inside_are_unknown() {
    let member = Member::start().await;
    member.grant(&[1]).await;
    let large = "v".repeat(1_572_864);
    let mut election = elections(&member);
    let answer = election.campaign(campaign(1, &large)).await;
    refused(answer, Code::Unknown, TOO_LARGE);
    let won = election.campaign(campaign(1, "a")).await.unwrap();
    let large = ProclaimRequest {
        leader: won.into_inner().leader,
        value: text(&large),
    };
    let answer = election.proclaim(large).await;
    refused(answer, Code::Unknown, TOO_LARGE);
    let raise = alarm(AlarmAction::Activate, 7, pb::AlarmType::Corrupt);
    member.alarm(raise).await;
    refused(
        locks(&member).lock(lock("l", 1)).await,
        Code::Unknown,
        CORRUPT,
    );
    let request = UnlockRequest { key: text("l/1") };
    refused(locks(&member).unlock(request).await, Code::Unknown, CORRUPT);
    let answer = election.campaign(campaign(1, "b")).await;
    refused(answer, Code::Unknown, CORRUPT);
    // Who leads can still be read.
    let name = LeaderRequest { name: text("e") };
    let leader = election.leader(name).await.unwrap().into_inner();
    assert_eq!(leader.kv.unwrap().value, "a");
}

#[tokio::test]
async fn s10_a_lock_without_a_lease_gets_one_each_time() {
    let member = Member::start().await;
    let first = locks(&member).lock(lock("l", 0)).await.unwrap();
    let mut late = Request::new(lock("l", 0));
    late.set_timeout(Duration::from_millis(200));
    // Another lease, so it has to wait, and does not own it already.
    assert!(locks(&member).lock(late).await.is_err());
    let key = first.into_inner().key;
    member.unlock(std::str::from_utf8(&key).unwrap()).await;
    let second = locks(&member).lock(lock("l", 0)).await.unwrap();
    assert_ne!(second.into_inner().key, key);
}

#[tokio::test]
async fn their_series_appear_with_the_first_use() {
    let member = Member::start().await;
    let series = async || {
        let lines = member.metrics().await;
        let of_locks = |line: &&String| {
            line.contains("grpc_service=\"v3lockpb.Lock\"") && line.contains("grpc_method=\"Lock\"")
        };
        lines.iter().filter(of_locks).count()
    };
    assert_eq!(series().await, 0);
    member.grant(&[1]).await;
    locks(&member).lock(lock("l", 1)).await.unwrap();
    assert!(series().await > 0);
}
