//! Loads: closed loops of clients, each with one request in flight, timed one by one.
//!
//! All clients of a load run on one thread, spread over a few connections, so that the generator
//! takes as little of the shared cores as it can. Readers that are measured while others write
//! have a thread of their own: their figures must not contain the writers' queue.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use ferrite_api::pb::etcdserverpb::{PutRequest, RangeRequest};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::task::LocalSet;

use crate::histogram::Histogram;
use crate::keys::{KeySpace, Order, Values};
use crate::proc;
use crate::rpc::{CallError, Connection, Put, Range};

/// A client that fails this often in a row gives up: the server is gone.
const ERRORS_IN_A_ROW: u32 = 100;
/// Pause after a failed call, so that a dead server does not spin the generator.
const ERROR_PAUSE: Duration = Duration::from_millis(2);
/// How long calls in flight may take after the load's end before the run is given up.
const STRAGGLERS: Duration = Duration::from_secs(60);

/// What every load needs to know.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Servers, `host:port`. Connections are dealt out in turn.
    pub endpoints: Vec<String>,
    /// Requests in flight.
    pub clients: usize,
    /// HTTP/2 connections; clients are dealt out in turn.
    pub connections: usize,
    /// The keys.
    pub keys: KeySpace,
    /// Bytes of each value written.
    pub value_size: usize,
    /// When to stop.
    pub until: Until,
    /// Decides the order of keys and the values.
    pub seed: u64,
}

/// When a load ends.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After this many requests.
    Requests(u64),
    /// After this time.
    Elapsed(Duration),
}

/// What one kind of request did in a load.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Requests answered without an error.
    pub succeeded: u64,
    /// Errors by text.
    pub errors: BTreeMap<String, u64>,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// Latencies of the successful requests.
    pub latency: Histogram,
    /// CPU time of the whole generator, user and system.
    pub client_cpu: Duration,
}

impl Summary {
    /// Successful requests per second.
    pub fn per_second(&self) -> f64 {
        self.succeeded as f64 / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    /// Failed requests.
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// One line for people.
    pub fn line(&self, name: &str) -> String {
        let us = |q| self.latency.quantile(q).as_secs_f64() * 1e6;
        let mut line = format!(
            "{name}: {:.0} ops/s ({} in {:.2} s), p50 {:.0} us, p90 {:.0} us, p99 {:.0} us, max {:.0} us, \
             generator {:.1} us CPU per op",
            self.per_second(),
            self.succeeded,
            self.elapsed.as_secs_f64(),
            us(0.5),
            us(0.9),
            us(0.99),
            us(1.0),
            per_op_us(self.client_cpu, self.succeeded),
        );
        for (text, count) in &self.errors {
            line.push_str(&format!("\n  {count} errors: {text}"));
        }
        line
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let us = |duration: Duration| duration.as_nanos() as f64 / 1e3;
        json!({
            "ops": self.succeeded,
            "seconds": self.elapsed.as_secs_f64(),
            "ops_per_second": self.per_second(),
            "mean_us": us(self.latency.mean()),
            "p50_us": us(self.latency.quantile(0.5)),
            "p90_us": us(self.latency.quantile(0.9)),
            "p99_us": us(self.latency.quantile(0.99)),
            "max_us": us(self.latency.max()),
            "generator_cpu_us_per_op": per_op_us(self.client_cpu, self.succeeded),
            "errors": self.errors,
        })
    }
}

/// Microseconds of `cpu` per operation; zero if there was none.
pub fn per_op_us(cpu: Duration, ops: u64) -> f64 {
    if ops == 0 {
        0.0
    } else {
        cpu.as_secs_f64() * 1e6 / ops as f64
    }
}

/// Writes keys in a seeded order, each once before any comes again.
///
/// # Errors
/// The server cannot be reached at the start, or does not answer long after the end. Errors of
/// single requests are counted in the summary.
pub fn put(plan: &Plan) -> anyhow::Result<Summary> {
    run(plan, None, Rc::new(Puts::new(plan)))
}

/// As [`put`], until `stop` is set.
///
/// # Errors
/// As [`put`].
fn put_until(plan: &Plan, stop: Arc<AtomicBool>) -> anyhow::Result<Summary> {
    let plan = Plan {
        until: Until::Elapsed(Duration::MAX),
        ..plan.clone()
    };
    run(&plan, Some(stop), Rc::new(Puts::new(&plan)))
}

/// Writes on another thread while something else is done, until that has ended.
///
/// # Errors
/// As [`put`]; what that gives.
pub fn put_while<T>(
    plan: &Plan,
    meanwhile: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(Summary, T)> {
    let stop = Arc::new(AtomicBool::new(false));
    let writers = {
        let (plan, stop) = (plan.clone(), Arc::clone(&stop));
        std::thread::Builder::new()
            .name("writers".into())
            .spawn(move || put_until(&plan, stop))?
    };
    let done = meanwhile();
    stop.store(true, Ordering::Relaxed);
    let writes = writers
        .join()
        .map_err(|_| anyhow::anyhow!("the writers' thread panicked"))?;
    Ok((writes.context("writers")?, done?))
}

/// Writes every key of the space exactly once.
///
/// # Errors
/// As [`put`]; also when a single write failed, because then the space is not complete.
pub fn fill(plan: &Plan) -> anyhow::Result<Summary> {
    let plan = Plan {
        until: Until::Requests(plan.keys.count()),
        ..plan.clone()
    };
    let summary = put(&plan)?;
    ensure!(
        summary.failed() == 0 && summary.succeeded == plan.keys.count(),
        "{} of {} keys were written: {:?}",
        summary.succeeded,
        plan.keys.count(),
        summary.errors
    );
    Ok(summary)
}

/// Reads random keys of the space. A key that does not exist counts as an error.
///
/// # Errors
/// As [`put`].
pub fn get(plan: &Plan, serializable: bool) -> anyhow::Result<Summary> {
    run(
        plan,
        None,
        Rc::new(Gets {
            keys: plan.keys.clone(),
            serializable,
        }),
    )
}

/// Linearizable reads by `readers` clients while the plan's clients write; `(reads, writes)`. The
/// load ends with the writers.
///
/// # Errors
/// As [`put`].
pub fn mixed(plan: &Plan, readers: usize) -> anyhow::Result<(Summary, Summary)> {
    let read_plan = Plan {
        clients: readers,
        connections: readers,
        until: Until::Elapsed(Duration::MAX),
        seed: plan.seed ^ 1,
        ..plan.clone()
    };
    let stop = Arc::new(AtomicBool::new(false));
    let reader_stop = Arc::clone(&stop);
    let reader = std::thread::Builder::new()
        .name("readers".into())
        .spawn(move || {
            let gets = Rc::new(Gets {
                keys: read_plan.keys.clone(),
                serializable: false,
            });
            run(&read_plan, Some(reader_stop), gets)
        })?;
    let writes = put(plan);
    stop.store(true, Ordering::Relaxed);
    let reads = reader
        .join()
        .map_err(|_| anyhow::anyhow!("the readers' thread panicked"))?;
    Ok((reads.context("readers")?, writes.context("writers")?))
}

/// One request of a load.
trait Operation: 'static {
    fn call(
        &self,
        connection: &mut Connection,
        rng: &mut SmallRng,
    ) -> impl Future<Output = Result<(), CallError>>;
}

struct Puts {
    keys: KeySpace,
    order: Order,
    place: Cell<u64>,
    values: Values,
}

impl Puts {
    fn new(plan: &Plan) -> Puts {
        Puts {
            keys: plan.keys.clone(),
            order: Order::new(plan.keys.count(), plan.seed),
            place: Cell::new(0),
            values: Values::new(plan.value_size, plan.seed),
        }
    }
}

impl Operation for Puts {
    async fn call(&self, connection: &mut Connection, rng: &mut SmallRng) -> Result<(), CallError> {
        let place = self.place.get();
        self.place.set(place + 1);
        let request = PutRequest {
            key: self.keys.key(self.order.number(place)),
            value: self.values.pick(rng),
            ..PutRequest::default()
        };
        connection.call(Put, &request).await.map(drop)
    }
}

struct Gets {
    keys: KeySpace,
    serializable: bool,
}

impl Operation for Gets {
    async fn call(&self, connection: &mut Connection, rng: &mut SmallRng) -> Result<(), CallError> {
        let request = RangeRequest {
            key: self.keys.key(rng.random_range(0..self.keys.count())),
            serializable: self.serializable,
            ..RangeRequest::default()
        };
        let answer = connection.call(Range, &request).await?;
        if answer.kvs.len() == 1 {
            Ok(())
        } else {
            Err(CallError::Transport(format!(
                "{} pairs for an existing key",
                answer.kvs.len()
            )))
        }
    }
}

/// Runs a future on a runtime of this thread, with local tasks.
///
/// # Errors
/// The runtime cannot be made, or the future's own error.
pub(crate) fn on_this_thread<T>(
    future: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, future)
}

/// What the clients of one load share.
struct Shared<O> {
    operation: Rc<O>,
    left: Cell<u64>,
    deadline: Option<Instant>,
    stop: Option<Arc<AtomicBool>>,
    latency: RefCell<Histogram>,
    errors: RefCell<BTreeMap<String, u64>>,
    last_answer: Cell<Instant>,
}

impl<O: Operation> Shared<O> {
    /// Takes one request off what is left to do.
    fn next(&self, now: Instant) -> bool {
        let stopped = self
            .stop
            .as_ref()
            .is_some_and(|stop| stop.load(Ordering::Relaxed));
        if stopped || self.left.get() == 0 || self.deadline.is_some_and(|deadline| now >= deadline)
        {
            return false;
        }
        self.left.set(self.left.get() - 1);
        true
    }

    async fn client(self: Rc<Self>, mut connection: Connection, seed: u64) {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut failures = 0;
        let mut now = Instant::now();
        while failures < ERRORS_IN_A_ROW && self.next(now) {
            let result = self.operation.call(&mut connection, &mut rng).await;
            let answered = Instant::now();
            match result {
                Ok(()) => {
                    failures = 0;
                    self.latency.borrow_mut().record(answered - now);
                    self.last_answer.set(answered);
                    now = answered;
                }
                Err(error) => {
                    failures += 1;
                    *self
                        .errors
                        .borrow_mut()
                        .entry(error.to_string())
                        .or_default() += 1;
                    tokio::time::sleep(ERROR_PAUSE).await;
                    now = Instant::now();
                }
            }
        }
    }
}

fn run<O: Operation>(
    plan: &Plan,
    stop: Option<Arc<AtomicBool>>,
    operation: Rc<O>,
) -> anyhow::Result<Summary> {
    ensure!(!plan.endpoints.is_empty(), "no endpoint");
    ensure!(
        plan.clients > 0 && plan.connections > 0,
        "a load takes a client and a connection"
    );
    on_this_thread(async move {
        let mut connections = Vec::with_capacity(plan.connections);
        for endpoint in plan.endpoints.iter().cycle().take(plan.connections) {
            connections.push(Connection::open(endpoint).await?);
        }
        let cpu_before = proc::own_cpu()?;
        let start = Instant::now();
        let (left, deadline) = match plan.until {
            Until::Requests(requests) => (requests, None),
            Until::Elapsed(time) => (u64::MAX, start.checked_add(time)),
        };
        let shared = Rc::new(Shared {
            operation,
            left: Cell::new(left),
            deadline,
            stop,
            latency: RefCell::default(),
            errors: RefCell::default(),
            last_answer: Cell::new(start),
        });
        let tasks: Vec<_> = (0..plan.clients)
            .map(|client| {
                let connection = connections[client % connections.len()].clone();
                let seed = plan.seed ^ (client as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                tokio::task::spawn_local(Rc::clone(&shared).client(connection, seed))
            })
            .collect();
        join(tasks, deadline).await?;
        let latency = shared.latency.take();
        Ok(Summary {
            succeeded: latency.count(),
            errors: shared.errors.take(),
            elapsed: shared.last_answer.get() - start,
            latency,
            client_cpu: proc::own_cpu()?.saturating_sub(cpu_before),
        })
    })
}

async fn join(
    tasks: Vec<tokio::task::JoinHandle<()>>,
    deadline: Option<Instant>,
) -> anyhow::Result<()> {
    let all = async {
        for task in tasks {
            task.await.context("a client panicked")?;
        }
        anyhow::Ok(())
    };
    match deadline {
        None => all.await,
        Some(deadline) => tokio::time::timeout_at((deadline + STRAGGLERS).into(), all)
            .await
            .map_err(|_| anyhow::anyhow!("no answer for {STRAGGLERS:?} after the load's end"))?,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_per_operation_survive_zero_operations() {
        assert_eq!(per_op_us(Duration::from_secs(1), 0), 0.0);
        assert_eq!(per_op_us(Duration::from_secs(1), 1_000_000), 1.0);
    }

    #[test]
    fn an_unreachable_server_is_an_error_that_names_it() {
        // A port that was just given back: nobody listens there.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let plan = Plan {
            endpoints: vec![format!("127.0.0.1:{port}")],
            clients: 1,
            connections: 1,
            keys: KeySpace::new(10, 24).unwrap(),
            value_size: 1,
            until: Until::Requests(1),
            seed: 1,
        };
        let error = put(&plan).unwrap_err();
        assert!(
            format!("{error:#}").contains(&port.to_string()),
            "{error:#}"
        );
    }
}
