//! The second look at the space quota, after apply.

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb::{AlarmType, InternalRaftRequest, PutRequest};
use ferrite_disk::sim::SimDisk;
use ferrite_robustness::sim::{SimMember, member_options};
use ferrite_server::member::{Options, Reply};
use ferrite_server::quota::Quota;

fn put(member: &mut SimMember) -> Result<(), ferrite_api::Error> {
    let put = PutRequest {
        key: Bytes::from_static(b"k"),
        ..Default::default()
    };
    let request = InternalRaftRequest {
        put: Some(put),
        ..Default::default()
    };
    let waiter = member.propose(request).unwrap();
    member.carry_out().unwrap();
    let replies = member.replies();
    let reply = replies.into_iter().find(|(whose, _)| *whose == waiter);
    match reply {
        Some((_, Reply::Applied(applied))) => applied.result.map(|_| ()),
        other => panic!("{other:?} answers a put"),
    }
}

fn boot(disk: &SimDisk, incarnation: u64, quota: i64) -> SimMember {
    let options = Options {
        quota: Quota { bytes: quota },
        ..member_options()
    };
    let mut member = SimMember::boot_with(disk, incarnation, options).unwrap();
    while !member.published().ready() {
        member.tick().unwrap();
    }
    member
}

fn alarmed(member: &SimMember) -> bool {
    let alarms = &member.published().cluster().alarms;
    alarms.is_active(AlarmType::Nospace)
}

#[test]
fn a_put_beyond_the_quota_is_applied_refused_and_alarms() {
    let mut member = boot(&SimDisk::new(5), 1, 1);
    let before = member.published().view().revision;
    assert_eq!(put(&mut member), Err(ferrite_api::Error::NoSpace));
    assert_eq!(member.published().view().revision, before + 1);
    member.tick().unwrap();
    assert!(alarmed(&member));
    // From now on apply itself refuses.
    assert_eq!(put(&mut member), Err(ferrite_api::Error::NoSpace));
    assert_eq!(member.published().view().revision, before + 1);
}

#[test]
fn an_entry_that_is_applied_again_was_judged_when_it_was_new() {
    let disk = SimDisk::new(6);
    let mut member = boot(&disk, 1, -1);
    put(&mut member).unwrap();
    drop(member);
    let mut member = boot(&disk, 2, 1);
    for _ in 0..10 {
        member.tick().unwrap();
    }
    assert!(!alarmed(&member));
}
