//! Snapshots: the state as a whole, for a member that needs entries which the log has dropped.
//!
//! ```text
//!  leader: raft wants one ──▶ State::export ──▶ offered ──▶ Effects::snapshots ──▶ SnapshotSent
//!  follower: SnapshotOffered ──▶ (content received beside the page file) ──▶ SnapshotReceived
//!            ──▶ the log restarts, durably ──▶ Effects::install ──▶ installed: another state
//! ```
//!
//! The received state takes the place of this one as a whole. A job of the old one must have ended
//! before, and none begins meanwhile; a hash of the old one is forgotten.

use bytes::Bytes;
use ferrite_api::types::MemberId;
use ferrite_raft as raft;
use ferrite_storage::page::ConfState;
use ferrite_storage::schema;
use ferrite_storage::snapshot::{Export, Received};
use ferrite_storage::state::State;
use tonic::Code;

use super::{Fatal, Member, Reply, cluster_of};
use crate::error::Error;
use crate::lessor::Lessor;
use crate::release::InvalidDowngrade;

/// A snapshot to be sent. What becomes of it is reported with
/// [`Input::SnapshotSent`](super::Input::SnapshotSent).
#[derive(Debug)]
pub struct Outgoing {
    /// The member that needs it.
    pub to: MemberId,
    /// What consensus says of it.
    pub message: Bytes,
    /// The state.
    pub export: Export,
}

/// A snapshot whose content has been received.
#[derive(Debug)]
pub struct Incoming {
    /// What consensus says of it.
    pub message: Bytes,
    /// The content: verified, durable beside the page file.
    pub received: Box<Received>,
}

/// How far the snapshot is that is to become the state.
#[derive(Debug)]
pub(super) enum Installing<T> {
    /// A job of the old state is still running.
    Waiting(Incoming, T),
    /// The log restarts.
    Restarting(Box<State>, T),
    /// The owner puts the page file in place.
    Placing(Box<State>, T),
}

impl<T> Member<T> {
    /// Offers raft the state as it is now, for each follower that needs a snapshot.
    pub(super) fn export(&mut self, wanted: Vec<u64>) {
        for to in wanted {
            let export = self.state.export();
            let snapshot = raft::Snapshot {
                index: export.index(),
                term: export.term(),
                conf_state: conf_state(export.conf_state()),
            };
            if self.driver.offer_snapshot(to, snapshot) {
                self.exports.insert(to, export);
            }
        }
    }

    pub(super) fn send_snapshots(&mut self, snapshots: Vec<raft::OutgoingSnapshot>) {
        for snapshot in snapshots {
            let Some(export) = self.exports.remove(&snapshot.to) else {
                self.driver.report_snapshot(snapshot.to, false);
                continue;
            };
            tracing::info!(
                to = %MemberId::new(snapshot.to),
                index = export.index(),
                bytes = export.size_hint(),
                "sending a snapshot"
            );
            self.snapshots.push(Outgoing {
                to: MemberId::new(snapshot.to),
                message: snapshot.message,
                export,
            });
        }
    }

    /// A leader wants to send a snapshot: whether its content is worth being received.
    pub(super) fn snapshot_offered(&mut self, message: &Bytes, waiter: T) {
        let wanted = match self.driver.check_snapshot(message) {
            Ok(_) if self.installing.is_some() => Err("another snapshot is being installed".into()),
            Ok(snapshot) if self.driver.needs_snapshot(&snapshot) => Ok(()),
            Ok(snapshot) => {
                // Raft tells the leader how far this member is; else it would be offered again and again.
                match self.driver.install_snapshot(message) {
                    Ok(_) => Err(format!(
                        "a snapshot at index {} is not needed",
                        snapshot.index
                    )),
                    Err(error) => Err(error.to_string()),
                }
            }
            Err(error) => Err(error.to_string()),
        };
        self.replies.push((waiter, reply(wanted)));
    }

    /// Whether a snapshot that was received is about to replace the state.
    pub fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    /// The content of a snapshot was received.
    pub(super) fn snapshot_received(&mut self, incoming: Incoming, waiter: T) {
        if self.installing.is_some() {
            let busy = Err("another snapshot is being installed".to_owned());
            self.replies.push((waiter, reply(busy)));
            return;
        }
        self.installing = Some(Installing::Waiting(incoming, waiter));
    }

    /// Goes on with the snapshot that is to be installed, if it can.
    ///
    /// # Errors
    /// It is of a cluster version above this program's.
    pub(super) fn install(&mut self) -> Result<(), Fatal> {
        // The job's end must not be taken for one of the new state.
        if self.job_running || self.job.is_some() {
            return Ok(());
        }
        match self.installing.take() {
            Some(Installing::Waiting(incoming, waiter)) => {
                let cluster = incoming.received.state.cluster_version();
                InvalidDowngrade::check(self.options.release, cluster)?;
                match self.take_in(incoming) {
                    Ok(Some(state)) => {
                        self.installing = Some(Installing::Restarting(state, waiter));
                    }
                    // Nothing to install any more, which is no failure.
                    Ok(None) => self.replies.push((waiter, Reply::Discard)),
                    Err(why) => self.replies.push((waiter, reply(Err(why)))),
                }
            }
            other => self.installing = other,
        }
        Ok(())
    }

    fn take_in(&mut self, incoming: Incoming) -> Result<Option<Box<State>>, String> {
        let Incoming { message, received } = incoming;
        let Received {
            index,
            term,
            conf_state: conf,
            state,
        } = *received;
        let meta = state.store().page().meta();
        schema::check(&meta, self.options.release).map_err(|error| error.to_string())?;
        let snapshot = self
            .driver
            .check_snapshot(&message)
            .map_err(|error| error.to_string())?;
        let content = raft::Snapshot {
            index,
            term,
            conf_state: conf_state(conf),
        };
        if snapshot != content {
            return Err(format!("{snapshot:?} was announced, {content:?} came"));
        }
        let accepted = self.driver.install_snapshot(&message);
        let accepted = accepted.map_err(|error| error.to_string())?;
        Ok(accepted.then(|| Box::new(state)))
    }

    /// The log has restarted at the snapshot: the owner puts the page file in place.
    pub(super) fn place(&mut self) {
        match self.installing.take() {
            Some(Installing::Restarting(state, waiter)) => {
                self.place = true;
                self.installing = Some(Installing::Placing(state, waiter));
            }
            _ => unreachable!("the driver installs what it was given, once"),
        }
    }

    /// The page file of the snapshot is in place: its state is this member's from now on.
    ///
    /// # Panics
    /// If [`Effects::install`](super::Effects::install) did not ask for it.
    pub fn installed(&mut self) {
        let Some(Installing::Placing(mut state, waiter)) = self.installing.take() else {
            panic!("no snapshot was to be put in place");
        };
        state.count_on_from(&self.state);
        self.state.store().page().replaced();
        self.state = *state;
        self.waiters.forget();
        let applied = self.state.applied().get();
        self.driver.installed(applied);
        self.checkpointed = applied;
        self.last_checkpoint = self.now;
        self.hash_stale = self.hash_running;
        // It was of the old page file.
        self.defragmentation.again();
        self.prune = false;
        self.page_full = false;
        self.peers_changed = true;
        self.state_replaced();
        tracing::info!(
            index = applied,
            revision = self.state.store().revision(),
            "installed a snapshot"
        );
        // A member that takes a snapshot does not lead, so nobody renews here.
        let lessor = Lessor::new(self.options.lessor.clone(), self.state.leases().iter());
        let mut old = std::mem::replace(&mut *self.lessor.lock(), lessor);
        drop(old.demote());
        // Who had a token then may be another user now.
        self.tokens.lock().end_all();
        self.published.roots().compacted(i64::MAX);
        self.publish_auth();
        self.published.set_view(self.state.view());
        self.published.set_cluster(cluster_of(&self.state));
        self.published.set_applied(applied);
        self.publish_space();
        self.publish_raft();
        self.answer_compactions();
        self.replies.push((waiter, Reply::Done));
    }
}

fn reply(result: Result<(), String>) -> Reply {
    match result {
        Ok(()) => Reply::Done,
        Err(why) => Reply::Failed(Error::status(Code::FailedPrecondition, why)),
    }
}

/// The same, in raft's type.
pub(super) fn conf_state(conf: ConfState) -> raft::ConfState {
    raft::ConfState {
        voters: conf.voters,
        learners: conf.learners,
        voters_outgoing: conf.voters_outgoing,
        learners_next: conf.learners_next,
        auto_leave: conf.auto_leave,
    }
}
