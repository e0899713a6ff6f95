//! The members of the cluster as the replicated state knows them: the one source of truth for
//! member lists and for Raft's configuration.

use std::collections::BTreeMap;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb;
use ferrite_api::pb::membershippb::{Attributes, Member, RaftAttributes};
use ferrite_api::types::MemberId;
use prost::Message;

use crate::error::Error;
use crate::page::{Table, TableWrite};

/// All members, by id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Members {
    by_id: BTreeMap<MemberId, Member>,
}

impl Members {
    /// Members from rows of the page file: key = id as 8 bytes big endian, value = `Member`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming the row that does not decode.
    pub(crate) fn load(rows: &[(Bytes, Bytes)]) -> Result<Self, Error> {
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
        Ok(Self { by_id })
    }

    /// The member with this id.
    pub fn get(&self, id: MemberId) -> Option<&Member> {
        self.by_id.get(&id)
    }

    /// All members, ordered by id.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.by_id.values()
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
        key: Bytes::copy_from_slice(&member.id.to_be_bytes()),
        value: Bytes::from(member.encode_to_vec()),
    }
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
        let error = Members::load(&[(key, value)]).unwrap_err();
        assert!(error.to_string().contains("holds member 7"), "{error}");
    }
}
