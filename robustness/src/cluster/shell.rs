//! A member and its shell, cut into steps: what `ferrite_server`'s shell does with threads, a clock and a
//! disk is done here one step at a time, by whoever says what comes when.
//!
//! ```text
//!   turn: take what has arrived, tick, effects ─▶ sends, replies, job, hash
//!     └─▶ write: the append ─▶ sync ─▶ appended, effects ─▶ write ... ─▶ idle
//!   run job ─▶ report           step hash ... ─▶ (reported)
//! ```
//!
//! As in the real shell, nothing is taken from the inbox between the write of an append and the end of its
//! sync, and everything is sent before the append is written.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ferrite_disk::sim::SimDisk;
use ferrite_disk::wal::{Position, Wal};
use ferrite_disk::{Disk, DiskLock};
use ferrite_raft::{Append, BallotFile, Ticket};
use ferrite_server::bootstrap;
use ferrite_server::member::{
    Effects, Fatal, Input, Member, Options, Others, Outgoing, Published, Reply,
};
use ferrite_server::peer::Message;
use ferrite_server::request_id::RequestIds;
use ferrite_storage::checkpoint::{CompactionHash, Done, Job};
use ferrite_storage::page::{self, RebuildStep};
use ferrite_storage::snapshot;

use ferrite_api::types::MemberId;

use super::log::ENTRY_RECORD;
use super::mutant::Mutant;
use super::snapshots::Receiving;
use super::watchers::Watching;
use crate::sim::TICK;

/// Bytes of the next log segment that are prepared per tick.
const SPARE_BYTES: u64 = 4 << 10;

/// What the member's thread is at.
#[derive(Debug)]
enum Phase {
    /// It waits for inputs.
    Idle,
    /// It is about to write an append.
    Writing(Append),
    /// It is about to sync what it has written.
    Syncing {
        ticket: Ticket,
        positions: Vec<Position>,
        promise: Option<(u64, u64)>,
    },
}

/// What a step has brought. Later steps follow from `disk`, `job` and `hash`.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) peers: Option<Others>,
    pub(super) send: Vec<(MemberId, Message)>,
    pub(super) snapshots: Vec<Outgoing>,
    /// A snapshot was installed: its applied index, and its revision.
    pub(super) installed: Option<(u64, i64)>,
    pub(super) replies: Vec<(u64, Reply)>,
    /// A job was handed out: [`Shell::run_job`].
    pub(super) job: bool,
    /// A hash was handed out: [`Shell::step_hash`].
    pub(super) hash: bool,
    /// The append that is to be written: [`Shell::write`].
    pub(super) writes: bool,
    /// What was written is to be synced: [`Shell::sync`].
    pub(super) syncs: bool,
    /// An append is durable, as far as the member was told.
    pub(super) durable: bool,
    /// The member has what its log had lost.
    pub(super) recovered: bool,
}

/// A member's process.
#[derive(Debug)]
pub(super) struct Shell {
    pub(super) member: Member<u64>,
    pub(super) published: Arc<Published>,
    pub(super) ids: Arc<RequestIds>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) page_path: PathBuf,
    pub(super) page_options: page::Options,
    pub(super) watching: Watching,
    /// The snapshot on its way in.
    pub(super) receiving: Option<Receiving>,
    wal: Wal,
    ballots: BallotFile,
    inbox: Vec<Input<u64>>,
    phase: Phase,
    /// On the member's clock.
    next_tick: Duration,
    idle: bool,
    job: Option<Job>,
    done: Option<Done>,
    hash: Option<CompactionHash>,
    mutant: Option<Mutant>,
    _lock: Box<dyn DiskLock>,
}

impl Shell {
    /// Starts a member on `disk`. Its clock is at 0.
    pub(super) fn boot(
        disk: &SimDisk,
        incarnation: u64,
        bootstrap: &bootstrap::Options,
        options: Options,
        mutant: Option<Mutant>,
    ) -> Result<Self, bootstrap::Error> {
        let disk: Arc<dyn Disk> = Arc::new(disk.session());
        let restored = bootstrap::restore(&disk, bootstrap)?;
        let id = restored.state.member_id();
        let ids = Arc::new(RequestIds::new(id, incarnation));
        let own = Arc::clone(&ids);
        let (member, published) = Member::new(restored.driver, restored.state, options, own);
        let watching = Watching::new(&published, member.state());
        Ok(Self {
            watching,
            member,
            published,
            ids,
            disk,
            page_path: bootstrap::page_path(bootstrap),
            page_options: bootstrap.page.clone(),
            receiving: None,
            wal: restored.wal,
            ballots: restored.ballots,
            inbox: Vec::new(),
            phase: Phase::Idle,
            next_tick: TICK,
            idle: false,
            job: None,
            done: None,
            hash: None,
            mutant,
            _lock: restored.lock,
        })
    }

    /// Puts something into the inbox.
    pub(super) fn push(&mut self, input: Input<u64>) {
        self.inbox.push(input);
    }

    /// When the next tick is due, on the member's clock.
    pub(super) fn next_tick(&self) -> Duration {
        self.next_tick
    }

    /// Whether a turn would do something.
    pub(super) fn has_work(&self, clock: Duration) -> bool {
        matches!(self.phase, Phase::Idle)
            && (!self.inbox.is_empty() || self.member.busy() || clock >= self.next_tick)
    }

    /// Takes everything that has arrived and does what follows from it, up to the first write.
    pub(super) fn turn(&mut self, clock: Duration) -> Result<Outcome, Fatal> {
        for input in std::mem::take(&mut self.inbox) {
            self.member.step(input)?;
        }
        self.tick(clock)?;
        self.member.advance(clock);
        self.effects()
    }

    fn tick(&mut self, clock: Duration) -> Result<(), Fatal> {
        if clock < self.next_tick {
            return Ok(());
        }
        self.member.step(Input::Tick)?;
        if std::mem::replace(&mut self.idle, true) {
            self.wal.sync()?;
            if self.wal.mark_synced()? {
                self.wal.sync()?;
            }
        }
        if self.wal.spares_ready() == 0 && self.wal.end().offset >= self.wal.active_bytes() / 4 * 3
        {
            match self.wal.prepare_spare(SPARE_BYTES) {
                Ok(_ready) => {}
                Err(error) if error.is_no_space() => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.next_tick += TICK;
        if self.next_tick < clock {
            self.next_tick = clock + TICK;
        }
        Ok(())
    }

    /// The append that waits to be written.
    pub(super) fn append(&self) -> Option<&Append> {
        match &self.phase {
            Phase::Writing(append) => Some(append),
            _ => None,
        }
    }

    /// Writes the append. Without a need to sync it, goes on to the next write.
    pub(super) fn write(&mut self) -> Result<Outcome, Fatal> {
        let Phase::Writing(append) = std::mem::replace(&mut self.phase, Phase::Idle) else {
            return Ok(Outcome::default());
        };
        self.idle = false;
        let positions = match self.wal.append(&append.records, &mut || append.head()) {
            Ok(positions) => positions,
            Err(error) if error.is_no_space() => {
                self.member.append_refused(append);
                return Ok(Outcome::default());
            }
            Err(error) => return Err(error.into()),
        };
        if self.must_sync(&append) {
            self.phase = Phase::Syncing {
                ticket: append.ticket,
                positions,
                promise: append.promise,
            };
            return Ok(Outcome {
                syncs: true,
                ..Outcome::default()
            });
        }
        self.appended(append.ticket, &positions)
    }

    fn must_sync(&self, append: &Append) -> bool {
        let has_entries = append
            .records
            .iter()
            .any(|record| record.kind == ENTRY_RECORD);
        match self.mutant {
            Some(Mutant::AckBeforeSync) => false,
            Some(Mutant::VoteNotSynced) => append.must_sync && has_entries,
            _ => append.must_sync,
        }
    }

    /// Syncs what was written, and goes on to the next write.
    pub(super) fn sync(&mut self) -> Result<Outcome, Fatal> {
        let Phase::Syncing {
            ticket,
            positions,
            promise,
        } = std::mem::replace(&mut self.phase, Phase::Idle)
        else {
            return Ok(Outcome::default());
        };
        self.wal.sync()?;
        if let Some(promise) = promise {
            self.ballots.promise(promise)?;
        }
        self.appended(ticket, &positions)
    }

    fn appended(&mut self, ticket: Ticket, positions: &[Position]) -> Result<Outcome, Fatal> {
        self.member.appended(ticket, positions);
        let mut outcome = self.effects()?;
        outcome.durable = true;
        Ok(outcome)
    }

    /// The content of a snapshot has been received.
    pub(super) fn receive(&mut self, input: Input<u64>) -> Result<(), Fatal> {
        if self.mutant == Some(Mutant::EarlyInstall) {
            snapshot::commit(&self.disk, &self.page_path)?;
        }
        self.push(input);
        Ok(())
    }

    fn effects(&mut self) -> Result<Outcome, Fatal> {
        let mut outcome = Outcome::default();
        loop {
            let Effects {
                peers,
                send,
                snapshots,
                replies,
                install,
                job,
                hash,
                append,
                release_before,
                recovered,
            } = self.member.effects()?;
            outcome.peers = peers.or(outcome.peers);
            outcome.send.extend(send);
            outcome.snapshots.extend(snapshots);
            outcome.replies.extend(replies);
            if install {
                // As in the real shell, nothing else happens before the new state is in place.
                if self.mutant != Some(Mutant::EarlyInstall) {
                    snapshot::commit(&self.disk, &self.page_path)?;
                }
                self.member.installed();
                let state = self.member.state();
                outcome.installed = Some((state.applied().get(), state.store().revision()));
            }
            outcome.job |= job.is_some();
            outcome.hash |= hash.is_some();
            self.job = job.or_else(|| self.job.take());
            self.hash = hash.or_else(|| self.hash.take());
            if recovered {
                self.ballots.recovered()?;
                outcome.recovered = true;
            }
            if let Some(segment) = release_before {
                self.wal.release_before(segment)?;
            }
            if let Some(append) = append {
                outcome.writes = true;
                self.phase = Phase::Writing(append);
                return Ok(outcome);
            }
            if !install {
                return Ok(outcome);
            }
        }
    }

    /// Runs the job. Its end is not known to the member yet. Whether it was the last step of a
    /// defragmentation.
    pub(super) fn run_job(&mut self) -> bool {
        self.done = self.job.take().map(Job::run);
        matches!(&self.done, Some(Done::Rebuilt(step)) if matches!(**step, RebuildStep::Ended(_)))
    }

    /// Reports the job's end.
    pub(super) fn report_job(&mut self) {
        let done = self.done.take().map(Input::JobDone);
        self.inbox.extend(done);
    }

    /// Goes on with the hash. Whether it has ended.
    pub(super) fn step_hash(&mut self) -> bool {
        let hashed = self.hash.as_mut().and_then(CompactionHash::step);
        let ended = hashed.is_some();
        if ended {
            // What it has pinned is free.
            self.hash = None;
        }
        self.inbox.extend(hashed.map(Input::HashDone));
        ended
    }

    /// Whether the member was removed, and nothing is under way.
    pub(super) fn is_removed(&self) -> bool {
        self.member.is_removed()
            && matches!(self.phase, Phase::Idle)
            && self.job.is_none()
            && self.done.is_none()
    }

    /// Ends in order.
    pub(super) fn stop(&mut self) -> Result<(), Fatal> {
        let (_waiting, job) = self.member.stop();
        if let Some(job) = job {
            self.member.step(Input::JobDone(job.run()))?;
        }
        self.wal.sync()?;
        if self.wal.mark_synced()? {
            self.wal.sync()?;
        }
        Ok(())
    }

    /// Does what the disk was about to do, for a crash in the middle of it.
    pub(super) fn begin_disk_work(&mut self) {
        // Not a job that follows from the end of a sync: nobody has seen what is applied by then.
        let job = self.job.take();
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Writing(append) => {
                let _crashed = self.wal.append(&append.records, &mut || append.head());
            }
            phase @ Phase::Syncing { .. } => {
                // With what follows at once: the installation of a snapshot.
                self.phase = phase;
                let _crashed = self.sync();
            }
            Phase::Idle => {}
        }
        if let Some(Receiving::Importing(_, import)) = self.receiving.take() {
            let _crashed = import.finish();
        }
        self.job = job;
        self.run_job();
    }
}
