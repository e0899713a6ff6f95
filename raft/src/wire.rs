//! Peer messages: bytes in, a message that raft-rs survives out.
//!
//! raft-rs trusts its peers: several contents that no correct peer sends make it panic. A peer must
//! never be able to stop this member, so everything that can be checked without raft's state is
//! checked here, and the rest in [`Driver::step`](crate::Driver::step). What is checked, and what
//! raft-rs 0.7 would do otherwise:
//!
//! | Check | Without it |
//! |---|---|
//! | no protobuf groups anywhere | rust-protobuf 2 skips nested unknown groups recursively: stack overflow |
//! | a type that peers may send | forwarded `MsgTransferLeader`: panic on its term; `MsgPropose`, `MsgReadIndex`, `MsgReadIndexResp`: never used by Ferrite, a response of term 0 panics, a foreign read context confirms stale reads (etcd #20418) |
//! | term not 0 | raft takes it for a local message, without any check of terms |
//! | numbers at most 2^62 | `term + 1`, `index + 1` overflow |
//! | no priority, which Ferrite does not use | a member of term 0 that rejects a pre-vote because of it: panic |
//! | appends: entries follow `index` without a gap, terms rise from `log_term` to at most `term` | slice out of range, conflict with a committed entry |
//! | appends: `log_term` is 0 only at index 0 | raft-rs reads the term of an index beyond its log as 0: the append matches, and panics |
//! | snapshots: see `Snapshot::check` | panic on a configuration that contradicts itself |
//! | entries: at most [`MAX_ENTRY_BYTES`], configuration changes decode | cannot be written to the WAL; panic when applied |

use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};

use crate::conf::ConfChange;
use crate::error::StepError;
use crate::log::{MAX_ENTRY_BYTES, MAX_NUMBER};

/// Nesting of a raft message: message, snapshot, metadata, configuration.
const MAX_DEPTH: usize = 4;

/// Encodes a message for its receiver.
pub(crate) fn encode(message: &Message) -> Bytes {
    let bytes = message.write_to_bytes();
    Bytes::from(bytes.expect("a proto3 message always encodes into memory"))
}

/// Decodes a message and makes all checks of the [module](self). Entries share the memory of
/// `bytes`.
pub(crate) fn decode(bytes: &Bytes, to: u64) -> Result<Message, StepError> {
    refuse_groups(bytes).map_err(StepError::Malformed)?;
    let message = Message::parse_from_carllerche_bytes(bytes)
        .map_err(|error| StepError::Malformed(error.to_string()))?;
    check(&message, to)?;
    Ok(message)
}

/// The type's name, for errors.
pub(crate) fn kind(message: &Message) -> &'static str {
    match message.get_msg_type() {
        MessageType::MsgHup => "MsgHup",
        MessageType::MsgBeat => "MsgBeat",
        MessageType::MsgPropose => "MsgPropose",
        MessageType::MsgAppend => "MsgAppend",
        MessageType::MsgAppendResponse => "MsgAppendResponse",
        MessageType::MsgRequestVote => "MsgRequestVote",
        MessageType::MsgRequestVoteResponse => "MsgRequestVoteResponse",
        MessageType::MsgSnapshot => "MsgSnapshot",
        MessageType::MsgHeartbeat => "MsgHeartbeat",
        MessageType::MsgHeartbeatResponse => "MsgHeartbeatResponse",
        MessageType::MsgUnreachable => "MsgUnreachable",
        MessageType::MsgSnapStatus => "MsgSnapStatus",
        MessageType::MsgCheckQuorum => "MsgCheckQuorum",
        MessageType::MsgTransferLeader => "MsgTransferLeader",
        MessageType::MsgTimeoutNow => "MsgTimeoutNow",
        MessageType::MsgReadIndex => "MsgReadIndex",
        MessageType::MsgReadIndexResp => "MsgReadIndexResp",
        MessageType::MsgRequestPreVote => "MsgRequestPreVote",
        MessageType::MsgRequestPreVoteResponse => "MsgRequestPreVoteResponse",
    }
}

fn check(message: &Message, to: u64) -> Result<(), StepError> {
    let invalid = |what, value| {
        Err(StepError::Invalid {
            kind: kind(message),
            from: message.from,
            what,
            value,
        })
    };
    let appends = match message.get_msg_type() {
        MessageType::MsgAppend => true,
        MessageType::MsgAppendResponse
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse
        | MessageType::MsgHeartbeat
        | MessageType::MsgHeartbeatResponse
        | MessageType::MsgTimeoutNow
        | MessageType::MsgSnapshot => false,
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgPropose
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgTransferLeader
        | MessageType::MsgReadIndex
        | MessageType::MsgReadIndexResp => return Err(StepError::Kind(kind(message))),
    };
    if message.to != to {
        return invalid("receiver", message.to);
    }
    if message.from == 0 || message.from == to {
        return invalid("sender", message.from);
    }
    if message.term == 0 {
        return invalid("term", 0);
    }
    for (what, value) in [
        ("term", message.term),
        ("log term", message.log_term),
        ("index", message.index),
        ("commit", message.commit),
        ("commit term", message.commit_term),
        ("reject hint", message.reject_hint),
        ("requested snapshot", message.request_snapshot),
    ] {
        if value > MAX_NUMBER {
            return invalid(what, value);
        }
    }
    if message.priority != 0 || message.deprecated_priority != 0 {
        return invalid(
            "priority",
            message
                .deprecated_priority
                .max(message.priority.unsigned_abs()),
        );
    }
    if appends {
        return check_append(message);
    }
    if !message.entries.is_empty() {
        return invalid("number of entries", message.entries.len() as u64);
    }
    Ok(())
}

fn check_append(message: &Message) -> Result<(), StepError> {
    let invalid = |what, value| {
        Err(StepError::Invalid {
            kind: kind(message),
            from: message.from,
            what,
            value,
        })
    };
    if (message.log_term == 0) != (message.index == 0) || message.log_term > message.term {
        return invalid("log term", message.log_term);
    }
    let mut before = message.log_term;
    for (index, entry) in (message.index + 1..).zip(message.entries.iter()) {
        if entry.index != index {
            return invalid("index of an entry", entry.index);
        }
        if entry.term == 0 || entry.term < before || entry.term > message.term {
            return invalid("term of an entry", entry.term);
        }
        before = entry.term;
        check_entry(entry).map_err(StepError::Malformed)?;
    }
    Ok(())
}

fn check_entry(entry: &Entry) -> Result<(), String> {
    let bytes = entry.data.len().saturating_add(entry.context.len());
    if bytes > MAX_ENTRY_BYTES {
        return Err(format!("entry {} of {bytes} bytes", entry.index));
    }
    if entry.entry_type != EntryType::EntryNormal {
        ConfChange::decode(entry)?;
    }
    Ok(())
}

/// Refuses encoded messages that hold groups, which proto3 does not have, at any depth that a raft
/// message has. Everything else is left to the decoder.
pub(crate) fn refuse_groups(bytes: &[u8]) -> Result<(), String> {
    scan(bytes, MAX_DEPTH)
}

fn scan(mut bytes: &[u8], depth: usize) -> Result<(), String> {
    const VARINT: u64 = 0;
    const FIXED64: u64 = 1;
    const LENGTH: u64 = 2;
    const FIXED32: u64 = 5;
    while !bytes.is_empty() {
        let tag = varint(&mut bytes).ok_or("truncated tag")?;
        let skip = match tag & 7 {
            VARINT => {
                varint(&mut bytes).ok_or("truncated number")?;
                0
            }
            FIXED64 => 8,
            FIXED32 => 4,
            LENGTH => {
                let length = varint(&mut bytes).ok_or("truncated length")?;
                usize::try_from(length).map_err(|_| "length too large")?
            }
            other => return Err(format!("wire type {other}")),
        };
        let (field, rest) = bytes.split_at_checked(skip).ok_or("truncated field")?;
        // Only the fields 1 to 15 of a raft message hold messages; payloads are field 4 of an
        // entry.
        if tag & 7 == LENGTH && depth > 1 && is_message(tag >> 3, depth) {
            scan(field, depth - 1)?;
        }
        bytes = rest;
    }
    Ok(())
}

/// Whether the field of a message at this depth may be a message itself. Too many is harmless only
/// if their content cannot be payload.
fn is_message(field: u64, depth: usize) -> bool {
    match depth {
        // A message: entries and snapshot. A configuration change: changes (field 2), never a field
        // of a message.
        MAX_DEPTH => matches!(field, 2 | 7 | 9),
        // A snapshot: metadata. An entry's field 2 is a number.
        3 => field == 2,
        // Metadata: the configuration.
        2 => field == 1,
        _ => false,
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use raft::eraftpb::Snapshot;

    use super::*;

    #[test]
    fn whole_messages_pass() {
        let data = Bytes::from_static(b"\x0b\x0b\x0b");
        let mut snapshot = Snapshot {
            data,
            ..Snapshot::default()
        };
        snapshot
            .mut_metadata()
            .mut_conf_state()
            .mut_voters()
            .push(300);
        snapshot.mut_metadata().index = 1 << 40;
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgSnapshot);
        (message.from, message.to, message.term) = (2, 1, 7);
        message.set_snapshot(snapshot);
        message.context = Bytes::from_static(b"\x0b");
        assert_eq!(decode(&encode(&message), 1), Ok(message));
    }

    /// Payloads are the clients' bytes and may look like anything.
    #[test]
    fn the_payload_of_an_entry_is_not_looked_at() {
        let mut entry = Entry::default();
        (entry.index, entry.term) = (1, 1);
        entry.data = Bytes::from(vec![0x0b; 1000]);
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgAppend);
        (message.from, message.to, message.term) = (2, 1, 1);
        message.set_entries(vec![entry].into());
        let bytes = encode(&message);
        let decoded = decode(&bytes, 1).unwrap();
        assert_eq!(decoded, message);
        let data = decoded.entries[0].data.as_ptr_range();
        assert!(bytes.as_ptr_range().contains(&data.start), "copied");
    }

    proptest! {
        #[test]
        fn the_scan_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _refused = refuse_groups(&bytes);
            let _refused = decode(&bytes.into(), 1);
        }
    }
}
