//! The shell of a member: the threads, the clock and the disk around the sans-IO [`Member`].
//!
//! One thread owns the member and its log. It takes everything that has arrived, steps the member,
//! and carries out the effects: while it syncs one batch, the next one gathers in the inbox, so
//! one append and one `fdatasync` serve all that arrived meanwhile. Checkpoints run on a second
//! thread, because one takes milliseconds.

mod clock;
mod inbox;
mod jobs;
mod meter;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ferrite_disk::Disk;
use ferrite_disk::wal::Wal;
use ferrite_raft::BallotFile;
use ferrite_storage::snapshot;
use tokio::sync::oneshot;

use crate::member::{Effects, Fatal, Input, Member, Others, Outgoing, Published, Reply};
use crate::metrics::Metrics;
use crate::peer::Transport;
use crate::peering::Source;
pub(crate) use clock::Clock;
pub(crate) use inbox::{Inbox, Wanted};
use jobs::Jobs;
use meter::Meter;

/// How a waiting client is reached: dropping it means that nobody waits any more.
pub(crate) type Waiter = oneshot::Sender<Reply>;

/// What the shell needs beside the member.
pub(crate) struct Parts {
    pub(crate) member: Member<Waiter>,
    pub(crate) published: Arc<Published>,
    pub(crate) wal: Wal,
    pub(crate) ballots: BallotFile,
    pub(crate) disk: Arc<dyn Disk>,
    /// The page file in use.
    pub(crate) page_path: PathBuf,
    pub(crate) transport: Box<dyn Transport + Send>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Clock,
    /// The length of a tick.
    pub(crate) heartbeat: Duration,
    /// How long a leader that is asked to stop waits for its successor.
    pub(crate) hand_over_patience: Duration,
    /// Pause between the steps of a compaction.
    pub(crate) compaction_pause: Duration,
    /// Applies that take longer are warned about.
    pub(crate) slow_apply: Duration,
}

/// Bytes of the next log segment that are prepared per tick, once the active one is nearly full: a
/// load that is not the heaviest finds it ready in time.
const SPARE_BYTES: u64 = 4 << 20;

/// How long the member thread waits for a job that is running when it stops.
const JOB_PATIENCE: Duration = Duration::from_secs(60);

/// Why a member has ended in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was asked to, with [`Wanted::Stop`].
    Asked,
    /// It was removed from the cluster.
    Removed,
}

/// Starts the member's threads. The handle yields why the member ended.
pub(crate) fn start(parts: Parts) -> std::io::Result<thread::JoinHandle<Result<Ended, Fatal>>> {
    let jobs = Jobs::start(
        Arc::clone(&parts.inbox),
        Arc::clone(&parts.metrics),
        parts.compaction_pause,
    )?;
    thread::Builder::new()
        .name("member".to_owned())
        .spawn(move || {
            let meter = Meter::new(Arc::clone(&parts.metrics), parts.slow_apply);
            let mut shell = Shell {
                jobs,
                meter,
                parts,
                next_tick: Instant::now(),
                idle: false,
                leader: 0,
                compacting: None,
                handing_over: None,
            };
            let inbox = Arc::clone(&shell.parts.inbox);
            let lessor = shell.parts.member.lessor();
            let reads = shell.parts.member.reads();
            let result = shell.run();
            // Whoever still waits, or comes later, learns that the member has stopped; nobody renews
            // leases that nobody revokes.
            inbox.close();
            for waiter in reads.close() {
                let _gone = waiter.send(Reply::Failed(ferrite_api::Error::Stopped.into()));
            }
            drop(lessor.lock().demote());
            result
        })
}

struct Shell {
    parts: Parts,
    jobs: Jobs,
    meter: Meter,
    next_tick: Instant,
    /// Nothing was appended since the last tick.
    idle: bool,
    /// The last leader seen; 0 = none.
    leader: u64,
    /// Since when a compaction has been removing rows.
    compacting: Option<Instant>,
    /// Until when a member that is asked to stop waits for another one to lead.
    handing_over: Option<Instant>,
}

impl Shell {
    fn run(&mut self) -> Result<Ended, Fatal> {
        self.next_tick = Instant::now() + self.parts.heartbeat;
        self.advance();
        self.carry_out()?;
        let (mut inputs, mut wanted) = (Vec::new(), Wanted::Serve);
        loop {
            let known = wanted;
            wanted = if self.parts.member.busy() {
                self.parts.inbox.drain(&mut inputs)
            } else {
                self.parts.inbox.wait(self.next_tick, known, &mut inputs)
            };
            for input in inputs.drain(..) {
                self.parts.member.step(input)?;
            }
            self.ticks()?;
            self.advance();
            let leads_on = wanted > Wanted::Serve && !self.handed_over();
            self.carry_out()?;
            self.measure();
            if self.parts.member.is_removed() {
                self.stop()?;
                return Ok(Ended::Removed);
            }
            if wanted == Wanted::Stop && !leads_on {
                self.stop()?;
                return Ok(Ended::Asked);
            }
        }
    }

    /// Whether this member, which is asked to stop, may: leadership is somebody else's, nobody can take
    /// it, or nobody does in time.
    fn handed_over(&mut self) -> bool {
        let member = &mut self.parts.member;
        let until = *self.handing_over.get_or_insert_with(|| {
            let now = Instant::now();
            match member.hand_over() {
                true => now + self.parts.hand_over_patience,
                false => now,
            }
        });
        !member.is_leader() || Instant::now() >= until
    }

    fn advance(&mut self) {
        let now = self.parts.clock.now();
        self.parts.member.advance(now);
    }

    /// Steps as many ticks as time has passed. After a long pause (a stopped process, a slow disk)
    /// missed ticks are dropped: they would only make this member campaign at once.
    fn ticks(&mut self) -> Result<(), Fatal> {
        let now = Instant::now();
        if now < self.next_tick {
            return Ok(());
        }
        let late = now - self.next_tick;
        if late > self.parts.heartbeat && self.parts.member.is_leader() {
            self.heartbeats_late(late);
        }
        self.parts.member.step(Input::Tick)?;
        if std::mem::replace(&mut self.idle, true) {
            self.mark_log()?;
        }
        self.prepare_segment()?;
        self.next_tick += self.parts.heartbeat;
        if self.next_tick < now {
            self.next_tick = now + self.parts.heartbeat;
        }
        Ok(())
    }

    /// The heartbeats of this tick come more than two intervals after the last.
    fn heartbeats_late(&self, late: Duration) {
        let followers = self.parts.member.state().members().iter().skip(1).count() as u64;
        if followers == 0 {
            return;
        }
        let failures = &self.parts.metrics.server.heartbeat_send_failures;
        failures.inc_by(followers);
        tracing::warn!(
            "heartbeat-interval" = ?self.parts.heartbeat,
            "exceeded-duration" = ?late,
            "leader failed to send out heartbeat on time; took too long, leader is overloaded likely from slow disk"
        );
    }

    /// Gets the next log segment ready, unless one is, or is likely to be released in time: a
    /// released one costs nothing, a new one a whole segment of zeros.
    fn prepare_segment(&mut self) -> Result<(), Fatal> {
        let wal = &mut self.parts.wal;
        if wal.spares_ready() > 0 || wal.end().offset < wal.active_bytes() / 4 * 3 {
            return Ok(());
        }
        match wal.prepare_spare(SPARE_BYTES) {
            Ok(_ready) => Ok(()),
            // The member refuses writes when the segment is really needed.
            Err(error) if error.is_no_space() => {
                tracing::debug!(%error, "no spare log segment");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn carry_out(&mut self) -> Result<(), Fatal> {
        loop {
            let begun = Instant::now();
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
            } = self.parts.member.effects()?;
            self.meter
                .applied(self.parts.member.state().tally(), begun.elapsed());
            let transport = &mut self.parts.transport;
            if let Some(Others { peers, removed }) = peers {
                transport.set_peers(peers, removed);
            }
            // Before the append: followers write while this member does.
            for (to, message) in send {
                transport.send(to, message);
            }
            transport.flush();
            for Outgoing {
                to,
                message,
                export,
            } in snapshots
            {
                transport.send_snapshot(to, message, Box::new(Source(export)));
            }
            for (waiter, reply) in replies {
                // The client may have gone; its result is of no use to anybody else.
                let _gone = waiter.send(reply);
            }
            if install {
                // Here and now: nothing else happens before the new state is in place.
                let Parts {
                    member,
                    disk,
                    page_path,
                    ..
                } = &mut self.parts;
                snapshot::commit(disk, page_path)?;
                member.installed();
            }
            if let Some(job) = job {
                self.jobs.run(job);
            }
            if let Some(hash) = hash {
                self.jobs.hash(hash);
            }
            if recovered {
                self.parts.ballots.recovered()?;
            }
            if let Some(segment) = release_before {
                self.parts.wal.release_before(segment)?;
            }
            let Some(append) = append else {
                match install {
                    true => continue,
                    false => return Ok(()),
                }
            };
            if !self.append(append)? {
                return Ok(());
            }
        }
    }

    /// Appends and syncs. `false`: the disk is full; the append is kept and tried again with the
    /// next tick.
    fn append(&mut self, append: ferrite_raft::Append) -> Result<bool, Fatal> {
        let Parts {
            member,
            wal,
            ballots,
            metrics,
            ..
        } = &mut self.parts;
        self.idle = false;
        let begun = Instant::now();
        let appended = wal.append(&append.records, &mut || append.head());
        let positions = match appended {
            Ok(positions) => positions,
            Err(error) if error.is_no_space() => {
                member.append_refused(append);
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        let written = Instant::now();
        metrics
            .disk
            .wal_write_duration
            .observe((written - begun).as_secs_f64());
        if append.must_sync {
            wal.sync()?;
            metrics
                .disk
                .wal_fsync_duration
                .observe(written.elapsed().as_secs_f64());
        }
        if let Some(promise) = append.promise {
            ballots.promise(promise)?;
        }
        member.appended(append.ticket, &positions);
        Ok(true)
    }

    fn measure(&mut self) {
        let Parts {
            member,
            metrics,
            published,
            wal,
            ..
        } = &mut self.parts;
        let server = &metrics.server;
        server.proposals_pending.set(count(member.pending() as u64));
        server
            .snapshot_apply_in_progress
            .set(i64::from(member.is_installing()));
        metrics.disk.wal_write_bytes.set(count(wal.bytes_written()));
        let leases = member.take_lease_counts();
        server.lease_expired.inc_by(leases.expired);
        for ttl in leases.granted {
            metrics.lease.ttl.observe(seconds(ttl));
        }
        let leader = published.leader();
        if leader != self.leader {
            if leader != 0 {
                server.leader_changes_seen.inc();
            }
            self.leader = leader;
        }
        let removing = member.state().compacting();
        match self.compacting {
            None if removing => self.compacting = Some(Instant::now()),
            Some(begun) if !removing => {
                self.compacting = None;
                let mvcc = &metrics.mvcc;
                mvcc.db_compaction_total
                    .observe(begun.elapsed().as_secs_f64() * 1000.0);
                let now = SystemTime::now().duration_since(UNIX_EPOCH);
                mvcc.db_compaction_last
                    .set(count(now.unwrap_or_default().as_secs()));
            }
            _ => {}
        }
    }

    /// Ends in order: everybody who waits learns it, everything applied goes into the page file,
    /// the log's end is marked as synced.
    fn stop(&mut self) -> Result<(), Fatal> {
        self.jobs
            .settle(&mut self.parts.member, &self.parts.inbox, JOB_PATIENCE)?;
        let (waiting, job) = self.parts.member.stop();
        for waiter in waiting {
            let _gone = waiter.send(Reply::Failed(ferrite_api::Error::Stopped.into()));
        }
        if let Some(job) = job {
            self.parts.member.step(Input::JobDone(job.run()))?;
        }
        self.mark_log()
    }

    /// Says in the log what has been synced, so that damage to its end is told from a torn write.
    fn mark_log(&mut self) -> Result<(), Fatal> {
        let wal = &mut self.parts.wal;
        wal.sync()?;
        if wal.mark_synced()? {
            wal.sync()?;
        }
        Ok(())
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "times to live are exact up to 2^53 s, and a bucket is enough"
)]
fn seconds(ttl: i64) -> f64 {
    ttl as f64
}

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
