//! The operator: changes the membership now and then, starts the machines of members that were added, and
//! sees to it that those which were removed end.

use std::time::Duration;

use anyhow::{Context, ensure};
use ferrite_api::pb::membershippb::{Member, RaftAttributes};
use ferrite_api::types::MemberId;
use ferrite_server::bootstrap::{Origin, member_id};
use ferrite_server::member::Input;
use ferrite_storage::membership::{MembershipAction, MembershipChange};
use ferrite_storage::state::State;
use rand::Rng;
use rand::seq::IteratorRandom;

use super::nemesis::NOBODY;
use super::node::Node;
use super::world::{Event, World};

/// Machines that a run makes at most, beside those of the first members.
const SPARES: usize = 5;

/// Members beyond which none is added.
const MOST: usize = 7;

/// Voters at which none is removed. A hole that is known: of two voters, one that leads may apply its own
/// removal, which a leader before it has proposed, and is gone at once. The other one needs its vote, if it
/// has not heard by then that the removal is committed, or loses power before it has noted so. (etcd's
/// members wait a second before they go, which makes this rare.)
const LEAST: usize = 2;

/// Pause between two removals, so that the second is not decided by a state in which the first is not applied.
const REMOVAL_PAUSE: Duration = Duration::from_secs(8);

impl World {
    /// Looks after the cluster, and plans the next time to do so.
    pub(super) fn operate(&mut self) -> anyhow::Result<()> {
        self.look_after()?;
        if self.chaos && !self.anybody_recovers() {
            self.change_something();
        }
        let pause = self.nemesis.random_range(200..2_500);
        let next = self.now + Duration::from_millis(pause);
        self.queue.at(next, Event::Operate);
        Ok(())
    }

    /// The state that is furthest.
    pub(super) fn newest(&self) -> Option<&State> {
        let states = self.nodes.iter().filter_map(|node| {
            let shell = node.shell.as_ref()?;
            Some(shell.member.state())
        });
        states.max_by_key(|state| state.applied())
    }

    /// Starts machines of new members.
    fn look_after(&mut self) -> anyhow::Result<()> {
        let Some(state) = self.newest() else {
            return Ok(());
        };
        let members: Vec<Member> = state.members().iter().cloned().collect();
        let cluster_id = state.cluster_id();
        for member in &members {
            let id = MemberId::new(member.id);
            let at = self.position(id).context("nobody has added this member")?;
            if self.nodes[at].born {
                continue;
            }
            self.counts.one("members added");
            self.nodes[at].born = true;
            self.nodes[at].join(Origin::Join {
                cluster_id,
                member_id: id,
                members: members.clone(),
            });
            let delay = Duration::from_millis(self.nemesis.random_range(0..3_000));
            self.queue.at(self.now + delay, Event::Boot { at });
        }
        Ok(())
    }

    fn change_something(&mut self) {
        let Some(state) = self.newest() else { return };
        let members: Vec<Member> = state.members().iter().cloned().collect();
        let learners: Vec<MemberId> = state
            .members()
            .learners()
            .map(|member| MemberId::new(member.id))
            .collect();
        let mut asked = self.running();
        let action = match self.nemesis.random_range(0..10) {
            0..3 if members.len() < MOST && self.nodes.len() < self.plan.members + SPARES => {
                self.add()
            }
            3..6 if !learners.is_empty() => {
                let id = learners[self.nemesis.random_range(0..learners.len())];
                asked = self.leader().or(asked);
                MembershipAction::Promote { id }
            }
            6..8 if members.len() - learners.len() > LEAST
                && self.now >= self.last_removal + REMOVAL_PAUSE =>
            {
                self.last_removal = self.now;
                let at = self.nemesis.random_range(0..members.len());
                let id = MemberId::new(members[at].id);
                MembershipAction::Remove { id }
            }
            _ => return,
        };
        let Some(shell) = asked.and_then(|at| self.nodes[at].shell.as_mut()) else {
            return;
        };
        let request = shell.ids.next();
        let change = MembershipChange { request, action };
        let text = format!("{:?}", change.action);
        let waiter = NOBODY;
        shell.push(Input::ChangeMembers { change, waiter });
        self.counts.one("membership changes asked");
        self.note(format_args!("operator asks m{asked:?}: {text}"));
        if let Some(at) = asked {
            self.plan_turn(at);
        }
    }

    fn running(&mut self) -> Option<usize> {
        let nodes = self.nodes.iter().enumerate();
        let running = nodes.filter(|(_, node)| node.shell.is_some());
        running.map(|(at, _)| at).choose(&mut self.nemesis)
    }

    /// A new machine, for a member that is to be added.
    fn add(&mut self) -> MembershipAction {
        let n = self.nodes.len();
        let peer_urls = vec![format!("http://m{n}:2380")];
        let id = member_id(&peer_urls, &self.now.as_secs().to_string());
        let node = Node::new(&self.plan, n, id, self.mutant);
        self.nodes.push(node);
        let member = Member {
            id: id.get(),
            raft_attributes: Some(RaftAttributes {
                peer_urls,
                is_learner: self.nemesis.random_bool(0.6),
            }),
            member_attributes: None,
        };
        MembershipAction::Add { member }
    }

    /// A removal is committed.
    pub(super) fn note_removed(&mut self, id: MemberId) {
        let new = self.removed.insert(id);
        self.counts.add("members removed", u64::from(new));
    }

    /// A process whose member was removed ends in order. Perhaps somebody starts it again.
    pub(super) fn retire(&mut self, at: usize) -> anyhow::Result<()> {
        let node = &mut self.nodes[at];
        let Some(shell) = &mut node.shell else {
            return Ok(());
        };
        shell.stop()?;
        let id = node.id;
        // It may have it from the log before anybody's list of members says so.
        let from_log = shell
            .member
            .state()
            .members()
            .removed()
            .any(|gone| gone == id);
        if from_log {
            self.note_removed(id);
        }
        ensure!(
            self.removed.contains(&id),
            "it was removed, and nobody has removed it"
        );
        self.note(format_args!("m{at} was removed"));
        self.counts.one("removed members ended");
        self.end(at, super::node::End::Crash);
        self.nodes[at].retired = true;
        if self.nemesis.random_bool(0.3) {
            let delay = Duration::from_millis(self.nemesis.random_range(100..4_000));
            self.queue.at(self.now + delay, Event::Boot { at });
        }
        Ok(())
    }

    /// Which machines are members', as the state that is furthest has it.
    pub(super) fn member_machines(&self) -> Vec<usize> {
        let ids: Vec<u64> = self
            .newest()
            .map(|state| state.members().iter().map(|member| member.id).collect())
            .unwrap_or_default();
        let nodes = self.nodes.iter().enumerate();
        let members = nodes.filter(|(_, node)| ids.contains(&node.id.get()));
        members.map(|(at, _)| at).collect()
    }
}
