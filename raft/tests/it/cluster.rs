//! Members that talk to each other over a bad network and lose power: one seed, one run.

use std::collections::BTreeMap;

use bytes::Bytes;
use ferrite_disk::sim::{PowerLoss, SimDisk};
use ferrite_raft::{Change, Committed, ConfChange, Mark, OutgoingSnapshot, Role, StepError};
use raft::eraftpb::MessageType;

use crate::support::{Applied, Member, Outcome, Random, Setup, message, payload};

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

    /// The payloads of entries up to `index`, somebody having applied all of them.
    fn payloads(&self, index: u64) -> impl Iterator<Item = &Bytes> {
        let entries = self.log.range(..=index).map(|(_, entry)| &entry.data);
        entries.filter(|data| !data.is_empty())
    }
}

/// A snapshot on its way.
#[derive(Debug, Clone)]
struct Transfer {
    from: u64,
    snapshot: OutgoingSnapshot,
    body: Applied,
}

struct Cluster {
    setups: Vec<Setup>,
    members: Vec<Member>,
    network: Vec<(u64, u64, Bytes)>,
    /// States that members have captured for others, by both.
    captured: BTreeMap<(u64, u64), Applied>,
    /// What was offered and taken.
    offered: BTreeMap<(u64, u64), Applied>,
    transfers: Vec<Transfer>,
    /// Sender, receiver, whether it was taken.
    reports: Vec<(u64, u64, bool)>,
    /// Nothing reaches this member: it falls behind.
    away: u64,
    random: Random,
    oracle: Oracle,
    number: u64,
    /// What was not done yet to the fourth member.
    changes: Vec<Change>,
    restarts: u64,
    /// Snapshots installed, also by a restart.
    installed: u64,
    /// Restarts of a member that had a snapshot to install.
    interrupted: u64,
    /// Copies of disks from some time ago.
    copies: BTreeMap<usize, SimDisk>,
    lost: u64,
    recovered: u64,
}

impl Cluster {
    /// Three members as a bootstrap makes them, and one that joins.
    fn new(seed: u64) -> Cluster {
        let setup = |id| {
            let (voters, start) = match id {
                4 => (&[][..], Mark::default()),
                _ => (&[1, 2, 3][..], Mark { index: 1, term: 1 }),
            };
            Setup {
                seed: seed * 10 + id,
                start,
                ..Setup::of(id, voters).cache(3000)
            }
        };
        let setups: Vec<Setup> = (1..=4).map(setup).collect();
        let members = setups
            .iter()
            .map(|setup| setup.start(&SimDisk::new(setup.seed)).unwrap());
        Cluster {
            members: members.collect(),
            setups,
            network: Vec::new(),
            captured: BTreeMap::new(),
            offered: BTreeMap::new(),
            transfers: Vec::new(),
            reports: Vec::new(),
            away: 0,
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            oracle: Oracle::default(),
            number: 0,
            changes: vec![
                Change::Remove(4),
                Change::AddVoter(4),
                Change::AddLearner(4),
            ],
            restarts: 0,
            installed: 0,
            interrupted: 0,
            copies: BTreeMap::new(),
            lost: 0,
            recovered: 0,
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
        let recovering = member.driver.status().recovering;
        member.turn(&mut outcome);
        assert!(outcome.failure.is_none(), "{outcome:?}");
        self.oracle.see(id, &outcome);
        let status = member.driver.status();
        if recovering {
            assert_eq!(status.role, Role::Follower);
            assert!(!outcome.sent.iter().any(|(_, bytes)| is_vote(bytes)));
        }
        if outcome.recovered {
            self.setups[at].recovering = false;
            self.recovered += 1;
        }
        assert!(status.handed_out <= status.commit && status.handed_out <= status.durable);
        if status.role == Role::Leader {
            self.oracle.acknowledged = self.oracle.acknowledged.max(member.applied.index);
        }
        self.network
            .extend(outcome.sent.into_iter().map(|(to, bytes)| (id, to, bytes)));
        for to in outcome.snapshots_wanted {
            let capture = || self.members[at].applied.clone();
            self.captured.entry((id, to)).or_insert_with(capture);
        }
        for snapshot in outcome.snapshots {
            let body = self.offered.remove(&(id, snapshot.to)).expect("offered");
            assert_eq!(body.snapshot(), snapshot.snapshot);
            self.transfers.push(Transfer {
                from: id,
                snapshot,
                body,
            });
        }
    }

    fn deliver(&mut self, at: usize) {
        let (_, to, bytes) = self.network[at].clone();
        if self.random.below(10) > 0 {
            self.network.swap_remove(at);
        }
        if to == self.away {
            return;
        }
        let member = self.members.get_mut(to as usize - 1);
        if let Some(Err(error)) = member.map(|member| member.driver.step(&bytes)) {
            check_refusal(&error);
        }
    }

    fn some_key(&mut self, captured: usize) -> Option<(u64, u64)> {
        let at = self.random.below(captured.max(1) as u64) as usize;
        self.captured.keys().nth(at).copied()
    }

    /// Offers one of the states that were captured, some time ago.
    fn offer(&mut self) {
        let Some((id, to)) = self.some_key(self.captured.len()) else {
            return;
        };
        let body = self.captured.remove(&(id, to)).expect("it is there");
        let driver = &mut self.members[id as usize - 1].driver;
        if driver.offer_snapshot(to, body.snapshot()) {
            let floor = driver.snapshot_floor();
            assert!(floor.is_some_and(|floor| floor <= body.index));
            self.offered.insert((id, to), body);
        }
    }

    fn transfer(&mut self, at: usize) {
        let Transfer {
            from,
            snapshot,
            body,
        } = self.transfers[at].clone();
        if self.random.below(10) > 0 {
            self.transfers.swap_remove(at);
        }
        let member = &mut self.members[snapshot.to as usize - 1];
        let before = member.driver.status();
        let taken = member.receive(&snapshot.message, &body);
        if let Err(error) = &taken {
            check_refusal(error);
        }
        let after = member.driver.status();
        assert!(before.commit <= after.commit && before.term <= after.term);
        self.reports.push((from, snapshot.to, taken == Ok(true)));
    }

    /// Far enough to leave a slow follower behind.
    fn compact(&mut self, at: usize) {
        let keep = self.random.below(8);
        let member = &mut self.members[at];
        member
            .driver
            .compact(member.checkpointed.saturating_sub(keep));
        let releasable = member.driver.releasable_before();
        member.wal.release_before(releasable).unwrap();
    }

    fn report(&mut self) {
        if let Some((from, to, taken)) = self.reports.pop() {
            let sender = &mut self.members[from as usize - 1];
            sender.driver.report_snapshot(to, taken);
        }
    }

    fn finish_install(&mut self, at: usize) {
        let Some(index) = self.members[at].finish_install() else {
            return;
        };
        self.installed += 1;
        let payloads = &self.members[at].applied.payloads;
        assert!(payloads.iter().eq(self.oracle.payloads(index)));
    }

    fn restart(&mut self, at: usize) {
        let policy = match self.random.below(3) {
            0 => PowerLoss::LoseAll,
            1 => PowerLoss::KeepAll,
            _ => PowerLoss::Random(self.random.below(u64::MAX >> 1)),
        };
        let id = at as u64 + 1;
        self.setups[at].seed += 1000;
        let member = &self.members[at];
        let (before, installing) = (member.applied.index, member.driver.status().installing);
        let disk = member.disk.power_loss(policy);
        self.members[at] = self.setups[at].start(&disk).unwrap();
        let index = self.members[at].applied.index;
        let payloads = &self.members[at].applied.payloads;
        assert!(payloads.iter().eq(self.oracle.payloads(index)));
        self.installed += u64::from(index > before);
        self.interrupted += u64::from(installing);
        self.captured.retain(|(from, _), _| *from != id);
        self.offered.retain(|(from, _), _| *from != id);
        self.restarts += 1;
    }

    fn is_recovering(&self) -> bool {
        self.setups.iter().any(|setup| setup.recovering)
    }

    /// A member's log loses its newest entries, wherever they came from. One at a time: with two,
    /// what was committed may be gone. And not while some still need the vote of the one that is
    /// being removed, which gives none either.
    fn lose(&mut self, at: usize) {
        let id = at as u64 + 1;
        let is_gone = |member: &Member| !member.driver.conf_state().contains(4);
        let removing = self.changes.is_empty() && !self.members[..3].iter().all(is_gone);
        let Some(disk) = self.copies.remove(&at) else {
            return;
        };
        if removing || self.is_recovering() {
            return;
        }
        let status = self.members[at].driver.status();
        let setup = &mut self.setups[at];
        setup.lose_entries(&disk, status.term, status.vote);
        setup.recovering = true;
        self.members[at].disk = disk;
        self.restart(at);
        // Transports refuse what was sent before.
        self.network
            .retain(|(from, to, _)| *from != id && *to != id);
        self.transfers
            .retain(|it| it.from != id && it.snapshot.to != id);
        self.lost += 1;
    }

    fn step(&mut self) {
        let at = self.any();
        match self.random.below(118) {
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
                // A leader whose term is the highest there is knows of all that was acknowledged.
                let driver = &self.members[at].driver;
                let status = driver.status();
                let terms = self.members.iter().map(|m| m.driver.status().term);
                if driver.serves_reads() && terms.max() == Some(status.term) {
                    assert!(status.commit >= self.oracle.acknowledged);
                }
            }
            94..96 => self.members[at].checkpoint(),
            96 => {
                let keep = self.random.below(8);
                let member = &mut self.members[at];
                member
                    .driver
                    .compact(member.checkpointed.saturating_sub(keep));
                member
                    .wal
                    .release_before(member.driver.releasable_before())
                    .unwrap();
            }
            97 => {
                let target = self.random.below(4) + 1;
                self.members[at].driver.transfer_leader(target);
            }
            98 => {
                if let Some(change) = self.changes.last()
                    && !self.is_recovering()
                {
                    let change = ConfChange::new(*change, Bytes::from_static(b"c"));
                    if self.members[at].driver.propose_conf_change(&change).is_ok() {
                        self.changes.pop();
                    }
                }
            }
            99 if self.random.below(3) == 0 => self.restart(at),
            100..103 => self.offer(),
            103..106 if !self.transfers.is_empty() => {
                let at = self.random.below(self.transfers.len() as u64) as usize;
                self.transfer(at);
            }
            106 if !self.transfers.is_empty() => {
                let at = self.random.below(self.transfers.len() as u64) as usize;
                let lost = self.transfers.swap_remove(at);
                self.reports.push((lost.from, lost.snapshot.to, false));
            }
            107..109 => self.report(),
            109..111 => self.finish_install(at),
            111..113 => self.compact(at),
            113 if self.random.below(5) == 0 => self.away = self.random.below(9),
            116 if self.random.below(3) == 0 => {
                let copy = self.members[at].disk.power_loss(PowerLoss::LoseAll);
                self.copies.insert(at, copy);
            }
            117 if self.random.below(6) == 0 => self.lose(at),
            114..116 => self.members[at].checkpoint(),
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
                    self.finish_install(at);
                }
                // What was begun before.
                self.members[at].sync();
                self.finish_install(at);
            }
            while !self.captured.is_empty() {
                self.offer();
            }
            while !self.transfers.is_empty() {
                self.transfer(0);
            }
            while !self.reports.is_empty() {
                self.report();
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
        let conf = &self.members[0].applied.conf;
        for (at, member) in self.members.iter().enumerate() {
            if conf.contains(at as u64 + 1) {
                assert!(!member.driver.status().recovering);
                assert_eq!(
                    member.applied.index,
                    last,
                    "member {} did not catch up",
                    at + 1
                );
                let payloads = &member.applied.payloads;
                assert!(payloads.iter().eq(self.oracle.payloads(last)));
                assert_eq!(&member.applied.conf, conf);
            }
        }
    }
}

fn is_vote(bytes: &Bytes) -> bool {
    let sent = message(bytes);
    match sent.get_msg_type() {
        MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => true,
        MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse => {
            !sent.reject
        }
        _ => false,
    }
}

/// Only messages of peers that do not know each other yet, or any more, are refused, and snapshots
/// that come at the wrong moment.
fn check_refusal(error: &StepError) {
    let known = matches!(
        error,
        StepError::UnknownPeer { .. } | StepError::Stopped | StepError::SnapshotUnderWay { .. }
    );
    assert!(known, "{error}");
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
    assert!(cluster.members[leader].driver.serves_reads());
    cluster.heal();
    cluster.check_end();
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
    let (mut installed, mut interrupted) = (0, 0);
    let (mut lost, mut recovered) = (0, 0);
    for seed in 1..=400 {
        let (cluster, _) = run(seed, 7000);
        restarts += cluster.restarts;
        entries += cluster.oracle.log.len();
        terms += cluster.oracle.leaders.len();
        removed += usize::from(cluster.changes.is_empty());
        installed += cluster.installed;
        interrupted += cluster.interrupted;
        lost += cluster.lost;
        recovered += cluster.recovered;
    }
    // The runs must be worth something.
    assert!(restarts > 2000, "{restarts} restarts");
    assert!(entries > 10_000, "{entries} entries");
    assert!(terms > 1000, "{terms} terms with a leader");
    assert!(
        removed > 20,
        "{removed} runs changed the configuration three times"
    );
    assert!(installed > 500, "{installed} snapshots");
    assert!(interrupted > 80, "{interrupted} restarts with a snapshot");
    assert!(lost > 400, "{lost} members lost entries");
    assert!(recovered > 400, "{recovered} of them recovered");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(run(77, 4000).1, run(77, 4000).1);
    assert_ne!(run(77, 2000).1, run(78, 2000).1);
}
