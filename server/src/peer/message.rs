//! What members say to each other, beside snapshots.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ferrite_api::Version;
use ferrite_api::types::RequestId;

/// A message from one member to another. It is delivered at most once; it may be lost, and arrive
/// after one that was sent later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Consensus; opaque here.
    Raft(Bytes),
    /// Proposals of a member that does not lead, for the log of the leader of that term and nobody
    /// else's.
    Propose {
        /// The term.
        term: u64,
        /// The proposals.
        proposals: Vec<Forwarded>,
    },
    /// These proposals did not enter the log of that term, and never will by the message that brought
    /// them.
    Refused {
        /// The term: the proposals may be on their way to the log of another one by now.
        term: u64,
        /// The proposals.
        ids: Vec<RequestId>,
    },
    /// About linearizable reads.
    Read(ReadMessage),
    /// The leader asks which version the program of a member is of. The number is the leader's own.
    VersionQuestion {
        /// Comes back with the answer.
        number: u64,
    },
    /// The answer.
    VersionAnswer {
        /// As asked.
        number: u64,
        /// The version.
        version: Version,
    },
}

/// What members say to each other about linearizable reads. Numbers are the asker's own, and come
/// back with the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadMessage {
    /// Asks the leader for a read index.
    Index {
        /// The asker's.
        number: u64,
    },
    /// The answer.
    IndexAnswer {
        /// As asked.
        number: u64,
        /// The index; `None` if the asked member does not lead, or not any more.
        index: Option<u64>,
    },
    /// The leader of a term asks whether the other one knows of a later term. If it does, it does not
    /// answer.
    Confirm {
        /// The term.
        term: u64,
        /// The leader's.
        number: u64,
    },
    /// The sender knew of no later term when it was asked.
    Confirmed {
        /// As asked.
        term: u64,
        /// As asked.
        number: u64,
    },
}

/// A forwarded proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// The id in its header.
    pub id: RequestId,
    /// Whether it changes the membership.
    pub changes_members: bool,
    /// The entry.
    pub payload: Bytes,
}

/// Why bytes are no [`Message`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed message from a peer: {0}")]
pub struct Malformed(pub(super) &'static str);

const RAFT: u8 = 1;
const PROPOSE: u8 = 2;
const REFUSED: u8 = 3;
const READ_INDEX: u8 = 4;
const READ_INDEX_ANSWER: u8 = 5;
const CONFIRM: u8 = 6;
const CONFIRMED: u8 = 7;
const VERSION_QUESTION: u8 = 8;
const VERSION_ANSWER: u8 = 9;

/// Bytes of a forwarded proposal beside its payload.
const FORWARDED_BYTES: usize = 8 + 1 + 4;

impl Message {
    /// Appends the message's bytes: one for the kind, then its fields, little-endian.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Message::Raft(bytes) => {
                out.put_u8(RAFT);
                out.put_slice(bytes);
            }
            Message::Propose { term, proposals } => {
                out.put_u8(PROPOSE);
                out.put_u64_le(*term);
                for proposal in proposals {
                    out.put_u64_le(proposal.id.get());
                    out.put_u8(u8::from(proposal.changes_members));
                    let length = u32::try_from(proposal.payload.len());
                    out.put_u32_le(length.expect("a proposal fits into a log entry"));
                    out.put_slice(&proposal.payload);
                }
            }
            Message::Refused { term, ids } => {
                out.put_u8(REFUSED);
                out.put_u64_le(*term);
                ids.iter().for_each(|id| out.put_u64_le(id.get()));
            }
            Message::Read(message) => message.encode(out),
            Message::VersionQuestion { number } => {
                out.put_u8(VERSION_QUESTION);
                out.put_u64_le(*number);
            }
            Message::VersionAnswer { number, version } => {
                out.put_u8(VERSION_ANSWER);
                out.put_u64_le(*number);
                out.put_u64_le(version.major);
                out.put_u64_le(version.minor);
                out.put_u64_le(version.patch);
            }
        }
    }

    /// How many bytes [`Message::encode`] appends.
    pub fn encoded_len(&self) -> usize {
        1 + match self {
            Message::Raft(bytes) => bytes.len(),
            Message::Propose { proposals, .. } => {
                let lengths = proposals
                    .iter()
                    .map(|proposal| FORWARDED_BYTES + proposal.payload.len());
                8 + lengths.sum::<usize>()
            }
            Message::Refused { ids, .. } => 8 + 8 * ids.len(),
            Message::Read(ReadMessage::Index { .. }) | Message::VersionQuestion { .. } => 8,
            Message::Read(_) => 16,
            Message::VersionAnswer { .. } => 32,
        }
    }

    /// The message in `bytes`; payloads share them.
    ///
    /// # Errors
    /// They are none.
    pub fn decode(mut bytes: Bytes) -> Result<Self, Malformed> {
        let short = |_| Malformed("it ends early");
        let kind = bytes.try_get_u8().map_err(short)?;
        let message = match kind {
            RAFT => return Ok(Message::Raft(bytes)),
            PROPOSE => {
                let term = bytes.try_get_u64_le().map_err(short)?;
                let mut proposals = Vec::new();
                while !bytes.is_empty() {
                    let id = RequestId::new(bytes.try_get_u64_le().map_err(short)?);
                    let changes_members = bytes.try_get_u8().map_err(short)? != 0;
                    let length = bytes.try_get_u32_le().map_err(short)? as usize;
                    if length > bytes.len() {
                        return Err(Malformed("a proposal is longer than its message"));
                    }
                    proposals.push(Forwarded {
                        id,
                        changes_members,
                        payload: bytes.split_to(length),
                    });
                }
                Message::Propose { term, proposals }
            }
            REFUSED => {
                let term = bytes.try_get_u64_le().map_err(short)?;
                let mut ids = Vec::new();
                while !bytes.is_empty() {
                    ids.push(RequestId::new(bytes.try_get_u64_le().map_err(short)?));
                }
                Message::Refused { term, ids }
            }
            READ_INDEX => Message::Read(ReadMessage::Index {
                number: bytes.try_get_u64_le().map_err(short)?,
            }),
            READ_INDEX_ANSWER | CONFIRM | CONFIRMED => {
                let first = bytes.try_get_u64_le().map_err(short)?;
                let second = bytes.try_get_u64_le().map_err(short)?;
                Message::Read(match kind {
                    READ_INDEX_ANSWER => ReadMessage::IndexAnswer {
                        number: first,
                        index: Some(second).filter(|index| *index != 0),
                    },
                    CONFIRM => ReadMessage::Confirm {
                        term: first,
                        number: second,
                    },
                    _ => ReadMessage::Confirmed {
                        term: first,
                        number: second,
                    },
                })
            }
            VERSION_QUESTION => Message::VersionQuestion {
                number: bytes.try_get_u64_le().map_err(short)?,
            },
            VERSION_ANSWER => Message::VersionAnswer {
                number: bytes.try_get_u64_le().map_err(short)?,
                version: Version {
                    major: bytes.try_get_u64_le().map_err(short)?,
                    minor: bytes.try_get_u64_le().map_err(short)?,
                    patch: bytes.try_get_u64_le().map_err(short)?,
                },
            },
            _ => return Err(Malformed("its kind is not known")),
        };
        if !bytes.is_empty() {
            return Err(Malformed("it goes on after its end"));
        }
        Ok(message)
    }
}

impl ReadMessage {
    fn encode(self, out: &mut BytesMut) {
        let (kind, first, second) = match self {
            ReadMessage::Index { number } => {
                out.put_u8(READ_INDEX);
                out.put_u64_le(number);
                return;
            }
            // Raft indexes begin at 1.
            ReadMessage::IndexAnswer { number, index } => {
                (READ_INDEX_ANSWER, number, index.unwrap_or(0))
            }
            ReadMessage::Confirm { term, number } => (CONFIRM, term, number),
            ReadMessage::Confirmed { term, number } => (CONFIRMED, term, number),
        };
        out.put_u8(kind);
        out.put_u64_le(first);
        out.put_u64_le(second);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn forwarded() -> impl Strategy<Value = Forwarded> {
        let payload = prop::collection::vec(any::<u8>(), 0..50);
        (any::<u64>(), any::<bool>(), payload).prop_map(|(id, changes_members, payload)| {
            Forwarded {
                id: RequestId::new(id),
                changes_members,
                payload: payload.into(),
            }
        })
    }

    fn read_message() -> impl Strategy<Value = ReadMessage> {
        prop_oneof![
            any::<u64>().prop_map(|number| ReadMessage::Index { number }),
            (any::<u64>(), prop::option::of(1..u64::MAX))
                .prop_map(|(number, index)| ReadMessage::IndexAnswer { number, index }),
            (any::<u64>(), any::<u64>())
                .prop_map(|(term, number)| ReadMessage::Confirm { term, number }),
            (any::<u64>(), any::<u64>())
                .prop_map(|(term, number)| ReadMessage::Confirmed { term, number }),
        ]
    }

    fn message() -> impl Strategy<Value = Message> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..50).prop_map(|bytes| Message::Raft(bytes.into())),
            (any::<u64>(), prop::collection::vec(forwarded(), 0..5))
                .prop_map(|(term, proposals)| Message::Propose { term, proposals }),
            (
                any::<u64>(),
                prop::collection::vec(any::<u64>().prop_map(RequestId::new), 0..5)
            )
                .prop_map(|(term, ids)| Message::Refused { term, ids }),
            read_message().prop_map(Message::Read),
            any::<u64>().prop_map(|number| Message::VersionQuestion { number }),
            any::<[u64; 4]>().prop_map(|[number, major, minor, patch]| Message::VersionAnswer {
                number,
                version: Version::new(major, minor, patch),
            }),
        ]
    }

    proptest! {
        #[test]
        fn messages_survive_the_wire(message in message()) {
            let mut bytes = BytesMut::new();
            message.encode(&mut bytes);
            prop_assert_eq!(bytes.len(), message.encoded_len());
            prop_assert_eq!(Message::decode(bytes.freeze()), Ok(message));
        }

        #[test]
        fn whatever_comes_decodes_or_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _refused = Message::decode(bytes.into());
        }
    }
}
