//! The members of the cluster as the replicated state knows them: the one source of truth for
//! member lists and for Raft's configuration.
//!
//! Invariant: no id is both that of a member and that of a removed one.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb;
use ferrite_api::pb::membershippb::{Attributes, Member, RaftAttributes};
use ferrite_api::types::MemberId;
use prost::Message;

use crate::error::Error;
use crate::membership::MembershipAction;
use crate::page::{Table, TableWrite};

/// All members, by id, and the ids of those that were removed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Members {
    by_id: BTreeMap<MemberId, Member>,
    /// They never come back.
    removed: BTreeSet<MemberId>,
}

impl Members {
    /// Members from rows of the page file: key = id as 8 bytes big endian, value = `Member`. The
    /// rows of `removed` have such a key and no value.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming the row that does not decode.
    pub(crate) fn load(rows: &[(Bytes, Bytes)], removed: &[(Bytes, Bytes)]) -> Result<Self, Error> {
        let mut by_id = BTreeMap::new();
        for (key, value) in rows {
            let member = Member::decode(value.clone()).map_err(|error| Error::Corrupt {
                what: format!("members row {key:?} does not decode: {error}"),
            })?;
            if key[..] != member.id.to_be_bytes() {
                let what = format!("members row {key:?} holds member {:x}", member.id);
                return Err(Error::Corrupt { what });
            }
            by_id.insert(MemberId::new(member.id), member);
        }
        let removed = removed.iter().map(|(key, _)| {
            let id = <[u8; 8]>::try_from(&key[..]).map_err(|_| Error::Corrupt {
                what: format!("members_removed row {key:?} is no member id"),
            })?;
            let id = MemberId::new(u64::from_be_bytes(id));
            match by_id.contains_key(&id) {
                true => Err(Error::Corrupt {
                    what: format!("member {id} is in the tables members and members_removed"),
                }),
                false => Ok(id),
            }
        });
        let removed = removed.collect::<Result<_, _>>()?;
        Ok(Self { by_id, removed })
    }

    /// The member with this id.
    pub fn get(&self, id: MemberId) -> Option<&Member> {
        self.by_id.get(&id)
    }

    /// All members, ordered by id.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.by_id.values()
    }

    /// Members that have a vote, ordered by id.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.iter().filter(|member| !is_learner(member))
    }

    /// Members that have none, ordered by id.
    pub fn learners(&self) -> impl Iterator<Item = &Member> {
        self.iter().filter(|member| is_learner(member))
    }

    /// The ids of removed members, in order.
    pub fn removed(&self) -> impl Iterator<Item = MemberId> {
        self.removed.iter().copied()
    }

    /// Whether a member of this id was removed: then there will never be one again.
    pub fn is_removed(&self, id: MemberId) -> bool {
        self.removed.contains(&id)
    }

    /// Whether some member has this peer URL, letter by letter.
    pub fn contains_url(&self, url: &str) -> bool {
        self.url_owners(url).next().is_some()
    }

    /// The members that have this peer URL. More than one only if a cluster was begun so.
    pub(crate) fn url_owners(&self, url: &str) -> impl Iterator<Item = MemberId> {
        let has = move |member: &&Member| {
            let raft = member.raft_attributes.as_ref();
            raft.is_some_and(|raft| raft.peer_urls.iter().any(|have| have == url))
        };
        self.iter()
            .filter(has)
            .map(|member| MemberId::new(member.id))
    }

    /// The members as clients see them, ordered by id.
    pub fn to_api(&self) -> Vec<etcdserverpb::Member> {
        self.iter()
            .map(|member| {
                let raft = member.raft_attributes.clone().unwrap_or_default();
                let own = member.member_attributes.clone().unwrap_or_default();
                etcdserverpb::Member {
                    id: member.id,
                    name: own.name,
                    peer_ur_ls: raft.peer_urls,
                    client_ur_ls: own.client_urls,
                    is_learner: raft.is_learner,
                }
            })
            .collect()
    }

    /// Publishes the name and client URLs of a member. Returns the row to store; `None` when the
    /// member is unknown (it was removed meanwhile).
    pub(crate) fn set_attributes(
        &mut self,
        id: u64,
        own: Option<Attributes>,
    ) -> Option<TableWrite> {
        let member = self.by_id.get_mut(&MemberId::new(id))?;
        member.member_attributes = own;
        Some(row(member))
    }

    /// Carries out a change that was found possible. Returns the rows to store.
    pub(crate) fn change(&mut self, action: &MembershipAction) -> Vec<TableWrite> {
        let id = action.id();
        match action {
            MembershipAction::Add { member } => {
                self.by_id.insert(id, member.clone());
                vec![row(member)]
            }
            MembershipAction::Promote { .. } => self.set_raft(id, |raft| raft.is_learner = false),
            MembershipAction::Remove { .. } => {
                self.by_id.remove(&id);
                self.removed.insert(id);
                let member = TableWrite::delete(Table::Members, row_key(id));
                vec![member, removed_row(id)]
            }
            MembershipAction::Update { peer_urls, .. } => {
                self.set_raft(id, |raft| raft.peer_urls.clone_from(peer_urls))
            }
        }
    }

    /// The rows that hold all of it.
    pub(crate) fn rows(&self) -> impl Iterator<Item = TableWrite> {
        let removed = self.removed.iter().map(|id| removed_row(*id));
        self.iter().map(row).chain(removed)
    }

    fn set_raft(&mut self, id: MemberId, set: impl FnOnce(&mut RaftAttributes)) -> Vec<TableWrite> {
        let member = self
            .by_id
            .get_mut(&id)
            .expect("a change was checked before it is carried out");
        set(member.raft_attributes.get_or_insert_default());
        vec![row(member)]
    }
}

fn is_learner(member: &Member) -> bool {
    let raft = member.raft_attributes.as_ref();
    raft.is_some_and(|raft| raft.is_learner)
}

/// A member that has not published its attributes yet.
pub fn unstarted(id: MemberId, peer_urls: Vec<String>) -> Member {
    Member {
        id: id.get(),
        raft_attributes: Some(RaftAttributes {
            peer_urls,
            is_learner: false,
        }),
        member_attributes: None,
    }
}

/// A member of a new cluster: its name is known, its client URLs are not.
pub fn founder(id: MemberId, name: String, peer_urls: Vec<String>) -> Member {
    Member {
        member_attributes: Some(Attributes {
            name,
            client_urls: Vec::new(),
        }),
        ..unstarted(id, peer_urls)
    }
}

/// The row of the page file that holds a member.
pub fn row(member: &Member) -> TableWrite {
    TableWrite::Put {
        table: Table::Members,
        key: row_key(MemberId::new(member.id)),
        value: Bytes::from(member.encode_to_vec()),
    }
}

/// The row that holds the id of a removed member.
fn removed_row(id: MemberId) -> TableWrite {
    TableWrite::put(Table::MembersRemoved, row_key(id), Bytes::new())
}

fn row_key(id: MemberId) -> Bytes {
    Bytes::copy_from_slice(&id.get().to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_published_to_known_members_only() {
        let mut members = Members::default();
        let id = MemberId::new(7);
        let urls = vec!["http://localhost:2380".to_owned()];
        members.by_id.insert(id, unstarted(id, urls.clone()));
        assert_eq!(members.to_api()[0].name, "");
        let own = Attributes {
            name: "a".to_owned(),
            client_urls: vec!["http://c".to_owned()],
        };
        assert!(members.set_attributes(8, Some(own.clone())).is_none());
        assert!(members.set_attributes(7, Some(own)).is_some());
        let api = members.to_api();
        assert_eq!((api[0].name.as_str(), &api[0].peer_ur_ls), ("a", &urls));
    }

    #[test]
    fn damaged_rows_are_named() {
        let member = unstarted(MemberId::new(7), vec![]);
        let value = Bytes::from(member.encode_to_vec());
        let key = Bytes::copy_from_slice(&8u64.to_be_bytes());
        let error = Members::load(&[(key.clone(), value)], &[]).unwrap_err();
        assert!(error.to_string().contains("holds member 7"), "{error}");

        let member = unstarted(MemberId::new(8), vec![]);
        let row = (key.clone(), Bytes::from(member.encode_to_vec()));
        let error = Members::load(&[row], &[(key, Bytes::new())]).unwrap_err();
        let text = "corrupt store: member 8 is in the tables members and members_removed";
        assert_eq!(error.to_string(), text);
        let error = Members::load(&[], &[(Bytes::from_static(b"8"), Bytes::new())]).unwrap_err();
        assert!(error.to_string().contains("is no member id"), "{error}");
    }
}
