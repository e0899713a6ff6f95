//! Power loss at every disk operation while leases end by themselves.

use std::collections::BTreeSet;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb::{InternalRaftRequest, LeaseGrantRequest, PutRequest};
use ferrite_disk::sim::{PowerLoss, SimDisk};
use ferrite_robustness::sim::SimMember;

const LEASES: i64 = 6;

/// Ticks after which every lease has ended: the longest, the election timeout that a new leader
/// adds, and a tick for the revocation.
const ALL_OVER: u32 = 30 + 10 + 1;

fn key(id: i64) -> Bytes {
    Bytes::from(format!("lease/{id}"))
}

fn leases(member: &SimMember) -> BTreeSet<i64> {
    let leases = member.member().state().leases();
    leases.iter().map(|(id, _)| id.get()).collect()
}

fn keys(member: &SimMember) -> BTreeSet<Bytes> {
    let view = member.published().view();
    let all = ferrite_storage::mvcc::range::KeyRange::all();
    let live = view.index.range(&all, view.revision);
    live.map(|(key, _)| Bytes::copy_from_slice(key)).collect()
}

/// Proposes a request and returns once it is applied.
fn write(member: &mut SimMember, request: InternalRaftRequest) {
    let waiter = member.propose(request).unwrap();
    member.carry_out().unwrap();
    let replies = member.replies();
    assert!(replies.iter().any(|(answered, _)| *answered == waiter));
}

/// Grants leases of 1 to 3 seconds, each with a key.
fn grant_all(member: &mut SimMember) {
    while !member.published().ready() {
        member.tick().unwrap();
    }
    for id in 1..=LEASES {
        let ttl = 1 + id % 3;
        write(
            member,
            InternalRaftRequest {
                lease_grant: Some(LeaseGrantRequest { id, ttl }),
                ..Default::default()
            },
        );
        let put = PutRequest {
            key: key(id),
            lease: id,
            ..Default::default()
        };
        write(
            member,
            InternalRaftRequest {
                put: Some(put),
                ..Default::default()
            },
        );
    }
}

/// A lease and its key are there together or not at all.
fn check(member: &SimMember, context: &str) {
    let leases = leases(member);
    let named: BTreeSet<_> = leases.iter().map(|id| key(*id)).collect();
    assert_eq!(keys(member), named, "{context}");
    member.member().state().leases().check_invariants();
    member.member().lessor().lock().check_invariants();
}

#[test]
fn leases_that_end_around_a_power_loss_end_once_and_for_all() {
    let disk = SimDisk::recording(5);
    let mut member = SimMember::boot(&disk, 1).unwrap();
    grant_all(&mut member);
    let granted = disk.op_count();
    // Which leases were there before each operation of the disk.
    let mut known = vec![(granted, leases(&member))];
    for _ in 0..ALL_OVER {
        member.tick().unwrap();
        check(&member, "the undisturbed run");
        known.push((disk.op_count(), leases(&member)));
    }
    let steps: BTreeSet<_> = known.iter().map(|(_, left)| left.len()).collect();
    assert_eq!(steps, BTreeSet::from([0, 2, 4, 6]), "two end each second");
    let revision = member.published().view().revision;
    assert_eq!(revision, 1 + 2 * LEASES, "a revision for each key, twice");

    let mut history = disk.history();
    for k in usize::try_from(granted).unwrap()..=history.len() {
        for policy in [
            PowerLoss::LoseAll,
            PowerLoss::KeepAll,
            PowerLoss::Random(k as u64),
        ] {
            let context = format!("operation {k}, {policy:?}");
            let after = known.partition_point(|(ops, _)| *ops <= k as u64);
            let (_, most) = &known[after - 1];
            let crashed = history.power_loss_at(k, policy);
            let mut member = SimMember::boot(&crashed, 2).unwrap();
            member.tick().unwrap();
            assert!(leases(&member).is_subset(most), "{context}: one is back");
            check(&member, &context);
            for _ in 0..ALL_OVER {
                member.tick().unwrap();
                check(&member, &context);
            }
            assert!(leases(&member).is_empty(), "{context}: one never ends");
            assert_eq!(member.published().view().revision, revision, "{context}");
        }
    }
}

#[test]
fn nothing_ends_early_after_a_restart() {
    let disk = SimDisk::new(6);
    let mut member = SimMember::boot(&disk, 1).unwrap();
    grant_all(&mut member);
    let all = leases(&member);
    // 0.9 s of leases that live at least one.
    for _ in 0..9 {
        member.tick().unwrap();
    }
    assert_eq!(leases(&member), all);
    drop(member);
    // A new leader gives the whole time again, and an election timeout.
    let mut member = SimMember::boot(&disk, 2).unwrap();
    for _ in 0..19 {
        member.tick().unwrap();
        assert_eq!(leases(&member), all);
    }
    for _ in 0..2 {
        member.tick().unwrap();
    }
    assert_eq!(leases(&member).len(), 4, "those of one second");
}
