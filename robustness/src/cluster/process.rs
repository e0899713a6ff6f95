//! What processes do: steps, and what follows from them; starts and ends.

use std::time::Duration;

use anyhow::Context;
use ferrite_raft::Role;
use ferrite_server::member::{Fatal, Others};
use rand::Rng;

use super::log::replaced_from;
use super::node::End;
use super::oracle;
use super::request::Answer;
use super::shell::Outcome;
use super::snapshots::SNAPSHOT;
use super::witness;
use super::world::{Event, Step, World};

impl World {
    /// Plans the next turn of a process: soon if there is something to do, else at the next tick.
    pub(super) fn plan_turn(&mut self, at: usize) {
        let delay = self.micros(5..200);
        let node = &mut self.nodes[at];
        let Some(shell) = &node.shell else { return };
        let due = if shell.has_work(node.clock(self.now)) {
            self.now + delay
        } else {
            node.when(shell.next_tick()).max(self.now + delay)
        };
        if node.turn_at.is_some_and(|planned| planned <= due) {
            return;
        }
        node.turn_at = Some(due);
        let (life, step) = (node.life, Step::Turn);
        self.queue.at(due, Event::Process { at, life, step });
    }

    pub(super) fn process(&mut self, at: usize, step: Step) -> anyhow::Result<()> {
        let now = self.now;
        let node = &mut self.nodes[at];
        let clock = node.clock(now);
        let Some(shell) = &mut node.shell else {
            return Ok(());
        };
        let outcome: Result<Outcome, Fatal> = match step {
            Step::Turn => {
                // A later one was planned before an earlier one.
                if node.turn_at.is_none_or(|planned| planned > now) {
                    return Ok(());
                }
                node.turn_at = None;
                if !shell.has_work(clock) {
                    self.plan_turn(at);
                    return Ok(());
                }
                shell.turn(clock)
            }
            Step::Write => shell.write(),
            Step::Sync => shell.sync(),
            Step::Job => {
                shell.run_job();
                self.note(format_args!("m{at} job"));
                let delay = self.micros(10..5_000);
                self.after(delay, at, Step::Report);
                return Ok(());
            }
            Step::Report => {
                shell.report_job();
                self.plan_turn(at);
                return Ok(());
            }
            Step::Hash => {
                if shell.step_hash() {
                    self.plan_turn(at);
                } else {
                    let delay = self.micros(100..20_000);
                    self.after(delay, at, Step::Hash);
                }
                return Ok(());
            }
            Step::Serve { number, reply, pin } => return self.serve(at, number, &reply, pin),
            Step::Watch => return self.step_watch(at),
            Step::CatchUp(work) => {
                self.catch_up(at, *work);
                return Ok(());
            }
            Step::CaughtUp(result) => {
                self.caught_up(at, *result);
                return Ok(());
            }
            Step::Snapshot { id, part } => return self.snapshot_part(at, id, part),
            Step::SnapshotFailed { to } => {
                self.snapshot_failed(at, to);
                return Ok(());
            }
        };
        let outcome = outcome?;
        self.observe(at, &outcome)?;
        self.follow(at, outcome)?;
        let shell = self.nodes[at].shell.as_ref();
        if shell.is_some_and(|shell| shell.is_removed()) {
            self.retire(at)?;
        }
        Ok(())
    }

    /// Does what a step has brought.
    fn follow(&mut self, at: usize, outcome: Outcome) -> anyhow::Result<()> {
        let Outcome {
            peers,
            send,
            snapshots,
            replies,
            job,
            hash,
            writes,
            syncs,
            ..
        } = outcome;
        if let Some(others) = peers {
            for id in &others.removed {
                let new = self.removed.insert(*id);
                self.counts.add("members removed", u64::from(new));
            }
            self.nodes[at].roster = others;
            self.probe_soon(at);
        }
        for (to, message) in send {
            self.send(at, to, message);
        }
        for outgoing in snapshots {
            self.send_snapshot(at, outgoing);
        }
        for (number, reply) in replies {
            match number & SNAPSHOT {
                0 => self.reply(at, number, reply),
                _ => self.snapshot_reply(at, number & !SNAPSHOT, &reply)?,
            }
        }
        if job {
            let delay = self.micros(self.plan.job.clone());
            self.after(delay, at, Step::Job);
        }
        if hash {
            let delay = self.micros(100..20_000);
            self.after(delay, at, Step::Hash);
        }
        let stall = match self.nodes[at].slow > self.now {
            true => self.micros(100_000..3_000_000),
            false => Duration::ZERO,
        };
        if writes {
            let delay = self.micros(self.plan.write.clone());
            self.after(delay, at, Step::Write);
        } else if syncs {
            let delay = self.micros(self.plan.sync.clone()) + stall;
            self.after(delay, at, Step::Sync);
        } else {
            self.plan_turn(at);
        }
        Ok(())
    }

    /// Looks at a member after a step.
    fn observe(&mut self, at: usize, outcome: &Outcome) -> anyhow::Result<()> {
        let node = &mut self.nodes[at];
        if outcome.durable {
            let done = std::mem::take(&mut node.under_way);
            node.promised.append(&done);
        }
        let Some(shell) = &node.shell else {
            return Ok(());
        };
        if outcome.writes
            && let Some(append) = shell.append()
        {
            node.log.append(&append.records);
            node.under_way.clone_from(&append.records);
        }
        let mut news = outcome.installed.is_some();
        let status = shell.member.driver().status();
        let voters = shell.member.driver().conf_state().voters.clone();
        let state = shell.member.state();
        if status.role == Role::Leader {
            news |= self.oracle.leads(at, status.term, &node.log)?;
        }
        let applied = state.applied().get();
        let line = (status.term, status.leader, status.commit, applied);
        if let Some((applied, revision)) = outcome.installed {
            (node.applied, node.revision) = (applied, revision);
            witness::pairs(&self.model, state)?;
        }
        let applied_before = std::mem::replace(&mut node.applied, applied);
        let revision_before = std::mem::replace(&mut node.revision, state.store().revision());
        let voters_before = std::mem::replace(&mut node.voters, voters);
        news |= voters_before != node.voters;
        for index in applied_before + 1..=applied {
            let new = self
                .oracle
                .applies(&self.nodes, at, index, &voters_before)?;
            if let Some(data) = new {
                self.model.apply(self.now, &data)?;
            }
        }
        if applied > applied_before || outcome.installed.is_some() {
            let shell = self.nodes[at].shell.as_ref();
            let state = shell.context("it has just made a step")?.member.state();
            self.witness.rows(&self.model, state, revision_before)?;
            if self.witness.state(state)? {
                self.counts.one("states compared");
            }
        }
        if news {
            self.ambush(at);
        }
        self.note(format_args!(
            "m{at} {}{}{}term {} leader {:x} commit {} applied {applied}",
            if outcome.durable { "durable " } else { "" },
            if outcome.writes { "writes " } else { "" },
            if outcome.syncs { "syncs " } else { "" },
            line.0,
            line.1,
            line.2,
        ));
        Ok(())
    }

    /// Starts a process, if it does not run.
    pub(super) fn start(&mut self, at: usize) -> anyhow::Result<()> {
        self.boot(at).with_context(|| format!("m{at} starts"))
    }

    fn boot(&mut self, at: usize) -> anyhow::Result<()> {
        if self.nodes[at].shell.is_some() {
            return Ok(());
        }
        let found = self.nodes[at]
            .read_log()
            .context("the log cannot be read")?;
        if let Some(found) = found {
            let node = &mut self.nodes[at];
            oracle::kept(&node.promised, &found, replaced_from(&node.under_way))?;
            node.log = found.clone();
            node.promised = found;
        }
        self.nodes[at].under_way.clear();
        let (seed, peers) = (self.rng.random(), Vec::new());
        let removed = Vec::new();
        self.nodes[at].roster = Others { peers, removed };
        self.nodes[at].boot(self.now, seed)?;
        self.counts.one("starts");
        let (id, applied) = (self.nodes[at].id, self.nodes[at].applied);
        self.note(format_args!("m{at} starts, id {id}, applied {applied}"));
        if let Some(shell) = &self.nodes[at].shell {
            witness::pairs(&self.model, shell.member.state())?;
        }
        self.probe_soon(at);
        self.watch(at);
        // What a real shell does before it looks into its inbox.
        let node = &mut self.nodes[at];
        node.turn_at = None;
        if let Some(shell) = &mut node.shell {
            let outcome = shell.turn(Duration::ZERO)?;
            self.observe(at, &outcome)?;
            self.follow(at, outcome)?;
        }
        Ok(())
    }

    /// Ends a process; clients that wait for it may learn so.
    pub(super) fn end(&mut self, at: usize, how: End) {
        let life = self.nodes[at].life;
        self.break_transfers(|from, to| from == at || to == at);
        if self.nodes[at].end(how, &mut self.nemesis) {
            self.counts.one("crashes in the middle of a write");
        }
        self.note(format_args!("m{at} {how:?}"));
        for client in 0..self.clients.len() {
            let Some(number) = self.clients[client].waits_at(at, life) else {
                continue;
            };
            // A broken connection says nothing about what it had carried; a lost one not even that.
            if self.nemesis.random_bool(0.7) {
                let arrival = self.now + self.network.client_delay(&self.plan);
                let answer = Answer::Unknown;
                self.queue.at(
                    arrival,
                    Event::Answer {
                        client,
                        number,
                        answer,
                    },
                );
            }
        }
        self.probe_soon(at);
    }
}
