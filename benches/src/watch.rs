//! Watchers: how fast and at what cost events reach them, and what they cost while nothing happens.
//!
//! Responses are not decoded as a whole: the generator only counts the events in them, so that with
//! ten thousand watchers it is not what is measured.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::{Buf, Bytes};
use ferrite_api::pb::etcdserverpb::{PutRequest, RangeRequest, WatchCreateRequest};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;

use crate::keys::Values;
use crate::load::{Plan, Summary, on_this_thread, put, put_while};
use crate::proc;
use crate::rpc::{Connection, Put, Range, WatchCall};

/// Streams over which watchers are spread, at most.
const STREAMS: usize = 100;
/// Connections over which streams are spread, at most.
const CONNECTIONS: usize = 10;
/// Puts that may be ahead of the slowest watcher, or more if there are many writers: enough to keep the server busy, few enough that
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

/// What is watched and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// One key: every watcher sees every put.
    OneKey,
    /// A key for each watcher: one watcher sees a put.
    KeyEach,
    /// All keys, with previous pairs: every watcher sees every put.
    AllKeys,
}

/// Watchers see what the plan's clients put, one after another each, for `time`. Every watcher must
/// see every put that concerns it exactly once.
///
/// # Errors
/// A call failed, or the watchers saw too few or too many events.
pub fn fan_out(
    plan: &Plan,
    target: Target,
    watchers: usize,
    time: Duration,
) -> anyhow::Result<FanOut> {
    let request = |n: usize| match target {
        Target::OneKey => one_key(plan, 0),
        Target::KeyEach => one_key(plan, n as u64),
        Target::AllKeys => WatchCreateRequest {
            prev_kv: true,
            ..all_keys(plan)
        },
    };
    on_this_thread(async {
        let created = open(plan, watchers, request).await?;
        let seen = Seen::new(target, &created);
        for (stream, (call, _)) in created.into_iter().enumerate() {
            tokio::task::spawn_local(read(call, stream, Rc::clone(&seen)));
        }
        let endpoint = plan.endpoints.first().context("no endpoint")?;
        let cpu_before = proc::own_cpu()?;
        let begin = Instant::now();
        let puts = Rc::new(Cell::new(0));
        let mut connections = Vec::new();
        for _ in 0..plan.connections {
            connections.push(Connection::open(endpoint).await?);
        }
        let mut writers = Vec::new();
        for client in 0..plan.clients {
            let mut connection = connections[client % connections.len()].clone();
            let (plan, seen, puts) = (plan.clone(), Rc::clone(&seen), Rc::clone(&puts));
            writers.push(tokio::task::spawn_local(async move {
                let values = Values::new(plan.value_size, plan.seed);
                let mut rng = SmallRng::seed_from_u64(plan.seed + client as u64);
                let ahead = AHEAD.max(4 * plan.clients as u64);
                while begin.elapsed() < time {
                    seen.wait_for(puts.get().max(ahead) - ahead).await?;
                    let key = match target {
                        Target::OneKey => 0,
                        Target::KeyEach => rng.random_range(0..watchers as u64),
                        Target::AllKeys => rng.random_range(0..plan.keys.count()),
                    };
                    let request = PutRequest {
                        key: plan.keys.key(key),
                        value: values.pick(&mut rng),
                        ..PutRequest::default()
                    };
                    connection.call(Put, &request).await?;
                    puts.set(puts.get() + 1);
                }
                anyhow::Ok(())
            }));
        }
        for writer in writers {
            writer.await??;
        }
        let puts = puts.get();
        seen.wait_for(puts).await?;
        let events = seen.events.get();
        let expected = match target {
            Target::KeyEach => puts,
            Target::OneKey | Target::AllKeys => puts * watchers as u64,
        };
        ensure!(
            events == expected,
            "{watchers} watchers of {puts} puts saw {events} events"
        );
        Ok(FanOut {
            puts,
            events,
            responses: seen.responses.get(),
            elapsed: begin.elapsed(),
            client_cpu: proc::own_cpu()?.saturating_sub(cpu_before),
        })
    })
}

/// What a watcher did that began in the past.
#[derive(Clone, Debug)]
pub struct CaughtUp {
    /// Events until it had all that had happened when it began.
    pub events: u64,
    /// How long that took.
    pub elapsed: Duration,
    /// The puts meanwhile.
    pub puts: Summary,
}

impl CaughtUp {
    /// Events per second.
    pub fn per_second(&self) -> f64 {
        self.events as f64 / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }
}

/// A watcher of all keys that begins at the first revision, while the plan's clients write, until it
/// has what was there when it began.
///
/// # Errors
/// As [`put`]; also when the watch failed.
pub fn catch_up(plan: &Plan) -> anyhow::Result<CaughtUp> {
    let endpoint = plan.endpoints.first().context("no endpoint")?;
    let caught_up = || {
        on_this_thread(async {
            let mut connection = Connection::open(endpoint).await?;
            let now = RangeRequest {
                key: plan.keys.key(0),
                ..RangeRequest::default()
            };
            let now = connection.call(Range, &now).await?;
            let behind = now.header.unwrap_or_default().revision - 1;
            let request = WatchCreateRequest {
                start_revision: 2,
                ..all_keys(plan)
            };
            let begin = Instant::now();
            let mut call = connection.watch(request).await?;
            let mut events = 0;
            // Every revision but the first has one event.
            while events < u64::try_from(behind)? {
                let messages = tokio::time::timeout(PATIENCE, call.next());
                let messages = messages.await.context("no event comes")??;
                events += messages.into_iter().map(count_events).sum::<u64>();
            }
            Ok((events, begin.elapsed()))
        })
    };
    let (puts, (events, elapsed)) = put_while(plan, caught_up)?;
    Ok(CaughtUp {
        events,
        elapsed,
        puts,
    })
}

fn one_key(plan: &Plan, number: u64) -> WatchCreateRequest {
    WatchCreateRequest {
        key: plan.keys.key(number),
        ..WatchCreateRequest::default()
    }
}

fn all_keys(plan: &Plan) -> WatchCreateRequest {
    WatchCreateRequest {
        key: plan.keys.key(0),
        range_end: plan.keys.end(),
        ..WatchCreateRequest::default()
    }
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
        let _watchers = open(plan, watchers, |n| one_key(plan, n as u64)).await?;
        measure()
    })
}

/// The plan's puts while `stuck` streams watch everything and never read.
///
/// # Errors
/// As [`put`], and when a watcher cannot be created.
pub fn put_beside_stuck(plan: &Plan, stuck: usize) -> anyhow::Result<Summary> {
    let endpoint = plan.endpoints.first().context("no endpoint")?.clone();
    let all = all_keys(plan);
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
struct Seen {
    /// For each stream: events, and how many of them a put brings. Streams that share the puts
    /// share one.
    streams: Vec<Rc<(Cell<u64>, u64)>>,
    events: Cell<u64>,
    responses: Cell<u64>,
    moved: Notify,
    failure: Cell<Option<String>>,
}

impl Seen {
    fn new(target: Target, created: &[(WatchCall, u64)]) -> Rc<Self> {
        let shared = Rc::new((Cell::new(0), 1));
        let stream = |(_, watchers): &(WatchCall, u64)| match target {
            Target::KeyEach => Rc::clone(&shared),
            Target::OneKey | Target::AllKeys => Rc::new((Cell::new(0), *watchers)),
        };
        Rc::new(Self {
            streams: created.iter().map(stream).collect(),
            events: Cell::default(),
            responses: Cell::default(),
            moved: Notify::new(),
            failure: Cell::default(),
        })
    }

    /// Waits until everybody concerned has seen this many puts.
    async fn wait_for(&self, puts: u64) -> anyhow::Result<()> {
        let all = async {
            for stream in &self.streams {
                while stream.0.get() < puts * stream.1 {
                    let moved = self.moved.notified();
                    if let Some(failure) = self.failure.take() {
                        anyhow::bail!("a watch stream failed: {failure}");
                    }
                    moved.await;
                }
            }
            Ok(())
        };
        match tokio::time::timeout(PATIENCE, all).await {
            Ok(result) => result,
            Err(_) => anyhow::bail!("a watcher has not seen {puts} puts for {PATIENCE:?}"),
        }
    }
}

/// Opens watch streams with all of their watchers; each with the number of them.
async fn open(
    plan: &Plan,
    watchers: usize,
    request: impl Fn(usize) -> WatchCreateRequest,
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
        let at = stream % connections.len();
        let mut call = connections[at].watch(request(numbers[0])).await?;
        for n in &numbers[1..] {
            call.create(request(*n))?;
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

async fn read(mut call: WatchCall, stream: usize, seen: Rc<Seen>) {
    loop {
        let messages = match call.next().await {
            Ok(messages) => messages,
            Err(error) => {
                seen.failure.set(Some(error.to_string()));
                seen.moved.notify_waiters();
                return;
            }
        };
        let responses = seen.responses.get() + messages.len() as u64;
        seen.responses.set(responses);
        let new: u64 = messages.into_iter().map(count_events).sum();
        seen.events.set(seen.events.get() + new);
        let stream = &seen.streams[stream].0;
        stream.set(stream.get() + new);
        seen.moved.notify_waiters();
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
