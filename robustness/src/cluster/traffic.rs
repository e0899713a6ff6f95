//! Messages between members, and what members know of their links.

use ferrite_api::types::MemberId;
use ferrite_server::member::Input;
use ferrite_server::peer::Message;

use super::world::{Event, World};

impl World {
    pub(super) fn send(&mut self, from: usize, to: MemberId, message: Message) {
        let Some(to) = self.position(to) else { return };
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
        self.note(format_args!("m{from} > m{to} {}", name(&message)));
        let from = self.nodes[from].id;
        let messages = vec![message];
        if let Some(shell) = &mut self.nodes[to].shell {
            shell.push(Input::Peer { from, messages });
        }
        self.plan_turn(to);
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
        let works = !self.network.is_cut(at, peer)
            && !self.network.is_cut(peer, at)
            && self.nodes[peer].shell.is_some();
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
        Message::ReadIndex { number } => format!("read index {number:x}"),
        Message::ReadIndexAnswer { number, index } => format!("read index {number:x}: {index:?}"),
    }
}
