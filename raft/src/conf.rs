//! Configurations and their changes, in types of our own.

use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, Entry, EntryType};

/// Who votes and who listens. Lists are sorted. Normally only the first two are used; the others
/// belong to the joint configuration in which raft changes several voters at once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfState {
    /// The voters.
    pub voters: Vec<u64>,
    /// Members that receive the log but have no vote.
    pub learners: Vec<u64>,
    /// Joint only: the voters of the configuration being left.
    pub voters_outgoing: Vec<u64>,
    /// Joint only: voters of the configuration being left that become learners.
    pub learners_next: Vec<u64>,
    /// Joint only: whether raft leaves it by itself.
    pub auto_leave: bool,
}

impl ConfState {
    /// A plain configuration.
    pub fn new(voters: Vec<u64>, learners: Vec<u64>) -> ConfState {
        ConfState {
            voters,
            learners,
            ..ConfState::default()
        }
        .sorted()
    }

    /// Whether the member is part of it in any way.
    pub fn contains(&self, id: u64) -> bool {
        let Self {
            voters,
            learners,
            voters_outgoing,
            learners_next,
            auto_leave: _,
        } = self;
        [voters, learners, voters_outgoing, learners_next]
            .iter()
            .any(|list| list.contains(&id))
    }

    /// Whether `id` alone makes every decision.
    pub(crate) fn is_only_voter(&self, id: u64) -> bool {
        self.voters == [id] && self.voters_outgoing.is_empty()
    }

    fn sorted(mut self) -> ConfState {
        let Self {
            voters,
            learners,
            voters_outgoing,
            learners_next,
            auto_leave: _,
        } = &mut self;
        for list in [voters, learners, voters_outgoing, learners_next] {
            list.sort_unstable();
            list.dedup();
        }
        self
    }

    /// Checks what raft-rs would panic on.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Self {
            voters,
            learners,
            voters_outgoing,
            learners_next,
            auto_leave: _,
        } = self;
        if [voters, learners, voters_outgoing, learners_next]
            .iter()
            .any(|list| list.contains(&0))
        {
            return Err("0 is no member id".into());
        }
        if let Some(id) = learners
            .iter()
            .find(|id| voters.contains(id) || voters_outgoing.contains(id))
        {
            return Err(format!("{id:x} is both voter and learner"));
        }
        if let Some(id) = learners_next
            .iter()
            .find(|id| !voters_outgoing.contains(id) || voters.contains(id))
        {
            return Err(format!(
                "{id:x} cannot become a learner: it is not an outgoing voter"
            ));
        }
        if voters_outgoing.is_empty() && self.auto_leave {
            return Err("leaves a joint configuration that it is not in".into());
        }
        if voters.is_empty() && !voters_outgoing.is_empty() {
            return Err("joint configuration without voters".into());
        }
        Ok(())
    }

    pub(crate) fn to_raft(&self) -> eraftpb::ConfState {
        let mut state = eraftpb::ConfState::default();
        state.set_voters(self.voters.clone());
        state.set_learners(self.learners.clone());
        state.set_voters_outgoing(self.voters_outgoing.clone());
        state.set_learners_next(self.learners_next.clone());
        state.auto_leave = self.auto_leave;
        state
    }

    pub(crate) fn from_raft(state: &eraftpb::ConfState) -> ConfState {
        // raft-rs keeps sets in hash order.
        let state = ConfState {
            voters: state.get_voters().to_vec(),
            learners: state.get_learners().to_vec(),
            voters_outgoing: state.get_voters_outgoing().to_vec(),
            learners_next: state.get_learners_next().to_vec(),
            auto_leave: state.auto_leave,
        };
        state.sorted()
    }
}

/// A change of the configuration, one step: all that etcd does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Makes the member a voter: a new one, or a learner that is promoted.
    AddVoter(u64),
    /// Makes the member a learner.
    AddLearner(u64),
    /// Takes the member out.
    Remove(u64),
}

/// The content of a configuration entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfChange {
    /// What changes; empty: the joint configuration is left.
    pub changes: Vec<Change>,
    /// The proposer's own bytes, opaque here.
    pub context: Bytes,
}

impl ConfChange {
    /// One change.
    pub fn new(change: Change, context: Bytes) -> ConfChange {
        ConfChange {
            changes: vec![change],
            context,
        }
    }

    pub(crate) fn to_raft(&self) -> ConfChangeV2 {
        let single = |change: &Change| {
            let (kind, id) = match *change {
                Change::AddVoter(id) => (ConfChangeType::AddNode, id),
                Change::AddLearner(id) => (ConfChangeType::AddLearnerNode, id),
                Change::Remove(id) => (ConfChangeType::RemoveNode, id),
            };
            let mut single = ConfChangeSingle::default();
            single.set_change_type(kind);
            single.node_id = id;
            single
        };
        let mut raft = ConfChangeV2::default();
        raft.set_changes(self.changes.iter().map(single).collect::<Vec<_>>().into());
        raft.context = self.context.clone();
        raft
    }

    /// As the data of an entry.
    pub(crate) fn encode(&self) -> Bytes {
        let data = self.to_raft().write_to_bytes();
        data.expect("a proto3 message always encodes into memory")
            .into()
    }

    fn from_raft(raft: &ConfChangeV2) -> ConfChange {
        let change = |single: &ConfChangeSingle| match single.get_change_type() {
            ConfChangeType::AddNode => Change::AddVoter(single.node_id),
            ConfChangeType::AddLearnerNode => Change::AddLearner(single.node_id),
            ConfChangeType::RemoveNode => Change::Remove(single.node_id),
        };
        ConfChange {
            changes: raft.get_changes().iter().map(change).collect(),
            context: raft.context.clone(),
        }
    }

    /// The change in a configuration entry.
    pub(crate) fn decode(entry: &Entry) -> Result<ConfChange, String> {
        let bad = |error: protobuf::ProtobufError| format!("configuration change: {error}");
        crate::wire::refuse_groups(&entry.data)?;
        let raft = match entry.entry_type {
            EntryType::EntryConfChange => {
                let change = eraftpb::ConfChange::parse_from_carllerche_bytes(&entry.data);
                let mut change = change.map_err(bad)?;
                let mut single = ConfChangeSingle::default();
                single.set_change_type(change.get_change_type());
                single.node_id = change.node_id;
                let mut raft = ConfChangeV2::default();
                raft.set_changes(vec![single].into());
                raft.context = change.take_context();
                raft
            }
            EntryType::EntryConfChangeV2 => {
                ConfChangeV2::parse_from_carllerche_bytes(&entry.data).map_err(bad)?
            }
            EntryType::EntryNormal => return Err("entry holds no configuration change".into()),
        };
        Ok(ConfChange::from_raft(&raft))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(entry_type: EntryType, data: Vec<u8>) -> Result<ConfChange, String> {
        ConfChange::decode(&Entry {
            entry_type,
            data: data.into(),
            ..Entry::default()
        })
    }

    #[test]
    fn changes_survive_the_entry() {
        let all = [
            Change::AddVoter(1),
            Change::AddLearner(2),
            Change::Remove(u64::MAX),
        ];
        for changes in [&all[..], &all[..1], &all[1..2], &all[2..], &[]] {
            let context = Bytes::from_static(b"\x00context");
            let change = ConfChange {
                changes: changes.to_vec(),
                context,
            };
            let data = change.to_raft().write_to_bytes().unwrap();
            assert_eq!(decoded(EntryType::EntryConfChangeV2, data), Ok(change));
        }
    }

    /// raft-rs leaves a joint configuration with an entry that has no content.
    #[test]
    fn an_empty_entry_leaves_the_joint_configuration() {
        assert_eq!(
            decoded(EntryType::EntryConfChangeV2, Vec::new()),
            Ok(ConfChange::default())
        );
    }

    #[test]
    fn the_old_form_is_understood() {
        let mut old = eraftpb::ConfChange::default();
        old.set_change_type(ConfChangeType::RemoveNode);
        old.node_id = 9;
        old.context = Bytes::from_static(b"c");
        let data = old.write_to_bytes().unwrap();
        let expected = ConfChange::new(Change::Remove(9), Bytes::from_static(b"c"));
        assert_eq!(decoded(EntryType::EntryConfChange, data), Ok(expected));
    }

    #[test]
    fn what_is_no_change_is_refused() {
        assert!(decoded(EntryType::EntryNormal, Vec::new()).is_err());
        assert!(decoded(EntryType::EntryConfChangeV2, vec![0xff; 9]).is_err());
        assert!(decoded(EntryType::EntryConfChangeV2, vec![0x13; 9]).is_err());
    }

    #[test]
    fn lists_are_sorted_whatever_order_raft_keeps_them_in() {
        let state = ConfState::new(vec![3, 1, 2, 1], vec![9, 8]);
        assert_eq!(
            (&state.voters[..], &state.learners[..]),
            (&[1, 2, 3][..], &[8, 9][..])
        );
        assert_eq!(ConfState::from_raft(&state.to_raft()), state);
        assert!(state.contains(8) && !state.contains(4));
    }
}
