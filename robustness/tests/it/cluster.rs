//! Three members and a network that delivers everything: what must work before anything is broken.

use std::collections::BTreeMap;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb::{InternalRaftRequest, PutRequest};
use ferrite_api::types::MemberId;
use ferrite_disk::sim::SimDisk;
use ferrite_robustness::sim::{SimMember, bootstrap_options, member_options};
use ferrite_server::bootstrap::Origin;
use ferrite_server::member::Reply;

struct Cluster {
    members: BTreeMap<MemberId, SimMember>,
}

impl Cluster {
    fn new(size: u64) -> Self {
        let urls = |n: u64| vec![format!("http://m{n}:2380")];
        let all: BTreeMap<_, _> = (0..size).map(|n| (format!("m{n}"), urls(n))).collect();
        let members = (0..size).map(|n| {
            let mut bootstrap = bootstrap_options();
            bootstrap.seed = n;
            bootstrap.origin = Origin::New {
                name: format!("m{n}"),
                members: all.clone(),
                token: "t".to_owned(),
            };
            let mut options = member_options();
            options.name = format!("m{n}");
            let disk = SimDisk::new(n);
            let member = SimMember::boot_as(&disk, 1, &bootstrap, options).unwrap();
            (member.member().state().member_id(), member)
        });
        let mut members: BTreeMap<MemberId, SimMember> = members.collect();
        for member in members.values_mut() {
            for peer in member.peers().to_vec() {
                member.reachable(peer.id, true).unwrap();
            }
        }
        Self { members }
    }

    /// Delivers messages until there are none.
    fn settle(&mut self) {
        loop {
            let mut sent = Vec::new();
            for (from, member) in &mut self.members {
                member.carry_out().unwrap();
                sent.extend(
                    member
                        .sent()
                        .into_iter()
                        .map(|(to, message)| (*from, to, message)),
                );
            }
            if sent.is_empty() {
                return;
            }
            for (from, to, message) in sent {
                let to = self.members.get_mut(&to).unwrap();
                to.deliver(from, vec![message]).unwrap();
            }
        }
    }

    fn tick(&mut self) {
        for member in self.members.values_mut() {
            member.tick().unwrap();
        }
        self.settle();
    }

    fn until(&mut self, mut condition: impl FnMut(&Self) -> bool) {
        for _ in 0..1000 {
            if condition(self) {
                return;
            }
            self.tick();
        }
        panic!("it does not come to that");
    }

    fn ready(&self) -> bool {
        self.members
            .values()
            .all(|member| member.published().ready())
    }

    fn leader(&self) -> MemberId {
        let first = self.members.values().next().unwrap();
        MemberId::new(first.published().leader())
    }
}

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
    let mut cluster = Cluster::new(3);
    cluster.until(Cluster::ready);
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
