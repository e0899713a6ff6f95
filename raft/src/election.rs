//! Election timeouts from a seed.

use raft::{Raft, StateRole};

use crate::log::RaftLog;

/// Chooses the election timeouts in place of raft-rs, which draws them from the thread's random
/// generator: a run must be repeatable from its seed.
///
/// raft-rs draws anew whenever it resets a node, and a draw that happens to repeat the old value
/// cannot be seen from outside. So the number of draws must not depend on what raft-rs drew: one is
/// made here whenever term, role or leader changed, which every reset that matters does, and then
/// always imposed.
#[derive(Debug)]
pub(crate) struct ElectionTimeouts {
    random: SplitMix64,
    election_ticks: usize,
    current: usize,
    state: (u64, StateRole, u64),
}

impl ElectionTimeouts {
    /// Timeouts lie in `[election_ticks, 2 * election_ticks)`.
    pub(crate) fn new(seed: u64, election_ticks: usize) -> ElectionTimeouts {
        let mut timeouts = ElectionTimeouts {
            random: SplitMix64(seed),
            election_ticks,
            current: election_ticks,
            state: (0, StateRole::Follower, 0),
        };
        timeouts.draw();
        timeouts
    }

    /// Imposes the timeout. To be called after everything that may have changed raft's state.
    pub(crate) fn impose(&mut self, raft: &mut Raft<RaftLog>) {
        let state = (raft.term, raft.state, raft.leader_id);
        if state != self.state {
            self.state = state;
            self.draw();
        }
        if raft.randomized_election_timeout() != self.current {
            raft.set_randomized_election_timeout(self.current);
        }
    }

    fn draw(&mut self) {
        let spread = self.random.next() % self.election_ticks as u64;
        self.current = self.election_ticks + spread as usize;
    }
}

/// Sebastiano Vigna's generator: equal everywhere, and good enough to spread timeouts.
#[derive(Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_come_from_the_seed_and_spread_over_the_whole_range() {
        let draws = |seed| {
            let mut timeouts = ElectionTimeouts::new(seed, 10);
            let draw = |_| {
                timeouts.draw();
                timeouts.current
            };
            (0..1000).map(draw).collect::<Vec<_>>()
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
        for timeout in 10..20 {
            let count = draws(3).iter().filter(|draw| **draw == timeout).count();
            assert!((50..200).contains(&count), "{timeout}: {count} of 1000");
        }
        assert!(draws(4).iter().all(|draw| (10..20).contains(draw)));
    }
}
