//! The answer to Range as bytes of the wire. Its pairs come encoded, so the message is put together
//! piece by piece while HTTP/2 flow control takes it; a long answer never exists as a whole, and a
//! large value is passed on, not copied.

use std::vec;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};

use super::message::PREFIX;
use super::reply::{MAX_SENT, put_prefix};
use crate::handle::RangeReply;

/// A pair at least this long becomes a piece of its own instead of being copied, in bytes.
const PASS_ON: usize = 4 * 1024;

/// Pieces are about this long, in bytes, a large pair aside.
const PIECE: usize = 32 * 1024;

/// Most bytes of a tag and a length below 2^31.
const MAX_TAG: usize = 6;

/// Key bytes of `etcdserverpb.RangeResponse`.
const HEADER: u8 = 0x0a;
const KVS: u8 = 0x12;
const MORE: u8 = 0x18;
const COUNT: u8 = 0x20;

/// One Range answer with its length prefix, in pieces. The pieces together are exactly the encoding
/// of the `RangeResponse`.
#[derive(Debug)]
pub(super) struct RangeChunks {
    /// Prefix and header, before the first piece.
    head: Option<BytesMut>,
    kvs: vec::IntoIter<Bytes>,
    /// A pair whose tag and length went out with the previous piece.
    passed_on: Option<Bytes>,
    /// `more` and `count`, until they went out.
    tail: Option<BytesMut>,
    message_len: usize,
    single: bool,
}

impl RangeChunks {
    pub(super) fn new(reply: RangeReply) -> Self {
        let mut tail = BytesMut::with_capacity(16);
        if reply.more {
            tail.put_slice(&[MORE, 1]);
        }
        if reply.count != 0 {
            tail.put_u8(COUNT);
            encode_varint(reply.count.cast_unsigned(), &mut tail);
        }
        let header_len = reply.header.encoded_len();
        let mut message_len = 1 + encoded_len_varint(header_len as u64) + header_len + tail.len();
        let mut longest = 0;
        for kv in &reply.kvs {
            message_len += 1 + encoded_len_varint(kv.len() as u64) + kv.len();
            longest = longest.max(kv.len());
        }
        let single = message_len <= PIECE && longest < PASS_ON;
        // `upcoming` counts the longest tags: room for them keeps a short answer one allocation.
        let tags = MAX_TAG * (reply.kvs.len() + 1);
        let capacity = if single {
            message_len + tags
        } else {
            header_len + MAX_TAG
        };
        let mut head = BytesMut::with_capacity(PREFIX + capacity);
        put_prefix(&mut head, 0, message_len.min(MAX_SENT));
        put_tag(&mut head, HEADER, header_len);
        reply.header.encode_raw(&mut head);
        Self {
            head: Some(head),
            kvs: reply.kvs.into_iter(),
            passed_on: None,
            tail: Some(tail),
            message_len,
            single,
        }
    }

    /// Length of the whole message without its prefix, in bytes.
    pub(super) fn message_len(&self) -> usize {
        self.message_len
    }

    /// Whether the first piece will be all.
    pub(super) fn is_single(&self) -> bool {
        self.single
    }
}

impl Iterator for RangeChunks {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if let Some(kv) = self.passed_on.take() {
            return Some(kv);
        }
        let tail_len = self.tail.as_ref()?.len();
        let mut piece = self.head.take().unwrap_or_default();
        piece.reserve(self.upcoming() + tail_len);
        while piece.len() < PIECE {
            let Some(kv) = self.kvs.next() else {
                piece.extend_from_slice(&self.tail.take().unwrap_or_default());
                break;
            };
            put_tag(&mut piece, KVS, kv.len());
            if kv.len() >= PASS_ON {
                self.passed_on = Some(kv);
                break;
            }
            piece.extend_from_slice(&kv);
        }
        Some(piece.freeze())
    }
}

impl RangeChunks {
    /// About how many bytes of pairs the next piece will hold: never much less, so that it is
    /// allocated once, and never a whole piece for the tag of a pair that is passed on.
    fn upcoming(&self) -> usize {
        let mut length = 0;
        for kv in self.kvs.as_slice() {
            length += MAX_TAG;
            if kv.len() >= PASS_ON || length >= PIECE {
                break;
            }
            length += kv.len();
        }
        length
    }
}

fn put_tag(buf: &mut BytesMut, tag: u8, length: usize) {
    buf.put_u8(tag);
    encode_varint(length as u64, buf);
}

#[cfg(test)]
mod tests {
    use ferrite_api::pb::etcdserverpb::{RangeResponse, ResponseHeader};
    use ferrite_api::pb::mvccpb::KeyValue;
    use proptest::prelude::*;

    use super::*;

    fn kv(key: u64, value_len: usize) -> KeyValue {
        KeyValue {
            key: key.to_be_bytes().to_vec().into(),
            create_revision: 5,
            mod_revision: 6,
            version: 1,
            value: vec![b'v'; value_len].into(),
            lease: 0,
        }
    }

    /// The pieces, and the message that prost makes of the same answer.
    fn both(kvs: Vec<KeyValue>, more: bool, count: i64) -> (Vec<Bytes>, Vec<u8>) {
        let header = ResponseHeader {
            cluster_id: 1,
            member_id: u64::MAX,
            revision: 9,
            raft_term: 2,
        };
        let encoded = kvs.iter().map(|kv| kv.encode_to_vec().into()).collect();
        let reply = RangeReply {
            header,
            kvs: encoded,
            more,
            count,
        };
        let response = RangeResponse {
            header: Some(header),
            kvs,
            more,
            count,
        };
        (RangeChunks::new(reply).collect(), response.encode_to_vec())
    }

    fn check(kvs: Vec<KeyValue>, more: bool, count: i64) -> usize {
        let (pieces, expected) = both(kvs, more, count);
        let got = pieces.concat();
        assert_eq!(got[0], 0);
        assert_eq!(
            got[1..PREFIX],
            u32::try_from(expected.len()).unwrap().to_be_bytes()
        );
        assert_eq!(got[PREFIX..], expected);
        pieces.len()
    }

    #[test]
    fn a_short_answer_is_one_piece_of_exact_size() {
        assert_eq!(check(vec![], false, 0), 1);
        assert_eq!(check(vec![kv(1, 256)], false, 1), 1);
        assert_eq!(check(vec![kv(1, 100), kv(2, 0)], true, i64::MAX), 1);
        assert_eq!(check(vec![], false, -1), 1);
    }

    #[test]
    fn large_values_are_passed_on() {
        let (pieces, _) = both(vec![kv(1, 100_000), kv(2, 10), kv(3, 100_000)], false, 3);
        let lengths: Vec<_> = pieces.iter().map(Bytes::len).collect();
        assert_eq!(pieces.len(), 5, "{lengths:?}");
        assert!(lengths[1] > 100_000 && lengths[3] > 100_000, "{lengths:?}");
        check(vec![kv(1, 100_000), kv(2, 10), kv(3, 100_000)], false, 3);
        assert_eq!(check(vec![kv(1, 5_000)], false, 1), 3);
    }

    #[test]
    fn pieces_of_a_long_answer_are_of_bounded_size() {
        let kvs: Vec<_> = (0..2_000).map(|key| kv(key, 300)).collect();
        let (pieces, expected) = both(kvs.clone(), true, 5_000);
        let longest = pieces.iter().map(Bytes::len).max();
        assert!(longest <= Some(PIECE + PASS_ON), "{longest:?}");
        assert!(pieces.len() <= expected.len() / PIECE + 2);
        check(kvs, true, 5_000);
    }

    proptest! {
        #[test]
        fn bytes_are_those_of_the_whole_message(
            lengths in prop::collection::vec(
                prop_oneof![4 => 0_usize..300, 1 => 3_900_usize..4_200, 1 => 30_000_usize..40_000],
                0..30,
            ),
            more in any::<bool>(),
            count in any::<i64>(),
        ) {
            let kvs = (0..).zip(lengths).map(|(key, length)| kv(key, length)).collect();
            check(kvs, more, count);
        }
    }
}
