//! Members that talk to each other over a bad network and lose power: one seed, one run.

use std::collections::BTreeMap;

use bytes::Bytes;
use ferrite_disk::sim::{PowerLoss, SimDisk};
use ferrite_raft::{Change, Committed, ConfChange, ReadToken, Role};
use raft::eraftpb::MessageType;

use crate::support::{Member, Outcome, Random, Setup, message, payload};

/// What no run may ever contradict.
#[derive(Debug, Default)]
struct Oracle {
    leaders: BTreeMap<u64, u64>,
    votes: BTreeMap<(u64, u64), u64>,
    log: BTreeMap<u64, Committed>,
    /// What the proposers were told to be done: entries up to here were applied where they were
    /// proposed.
    acknowledged: u64,
}

impl Oracle {
    fn see(&mut self, id: u64, outcome: &Outcome) {
        for leadership in &outcome.leaderships {
            if leadership.role == Role::Leader {
                let leader = *self.leaders.entry(leadership.term).or_insert(id);
                assert_eq!(leader, id, "two leaders of term {}", leadership.term);
            }
        }
        for (_, bytes) in &outcome.sent {
            let sent = message(bytes);
            let vote = match sent.get_msg_type() {
                MessageType::MsgRequestVote => Some(id),
                MessageType::MsgRequestVoteResponse if !sent.reject => Some(sent.to),
                _ => None,
            };
            if let Some(vote) = vote {
                let before = *self.votes.entry((id, sent.term)).or_insert(vote);
                assert_eq!(before, vote, "{id} voted twice in term {}", sent.term);
            }
        }
        for entry in &outcome.committed {
            let before = self.log.entry(entry.index).or_insert_with(|| entry.clone());
            assert_eq!(before, entry, "member {id} applies something else");
        }
    }
}

struct Cluster {
    setups: Vec<Setup>,
    members: Vec<Member>,
    network: Vec<(u64, u64, Bytes)>,
    reads: BTreeMap<(u64, ReadToken), u64>,
    random: Random,
    oracle: Oracle,
    number: u64,
    /// What was not done yet to the fourth member.
    changes: Vec<Change>,
    restarts: u64,
}

impl Cluster {
    fn new(seed: u64) -> Cluster {
        let setups: Vec<Setup> = (1..=4)
            .map(|id| Setup {
                seed: seed * 10 + id,
                ..Setup::of(id, &[1, 2, 3]).cache(3000)
            })
            .collect();
        let members = setups
            .iter()
            .map(|setup| setup.start(&SimDisk::new(setup.seed)).unwrap());
        Cluster {
            members: members.collect(),
            setups,
            network: Vec::new(),
            reads: BTreeMap::new(),
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            oracle: Oracle::default(),
            number: 0,
            changes: vec![
                Change::Remove(4),
                Change::AddVoter(4),
                Change::AddLearner(4),
            ],
            restarts: 0,
        }
    }

    fn any(&mut self) -> usize {
        self.random.below(self.members.len() as u64) as usize
    }

    /// Takes effects of a member, once.
    fn turn(&mut self, at: usize) {
        let mut outcome = Outcome::default();
        let member = &mut self.members[at];
        let id = at as u64 + 1;
        if !member.driver.has_effects() {
            return;
        }
        member.turn(&mut outcome);
        assert!(outcome.failure.is_none(), "{outcome:?}");
        self.oracle.see(id, &outcome);
        let status = member.driver.status();
        assert!(status.handed_out <= status.commit && status.handed_out <= status.durable);
        if status.role == Role::Leader {
            self.oracle.acknowledged = self.oracle.acknowledged.max(member.applied.index);
        }
        self.network
            .extend(outcome.sent.into_iter().map(|(to, bytes)| (id, to, bytes)));
        for (token, result) in outcome.reads {
            let since = self
                .reads
                .remove(&(id, token))
                .expect("every read ends once");
            if let Ok(index) = result {
                assert!(
                    index >= since,
                    "a read at {index} after {since} was acknowledged"
                );
            }
        }
    }

    fn deliver(&mut self, at: usize) {
        let (_, to, bytes) = self.network[at].clone();
        if self.random.below(10) > 0 {
            self.network.swap_remove(at);
        }
        if let Some(member) = self.members.get_mut(to as usize - 1) {
            // Only those of peers that do not know each other yet, or any more, are refused.
            if let Err(error) = member.driver.step(&bytes) {
                let known = matches!(
                    error,
                    ferrite_raft::StepError::UnknownPeer { .. } | ferrite_raft::StepError::Stopped
                );
                assert!(known, "{error}");
            }
        }
    }

    fn restart(&mut self, at: usize) {
        let policy = match self.random.below(3) {
            0 => PowerLoss::LoseAll,
            1 => PowerLoss::KeepAll,
            _ => PowerLoss::Random(self.random.below(u64::MAX >> 1)),
        };
        let disk = self.members[at].disk.power_loss(policy);
        self.members[at] = self.setups[at].start(&disk).unwrap();
        self.reads.retain(|(id, _), _| *id != at as u64 + 1);
        self.restarts += 1;
    }

    fn step(&mut self) {
        let at = self.any();
        match self.random.below(100) {
            0..12 => self.members[at].driver.tick(),
            12..50 if !self.network.is_empty() => {
                let at = self.random.below(self.network.len() as u64) as usize;
                self.deliver(at);
            }
            50..54 if !self.network.is_empty() => {
                let at = self.random.below(self.network.len() as u64) as usize;
                self.network.swap_remove(at);
            }
            54..74 => self.turn(at),
            74..84 => self.members[at].sync(),
            84..92 => {
                let payload = payload(self.number, 10 + (self.number as usize * 37) % 300);
                self.number += u64::from(self.members[at].driver.propose(payload).is_ok());
            }
            92..94 => {
                let token = self.members[at].driver.read_index();
                self.reads
                    .insert((at as u64 + 1, token), self.oracle.acknowledged);
            }
            94..96 => self.members[at].checkpoint(),
            96 => {
                // Never beyond what everybody has: there are no snapshots yet.
                let to = self
                    .members
                    .iter()
                    .map(|member| member.checkpointed)
                    .min()
                    .unwrap_or(0);
                if to > 0 {
                    self.members[at].driver.compact(to);
                    let member = &mut self.members[at];
                    member
                        .wal
                        .release_before(member.driver.releasable_before())
                        .unwrap();
                }
            }
            97 => {
                let target = self.random.below(4) + 1;
                self.members[at].driver.transfer_leader(target);
            }
            98 => {
                if let Some(change) = self.changes.last() {
                    let change = ConfChange::new(*change, Bytes::from_static(b"c"));
                    if self.members[at].driver.propose_conf_change(&change).is_ok() {
                        self.changes.pop();
                    }
                }
            }
            99 if self.random.below(3) == 0 => self.restart(at),
            _ => {}
        }
    }

    /// Everybody works and everything arrives, in order.
    fn heal(&mut self) {
        for _ in 0..600 {
            for at in 0..self.members.len() {
                self.members[at].driver.tick();
                while self.members[at].driver.has_effects() {
                    self.turn(at);
                    self.members[at].sync();
                }
            }
            for (_, to, bytes) in std::mem::take(&mut self.network) {
                if let Some(member) = self.members.get_mut(to as usize - 1) {
                    let _refused = member.driver.step(&bytes);
                }
            }
        }
    }

    fn check_end(&self) {
        let last = *self.oracle.log.keys().last().unwrap();
        assert!(last >= self.oracle.acknowledged);
        let payloads: Vec<&Bytes> = self
            .oracle
            .log
            .values()
            .map(|entry| &entry.data)
            .filter(|data| !data.is_empty())
            .collect();
        let conf = &self.members[0].applied.conf;
        for (at, member) in self.members.iter().enumerate() {
            if conf.contains(at as u64 + 1) {
                assert_eq!(
                    member.applied.index,
                    last,
                    "member {} did not catch up",
                    at + 1
                );
                assert!(member.applied.payloads.iter().eq(payloads.iter().copied()));
                assert_eq!(&member.applied.conf, conf);
            }
        }
    }
}

/// Runs a seed; gives what happened, as text.
fn run(seed: u64, steps: usize) -> (Cluster, Vec<String>) {
    let mut cluster = Cluster::new(seed);
    for _ in 0..steps {
        cluster.step();
    }
    cluster.heal();
    cluster.check_end();
    let traces = cluster
        .members
        .iter()
        .flat_map(|member| member.trace.clone())
        .collect();
    (cluster, traces)
}

#[test]
fn three_members_elect_and_replicate() {
    let mut cluster = Cluster::new(1);
    cluster.heal();
    let leaders: Vec<usize> = (0..3)
        .filter(|at| cluster.members[*at].driver.status().role == Role::Leader)
        .collect();
    assert_eq!(leaders.len(), 1);
    let leader = leaders[0];
    for number in 0..50 {
        cluster.members[leader].propose(payload(number, 100));
    }
    let token = cluster.members[leader].driver.read_index();
    cluster.reads.insert((leader as u64 + 1, token), 0);
    cluster.heal();
    cluster.check_end();
    assert!(cluster.reads.is_empty(), "the read was answered");
    for member in &cluster.members[..3] {
        assert_eq!(member.applied.payloads.len(), 50);
        assert!(!member.driver.sole_voter());
    }
    // Without a quorum the leader steps down.
    for _ in 0..30 {
        cluster.members[leader].driver.tick();
    }
    assert_ne!(cluster.members[leader].driver.status().role, Role::Leader);
}

#[test]
fn a_bad_network_and_power_losses_never_break_the_log() {
    let (mut restarts, mut entries, mut terms, mut removed) = (0, 0, 0, 0);
    for seed in 1..=250 {
        let (cluster, _) = run(seed, 6000);
        restarts += cluster.restarts;
        entries += cluster.oracle.log.len();
        terms += cluster.oracle.leaders.len();
        removed += usize::from(cluster.changes.is_empty());
    }
    // The runs must be worth something.
    assert!(restarts > 2000, "{restarts} restarts");
    assert!(entries > 10_000, "{entries} entries");
    assert!(terms > 1000, "{terms} terms with a leader");
    assert!(
        removed > 20,
        "{removed} runs changed the configuration three times"
    );
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(run(77, 4000).1, run(77, 4000).1);
    assert_ne!(run(77, 2000).1, run(78, 2000).1);
}
