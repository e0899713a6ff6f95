//! The tasks that watch: a witness of everything, watchers of each kind of object for the whole run,
//! and watchers that come and go and begin in the past.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use ferrite_client::pb::etcdserverpb::WatchResponse;
use ferrite_client::pb::mvccpb::Event as ApiEvent;
use ferrite_client::pb::mvccpb::event::EventType;
use ferrite_client::{Client, Error, GetOptions, WatchOptions, Watcher};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::workers::{EVENTS, RESOURCES};
use super::{Recorded, Shared};
use crate::history::{Event, Pair, Watched, fingerprint};

/// Watchers of each prefix for the whole run.
const STEADY: u64 = 2;
/// Tasks that open and close watches.
const VISITORS: u64 = 2;
/// How long the witness may lag behind at the end.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn start(shared: &Shared, tasks: &mut JoinSet<anyhow::Result<Recorded>>) {
    for prefix in [RESOURCES[0].0, RESOURCES[1].0, EVENTS] {
        for _ in 0..STEADY {
            tasks.spawn(steady(shared.clone(), prefix));
        }
    }
    for task in 0..VISITORS {
        tasks.spawn(visitor(shared.clone(), task));
    }
}

/// Receives every event from the first revision to the last, which `end` tells once it is known.
pub(super) async fn witness(
    shared: Shared,
    mut end: watch::Receiver<i64>,
) -> anyhow::Result<Vec<Event>> {
    let client = shared.client().await?;
    let options = WatchOptions::new().prefix().start_revision(2).prev_kv();
    let mut watcher = open(&client, "", options).await?;
    let mut log: Vec<Event> = Vec::new();
    loop {
        let response = tokio::select! {
            response = watcher.next() => response.context("the witness")?,
            _ = end.wait_for(|last| *last > 0) => break,
        };
        record(&shared, &response, &mut log);
    }
    // What is acknowledged by now has to come.
    let last = *end.wait_for(|last| *last > 0).await?;
    let rest = async {
        while log.last().map_or(1, |event| event.revision) < last {
            let response = watcher.next().await.context("the witness")?;
            record(&shared, &response, &mut log);
        }
        anyhow::Ok(())
    };
    match tokio::time::timeout(PATIENCE, rest).await {
        Ok(result) => result?,
        Err(_) => {
            let received = log.last().map(|event| event.revision);
            bail!("the store is at revision {last}, events ended at {received:?}");
        }
    }
    Ok(log)
}

fn record(shared: &Shared, response: &WatchResponse, log: &mut Vec<Event>) {
    let received = shared.now();
    log.extend(response.events.iter().filter_map(|event| {
        let (key, pair, previous) = parts(event)?;
        Some(Event {
            revision: event.kv.as_ref().map_or(0, |kv| kv.mod_revision),
            key,
            pair,
            previous,
            received,
        })
    }));
}

/// Key, new pair and previous pair of an event.
fn parts(event: &ApiEvent) -> Option<(Bytes, Option<Pair>, Option<Pair>)> {
    let kv = event.kv.as_ref()?;
    let pair = (event.r#type() == EventType::Put).then(|| Pair::from(kv));
    Some((kv.key.clone(), pair, event.prev_kv.as_ref().map(Pair::from)))
}

/// Opens a watch, also while the server is down.
async fn open(
    client: &Client,
    prefix: &'static str,
    options: WatchOptions,
) -> anyhow::Result<Watcher> {
    loop {
        match client.watch(prefix, options.clone()).await {
            Ok(watcher) => return Ok(watcher),
            Err(Error::Etcd(error)) => bail!("watch of {prefix:?}: {error}"),
            // The server is down: asked again.
            Err(_) => {}
        }
    }
}

async fn steady(shared: Shared, prefix: &'static str) -> anyhow::Result<Recorded> {
    let client = shared.client().await?;
    let mut watched = Watched::new(prefix, 2);
    let options = WatchOptions::new()
        .prefix()
        .start_revision(2)
        .prev_kv()
        .progress_notify();
    let mut watcher = open(&client, prefix, options).await?;
    let mut stop = shared.stop.clone();
    let mut ask = tokio::time::interval(Duration::from_millis(500));
    loop {
        tokio::select! {
            response = watcher.next() => {
                let response = response.with_context(|| format!("watch of {prefix}"))?;
                note(&response, &mut watched);
            }
            _ = ask.tick() => client.request_watch_progress(),
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    Ok(Recorded::Watches(vec![watched]))
}

/// Opens watches that begin up to a few thousand revisions ago, and closes them after some seconds.
async fn visitor(shared: Shared, task: u64) -> anyhow::Result<Recorded> {
    let client = shared.client().await?;
    let mut rng = StdRng::seed_from_u64(shared.plan.seed ^ 0x515 ^ (task << 40));
    let mut watches = Vec::new();
    let mut stop = shared.stop.clone();
    while !shared.stopped() {
        let (prefix, _) = RESOURCES[rng.random_range(0..RESOURCES.len())];
        let now = match client.get("now", GetOptions::new()).await {
            Ok(response) => response.header.map_or(0, |header| header.revision),
            Err(_) => continue,
        };
        let from = (now - rng.random_range(0..5_000)).max(2);
        let mut watched = Watched::new(prefix, from);
        let options = WatchOptions::new().prefix().start_revision(from).prev_kv();
        let mut watcher = open(&client, prefix, options).await?;
        let length = Duration::from_secs_f64(rng.random_range(0.1..10.0));
        let end = tokio::time::Instant::now() + length;
        loop {
            tokio::select! {
                response = watcher.next() => match response {
                    Ok(response) => note(&response, &mut watched),
                    // Too far in the past for the compactions meanwhile: what came is still right.
                    Err(Error::Etcd(ferrite_client::EtcdError::Compacted)) => break,
                    Err(error) => bail!("watch of {prefix} from {from}: {error}"),
                },
                () = tokio::time::sleep_until(end) => break,
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        watches.push(watched);
    }
    Ok(Recorded::Watches(watches))
}

fn note(response: &WatchResponse, watched: &mut Watched) {
    if response.events.is_empty() {
        if let Some(header) = &response.header {
            watched
                .progress
                .push((header.revision, watched.events.len()));
        }
        return;
    }
    watched.responses.push(watched.events.len());
    watched
        .events
        .extend(response.events.iter().filter_map(|event| {
            let (key, pair, previous) = parts(event)?;
            let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            Some((
                revision,
                fingerprint(&key, pair.as_ref(), previous.as_ref()),
            ))
        }));
}
