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
    /// What is sent to it and by it is lost.
    away: Option<MemberId>,
    /// Whether each snapshot was taken.
    offered: Vec<bool>,
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
        Self {
            members,
            away: None,
            offered: Vec::new(),
        }
    }

    /// Delivers messages until there are none, and snapshots. Their senders never learn that they were
    /// taken, and the first time what the receiver itself has to say is lost, too.
    fn settle(&mut self) {
        loop {
            let (mut sent, mut snapshots) = (Vec::new(), Vec::new());
            for (from, member) in &mut self.members {
                member.carry_out().unwrap();
                let messages = member.sent().into_iter();
                sent.extend(messages.map(|(to, message)| (*from, to, message)));
                let outgoing = member.snapshots().into_iter();
                snapshots.extend(outgoing.map(|outgoing| (*from, outgoing)));
            }
            if sent.is_empty() && snapshots.is_empty() {
                return;
            }
            for (from, to, message) in sent {
                if self.away != Some(from) && self.away != Some(to) {
                    let to = self.members.get_mut(&to).unwrap();
                    to.deliver(from, vec![message]).unwrap();
                }
            }
            for (from, outgoing) in snapshots {
                let to = outgoing.to;
                if self.away != Some(to) {
                    let receiver = self.members.get_mut(&to).unwrap();
                    let taken = receiver.receive(outgoing).unwrap();
                    if self.offered.is_empty() {
                        receiver.sent();
                    }
                    self.offered.push(taken);
                }
                let sender = self.members.get_mut(&from).unwrap();
                sender.snapshot_sent(to, false).unwrap();
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

#[test]
fn a_member_that_is_offered_the_snapshot_it_has_says_so() {
    let mut cluster = Cluster::new(3);
    cluster.until(Cluster::ready);
    let leader = cluster.leader();
    let mut others = cluster.members.keys().filter(|id| **id != leader);
    let last = *others.next().unwrap();
    // It is away until the log does not have what it needs.
    cluster.away = Some(last);
    let write = |cluster: &mut Cluster, key: &str| {
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
