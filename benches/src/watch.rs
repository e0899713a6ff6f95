//! Watchers: how fast and at what cost events reach them, and what they cost while nothing happens.
//!
//! Responses are not decoded as a whole: the generator only counts the events in them, so that with
//! ten thousand watchers it is not what is measured.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::{Buf, Bytes};
use ferrite_api::pb::etcdserverpb::{PutRequest, WatchCreateRequest};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::Notify;

use crate::keys::Values;
use crate::load::{Plan, Summary, on_this_thread, put};
use crate::proc;
use crate::rpc::{Connection, Put, WatchCall};

/// Streams over which watchers are spread, at most.
const STREAMS: usize = 100;
/// Connections over which streams are spread, at most.
const CONNECTIONS: usize = 10;
/// Puts that may be ahead of the slowest watcher: enough to keep the server busy, few enough that
/// no watcher falls behind for good.
const AHEAD: u64 = 16;
/// Patience with the slowest watcher.
const PATIENCE: Duration = Duration::from_secs(60);
/// Receive window of a stream that is never read (bytes); the least that HTTP/2 starts with.
const STUCK_WINDOW: u32 = 65_535;

/// What a fan-out has shown.
#[derive(Clone, Debug)]
pub struct FanOut {
    /// Puts that were acknowledged and seen by every watcher.
    pub puts: u64,
    /// Events that arrived.
    pub events: u64,
    /// Responses that they arrived in.
    pub responses: u64,
    /// From the first put to the last event.
    pub elapsed: Duration,
    /// CPU time of the generator.
    pub client_cpu: Duration,
}

impl FanOut {
    /// Events per second.
    pub fn per_second(&self) -> f64 {
        self.events as f64 / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    /// One line for people.
    pub fn line(&self, name: &str) -> String {
        format!(
            "{name}: {:.0} events/s ({} puts, {} events in {} responses, {:.2} s), generator {:.2} us CPU per event",
            self.per_second(),
            self.puts,
            self.events,
            self.responses,
            self.elapsed.as_secs_f64(),
            crate::load::per_op_us(self.client_cpu, self.events),
        )
    }
}

/// Watchers of the plan's first key see puts of it, one after another, for `time`. Every watcher must
/// see every put exactly once.
///
/// # Errors
/// A call failed, or a watcher saw too few or too many events.
pub fn fan_out(plan: &Plan, watchers: usize, time: Duration) -> anyhow::Result<FanOut> {
    let key = plan.keys.key(0);
    on_this_thread(async {
        let created = open(plan, watchers, |_| key.clone()).await?;
        let progress = Rc::new(Progress::default());
        let slowest: Vec<Rc<Cell<u64>>> = created.iter().map(|_| Rc::default()).collect();
        for ((call, count), seen) in created.into_iter().zip(&slowest) {
            let reader = read(call, count, Rc::clone(seen), Rc::clone(&progress));
            tokio::task::spawn_local(reader);
        }
        let endpoint = plan.endpoints.first().context("no endpoint")?;
        let mut writer = Connection::open(endpoint).await?;
        let values = Values::new(plan.value_size, plan.seed);
        let mut rng = SmallRng::seed_from_u64(plan.seed);
        let cpu_before = proc::own_cpu()?;
        let begin = Instant::now();
        let mut puts = 0;
        while begin.elapsed() < time {
            wait_for(&slowest, &progress, puts.max(AHEAD) - AHEAD).await?;
            let request = PutRequest {
                key: key.clone(),
                value: values.pick(&mut rng),
                ..PutRequest::default()
            };
            writer.call(Put, &request).await?;
            puts += 1;
        }
        wait_for(&slowest, &progress, puts).await?;
        let events = progress.events.get();
        ensure!(
            events == puts * watchers as u64,
            "{watchers} watchers of {puts} puts saw {events} events"
        );
        Ok(FanOut {
            puts,
            events,
            responses: progress.responses.get(),
            elapsed: begin.elapsed(),
            client_cpu: proc::own_cpu()?.saturating_sub(cpu_before),
        })
    })
}

/// Opens watchers of a key each, and runs `measure` while they are idle.
///
/// # Errors
/// A call failed, or `measure` did.
pub fn idle<T>(
    plan: &Plan,
    watchers: usize,
    measure: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    on_this_thread(async {
        let _watchers = open(plan, watchers, |n| plan.keys.key(n as u64)).await?;
        measure()
    })
}

/// The plan's puts while `stuck` streams watch everything and never read.
///
/// # Errors
/// As [`put`], and when a watcher cannot be created.
pub fn put_beside_stuck(plan: &Plan, stuck: usize) -> anyhow::Result<Summary> {
    let endpoint = plan.endpoints.first().context("no endpoint")?.clone();
    let all = WatchCreateRequest {
        key: plan.keys.key(0),
        range_end: plan.keys.end(),
        ..WatchCreateRequest::default()
    };
    let (ready, is_ready) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let watchers = std::thread::Builder::new()
        .name("stuck".into())
        .spawn(move || {
            on_this_thread(async {
                // Connections are read, streams are not: what is stuck is flow control.
                let mut open = Vec::new();
                for _ in 0..stuck {
                    let mut connection =
                        Connection::open_with(&endpoint, STUCK_WINDOW, STUCK_WINDOW).await?;
                    let call = connection.watch(all.clone()).await?;
                    open.push((connection, call));
                }
                ready.send(()).context("nobody waits")?;
                // An error: the puts are done.
                let _done = stopped.await;
                Ok(())
            })
        })?;
    let summary = match is_ready.recv() {
        Ok(()) => put(plan),
        Err(_) => Err(anyhow::anyhow!("no stuck watchers")),
    };
    drop(stop);
    watchers
        .join()
        .map_err(|_| anyhow::anyhow!("the stuck watchers' thread panicked"))??;
    summary
}

/// What all readers have seen.
#[derive(Default)]
struct Progress {
    events: Cell<u64>,
    responses: Cell<u64>,
    moved: Notify,
    failure: Cell<Option<String>>,
}

/// Opens watch streams with all of their watchers; each with the number of them.
async fn open(
    plan: &Plan,
    watchers: usize,
    key: impl Fn(usize) -> Bytes,
) -> anyhow::Result<Vec<(WatchCall, u64)>> {
    let endpoint = plan.endpoints.first().context("no endpoint")?;
    let streams = watchers.min(STREAMS);
    let mut connections = Vec::new();
    for _ in 0..streams.min(CONNECTIONS) {
        connections.push(Connection::open(endpoint).await?);
    }
    let mut calls = Vec::new();
    for stream in 0..streams {
        let numbers: Vec<usize> = (stream..watchers).step_by(streams).collect();
        let request = |n: &usize| WatchCreateRequest {
            key: key(*n),
            ..WatchCreateRequest::default()
        };
        let at = stream % connections.len();
        let mut call = connections[at].watch(request(&numbers[0])).await?;
        for n in &numbers[1..] {
            call.create(request(n))?;
        }
        let mut created = 0;
        while created < numbers.len() {
            for message in call.next().await? {
                ensure!(count_events(message) == 0, "an event before the first put");
                created += 1;
            }
        }
        calls.push((call, numbers.len() as u64));
    }
    Ok(calls)
}

/// Reads a stream of so many watchers. `seen`: puts that all of them have seen.
async fn read(mut call: WatchCall, watchers: u64, seen: Rc<Cell<u64>>, progress: Rc<Progress>) {
    let mut events = 0;
    loop {
        let messages = match call.next().await {
            Ok(messages) => messages,
            Err(error) => {
                progress.failure.set(Some(error.to_string()));
                progress.moved.notify_one();
                return;
            }
        };
        let responses = progress.responses.get() + messages.len() as u64;
        progress.responses.set(responses);
        let new: u64 = messages.into_iter().map(count_events).sum();
        progress.events.set(progress.events.get() + new);
        events += new;
        if events / watchers > seen.get() {
            seen.set(events / watchers);
            progress.moved.notify_one();
        }
    }
}

/// Waits until every stream has seen this many puts.
async fn wait_for(seen: &[Rc<Cell<u64>>], progress: &Progress, puts: u64) -> anyhow::Result<()> {
    let all = async {
        for stream in seen {
            while stream.get() < puts {
                progress.moved.notified().await;
                if let Some(failure) = progress.failure.take() {
                    anyhow::bail!("a watch stream failed: {failure}");
                }
            }
        }
        Ok(())
    };
    match tokio::time::timeout(PATIENCE, all).await {
        Ok(result) => result,
        Err(_) => anyhow::bail!("a watcher has not seen {puts} puts for {PATIENCE:?}"),
    }
}

/// How many events an encoded `WatchResponse` has.
fn count_events(mut message: Bytes) -> u64 {
    const EVENTS: u64 = 11 << 3 | 2;
    let mut events = 0;
    while message.has_remaining() {
        let Ok(tag) = prost::encoding::decode_varint(&mut message) else {
            break;
        };
        let Ok(number) = prost::encoding::decode_varint(&mut message) else {
            break;
        };
        // Every field of the message is a varint, or has a length.
        if tag & 7 == 2 {
            message.advance(usize::try_from(number).unwrap_or(0).min(message.len()));
        }
        events += u64::from(tag == EVENTS);
    }
    events
}

#[cfg(test)]
mod tests {
    use ferrite_api::pb::etcdserverpb::{ResponseHeader, WatchResponse};
    use ferrite_api::pb::mvccpb::Event;
    use prost::Message;

    use super::*;

    #[test]
    fn events_are_counted() {
        for events in [0, 1, 3, 200] {
            let message = WatchResponse {
                header: Some(ResponseHeader {
                    cluster_id: u64::MAX,
                    revision: 7,
                    ..ResponseHeader::default()
                }),
                watch_id: 300,
                created: true,
                cancel_reason: "Z".into(),
                events: vec![Event::default(); events],
                ..WatchResponse::default()
            };
            assert_eq!(count_events(message.encode_to_vec().into()), events as u64);
        }
    }
}
