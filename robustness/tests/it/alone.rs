//! `--force-new-cluster`: a member whose others are lost goes on alone, whatever happens while it
//! begins to.

use ferrite_api::pb::etcdserverpb::{InternalRaftRequest, PutRequest};
use ferrite_api::types::{MemberId, RequestId};
use ferrite_disk::sim::{PowerLoss, SimDisk};
use ferrite_robustness::sim::{SimMember, bootstrap_options, member_options};
use ferrite_server::bootstrap;
use ferrite_storage::members;
use ferrite_storage::membership::{MembershipAction, MembershipChange};

const OTHERS: [u64; 2] = [0xb, 0xc];

fn put(member: &mut SimMember, key: &str) {
    let request = InternalRaftRequest {
        put: Some(PutRequest {
            key: key.to_owned().into(),
            value: "v".into(),
            ..PutRequest::default()
        }),
        ..InternalRaftRequest::default()
    };
    member.propose(request).unwrap();
    member.carry_out().unwrap();
}

fn add(member: &mut SimMember, id: u64) {
    let id = MemberId::new(id);
    let action = MembershipAction::Add {
        member: members::unstarted(id, vec![format!("http://{id}:2380")]),
    };
    let change = MembershipChange {
        request: RequestId::new(id.get()),
        action,
    };
    member.change_members(change).unwrap();
    member.carry_out().unwrap();
}

fn ids(member: &SimMember) -> Vec<u64> {
    let members = member.member().state().members();
    members.iter().map(|member| member.id).collect()
}

/// A member that has been told of another one, which never came: it has committed that, and has more
/// in its log that nobody can commit.
fn stranded() -> SimDisk {
    let disk = SimDisk::new(1);
    let mut options = member_options();
    options.strict_reconfig_check = false;
    let mut member = SimMember::boot_with(&disk, 1, options).unwrap();
    while !member.published().ready() {
        member.tick().unwrap();
    }
    for at in 0..30 {
        put(&mut member, &format!("alone {at}"));
    }
    add(&mut member, OTHERS[0]);
    assert_eq!(ids(&member).len(), 2);
    // Not committed, and known to be in no other log.
    put(&mut member, "kept");
    add(&mut member, OTHERS[1]);
    assert_eq!(ids(&member).len(), 2);
    drop(member);
    disk.power_loss(PowerLoss::KeepAll)
}

fn forced() -> bootstrap::Options {
    bootstrap::Options {
        force_new_cluster: true,
        ..bootstrap_options()
    }
}

/// Starts with the flag, and goes on until writes are accepted.
fn go_on(disk: &SimDisk, incarnation: u64, context: &str) -> SimMember {
    let booted = SimMember::boot_as(disk, incarnation, &forced(), member_options());
    let mut member = booted.unwrap_or_else(|error| panic!("{context}: {error}"));
    for _ in 0..200 {
        if member.published().ready() {
            break;
        }
        member.tick().unwrap();
    }
    assert!(member.published().ready(), "{context}: not ready");
    let own = member.member().state().member_id().get();
    assert_eq!(ids(&member), [own], "{context}");
    let state = member.member().state();
    assert_eq!(state.conf_state().voters, [own], "{context}");
    let removed: Vec<u64> = state.members().removed().map(MemberId::get).collect();
    assert!(removed.contains(&OTHERS[0]), "{context}: {removed:x?}");
    let revision = member.member().state().store().revision();
    assert!(revision >= 32, "{context}: revision {revision}");
    assert!(member.peers().is_empty(), "{context}");
    put(&mut member, "after");
    let after = member.member().state().store().revision();
    assert_eq!(after, revision + 1, "{context}");
    member
}

#[test]
fn what_the_log_holds_is_kept_and_others_are_removed() {
    let disk = stranded();
    // Without the flag nothing can be decided.
    let mut stuck = SimMember::boot(&disk.fork(), 2).unwrap();
    for _ in 0..100 {
        stuck.tick().unwrap();
    }
    assert!(!stuck.published().ready());

    let member = go_on(&disk, 2, "the first start");
    let state = member.member().state();
    // The member that was added last too, and the write before that.
    let removed: Vec<u64> = state.members().removed().map(MemberId::get).collect();
    assert_eq!(removed, OTHERS);
    assert!(state.store().index().latest(b"kept").is_some());
    drop(member);
    // Again and again, as an operator who leaves the flag where it is.
    let disk = disk.power_loss(PowerLoss::KeepAll);
    drop(go_on(&disk, 3, "the second start"));
    let mut member = SimMember::boot(&disk.power_loss(PowerLoss::KeepAll), 4).unwrap();
    while !member.published().ready() {
        member.tick().unwrap();
    }
    assert_eq!(ids(&member).len(), 1);
}

#[test]
fn power_loss_at_every_operation_of_such_a_start() {
    let disk = stranded();
    let recording = disk.fork();
    recording.start_recording();
    drop(go_on(&recording, 2, "undisturbed"));
    let mut history = recording.history();
    let operations = history.len();
    assert!(operations > 5, "{operations}");
    for k in 0..=operations {
        for policy in [
            PowerLoss::LoseAll,
            PowerLoss::KeepAll,
            PowerLoss::Random(k as u64),
        ] {
            let left = history.power_loss_at(k, policy);
            drop(go_on(&left, 3, &format!("operation {k}, {policy:?}")));
        }
    }
}
