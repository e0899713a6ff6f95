//! A pair of a keys-only answer: encoded from what the index knows.

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{encode_varint, encoded_len_varint};

use super::KVS;
use crate::mvcc::append_field;
use crate::mvcc::index::KeyMeta;

/// A pair as the index knows it: no value, and (a quirk of etcd 3.7 that clients see) no lease.
pub(super) struct KeyOnly<'a> {
    key: &'a [u8],
    /// The fields behind the key, in the order of their numbers.
    fields: [(u8, u64); 3],
}

impl<'a> KeyOnly<'a> {
    pub(super) fn new(key: &'a [u8], meta: &KeyMeta) -> Self {
        // Varints of field 2 to 4.
        let fields = [
            (0x10, meta.created),
            (0x18, meta.modified.main),
            (0x20, meta.version),
        ];
        let fields = fields.map(|(tag, value)| (tag, value.cast_unsigned()));
        Self { key, fields }
    }

    /// The length of the encoding.
    fn len(&self) -> usize {
        let key = encoded_len_varint(self.key.len() as u64) + self.key.len();
        let fields = self.fields.iter().filter(|(_, value)| *value != 0);
        1 + key
            + fields
                .map(|(_, value)| 1 + encoded_len_varint(*value))
                .sum::<usize>()
    }

    /// The bytes that it takes as an element of a repeated field.
    pub(super) fn framed_len(&self) -> u64 {
        let len = self.len();
        (1 + encoded_len_varint(len as u64) + len) as u64
    }

    /// Appends it as an element of the repeated field `kvs`.
    pub(super) fn append_to(&self, out: &mut impl BufMut) {
        out.put_u8(KVS);
        encode_varint(self.len() as u64, out);
        self.put(out);
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.len());
        self.put(&mut out);
        out.freeze()
    }

    fn put(&self, out: &mut impl BufMut) {
        // Keys are not empty.
        append_field(0x0a, self.key, out);
        for (tag, value) in self.fields.iter().filter(|(_, value)| *value != 0) {
            out.put_u8(*tag);
            encode_varint(*value, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use ferrite_api::pb::mvccpb::KeyValue;
    use ferrite_api::types::Revision;
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    proptest! {
        #[test]
        fn a_pair_without_value_is_as_prost_writes_it(
            key in prop::collection::vec(any::<u8>(), 1..300),
            numbers in any::<[i64; 3]>(),
            shift in 0_u32..64,
        ) {
            let [created, main, version] = numbers.map(|number| number >> shift);
            let meta = KeyMeta {
                modified: Revision::new(main, 1),
                created,
                version,
                record_len: 0,
            };
            let kv = KeyValue {
                key: key.clone().into(),
                create_revision: created,
                mod_revision: main,
                version,
                ..KeyValue::default()
            };
            let pair = KeyOnly::new(&key, &meta);
            prop_assert_eq!(pair.encode(), kv.encode_to_vec());
            let (mut framed, mut expected) = (BytesMut::new(), BytesMut::new());
            pair.append_to(&mut framed);
            append_field(KVS, &kv.encode_to_vec(), &mut expected);
            prop_assert_eq!(pair.framed_len(), framed.len() as u64);
            prop_assert_eq!(framed, expected);
        }
    }
}
