//! Leases: many that end together while others write, and keep-alives.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use ferrite_api::pb::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse, PutRequest, RangeRequest,
};

use crate::histogram::Histogram;
use crate::load::{self, Plan, Summary, on_this_thread};
use crate::proc;
use crate::rpc::{Connection, LeaseGrant, Put, Range};

/// Clients that grant leases.
const GRANTERS: usize = 64;
/// Connections that they share.
const CONNECTIONS: usize = 4;
/// Pause between two looks at how many leases are left. Counting keys costs etcd time.
const LOOK: Duration = Duration::from_millis(500);
/// Longest time from the end of the leases to the end of their keys.
const DRAIN_WITHIN: Duration = Duration::from_secs(900);
/// Leases of one keep-alive stream.
const LEASES_PER_STREAM: i64 = 10;

/// Time from the first grant to the end of `leases` leases: enough for a slow server to grant them all.
pub fn lead(leases: u64) -> Duration {
    Duration::from_secs(20 + leases / 2500)
}

fn lease_key(n: i64) -> String {
    format!("lease/{n:08}")
}

/// Grants `leases` leases, ids from 1, each with a key, so that all end in the second after `end`.
///
/// # Errors
/// A request fails, or they are not all granted by `end`.
pub fn grant(endpoint: &str, leases: u64, end: Instant) -> anyhow::Result<()> {
    let leases = i64::try_from(leases)?;
    on_this_thread(async move {
        let next = Rc::new(Cell::new(1));
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(Connection::open(endpoint).await?);
        }
        let tasks: Vec<_> = (0..GRANTERS)
            .map(|client| {
                let mut connection = connections[client % CONNECTIONS].clone();
                let next = Rc::clone(&next);
                tokio::task::spawn_local(async move {
                    loop {
                        let id = next.get();
                        if id > leases {
                            return anyhow::Ok(());
                        }
                        next.set(id + 1);
                        let left = end.saturating_duration_since(Instant::now());
                        ensure!(
                            !left.is_zero(),
                            "{id} of {leases} leases are granted in time"
                        );
                        let ttl = i64::try_from(left.as_secs())? + 1;
                        let grant = LeaseGrantRequest { id, ttl };
                        connection.call(LeaseGrant, &grant).await?;
                        let put = PutRequest {
                            key: lease_key(id).into(),
                            value: "x".into(),
                            lease: id,
                            ..PutRequest::default()
                        };
                        connection.call(Put, &put).await?;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.context("a client panicked")??;
        }
        Ok(())
    })
}

/// Writes until the keys of all leases are gone: what the writers saw, and how long it took from
/// `end` on.
///
/// # Errors
/// A request fails, or the keys do not go.
pub fn drain(plan: &Plan, end: Instant) -> anyhow::Result<(Summary, Duration)> {
    let endpoint = plan.endpoints.first().context("no endpoint")?;
    let request = RangeRequest {
        key: "lease/".into(),
        range_end: "lease0".into(),
        count_only: true,
        ..RangeRequest::default()
    };
    let look = || {
        on_this_thread(async {
            let mut connection = Connection::open(endpoint).await?;
            loop {
                let left = connection.call(Range, &request).await?.count;
                let took = end.elapsed();
                if left == 0 {
                    return Ok(took);
                }
                ensure!(took < DRAIN_WITHIN, "{left} leases are left after {took:?}");
                tokio::time::sleep(LOOK).await;
            }
        })
    };
    load::put_while(plan, look)
}

/// Keep-alives: a stream for each client of the plan, each with leases of its own that it renews in
/// turn, one request in flight.
///
/// # Errors
/// A request fails, or a lease is not there.
pub fn keep_alive(plan: &Plan, time: Duration) -> anyhow::Result<Summary> {
    on_this_thread(async move {
        let mut connections = Vec::new();
        for endpoint in plan.endpoints.iter().cycle().take(plan.connections) {
            connections.push(Connection::open(endpoint).await?);
        }
        let clients = i64::try_from(plan.clients)?;
        let first = 1_000_000;
        for id in first..first + clients * LEASES_PER_STREAM {
            let grant = LeaseGrantRequest { id, ttl: 600 };
            connections[0].call(LeaseGrant, &grant).await?;
        }
        let cpu_before = proc::own_cpu()?;
        let start = Instant::now();
        let tasks: Vec<_> = (0..clients)
            .map(|client| {
                let connection = connections[client as usize % connections.len()].clone();
                let ids = first + client * LEASES_PER_STREAM;
                tokio::task::spawn_local(stream(connection, ids, start + time))
            })
            .collect();
        let mut latency = Histogram::default();
        for task in tasks {
            latency.merge(&task.await.context("a client panicked")??);
        }
        Ok(Summary {
            succeeded: latency.count(),
            errors: Default::default(),
            elapsed: start.elapsed(),
            latency,
            client_cpu: proc::own_cpu()?.saturating_sub(cpu_before),
        })
    })
}

async fn stream(
    mut connection: Connection,
    first: i64,
    deadline: Instant,
) -> anyhow::Result<Histogram> {
    let mut stream = connection.keep_alive().await?;
    let mut latency = Histogram::default();
    let mut ids = (first..first + LEASES_PER_STREAM).cycle();
    let mut now = Instant::now();
    while now < deadline {
        let id = ids.next().context("a stream has leases")?;
        stream.send(&LeaseKeepAliveRequest { id })?;
        let answer: LeaseKeepAliveResponse = stream.next().await?;
        ensure!(answer.id == id && answer.ttl == 600, "{answer:?} for {id}");
        let answered = Instant::now();
        latency.record(answered - now);
        now = answered;
    }
    Ok(latency)
}
