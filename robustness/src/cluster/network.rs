//! The network: what it does to each directed link between two members.
//!
//! It keeps the contract of a transport ([`ferrite_server::peer`]): a message arrives at most once, perhaps
//! after later ones, perhaps never; nothing arrives at, or of, another run of the process than the one it
//! was sent to, or by.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

use super::plan::Plan;
use super::queue::Time;

/// Longest delay of a late message, milliseconds.
const LATE: u64 = 4_000;

/// All links.
#[derive(Debug)]
pub(super) struct Network {
    rng: StdRng,
    /// Directed links that carry nothing.
    cut: BTreeSet<(usize, usize)>,
    /// Until when every message takes long.
    pub(super) clogged: Time,
    /// Whether nothing goes wrong any more.
    healed: bool,
}

impl Network {
    pub(super) fn new(rng: StdRng) -> Self {
        Self {
            rng,
            cut: BTreeSet::new(),
            clogged: Time::ZERO,
            healed: false,
        }
    }

    pub(super) fn cut(&mut self, from: usize, to: usize) {
        if from != to {
            self.cut.insert((from, to));
        }
    }

    pub(super) fn mend(&mut self, from: usize, to: usize) {
        self.cut.remove(&(from, to));
    }

    /// Everything works from now on.
    pub(super) fn heal(&mut self) {
        self.cut.clear();
        self.clogged = Time::ZERO;
        self.healed = true;
    }

    pub(super) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.contains(&(from, to))
    }

    /// When a message that is sent now arrives; `None` if it is lost.
    pub(super) fn arrival(&mut self, plan: &Plan, now: Time, link: (usize, usize)) -> Option<Time> {
        let rng = &mut self.rng;
        let (lost, late) = (
            rng.random_range(0..1000) < plan.lost,
            rng.random_range(0..1000) < plan.late,
        );
        let delay = Duration::from_micros(rng.random_range(plan.delay.clone()));
        let long = Duration::from_millis(rng.random_range(0..LATE));
        if self.healed {
            return Some(now + delay);
        }
        if lost || self.is_cut(link.0, link.1) {
            return None;
        }
        if late {
            return Some(now + delay + long);
        }
        Some(
            now + delay
                + if now < self.clogged {
                    long / 8
                } else {
                    Time::ZERO
                },
        )
    }

    /// What a piece of a stream takes. Its link works, or the stream ends.
    pub(super) fn stream_delay(&mut self, plan: &Plan, now: Time) -> Time {
        let delay = Duration::from_micros(self.rng.random_range(plan.delay.clone()));
        let long = Duration::from_millis(self.rng.random_range(0..LATE / 8));
        delay + if now < self.clogged { long } else { Time::ZERO }
    }

    /// What a message between a client and a member takes.
    pub(super) fn client_delay(&mut self, plan: &Plan) -> Time {
        Duration::from_micros(self.rng.random_range(plan.delay.clone()))
    }
}
