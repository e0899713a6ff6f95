//! The fields of an encoded `etcdserverpb.RangeResponse` around its pairs, which come encoded from
//! the storage.

use bytes::BufMut;
use ferrite_api::pb::etcdserverpb::ResponseHeader;
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};

/// Key bytes of the fields; that of `kvs` is in the pieces.
const HEADER: u8 = 0x0a;
const MORE: u8 = 0x18;
const COUNT: u8 = 0x20;

/// Most bytes of the field `header`: 4 numbers of at most 10 bytes, each behind a key byte.
pub(crate) const MAX_HEADER: usize = 2 + 4 * 11;

/// Most bytes of the fields `more` and `count`.
pub(crate) const MAX_TAIL: usize = 2 + 11;

/// The length of the field `header`.
pub(crate) fn header_len(header: &ResponseHeader) -> usize {
    let length = header.encoded_len();
    1 + encoded_len_varint(length as u64) + length
}

/// Appends the field `header`.
pub(crate) fn put_header(header: &ResponseHeader, out: &mut impl BufMut) {
    out.put_u8(HEADER);
    encode_varint(header.encoded_len() as u64, out);
    header.encode_raw(out);
}

/// The length of the fields `more` and `count`.
pub(crate) fn tail_len(more: bool, count: i64) -> usize {
    let count = match count {
        0 => 0,
        count => 1 + encoded_len_varint(count.cast_unsigned()),
    };
    2 * usize::from(more) + count
}

/// Appends the fields `more` and `count`.
pub(crate) fn put_tail(more: bool, count: i64, out: &mut impl BufMut) {
    if more {
        out.put_slice(&[MORE, 1]);
    }
    if count != 0 {
        out.put_u8(COUNT);
        encode_varint(count.cast_unsigned(), out);
    }
}
