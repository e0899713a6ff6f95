//! A control plane's load on a real server, for as long as wanted, killed now and then: optimistic
//! updates, creations and deletions of objects, events that end with their leases, paged lists, gets,
//! watches that are resumed, a compaction every minute. Everything is recorded and checked at the end
//! ([`crate::history`]), throughput, latency, memory and file size are reported all along.
//!
//! Shapes of keys and requests are those of kube-apiserver (one transaction per write that compares
//! the mod revision, lists in pages at the revision of the first page, compaction through a key of
//! its own).

mod monitor;
mod watchers;
mod workers;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use ferrite_client::{Client, Config, GetOptions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::history::check::{Summary, check};
use crate::history::{Granted, History, Moment, Operation, Watched};
use crate::process::Process;

pub use monitor::Totals;

/// What a run does.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How long the load goes on.
    pub duration: Duration,
    /// Mean time between two kills; zero for none.
    pub kill_every: Duration,
    /// Time between two compactions.
    pub compact_every: Duration,
    /// Writes per second that are aimed at, all writers together.
    pub writes_per_second: u32,
    /// Objects that are updated, of both kinds.
    pub objects: u32,
    /// Decides everything that is random.
    pub seed: u64,
}

/// What a run found.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the history held.
    pub history: Summary,
    /// Rates, latencies, sizes.
    pub totals: Totals,
    /// Kills.
    pub kills: u32,
}

/// What all tasks of a run share.
#[derive(Clone, Debug)]
struct Shared {
    plan: Plan,
    begun: Instant,
    endpoint: String,
    /// Becomes true when the load is to end.
    stop: watch::Receiver<bool>,
    monitor: Arc<monitor::Monitor>,
    objects: Arc<workers::Objects>,
}

impl Shared {
    fn now(&self) -> Moment {
        self.begun.elapsed()
    }

    fn stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// A client that repeats nothing: what becomes of a call is to be seen.
    async fn client(&self) -> anyhow::Result<Client> {
        let config = Config::new([self.endpoint.clone()])
            .max_attempts(1)
            .reconnect_backoff(Duration::from_millis(5), Duration::from_millis(100));
        let client = Client::connect(config).await?;
        Ok(client.with_timeout(Duration::from_secs(10)))
    }

    /// Waits until `moment`, or the end of the load.
    async fn until(&self, moment: Moment) {
        let mut stop = self.stop.clone();
        let deadline = tokio::time::Instant::from_std(self.begun + moment);
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => {}
            // Also when the sender is gone: that is an end, too.
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }
}

/// What a task has recorded.
#[derive(Debug)]
enum Recorded {
    Operations(Vec<Operation>),
    Events(Vec<Operation>, Vec<Granted>),
    Watches(Vec<Watched>),
}

/// Runs the load on `binary` with its data under `dir`. `report` gets a line now and then.
///
/// # Errors
/// The first violation found, or why the run could not be done.
pub async fn run(
    binary: &Path,
    dir: &Path,
    plan: Plan,
    report: &mut dyn FnMut(&str),
) -> anyhow::Result<Report> {
    let mut server = Process::new(binary, dir, &["--snapshot-count", "10000"])?;
    server.start().await?;
    let (end, stop) = watch::channel(false);
    let shared = Shared {
        plan,
        begun: Instant::now(),
        endpoint: server.endpoint(),
        stop,
        monitor: Arc::new(monitor::Monitor::new()),
        objects: Arc::new(workers::Objects::new(plan.objects)),
    };
    let (last, known) = watch::channel(0);
    let witness = tokio::spawn(watchers::witness(shared.clone(), known));
    let mut tasks = JoinSet::new();
    watchers::start(&shared, &mut tasks);
    workers::start(&shared, &mut tasks);

    let mut kills = 0;
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let mut next_kill = pause(&plan, &mut rng, Duration::ZERO);
    let mut next_line = monitor::SAMPLE;
    while shared.now() < plan.duration {
        shared
            .until(next_kill.min(next_line).min(plan.duration))
            .await;
        if let Some(failed) = tasks.try_join_next() {
            failed??;
            anyhow::bail!("a task ended before the load did");
        }
        if shared.now() >= next_line {
            report(&shared.monitor.sample(shared.now(), &server)?);
            next_line += monitor::SAMPLE;
        }
        if shared.now() >= next_kill && shared.now() < plan.duration {
            server.kill()?;
            let begun = Instant::now();
            server.start().await.context("restart after kill -9")?;
            kills += 1;
            report(&format!(
                "kill -9 number {kills}; it serves again after {:?}",
                begun.elapsed()
            ));
            next_kill = pause(&plan, &mut rng, shared.now());
        }
    }
    end.send_replace(true);

    let mut history = History::default();
    while let Some(task) = tasks.join_next().await {
        match task?? {
            Recorded::Operations(operations) => history.operations.extend(operations),
            Recorded::Events(operations, leases) => {
                history.operations.extend(operations);
                history.leases.extend(leases);
            }
            Recorded::Watches(watches) => history.watched.extend(watches),
        }
    }
    let newest = shared.client().await?.get("end", GetOptions::new()).await?;
    last.send_replace(newest.header.context("an answer has a header")?.revision);
    history.log = witness.await??;
    report(&format!(
        "checking {} operations, {} events, {} leases",
        history.operations.len(),
        history.log.len(),
        history.leases.len()
    ));
    let totals = shared.monitor.totals(plan.duration);
    let summary = check(&history)?;
    server.stop()?;
    let report = Report {
        history: summary,
        totals,
        kills,
    };
    report.proves_something(&plan)?;
    Ok(report)
}

impl Report {
    /// A run in which something never happened says nothing about it.
    fn proves_something(&self, plan: &Plan) -> anyhow::Result<()> {
        let history = &self.history;
        let long = plan.duration > 3 * workers::EVENT_TTL;
        let killed = !plan.kill_every.is_zero() && plan.duration > 2 * plan.kill_every;
        for (what, expected, found) in [
            ("acknowledged writes", true, history.acknowledged),
            ("reads", true, history.reads),
            ("watched events", true, history.watched),
            ("events that ended with their leases", long, history.expired),
            ("kills", killed, self.kills as usize),
        ] {
            anyhow::ensure!(found > 0 || !expected, "the run saw no {what}");
        }
        Ok(())
    }
}

/// The moment of the next kill.
fn pause(plan: &Plan, rng: &mut StdRng, now: Moment) -> Moment {
    if plan.kill_every.is_zero() {
        return Moment::MAX;
    }
    now + plan.kill_every.mul_f64(rng.random_range(0.5..1.5))
}
