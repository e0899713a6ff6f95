//! A few members in one thread, and a network that delivers everything.

use std::collections::BTreeMap;

use ferrite_api::Version;
use ferrite_api::types::MemberId;
use ferrite_disk::sim::{PowerLoss, SimDisk};
use ferrite_robustness::sim::{Error, SimMember, bootstrap_options, member_options};
use ferrite_server::bootstrap::{self, Origin};
use ferrite_server::member::Options;

/// Where a member runs.
struct Machine {
    disk: SimDisk,
    bootstrap: bootstrap::Options,
    options: Options,
    /// How often it was started.
    life: u64,
}

impl Machine {
    fn boot(&mut self, release: Version) -> Result<SimMember, Error> {
        self.life += 1;
        self.bootstrap.release = release;
        self.options.release = release;
        let options = self.options.clone();
        SimMember::boot_as(&self.disk, self.life, &self.bootstrap, options)
    }
}

/// The members of a cluster.
pub(crate) struct Group {
    /// Those that run.
    pub(crate) members: BTreeMap<MemberId, SimMember>,
    machines: BTreeMap<MemberId, Machine>,
    /// What is sent to it and by it is lost.
    pub(crate) away: Option<MemberId>,
    /// Whether each snapshot was taken.
    pub(crate) offered: Vec<bool>,
}

impl Group {
    /// A new cluster.
    pub(crate) fn new(size: usize) -> Self {
        Self::of(&vec![Version::RELEASE; size])
    }

    /// A new cluster of members whose programs are of these versions.
    pub(crate) fn of(releases: &[Version]) -> Self {
        let urls = |n: usize| vec![format!("http://m{n}:2380")];
        let all: BTreeMap<_, _> = (0..releases.len())
            .map(|n| (format!("m{n}"), urls(n)))
            .collect();
        let mut group = Self {
            members: BTreeMap::new(),
            machines: BTreeMap::new(),
            away: None,
            offered: Vec::new(),
        };
        for (n, release) in releases.iter().enumerate() {
            let mut bootstrap = bootstrap_options();
            bootstrap.seed = n as u64;
            bootstrap.origin = Origin::New {
                name: format!("m{n}"),
                members: all.clone(),
                token: "t".to_owned(),
            };
            let mut options = member_options();
            options.name = format!("m{n}");
            let mut machine = Machine {
                disk: SimDisk::new(n as u64),
                bootstrap,
                options,
                life: 0,
            };
            let member = machine.boot(*release).unwrap();
            let id = member.member().state().member_id();
            group.machines.insert(id, machine);
            group.members.insert(id, member);
        }
        let ids: Vec<MemberId> = group.members.keys().copied().collect();
        for id in ids {
            group.link(id);
        }
        group
    }

    /// Its machine loses power.
    pub(crate) fn kill(&mut self, id: MemberId) {
        drop(self.members.remove(&id));
        let machine = self.machines.get_mut(&id).unwrap();
        machine.disk = machine.disk.power_loss(PowerLoss::KeepAll);
        for member in self.members.values_mut() {
            member.reachable(id, false).unwrap();
        }
    }

    /// Starts a member that does not run, with a program of this version.
    pub(crate) fn start(&mut self, id: MemberId, release: Version) -> Result<(), Error> {
        let member = self.machines.get_mut(&id).unwrap().boot(release)?;
        self.members.insert(id, member);
        self.link(id);
        Ok(())
    }

    /// A member and all others reach each other.
    fn link(&mut self, id: MemberId) {
        let others: Vec<MemberId> = self
            .members
            .keys()
            .copied()
            .filter(|it| *it != id)
            .collect();
        for other in others {
            let member = self.members.get_mut(&other).unwrap();
            member.reachable(id, true).unwrap();
            let member = self.members.get_mut(&id).unwrap();
            member.reachable(other, true).unwrap();
        }
    }

    /// Delivers messages until there are none, and snapshots. Their senders never learn that they were
    /// taken, and the first time what the receiver itself has to say is lost, too.
    pub(crate) fn settle(&mut self) {
        self.try_settle().unwrap();
    }

    /// The same, until a member cannot go on.
    pub(crate) fn try_settle(&mut self) -> Result<(), Error> {
        loop {
            let (mut sent, mut snapshots) = (Vec::new(), Vec::new());
            for (from, member) in &mut self.members {
                member.carry_out()?;
                let messages = member.sent().into_iter();
                sent.extend(messages.map(|(to, message)| (*from, to, message)));
                let outgoing = member.snapshots().into_iter();
                snapshots.extend(outgoing.map(|outgoing| (*from, outgoing)));
            }
            if sent.is_empty() && snapshots.is_empty() {
                return Ok(());
            }
            for (from, to, message) in sent {
                if self.away == Some(from) || self.away == Some(to) {
                    continue;
                }
                if let Some(to) = self.members.get_mut(&to) {
                    to.deliver(from, vec![message])?;
                }
            }
            for (from, outgoing) in snapshots {
                let to = outgoing.to;
                if self.away != Some(to)
                    && let Some(receiver) = self.members.get_mut(&to)
                {
                    let taken = receiver.receive(outgoing)?;
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

    pub(crate) fn tick(&mut self) {
        for member in self.members.values_mut() {
            member.tick().unwrap();
        }
        self.settle();
    }

    pub(crate) fn until(&mut self, mut condition: impl FnMut(&Self) -> bool) {
        for _ in 0..1000 {
            if condition(self) {
                return;
            }
            self.tick();
        }
        panic!("it does not come to that");
    }

    pub(crate) fn ready(&self) -> bool {
        self.members
            .values()
            .all(|member| member.published().ready())
    }

    pub(crate) fn leader(&self) -> MemberId {
        let first = self.members.values().next().unwrap();
        MemberId::new(first.published().leader())
    }
}
