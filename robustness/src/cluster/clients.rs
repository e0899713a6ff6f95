//! The clients: each asks one thing at a time, of the member it is bound to, and goes elsewhere when it gets no
//! answer. It records everything for the history.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::plan::Plan;
use super::queue::Time;
use super::request::{Answer, Ask, Proposed};
use crate::history::{Action, Change, Granted, Operation, Outcome, Renewed};

/// How long a client waits for an answer, milliseconds. Members give a request up after 7 s.
const PATIENCE: std::ops::Range<u64> = 1_000..10_000;

/// A request under way.
#[derive(Debug)]
struct Pending {
    number: u64,
    called: Time,
    ask: Ask,
    /// The run of a member's process that was asked.
    asked: (usize, u64),
}

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) rng: StdRng,
    /// The member that it asks.
    pub(super) at: usize,
    pending: Option<Pending>,
    /// Mod revisions that it has seen; 0 = absent.
    pub(super) known: BTreeMap<Bytes, i64>,
    /// The highest revision that it has seen.
    pub(super) seen: i64,
    /// Leases that it was granted.
    pub(super) leases: Vec<i64>,
    /// The newest revision that it has read from one run of a process, with serializable reads.
    read: ((usize, u64), i64),
}

/// What all clients record.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// By the numbers of their requests.
    pub(super) operations: Vec<(u64, Operation)>,
    pub(super) leases: Vec<Granted>,
    /// Renewals that were acknowledged.
    pub(super) renewals: Vec<Renewed>,
    /// The highest revision that somebody wanted to compact to.
    pub(super) compacted: i64,
    /// Numbers of values and leases: no two are equal.
    pub(super) next: i64,
    /// Numbers of requests.
    requests: u64,
}

/// What has become of a request, in a word.
pub(super) enum Verdict {
    /// It was answered.
    Acknowledged,
    /// It was refused.
    Refused,
    /// Nobody knows.
    Unknown,
}

impl Client {
    pub(super) fn new(plan: &Plan, number: usize) -> Self {
        let seed = plan.seed.wrapping_mul(1009).wrapping_add(number as u64);
        Self {
            rng: StdRng::seed_from_u64(seed),
            at: number % plan.members,
            pending: None,
            known: BTreeMap::new(),
            seen: 0,
            leases: Vec::new(),
            read: ((0, 0), 0),
        }
    }

    /// The next request, its number, and how long the client waits for the answer.
    pub(super) fn begin(
        &mut self,
        plan: &Plan,
        records: &mut Records,
        now: Time,
        life: u64,
    ) -> (u64, Ask, Time) {
        let ask = self.ask(plan, records);
        records.requests += 1;
        let number = records.requests;
        if let Ask::Propose { action, .. } = &ask {
            match action {
                Proposed::Grant { id, ttl } => {
                    let ttl = u64::try_from(*ttl).unwrap_or(0) * 1_000_000;
                    records.leases.push(Granted {
                        id: *id,
                        // The leader's clock may be fast.
                        ttl: Duration::from_micros(ttl * 1_000_000 / plan.fastest().max(1_000_000)),
                        called: now,
                    });
                }
                Proposed::Compact { revision } => {
                    records.compacted = records.compacted.max(*revision);
                }
                Proposed::Change(_) => {}
            }
        }
        self.pending = Some(Pending {
            number,
            called: now,
            ask: ask.clone(),
            asked: (self.at, life),
        });
        let patience = Duration::from_millis(self.rng.random_range(PATIENCE));
        (number, ask, patience)
    }

    /// Its request has arrived at this run of a member's process.
    pub(super) fn arrived(&mut self, number: u64, at: usize, life: u64) {
        if let Some(pending) = self
            .pending
            .as_mut()
            .filter(|pending| pending.number == number)
        {
            pending.asked = (at, life);
        }
    }

    /// When it asked for what it waits for.
    pub(super) fn called(&self) -> Option<Time> {
        self.pending.as_ref().map(|pending| pending.called)
    }

    /// Whether this client waits for an answer.
    pub(super) fn waits(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether this client waits for the answer to this request.
    pub(super) fn waits_for(&self, number: u64) -> bool {
        self.pending
            .as_ref()
            .is_some_and(|pending| pending.number == number)
    }

    /// Whether this client waits for the answer of this run of a member's process; the request.
    pub(super) fn waits_at(&self, at: usize, life: u64) -> Option<u64> {
        let pending = self.pending.as_ref()?;
        (pending.asked == (at, life)).then_some(pending.number)
    }

    /// Pause before the next request.
    pub(super) fn think(&mut self, plan: &Plan) -> Time {
        Duration::from_millis(self.rng.random_range(plan.think.clone()))
    }

    /// Goes to another of these members.
    pub(super) fn turn_away(&mut self, members: &[usize]) {
        self.at = members.choose(&mut self.rng).copied().unwrap_or(self.at);
    }

    /// The answer to the request under way.
    ///
    /// # Errors
    /// It must not be answered so.
    pub(super) fn end(
        &mut self,
        records: &mut Records,
        now: Time,
        answer: Answer,
    ) -> anyhow::Result<Verdict> {
        let Some(pending) = self.pending.take() else {
            return Ok(Verdict::Unknown);
        };
        let Pending {
            number,
            called,
            ask,
            asked,
        } = pending;
        let action = match &ask {
            Ask::Propose {
                action: Proposed::Change(action),
                ..
            }
            | Ask::Read { action, .. } => Some(action.clone()),
            Ask::Propose { .. } | Ask::Renew { .. } => None,
        };
        let (outcome, verdict) = match answer {
            Answer::Done(outcome) => (outcome, Verdict::Acknowledged),
            Answer::Granted => {
                if let Ask::Propose {
                    action: Proposed::Grant { id, .. },
                    ..
                } = ask
                {
                    self.leases.push(id);
                }
                return Ok(Verdict::Acknowledged);
            }
            Answer::Renewed { lease } => {
                records.renewals.push(Renewed { id: lease, called });
                return Ok(Verdict::Acknowledged);
            }
            Answer::Refused(error) => {
                self.check_refusal(records, &ask, error)?;
                return Ok(Verdict::Refused);
            }
            Answer::Unknown if !matches!(ask, Ask::Propose { .. }) => return Ok(Verdict::Unknown),
            Answer::Unknown => (Outcome::Unknown, Verdict::Unknown),
        };
        let Some(action) = action else {
            return Ok(verdict);
        };
        self.learn(&action, &outcome);
        if let Ask::Read {
            local: true, at: 0, ..
        } = ask
            && let Outcome::Found { revision, .. } | Outcome::Listed { revision, .. } = outcome
        {
            anyhow::ensure!(
                self.read.0 != asked || self.read.1 <= revision,
                "a read of one member went back from revision {} to {revision}",
                self.read.1
            );
            self.read = (asked, revision);
        }
        let operation = Operation {
            called,
            returned: now,
            action,
            outcome,
        };
        records.operations.push((number, operation));
        Ok(verdict)
    }

    /// Whether a read may be refused so.
    fn check_refusal(
        &self,
        records: &Records,
        ask: &Ask,
        error: ferrite_api::Error,
    ) -> anyhow::Result<()> {
        let Ask::Read { local, at, .. } = ask else {
            return Ok(());
        };
        let may = match error {
            ferrite_api::Error::Compacted => *at != 0 && *at < records.compacted,
            // A member may lag behind what its client has seen elsewhere.
            ferrite_api::Error::FutureRev => *local && *at != 0,
            _ => true,
        };
        anyhow::ensure!(may, "{ask:?} is refused: {error}");
        Ok(())
    }

    fn learn(&mut self, action: &Action, outcome: &Outcome) {
        let key = match action {
            Action::Swap { key, .. } | Action::Get { key } => Some(key),
            Action::Write { changes } => changes.first().map(|(key, _)| key),
            _ => None,
        };
        let deletes = matches!(
            action,
            Action::Swap {
                change: Change::Delete,
                ..
            }
        ) || matches!(action, Action::Write { changes } if changes[0].1 == Change::Delete);
        let (revision, modified) = match outcome {
            Outcome::Applied { revision } => (*revision, if deletes { 0 } else { *revision }),
            Outcome::Absent { revision } => (*revision, 0),
            Outcome::Refused { revision, current } => {
                (*revision, current.map_or(0, |pair| pair.modified))
            }
            Outcome::Found { revision, pair } => (*revision, pair.map_or(0, |pair| pair.modified)),
            Outcome::Listed { revision, .. } => (*revision, 0),
            Outcome::Unknown => return,
        };
        self.seen = self.seen.max(revision);
        if let Some(key) = key {
            self.known.insert(key.clone(), modified);
        }
    }
}
