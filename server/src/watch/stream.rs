//! A watch stream: its watchers, what it has delivered, what comes next.
//!
//! A stream takes events when its client has room for them; nothing is pushed at it. Its watchers are
//! in one of two places:
//!
//! * **Live**: they have everything below `cursor`, one number for all of them. When the hub marks
//!   the stream, it takes a window of events from the ring, matches them against its own ranges and
//!   moves the cursor. A stream that is not marked does nothing, whatever happens in the store.
//! * **Behind**, in a [`Lane`]: watchers of one range that need history from the same revision on.
//!   Lanes read it in chunks ([`CatchUp`]), and become live when the ring has what is left.
//!
//! A live stream that comes too late for the ring, because its client reads slowly, is behind as a
//! whole. So a slow client costs a window of events and nothing that grows.
//!
//! Order: a watcher is in one place at a time, deliveries are a queue, and a watcher's next events are
//! fetched only after the queue was handed out; therefore its revisions only go up. Its created
//! response is handed out before any delivery that concerns it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::etcdserverpb::watch_create_request::FilterType;
use ferrite_api::types::{ClusterId, MemberId};
use ferrite_storage::mvcc::range::KeyRange;

use super::catch_up::{CatchUp, CaughtUp, Lane, Outcome};
use super::event::Event;
use super::hub::{Hub, Mark, Number};
use super::interval::IntervalIndex;
use super::response::{Content, Response};
use crate::error::Error;

/// The id in answers that concern no watcher, or all of them.
const NO_WATCHER: i64 = -1;

pub(super) const RANGE_EMPTY: &str = "mvcc: watcher range is empty";
pub(super) const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";
pub(super) const RESERVED_ID: &str = "mvcc: watch ID -1 is reserved";

/// A watcher's place, and proof that it is still the same watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    slot: usize,
    generation: u64,
}

/// Watchers, shared with the deliveries that are on their way to them.
pub(super) type Members = Arc<Vec<Place>>;

#[derive(Debug)]
struct Watcher {
    id: i64,
    generation: u64,
    range: KeyRange,
    /// The first revision whose events it wants.
    floor: i64,
    /// The first revision that it gets as a live watcher; what was before came another way.
    live_from: i64,
    /// The lowest revision that a progress notification to it may carry.
    progress_floor: i64,
    no_put: bool,
    no_delete: bool,
    prev_kv: bool,
    fragment: bool,
    progress_notify: bool,
    live: bool,
    /// Whether it was sent events since the last tick.
    active: bool,
}

impl Watcher {
    /// `live`: the event comes from a window of the ring that is for all live watchers.
    fn wants(&self, event: &Event, live: bool) -> bool {
        let filtered = if event.is_delete() {
            self.no_delete
        } else {
            self.no_put
        };
        let from = if live { self.live_from } else { self.floor };
        !filtered && event.revision().main >= from
    }
}

/// All watchers of one range.
#[derive(Debug)]
struct Group {
    /// The live ones.
    live: Members,
    /// How many there are, live or not.
    watchers: usize,
    /// Events of this range mark the stream from this revision on.
    marked_from: i64,
    /// The pass over the ring that has last found something, and its delivery.
    found: (u64, usize),
}

/// Events on their way to watchers of one range.
#[derive(Debug)]
struct Delivery {
    members: Members,
    /// The next member.
    at: usize,
    events: Arc<[Arc<Event>]>,
    source: Source,
}

/// Where events come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// A window of the ring, for all live watchers.
    Live,
    /// What watchers that were behind have lacked.
    Ring,
    /// History, read at this store revision.
    History(i64),
}

/// What a stream does next.
#[derive(Debug)]
pub enum Step {
    /// Hand this to the client.
    Send(Response),
    /// Run this, then [`Stream::caught_up`]. The stream goes on meanwhile.
    Run(CatchUp),
    /// Wait for a mark, a request, a tick or a result.
    Wait,
    /// The member's storage has failed.
    Fail(Error),
}

enum Progress {
    Send(Response),
    Nothing,
    /// The hub has moved on meanwhile.
    Again,
}

/// A watch stream. See the [module](self).
#[derive(Debug)]
pub struct Stream {
    hub: Arc<Hub>,
    number: Number,
    mark: Arc<Mark>,
    ids: (ClusterId, MemberId),
    slots: Vec<Option<Watcher>>,
    free: Vec<usize>,
    by_id: BTreeMap<i64, usize>,
    /// Ids of watchers that a compaction has ended and the client has not cancelled.
    ended: BTreeSet<i64>,
    next_id: i64,
    generations: u64,
    groups: IntervalIndex<Group>,
    live: usize,
    /// Live watchers have everything below it.
    cursor: i64,
    /// The first revision from the cursor on that concerns the stream; `None`: none is known.
    concerned: Option<i64>,
    passes: u64,
    lanes: VecDeque<Lane>,
    catching_up: bool,
    deliveries: VecDeque<Delivery>,
    /// Answers to requests, and cancellations.
    control: VecDeque<Response>,
    /// What is left of a response in fragments.
    fragments: VecDeque<Response>,
    /// The store revision when progress was asked for.
    progress_wanted: Option<i64>,
    notify_due: bool,
    failure: Option<Error>,
}

impl Stream {
    /// See [`WatchStream::of_connection`](crate::handle::WatchStream).
    pub(crate) fn of_connection(&mut self, connection: u32) {
        debug_assert!(self.slots.is_empty(), "the hub knows the stream already");
        self.number.connection = connection;
    }

    /// A stream without watchers.
    pub fn new(hub: Arc<Hub>, cluster: ClusterId, member: MemberId) -> Self {
        let (number, mark) = hub.open();
        hub.counts().streams.fetch_add(1, Ordering::Relaxed);
        Self {
            hub,
            number,
            mark,
            ids: (cluster, member),
            slots: Vec::new(),
            free: Vec::new(),
            by_id: BTreeMap::new(),
            ended: BTreeSet::new(),
            next_id: 0,
            generations: 0,
            groups: IntervalIndex::default(),
            live: 0,
            cursor: 0,
            concerned: None,
            passes: 0,
            lanes: VecDeque::new(),
            catching_up: false,
            deliveries: VecDeque::new(),
            control: VecDeque::new(),
            fragments: VecDeque::new(),
            progress_wanted: None,
            notify_due: false,
            failure: None,
        }
    }

    /// Who is woken when there is something to do. To be called before the [`Stream::step`] that
    /// may say [`Step::Wait`].
    pub(crate) fn register(&self, waker: &Waker) {
        self.mark.register(waker);
    }

    /// Creates a watcher, or refuses it; the answer is the next thing that is handed out after the
    /// answers to earlier requests.
    pub fn create(&mut self, request: pb::WatchCreateRequest) {
        let (range, id) = match self.check(&request) {
            Ok(checked) => checked,
            Err(reason) => return self.refuse(reason),
        };
        // The hub first: what is published from now on is marked, and the view is not older.
        let marked_from = self.add_to_group(&range);
        let view = self.hub.view();
        self.answer(id, view.revision, Content::Created);
        let start = request.start_revision;
        let (floor, progress_floor) = match start {
            0 => (view.revision + 1, view.revision),
            start => (start, start),
        };
        self.generations += 1;
        let filters = |filter: FilterType| request.filters.contains(&(filter as i32));
        let watcher = Watcher {
            id,
            generation: self.generations,
            range: range.clone(),
            floor,
            live_from: floor,
            progress_floor,
            no_put: filters(FilterType::Noput),
            no_delete: filters(FilterType::Nodelete),
            prev_kv: request.prev_kv,
            fragment: request.fragment,
            progress_notify: request.progress_notify,
            live: false,
            active: false,
        };
        let place = self.place(watcher);
        self.hub.counts().watchers.fetch_add(1, Ordering::Relaxed);
        self.hub.counts().behind.fetch_add(1, Ordering::Relaxed);
        if floor < view.compacted {
            return self.compacted(place, view.compacted);
        }
        if floor >= marked_from.max(self.cursor) {
            self.make_live(place, floor);
            return;
        }
        self.catch_up(range, floor, place, request.prev_kv);
    }

    /// Refuses to create a watcher, for this reason.
    pub fn refuse(&mut self, reason: String) {
        let revision = self.hub.view().revision;
        self.answer(NO_WATCHER, revision, Content::Refused(reason));
    }

    /// Ends a watcher. One that is not there is no matter.
    pub fn cancel(&mut self, id: i64) {
        if let Some(slot) = self.by_id.get(&id).copied() {
            self.remove(slot);
        } else if !self.ended.remove(&id) {
            return;
        }
        let revision = self.hub.view().revision;
        self.answer(id, revision, Content::Canceled);
    }

    /// Asks for the revision up to which everything was delivered. Answered behind the events up to
    /// it. Not answered if a watcher waits for a later revision, or if there is none.
    pub fn request_progress(&mut self) {
        self.progress_wanted = Some(self.hub.view().revision);
    }

    /// The time between two progress notifications has passed.
    pub fn tick(&mut self) {
        self.notify_due = true;
    }

    /// What to do next.
    pub fn step(&mut self) -> Step {
        loop {
            if let Some(failure) = self.failure.take() {
                return Step::Fail(failure);
            }
            let next = self.fragments.pop_front();
            if let Some(response) = next
                .or_else(|| self.control.pop_front())
                .or_else(|| self.deliver())
            {
                return Step::Send(response);
            }
            if let Some(work) = self.next_catch_up() {
                return Step::Run(work);
            }
            // Before the marks are looked at: without one, everything up to here is delivered.
            let done = self.hub.done();
            if self.pull() {
                continue;
            }
            match self.progress(done) {
                Progress::Send(response) => return Step::Send(response),
                Progress::Nothing if self.control.is_empty() => return Step::Wait,
                Progress::Nothing | Progress::Again => {}
            }
        }
    }

    /// The result of a [`Step::Run`].
    pub fn caught_up(&mut self, result: CaughtUp) {
        self.catching_up = false;
        for (lane, outcome) in result.lanes {
            match outcome {
                Outcome::Found(events) => {
                    let source = Source::History(result.revision);
                    self.enqueue(Arc::clone(&lane.members), events, source);
                    if let Some(lane) = self.join(lane) {
                        self.lanes.push_back(lane);
                    }
                }
                Outcome::Compacted(revision) => {
                    for place in lane.members.iter() {
                        self.compacted(*place, revision);
                    }
                }
                Outcome::Failed(error) => self.failure = Some(error),
            }
        }
    }

    fn check(&mut self, request: &pb::WatchCreateRequest) -> Result<(KeyRange, i64), String> {
        if request.start_revision < 0 {
            return Err(ferrite_api::Error::Compacted.message().to_owned());
        }
        // No key is the key of one zero byte: with an open end that is the whole key space.
        let key = if request.key.is_empty() {
            Bytes::from_static(&[0])
        } else {
            // Copied: a slice would keep the buffer that the request came in.
            Bytes::copy_from_slice(&request.key)
        };
        let range_end = Bytes::copy_from_slice(&request.range_end);
        let range = KeyRange::new(key, &range_end);
        if range.is_empty() {
            return Err(RANGE_EMPTY.to_owned());
        }
        match request.watch_id {
            0 => {
                while self.is_taken(self.next_id) {
                    self.next_id += 1;
                }
                self.next_id += 1;
                Ok((range, self.next_id - 1))
            }
            NO_WATCHER => Err(RESERVED_ID.to_owned()),
            id if self.is_taken(id) => Err(DUPLICATE_ID.to_owned()),
            id => Ok((range, id)),
        }
    }

    fn is_taken(&self, id: i64) -> bool {
        self.by_id.contains_key(&id) || self.ended.contains(&id)
    }

    /// Counts a watcher in, and returns the revision from which on its events mark the stream.
    fn add_to_group(&mut self, range: &KeyRange) -> i64 {
        if let Some(group) = self.groups.get_mut(range) {
            group.watchers += 1;
            return group.marked_from;
        }
        let marked_from = self.hub.add(self.number, &self.mark, range);
        let group = Group {
            live: Members::default(),
            watchers: 1,
            marked_from,
            found: (0, 0),
        };
        self.groups.insert(range, group);
        marked_from
    }

    fn place(&mut self, watcher: Watcher) -> Place {
        let generation = watcher.generation;
        let id = watcher.id;
        let slot = self.free.pop().unwrap_or(self.slots.len());
        if slot == self.slots.len() {
            self.slots.push(Some(watcher));
        } else {
            self.slots[slot] = Some(watcher);
        }
        self.by_id.insert(id, slot);
        Place { slot, generation }
    }

    fn watcher(&mut self, place: Place) -> Option<&mut Watcher> {
        self.slots[place.slot]
            .as_mut()
            .filter(|watcher| watcher.generation == place.generation)
    }

    fn remove(&mut self, slot: usize) {
        let Some(watcher) = self.slots[slot].take() else {
            return;
        };
        self.free.push(slot);
        self.by_id.remove(&watcher.id);
        let counts = self.hub.counts();
        counts.watchers.fetch_sub(1, Ordering::Relaxed);
        if watcher.live {
            self.live -= 1;
        } else {
            counts.behind.fetch_sub(1, Ordering::Relaxed);
        }
        let Some(group) = self.groups.get_mut(&watcher.range) else {
            return;
        };
        group.watchers -= 1;
        if group.watchers == 0 {
            self.groups.remove(&watcher.range);
            self.hub.remove(self.number, &watcher.range);
        } else if watcher.live {
            let live = Arc::make_mut(&mut group.live);
            live.retain(|place| place.slot != slot);
        }
    }

    /// Ends a watcher that needs revisions below a compaction. Its id is taken until the client cancels
    /// it, as in etcd.
    fn compacted(&mut self, place: Place, revision: i64) {
        if let Some(watcher) = self.watcher(place) {
            let id = watcher.id;
            self.remove(place.slot);
            self.ended.insert(id);
            self.answer(id, 0, Content::Compacted(revision));
        }
    }

    fn answer(&mut self, watch_id: i64, revision: i64, content: Content) {
        let response = self.response(watch_id, revision, content);
        self.control.push_back(response);
    }

    fn response(&self, watch_id: i64, revision: i64, content: Content) -> Response {
        let header = pb::ResponseHeader {
            cluster_id: self.ids.0.get(),
            member_id: self.ids.1.get(),
            revision,
            raft_term: self.hub.published().term(),
        };
        Response {
            header,
            watch_id,
            content,
        }
    }

    /// The watcher gets everything from `next` on from the ring.
    fn make_live(&mut self, place: Place, next: i64) {
        let Some(watcher) = self.watcher(place) else {
            return;
        };
        watcher.live = true;
        watcher.progress_floor = watcher.progress_floor.max(next - 1);
        watcher.live_from = watcher.live_from.max(next);
        let range = watcher.range.clone();
        self.live += 1;
        self.hub.counts().behind.fetch_sub(1, Ordering::Relaxed);
        match self.groups.get_mut(&range) {
            // Most ranges have one watcher: no room for more.
            Some(group) if group.live.is_empty() => group.live = Arc::new(vec![place]),
            Some(group) => Arc::make_mut(&mut group.live).push(place),
            None => {}
        }
    }

    /// Puts a watcher that needs history in a lane.
    fn catch_up(&mut self, range: KeyRange, next: i64, place: Place, with_prev: bool) {
        let alike = |lane: &&mut Lane| lane.next == next && lane.range == range;
        if let Some(lane) = self.lanes.back_mut().filter(alike) {
            Arc::make_mut(&mut lane.members).push(place);
            lane.with_prev |= with_prev;
            return;
        }
        let lane = Lane {
            range,
            next,
            members: Arc::new(vec![place]),
            with_prev,
        };
        if let Some(lane) = self.join(lane) {
            self.lanes.push_back(lane);
        }
    }

    /// Makes the members of a lane live if the ring has what they lack; gives the lane back if not.
    fn join(&mut self, mut lane: Lane) -> Option<Lane> {
        // No group: every watcher of the range is gone.
        let marked_from = self.groups.get_mut(&lane.range)?.marked_from;
        let target = self.cursor.max(marked_from);
        if lane.next < target {
            let ring = self.hub.ring();
            let missing = target - lane.next;
            if lane.next < ring.start() || missing > self.hub.limits().replay_revisions {
                return Some(lane);
            }
            let window = ring.window(lane.next, missing, usize::MAX);
            drop(ring);
            let events = window.events.into_iter();
            let events = events.filter(|event| lane.range.contains(event.key()));
            self.enqueue(Arc::clone(&lane.members), events.collect(), Source::Ring);
            lane.next = target;
        }
        for place in lane.members.iter() {
            self.make_live(*place, lane.next);
        }
        None
    }

    /// The next piece of history to read: when what was read before is handed out.
    fn next_catch_up(&mut self) -> Option<CatchUp> {
        if self.catching_up || self.lanes.is_empty() {
            return None;
        }
        let limits = self.hub.limits();
        let count = self.lanes.len().min(limits.lanes);
        let lanes: Vec<Lane> = self.lanes.drain(..count).collect();
        self.catching_up = true;
        Some(CatchUp::new(
            Arc::clone(self.hub.published()),
            lanes,
            limits.clone(),
        ))
    }

    /// Takes what concerns the live watchers from the ring. Returns whether to look again.
    fn pull(&mut self) -> bool {
        if let Some(marked) = self.mark.take() {
            let concerned = self.concerned.map_or(marked, |other| other.min(marked));
            self.concerned = Some(concerned);
        }
        let Some(from) = self.concerned.map(|from| from.max(self.cursor)) else {
            return false;
        };
        let ring = self.hub.ring();
        let (start, end) = (ring.start(), ring.end());
        if from > end || self.live == 0 {
            drop(ring);
            self.concerned = None;
            if self.live == 0 {
                self.cursor = self.cursor.max(end + 1);
            }
            return false;
        }
        if from < start {
            drop(ring);
            self.fall_behind(from, end);
            return true;
        }
        let limits = self.hub.limits();
        let window = ring.window(from, limits.response_revisions, limits.window_bytes);
        drop(ring);
        self.cursor = window.upto + 1;
        self.concerned = (self.cursor <= end).then_some(self.cursor);
        self.match_live(window.events);
        true
    }

    fn match_live(&mut self, events: Vec<Arc<Event>>) {
        self.passes += 1;
        let pass = self.passes;
        let mut found: Vec<(Members, Vec<Arc<Event>>)> = Vec::new();
        for event in &events {
            self.groups.each_mut(event.key(), |group| {
                if group.live.is_empty() {
                    return;
                }
                if group.found.0 != pass {
                    group.found = (pass, found.len());
                    found.push((Arc::clone(&group.live), Vec::new()));
                }
                found[group.found.1].1.push(Arc::clone(event));
            });
        }
        for (members, events) in found {
            self.enqueue(members, events, Source::Live);
        }
    }

    /// The ring has dropped `from`: every live watcher that needs something up to `end` reads it
    /// from history.
    fn fall_behind(&mut self, from: i64, end: i64) {
        self.passes += 1;
        let mut lanes: Vec<Lane> = Vec::new();
        let mut alike: HashMap<(KeyRange, i64), usize> = HashMap::new();
        for (slot, watcher) in self.slots.iter_mut().enumerate() {
            let Some(watcher) = watcher.as_mut().filter(|watcher| watcher.live) else {
                continue;
            };
            let Some(group) = self.groups.get_mut(&watcher.range) else {
                continue;
            };
            if group.found.0 != self.passes {
                group.found = (self.passes, 0);
                group.live = Members::default();
            }
            let generation = watcher.generation;
            let place = Place { slot, generation };
            if watcher.live_from > end {
                Arc::make_mut(&mut group.live).push(place);
                continue;
            }
            watcher.live = false;
            self.live -= 1;
            self.hub.counts().behind.fetch_add(1, Ordering::Relaxed);
            let next = from.max(watcher.live_from);
            let lane = *alike
                .entry((watcher.range.clone(), next))
                .or_insert_with(|| {
                    lanes.push(Lane {
                        range: watcher.range.clone(),
                        next,
                        members: Members::default(),
                        with_prev: false,
                    });
                    lanes.len() - 1
                });
            lanes[lane].with_prev |= watcher.prev_kv;
            Arc::make_mut(&mut lanes[lane].members).push(place);
        }
        self.lanes.extend(lanes);
        self.cursor = end + 1;
        self.concerned = None;
    }

    fn enqueue(&mut self, members: Members, events: Vec<Arc<Event>>, source: Source) {
        if events.is_empty() {
            return;
        }
        let delivery = Delivery {
            members,
            at: 0,
            events: events.into(),
            source,
        };
        let pending = &self.hub.counts().pending;
        pending.fetch_add(delivery.pending(), Ordering::Relaxed);
        self.deliveries.push_back(delivery);
    }

    /// The next response with events.
    fn deliver(&mut self) -> Option<Response> {
        while let Some(delivery) = self.deliveries.front_mut() {
            let Some(place) = delivery.members.get(delivery.at).copied() else {
                self.deliveries.pop_front();
                continue;
            };
            delivery.at += 1;
            let count = i64::try_from(delivery.events.len()).unwrap_or(i64::MAX);
            self.hub
                .counts()
                .pending
                .fetch_sub(count, Ordering::Relaxed);
            let (events, source) = (Arc::clone(&delivery.events), delivery.source);
            if let Some(response) = self.response_of(place, events, source) {
                return Some(response);
            }
        }
        None
    }

    fn response_of(
        &mut self,
        place: Place,
        mut events: Arc<[Arc<Event>]>,
        source: Source,
    ) -> Option<Response> {
        let watcher = self.watcher(place)?;
        let live = source == Source::Live;
        if !events.iter().all(|event| watcher.wants(event, live)) {
            let wanted = events.iter().filter(|event| watcher.wants(event, live));
            events = wanted.cloned().collect();
        }
        let last = events.last()?.revision().main;
        watcher.active = true;
        let (id, with_prev, fragment) = (watcher.id, watcher.prev_kv, watcher.fragment);
        let prev_since = with_prev.then(|| {
            let view = self.hub.view();
            for event in events.iter() {
                let added = event.look_up_prev(&view);
                if added > 0 {
                    self.hub.ring().charge(event, added);
                }
            }
            view.compacted
        });
        let content = Content::Events {
            events,
            prev_since,
            more: false,
        };
        // etcd's: a watcher that catches up is told the store revision, which is no place to resume.
        let revision = match source {
            Source::Live | Source::Ring => last,
            Source::History(revision) => revision,
        };
        let response = self.response(id, revision, content);
        if !fragment {
            return Some(response);
        }
        self.fragments = response.split(self.hub.limits().fragment_bytes).into();
        self.fragments.pop_front()
    }

    /// Progress that is due, when everything up to `done` is delivered to live watchers.
    fn progress(&mut self, done: i64) -> Progress {
        if std::mem::take(&mut self.notify_due) {
            self.notify(done);
        }
        let Some(asked_at) = self.progress_wanted else {
            return Progress::Nothing;
        };
        if self.catching_up || !self.lanes.is_empty() {
            return Progress::Nothing;
        }
        if done < asked_at {
            // The hub gets there with its next turns, which may have nothing for this stream.
            return if self.hub.wait(&self.mark, done) {
                Progress::Nothing
            } else {
                Progress::Again
            };
        }
        self.progress_wanted = None;
        let mut watchers = self.slots.iter().flatten().peekable();
        if watchers.peek().is_none() || watchers.any(|watcher| watcher.progress_floor > done) {
            return Progress::Nothing;
        }
        Progress::Send(self.response(NO_WATCHER, done, Content::Progress))
    }

    fn notify(&mut self, done: i64) {
        let mut due = Vec::new();
        for watcher in self.slots.iter_mut().flatten() {
            let active = std::mem::take(&mut watcher.active);
            if watcher.progress_notify && watcher.live && !active && watcher.progress_floor <= done
            {
                due.push(watcher.id);
            }
        }
        for id in due {
            self.answer(id, done, Content::Progress);
        }
    }
}

impl Delivery {
    /// Events times the members that have not got them.
    fn pending(&self) -> i64 {
        let members = self.members.len() - self.at;
        i64::try_from(members * self.events.len()).unwrap_or(i64::MAX)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let counts = self.hub.counts();
        counts.streams.fetch_sub(1, Ordering::Relaxed);
        let pending = self.deliveries.iter().map(Delivery::pending).sum();
        counts.pending.fetch_sub(pending, Ordering::Relaxed);
        for watcher in self.slots.drain(..).flatten() {
            counts.watchers.fetch_sub(1, Ordering::Relaxed);
            if !watcher.live {
                counts.behind.fetch_sub(1, Ordering::Relaxed);
            }
            if self.groups.remove(&watcher.range).is_some() {
                self.hub.remove(self.number, &watcher.range);
            }
        }
    }
}
