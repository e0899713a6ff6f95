//! The thread that runs checkpoints and compaction steps.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use ferrite_storage::checkpoint::{Done, Job};

use super::{Inbox, Waiter};
use crate::member::{Fatal, Input, Member};
use crate::metrics::Metrics;

/// Runs one job at a time; the result comes back through the inbox.
pub(super) struct Jobs {
    // One job is out at a time (the member sees to it), so neither channel ever holds more.
    submit: Option<Sender<Job>>,
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
        let (submit, jobs) = channel::<Job>();
        let (settle, settled) = channel();
        let thread = thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || {
                while let Ok(job) = jobs.recv() {
                    let begun = Instant::now();
                    let done = job.run();
                    if let Done::Checkpointed(checkpoint, result) = &done {
                        let took = begun.elapsed();
                        metrics
                            .disk
                            .backend_commit_duration
                            .observe(took.as_secs_f64());
                        tracing::debug!(
                            ?took,
                            rows = checkpoint.rows(),
                            ok = result.is_ok(),
                            "checkpoint"
                        );
                        if checkpoint.removes() {
                            // Compaction is in no hurry: the disk belongs to the writes.
                            thread::sleep(compaction_pause);
                        }
                    }
                    inbox.report(Input::JobDone(done));
                    // The receiver is gone only when the member thread has ended without settling.
                    let _ended = settle.send(());
                }
            })?;
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
        if let Some(submit) = &self.submit {
            // The thread ends only after the sender is dropped, or by a panic, which loses the
            // checkpoint and nothing else: the log still has the entries.
            if submit.send(job).is_err() {
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
