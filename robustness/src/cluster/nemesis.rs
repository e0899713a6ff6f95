//! What goes wrong, and when: one fault after another, overlapping, each undone after a while.

use std::time::Duration;

use ferrite_server::member::Input;
use rand::Rng;
use rand::seq::IndexedRandom;

use super::node::End;
use super::plan::Fault;
use super::queue::Time;
use super::world::{Event, World};

/// The number under which nobody waits.
pub(super) const NOBODY: u64 = 0;

impl World {
    /// The next fault, and the plan for the one after it.
    pub(super) fn fault(&mut self) -> anyhow::Result<()> {
        if !self.chaos {
            return Ok(());
        }
        let pause = self.nemesis.random_range(self.plan.calm.clone());
        self.queue
            .at(self.now + Duration::from_millis(pause), Event::Fault);
        let Some(fault) = self.plan.faults.choose(&mut self.nemesis).copied() else {
            return Ok(());
        };
        self.note(format_args!("fault {fault:?}"));
        let at = self.victim();
        match fault {
            Fault::Crash => {
                self.counts.one("crashes");
                self.down(at, End::Crash);
            }
            Fault::PowerLoss => {
                self.counts.one("power losses");
                self.down(at, End::PowerLoss);
            }
            Fault::Blackout => {
                self.counts.one("blackouts");
                for at in 0..self.nodes.len() {
                    self.down(at, End::PowerLoss);
                }
            }
            Fault::Pause => {
                self.counts.one("pauses");
                let length = self.length(10..5_000);
                let until = self.now + length;
                self.nodes[at].paused = self.nodes[at].paused.max(until);
            }
            Fault::Isolate => {
                self.counts.one("isolations");
                let others = (0..self.nodes.len()).filter(|other| *other != at);
                let links = others.flat_map(|other| [(at, other), (other, at)]);
                self.cut_for_a_while(links.collect());
            }
            Fault::Split => {
                self.counts.one("splits");
                let side: Vec<bool> = self.nodes.iter().map(|_| self.nemesis.random()).collect();
                let links = self.links();
                let links = links.filter(|(from, to)| side[*from] != side[*to]);
                self.cut_for_a_while(links.collect());
            }
            Fault::OneWay => {
                self.counts.one("one-way cuts");
                let inward = self.nemesis.random();
                let links = self.links().filter(|(from, to)| match inward {
                    true => *to == at,
                    false => *from == at,
                });
                self.cut_for_a_while(links.collect());
            }
            Fault::Flap => {
                self.counts.one("flaps");
                let peer = self.nemesis.random_range(0..self.nodes.len());
                let mut time = self.now;
                for _ in 0..self.nemesis.random_range(3..10) {
                    let links = vec![(at, peer), (peer, at)];
                    self.queue.at(time, Event::Cut(links.clone()));
                    time += self.length(20..500);
                    self.queue.at(time, Event::Mend(links));
                    time += self.length(20..500);
                }
            }
            Fault::Clog => {
                self.counts.one("clogs");
                self.network.clogged = self.now + self.length(100..3_000);
            }
            Fault::SlowDisk => {
                self.counts.one("slow disks");
                let length = self.length(100..5_000);
                self.nodes[at].slow = self.now + length;
            }
            Fault::FullDisk => {
                self.counts.one("full disks");
                let room = self.nemesis.random_range(0..64 << 10);
                self.nodes[at].set_room(Some(room));
                let length = self.length(500..6_000);
                self.queue.at(self.now + length, Event::Room { at });
            }
            Fault::Rot => self.rot(at)?,
            Fault::Defragment => self.defragment(at),
            Fault::Transfer => self.transfer(at),
            // It waits for its moment.
            Fault::Ambush => {}
        }
        Ok(())
    }

    /// Damages a log, if the other members can do without this one until it has recovered: a quorum of
    /// voters that have lost nothing must be left, also after a change of the membership that is on its
    /// way.
    fn rot(&mut self, at: usize) -> anyhow::Result<()> {
        let others = self.nodes[at].shell.is_some() && !self.anybody_recovers();
        let least = 3 + usize::from(self.plan.membership);
        if !others || self.plan.members < 3 || self.nodes[at].voters.len() < least {
            return Ok(());
        }
        self.counts.one("damaged logs");
        self.down(at, End::PowerLoss);
        self.nodes[at].damage_log(&mut self.nemesis)
    }

    fn defragment(&mut self, at: usize) {
        if let Some(shell) = &mut self.nodes[at].shell {
            self.counts.one("defragmentations");
            let path = shell.page_path.clone();
            let waiter = NOBODY;
            shell.push(Input::Defragment { path, waiter });
            self.plan_turn(at);
        }
    }

    /// Whether a member has lost a part of its log, and has not made up for it.
    pub(super) fn anybody_recovers(&self) -> bool {
        self.nodes.iter().any(|node| node.lost.is_some())
    }

    /// Something important has happened at a member: a good moment to let it die.
    pub(super) fn ambush(&mut self, at: usize) {
        let waits = self.chaos && self.plan.faults.contains(&Fault::Ambush);
        if !waits || !self.nemesis.random_bool(0.3) {
            return;
        }
        // From microseconds to tens of milliseconds, each size as often.
        let most = 1 << self.nemesis.random_range(4..16);
        let delay = Duration::from_micros(self.nemesis.random_range(0..most));
        let life = self.nodes[at].life;
        self.queue.at(self.now + delay, Event::Ambush { at, life });
    }

    /// The ambush.
    pub(super) fn strike(&mut self, at: usize, life: u64) {
        if !self.chaos || self.nodes[at].life != life {
            return;
        }
        self.counts.one("ambushes");
        let how = match self.nemesis.random() {
            true => End::Crash,
            false => End::PowerLoss,
        };
        self.down(at, how);
    }

    fn length(&mut self, millis: std::ops::Range<u64>) -> Time {
        Duration::from_millis(self.nemesis.random_range(millis))
    }

    /// A member; often the leader, which has the most to lose.
    fn victim(&mut self) -> usize {
        let any = self.nemesis.random_range(0..self.nodes.len());
        match self.nemesis.random_bool(0.4) {
            true => self.leader().unwrap_or(any),
            false => any,
        }
    }

    fn links(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let count = self.nodes.len();
        (0..count).flat_map(move |from| (0..count).map(move |to| (from, to)))
    }

    fn down(&mut self, at: usize, how: End) {
        if self.nodes[at].shell.is_none() {
            return;
        }
        self.end(at, how);
        let length = match self.nemesis.random_range(0..4) {
            0 => self.length(3_000..10_000),
            _ => self.length(50..2_000),
        };
        self.queue.at(self.now + length, Event::Boot { at });
    }

    fn cut_for_a_while(&mut self, links: Vec<(usize, usize)>) {
        let length = match self.nemesis.random_range(0..3) {
            0 => self.length(3_000..8_000),
            _ => self.length(50..2_000),
        };
        self.cut(&links);
        self.queue.at(self.now + length, Event::Mend(links));
    }

    pub(super) fn cut(&mut self, links: &[(usize, usize)]) {
        if !self.chaos {
            return;
        }
        for (from, to) in links {
            self.network.cut(*from, *to);
        }
        self.note(format_args!("cut {links:?}"));
        self.break_transfers(|from, to| links.contains(&(from, to)) || links.contains(&(to, from)));
        self.probe_ends(links);
    }

    pub(super) fn mend(&mut self, links: &[(usize, usize)]) {
        for (from, to) in links {
            self.network.mend(*from, *to);
        }
        self.note(format_args!("mend {links:?}"));
        self.probe_ends(links);
    }

    fn probe_ends(&mut self, links: &[(usize, usize)]) {
        let mut ends: Vec<usize> = links.iter().flat_map(|(from, to)| [*from, *to]).collect();
        ends.sort_unstable();
        ends.dedup();
        for at in ends {
            self.probe_soon(at);
        }
    }

    fn transfer(&mut self, to: usize) {
        let Some(leader) = self.leader().filter(|leader| *leader != to) else {
            return;
        };
        self.counts.one("transfers");
        let to = self.nodes[to].id;
        let waiter = NOBODY;
        if let Some(shell) = &mut self.nodes[leader].shell {
            shell.push(Input::MoveLeader { to, waiter });
        }
        self.plan_turn(leader);
    }
}
