//! Reading history for watchers that are behind: one bounded chunk at a time, off the hub and off
//! the streams, with a page-file transaction of its own.
//!
//! A range with few keys is looked up in the index, which knows the revisions of each key; only the
//! rows that match are read. Wide ranges share one scan over all rows from the oldest revision that
//! one of them needs. Both stop at whole revisions.
//!
//! A compaction that overtakes a chunk is seen at its end: rows may be gone only if the newest
//! compaction is above the revision that the chunk began at, and then its result is not used.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use ferrite_api::types::Revision;
use ferrite_storage::mvcc::index::Change;
use ferrite_storage::mvcc::range::{End, KeyRange};
use ferrite_storage::mvcc::view::{RowError, Rows, View};
use ferrite_storage::page;
use tonic::Code;

use super::Limits;
use super::event::Event;
use super::interval::IntervalIndex;
use super::stream::Members;
use crate::error::Error;
use crate::member::Published;

/// Watchers of one range that need everything from the same revision on.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) range: KeyRange,
    /// The first revision that they need.
    pub(super) next: i64,
    pub(super) members: Members,
    /// Whether one of them wants previous pairs.
    pub(super) with_prev: bool,
}

/// What a chunk has brought to a lane.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Everything in the range before the lane's `next`, which has moved.
    Found(Vec<Arc<Event>>),
    /// The lane needs revisions below this compaction.
    Compacted(i64),
    /// The storage failed.
    Failed(Error),
}

/// The result of a chunk.
#[derive(Debug)]
pub struct CaughtUp {
    pub(super) lanes: Vec<(Lane, Outcome)>,
    /// The store revision that was read at.
    pub(super) revision: i64,
}

/// A chunk of history to read. Blocks for some milliseconds.
#[derive(Debug)]
pub struct CatchUp {
    published: Arc<Published>,
    lanes: Vec<Lane>,
    limits: Limits,
}

type Events = Result<Vec<Arc<Event>>, Failure>;

/// Why no rows came.
enum Failure {
    /// A row is missing; compacted, or damage.
    Missing(Revision),
    Storage(ferrite_storage::Error),
}

impl From<RowError> for Failure {
    fn from(error: RowError) -> Self {
        match error {
            RowError::Missing(revision) => Failure::Missing(revision),
            RowError::Storage(error) => Failure::Storage(error),
        }
    }
}

impl From<page::Error> for Failure {
    fn from(error: page::Error) -> Self {
        Failure::Storage(error.into())
    }
}

impl CatchUp {
    pub(super) fn new(published: Arc<Published>, lanes: Vec<Lane>, limits: Limits) -> Self {
        Self {
            published,
            lanes,
            limits,
        }
    }

    /// Reads.
    pub fn run(self) -> CaughtUp {
        let view = self.published.view();
        let oldest = self.lanes.iter().map(|lane| lane.next).min();
        let _pin = oldest.map(|oldest| view.pins.pin(oldest));
        let mut budget = Budget::new(&self.limits);
        let mut found: Vec<(Lane, i64, Events)> = Vec::new();
        let mut wide = Vec::new();
        for mut lane in self.lanes {
            let from = lane.next;
            if from < view.compacted || budget.is_spent() {
                found.push((lane, from, Ok(Vec::new())));
            } else if is_narrow(&view, &lane.range, &self.limits) {
                let events = narrow(&view, &mut lane, &self.limits, &mut budget);
                found.push((lane, from, events));
            } else {
                wide.push(lane);
            }
        }
        if !wide.is_empty() {
            let from: Vec<i64> = wide.iter().map(|lane| lane.next).collect();
            let results = match scan(&view, &mut wide, &self.limits) {
                Ok(events) => events.into_iter().map(Ok).collect(),
                Err(failure) => spread(failure, wide.len()),
            };
            found.extend(
                wide.into_iter()
                    .zip(from)
                    .zip(results)
                    .map(|((lane, from), result)| (lane, from, result)),
            );
        }
        let compacted = self.published.view().compacted;
        let lanes = found.into_iter().map(|(lane, from, result)| {
            let outcome = match result {
                _ if from < compacted => Outcome::Compacted(compacted),
                Ok(events) => Outcome::Found(events),
                Err(failure) => Outcome::Failed(error_of(failure)),
            };
            (lane, outcome)
        });
        CaughtUp {
            lanes: lanes.collect(),
            revision: view.revision,
        }
    }
}

/// One failure that concerns `count` lanes.
fn spread(failure: Failure, count: usize) -> Vec<Events> {
    let mut results: Vec<_> = (1..count).map(|_| Ok(Vec::new())).collect();
    results.push(Err(failure));
    results
}

fn error_of(failure: Failure) -> Error {
    let text = match failure {
        Failure::Missing(revision) => {
            format!("the index names row {revision}, the page file lacks it")
        }
        Failure::Storage(error) => error.to_string(),
    };
    tracing::error!(error = text, "cannot read history for a watcher");
    Error::status(Code::DataLoss, text)
}

/// What a chunk may still bring.
struct Budget {
    bytes: usize,
    spent: usize,
}

impl Budget {
    fn new(limits: &Limits) -> Self {
        Self {
            bytes: limits.chunk_bytes,
            spent: 0,
        }
    }

    fn is_spent(&self) -> bool {
        self.spent > self.bytes
    }
}

fn is_narrow(view: &View, range: &KeyRange, limits: &Limits) -> bool {
    match range.end() {
        End::Single => true,
        _ => view.index.count(range, view.revision) <= limits.narrow_keys,
    }
}

/// The next events of a lane whose range has few keys. Moves its `next`.
fn narrow(view: &Arc<View>, lane: &mut Lane, limits: &Limits, budget: &mut Budget) -> Events {
    let mut width = limits.scan_rows;
    while lane.next <= view.revision {
        let upto = view.revision.min(lane.next - 1 + width);
        let changes = view.index.changes(&lane.range, lane.next - 1, upto);
        let mut changes: Vec<(Bytes, Change)> = changes
            .map(|(key, change)| (Bytes::copy_from_slice(key), change))
            .collect();
        changes.sort_by_key(|(_, change)| change.revision);
        let (events, next) = take(view, lane, &changes, upto + 1, limits, budget)?;
        lane.next = next;
        if !events.is_empty() {
            return Ok(events);
        }
        // Changes are rare: look at more revisions at a time.
        width = (width * 2).min(limits.scan_rows * 64);
    }
    Ok(Vec::new())
}

/// Reads the rows of the first of these changes, up to the limits. Returns them and the first
/// revision that was not looked at; `end` if it was all.
fn take(
    view: &Arc<View>,
    lane: &Lane,
    changes: &[(Bytes, Change)],
    end: i64,
    limits: &Limits,
    budget: &mut Budget,
) -> Result<(Vec<Arc<Event>>, i64), Failure> {
    let mut rows = view.rows();
    let (mut events, mut revisions, mut main) = (Vec::new(), 0, 0);
    for (key, change) in changes {
        if change.revision.main != main {
            if revisions == limits.response_revisions || budget.is_spent() {
                return Ok((events, change.revision.main));
            }
            revisions += 1;
            main = change.revision.main;
        }
        let event = event_of(&mut rows, key, change)?;
        if lane.with_prev {
            event.look_up_prev(view);
        }
        budget.spent += event.held();
        events.push(Arc::new(event));
    }
    Ok((events, end))
}

fn event_of(rows: &mut Rows<'_>, key: &Bytes, change: &Change) -> Result<Event, Failure> {
    if change.tombstone {
        return Ok(Event::deletion(change.revision, key.clone()));
    }
    let record = rows.get(change.revision)?;
    Event::of_row(change.revision, false, &record).map_err(Failure::Storage)
}

/// One scan over the rows for all of these lanes: what each has found. Moves their `next`.
fn scan(
    view: &Arc<View>,
    lanes: &mut [Lane],
    limits: &Limits,
) -> Result<Vec<Vec<Arc<Event>>>, Failure> {
    let from = lanes
        .iter()
        .map(|lane| lane.next)
        .min()
        .unwrap_or(view.revision + 1);
    let mut scan = Scan::new(view, lanes, limits);
    let reader = view.page.reader()?;
    let in_file = reader.meta()?.revision;
    let mut failure = None;
    if from <= in_file {
        reader.scan(
            Revision::new(from, 0),
            &mut |revision, tombstone, record| {
                if revision.main > view.revision {
                    return ControlFlow::Break(());
                }
                match scan.row(revision, tombstone, &record) {
                    Ok(flow) => flow,
                    Err(error) => {
                        failure = Some(error);
                        ControlFlow::Break(())
                    }
                }
            },
        )?;
    }
    drop(reader);
    if let Some(failure) = failure {
        return Err(failure);
    }
    if !scan.ended {
        for row in view.recent.between(in_file.max(from - 1), view.revision) {
            if scan
                .row(row.revision, row.tombstone, &row.record)?
                .is_break()
            {
                break;
            }
        }
    }
    let upto = if scan.ended { scan.main } else { view.revision };
    let found = scan.found;
    for lane in lanes {
        lane.next = lane.next.max(upto + 1);
    }
    Ok(found)
}

/// A scan under way.
struct Scan<'a> {
    view: &'a Arc<View>,
    limits: &'a Limits,
    /// Per range: lane, first revision wanted, whether previous pairs are.
    ranges: IntervalIndex<Vec<(usize, i64, bool)>>,
    found: Vec<Vec<Arc<Event>>>,
    rows: i64,
    bytes: usize,
    /// The revision that was seen last.
    main: i64,
    /// Revisions in which something was found.
    revisions: i64,
    /// `main` was whole and the limits are reached.
    ended: bool,
    found_in_main: bool,
}

impl<'a> Scan<'a> {
    fn new(view: &'a Arc<View>, lanes: &[Lane], limits: &'a Limits) -> Self {
        let mut ranges = IntervalIndex::<Vec<_>>::default();
        for (at, lane) in lanes.iter().enumerate() {
            let entry = (at, lane.next, lane.with_prev);
            match ranges.get_mut(&lane.range) {
                Some(entries) => entries.push(entry),
                None => ranges.insert(&lane.range, vec![entry]),
            }
        }
        Self {
            view,
            limits,
            ranges,
            found: lanes.iter().map(|_| Vec::new()).collect(),
            rows: 0,
            bytes: 0,
            main: 0,
            revisions: 0,
            ended: false,
            found_in_main: false,
        }
    }

    fn row(
        &mut self,
        revision: Revision,
        tombstone: bool,
        record: &Bytes,
    ) -> Result<ControlFlow<()>, Failure> {
        if revision.main != self.main {
            let limits = self.limits;
            if self.rows >= limits.scan_rows
                || self.bytes > limits.chunk_bytes
                || self.revisions >= limits.response_revisions
            {
                self.ended = true;
                return Ok(ControlFlow::Break(()));
            }
            self.main = revision.main;
            self.found_in_main = false;
        }
        self.rows += 1;
        let event = Event::of_row(revision, tombstone, record).map_err(Failure::Storage)?;
        let event = Arc::new(event);
        let (mut matched, mut with_prev) = (false, false);
        let found = &mut self.found;
        self.ranges.each_mut(event.key(), |lanes| {
            for (lane, next, prev) in lanes {
                if revision.main >= *next {
                    matched = true;
                    with_prev |= *prev;
                    found[*lane].push(Arc::clone(&event));
                }
            }
        });
        if matched {
            if with_prev {
                event.look_up_prev(self.view);
            }
            self.bytes += event.held();
            if !self.found_in_main {
                self.found_in_main = true;
                self.revisions += 1;
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
