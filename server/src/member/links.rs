//! What this member knows of its links to others, and what it makes of it: why a request ended
//! without an answer.

use std::collections::BTreeMap;

use ferrite_api::types::MemberId;

use super::Member;

/// Who can be reached, and whose leadership was seen when. In ticks.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// Since when each peer has been reachable without a break.
    since: BTreeMap<MemberId, u64>,
    /// The last leader known; 0 before the first.
    leader: u64,
    /// When it was first seen to lead.
    elected: u64,
}

impl Links {
    pub(super) fn set(&mut self, peer: MemberId, reachable: bool, now: u64) {
        if reachable {
            self.since.entry(peer).or_insert(now);
        } else {
            self.since.remove(&peer);
        }
    }

    /// Notes who leads; 0 if nobody is known to.
    pub(super) fn leads(&mut self, leader: u64, now: u64) {
        if leader != 0 && leader != self.leader {
            self.leader = leader;
            self.elected = now;
        }
    }

    /// Whether a peer can be reached now.
    pub(super) fn is_up(&self, peer: MemberId) -> bool {
        self.since.contains_key(&peer)
    }

    /// Whether a peer has been reachable since that tick.
    pub(super) fn held_since(&self, peer: MemberId, tick: u64) -> bool {
        self.since.get(&peer).is_some_and(|since| *since <= tick)
    }
}

impl<T> Member<T> {
    /// Why a request that ends at `deadline` has had no answer (etcd's three texts): the leader
    /// failed meanwhile, or could not be reached, or something else.
    pub(super) fn timeout(&self, deadline: u64) -> ferrite_api::Error {
        let begun = deadline.saturating_sub(self.options.request_ticks);
        let elected = self.links.elected;
        let lost = elected.saturating_sub(2 * self.options.election_ticks);
        if elected > 0 && lost < begun && begun < elected {
            return ferrite_api::Error::TimeoutDueToLeaderFail;
        }
        let connected = match self.driver.status().leader {
            0 => true,
            _ if self.is_leader() => self.quorum_since(begun),
            leader => self.links.held_since(MemberId::new(leader), begun),
        };
        match connected {
            true => ferrite_api::Error::Timeout,
            false => ferrite_api::Error::TimeoutDueToConnectionLost,
        }
    }

    /// Whether a quorum of all members, this one included, has been connected since that tick.
    fn quorum_since(&self, tick: u64) -> bool {
        let members = self.state.members().iter().count();
        let connected = self.connected_since(tick).count();
        connected > members / 2
    }

    /// The members that have been connected since that tick, this one included.
    pub(super) fn connected_since(&self, tick: u64) -> impl Iterator<Item = MemberId> {
        let own = self.state.member_id();
        let ids = self
            .state
            .members()
            .iter()
            .map(|member| MemberId::new(member.id));
        ids.filter(move |id| *id == own || self.links.held_since(*id, tick))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_break_begins_the_count_anew() {
        let (mut links, peer) = (Links::default(), MemberId::new(2));
        assert!(!links.held_since(peer, 9));
        links.set(peer, true, 3);
        links.set(peer, true, 5);
        assert!(links.held_since(peer, 3) && !links.held_since(peer, 2));
        links.set(peer, false, 6);
        assert!(!links.held_since(peer, 9));
        links.set(peer, true, 7);
        assert!(links.held_since(peer, 7) && !links.held_since(peer, 5));
    }

    #[test]
    fn a_leader_is_elected_when_it_is_seen_first() {
        let mut links = Links::default();
        links.leads(1, 4);
        links.leads(0, 5);
        links.leads(1, 6);
        assert_eq!((links.leader, links.elected), (1, 4));
        links.leads(2, 8);
        assert_eq!((links.leader, links.elected), (2, 8));
    }
}
