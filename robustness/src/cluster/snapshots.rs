//! Snapshots on their way from member to member, piece by piece: as a transport carries them, with everything
//! that a member's owner has to do for one at both ends.
//!
//! ```text
//!   sender    offer ─┐        ┌─▶ next piece ─┐      ┌─▶ end ─┐           ┌─▶ sent: taken or not
//!   receiver         └▶ asked ┘ ... importing └──────┘        └▶ received ┘
//! ```

use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use ferrite_api::types::MemberId;
use ferrite_server::member::{Incoming, Input, Outgoing, Reply};
use ferrite_storage::page;
use ferrite_storage::snapshot::{self, Export, Import, Limits};

use super::world::{Event, Step, World};

/// Marks the number of a snapshot among those of requests.
pub(super) const SNAPSHOT: u64 = 1 << 63;

/// A few rows a piece, so that there are many.
const LIMITS: Limits = Limits {
    piece_bytes: 2 << 10,
    step_rows: 10,
    step_bytes: 4 << 10,
};

/// A snapshot under way.
#[derive(Debug)]
pub(super) struct Transfer {
    from: usize,
    to: usize,
    /// The runs of both processes.
    lives: (u64, u64),
    message: Bytes,
    export: Export,
}

/// What a member is at that receives a snapshot.
#[derive(Debug)]
pub(super) enum Receiving {
    /// It asks the member whether the content is wanted.
    Asked,
    /// It receives it.
    Importing(u64, Box<Import>),
    /// It waits until the member has taken it, or not.
    Received,
}

/// What passes between the two.
#[derive(Debug)]
pub(super) enum Part {
    /// To the receiver: is it wanted?
    Offer,
    /// To the sender: the next piece.
    Next,
    /// To the receiver: a piece.
    Piece(Bytes),
    /// To the receiver: there are no more.
    End,
    /// To the sender: whether it was taken.
    Sent(bool),
}

impl World {
    /// A member wants to send a snapshot.
    pub(super) fn send_snapshot(&mut self, from: usize, outgoing: Outgoing) {
        let Outgoing {
            to,
            message,
            export,
        } = outgoing;
        self.counts.one("snapshots begun");
        let Some(to) = self.position(to) else { return };
        self.note(format_args!(
            "m{from} > m{to} snapshot at {}",
            export.index()
        ));
        self.next_transfer += 1;
        let id = self.next_transfer;
        let lives = (self.nodes[from].life, self.nodes[to].life);
        let export = export.with_limits(LIMITS);
        let works = self.nodes[from].reaches.contains(&to)
            && self.nodes[to].shell.is_some()
            && !self.network.is_cut(from, to)
            && !self.network.is_cut(to, from);
        let transfer = Transfer {
            from,
            to,
            lives,
            message,
            export,
        };
        self.transfers.insert(id, transfer);
        match works {
            true => self.pass(id, Part::Offer),
            false => self.break_off(id),
        }
    }

    /// Passes a part on to the side that it is for.
    fn pass(&mut self, id: u64, part: Part) {
        let Some(transfer) = self.transfers.get(&id) else {
            return;
        };
        let (at, life) = match part {
            Part::Next | Part::Sent(_) => (transfer.from, transfer.lives.0),
            Part::Offer | Part::Piece(_) | Part::End => (transfer.to, transfer.lives.1),
        };
        let arrival = self.now + self.network.stream_delay(&self.plan, self.now);
        let step = Step::Snapshot { id, part };
        self.queue.at(arrival, Event::Process { at, life, step });
    }

    /// A part has arrived.
    pub(super) fn snapshot_part(&mut self, at: usize, id: u64, part: Part) -> anyhow::Result<()> {
        let Some(transfer) = self.transfers.get_mut(&id) else {
            return Ok(());
        };
        let to = self.nodes[transfer.to].id;
        let node = &mut self.nodes[at];
        let shell = node.shell.as_mut().context("it runs")?;
        match part {
            Part::Offer if shell.receiving.is_some() => self.pass(id, Part::Sent(false)),
            Part::Offer => {
                shell.receiving = Some(Receiving::Asked);
                let message = transfer.message.clone();
                let waiter = SNAPSHOT | id;
                shell.push(Input::SnapshotOffered { message, waiter });
                self.plan_turn(at);
            }
            Part::Next => match transfer.export.next_piece() {
                Ok(Some(piece)) => self.pass(id, Part::Piece(piece)),
                Ok(None) => self.pass(id, Part::End),
                Err(snapshot::Error::Overtaken { .. }) => {
                    self.counts.one("snapshots overtaken");
                    self.break_off(id);
                }
                Err(error) => return Err(error).context("it sends a snapshot"),
            },
            Part::Piece(piece) => {
                if let Some(Receiving::Importing(_, import)) = &mut shell.receiving {
                    match import.piece(piece) {
                        Ok(()) => self.pass(id, Part::Next),
                        Err(error) => return self.not_received(at, id, error),
                    }
                }
            }
            Part::End => {
                if let Some(Receiving::Importing(_, import)) = shell.receiving.take() {
                    let received = match import.finish() {
                        Ok(received) => Box::new(received),
                        Err(error) => return self.not_received(at, id, error),
                    };
                    shell.receiving = Some(Receiving::Received);
                    let snapshot = Incoming {
                        message: transfer.message.clone(),
                        received,
                    };
                    let waiter = SNAPSHOT | id;
                    shell.receive(Input::SnapshotReceived { snapshot, waiter })?;
                    self.counts.one("snapshots received");
                    self.ambush(at);
                    self.plan_turn(at);
                }
            }
            Part::Sent(taken) => {
                shell.push(Input::SnapshotSent { to, taken });
                self.transfers.remove(&id);
                self.plan_turn(at);
            }
        }
        Ok(())
    }

    /// The receiving member has answered.
    pub(super) fn snapshot_reply(
        &mut self,
        at: usize,
        id: u64,
        reply: &Reply,
    ) -> anyhow::Result<()> {
        let wanted = self.transfers.contains_key(&id);
        let shell = self.nodes[at].shell.as_mut().context("it runs")?;
        let (disk, page_path) = (Arc::clone(&shell.disk), shell.page_path.clone());
        match (shell.receiving.take(), reply) {
            (Some(Receiving::Asked), Reply::Done) if wanted => {
                let state = shell.member.state();
                let (member, cluster) = (state.member_id().get(), state.cluster_id().get());
                let options = shell.page_options.clone();
                match Import::begin(disk, &page_path, options, member, cluster) {
                    Ok(import) => {
                        shell.receiving = Some(Receiving::Importing(id, Box::new(import)));
                        self.pass(id, Part::Next);
                    }
                    Err(error) => return self.not_received(at, id, error),
                }
            }
            (Some(Receiving::Received), Reply::Done) => {
                self.counts.one("snapshots installed");
                self.pass(id, Part::Sent(true));
            }
            (Some(Receiving::Received), reply) => {
                snapshot::discard(&disk, &page_path)?;
                self.counts.one("snapshots discarded");
                self.pass(id, Part::Sent(matches!(reply, Reply::Discard)));
            }
            _ => self.pass(id, Part::Sent(false)),
        }
        Ok(())
    }

    /// A snapshot could not be received: there is no room for it.
    fn not_received(&mut self, at: usize, id: u64, error: snapshot::Error) -> anyhow::Result<()> {
        if !matches!(
            &error,
            snapshot::Error::Storage(ferrite_storage::Error::Page(page::Error::NoSpace { .. }))
        ) {
            return Err(error).context("it receives a snapshot");
        }
        self.counts.one("snapshots without room");
        if let Some(shell) = &mut self.nodes[at].shell {
            shell.receiving = None;
        }
        self.pass(id, Part::Sent(false));
        Ok(())
    }

    /// Ends a transfer whose connection is broken. What the receiver has completely goes on there.
    fn break_off(&mut self, id: u64) {
        let Some(transfer) = self.transfers.remove(&id) else {
            return;
        };
        let Transfer {
            from, to, lives, ..
        } = transfer;
        let arrival = self.now + self.network.stream_delay(&self.plan, self.now);
        let (at, life) = (from, lives.0);
        let step = Step::SnapshotFailed {
            to: self.nodes[to].id,
        };
        self.queue.at(arrival, Event::Process { at, life, step });
        let receiver = &mut self.nodes[to];
        if receiver.life == lives.1
            && let Some(shell) = &mut receiver.shell
            && matches!(&shell.receiving, Some(Receiving::Importing(importing, _)) if *importing == id)
        {
            shell.receiving = None;
        }
    }

    /// Breaks all transfers that a condition holds for.
    pub(super) fn break_transfers(&mut self, broken: impl Fn(usize, usize) -> bool) {
        let broken = self
            .transfers
            .iter()
            .filter(|(_, transfer)| broken(transfer.from, transfer.to));
        let broken: Vec<u64> = broken.map(|(id, _)| *id).collect();
        for id in broken {
            self.break_off(id);
        }
    }

    /// A snapshot has not arrived.
    pub(super) fn snapshot_failed(&mut self, at: usize, to: MemberId) {
        if let Some(shell) = &mut self.nodes[at].shell {
            shell.push(Input::SnapshotSent { to, taken: false });
        }
        self.plan_turn(at);
    }
}
