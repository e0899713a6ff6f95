//! The hub: takes what the member publishes and tells the streams that it concerns.
//!
//! A turn takes the next revisions from the newest view: appends their events to the ring, marks
//! every stream that has a range which one of them matches, says up to where this is done, and wakes
//! the marked streams. In this order, so that a stream which sees a mark finds the event in the ring,
//! and one which sees "done up to R" and no mark has nothing to wait for at or below R.
//!
//! Nothing here waits, reads a file or looks at a clock; whoever owns the hub gives it turns.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::task::Waker;

use ferrite_storage::mvcc::range::KeyRange;
use ferrite_storage::mvcc::view::View;
use parking_lot::{Mutex, MutexGuard};

use super::Limits;
use super::event::Event;
use super::interval::IntervalIndex;
use super::ring::Ring;
use crate::member::Published;

/// No mark.
const NONE: i64 = i64::MAX;

/// What connects a stream with the hub.
#[derive(Debug)]
pub(super) struct Mark {
    /// The first revision that concerns the stream since it last looked.
    revision: AtomicI64,
    // Held to store or take the waker; never together with another lock.
    waker: Mutex<Option<Waker>>,
}

impl Mark {
    fn new() -> Self {
        Self {
            revision: AtomicI64::new(NONE),
            waker: Mutex::new(None),
        }
    }

    /// Returns whether there was no mark.
    fn set(&self, revision: i64) -> bool {
        self.revision.fetch_min(revision, Ordering::AcqRel) == NONE
    }

    /// Takes the mark; `None` if there is none.
    pub(super) fn take(&self) -> Option<i64> {
        let revision = self.revision.swap(NONE, Ordering::AcqRel);
        (revision != NONE).then_some(revision)
    }

    /// Who is to be woken by the next mark. To be called before the last look at it.
    pub(super) fn register(&self, waker: &Waker) {
        let mut current = self.waker.lock();
        if !current
            .as_ref()
            .is_some_and(|current| current.will_wake(waker))
        {
            *current = Some(waker.clone());
        }
    }

    fn wake(&self) {
        let waker = self.waker.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Which stream: unique, and in an order in which streams of one connection are neighbours. (Both
/// wrap; that two streams meet takes 2^32 connections during the life of one.)
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Number {
    /// The number of the connection.
    pub(super) connection: u32,
    stream: u32,
}

/// The hub of a member. See the [module](self).
#[derive(Debug)]
pub struct Hub {
    published: Arc<Published>,
    limits: Limits,
    // A turn of the hub, and every change of what it looks at. Taken before `ring`, and before
    // nothing else. Streams take it to come, to go and to add or remove a range.
    turn: Mutex<Turn>,
    // Held for copying references to events out or in; innermost.
    ring: Mutex<Ring>,
    /// Everything at or below it is in the ring (or was) and marked.
    done: AtomicI64,
    next_stream: AtomicU32,
    counts: Counts,
}

/// What the gauges show.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Open streams.
    pub(crate) streams: AtomicI64,
    /// Watchers.
    pub(crate) watchers: AtomicI64,
    /// Watchers that catch up.
    pub(crate) behind: AtomicI64,
    /// Events that were taken for delivery and are not delivered.
    pub(crate) pending: AtomicI64,
}

#[derive(Debug, Default)]
struct Turn {
    /// By range, the streams that it concerns, in the order of their numbers.
    ranges: IntervalIndex<Vec<(Number, Arc<Mark>)>>,
    /// Every stream that has a range.
    streams: BTreeMap<Number, Registered>,
    /// Streams to wake after the next turn, whatever it brings.
    waiting: Vec<Arc<Mark>>,
}

#[derive(Debug)]
struct Registered {
    mark: Arc<Mark>,
    ranges: usize,
}

impl Hub {
    /// The hub of the member that publishes there.
    pub fn new(published: Arc<Published>, limits: Limits) -> Self {
        let ring = Mutex::new(Ring::new(limits.ring_bytes, 0));
        Self {
            published,
            limits,
            turn: Mutex::default(),
            ring,
            done: AtomicI64::new(0),
            next_stream: AtomicU32::new(0),
            counts: Counts::default(),
        }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(crate) fn published(&self) -> &Arc<Published> {
        &self.published
    }

    /// The newest view of the store.
    pub(super) fn view(&self) -> Arc<View> {
        self.published.view()
    }

    pub(super) fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock()
    }

    /// The revision up to which streams have been told.
    pub(super) fn done(&self) -> i64 {
        self.done.load(Ordering::Acquire)
    }

    /// A new stream: its number, with connection 0 for now, and its mark.
    pub(super) fn open(&self) -> (Number, Arc<Mark>) {
        let number = Number {
            connection: 0,
            stream: self.next_stream.fetch_add(1, Ordering::Relaxed),
        };
        (number, Arc::new(Mark::new()))
    }

    /// From now on events in `range` concern the stream. Returns the first revision for which this
    /// is certain.
    pub(super) fn add(&self, stream: Number, mark: &Arc<Mark>, range: &KeyRange) -> i64 {
        let mut turn = self.turn.lock();
        if turn.streams.is_empty() {
            self.begin();
        }
        let registered = turn.streams.entry(stream).or_insert_with(|| Registered {
            mark: Arc::clone(mark),
            ranges: 0,
        });
        registered.ranges += 1;
        let entry = (stream, Arc::clone(mark));
        match turn.ranges.get_mut(range) {
            Some(streams) => match find(streams, stream) {
                Err(at) => streams.insert(at, entry),
                Ok(_) => debug_assert!(false, "{stream:?} adds {range:?} twice"),
            },
            None => turn.ranges.insert(range, vec![entry]),
        }
        self.done() + 1
    }

    /// Events in `range` concern the stream no longer.
    pub(super) fn remove(&self, stream: Number, range: &KeyRange) {
        let mut turn = self.turn.lock();
        if let Some(streams) = turn.ranges.get_mut(range) {
            if let Ok(at) = find(streams, stream) {
                streams.remove(at);
            }
            if streams.is_empty() {
                turn.ranges.remove(range);
            }
        }
        let Some(registered) = turn.streams.get_mut(&stream) else {
            return;
        };
        registered.ranges -= 1;
        if registered.ranges == 0 {
            turn.streams.remove(&stream);
        }
        if turn.streams.is_empty() {
            self.published.set_watched(false);
            let done = self.done();
            self.ring.lock().reset(done);
        }
    }

    /// Wakes the stream after the next turn, whatever it brings. `false`: there was one since `done`
    /// was asked for.
    pub(super) fn wait(&self, mark: &Arc<Mark>, done: i64) -> bool {
        let mut turn = self.turn.lock();
        let none = self.done() == done;
        if none {
            turn.waiting.push(Arc::clone(mark));
        }
        none
    }

    /// Somebody watches again: what was published until now concerns nobody.
    fn begin(&self) {
        // The member looks at the flag after it has published, this looks at the view after it has
        // set the flag: nothing is published in between without a turn following.
        self.published.set_watched(true);
        let revision = self.published.view().revision;
        self.ring.lock().reset(revision);
        self.done.store(revision, Ordering::Release);
    }

    /// Takes the next revisions that are published. Returns whether there may be more.
    pub fn turn(&self) -> bool {
        let mut turn = self.turn.lock();
        if turn.streams.is_empty() {
            return false;
        }
        let view = self.published.view();
        let done = self.done();
        let mut wake = std::mem::take(&mut turn.waiting);
        let more = view.revision > done && {
            match self.gather(&view, done) {
                Some((events, upto)) => {
                    self.ring.lock().push(&events, upto);
                    for event in &events {
                        let main = event.revision().main;
                        turn.ranges.each_mut(event.key(), |streams| {
                            let marked = streams.iter().filter(|(_, mark)| mark.set(main));
                            wake.extend(marked.map(|(_, mark)| Arc::clone(mark)));
                        });
                    }
                    self.done.store(upto, Ordering::Release);
                    upto < view.revision
                }
                None => {
                    // The rows are in the page file already: whoever needs them reads them there.
                    let resume = first_recent(&view, done).map_or(view.revision, |first| first - 1);
                    self.ring.lock().reset(resume);
                    let streams = turn.streams.values();
                    let marked = streams.filter(|stream| stream.mark.set(done + 1));
                    wake.extend(marked.map(|stream| Arc::clone(&stream.mark)));
                    self.done.store(resume, Ordering::Release);
                    resume < view.revision
                }
            }
        };
        drop(turn);
        for mark in wake {
            mark.wake();
        }
        more
    }

    /// The events of the next revisions after `done`, and the last of these revisions. `None`: the
    /// rows are not in memory.
    fn gather(&self, view: &View, done: i64) -> Option<(Vec<Arc<Event>>, i64)> {
        let (mut events, mut upto) = (Vec::new(), done);
        for row in view.recent.between(done, view.revision) {
            let main = row.revision.main;
            if main > upto {
                if main != upto + 1 {
                    break;
                }
                if events.len() >= self.limits.turn_events {
                    break;
                }
                upto = main;
            }
            match Event::of_row(row.revision, row.tombstone, &row.record) {
                Ok(event) => events.push(Arc::new(event)),
                Err(error) => {
                    tracing::error!(%error, "a change in memory cannot be shown to watchers");
                    events.retain(|event: &Arc<Event>| event.revision().main < main);
                    upto = main - 1;
                    break;
                }
            }
        }
        (upto > done).then_some((events, upto))
    }
}

/// Where a stream is in a list of them, or would be.
fn find(streams: &[(Number, Arc<Mark>)], stream: Number) -> Result<usize, usize> {
    streams.binary_search_by_key(&stream, |(stream, _)| *stream)
}

/// The first revision after `done` whose rows are in memory.
fn first_recent(view: &View, done: i64) -> Option<i64> {
    let mut rows = view.recent.between(done + 1, view.revision);
    rows.next().map(|row| row.revision.main)
}
