//! Changes of the membership: the verdict of each row of spec cluster.md section 3, and a naive
//! model of them under checkpoints and restarts.

use std::collections::{BTreeMap, BTreeSet};

use ferrite_api::Error;
use ferrite_api::pb::etcdserverpb::InternalRaftRequest;
use ferrite_api::pb::membershippb::{
    Attributes, ClusterMemberAttrSetRequest, Member, RaftAttributes,
};
use ferrite_api::types::{MemberId, RequestId};
use ferrite_disk::sim::PowerLoss;
use ferrite_storage::checkpoint::{Policy, Reason};
use ferrite_storage::members;
use ferrite_storage::membership::{MembershipAction, MembershipChange};
use ferrite_storage::page::ConfState;
use ferrite_storage::state::State;
use proptest::prelude::*;

use crate::harness::{Harness, MAX_LEARNERS, restored};

fn urls(urls: &[&str]) -> Vec<String> {
    urls.iter().map(|url| format!("http://{url}")).collect()
}

fn add(id: u64, peer_urls: &[&str], is_learner: bool) -> MembershipAction {
    let raft = RaftAttributes {
        peer_urls: urls(peer_urls),
        is_learner,
    };
    MembershipAction::Add {
        member: Member {
            id,
            raft_attributes: Some(raft),
            member_attributes: None,
        },
    }
}

fn promote(id: u64) -> MembershipAction {
    let id = MemberId::new(id);
    MembershipAction::Promote { id }
}

fn remove(id: u64) -> MembershipAction {
    let id = MemberId::new(id);
    MembershipAction::Remove { id }
}

fn update(id: u64, peer_urls: &[&str]) -> MembershipAction {
    let (id, peer_urls) = (MemberId::new(id), urls(peer_urls));
    MembershipAction::Update { id, peer_urls }
}

fn introduce(id: u64) -> InternalRaftRequest {
    let attributes = Attributes {
        name: format!("m{id}"),
        client_urls: urls(&["client"]),
    };
    InternalRaftRequest {
        cluster_member_attr_set: Some(ClusterMemberAttrSetRequest {
            member_id: id,
            member_attributes: Some(attributes),
        }),
        ..Default::default()
    }
}

#[test]
fn every_change_is_checked_in_the_order_of_the_specification() {
    let mut member = Harness::new();
    let no_member = Some(Error::MemberNotFound);
    for (action, refusal) in [
        (add(8, &["q"], false), None),
        // The id is looked at before the URLs, these before the learners.
        (add(8, &["p"], false), Some(Error::MemberExist)),
        (add(9, &["r", "p"], true), Some(Error::PeerURLExist)),
        (add(9, &["r"], true), None),
        (add(10, &["r"], true), Some(Error::PeerURLExist)),
        (add(10, &["s"], true), Some(Error::TooManyLearners)),
        (promote(10), no_member),
        (promote(8), Some(Error::MemberNotLearner)),
        (promote(9), None),
        (promote(9), Some(Error::MemberNotLearner)),
        (add(10, &["s"], true), None),
        (update(11, &["t"]), no_member),
        (update(10, &["t", "q"]), Some(Error::PeerURLExist)),
        (update(10, &["t", "s"]), None),
        (update(10, &[]), None),
        (add(11, &["s"], false), None),
        (remove(12), no_member),
        (remove(11), None),
        // Gone for good, whatever is asked.
        (add(11, &["q"], false), no_member),
        (promote(11), no_member),
        (update(11, &["q"]), no_member),
        (remove(11), no_member),
        // Until one voter is left. A learner may always go.
        (remove(7), None),
        (remove(8), None),
        (remove(9), Some(Error::MemberNotEnoughStarted)),
        (remove(10), None),
        (add(12, &["p", "p"], false), None),
        (remove(9), None),
    ] {
        let verdict = member.change(action.clone()).err();
        assert_eq!(verdict, refusal, "{action:?}");
    }
    let members = member.state.members();
    assert_eq!(members.iter().map(|at| at.id).collect::<Vec<_>>(), [12]);
    let removed = members.removed().map(MemberId::get).collect::<Vec<_>>();
    assert_eq!(removed, [7, 8, 9, 10, 11]);
    assert!(members.contains_url("http://p") && !members.contains_url("http://P"));
    assert_eq!(member.state.conf_state().voters, [12]);
}

#[test]
fn what_a_member_says_of_itself_stays_with_it() {
    let mut member = Harness::new();
    member.change(add(8, &["q"], true)).unwrap();
    member.apply(introduce(8)).unwrap();
    let changes = member.state.cluster_changes();
    member.change(promote(8)).unwrap();
    member.change(update(8, &["r"])).unwrap();
    member.change(add(8, &["r"], false)).unwrap_err();
    assert_eq!(member.state.cluster_changes(), changes + 2);
    let of_8 = &member.state.members().to_api()[1];
    assert_eq!((of_8.name.as_str(), of_8.is_learner), ("m8", false));
    let all = [&of_8.peer_ur_ls, &of_8.client_ur_ls];
    assert_eq!(all, [&urls(&["r"]), &urls(&["client"])]);
}

#[test]
fn a_member_that_is_to_join_is_restored() {
    let own = members::unstarted(MemberId::new(7), urls(&["p"]));
    for members in [Vec::new(), vec![members::row(&own)]] {
        let known = members.len();
        let mut member = Harness::with(ConfState::default(), members);
        member.restart();
        assert_eq!(member.state.applied().get(), 0);
        assert_eq!(member.state.members().iter().count(), known);
        assert_eq!(*member.state.conf_state(), ConfState::default());
    }
}

#[test]
fn a_power_loss_leaves_members_and_configuration_of_one_entry() {
    let mut member = Harness::new();
    member.disk.start_recording();
    let now = |state: &State| (state.members().clone(), state.conf_state().clone());
    let mut at = vec![now(&member.state)];
    for action in [
        add(8, &["q"], false),
        add(9, &["r"], true),
        remove(8),
        promote(9),
        update(9, &["s"]),
        remove(7),
    ] {
        member.change(action).unwrap();
        at.push(now(&member.state));
        if at.len() % 2 == 0 {
            member.checkpoint(1);
        }
    }
    let mut history = member.disk.history();
    let mut seen = BTreeSet::new();
    for k in 0..=history.len() {
        for policy in [PowerLoss::LoseAll, PowerLoss::Random(k as u64)] {
            let state = restored(&history.power_loss_at(k, policy));
            let index = state.applied().get();
            assert_eq!(now(&state), at[index as usize], "operation {k}");
            seen.insert(index);
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1, 3, 5]);
}

#[test]
#[should_panic(expected = "entry 1 has changed the members, and raft's configuration")]
fn members_and_configuration_are_stored_together_or_not_at_all() {
    let mut member = Harness::new();
    let change = MembershipChange {
        request: RequestId::new(1),
        action: remove(7),
    };
    // Refused: nothing is to follow.
    let refused = member.state.apply_membership(1, 1, &change, MAX_LEARNERS);
    assert!(refused.result.is_err());
    member
        .state
        .next_job(&Policy::default(), Reason::Aged)
        .unwrap();

    let mut member = Harness::new();
    let action = add(8, &["q"], false);
    let change = MembershipChange { action, ..change };
    let applied = member.state.apply_membership(1, 1, &change, MAX_LEARNERS);
    applied.result.unwrap();
    member.state.next_job(&Policy::default(), Reason::Aged);
}

/// The membership as a reader of the specification would keep it.
#[derive(Default)]
struct Naive {
    /// Peer URLs, and whether it is a learner.
    members: BTreeMap<u64, (Vec<String>, bool)>,
    removed: BTreeSet<u64>,
}

impl Naive {
    fn change(&mut self, action: &MembershipAction) -> Result<(), Error> {
        let id = action.id().get();
        if self.removed.contains(&id) {
            return Err(Error::MemberNotFound);
        }
        let voters = self.members.values().filter(|member| !member.1).count();
        let urls_of_others = |urls: &[String]| {
            let others = self.members.iter().filter(|(other, _)| **other != id);
            let mut have = others.flat_map(|(_, (urls, _))| urls);
            have.any(|url| urls.contains(url))
        };
        match action {
            MembershipAction::Add { member } => {
                let raft = member.raft_attributes.clone().unwrap();
                if self.members.contains_key(&id) {
                    return Err(Error::MemberExist);
                }
                if urls_of_others(&raft.peer_urls) {
                    return Err(Error::PeerURLExist);
                }
                if raft.is_learner && self.members.len() - voters + 1 > MAX_LEARNERS {
                    return Err(Error::TooManyLearners);
                }
                self.members.insert(id, (raft.peer_urls, raft.is_learner));
            }
            MembershipAction::Promote { .. } => match self.members.get_mut(&id) {
                None => return Err(Error::MemberNotFound),
                Some((_, false)) => return Err(Error::MemberNotLearner),
                Some((_, learner)) => *learner = false,
            },
            MembershipAction::Remove { .. } => match self.members.get(&id) {
                None => return Err(Error::MemberNotFound),
                Some((_, false)) if voters == 1 => return Err(Error::MemberNotEnoughStarted),
                Some(_) => {
                    self.members.remove(&id);
                    self.removed.insert(id);
                }
            },
            MembershipAction::Update { peer_urls, .. } => {
                if !self.members.contains_key(&id) {
                    return Err(Error::MemberNotFound);
                }
                if urls_of_others(peer_urls) {
                    return Err(Error::PeerURLExist);
                }
                self.members.get_mut(&id).unwrap().0.clone_from(peer_urls);
            }
        }
        Ok(())
    }

    fn assert_in(&self, member: &Harness) {
        let members = member.state.members();
        let found = members.iter().map(|member| {
            let raft = member.raft_attributes.clone().unwrap();
            (member.id, (raft.peer_urls, raft.is_learner))
        });
        assert_eq!(found.collect::<BTreeMap<_, _>>(), self.members);
        let removed = members.removed().map(MemberId::get);
        assert_eq!(removed.collect::<BTreeSet<_>>(), self.removed);
        let of_kind = |is_learner| {
            let members = self.members.iter();
            let of_kind = members.filter(move |(_, member)| member.1 == is_learner);
            of_kind.map(|(id, _)| *id).collect()
        };
        let conf_state = ConfState {
            voters: of_kind(false),
            learners: of_kind(true),
            ..ConfState::default()
        };
        assert_eq!(*member.state.conf_state(), conf_state);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Change(MembershipAction),
    Introduce(u64),
    Checkpoint,
    Restart,
}

fn action() -> impl Strategy<Value = MembershipAction> {
    let id = 7..14u64;
    let urls = prop::collection::vec(
        prop::sample::select(vec!["p", "q", "r", "s", "t", "u"]),
        0..3,
    );
    (0..4, id, urls, any::<bool>()).prop_map(|(kind, id, urls, is_learner)| match kind {
        0 => add(id, &urls, is_learner),
        1 => promote(id),
        2 => remove(id),
        _ => update(id, &urls),
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => action().prop_map(Step::Change),
        1 => (7..14u64).prop_map(Step::Introduce),
        3 => Just(Step::Checkpoint),
        2 => Just(Step::Restart),
    ]
}

proptest! {
    #[test]
    fn members_are_those_of_the_model(steps in prop::collection::vec(step(), 1..60)) {
        let mut member = Harness::new();
        let mut naive = Naive::default();
        naive.members.insert(7, (urls(&["p"]), false));
        for step in steps {
            match step {
                Step::Change(action) => {
                    let verdict = member.change(action.clone()).map(drop);
                    prop_assert_eq!(verdict, naive.change(&action), "{:?}", action);
                }
                Step::Introduce(id) => drop(member.apply(introduce(id))),
                Step::Checkpoint => drop(member.checkpoint(1)),
                Step::Restart => member.restart(),
            }
            naive.assert_in(&member);
        }
        // From the page file alone.
        member.checkpoint(1);
        member.restart();
        naive.assert_in(&member);
    }
}
