//! The check of a [`History`]: see the module above for what it proves.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;

use super::{Action, Change, Digest, Event, Granted, History, Moment, Operation, Outcome, Pair};
use claims::Claims;

mod claims;

/// What a history held, so that a run that proved nothing is told from one that did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The last revision of the log.
    pub revision: i64,
    /// Writes with an answer.
    pub acknowledged: usize,
    /// Writes without an answer that happened.
    pub unacknowledged: usize,
    /// Writes without an answer that did not happen.
    pub lost: usize,
    /// Failed compares, gets and lists that were compared with the log.
    pub reads: usize,
    /// Keys deleted by the end of a lease.
    pub expired: usize,
    /// Events of watchers that were compared with the log.
    pub watched: usize,
}

/// Checks a history.
///
/// # Errors
/// The first contradiction found.
pub fn check(history: &History) -> anyhow::Result<Summary> {
    let mut replay = Replay::new(history)?;
    let mut rest = &history.log[..];
    let mut last = 1;
    replay.answer_reads(last)?;
    while let Some(first) = rest.first() {
        let at = first.revision;
        ensure!(
            at == last + 1,
            "the log goes from revision {last} to {at}: events were lost or came twice"
        );
        let length = rest.iter().take_while(|event| event.revision == at).count();
        let (events, others) = rest.split_at(length);
        replay
            .step(events)
            .with_context(|| format!("revision {at}: {events:?}"))?;
        replay.answer_reads(at)?;
        (rest, last) = (others, at);
    }
    let mut summary = replay.finish(last)?;
    check_real_time(history, &replay.written)?;
    for watched in &history.watched {
        watched.check(&history.log)?;
        summary.watched += watched.events.len();
    }
    Ok(summary)
}

struct Replay<'a> {
    state: BTreeMap<Bytes, Pair>,
    /// Keys by the lease they hang on.
    attached: BTreeMap<i64, BTreeSet<Bytes>>,
    leases: BTreeMap<i64, &'a Granted>,
    /// When the renewals of each lease were asked for.
    renewals: BTreeMap<i64, Vec<Moment>>,
    /// When the revocation of each lease was asked for first.
    revoked: BTreeMap<i64, Moment>,
    ended: BTreeSet<i64>,
    claims: Claims<'a>,
    reads: BTreeMap<i64, Vec<&'a Operation>>,
    /// When the write at each revision was called; a lease's end has no caller.
    written: BTreeMap<i64, Moment>,
    summary: Summary,
}

impl<'a> Replay<'a> {
    fn new(history: &'a History) -> anyhow::Result<Self> {
        let mut replay = Self {
            state: BTreeMap::new(),
            attached: BTreeMap::new(),
            leases: history
                .leases
                .iter()
                .map(|lease| (lease.id, lease))
                .collect(),
            renewals: BTreeMap::new(),
            revoked: BTreeMap::new(),
            ended: BTreeSet::new(),
            claims: Claims::default(),
            reads: BTreeMap::new(),
            written: BTreeMap::new(),
            summary: Summary::default(),
        };
        for renewed in &history.renewals {
            let of_lease = replay.renewals.entry(renewed.id).or_default();
            of_lease.push(renewed.called);
        }
        for operation in &history.operations {
            if let Action::Revoke { lease } = operation.action {
                let first = replay.revoked.entry(lease).or_insert(operation.called);
                *first = (*first).min(operation.called);
            }
            match &operation.outcome {
                Outcome::Applied { revision } => replay.claims.acknowledge(*revision, operation)?,
                Outcome::Unknown => replay.claims.suppose(operation),
                Outcome::Absent { revision }
                | Outcome::Refused { revision, .. }
                | Outcome::Found { revision, .. }
                | Outcome::Listed { revision, .. } => {
                    replay.reads.entry(*revision).or_default().push(operation);
                }
            }
        }
        Ok(replay)
    }

    /// Replays the events of one revision.
    fn step(&mut self, events: &'a [Event]) -> anyhow::Result<()> {
        let revision = events[0].revision;
        for event in events {
            self.follows(event)?;
        }
        if let Some(operation) = self.claims.acknowledged(revision) {
            ensure!(
                claims::made(operation, events, &self.state),
                "its client was told it had made this change: {operation:?}"
            );
            self.written.insert(revision, operation.called);
            self.summary.acknowledged += 1;
        } else if let Some(operation) = self.claims.supposed(events, &self.state) {
            self.written.insert(revision, operation.called);
            self.summary.unacknowledged += 1;
        } else {
            self.lease_ends(events)?;
            self.summary.expired += events.len();
        }
        for event in events {
            self.change(event);
        }
        Ok(())
    }

    /// The event says the truth about what it changes.
    fn follows(&self, event: &Event) -> anyhow::Result<()> {
        let before = self.state.get(&event.key);
        ensure!(
            before == event.previous.as_ref(),
            "the previous pair of {:?} was {before:?}",
            event.key
        );
        let Some(pair) = &event.pair else {
            ensure!(
                before.is_some(),
                "{:?} was deleted and not there",
                event.key
            );
            return Ok(());
        };
        let created = before.map_or(event.revision, |pair| pair.created);
        let version = before.map_or(0, |pair| pair.version) + 1;
        ensure!(
            (pair.created, pair.modified, pair.version) == (created, event.revision, version),
            "{:?} should be created at {created}, of version {version}",
            event.key
        );
        ensure!(
            !self.ended.contains(&pair.lease),
            "{:?} was put with lease {:x}, which had ended",
            event.key,
            pair.lease
        );
        Ok(())
    }

    /// The events are the end of a lease that may end: all its keys, in order, and not too early.
    fn lease_ends(&mut self, events: &[Event]) -> anyhow::Result<()> {
        let lease = events[0].previous.map_or(0, |pair| pair.lease);
        let keys = self.attached.get(&lease).filter(|_| lease != 0);
        let keys = keys.context("nobody made this change")?;
        ensure!(
            keys.iter().eq(events.iter().map(|event| &event.key))
                && events.iter().all(|event| event.pair.is_none()),
            "lease {lease:x} had the keys {keys:?}"
        );
        let granted = self
            .leases
            .get(&lease)
            .with_context(|| format!("nobody granted lease {lease:x}"))?;
        let at = events[0].received;
        let renewals = self.renewals.get(&lease).into_iter().flatten();
        let last = renewals.fold(granted.called, |last, called| last.max(*called));
        ensure!(
            last <= at,
            "lease {lease:x} ended at {at:?} and was renewed at {last:?}"
        );
        let due = last + granted.ttl;
        let revoked = self.revoked.get(&lease).is_some_and(|called| *called <= at);
        ensure!(
            revoked || at >= due,
            "lease {lease:x} ended at {at:?}, before {due:?}"
        );
        self.ended.insert(lease);
        Ok(())
    }

    fn change(&mut self, event: &Event) {
        let old = match event.pair {
            Some(pair) => self.state.insert(event.key.clone(), pair),
            None => self.state.remove(&event.key),
        };
        if let Some(old) = old
            && let Some(keys) = self.attached.get_mut(&old.lease)
        {
            keys.remove(&event.key);
        }
        if let Some(pair) = event.pair
            && pair.lease != 0
        {
            self.attached
                .entry(pair.lease)
                .or_default()
                .insert(event.key.clone());
        }
    }

    /// Compares everything that was read at `revision` with the state at it.
    fn answer_reads(&mut self, revision: i64) -> anyhow::Result<()> {
        for operation in self.reads.remove(&revision).unwrap_or_default() {
            self.summary.reads += 1;
            let right = match (&operation.action, &operation.outcome) {
                (Action::Swap { key, expected, .. }, Outcome::Refused { current, .. }) => {
                    self.state.get(key) == current.as_ref()
                        && current.map_or(0, |pair| pair.modified) != *expected
                }
                (Action::Write { changes }, Outcome::Absent { .. }) => {
                    changes.iter().all(|(key, change)| {
                        *change == Change::Delete && !self.state.contains_key(key)
                    })
                }
                (Action::Revoke { lease }, Outcome::Absent { .. }) => {
                    self.ended.insert(*lease);
                    self.attached.get(lease).is_none_or(BTreeSet::is_empty)
                }
                (Action::Get { key } | Action::Peek { key }, Outcome::Found { pair, .. }) => {
                    self.state.get(key) == pair.as_ref()
                }
                (
                    Action::List { prefix } | Action::PeekList { prefix },
                    Outcome::Listed { digest, .. },
                ) => {
                    let mut own = Digest::default();
                    self.state
                        .range(prefix.clone()..)
                        .take_while(|(key, _)| key.starts_with(prefix))
                        .for_each(|(key, pair)| own.add(key, pair));
                    own == *digest
                }
                _ => false,
            };
            ensure!(right, "at revision {revision} this was read: {operation:?}");
        }
        Ok(())
    }

    fn finish(&mut self, last: i64) -> anyhow::Result<Summary> {
        if let Some((revision, operation)) = self.claims.first_acknowledged() {
            bail!("the log ends at revision {last}, without {operation:?} at {revision}");
        }
        if let Some((revision, operations)) = self.reads.iter().next() {
            bail!("the log ends at revision {last}, {operations:?} read at {revision}");
        }
        self.summary.revision = last;
        self.summary.lost = self.claims.lost();
        Ok(self.summary)
    }
}

/// Compares the order of the log with the clock: `written` says when the write of each revision was
/// called.
fn check_real_time(history: &History, written: &BTreeMap<i64, Moment>) -> anyhow::Result<()> {
    enum Edge<'a> {
        Call(usize),
        Return(&'a Operation, i64),
    }
    let mut edges = Vec::new();
    for (at, operation) in history.operations.iter().enumerate() {
        let Some(revision) = position(operation) else {
            continue;
        };
        edges.push((operation.called, Edge::Call(at)));
        edges.push((operation.returned, Edge::Return(operation, revision)));
        if let Some(called) = written.get(&revision) {
            ensure!(
                *called <= operation.returned,
                "{operation:?} saw revision {revision}, which was written at {called:?} at the earliest"
            );
        }
    }
    // At equal times a call may have come before the return: that forbids less.
    edges.sort_by_key(|(moment, edge)| (*moment, matches!(edge, Edge::Return(..))));
    let mut floor: Option<(i64, &Operation)> = None;
    for (_, edge) in edges {
        match edge {
            Edge::Return(operation, revision) => {
                if floor.is_none_or(|(floor, _)| floor < revision) {
                    floor = Some((revision, operation));
                }
            }
            Edge::Call(at) => {
                let operation = &history.operations[at];
                let Some(((floor, before), revision)) = floor.zip(position(operation)) else {
                    continue;
                };
                let writes = matches!(operation.outcome, Outcome::Applied { .. });
                ensure!(
                    revision > floor || (revision == floor && !writes),
                    "{operation:?} was called after {before:?} had returned revision {floor}"
                );
            }
        }
    }
    Ok(())
}

/// Where an operation stands in the order: at its revision. A list at a pinned revision is recorded
/// with the revision that its first page chose. What may be old stands nowhere.
fn position(operation: &Operation) -> Option<i64> {
    if matches!(
        operation.action,
        Action::Peek { .. } | Action::PeekList { .. }
    ) {
        return None;
    }
    match operation.outcome {
        Outcome::Applied { revision }
        | Outcome::Absent { revision }
        | Outcome::Refused { revision, .. }
        | Outcome::Found { revision, .. }
        | Outcome::Listed { revision, .. } => Some(revision),
        Outcome::Unknown => None,
    }
}

#[cfg(test)]
mod tests;
