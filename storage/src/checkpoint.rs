//! Checkpoints and compactions: how applied state reaches the page file, and how old revisions
//! leave it.
//!
//! A checkpoint moves whole applied entries from memory into the page file in one transaction with
//! the consistent index, the counters and all other tables. Apply never waits for one: the owner
//! asks for a [`Job`], runs it on another thread (or inline, in simulation), and hands the
//! [`Done`] back. At most one job is out at a time.
//!
//! A defragmentation is a [rebuild](crate::page::Rebuild) of the page file in steps, each a job, and takes
//! turns with checkpoints: neither waits long for the other.
//!
//! A compaction takes effect at apply (reads below it fail at once). Its rows are removed later, in
//! steps that ride in checkpoint transactions; the last step marks it finished in the same
//! transaction. A restart in the middle begins it again, which removes what is left.
//!
//! ```text
//!   schedule(R) ─▶ Collect (walk the index: which rows does R doom?) ─▶ Checkpoint + remove ≤ N rows
//!               └▶ hash of what it found, as etcd keeps it ─────────┘      └─▶ ... ─▶ finished = R
//! ```

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use ferrite_api::Version;

use crate::error::Error;
use crate::mvcc::hash::{HashError, Hashing, KeyValueHash};
use crate::mvcc::index::KeyIndex;
use crate::mvcc::pins::Pins;
use crate::mvcc::recent::RecentRows;
use crate::page::{
    self, Batch, Meta, MetaUpdate, PageFile, Rebuild, RebuildOutcome, RebuildStep, Rebuilt, RowId,
    RowWrite, TableWrite,
};
use crate::schema::Step;
use crate::state::State;

/// When a checkpoint is due.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Bytes of recent rows that make a checkpoint due at once.
    pub max_bytes: usize,
    /// Rows that one checkpoint removes for a compaction, at most.
    pub remove_rows: usize,
    /// Bytes of records that one step of a defragmentation copies, about.
    pub rebuild_bytes: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_bytes: 16 << 20,
            remove_rows: 2000,
            rebuild_bytes: 1 << 20,
        }
    }
}

/// Why the owner asks for a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Something changed: a job only if the policy says that one is due, or a compaction can go on.
    Changed,
    /// Time has passed since the last one: whatever is not checkpointed is due.
    Aged,
}

/// What stands between the state and the page file.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Whether an entry was applied since the last checkpoint job was made.
    pub(crate) touched: bool,
    /// Whether that is due, although a job was running when it became so.
    aged: bool,
    /// Rows of small tables that changed since then, in order; those of leases are made with the job.
    pub(crate) tables: Vec<TableWrite>,
    /// The compaction under way.
    pub(crate) compaction: Option<Compaction>,
    /// Compactions that wait for it.
    queued: VecDeque<Compaction>,
    /// The last compaction scheduled and the last finished, as the page file is to know them.
    scheduled: i64,
    finished: i64,
    running: bool,
    /// The defragmentation under way, between two of its steps.
    rebuild: Option<Box<Rebuild>>,
    /// It begins after the rows of the compaction to this revision are removed, see
    /// [`State::compaction_goes_first`].
    rebuild_after: i64,
    /// Bytes that its next steps copy before there is another checkpoint.
    rebuild_due: usize,
}

/// A compaction under way.
#[derive(Debug)]
pub(crate) struct Compaction {
    target: i64,
    phase: Phase,
    /// How many times an aged checkpoint has let long readers below the target hold it up.
    waited: u32,
    hash: Hash,
}

/// The hash of what a compaction finds, which is to be known before rows are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hash {
    /// To be begun, with `previous` as the last compaction before.
    Due { previous: i64 },
    /// Being computed.
    Running,
    /// Known, or not wanted: rows may go.
    Settled,
}

/// With a checkpoint every 5 s, a reader in pieces that goes on has at least 55 s to get through: time
/// for ten lists of a gigabyte at once. What it costs is room in the file for the rows meanwhile.
const PATIENCE: u32 = 12;

/// The same for readers that are [pinned for long](crate::mvcc::pins::Pins::pin_long), backups: half an
/// hour, in which they get through hundreds of gigabytes, or through fewer over a slow line.
const LONG_PATIENCE: u32 = 360;

/// A defragmentation copies so many times what a checkpoint has added before the next one comes: after
/// each pair of the two less is left to be copied than before, so it ends however much is written.
const CATCH_UP: usize = 2;

/// In place of a revision that was compacted to: less than any.
const NOTHING: i64 = i64::MIN;

#[derive(Debug)]
enum Phase {
    /// The doomed rows are not known yet.
    Collect,
    /// Doomed rows that are left, in revision order.
    Remove(VecDeque<RowId>),
    /// The rows are gone; the index still names them.
    Prune { from: Vec<u8> },
}

impl Compaction {
    /// A compaction to `target`. It is hashed if the compaction before it, to `previous`, is
    /// complete; otherwise rows of more than one compaction would be in the hash.
    pub(crate) fn new(target: i64, previous: Option<i64>) -> Self {
        Self {
            target,
            phase: Phase::Collect,
            waited: 0,
            hash: previous.map_or(Hash::Settled, |previous| Hash::Due { previous }),
        }
    }

    /// Whether readers below the target still need rows, and are given time.
    fn awaits(&self, pins: &Pins) -> bool {
        let below = |oldest: Option<i64>| oldest.is_some_and(|pin| pin < self.target);
        below(pins.oldest()) && self.waited < PATIENCE
            || below(pins.oldest_long()) && self.waited < LONG_PATIENCE
    }
}

impl Progress {
    pub(crate) fn new(meta: &Meta) -> Self {
        Self {
            touched: false,
            aged: false,
            tables: Vec::new(),
            compaction: None,
            queued: VecDeque::new(),
            scheduled: meta.scheduled_compact,
            finished: meta.finished_compact,
            running: false,
            rebuild: None,
            rebuild_after: NOTHING,
            rebuild_due: 0,
        }
    }

    /// Schedules a compaction to `revision`, after the one to `previous`.
    pub(crate) fn schedule(&mut self, revision: i64, previous: i64) {
        let complete = self.scheduled == self.finished;
        let compaction = Compaction::new(revision, complete.then_some(previous));
        self.scheduled = revision;
        match self.compaction {
            None => self.compaction = Some(compaction),
            Some(_) => self.queued.push_back(compaction),
        }
    }
}

/// Work for another thread. Owns everything that it needs.
#[derive(Debug)]
pub enum Job {
    /// Find the rows that a compaction dooms.
    Collect {
        /// The index at or after the moment when the compaction took effect.
        index: KeyIndex,
        /// The revision compacted to.
        target: i64,
    },
    /// Write a checkpoint.
    Checkpoint(Box<Checkpoint>),
    /// A step of rebuilding the page file, so that it has no more room than it needs.
    Defragment {
        /// The page file.
        page: Arc<PageFile>,
        /// How far that is.
        rebuild: Box<Rebuild>,
        /// Bytes of records to copy.
        bytes: usize,
    },
}

/// One checkpoint: everything applied up to an entry.
#[derive(Debug)]
pub struct Checkpoint {
    page: Arc<PageFile>,
    recent: RecentRows,
    /// Rows with `after < main <= upto` are written.
    after: i64,
    upto: i64,
    tables: Vec<TableWrite>,
    remove: Vec<RowId>,
    meta: MetaUpdate,
    /// The schema of the page file changes, too.
    schema: Option<Step>,
}

/// The result of a job.
#[derive(Debug)]
pub enum Done {
    /// Of [`Job::Collect`]: doomed rows in revision order.
    Collected(Vec<RowId>),
    /// Of [`Job::Checkpoint`], with the job, whose contents are still due if it failed.
    Checkpointed(Box<Checkpoint>, Result<Box<Meta>, page::Error>),
    /// Of [`Job::Defragment`].
    Rebuilt(Box<RebuildStep>),
}

impl Job {
    /// Does the work. Blocks for as long as the disk needs.
    pub fn run(self) -> Done {
        match self {
            Job::Collect { index, target } => {
                let mut doomed: Vec<_> = index
                    .garbage(target)
                    .map(|(_, garbage)| RowId {
                        revision: garbage.revision,
                        tombstone: garbage.tombstone,
                    })
                    .collect();
                doomed.sort_unstable();
                Done::Collected(doomed)
            }
            Job::Checkpoint(checkpoint) => {
                let result = checkpoint.write().map(Box::new);
                Done::Checkpointed(checkpoint, result)
            }
            Job::Defragment {
                page,
                rebuild,
                bytes,
            } => {
                let of = page.meta().rows.max(1);
                let tenths = |rows: u64| rows * 10 / of;
                let before = tenths(rebuild.copied());
                let step = rebuild.step(&page, bytes);
                if let RebuildStep::More(rebuild) = &step
                    && tenths(rebuild.copied()) > before
                {
                    tracing::info!(rows = rebuild.copied(), of, "defragmenting");
                }
                Done::Rebuilt(Box::new(step))
            }
        }
    }
}

impl Checkpoint {
    /// How many rows it writes.
    pub fn rows(&self) -> usize {
        self.recent.between(self.after, self.upto).count()
    }

    /// Bytes of the records of those.
    fn bytes(&self) -> usize {
        let rows = self.recent.between(self.after, self.upto);
        rows.map(|row| row.record.len()).sum()
    }

    /// How many rows it removes for a compaction.
    pub fn removes(&self) -> usize {
        self.remove.len()
    }

    fn write(&self) -> Result<Meta, page::Error> {
        let rows = self
            .recent
            .between(self.after, self.upto)
            .map(|row| RowWrite {
                revision: row.revision,
                tombstone: row.tombstone,
                record: row.record.clone(),
            })
            .collect();
        let mut batch = Batch {
            rows,
            remove: self.remove.clone(),
            tables: self.tables.clone(),
            meta: self.meta.clone(),
        };
        if let Some(step) = &self.schema {
            step.join(&mut batch);
        }
        self.page.commit(&batch)
    }
}

/// The hash of a compaction, being computed.
#[derive(Debug)]
pub struct CompactionHash(Hashing);

/// The end of a [`CompactionHash`].
#[derive(Debug)]
pub struct Hashed(Result<KeyValueHash, HashError>);

impl CompactionHash {
    /// Some milliseconds of work. `Some` with the last.
    pub fn step(&mut self) -> Option<Hashed> {
        self.0.step().transpose().map(Hashed)
    }

    /// All of it.
    pub fn run(self) -> Hashed {
        Hashed(self.0.run())
    }
}

/// What a finished job means to the owner.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Finished {
    /// The consistent index that is now durable in the page file.
    pub consistent_index: Option<u64>,
    /// A compaction whose rows are now all removed.
    pub compacted: Option<i64>,
    /// A defragmentation, and what it has changed, or why nothing.
    pub defragmented: Option<Result<Rebuilt, String>>,
    /// The schema that the page file has got.
    pub migrated: Option<Version>,
}

impl State {
    /// The next job that is due, if none is running.
    pub fn next_job(&mut self, policy: &Policy, reason: Reason) -> Option<Job> {
        self.expect_conf_state();
        self.checkpoint.aged |= reason == Reason::Aged && self.checkpoint.touched;
        if self.checkpoint.running {
            return None;
        }
        if self.checkpoint.rebuild_due > 0 {
            let step = self.rebuild_step(policy);
            if step.is_some() {
                return step;
            }
        }
        self.next_checkpoint(policy, reason)
            .or_else(|| self.rebuild_step(policy))
    }

    fn rebuild_step(&mut self, policy: &Policy) -> Option<Job> {
        if self.compaction_goes_first() {
            return None;
        }
        let rebuild = self.checkpoint.rebuild.take()?;
        self.checkpoint.rebuild_after = NOTHING;
        self.checkpoint.running = true;
        let due = &mut self.checkpoint.rebuild_due;
        *due = due.saturating_sub(policy.rebuild_bytes);
        Some(Job::Defragment {
            page: Arc::clone(self.store().page()),
            rebuild,
            bytes: policy.rebuild_bytes,
        })
    }

    /// A checkpoint, or the work of a compaction.
    fn next_checkpoint(&mut self, policy: &Policy, reason: Reason) -> Option<Job> {
        let due = self.checkpoint.aged || self.store().recent().bytes() >= policy.max_bytes;
        let mut remove = Vec::new();
        let mut finishes = None;
        let pins = self.store().pins().clone();
        if let Some(compaction) = &mut self.checkpoint.compaction {
            let target = compaction.target;
            let hashing = compaction.hash != Hash::Settled;
            let awaited = compaction.awaits(&pins);
            if awaited && !hashing && reason == Reason::Aged {
                compaction.waited += 1;
            }
            match &mut compaction.phase {
                Phase::Collect => {
                    self.checkpoint.running = true;
                    return Some(Job::Collect {
                        index: self.store().index().clone(),
                        target,
                    });
                }
                // A long reader below the target still needs rows, or the hash of the compaction.
                Phase::Remove(_) if awaited || hashing => {}
                Phase::Remove(doomed) => {
                    remove.extend(doomed.drain(..policy.remove_rows.min(doomed.len())));
                    if doomed.is_empty() {
                        finishes = Some(target);
                    }
                }
                Phase::Prune { .. } => {}
            }
        }
        if !remove.is_empty()
            && let Some(compaction) = &self.checkpoint.compaction
        {
            pins.begin_removal(compaction.target);
        }
        let compacting = finishes.is_some() || !remove.is_empty();
        if !due && !compacting {
            return None;
        }
        let finished = finishes.unwrap_or(self.checkpoint.finished);
        Some(self.begin_checkpoint(remove, finished, None))
    }

    /// A checkpoint that changes the schema of the page file, too, if no job is running: the file is then
    /// at the step's target, as of the last applied entry.
    pub fn migrate(&mut self, step: Step) -> Option<Job> {
        self.expect_conf_state();
        if self.checkpoint.running {
            return None;
        }
        let finished = self.checkpoint.finished;
        Some(self.begin_checkpoint(Vec::new(), finished, Some(step)))
    }

    fn begin_checkpoint(&mut self, remove: Vec<RowId>, finished: i64, schema: Option<Step>) -> Job {
        self.checkpoint.running = true;
        self.checkpoint.touched = false;
        self.checkpoint.aged = false;
        let page = Arc::clone(self.store().page());
        let (after, upto) = (page.meta().revision, self.store().revision());
        let mut tables = std::mem::take(&mut self.checkpoint.tables);
        tables.extend(self.store_mut().leases_mut().take_writes());
        Job::Checkpoint(Box::new(Checkpoint {
            recent: self.store().recent().clone(),
            page,
            after,
            upto,
            tables,
            remove,
            meta: MetaUpdate {
                consistent_index: Some(self.applied().get()),
                term: Some(self.applied_term().get()),
                revision: Some(upto),
                scheduled_compact: Some(self.checkpoint.scheduled),
                finished_compact: Some(finished),
                conf_state: Some(self.conf_state().clone()),
                ..MetaUpdate::default()
            },
            schema,
        }))
    }

    /// Begins to rebuild the page file, which is at `path`, unless that is under way: the jobs that
    /// follow do it, between checkpoints. Compactions that were scheduled before come first.
    pub fn defragment(&mut self, path: PathBuf) {
        if self.checkpoint.rebuild.is_none() {
            self.checkpoint.rebuild = Some(Box::new(Rebuild::new(path)));
            self.checkpoint.rebuild_after = self.checkpoint.scheduled;
        }
    }

    /// Whether a defragmentation that has not begun waits for a compaction. Who asks for the two in a row
    /// wants room in the file: rows that were copied before they are removed would keep theirs. A backup
    /// that holds the compaction up for longer than other readers may is not waited for.
    pub fn compaction_goes_first(&self) -> bool {
        let Some(compaction) = &self.checkpoint.compaction else {
            return false;
        };
        let held_up = compaction.waited >= PATIENCE && compaction.awaits(self.store().pins());
        self.checkpoint.finished < self.checkpoint.rebuild_after && !held_up
    }

    /// Whether a defragmentation is between two of its steps.
    pub fn defragmenting(&self) -> bool {
        self.checkpoint.rebuild.is_some()
    }

    /// Gives up a defragmentation between two of its steps. What it has written is removed before the
    /// next one, or at the next start.
    pub fn stop_defragmenting(&mut self) {
        self.checkpoint.rebuild = None;
    }

    /// Takes the result of a job of this state back.
    ///
    /// # Errors
    /// A checkpoint failed, or a defragmentation has, at the moment at which it cannot be given up. After
    /// [`page::Error::NoSpace`] the member goes on, refuses writes, and asks for a job again later:
    /// nothing of the checkpoint is lost. Any other error is fatal.
    pub fn finish_job(&mut self, done: Done) -> Result<Finished, page::Error> {
        self.checkpoint.running = false;
        let mut finished = Finished::default();
        match done {
            Done::Collected(doomed) => {
                if let Some(compaction) = &mut self.checkpoint.compaction {
                    compaction.phase = Phase::Remove(doomed.into());
                }
            }
            Done::Checkpointed(checkpoint, Ok(meta)) => {
                assert!(
                    Arc::ptr_eq(&checkpoint.page, self.store().page()),
                    "a checkpoint of another state, which a snapshot has replaced"
                );
                finished.consistent_index = Some(meta.consistent_index);
                finished.migrated = checkpoint.schema.as_ref().map(Step::target);
                self.store_mut().checkpointed(checkpoint.upto);
                if let Some(rebuild) = &mut self.checkpoint.rebuild {
                    rebuild.removed(&checkpoint.remove);
                    self.checkpoint.rebuild_due = CATCH_UP * checkpoint.bytes().max(1);
                }
                if meta.finished_compact > self.checkpoint.finished {
                    self.checkpoint.finished = meta.finished_compact;
                    finished.compacted = Some(meta.finished_compact);
                    if let Some(compaction) = &mut self.checkpoint.compaction {
                        compaction.phase = Phase::Prune { from: Vec::new() };
                    }
                }
            }
            Done::Rebuilt(step) => match *step {
                RebuildStep::More(rebuild) => self.checkpoint.rebuild = Some(rebuild),
                RebuildStep::Ended(RebuildOutcome::Replaced(page, rebuilt)) => {
                    let old = self.store_mut().replace_page(Arc::new(page));
                    assert!(old == self.store().page().meta(), "the same content");
                    finished.defragmented = Some(Ok(rebuilt));
                }
                RebuildStep::Ended(RebuildOutcome::Kept(error)) => {
                    finished.defragmented = Some(Err(error.to_string()));
                }
                RebuildStep::Ended(RebuildOutcome::Unknown(error)) => return Err(error),
            },
            Done::Checkpointed(checkpoint, Err(error)) => {
                self.checkpoint.touched = true;
                // The new file has the room that the checkpoint lacks, and writes go before it.
                if let (Some(rebuild), &page::Error::NoSpace { needed, reserved }) =
                    (&mut self.checkpoint.rebuild, &error)
                {
                    rebuild.give_up(page::Error::NoSpace { needed, reserved });
                    self.checkpoint.rebuild_after = NOTHING;
                    self.checkpoint.rebuild_due = 1;
                }
                let newer = std::mem::replace(&mut self.checkpoint.tables, checkpoint.tables);
                self.checkpoint.tables.extend(newer);
                if let Some(Compaction {
                    phase: Phase::Remove(doomed),
                    ..
                }) = &mut self.checkpoint.compaction
                {
                    for row in checkpoint.remove.into_iter().rev() {
                        doomed.push_front(row);
                    }
                }
                return Err(error);
            }
        }
        Ok(finished)
    }

    /// The hash that the compaction under way waits for, to be computed beside everything else. Its
    /// result comes back through [`State::finish_hash`]; until then no row is removed.
    pub fn next_hash(&mut self) -> Option<CompactionHash> {
        let view = self.store().view();
        let compaction = self.checkpoint.compaction.as_mut()?;
        let Hash::Due { previous } = compaction.hash else {
            return None;
        };
        compaction.hash = Hash::Running;
        Some(CompactionHash(Hashing::of_compaction(
            view,
            previous,
            compaction.target,
        )))
    }

    /// Takes the result of a hash back.
    ///
    /// # Errors
    /// The rows could not be read.
    pub fn finish_hash(&mut self, hashed: Hashed) -> Result<Option<KeyValueHash>, Error> {
        if let Some(compaction) = &mut self.checkpoint.compaction {
            compaction.hash = Hash::Settled;
        }
        match hashed.0 {
            Ok(hash) => Ok(Some(hash)),
            Err(HashError::Storage(error)) => Err(error),
            // Nothing removes rows meanwhile, and the revision is one that was compacted to.
            Err(HashError::Compacted | HashError::Future | HashError::Overtaken) => Ok(None),
        }
    }

    /// Drops compacted revisions from the index, a bounded piece per call. Returns whether there is
    /// more to do.
    pub fn prune_step(&mut self, max_keys: usize) -> bool {
        let Some(Compaction {
            target,
            phase: Phase::Prune { from },
            ..
        }) = &mut self.checkpoint.compaction
        else {
            return false;
        };
        let (target, from) = (*target, std::mem::take(from));
        match self.store_mut().prune_index(target, &from, max_keys) {
            Some(next) => {
                if let Some(compaction) = &mut self.checkpoint.compaction {
                    compaction.phase = Phase::Prune { from: next };
                }
            }
            None => {
                let next = self.checkpoint.queued.pop_front();
                self.checkpoint.compaction = next;
            }
        }
        self.checkpoint.compaction.is_some()
    }

    /// Whether rows or index entries of a compaction are still to be removed.
    pub fn compacting(&self) -> bool {
        self.checkpoint.compaction.is_some()
    }

    /// The last compaction whose rows are all removed from the page file; -1 before the first.
    pub fn removed_through(&self) -> i64 {
        self.checkpoint.finished
    }

    /// Bytes of rows that are in memory only.
    pub fn recent_bytes(&self) -> usize {
        self.store().recent().bytes()
    }
}
