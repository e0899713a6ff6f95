//! The world: everything there is, and what happens in it, one event at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use ferrite_api::types::MemberId;
use ferrite_server::member::Reply;
use ferrite_server::peer::Message;
use ferrite_server::watch::{CatchUp, CaughtUp, Response};
use ferrite_storage::mvcc::pins::Pin;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::clients::{Client, Records};
use super::counts::Counts;
use super::model::Model;
use super::mutant::Mutant;
use super::network::Network;
use super::node::{Node, machines};
use super::oracle::Oracle;
use super::plan::Plan;
use super::queue::{Queue, Time};
use super::request::{Answer, Ask};
use super::snapshots::{Part, Transfer};
use super::trace::Trace;
use super::watchers::Watcher;
use super::witness::Witness;
use crate::history::Watched;

/// What happens.
#[derive(Debug)]
pub(super) enum Event {
    /// A process does something, if it still lives.
    Process {
        at: usize,
        life: u64,
        step: Step,
    },
    /// A message arrives.
    Deliver {
        from: usize,
        to: usize,
        lives: (u64, u64),
        message: Message,
    },
    /// A member looks whether it can reach another.
    Probe {
        at: usize,
        peer: usize,
    },
    /// A machine starts its process.
    Boot {
        at: usize,
    },
    /// A client's request arrives at a member.
    Request {
        client: usize,
        number: u64,
        at: usize,
        ask: Ask,
    },
    /// The answer arrives at the client.
    Answer {
        client: usize,
        number: u64,
        answer: Answer,
    },
    /// A response arrives at the clients that watch at a member.
    Watched {
        at: usize,
        life: u64,
        response: Response,
    },
    /// A client asks the next thing.
    Next {
        client: usize,
    },
    /// Something goes wrong.
    Fault,
    /// A process dies at a bad moment.
    Ambush {
        at: usize,
        life: u64,
    },
    /// A disk has room again.
    Room {
        at: usize,
    },
    /// The operator looks after the cluster.
    Operate,
    /// A member is told by another that it was removed.
    Removed {
        at: usize,
        life: u64,
        by: usize,
    },
    /// Links stop, or work again.
    Cut(Vec<(usize, usize)>),
    Mend(Vec<(usize, usize)>),
}

/// What a process does.
#[derive(Debug)]
pub(super) enum Step {
    Turn,
    Write,
    Sync,
    Job,
    Report,
    Hash,
    /// Its watch stream goes on.
    Watch,
    /// History is read for its watch stream.
    CatchUp(Box<CatchUp>),
    CaughtUp(Box<CaughtUp>),
    /// It answers a client.
    Serve {
        number: u64,
        reply: Reply,
        pin: Option<Pin>,
    },
    /// A part of a snapshot has arrived.
    Snapshot {
        id: u64,
        part: Part,
    },
    /// A snapshot has not arrived there.
    SnapshotFailed {
        to: MemberId,
    },
}

/// Everything there is.
pub(super) struct World {
    pub(super) now: Time,
    pub(super) plan: Plan,
    pub(super) queue: Queue<Event>,
    pub(super) trace: Trace,
    pub(super) network: Network,
    pub(super) nodes: Vec<Node>,
    pub(super) clients: Vec<Client>,
    pub(super) records: Records,
    /// Requests that a member works on: by whom, and what.
    pub(super) asked: BTreeMap<u64, (usize, Ask)>,
    /// Ids that requests were proposed under.
    pub(super) proposed: BTreeMap<u64, u64>,
    pub(super) proposed_ids: BTreeSet<u64>,
    /// The watchers of the clients of each member.
    pub(super) watchers: Vec<Vec<Watcher>>,
    /// What watchers have seen that have ended.
    pub(super) watched: Vec<Watched>,
    /// Snapshots under way.
    pub(super) transfers: BTreeMap<u64, Transfer>,
    pub(super) next_transfer: u64,
    pub(super) oracle: Oracle,
    pub(super) model: Model,
    pub(super) witness: Witness,
    pub(super) counts: Counts,
    pub(super) rng: StdRng,
    pub(super) nemesis: StdRng,
    pub(super) upgrades: StdRng,
    /// Members that were removed, as far as anybody has applied it.
    pub(super) removed: BTreeSet<MemberId>,
    /// When the operator wanted the last one to be removed.
    pub(super) last_removal: Time,
    pub(super) mutant: Option<Mutant>,
    /// Whether clients ask more.
    pub(super) load: bool,
    /// Whether things go wrong.
    pub(super) chaos: bool,
}

impl World {
    pub(super) fn new(plan: Plan, mutant: Option<Mutant>, print: bool) -> Self {
        let rng = |salt: u64| StdRng::seed_from_u64(plan.seed.wrapping_mul(7919) ^ salt);
        let nodes = machines(&plan, mutant);
        let mut world = Self {
            now: Time::ZERO,
            queue: Queue::new(),
            trace: Trace::new(print),
            network: Network::new(rng(1)),
            clients: (0..plan.clients).map(|n| Client::new(&plan, n)).collect(),
            records: Records::default(),
            asked: BTreeMap::new(),
            proposed: BTreeMap::new(),
            proposed_ids: BTreeSet::new(),
            watchers: Vec::new(),
            watched: Vec::new(),
            transfers: BTreeMap::new(),
            next_transfer: 0,
            oracle: Oracle::default(),
            model: Model::default(),
            witness: Witness::default(),
            counts: Counts::default(),
            rng: rng(2),
            nemesis: rng(3),
            upgrades: rng(4),
            removed: BTreeSet::new(),
            last_removal: Time::ZERO,
            mutant,
            load: true,
            chaos: true,
            nodes,
            plan,
        };
        for at in 0..world.nodes.len() {
            let delay = Duration::from_millis(world.rng.random_range(0..500));
            world.queue.at(delay, Event::Boot { at });
        }
        for client in 0..world.clients.len() {
            let delay = Duration::from_millis(world.rng.random_range(0..2_000));
            world.queue.at(delay, Event::Next { client });
        }
        world.queue.at(Duration::from_millis(2_500), Event::Fault);
        if world.plan.membership {
            world.queue.at(Duration::from_millis(3_000), Event::Operate);
        }
        world
    }

    /// Lets everything happen up to `until`.
    pub(super) fn run_until(&mut self, until: Time) -> anyhow::Result<()> {
        while let Some((time, event)) = self.queue.pop(until) {
            self.now = time;
            self.counts.one("events");
            self.happen(event)?;
        }
        self.now = until;
        Ok(())
    }

    fn happen(&mut self, event: Event) -> anyhow::Result<()> {
        // A process that stands still does nothing; what comes for it waits.
        let concerned = match &event {
            Event::Process { at, .. }
            | Event::Probe { at, .. }
            | Event::Removed { at, .. }
            | Event::Request { at, .. } => Some(*at),
            Event::Deliver { to, .. } => Some(*to),
            _ => None,
        };
        if let Some(at) = concerned
            && self.nodes[at].paused > self.now
        {
            self.queue.at(self.nodes[at].paused, event);
            return Ok(());
        }
        match event {
            Event::Process { at, life, step } if self.nodes[at].life == life => {
                self.process(at, step).with_context(|| format!("m{at}"))
            }
            Event::Process { .. } => Ok(()),
            Event::Deliver {
                from,
                to,
                lives,
                message,
            } => {
                self.deliver(from, to, lives, message);
                Ok(())
            }
            Event::Probe { at, peer } => {
                self.probe(at, peer);
                Ok(())
            }
            Event::Boot { at } => self.start(at),
            Event::Request {
                client,
                number,
                at,
                ask,
            } => {
                self.request(client, number, at, ask);
                Ok(())
            }
            Event::Answer {
                client,
                number,
                answer,
            } => self.answer(client, number, answer),
            Event::Watched { at, life, response } => self.watched(at, life, &response),
            Event::Next { client } => {
                self.next(client);
                Ok(())
            }
            Event::Fault => self.fault(),
            Event::Ambush { at, life } => {
                self.strike(at, life);
                Ok(())
            }
            Event::Room { at } => {
                self.nodes[at].set_room(None);
                Ok(())
            }
            Event::Operate => self.operate(),
            Event::Removed { at, life, by } => {
                self.hear_removed(at, life, by);
                Ok(())
            }
            Event::Cut(links) => {
                self.cut(&links);
                Ok(())
            }
            Event::Mend(links) => {
                self.mend(&links);
                Ok(())
            }
        }
    }

    pub(super) fn note(&mut self, what: std::fmt::Arguments<'_>) {
        self.trace.note(self.now, what);
    }

    pub(super) fn micros(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_micros(self.rng.random_range(range))
    }

    /// Plans a step of a process.
    pub(super) fn after(&mut self, delay: Duration, at: usize, step: Step) {
        let life = self.nodes[at].life;
        self.queue
            .at(self.now + delay, Event::Process { at, life, step });
    }

    /// The machine of a member.
    pub(super) fn position(&self, id: MemberId) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == id)
    }

    /// The member that leads, as most see it.
    pub(super) fn leader(&self) -> Option<usize> {
        let leads = |node: &Node| {
            node.shell
                .as_ref()
                .is_some_and(|shell| shell.member.is_leader())
        };
        let term = |at: &usize| {
            let published = self.nodes[*at].published();
            published.map_or(0, |published| Arc::as_ref(published).term())
        };
        (0..self.nodes.len())
            .filter(|at| leads(&self.nodes[*at]))
            .max_by_key(term)
    }
}
