//! What processes do: steps, and what follows from them; starts and ends.

use std::time::Duration;

use anyhow::Context;
use ferrite_raft::Role;
use ferrite_server::member::Fatal;

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
                let rebuilt = shell.run_job();
                self.counts
                    .add("defragmentations ended", u64::from(rebuilt));
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
    pub(super) fn follow(&mut self, at: usize, outcome: Outcome) -> anyhow::Result<()> {
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
                self.note_removed(*id);
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
            true => self.micros(100_000..6_000_000),
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
    pub(super) fn observe(&mut self, at: usize, outcome: &Outcome) -> anyhow::Result<()> {
        let node = &mut self.nodes[at];
        if outcome.durable {
            let done = std::mem::take(&mut node.under_way);
            node.promised.append(&done);
        }
        if outcome.recovered {
            node.lost = None;
            self.counts.one("damaged logs made up for");
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
        if shell.published.no_space() {
            self.counts.one("steps without room");
        }
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
                let revoked = self.model.apply(self.now, &data)?;
                if let Some(revoked) = revoked {
                    self.check_end(&revoked)?;
                }
            }
        }
        if applied > applied_before || outcome.installed.is_some() {
            let shell = self.nodes[at].shell.as_ref();
            let shell = shell.context("it has just made a step")?;
            let state = shell.member.state();
            self.witness.rows(&self.model, state, revision_before)?;
            if self.witness.state(state, shell.published.hashes())? {
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
}
