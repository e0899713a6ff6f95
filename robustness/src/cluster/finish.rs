//! The end of a run: everything works again, and within a bounded time there is a leader, writes succeed, all
//! members are alike, and the history of all clients holds.

use std::time::Duration;

use anyhow::{Context, ensure};
use ferrite_storage::mvcc::hash::Hashing;
use ferrite_storage::schema;

use super::model::Verdict;
use super::queue::Time;
use super::witness;
use super::world::World;
use crate::history::{Action, History, Operation, Outcome, check};
use crate::sim::TICK;

/// Within this time there is a leader, a write succeeds, and so on. Much more than it takes: elections may fail
/// again and again, if chance is against them.
const PATIENCE: Time = Duration::from_secs(30);

impl World {
    /// Heals everything and checks everything.
    pub(super) fn finish(&mut self) -> anyhow::Result<check::Summary> {
        self.heal()?;
        self.wait("there is no leader that all follow", Self::has_leader)?;
        let (acknowledged, last) = (self.counts.get("acknowledged"), self.model.revision);
        self.wait("no write succeeds", |world| {
            world.counts.get("acknowledged") > acknowledged + 5 && world.model.revision > last
        })?;
        self.load = false;
        self.wait("leases do not end", Self::no_leases)?;
        self.wait("the members do not become alike", Self::alike)?;
        self.wait("members that were removed do not end", Self::removed_end)?;
        self.wait(
            "cluster version and schemas are not those of the oldest program",
            Self::versions_follow,
        )?;
        self.wait("watchers do not catch up", Self::watched_all)?;
        self.check_members()?;
        let state = self.newest().context("somebody runs")?;
        ensure!(
            state.members().removed().eq(self.removed.iter().copied()),
            "members {:?} were removed, not {:?}",
            self.removed,
            state.members()
        );
        self.counts.add("elections", self.oracle.elections());
        self.check_history()
    }

    fn heal(&mut self) -> anyhow::Result<()> {
        self.chaos = false;
        self.network.heal();
        // Compactions that have piled up are to end soon, too.
        self.plan.job = 200..500;
        self.note(format_args!("heal"));
        for at in 0..self.nodes.len() {
            self.nodes[at].slow = Time::ZERO;
            self.nodes[at].set_room(None);
            // What has already been put off comes when the pause would have ended.
            self.probe_soon(at);
        }
        let longest = self.nodes.iter().map(|node| node.paused).max();
        self.run_until(longest.unwrap_or_default().max(self.now))?;
        let members = self.member_machines();
        for client in &mut self.clients {
            client.turn_away(&members);
        }
        for at in 0..self.nodes.len() {
            let node = &self.nodes[at];
            if node.born && !node.retired {
                self.start(at)?;
            }
        }
        Ok(())
    }

    /// Lets time pass until something is so.
    fn wait(&mut self, what: &str, mut is_so: impl FnMut(&Self) -> bool) -> anyhow::Result<()> {
        let until = self.now + PATIENCE;
        while !is_so(self) {
            ensure!(
                self.now < until,
                "{what}, {PATIENCE:?} after everything works again: {}",
                self.overview()
            );
            self.run_until(self.now + TICK)?;
        }
        Ok(())
    }

    /// Where everybody stands.
    fn overview(&self) -> String {
        let mut text = format!(
            "committed {}, {} snapshots under way",
            self.oracle.last(),
            self.transfers.len()
        );
        for (at, node) in self.nodes.iter().enumerate() {
            let Some(shell) = &node.shell else { continue };
            let state = shell.member.state();
            text += &format!(
                "; m{at} {:?} compacting {} oldest pin {:?} ready {}",
                shell.member.driver().status(),
                state.compacting(),
                state.store().pins().oldest(),
                shell.published.ready()
            );
        }
        text
    }

    fn has_leader(&self) -> bool {
        let Some(leader) = self.leader() else {
            return false;
        };
        let id = self.nodes[leader].id.get();
        self.member_machines().into_iter().all(|at| {
            let published = self.nodes[at].published();
            published.is_some_and(|published| published.leader() == id)
        })
    }

    fn alike(&self) -> bool {
        let last = self.oracle.last();
        self.member_machines().into_iter().all(|at| {
            self.nodes[at].shell.as_ref().is_some_and(|shell| {
                shell.member.state().applied().get() == last
                    && !shell.member.state().compacting()
                    && shell.published.ready()
            })
        })
    }

    /// Nobody asks for more: all leases are granted, and have ended, or will.
    fn no_leases(&self) -> bool {
        let idle = self.clients.iter().all(|client| !client.waits());
        idle && self.newest().is_some_and(|state| state.leases().is_empty())
    }

    /// Every process whose member was removed has ended, if it knows somebody who could tell it.
    fn removed_end(&self) -> bool {
        let members = self.member_machines();
        let nodes = self.nodes.iter().enumerate();
        let mut strangers =
            nodes.filter(|(at, node)| node.shell.is_some() && !members.contains(at));
        strangers.all(|(_, node)| !members.iter().any(|at| node.knows(self.nodes[*at].id)))
    }

    /// The cluster version is that of the oldest program, and every page file is in its schema.
    fn versions_follow(&self) -> bool {
        let members = self.member_machines();
        let releases = members.iter().map(|at| self.nodes[*at].release().level());
        let oldest = releases.min();
        members.into_iter().all(|at| {
            self.nodes[at].shell.as_ref().is_some_and(|shell| {
                let state = shell.member.state();
                let schema = schema::detect(&state.store().page().meta());
                state.cluster_version() == oldest && schema.ok() == oldest
            })
        })
    }

    /// Every member has what the log says, and hashes it to the same.
    fn check_members(&mut self) -> anyhow::Result<()> {
        let mut hashes = Vec::new();
        for at in self.member_machines() {
            let shell = self.nodes[at].shell.as_ref().context("it runs")?;
            let state = shell.member.state();
            let context = || format!("m{at} at the end");
            witness::pairs(&self.model, state).with_context(context)?;
            let compactions = shell.published.hashes();
            self.witness
                .state(state, compactions)
                .with_context(context)?;
            state.store().index().check_invariants();
            state.leases().check_invariants();
            let hash = Hashing::at(state.view(), 0).and_then(Hashing::run);
            let hash = hash.map_err(|error| anyhow::anyhow!("{}: {error:?}", context()))?;
            hashes.push((hash.hash, hash.compact_revision, hash.revision));
        }
        ensure!(
            hashes.iter().all(|hash| *hash == hashes[0]),
            "HashKV differs: {hashes:?}"
        );
        Ok(())
    }

    fn check_history(&mut self) -> anyhow::Result<check::Summary> {
        let operations = std::mem::take(&mut self.records.operations).into_iter();
        let operations = operations.filter_map(|(number, operation)| self.known(number, operation));
        let mut operations: Vec<Operation> = operations.collect();
        operations.sort_by_key(|operation| operation.called);
        let history = History {
            operations,
            leases: std::mem::take(&mut self.records.leases),
            renewals: std::mem::take(&mut self.records.renewals),
            watched: self.take_watched(),
            log: std::mem::take(&mut self.model.events),
        };
        let summary = check::check(&history).context("the history")?;
        self.counts.add("revisions", summary.revision as u64);
        self.counts.add("reads checked", summary.reads as u64);
        self.counts.add("expired keys", summary.expired as u64);
        Ok(summary)
    }

    /// What became of a write without an answer is known from the log. `None`: nothing.
    fn known(&mut self, number: u64, mut operation: Operation) -> Option<Operation> {
        let revokes = matches!(operation.action, Action::Revoke { .. });
        if !matches!(operation.outcome, Outcome::Unknown) || revokes {
            return Some(operation);
        }
        let verdict = self
            .proposed
            .get(&number)
            .and_then(|id| self.model.verdict(*id))?;
        let Verdict::Changed { revision } = *verdict else {
            return None;
        };
        self.counts.one("unacknowledged writes");
        operation.outcome = Outcome::Applied { revision };
        operation.returned = Time::MAX;
        Some(operation)
    }
}
