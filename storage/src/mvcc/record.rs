//! The record of a change: an encoded `mvccpb.KeyValue`, the same bytes in memory, in the page file
//! and inside responses, so that reading a pair needs no re-encoding and hashes agree with etcd's.

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

/// Appends a record to an encoded message as an element of a repeated field.
pub fn append_field(tag: u8, record: &[u8], out: &mut impl BufMut) {
    out.put_u8(tag);
    prost::encoding::encode_varint(record.len() as u64, out);
    out.put_slice(record);
}

#[cfg(test)]
mod tests {
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
}
