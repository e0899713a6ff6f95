//! The lessor: when leases end. Sans-IO; time is handed in.
//!
//! ```text
//!   apply ── granted, revoked, checkpointed ──▶ ┌────────┐ ◀── renew, lookup ── requests
//!   consensus ── promote, demote ─────────────▶ │ Lessor │
//!   time ── turn(now) ────────────────────────▶ └────────┘ ──▶ leases to revoke, checkpoints to write
//! ```
//!
//! Every member has all leases here. Only the lessor of the leader is *primary*: it has deadlines,
//! renews, and says which leases to revoke. Revoking is the log's: a lease is here until the entry
//! that revokes it is applied. Deadlines are not replicated; a new leader gives every lease its whole
//! time again, or what a checkpoint has left of it, and an election timeout on top.
//!
//! Renewals are answered from here, under the lock around the lessor, by the task that serves the
//! request: they pass neither the log nor the member's thread, so they wait for no disk. A renewal
//! moves a deadline and leaves the queue alone: whoever comes up in the queue before its deadline is
//! put back.
//!
//! Promises:
//! * A lease is not handed out for revocation before its time to live has passed since it was
//!   granted or renewed.
//! * Once its deadline has passed a lease is never renewed: the renewal waits until it is revoked,
//!   or until somebody else may decide.
//! * A lease is handed out once. Its entry is in the log of this leader then, and either takes effect
//!   or ends with the leadership; only if it never got there ([`Lessor::put_off`]) it is handed out
//!   again. So no second revocation can hit a lease that was granted under the same id in between.
//! * Revocations are handed out at a bounded rate and with a bounded number under way, so that a
//!   hundred thousand leases that end together do not keep writes waiting.

mod queue;
mod spread;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use ferrite_api::types::LeaseId;
use ferrite_storage::leases::Lease;

use queue::Queue;
use spread::Spread;

/// Leases revoked per second at most, as long as turns come often enough. etcd's limit is 1000. More
/// would take a share of the processor that shows in the writes of others.
const REVOKES_PER_SECOND: u32 = 12_000;

/// What one revocation takes of the time that a turn may spend.
const REVOKE_SHARE: Duration = Duration::from_nanos(1_000_000_000 / REVOKES_PER_SECOND as u64);

/// Time that may be saved up while nothing is revoked; it bounds the burst that follows.
const MAX_SAVED: Duration = Duration::from_millis(150);

/// Revocations handed out by one turn: about half a millisecond of work, which a write that arrives
/// meanwhile waits for.
const REVOKES_PER_TURN: usize = 64;

/// Revocations handed out and not applied. A slow disk slows them down by this.
const MAX_REVOKING: usize = 1000;

/// Leases of an old leader that end in the same second at most: three quarters of what can be
/// revoked in it, as in etcd, so that others that end then need not wait.
const SPREAD_PER_SECOND: usize = REVOKES_PER_SECOND as usize / 4 * 3;

/// Leases that get their deadline in one turn after a promotion.
const ARMED_PER_TURN: usize = 2000;

/// Leases that one turn takes out of a queue, most of them to be put back because they were renewed.
const LOOKS_PER_TURN: usize = 2000;

/// Checkpoints in one entry of the log.
pub const CHECKPOINTS_PER_ENTRY: usize = 1000;

/// How a lessor behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// What a promotion adds to every lease: the time that the election may have taken.
    pub election_timeout: Duration,
    /// The least time to live, in seconds.
    pub min_ttl: i64,
    /// Pause before a revocation that did not get into the log is tried again.
    pub retry: Duration,
    /// Time between checkpoints of a lease; `None` for none.
    pub checkpoint_interval: Option<Duration>,
}

impl Options {
    /// The least time to live under an election timeout of so many ticks, in seconds: etcd's rule,
    /// one and a half election timeouts.
    pub fn min_ttl(election_ticks: u64, heartbeat: Duration) -> i64 {
        let ticks = u32::try_from(election_ticks.saturating_mul(3) / 2).unwrap_or(u32::MAX);
        whole_seconds(heartbeat.saturating_mul(ticks))
    }
}

/// What is known of a lease beside its keys.
#[derive(Debug)]
struct Entry {
    /// Seconds, not below the least.
    ttl: i64,
    /// What a checkpoint has left of it, seconds; 0 if there is none.
    remaining: i64,
    /// When it ends; `None` if this lessor is not primary, or has not come to it yet.
    expiry: Option<Duration>,
    /// Where it stands in the queue of endings.
    queued: Option<Duration>,
    /// Where it stands in the queue of checkpoints.
    checkpoint: Option<Duration>,
    /// Whether it was handed out for revocation.
    revoking: bool,
}

impl Entry {
    /// What a new leader gives it.
    fn resumes_with(&self) -> Duration {
        seconds(if self.remaining > 0 {
            self.remaining
        } else {
            self.ttl
        })
    }
}

/// What a primary lessor is at.
#[derive(Debug)]
struct Primary {
    /// When it was promoted.
    since: Duration,
    /// Deadlines are given in the order of ids: those from here on are missing. `None` when none is.
    arm_after: Option<Bound<LeaseId>>,
    spread: Spread,
    /// The last turn.
    turned: Duration,
    /// Time that turns have not spent on revocations.
    saved: Duration,
    /// Leases handed out for revocation that are still here.
    revoking: usize,
}

/// All leases and, on the leader, their deadlines. `W` is the way to a client that waits for the fate
/// of a lease: it is given back, or dropped, when that is known. See the [module](self).
#[derive(Debug)]
pub struct Lessor<W> {
    options: Options,
    leases: BTreeMap<LeaseId, Entry>,
    primary: Option<Primary>,
    endings: Queue,
    checkpoints: Queue,
    waiting: BTreeMap<LeaseId, Vec<W>>,
}

/// The answer to a renewal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Renewal {
    /// Renewed, for this many seconds.
    Renewed {
        /// The whole time to live.
        ttl: i64,
    },
    /// There is no such lease.
    Unknown,
    /// Nothing is decided here; the leader has to be asked, or comes to it later.
    NotPrimary,
    /// A checkpoint has left something of the lease. It has to be taken back first, by a checkpoint
    /// of 0, or the next leader would end the lease too early.
    Checkpointed,
    /// The deadline has passed: the waiter learns when the lease is revoked, or is not this lessor's
    /// any more.
    Ended,
}

/// What is known of a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lookup {
    /// There is no such lease.
    Unknown,
    /// Only the leader's lessor knows what is left of it.
    NotPrimary,
    /// A lease.
    Found {
        /// The time to live it was granted, in seconds.
        granted: i64,
        /// What is left of it in whole seconds, truncated toward 0: not above 0 while the lease waits
        /// for its revocation.
        left: i64,
    },
}

/// What a turn wants to be proposed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Leases to revoke, each by an entry of its own.
    pub revoke: Vec<LeaseId>,
    /// Leases to checkpoint, with the seconds that are left of each.
    pub checkpoint: Vec<(LeaseId, i64)>,
}

/// A lease that was revoked.
#[derive(Debug, PartialEq, Eq)]
pub struct Revoked<W> {
    /// Whether its time was up, rather than somebody having asked for it.
    pub ended: bool,
    /// Who waited for this.
    pub waiting: Vec<W>,
}

impl<W> Lessor<W> {
    /// A lessor that is not primary.
    pub fn new(options: Options, leases: impl Iterator<Item = (LeaseId, Lease)>) -> Self {
        let mut lessor = Self {
            options,
            leases: BTreeMap::new(),
            primary: None,
            endings: Queue::default(),
            checkpoints: Queue::default(),
            waiting: BTreeMap::new(),
        };
        for (id, Lease { ttl, remaining }) in leases {
            let entry = lessor.entry(ttl, remaining);
            lessor.leases.insert(id, entry);
        }
        lessor
    }

    /// The least time to live, in seconds.
    pub fn min_ttl(&self) -> i64 {
        self.options.min_ttl
    }

    /// Whether this is the leader's lessor.
    pub fn is_primary(&self) -> bool {
        self.primary.is_some()
    }

    /// This member leads and has applied everything of earlier terms. Deadlines begin now; leases
    /// get them in the turns that follow, so that a promotion costs nothing at once.
    pub fn promote(&mut self, now: Duration) {
        assert!(self.primary.is_none(), "promoted twice");
        self.primary = Some(Primary {
            since: now,
            arm_after: Some(Bound::Unbounded),
            spread: Spread::default(),
            turned: now,
            saved: Duration::ZERO,
            revoking: 0,
        });
    }

    /// This member does not lead, or leads another term. Returns those who waited for the fate of a
    /// lease: it is not decided here.
    pub fn demote(&mut self) -> Vec<W> {
        if self.primary.take().is_none() {
            return Vec::new();
        }
        self.endings.clear();
        self.checkpoints.clear();
        for entry in self.leases.values_mut() {
            entry.expiry = None;
            entry.queued = None;
            entry.checkpoint = None;
            entry.revoking = false;
        }
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_values().flatten().collect()
    }

    /// A grant was applied.
    pub fn granted(&mut self, now: Duration, id: LeaseId, ttl: i64) {
        let entry = self.entry(ttl, 0);
        let twice = self.leases.insert(id, entry);
        assert!(twice.is_none(), "lease {id} is granted twice");
        if self.primary.is_some() {
            self.arm(now, id, now + seconds(ttl.max(self.options.min_ttl)));
        }
    }

    /// A revocation was applied.
    pub fn revoked(&mut self, id: LeaseId) -> Revoked<W> {
        let mut entry = self
            .leases
            .remove(&id)
            .expect("a lease that is revoked was granted");
        self.endings.remove(id, &mut entry.queued);
        self.checkpoints.remove(id, &mut entry.checkpoint);
        if entry.revoking
            && let Some(primary) = &mut self.primary
        {
            primary.revoking -= 1;
        }
        Revoked {
            ended: entry.revoking,
            waiting: self.waiting.remove(&id).unwrap_or_default(),
        }
    }

    /// A checkpoint was applied. It says where a later leader resumes; the deadline stays.
    pub fn checkpointed(&mut self, now: Duration, id: LeaseId, remaining: i64) {
        if let Some(entry) = self.leases.get_mut(&id) {
            entry.remaining = remaining;
            if self.primary.is_some() {
                self.schedule_checkpoint(now, id);
            }
        }
    }

    /// Renews a lease for its whole time to live. `waiter` is asked for if the caller has to wait.
    /// Renewals are to read the clock under the lock that they come through: a deadline must not be
    /// replaced by one of an earlier reading.
    pub fn renew(&mut self, now: Duration, id: LeaseId, waiter: impl FnOnce() -> W) -> Renewal {
        let Some(primary) = &self.primary else {
            return Renewal::NotPrimary;
        };
        let Some(entry) = self.leases.get_mut(&id) else {
            return Renewal::Unknown;
        };
        let extended = primary.since + self.options.election_timeout;
        let expiry = entry.expiry.unwrap_or(extended + entry.resumes_with());
        if expiry <= now || entry.revoking {
            self.waiting.entry(id).or_default().push(waiter());
            return Renewal::Ended;
        }
        if entry.remaining > 0 {
            return Renewal::Checkpointed;
        }
        let ttl = entry.ttl;
        let renewed = now + seconds(ttl);
        let new = entry.expiry.replace(renewed).is_none();
        // A promotion may have given it more than that.
        if entry.queued.is_none_or(|queued| queued > renewed) {
            self.endings.put(id, renewed, &mut entry.queued);
        }
        if new {
            self.schedule_checkpoint(now, id);
        }
        Renewal::Renewed { ttl }
    }

    /// What is known of a lease.
    pub fn lookup(&self, now: Duration, id: LeaseId) -> Lookup {
        let Some(entry) = self.leases.get(&id) else {
            return Lookup::Unknown;
        };
        let Some(expiry) = self.expiry(entry) else {
            return Lookup::NotPrimary;
        };
        let left = match expiry.checked_sub(now) {
            Some(left) => signed(left.as_secs()),
            None => -signed((now - expiry).as_secs()),
        };
        Lookup::Found {
            granted: entry.ttl,
            left,
        }
    }

    /// All leases by id, with the time of their end on the leader.
    pub fn list(&self) -> Vec<(Option<Duration>, LeaseId)> {
        let leases = self.leases.iter();
        leases
            .map(|(id, entry)| (self.expiry(entry), *id))
            .collect()
    }

    /// Does what has become due by `now`, a bounded piece of it. To be called often, and again while
    /// [`Lessor::is_behind`].
    pub fn turn(&mut self, now: Duration) -> Turn {
        let Some(primary) = &mut self.primary else {
            return Turn::default();
        };
        let passed = now.saturating_sub(primary.turned);
        primary.turned = primary.turned.max(now);
        primary.saved = primary.saved.saturating_add(passed).min(MAX_SAVED);
        self.arm_some(now);
        Turn {
            revoke: self.due_for_revocation(now),
            checkpoint: self.due_for_checkpoint(now),
        }
    }

    /// Whether another turn at the same time has something to do.
    pub fn is_behind(&self) -> bool {
        let Some(primary) = &self.primary else {
            return false;
        };
        let now = primary.turned;
        primary.arm_after.is_some()
            || (primary.room() > 0 && self.endings.is_due(now))
            || self.checkpoints.is_due(now)
    }

    /// The revocation of a lease did not get into the log: it is handed out again later.
    pub fn put_off(&mut self, now: Duration, id: LeaseId) {
        let Some(primary) = &mut self.primary else {
            return;
        };
        if let Some(entry) = self.leases.get_mut(&id)
            && std::mem::take(&mut entry.revoking)
        {
            primary.revoking -= 1;
            let again = now + self.options.retry;
            self.endings.put(id, again, &mut entry.queued);
        }
    }

    fn entry(&self, ttl: i64, remaining: i64) -> Entry {
        Entry {
            // What was granted under a shorter election timeout is raised to today's least.
            ttl: ttl.max(self.options.min_ttl),
            remaining,
            expiry: None,
            queued: None,
            checkpoint: None,
            revoking: false,
        }
    }

    /// When a lease ends, also if it has no deadline yet.
    fn expiry(&self, entry: &Entry) -> Option<Duration> {
        let extended = self.primary.as_ref()?.since + self.options.election_timeout;
        Some(entry.expiry.unwrap_or(extended + entry.resumes_with()))
    }

    /// Gives a lease its deadline.
    fn arm(&mut self, now: Duration, id: LeaseId, expiry: Duration) {
        if let Some(entry) = self.leases.get_mut(&id) {
            entry.expiry = Some(expiry);
            self.endings.put(id, expiry, &mut entry.queued);
            self.schedule_checkpoint(now, id);
        }
    }

    /// Goes on giving deadlines to the leases that were there at the promotion.
    fn arm_some(&mut self, now: Duration) {
        let Some(primary) = &mut self.primary else {
            return;
        };
        let Some(after) = primary.arm_after.take() else {
            return;
        };
        let from = primary.since + self.options.election_timeout;
        let ids: Vec<_> = self
            .leases
            .range((after, Bound::Unbounded))
            .take(ARMED_PER_TURN)
            .map(|(id, entry)| (*id, entry.expiry.is_none(), entry.resumes_with()))
            .collect();
        if let Some((last, ..)) = ids.last()
            && ids.len() == ARMED_PER_TURN
        {
            primary.arm_after = Some(Bound::Excluded(*last));
        }
        let unarmed = ids.into_iter().filter(|(_, unarmed, _)| *unarmed);
        let placed: Vec<_> = unarmed
            .map(|(id, _, resumes_with)| {
                let spread = &mut primary.spread;
                (id, spread.place(from + resumes_with, SPREAD_PER_SECOND))
            })
            .collect();
        if primary.arm_after.is_none() {
            primary.spread = Spread::default();
        }
        for (id, expiry) in placed {
            self.arm(now, id, expiry);
        }
    }

    fn due_for_revocation(&mut self, now: Duration) -> Vec<LeaseId> {
        let mut due = Vec::new();
        let Some(primary) = &mut self.primary else {
            return due;
        };
        let room = primary.room().min(REVOKES_PER_TURN);
        for _ in 0..LOOKS_PER_TURN {
            if due.len() == room {
                break;
            }
            let Some(id) = self.endings.pop(now) else {
                break;
            };
            let entry = self
                .leases
                .get_mut(&id)
                .expect("a lease leaves the queue when it is revoked");
            entry.queued = None;
            match entry.expiry {
                Some(expiry) if expiry <= now => {
                    entry.revoking = true;
                    due.push(id);
                }
                Some(renewed) => self.endings.put(id, renewed, &mut entry.queued),
                None => unreachable!("lease {id} is queued without a deadline"),
            }
        }
        primary.revoking += due.len();
        let count = u32::try_from(due.len()).expect("a turn is small");
        primary.saved = primary.saved.saturating_sub(REVOKE_SHARE * count);
        due
    }

    fn due_for_checkpoint(&mut self, now: Duration) -> Vec<(LeaseId, i64)> {
        let mut due = Vec::new();
        let Some(interval) = self.options.checkpoint_interval else {
            return due;
        };
        for _ in 0..LOOKS_PER_TURN {
            if due.len() == CHECKPOINTS_PER_ENTRY {
                break;
            }
            let Some(id) = self.checkpoints.pop(now) else {
                break;
            };
            let entry = self
                .leases
                .get_mut(&id)
                .expect("a lease leaves the queue when it is revoked");
            entry.checkpoint = None;
            let left = entry.expiry.and_then(|expiry| expiry.checked_sub(now));
            let Some(left) = left.filter(|left| !left.is_zero()) else {
                continue;
            };
            let remaining = whole_seconds(left);
            if remaining < entry.ttl {
                due.push((id, remaining));
            } else {
                // Nothing to note: renewed just now.
                self.checkpoints
                    .put(id, now + interval, &mut entry.checkpoint);
            }
        }
        due
    }

    /// Plans the next checkpoint of a lease that has longer to go than the time between two.
    fn schedule_checkpoint(&mut self, now: Duration, id: LeaseId) {
        let (Some(interval), Some(entry)) =
            (self.options.checkpoint_interval, self.leases.get_mut(&id))
        else {
            return;
        };
        if entry.resumes_with() > interval {
            self.checkpoints
                .put(id, now + interval, &mut entry.checkpoint);
        }
    }

    /// Checks what the fields promise each other.
    ///
    /// # Panics
    /// They do not.
    pub fn check_invariants(&self) {
        let queued = |entry: &&Entry| entry.queued.is_some();
        assert_eq!(
            self.leases.values().filter(queued).count(),
            self.endings.len()
        );
        let planned = |entry: &&Entry| entry.checkpoint.is_some();
        assert_eq!(
            self.leases.values().filter(planned).count(),
            self.checkpoints.len()
        );
        let revoking = self.leases.values().filter(|entry| entry.revoking).count();
        assert_eq!(
            self.primary.as_ref().map_or(0, |primary| primary.revoking),
            revoking
        );
        for (id, entry) in &self.leases {
            match entry.expiry {
                // Exactly one of the two brings it to its end; only a retry may come later.
                Some(_) => assert!(entry.queued.is_some() != entry.revoking, "lease {id}"),
                None => assert!(entry.queued.is_none() && !entry.revoking, "lease {id}"),
            }
        }
        for id in self.waiting.keys() {
            assert!(
                self.leases.contains_key(id),
                "somebody waits for lease {id}"
            );
        }
    }
}

impl Primary {
    /// How many more revocations the rate and the number under way allow.
    fn room(&self) -> usize {
        let saved = self.saved.as_nanos() / REVOKE_SHARE.as_nanos();
        let by_rate = usize::try_from(saved).unwrap_or(usize::MAX);
        by_rate.min(MAX_REVOKING.saturating_sub(self.revoking))
    }
}

/// A time to live; what was granted is neither negative nor beyond [`Duration`].
fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}

/// Seconds, rounded up.
fn whole_seconds(time: Duration) -> i64 {
    signed(time.as_secs()).saturating_add(i64::from(time.subsec_nanos() > 0))
}

fn signed(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}
