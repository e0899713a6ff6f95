//! Processes start and end.

use std::time::Duration;

use anyhow::{Context, ensure};
use ferrite_api::Version;
use rand::Rng;

use super::log::replaced_from;
use super::node::End;
use super::oracle;
use super::request::Answer;
use super::witness;
use super::world::{Event, World};

impl World {
    /// Starts a process, if it does not run.
    pub(super) fn start(&mut self, at: usize) -> anyhow::Result<()> {
        self.boot(at).with_context(|| format!("m{at} starts"))
    }

    fn boot(&mut self, at: usize) -> anyhow::Result<()> {
        if self.nodes[at].shell.is_some() {
            return Ok(());
        }
        let node = &self.nodes[at];
        if !node.damaged {
            let found = node.read_log().context("the log cannot be read")?;
            let replaced = replaced_from(&node.under_way);
            oracle::kept(&node.promised, &found, replaced)?;
        }
        if self.chaos && self.nemesis.random_bool(0.05) {
            self.nodes[at].boot_in_vain(&mut self.nemesis);
            self.counts.one("starts cut off");
            return self.boot_again(at);
        }
        if node.life > 0 && node.release() < Version::RELEASE && self.upgrades.random() {
            self.nodes[at].install(Version::RELEASE);
            self.counts.one("programs upgraded");
        }
        let (seed, full) = (self.rng.random(), self.nodes[at].is_full());
        match self.nodes[at].boot(self.now, seed) {
            Ok(()) => {}
            // Somebody makes room, and tries again.
            Err(_) if full => {
                self.nodes[at].set_room(None);
                self.counts.one("starts without room");
                return self.boot_again(at);
            }
            Err(error) => return Err(error),
        }
        // What was found is durable now.
        let node = &mut self.nodes[at];
        let found = node.read_log().context("the log cannot be read again")?;
        if std::mem::take(&mut node.damaged) {
            // Entries come back from the others; term and vote must not be forgotten.
            oracle::kept(&node.promised, &found, Some(0))?;
        }
        // The other members make up for a loss, and would hide that the member itself caused it.
        if let Some(shell) = &node.shell {
            let recovering = shell.member.driver().status().recovering;
            ensure!(
                !recovering || node.lost.is_some(),
                "it takes a log for damaged that is not"
            );
        }
        node.promised = found;
        node.log = node.promised.clone();
        node.under_way.clear();
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

    fn boot_again(&mut self, at: usize) -> anyhow::Result<()> {
        let pause = self.nemesis.random_range(10..500);
        let again = self.now + Duration::from_millis(pause);
        self.queue.at(again, Event::Boot { at });
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
