//! Three members and a network that delivers everything: what must work before anything is broken.

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb::{InternalRaftRequest, PutRequest};
use ferrite_api::types::MemberId;
use ferrite_server::member::Reply;

use crate::group::Group;

fn put(key: &str) -> InternalRaftRequest {
    InternalRaftRequest {
        put: Some(PutRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            ..PutRequest::default()
        }),
        ..InternalRaftRequest::default()
    }
}

#[test]
fn every_member_introduces_itself_and_serves_writes_and_reads() {
    let mut cluster = Group::new(3);
    cluster.until(Group::ready);
    let ids: Vec<MemberId> = cluster.members.keys().copied().collect();
    for (n, id) in (1..).zip(&ids) {
        let member = cluster.members.get_mut(id).unwrap();
        let waiter = member.propose(put(&format!("k{n}"))).unwrap();
        cluster.settle();
        let member = cluster.members.get_mut(id).unwrap();
        let replies = member.replies();
        assert!(
            matches!(&replies[..], [(answered, Reply::Applied(applied))]
                if *answered == waiter && applied.result.is_ok()),
            "{replies:?}"
        );
        for id in &ids {
            let member = cluster.members.get_mut(id).unwrap();
            let waiter = member.read().unwrap();
            cluster.settle();
            let member = cluster.members.get_mut(id).unwrap();
            let replies = member.replies();
            assert!(
                matches!(&replies[..], [(answered, Reply::View(view))]
                    if *answered == waiter && view.revision == n + 1),
                "{replies:?}"
            );
        }
    }
    let names = |id: &MemberId| cluster.members[id].member().state().members().to_api();
    assert!(
        names(&ids[0])
            .iter()
            .all(|member| !member.client_ur_ls.is_empty())
    );
    assert_eq!(names(&ids[0]), names(&ids[2]));
    let digests = ids
        .iter()
        .map(|id| cluster.members[id].member().state().digest());
    let digests: std::collections::BTreeSet<u64> = digests.collect();
    assert_eq!(digests.len(), 1);
    assert_ne!(cluster.leader(), MemberId::new(0));
}

#[test]
fn a_member_that_is_offered_the_snapshot_it_has_says_so() {
    let mut cluster = Group::new(3);
    cluster.until(Group::ready);
    let leader = cluster.leader();
    let mut others = cluster.members.keys().filter(|id| **id != leader);
    let last = *others.next().unwrap();
    // It is away until the log does not have what it needs.
    cluster.away = Some(last);
    let write = |cluster: &mut Group, key: &str| {
        let member = cluster.members.get_mut(&leader).unwrap();
        member.propose(put(key)).unwrap();
        cluster.tick();
    };
    for number in 0..60 {
        write(&mut cluster, &format!("k{number}"));
    }
    cluster.away = None;
    for _ in 0..10 {
        cluster.tick();
    }
    assert_eq!(cluster.offered, [true, false]);
    write(&mut cluster, "after");
    cluster.tick();
    let view = cluster.members[&last].published().view();
    assert!(view.index.latest(b"after").is_some());
}
