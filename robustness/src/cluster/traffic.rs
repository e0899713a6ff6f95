//! Messages between members, and what members know of their links.

use ferrite_api::types::MemberId;
use ferrite_server::member::{Input, ReadsDo};
use ferrite_server::peer::{Message, ReadMessage};

use super::mutant::Mutant;
use super::world::{Event, World};

impl World {
    pub(super) fn send(&mut self, from: usize, to: MemberId, message: Message) {
        let Some(to) = self.position(to) else { return };
        if !self.nodes[from].knows(self.nodes[to].id) {
            return;
        }
        self.counts.one("messages");
        // Without a connection there is nothing to send on.
        let reaches = self.nodes[from].reaches.contains(&to);
        let arrival = self.network.arrival(&self.plan, self.now, (from, to));
        match arrival.filter(|_| reaches) {
            Some(time) => {
                let lives = (self.nodes[from].life, self.nodes[to].life);
                self.queue.at(
                    time,
                    Event::Deliver {
                        from,
                        to,
                        lives,
                        message,
                    },
                );
            }
            None => {
                self.counts.one("messages lost");
                self.note(format_args!("m{from} > m{to} {} lost", name(&message)));
            }
        }
    }

    pub(super) fn deliver(&mut self, from: usize, to: usize, lives: (u64, u64), message: Message) {
        let now = (self.nodes[from].life, self.nodes[to].life);
        if now != lives || self.network.is_cut(from, to) || self.nodes[to].shell.is_none() {
            self.counts.one("messages lost");
            return;
        }
        // A removed member learns so from whomever it calls.
        let (receiver, sender) = (&self.nodes[to], self.nodes[from].id);
        if receiver.roster.removed.contains(&sender) {
            self.tell_removed(from, to);
            return;
        }
        if !receiver.knows(sender) {
            // The receiver may lag behind the addition of the leader, who alone can help it (etcd adds such a
            // caller as a "remote", too).
            self.meet(to, from);
        }
        self.note(format_args!("m{from} > m{to} {}", name(&message)));
        let Some(shell) = &mut self.nodes[to].shell else {
            return;
        };
        match message {
            Message::Read(message) => {
                let does = match (self.mutant, message) {
                    (Some(Mutant::ConfirmAnyTerm), ReadMessage::Confirm { term, number }) => {
                        let confirmed = ReadMessage::Confirmed { term, number };
                        ReadsDo {
                            send: vec![(sender, Message::Read(confirmed))],
                            replies: Vec::new(),
                        }
                    }
                    _ => shell.member.reads().hear(sender, message),
                };
                self.do_for_reads(to, does);
            }
            message => {
                shell.push(Input::Peer {
                    from: sender,
                    messages: vec![message],
                });
                self.plan_turn(to);
            }
        }
    }

    /// A member is called by one that it does not know.
    fn meet(&mut self, at: usize, caller: usize) {
        let id = self.nodes[caller].id;
        self.nodes[at].remotes.insert(id);
        let delay = self.micros(1_000..300_000);
        let peer = caller;
        self.queue.at(self.now + delay, Event::Probe { at, peer });
    }

    /// Tells a member that it was removed.
    fn tell_removed(&mut self, at: usize, by: usize) {
        if !self.nodes[at].told_removed.contains(&by)
            && let Some(time) = self.network.arrival(&self.plan, self.now, (by, at))
        {
            self.nodes[at].told_removed.insert(by);
            let life = self.nodes[at].life;
            self.queue.at(time, Event::Removed { at, life, by });
        }
    }

    pub(super) fn hear_removed(&mut self, at: usize, life: u64, by: usize) {
        let by = self.nodes[by].id;
        let node = &mut self.nodes[at];
        if node.life == life
            && let Some(shell) = &mut node.shell
        {
            shell.push(Input::Removed { by });
            self.plan_turn(at);
        }
    }

    /// Somebody may have become reachable, or not, for `at` and all others.
    pub(super) fn probe_soon(&mut self, at: usize) {
        for peer in 0..self.nodes.len() {
            for (at, peer) in [(at, peer), (peer, at)] {
                if at != peer {
                    let delay = self.micros(1_000..300_000);
                    self.queue.at(self.now + delay, Event::Probe { at, peer });
                }
            }
        }
    }

    pub(super) fn probe(&mut self, at: usize, peer: usize) {
        let (own, other) = (&self.nodes[at], &self.nodes[peer]);
        let connected = !self.network.is_cut(at, peer)
            && !self.network.is_cut(peer, at)
            && own.shell.is_some()
            && other.shell.is_some()
            && own.knows(other.id);
        let removed = other.roster.removed.contains(&own.id);
        let works = connected && !removed;
        if connected && removed {
            self.tell_removed(at, peer);
        } else if connected && !other.knows(own.id) {
            self.meet(peer, at);
        }
        let id = self.nodes[peer].id;
        let node = &mut self.nodes[at];
        let Some(shell) = &mut node.shell else { return };
        let changed = match works {
            true => node.reaches.insert(peer),
            false => node.reaches.remove(&peer),
        };
        if changed {
            shell.push(Input::Reachable {
                peer: id,
                reachable: works,
            });
            self.note(format_args!("m{at} reaches m{peer}: {works}"));
            self.plan_turn(at);
        }
    }
}

/// What a message is, for the trace.
fn name(message: &Message) -> String {
    match message {
        Message::Raft(bytes) => {
            let kind = match bytes.first() {
                Some(8) => bytes.get(1).copied().unwrap_or(0),
                _ => 0,
            };
            format!(
                "raft {kind} {:08x}",
                crate::history::hash_value(bytes) >> 32
            )
        }
        Message::Propose { term, proposals } => {
            format!("propose {} for term {term}", proposals.len())
        }
        Message::Refused { term, ids } => format!("refused {} in term {term}", ids.len()),
        Message::Read(message) => format!("{message:x?}"),
        Message::VersionQuestion { number } => format!("version {number}"),
        Message::VersionAnswer { number, version } => format!("version {number}: {version}"),
    }
}
