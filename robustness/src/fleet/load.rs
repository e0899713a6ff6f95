//! Clients that write and read while members come and go.
//!
//! Every attempt to write is a [`Write`] of its own, so that afterwards each is accounted for. What
//! can be said on the spot is checked on the spot: an answer is never older than what any client had
//! been told before the question.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use ferrite_client::{Client, Error, GetOptions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::{PATIENCE, client};
use crate::ledger::{Fate, Ledger, Write};

/// Of so many operations one is a read.
const READ_EVERY: u32 = 5;
/// Time between two probes.
const PROBE_EVERY: Duration = Duration::from_millis(10);

/// What a load does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Clients, one operation at a time each.
    pub clients: u32,
    /// Time between two operations of a client, if the answers come in time.
    pub pace: Duration,
    /// Whether a client tries once more, on the next endpoint, when a write has failed. The second
    /// try is another write: the first may have happened.
    pub again: bool,
    /// Whether each client knows one endpoint only, the next one of the list.
    pub pinned: bool,
    /// The revision of the store when the load begins.
    pub base: i64,
    /// Decides keys and values.
    pub seed: u64,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            clients: 8,
            pace: Duration::from_millis(10),
            again: false,
            pinned: false,
            base: 1,
            seed: 1,
        }
    }
}

/// One attempt to write.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Time since the load began.
    pub called: Duration,
    /// Time since the load began.
    pub returned: Duration,
    /// Why it failed.
    pub error: Option<String>,
    /// It is the second try.
    pub again: bool,
    /// Where it went, if its client knows one endpoint only.
    pub endpoint: Option<String>,
}

/// What a load leaves behind.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Every write.
    pub ledger: Ledger,
    /// Every attempt, in the order of the answers.
    pub attempts: Vec<Attempt>,
    /// Reads that were answered.
    pub reads: u64,
    /// Why reads failed.
    pub failed_reads: Vec<String>,
}

/// A load that goes on.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<anyhow::Result<Noted>>,
}

#[derive(Debug)]
struct Shared {
    begun: Instant,
    base: i64,
    numbers: AtomicU64,
    acknowledged: watch::Sender<u64>,
    /// The greatest revision that any client was told.
    newest: AtomicI64,
    /// The acknowledged write that was called last: when it was called and answered.
    last: watch::Sender<(Duration, Duration)>,
}

#[derive(Debug, Default)]
struct Noted {
    writes: Vec<(Write, Fate, Attempt)>,
    reads: u64,
    failed_reads: Vec<String>,
}

impl Load {
    /// Starts the clients, each of which knows all of `endpoints`.
    ///
    /// # Errors
    /// None that happens.
    pub async fn start(endpoints: Vec<String>, plan: &Plan) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            begun: Instant::now(),
            base: plan.base,
            numbers: AtomicU64::new(0),
            acknowledged: watch::Sender::new(0),
            newest: AtomicI64::new(0),
            last: watch::Sender::default(),
        });
        let stop = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        for (number, endpoint) in (0..plan.clients).zip(endpoints.iter().cycle()) {
            let known = if plan.pinned {
                vec![endpoint.clone()]
            } else {
                endpoints.clone()
            };
            tasks.spawn(one_client(
                Arc::clone(&shared),
                client(known).await?,
                plan.clone(),
                StdRng::seed_from_u64(plan.seed ^ u64::from(number)),
                stop.subscribe(),
            ));
        }
        Ok(Self {
            shared,
            stop,
            tasks,
        })
    }

    /// Time since the load began.
    pub fn now(&self) -> Duration {
        self.shared.begun.elapsed()
    }

    /// Waits for `count` more acknowledged writes.
    ///
    /// # Errors
    /// They do not come.
    pub async fn more(&self, count: u64) -> anyhow::Result<()> {
        let mut acknowledged = self.shared.acknowledged.subscribe();
        let aim = *acknowledged.borrow() + count;
        let reached = acknowledged.wait_for(|is| *is >= aim);
        match tokio::time::timeout(PATIENCE, reached).await {
            Ok(_) => Ok(()),
            Err(_) => bail!("{count} writes are not acknowledged within {PATIENCE:?}"),
        }
    }

    /// Waits for an acknowledged write that was called after `moment`, and returns how long after
    /// `moment` its answer came. Clients may be stuck with calls from before, so `endpoints` are asked
    /// by others too.
    ///
    /// # Errors
    /// There is none for a long time.
    pub async fn first_after(
        &mut self,
        moment: Duration,
        endpoints: Vec<String>,
    ) -> anyhow::Result<Duration> {
        let deadline = moment + PATIENCE;
        let mut last = self.shared.last.subscribe();
        let mut ticks = tokio::time::interval(PROBE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let client = client(endpoints).await?;
        while self.now() < deadline {
            tokio::select! {
                Ok(found) = last.wait_for(|(called, _)| *called > moment) => {
                    return Ok(found.1 - moment);
                }
                _ = ticks.tick() => {
                    let (shared, client) = (Arc::clone(&self.shared), client.clone());
                    self.tasks.spawn(async move {
                        let mut noted = Noted::default();
                        let mut rng = StdRng::seed_from_u64(0);
                        shared.write(&client, &mut rng, false, &mut noted).await?;
                        Ok(noted)
                    });
                }
            }
        }
        bail!("no write is acknowledged for {PATIENCE:?}")
    }

    /// Writes once at one endpoint. Returns how long it took, and why it failed.
    ///
    /// # Errors
    /// The client saw something that must not be.
    pub async fn once(&mut self, endpoint: String) -> anyhow::Result<(Duration, Option<String>)> {
        let mut noted = Noted::default();
        let mut rng = StdRng::seed_from_u64(0);
        let client = client(vec![endpoint]).await?;
        self.shared
            .write(&client, &mut rng, false, &mut noted)
            .await?;
        let found = noted.writes.first().context("the write was noted")?;
        let found = (found.2.returned - found.2.called, found.2.error.clone());
        self.tasks.spawn(async { Ok(noted) });
        Ok(found)
    }

    /// Ends the load and gathers what it has noted.
    ///
    /// # Errors
    /// A client saw something that must not be.
    pub async fn finish(mut self) -> anyhow::Result<Outcome> {
        self.stop.send_replace(true);
        let mut outcome = Outcome {
            ledger: Ledger::after(self.shared.base),
            ..Outcome::default()
        };
        while let Some(noted) = self.tasks.join_next().await {
            let noted = noted??;
            for (write, fate, attempt) in noted.writes {
                outcome.ledger.enter(write, fate);
                outcome.attempts.push(attempt);
            }
            outcome.reads += noted.reads;
            outcome.failed_reads.extend(noted.failed_reads);
        }
        outcome.attempts.sort_by_key(|attempt| attempt.returned);
        Ok(outcome)
    }
}

async fn one_client(
    shared: Arc<Shared>,
    client: Client,
    plan: Plan,
    mut rng: StdRng,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<Noted> {
    let mut noted = Noted::default();
    let mut newest_own: Option<(Write, i64)> = None;
    let mut ticks = tokio::time::interval(plan.pace.max(Duration::from_micros(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*stop.borrow() {
        ticks.tick().await;
        match &newest_own {
            Some((write, revision)) if rng.random_ratio(1, READ_EVERY) => {
                shared.read(&client, write, *revision, &mut noted).await?;
            }
            _ => {
                let mut done = shared.write(&client, &mut rng, false, &mut noted).await?;
                if done.is_none() && plan.again {
                    done = shared.write(&client, &mut rng, true, &mut noted).await?;
                }
                newest_own = done.or(newest_own);
            }
        }
    }
    Ok(noted)
}

impl Shared {
    /// Writes once. Returns the write and its revision if it was acknowledged.
    async fn write(
        &self,
        client: &Client,
        rng: &mut StdRng,
        again: bool,
        noted: &mut Noted,
    ) -> anyhow::Result<Option<(Write, i64)>> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let write = Write::random(rng, number, 0);
        let before = self.newest.load(Ordering::Acquire);
        let called = self.begun.elapsed();
        let result = client.txn(write.txn()).await;
        let returned = self.begun.elapsed();
        let (fate, error) = match result {
            Ok(response) => {
                let revision = response.header.context("no header")?.revision;
                ensure!(
                    revision > before,
                    "write {number} is told revision {revision}, {before} was told before its call"
                );
                self.newest.fetch_max(revision, Ordering::AcqRel);
                self.acknowledged.send_modify(|count| *count += 1);
                self.last.send_if_modified(|last| {
                    let newer = called > last.0;
                    if newer {
                        *last = (called, returned);
                    }
                    newer
                });
                (Fate::Acknowledged(revision), None)
            }
            Err(error) => {
                let fate = if error.may_have_been_applied() {
                    Fate::Unknown
                } else {
                    Fate::Refused
                };
                (fate, Some(words(&error)))
            }
        };
        let attempt = Attempt {
            called,
            returned,
            error,
            again,
            endpoint: match client.endpoints().as_slice() {
                [endpoint] => Some(endpoint.clone()),
                _ => None,
            },
        };
        noted.writes.push((write.clone(), fate, attempt));
        Ok(match fate {
            Fate::Acknowledged(revision) => Some((write, revision)),
            Fate::Unknown | Fate::Refused => None,
        })
    }

    /// Reads the newest acknowledged write of the client.
    async fn read(
        &self,
        client: &Client,
        write: &Write,
        revision: i64,
        noted: &mut Noted,
    ) -> anyhow::Result<()> {
        let before = self.newest.load(Ordering::Acquire);
        match client.get(write.own_key(), GetOptions::new()).await {
            Ok(response) => {
                let at = response.header.context("no header")?.revision;
                ensure!(
                    at >= before,
                    "a linearizable read is of revision {at}, {before} was told before its call"
                );
                let found = response.kvs.first();
                ensure!(
                    found.is_some_and(|kv| kv.mod_revision == revision && kv.value == write.value),
                    "write {}, acknowledged at revision {revision}, reads {found:?} at {at}",
                    write.number
                );
                noted.reads += 1;
            }
            Err(error) => noted.failed_reads.push(words(&error)),
        }
        Ok(())
    }
}

/// An error with its cause.
pub fn words(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
