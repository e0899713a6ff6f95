//! Changes of the membership as they travel in the log: the context of a configuration entry of
//! Raft, which itself knows ids only.

use bytes::Bytes;
use ferrite_api::pb::membershippb::Member;
use ferrite_api::types::{MemberId, RequestId};
use prost::Message;

/// The longest encoded change. Whoever proposes refuses a longer one, for no member would apply it.
pub const MAX_CHANGE_BYTES: usize = 64 << 10;

/// A change of the membership, with the request that asked for it.
#[derive(Clone, PartialEq, Debug)]
pub struct MembershipChange {
    /// The request, for whoever waits for it; 0 when nobody does.
    pub request: RequestId,
    /// What is to change.
    pub action: MembershipAction,
}

/// What is to change.
#[derive(Clone, PartialEq, Debug)]
pub enum MembershipAction {
    /// Adds a member: a voter, or a learner if its attributes say so.
    Add {
        /// The member.
        member: Member,
    },
    /// Makes a learner a voter.
    Promote {
        /// The learner.
        id: MemberId,
    },
    /// Removes a member for ever.
    Remove {
        /// The member.
        id: MemberId,
    },
    /// Replaces the peer URLs of a member. Raft's configuration stays as it is.
    Update {
        /// The member.
        id: MemberId,
        /// Its new peer URLs.
        peer_urls: Vec<String>,
    },
}

/// Bytes that are no change of the membership.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no change of the membership: {0}")]
pub struct DecodeError(String);

impl MembershipAction {
    /// The member that the change is about.
    pub fn id(&self) -> MemberId {
        match self {
            Self::Add { member } => MemberId::new(member.id),
            Self::Promote { id } | Self::Remove { id } | Self::Update { id, .. } => *id,
        }
    }
}

impl MembershipChange {
    /// The change as the log holds it.
    pub fn encode(&self) -> Bytes {
        let action = match &self.action {
            MembershipAction::Add { member } => WireAction::Add(member.clone()),
            MembershipAction::Promote { id } => WireAction::Promote(id.get()),
            MembershipAction::Remove { id } => WireAction::Remove(id.get()),
            MembershipAction::Update { id, peer_urls } => WireAction::Update(WireUpdate {
                id: id.get(),
                peer_urls: peer_urls.clone(),
            }),
        };
        let wire = Wire {
            request: self.request.get(),
            action: Some(action),
        };
        wire.encode_to_vec().into()
    }

    /// The change that `bytes` hold.
    ///
    /// # Errors
    /// They hold none, one of a kind that this build does not know, one of member 0, or more than
    /// [`MAX_CHANGE_BYTES`].
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_CHANGE_BYTES {
            return Err(DecodeError(format!(
                "{} bytes, {MAX_CHANGE_BYTES} are the most",
                bytes.len()
            )));
        }
        let wire = Wire::decode(bytes.clone()).map_err(|error| DecodeError(error.to_string()))?;
        let action = match wire.action {
            Some(WireAction::Add(member)) => MembershipAction::Add { member },
            Some(WireAction::Promote(id)) => MembershipAction::Promote {
                id: MemberId::new(id),
            },
            Some(WireAction::Remove(id)) => MembershipAction::Remove {
                id: MemberId::new(id),
            },
            Some(WireAction::Update(WireUpdate { id, peer_urls })) => MembershipAction::Update {
                id: MemberId::new(id),
                peer_urls,
            },
            None => return Err(DecodeError("a kind that this build does not know".into())),
        };
        // Other changes of it are about nobody, and are refused when they are applied.
        if matches!(&action, MembershipAction::Add { member } if member.id == 0) {
            return Err(DecodeError("member 0".into()));
        }
        Ok(Self {
            request: RequestId::new(wire.request),
            action,
        })
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct Wire {
    #[prost(uint64, tag = "1")]
    request: u64,
    #[prost(oneof = "WireAction", tags = "2, 3, 4, 5")]
    action: Option<WireAction>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum WireAction {
    #[prost(message, tag = "2")]
    Add(Member),
    #[prost(uint64, tag = "3")]
    Promote(u64),
    #[prost(uint64, tag = "4")]
    Remove(u64),
    #[prost(message, tag = "5")]
    Update(WireUpdate),
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireUpdate {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, repeated, tag = "2")]
    peer_urls: Vec<String>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::members;

    fn changes() -> Vec<MembershipChange> {
        let urls = || vec!["http://a:2380".to_owned(), "http://b:2380".to_owned()];
        let id = MemberId::new(u64::MAX);
        let actions = [
            MembershipAction::Add {
                member: members::unstarted(id, urls()),
            },
            MembershipAction::Promote { id },
            MembershipAction::Remove { id },
            MembershipAction::Update {
                id,
                peer_urls: urls(),
            },
            MembershipAction::Update {
                id,
                peer_urls: Vec::new(),
            },
        ];
        let change = |action| MembershipChange {
            request: RequestId::new(0x8000_0000_0000_0001),
            action,
        };
        actions.map(change).into()
    }

    #[test]
    fn changes_survive_the_log() {
        for change in changes() {
            assert_eq!(MembershipChange::decode(&change.encode()), Ok(change));
        }
    }

    #[test]
    fn what_is_no_change_is_refused() {
        let add_0 = MembershipChange {
            request: RequestId::new(1),
            action: MembershipAction::Add {
                member: Member::default(),
            },
        };
        let mut long = changes().remove(3);
        if let MembershipAction::Update { peer_urls, .. } = &mut long.action {
            peer_urls.push("u".repeat(MAX_CHANGE_BYTES));
        }
        for (bytes, why) in [
            (Bytes::new(), "a kind that this build does not know"),
            (Bytes::from_static(b"\x08\x01"), "a kind that"),
            (Bytes::from_static(b"\x08\x01\x52\x00"), "a kind that"),
            (Bytes::from_static(b"\xff"), ""),
            (add_0.encode(), "member 0"),
            (long.encode(), "bytes, 65536 are the most"),
        ] {
            let error = MembershipChange::decode(&bytes).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = MembershipChange::decode(&bytes.into());
        }
    }
}
