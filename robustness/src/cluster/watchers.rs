//! Clients that watch: at each member one stream with three watchers, which go on where they were when their
//! member starts again, and begin behind a compaction that has overtaken them.
//!
//! The hub is given turns, streams are stepped, and history is read, each as an event of its own, now and
//! then late.

use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_server::member::Published;
use ferrite_server::watch::{CatchUp, CaughtUp, Content, Hub, Limits, Response, Stream};
use ferrite_storage::state::State;
use rand::Rng;

use super::queue::Time;
use super::request::prefix_end;
use super::world::{Event, Step, World};
use crate::history::{Pair, Watched, fingerprint};

/// So small that short runs meet all of them.
fn limits() -> Limits {
    Limits {
        ring_bytes: 4 << 10,
        turn_events: 4,
        response_revisions: 7,
        window_bytes: 1 << 10,
        replay_revisions: 20,
        lanes: 2,
        chunk_bytes: 1 << 10,
        scan_rows: 10,
        narrow_keys: 3,
        fragment_bytes: 1 << 20,
    }
}

/// What a process has for its watchers.
#[derive(Debug)]
pub(super) struct Watching {
    hub: Arc<Hub>,
    stream: Stream,
    /// Arrival of the last response at the client: they do not overtake each other.
    last: Time,
    /// The id of the last watcher.
    next_id: i64,
    /// Whether history is being read.
    pub(super) reading: bool,
}

impl Watching {
    pub(super) fn new(published: &Arc<Published>, state: &State) -> Self {
        let hub = Arc::new(Hub::new(Arc::clone(published), limits()));
        let (cluster, member) = (state.cluster_id(), state.member_id());
        Self {
            stream: Stream::new(Arc::clone(&hub), cluster, member),
            hub,
            last: Time::ZERO,
            next_id: 0,
            reading: false,
        }
    }
}

impl Watching {
    /// Creates a watcher.
    fn create(&mut self, watcher: &mut Watcher) {
        self.next_id += 1;
        self.stream.create(watcher.create(self.next_id));
    }
}

/// A client's watcher.
#[derive(Debug)]
pub(super) struct Watcher {
    seen: Watched,
    /// The first revision that it still wants.
    next: i64,
    /// Its id on the stream that it has.
    id: i64,
    /// Whether the client knows that it exists there.
    created: bool,
    /// Whether it is ended and begun elsewhere now and then.
    restless: bool,
}

/// The watchers of the clients of a member.
pub(super) fn watchers() -> Vec<Watcher> {
    let watcher = |prefix: &'static str, with_previous, restless| {
        let mut seen = Watched::new(Bytes::from(prefix), 1);
        seen.with_previous = with_previous;
        Watcher {
            seen,
            next: 1,
            id: 0,
            created: false,
            restless,
        }
    };
    vec![
        watcher("", true, false),
        watcher("k/00", false, false),
        watcher("k/0", true, true),
    ]
}

impl Watcher {
    /// The request for it, under a new id.
    fn create(&mut self, id: i64) -> pb::WatchCreateRequest {
        self.id = id;
        self.created = false;
        let (key, range_end) = match self.seen.prefix.is_empty() {
            true => (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")),
            false => (self.seen.prefix.clone(), prefix_end(&self.seen.prefix)),
        };
        pb::WatchCreateRequest {
            key,
            range_end,
            start_revision: self.next,
            prev_kv: self.seen.with_previous,
            progress_notify: true,
            watch_id: self.id,
            ..pb::WatchCreateRequest::default()
        }
    }

    /// What it has seen; it begins anew at `from`.
    fn begin_again(&mut self, from: i64) -> Watched {
        let mut fresh = Watched::new(self.seen.prefix.clone(), from);
        fresh.with_previous = self.seen.with_previous;
        self.next = from;
        (self.id, self.created) = (0, false);
        std::mem::replace(&mut self.seen, fresh)
    }
}

impl World {
    /// The clients of a member that has started come back.
    pub(super) fn watch(&mut self, at: usize) {
        while self.watchers.len() <= at {
            self.watchers.push(watchers());
        }
        if let Some(shell) = &mut self.nodes[at].shell {
            for watcher in &mut self.watchers[at] {
                shell.watching.create(watcher);
            }
        }
        self.plan_watch(at);
    }

    fn plan_watch(&mut self, at: usize) {
        let delay = match self.rng.random_range(0..50) {
            0 if self.chaos => self.micros(100_000..3_000_000),
            _ => self.micros(1_000..40_000),
        };
        self.after(delay, at, Step::Watch);
    }

    /// The hub and the stream of a member go on.
    pub(super) fn step_watch(&mut self, at: usize) -> anyhow::Result<()> {
        self.plan_watch(at);
        let hub_lags = self.chaos && self.rng.random_bool(0.2);
        let most = self.rng.random_range(1..20);
        let (progress, tick) = (self.rng.random_bool(0.05), self.rng.random_bool(0.02));
        let move_on = self.chaos && self.rng.random_bool(0.02);
        let mut wanted = None;
        if move_on {
            wanted = Some(self.somewhere());
        }
        let delay = self.network.client_delay(&self.plan);
        let (now, life) = (self.now, self.nodes[at].life);
        let shell = self.nodes[at].shell.as_mut().context("it runs")?;
        let watching = &mut shell.watching;
        if !hub_lags {
            while watching.hub.turn() {}
        }
        if progress {
            watching.stream.request_progress();
        }
        if tick {
            watching.stream.tick();
        }
        if let Some(from) = wanted {
            for watcher in self.watchers[at]
                .iter_mut()
                .filter(|watcher| watcher.restless)
            {
                watching.stream.cancel(watcher.id);
                self.watched.push(watcher.begin_again(from));
                watching.create(watcher);
            }
        }
        for _ in 0..most {
            match watching.stream.step() {
                ferrite_server::watch::Step::Send(response) => {
                    watching.last = watching.last.max(now + delay);
                    let event = Event::Watched { at, life, response };
                    self.queue.at(watching.last, event);
                }
                ferrite_server::watch::Step::Run(work) => {
                    ensure!(!watching.reading, "two reads of history at a time");
                    watching.reading = true;
                    let delay = self.micros(100..30_000);
                    self.after(delay, at, Step::CatchUp(Box::new(work)));
                    break;
                }
                ferrite_server::watch::Step::Wait => break,
                ferrite_server::watch::Step::Fail(error) => bail!("a watch stream fails: {error}"),
            }
        }
        Ok(())
    }

    /// A revision near the newest, before or behind it.
    fn somewhere(&mut self) -> i64 {
        (self.model.revision + self.rng.random_range(-40..10)).max(1)
    }

    /// History is read.
    pub(super) fn catch_up(&mut self, at: usize, work: CatchUp) {
        self.counts.one("history read for watchers");
        let result = work.run();
        let delay = self.micros(10..10_000);
        self.after(delay, at, Step::CaughtUp(Box::new(result)));
    }

    /// What was read is there.
    pub(super) fn caught_up(&mut self, at: usize, result: CaughtUp) {
        if let Some(shell) = &mut self.nodes[at].shell {
            shell.watching.reading = false;
            shell.watching.stream.caught_up(result);
        }
    }

    /// A response has arrived at the clients of a member.
    pub(super) fn watched(
        &mut self,
        at: usize,
        life: u64,
        response: &Response,
    ) -> anyhow::Result<()> {
        if self.nodes[at].life != life {
            // The connection is gone.
            return Ok(());
        }
        let revision = response.header.revision;
        let (id, kind) = (response.watch_id, name(&response.content));
        self.note(format_args!("m{at} watch {id} {kind} at {revision}"));
        let (model, records) = (&self.model, &self.records);
        // Progress of the whole stream may be told to a watcher that waits for the next revision.
        let of_stream = i64::from(response.watch_id == -1);
        let mut of_all = self.watchers[at]
            .iter_mut()
            .filter(|watcher| watcher.id == response.watch_id || response.watch_id == -1);
        match &response.content {
            Content::Progress => {
                for watcher in of_all.filter(|watcher| watcher.created) {
                    self.counts.one("progress of watchers");
                    ensure!(
                        revision <= model.revision && revision >= watcher.seen.from - of_stream,
                        "progress at revision {revision} of a watcher from {} on",
                        watcher.seen.from
                    );
                    watcher.next = watcher.next.max(revision + 1);
                    let received = watcher.seen.events.len();
                    watcher.seen.progress.push((revision, received));
                }
            }
            Content::Events { prev_since, .. } => {
                let Some(watcher) = of_all.next() else {
                    return Ok(());
                };
                ensure!(
                    prev_since.is_some() == watcher.seen.with_previous
                        && !response.events().is_empty(),
                    "a response of another kind: {response:?}"
                );
                watcher.seen.responses.push(watcher.seen.events.len());
                for event in response.to_message().events {
                    let delete =
                        event.r#type() == ferrite_api::pb::mvccpb::event::EventType::Delete;
                    let kv = event.kv.context("an event has a pair")?;
                    let pair = (!delete).then(|| Pair::from(&kv));
                    let previous = event.prev_kv.as_ref().map(Pair::from);
                    let print = fingerprint(&kv.key, pair.as_ref(), previous.as_ref());
                    watcher.seen.events.push((kv.mod_revision, print));
                    watcher.next = kv.mod_revision + 1;
                    self.counts.one("watched events");
                }
            }
            Content::Compacted(compacted) => {
                let Some(watcher) = of_all.next() else {
                    return Ok(());
                };
                ensure!(
                    watcher.next < *compacted && *compacted <= records.compacted,
                    "a watcher that wants revision {} is told of a compaction to {compacted}, the last is to {}",
                    watcher.next,
                    records.compacted
                );
                self.counts.one("watchers overtaken by compactions");
                self.watched.push(watcher.begin_again(*compacted));
                if let Some(shell) = &mut self.nodes[at].shell {
                    shell.watching.create(watcher);
                }
            }
            Content::Refused(why) => bail!("a watcher is refused: {why}"),
            Content::Created => of_all.for_each(|watcher| watcher.created = true),
            Content::Canceled => {}
        }
        Ok(())
    }

    /// Whether every watcher has seen everything up to the end.
    pub(super) fn watched_all(&self) -> bool {
        let last = |watcher: &Watcher| {
            let events = self.model.events.iter().rev();
            let mut of_prefix = events.filter(|event| event.key.starts_with(&watcher.seen.prefix));
            of_prefix.next().map_or(0, |event| event.revision)
        };
        self.member_machines().into_iter().all(|at| {
            let watchers = self.watchers.get(at).into_iter().flatten();
            watchers
                .into_iter()
                .all(|watcher| watcher.next > last(watcher))
        })
    }

    /// Everything that was watched.
    pub(super) fn take_watched(&mut self) -> Vec<Watched> {
        let mut all = std::mem::take(&mut self.watched);
        let watchers = self.watchers.drain(..).flatten();
        all.extend(watchers.map(|watcher| watcher.seen));
        for watched in &mut all {
            watched.compacted = self.records.compacted;
        }
        all
    }
}

/// What a response says, for the trace.
fn name(content: &Content) -> String {
    match content {
        Content::Created => "created".to_owned(),
        Content::Refused(why) => format!("refused: {why}"),
        Content::Canceled => "canceled".to_owned(),
        Content::Compacted(revision) => format!("compacted to {revision}"),
        Content::Progress => "progress".to_owned(),
        Content::Events { events, .. } => {
            let revisions = events.iter().map(|event| event.revision().main);
            format!("events {:?}", revisions.collect::<Vec<_>>())
        }
    }
}
