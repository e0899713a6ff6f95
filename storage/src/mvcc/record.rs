//! The record of a change: an encoded `mvccpb.KeyValue`, the same bytes in memory, in the page file
//! and inside responses, so that reading a pair needs no re-encoding and hashes agree with etcd's.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use ferrite_api::pb::mvccpb::KeyValue;
use ferrite_api::types::Revision;
use prost::Message;

use crate::error::Error;

/// Encodes the record of a put.
pub(crate) fn put(kv: &KeyValue) -> Bytes {
    let mut buffer = BytesMut::with_capacity(kv.encoded_len());
    kv.encode(&mut buffer)
        .expect("the buffer has exactly the encoded length");
    buffer.freeze()
}

/// Encodes the record of a deletion: the key and nothing else.
pub(crate) fn tombstone(key: Bytes) -> Bytes {
    put(&KeyValue {
        key,
        ..KeyValue::default()
    })
}

/// Decodes a record; the key and the value are slices of it.
///
/// # Errors
/// [`Error::Corrupt`] naming the revision: records are checked by CRC before they come here, so
/// bytes that do not decode were wrong when they were written.
pub fn decode(revision: Revision, record: &Bytes) -> Result<KeyValue, Error> {
    KeyValue::decode(record.clone()).map_err(|error| Error::Corrupt {
        what: format!("record of revision {revision} does not decode: {error}"),
    })
}

/// What the index needs of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head<'r> {
    /// The key.
    pub key: Cow<'r, [u8]>,
    /// `create_revision`.
    pub created: i64,
    /// `version`.
    pub version: i64,
    /// The lease that the key is attached to; 0 for none.
    pub lease: i64,
}

/// Reads the head of a record, without a copy and without touching the value: a start decodes every
/// record there is.
///
/// # Errors
/// As [`decode`], for the same bytes.
pub fn head(revision: Revision, record: &[u8]) -> Result<Head<'_>, Error> {
    if let Some(head) = usual_head(record) {
        return Ok(head);
    }
    // Not as we write it. The decoder of messages says what it is.
    let kv = decode(revision, &Bytes::copy_from_slice(record))?;
    Ok(Head {
        key: Cow::Owned(kv.key.into()),
        created: kv.create_revision,
        version: kv.version,
        lease: kv.lease,
    })
}

/// The head of a record that has no fields but those of a `KeyValue`, with tags of one byte.
fn usual_head(record: &[u8]) -> Option<Head<'_>> {
    const KEY: u8 = 1 << 3 | LEN;
    const CREATE_REVISION: u8 = 2 << 3;
    const MOD_REVISION: u8 = 3 << 3;
    const VERSION: u8 = 4 << 3;
    const VALUE: u8 = 5 << 3 | LEN;
    const LEASE: u8 = 6 << 3;
    /// The wire type of fields with a length; that of varints is 0.
    const LEN: u8 = 2;

    let mut head = Head {
        key: Cow::Borrowed(&[]),
        created: 0,
        version: 0,
        lease: 0,
    };
    let mut rest = record;
    while let [tag, after @ ..] = rest {
        let (number, after) = varint(after)?;
        rest = after;
        match *tag {
            KEY | VALUE => {
                let (bytes, after) = rest.split_at_checked(usize::try_from(number).ok()?)?;
                rest = after;
                if *tag == KEY {
                    head.key = Cow::Borrowed(bytes);
                }
            }
            CREATE_REVISION => head.created = number.cast_signed(),
            MOD_REVISION => {}
            VERSION => head.version = number.cast_signed(),
            LEASE => head.lease = number.cast_signed(),
            _ => return None,
        }
    }
    Some(head)
}

/// The varint at the beginning of `bytes`, and what follows it; `None` if there is none of 64 bits.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if *byte < 0x80 {
            // The tenth byte has room for one bit.
            return (at < 9 || *byte < 2).then(|| (value, &bytes[at + 1..]));
        }
    }
    None
}

/// Appends a record to an encoded message as an element of a repeated field.
pub fn append_field(tag: u8, record: &[u8], out: &mut impl BufMut) {
    out.put_u8(tag);
    prost::encoding::encode_varint(record.len() as u64, out);
    out.put_slice(record);
}

/// Bytes that [`append_field`] takes for a record of `len` bytes.
pub(crate) fn field_len(len: usize) -> usize {
    1 + prost::length_delimiter_len(len) + len
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn round_trip_and_tombstone() {
        let kv = KeyValue {
            key: Bytes::from_static(b"k"),
            create_revision: 2,
            mod_revision: 3,
            version: 2,
            value: Bytes::from_static(b"v"),
            lease: 0,
        };
        let record = put(&kv);
        assert_eq!(decode(Revision::new(3, 0), &record).unwrap(), kv);
        assert_eq!(&tombstone(Bytes::from_static(b"k"))[..], b"\x0a\x01k");
        assert!(decode(Revision::new(3, 0), &Bytes::from_static(b"\xff")).is_err());
    }

    /// [`head`] against the decoder of messages.
    fn check_head(record: &[u8]) {
        let revision = Revision::new(3, 0);
        let decoded = decode(revision, &Bytes::copy_from_slice(record));
        let head = head(revision, record);
        match decoded {
            Ok(kv) => {
                let expected = Head {
                    key: Cow::Borrowed(&kv.key),
                    created: kv.create_revision,
                    version: kv.version,
                    lease: kv.lease,
                };
                assert_eq!(head.unwrap(), expected, "{record:02x?}");
            }
            Err(error) => {
                let text = head.unwrap_err().to_string();
                assert_eq!(text, error.to_string(), "{record:02x?}");
            }
        }
    }

    fn any_record() -> impl Strategy<Value = Vec<u8>> {
        let number = || prop_oneof![Just(0), Just(-1), 0i64..300, any::<i64>()];
        let bytes = || prop::collection::vec(any::<u8>(), 0..200);
        (bytes(), bytes(), number(), number(), number(), number()).prop_map(
            |(key, value, create_revision, mod_revision, version, lease)| {
                KeyValue {
                    key: key.into(),
                    value: value.into(),
                    create_revision,
                    mod_revision,
                    version,
                    lease,
                }
                .encode_to_vec()
            },
        )
    }

    #[test]
    fn odd_records_have_the_head_that_the_decoder_sees() {
        for record in [
            &b""[..],
            // Fields that come twice, the last one counts; an unknown field; a group; a long tag.
            b"\x0a\x01a\x10\x05\x0a\x02bc\x10\x07",
            b"\x0a\x01k\x7a\x01x\x20\x02",
            b"\x0a\x01k\x3b\x3c\x20\x02",
            b"\x8a\x00\x01k\x30\x09",
            b"\x7a\x00",
            // A wrong wire type, a length beyond the end, numbers that do not end or fit.
            b"\x08\x01",
            b"\x0a\x05abc",
            b"\x10",
            b"\x10\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
            b"\x10\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02",
            b"\x10\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01k",
        ] {
            check_head(record);
        }
    }

    proptest! {
        #[test]
        fn heads_are_those_that_the_decoder_sees(
            record in any_record(),
            cut in any::<prop::sample::Index>(),
            flip in any::<prop::sample::Index>(),
            tail in any_record(),
        ) {
            check_head(&record);
            check_head(&record[..cut.index(record.len() + 1)]);
            check_head(&[&record[..], &tail].concat());
            if !record.is_empty() {
                let mut flipped = record.clone();
                let bit = flip.index(record.len() * 8);
                flipped[bit / 8] ^= 1 << (bit % 8);
                check_head(&flipped);
            }
        }

        #[test]
        fn hostile_bytes_have_the_head_that_the_decoder_sees(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0u8..0x40], 0..60),
        ) {
            check_head(&bytes);
        }
    }
}
