//! What keeping leases alive decides, without the stream and without a clock.
//!
//! * A lease is renewed a third of its time to live after the last answer; for the first time at
//!   once. A request that a stream has taken is not sent again on it: answers come in order, and a
//!   server that does not answer is left for another one after a third of the time to live.
//! * A lease counts as alive until its time to live after the last answered request was **sent**:
//!   the server renewed it at that time or later, whatever the answer's way back took. After that
//!   its listeners are told that it may be gone, though the server may still hold it.
//!
//! Deviation: etcd's Go client counts from the arrival of the answer, which is too long by the
//! time it was on its way, and keeps to a server that does not answer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use ferrite_api::pb::etcdserverpb as pb;
use tokio::time::Instant;

use crate::{Error, EtcdError};

/// How long a lease counts as alive before its time to live is known.
const FIRST_ANSWER: Duration = Duration::from_secs(5);
/// Renewals that may wait for a reader.
const INBOX: usize = 16;
/// A lease that is renewed more rarely than this would never be.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Names a listener.
pub(super) type Key = u64;

/// All leases that are kept alive over one stream.
#[derive(Debug, Default)]
pub(super) struct Machine {
    leases: BTreeMap<i64, Lease>,
    listeners: BTreeMap<Key, Listener>,
    next_key: Key,
    /// Why the last stream ended.
    last_error: Option<Error>,
    /// Listeners that have something to look at.
    woken: BTreeSet<Key>,
}

#[derive(Debug)]
struct Lease {
    listeners: BTreeSet<Key>,
    /// A third of the time to live.
    interval: Duration,
    /// When to renew next, unless a request is unanswered.
    due: Instant,
    /// When the unanswered request was sent on this stream.
    sent: Option<Instant>,
    /// Until when the lease counts as alive.
    deadline: Instant,
    /// Whether a server has confirmed that it is.
    renewed: bool,
}

#[derive(Debug)]
struct Listener {
    lease: i64,
    require_leader: bool,
    inbox: VecDeque<pb::LeaseKeepAliveResponse>,
    ended: Option<Error>,
}

/// What a listener finds.
#[derive(Debug)]
pub(super) enum Next {
    Renewal(pb::LeaseKeepAliveResponse),
    /// Nothing yet.
    Pending,
    Ended(Error),
}

impl Machine {
    /// Someone wants this lease alive.
    pub(super) fn listen(&mut self, now: Instant, lease: i64, require_leader: bool) -> Key {
        let key = self.next_key;
        self.next_key += 1;
        let listener = Listener {
            lease,
            require_leader,
            inbox: VecDeque::new(),
            ended: None,
        };
        self.listeners.insert(key, listener);
        let fresh = || Lease {
            listeners: BTreeSet::new(),
            interval: FIRST_ANSWER / 3,
            due: now,
            sent: None,
            deadline: now + FIRST_ANSWER,
            renewed: false,
        };
        let lease = self.leases.entry(lease).or_insert_with(fresh);
        lease.listeners.insert(key);
        key
    }

    /// Someone does not care any more. A lease without listeners is forgotten.
    pub(super) fn remove(&mut self, key: Key) {
        let Some(listener) = self.listeners.remove(&key) else {
            return;
        };
        self.woken.remove(&key);
        self.leave(key, listener.lease);
    }

    fn leave(&mut self, key: Key, lease: i64) {
        if let Some(state) = self.leases.get_mut(&lease) {
            state.listeners.remove(&key);
            if state.listeners.is_empty() {
                self.leases.remove(&lease);
            }
        }
    }

    /// Whether there is nothing to keep alive.
    pub(super) fn is_idle(&self) -> bool {
        self.leases.is_empty()
    }

    /// Until when no server can have ended the lease; `None` if that is not known.
    pub(super) fn valid_until(&self, lease: i64) -> Option<Instant> {
        let lease = self.leases.get(&lease)?;
        lease.renewed.then_some(lease.deadline)
    }

    /// Takes what is next for a listener.
    pub(super) fn take(&mut self, key: Key) -> Next {
        let Some(listener) = self.listeners.get_mut(&key) else {
            return Next::Pending;
        };
        match (listener.inbox.pop_front(), &listener.ended) {
            (Some(renewal), _) => Next::Renewal(renewal),
            (None, Some(error)) => Next::Ended(error.clone()),
            (None, None) => Next::Pending,
        }
    }

    /// Listeners that have something new to look at since the last call.
    pub(super) fn take_woken(&mut self) -> BTreeSet<Key> {
        std::mem::take(&mut self.woken)
    }

    /// Whether a renewal is to be sent now.
    pub(super) fn has_request(&self, now: Instant) -> bool {
        self.leases.values().any(|lease| lease.is_due(now))
    }

    /// The renewal that is to be sent now.
    pub(super) fn next_request(&mut self, now: Instant) -> Option<pb::LeaseKeepAliveRequest> {
        let due = |(_, lease): &(&i64, &mut Lease)| lease.is_due(now);
        let (&id, lease) = self.leases.iter_mut().find(due)?;
        lease.sent = Some(now);
        Some(pb::LeaseKeepAliveRequest { id })
    }

    /// Handles an answer of the server.
    pub(super) fn received(&mut self, now: Instant, renewal: pb::LeaseKeepAliveResponse) {
        self.last_error = None;
        let id = renewal.id;
        let Some(seconds) = u64::try_from(renewal.ttl).ok().filter(|ttl| *ttl > 0) else {
            return self.end(id, &Error::Etcd(EtcdError::LeaseNotFound));
        };
        let Some(lease) = self.leases.get_mut(&id) else {
            return;
        };
        // The answer to a request of an earlier listener, if nothing is unanswered.
        let Some(sent) = lease.sent.take() else {
            return;
        };
        let ttl = Duration::from_secs(seconds).min(LONGEST);
        lease.interval = ttl / 3;
        lease.due = now + lease.interval;
        lease.deadline = sent + ttl;
        lease.renewed = true;
        for &key in &lease.listeners {
            let listener = self.listeners.get_mut(&key);
            let listener = listener.expect("a listener that is removed leaves its lease");
            if listener.inbox.len() < INBOX {
                listener.inbox.push_back(renewal);
                self.woken.insert(key);
            } else {
                tracing::debug!(lease_id = id, "nobody reads renewals, one is dropped");
            }
        }
    }

    /// Ends what was not renewed in time. To be called before anything else is decided.
    pub(super) fn expire(&mut self, now: Instant) {
        let late = |(id, lease): (&i64, &Lease)| (lease.deadline <= now).then_some(*id);
        for id in self.leases.iter().filter_map(late).collect::<Vec<_>>() {
            let error = Error::KeepAliveLost {
                last: self.last_error.clone().map(Box::new),
            };
            self.end(id, &error);
        }
    }

    fn end(&mut self, id: i64, error: &Error) {
        let Some(lease) = self.leases.remove(&id) else {
            return;
        };
        for key in lease.listeners {
            if let Some(listener) = self.listeners.get_mut(&key) {
                listener.ended = Some(error.clone());
                self.woken.insert(key);
            }
        }
    }

    /// Whether the server has left a renewal unanswered for so long that another one should be
    /// asked.
    pub(super) fn is_stalled(&self, now: Instant) -> bool {
        let mut stalls = self.leases.values().filter_map(Lease::stalls_at);
        stalls.any(|at| at <= now)
    }

    /// When to look again if nothing happens: something is due, late or stalled then.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let of = |lease: &Lease| lease.stalls_at().unwrap_or(lease.due).min(lease.deadline);
        self.leases.values().map(of).min()
    }

    /// The stream has ended; another one will be opened.
    pub(super) fn broken(&mut self, now: Instant, error: &Error) {
        self.last_error = Some(error.clone());
        for lease in self.leases.values_mut() {
            if lease.sent.take().is_some() {
                lease.due = now;
            }
        }
        if error.etcd() != Some(EtcdError::NoLeader) {
            return;
        }
        let mut leaderless = Vec::new();
        for (&key, listener) in &mut self.listeners {
            if listener.require_leader && listener.ended.is_none() {
                listener.ended = Some(error.clone());
                leaderless.push((key, listener.lease));
            }
        }
        for (key, lease) in leaderless {
            self.leave(key, lease);
            self.woken.insert(key);
        }
    }
}

impl Lease {
    fn is_due(&self, now: Instant) -> bool {
        self.sent.is_none() && self.due <= now
    }

    fn stalls_at(&self) -> Option<Instant> {
        self.sent.map(|sent| sent + self.interval)
    }
}

#[cfg(test)]
mod tests;
