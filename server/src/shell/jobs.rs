//! The thread that runs checkpoints and compaction steps.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use ferrite_storage::checkpoint::{CompactionHash, Done, Hashed, Job};
use ferrite_storage::page::{PageFile, RebuildOutcome, RebuildStep};

use super::{Inbox, Waiter};
use crate::member::{Fatal, Input, Member};
use crate::metrics::Metrics;

/// How often the thread looks whether the last reader of a replaced page file has gone.
const RELEASE_PAUSE: Duration = Duration::from_millis(100);

enum Work {
    Job(Job),
    Hash(CompactionHash),
}

/// Runs one job at a time, and a hash in the gaps; results come back through the inbox.
pub(super) struct Jobs {
    // One job and one hash are out at a time (the member sees to it), so neither channel ever
    // holds more.
    submit: Option<Sender<Work>>,
    settled: Receiver<()>,
    running: bool,
    thread: Option<thread::JoinHandle<()>>,
}

impl Jobs {
    pub(super) fn start(
        inbox: Arc<Inbox>,
        metrics: Arc<Metrics>,
        compaction_pause: Duration,
    ) -> std::io::Result<Self> {
        let (submit, work) = channel();
        let (settle, settled) = channel();
        let worker = Worker {
            inbox,
            metrics,
            pause: compaction_pause,
            work,
            settle,
            defragmenting: None,
            replaced: Vec::new(),
        };
        let thread = thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || worker.work())?;
        Ok(Self {
            submit: Some(submit),
            settled,
            running: false,
            thread: Some(thread),
        })
    }

    /// Hands a job over.
    pub(super) fn run(&mut self, job: Job) {
        while self.settled.try_recv().is_ok() {}
        self.running = true;
        self.submit(Work::Job(job));
    }

    /// Hands a hash over.
    pub(super) fn hash(&mut self, hash: CompactionHash) {
        self.submit(Work::Hash(hash));
    }

    fn submit(&self, work: Work) {
        if let Some(submit) = &self.submit {
            // The thread ends only after the sender is dropped, or by a panic, which loses the
            // checkpoint and nothing else: the log still has the entries.
            if submit.send(work).is_err() {
                tracing::error!("the checkpoint thread has ended");
            }
        }
    }

    /// Waits for a job that is running and gives its result to the member.
    pub(super) fn settle(
        &mut self,
        member: &mut Member<Waiter>,
        inbox: &Inbox,
        patience: Duration,
    ) -> Result<(), Fatal> {
        if self.running {
            match self.settled.recv_timeout(patience) {
                Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
                Err(RecvTimeoutError::Timeout) => {
                    tracing::warn!(
                        ?patience,
                        "a checkpoint did not end in time; its log is kept"
                    );
                }
            }
            let mut inputs = Vec::new();
            inbox.drain(&mut inputs);
            for input in inputs {
                member.step(input)?;
            }
        }
        Ok(())
    }
}

/// The thread's side.
struct Worker {
    inbox: Arc<Inbox>,
    metrics: Arc<Metrics>,
    /// Compaction is in no hurry: between its steps the disk belongs to the writes.
    pause: Duration,
    work: Receiver<Work>,
    settle: Sender<()>,
    /// When the defragmentation under way has begun.
    defragmenting: Option<Instant>,
    /// Page files that were defragmented. Whoever lets go of one last closes it, and a file without a
    /// name is freed then, which takes the system long: that is this thread, not the member's.
    replaced: Vec<Arc<PageFile>>,
}

impl Worker {
    /// Works until the sender is gone.
    fn work(mut self) {
        while let Some(work) = self.next() {
            match work {
                Work::Job(job) => self.run(job),
                Work::Hash(hash) => {
                    if let Some(hashed) = self.hash(hash) {
                        self.inbox.report(Input::HashDone(hashed));
                    }
                }
            }
        }
    }

    /// What comes next; `None`: the sender is gone. Lets go of replaced page files meanwhile.
    fn next(&mut self) -> Option<Work> {
        loop {
            self.replaced.retain(|page| Arc::strong_count(page) > 1);
            if self.replaced.is_empty() {
                return self.work.recv().ok();
            }
            match self.work.recv_timeout(RELEASE_PAUSE) {
                Ok(work) => return Some(work),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Computes a hash step by step. A job that comes meanwhile goes first. `None`: the sender is
    /// gone.
    fn hash(&mut self, mut hash: CompactionHash) -> Option<Hashed> {
        loop {
            if let Some(hashed) = hash.step() {
                return Some(hashed);
            }
            match self.work.recv_timeout(self.pause) {
                Ok(Work::Job(job)) => self.run(job),
                Ok(Work::Hash(newer)) => hash = newer,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Takes note of a step of a defragmentation that began at `begun`.
    fn defragmented(&mut self, begun: Instant, old: Arc<PageFile>, done: &Done) {
        let disk = &self.metrics.disk;
        let first = *self.defragmenting.get_or_insert(begun);
        if let Done::Rebuilt(step) = done
            && let RebuildStep::Ended(outcome) = &**step
        {
            self.defragmenting = None;
            disk.defrag_inflight.set(0);
            disk.backend_defrag_duration
                .observe(first.elapsed().as_secs_f64());
            if let RebuildOutcome::Replaced(..) = outcome {
                self.replaced.push(old);
            }
        }
    }

    fn run(&mut self, job: Job) {
        let old = match &job {
            Job::Defragment { page, .. } => {
                self.metrics.disk.defrag_inflight.set(1);
                Some(Arc::clone(page))
            }
            _ => None,
        };
        let begun = Instant::now();
        let done = job.run();
        if let Some(old) = old {
            self.defragmented(begun, old, &done);
        }
        if let Done::Checkpointed(checkpoint, result) = &done {
            let took = begun.elapsed();
            let disk = &self.metrics.disk;
            disk.backend_commit_duration.observe(took.as_secs_f64());
            tracing::debug!(
                ?took,
                rows = checkpoint.rows(),
                ok = result.is_ok(),
                "checkpoint"
            );
            if checkpoint.removes() > 0 {
                let mvcc = &self.metrics.mvcc;
                mvcc.db_compaction_pause
                    .observe(took.as_secs_f64() * 1000.0);
                if result.is_ok() {
                    mvcc.db_compaction_keys.inc_by(checkpoint.removes() as u64);
                }
                thread::sleep(self.pause);
            }
        }
        self.inbox.report(Input::JobDone(done));
        // The receiver is gone only when the member thread has ended without settling.
        let _ended = self.settle.send(());
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        self.submit = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the checkpoint thread has panicked");
        }
    }
}
