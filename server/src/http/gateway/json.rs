//! Messages and their JSON form (spec/wire.md sections 7.1 and 7.2), from descriptors.
//!
//! What the library does by itself is what etcd's gateway does: names in both spellings, 64-bit
//! integers as strings or numbers, both alphabets of base64 with padding or without, `null` as absent.
//! It is more lenient than etcd's where no client looks: a field that is given twice counts as given
//! last, base64 may have a part of its padding, a number in a string may have a plus; and stricter: no
//! line breaks in base64, no exponents in strings.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::DecodeError;
use prost::Message;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};

/// Unknown fields and unknown names of enum values are ignored.
const READ: DeserializeOptions = DeserializeOptions::new().deny_unknown_fields(false);

/// Names as in the .proto files; zero values are left out.
const WRITE: SerializeOptions = SerializeOptions::new().use_proto_field_name(true);

/// The message that a JSON value means.
///
/// # Errors
/// The value is no JSON, or not this message.
pub(super) fn to_message(
    kind: &MessageDescriptor,
    json: &[u8],
) -> Result<DynamicMessage, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let message = DynamicMessage::deserialize_with_options(kind.clone(), &mut reader, &READ)?;
    reader.end()?;
    Ok(message)
}

/// An encoded message as JSON.
///
/// # Errors
/// It is not this message.
pub(super) fn from_message(
    kind: &MessageDescriptor,
    message: impl Buf,
) -> Result<Vec<u8>, DecodeError> {
    let message = DynamicMessage::decode(kind.clone(), message)?;
    let mut json = serde_json::Serializer::new(Vec::new());
    message
        .serialize_with_options(&mut json, &WRITE)
        .expect("a message has no keys that JSON cannot have, and a vector takes all");
    Ok(json.into_inner())
}

/// The message with the prefix that gRPC has before it.
pub(super) fn framed(message: &DynamicMessage) -> Bytes {
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(5 + length);
    framed.put_u8(0);
    // Longer ones are refused before: JSON is bounded.
    framed.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode_raw(&mut framed);
    framed.freeze()
}

#[cfg(test)]
mod tests {
    use ferrite_api::pb::etcdserverpb as pb;
    use ferrite_api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
    use ferrite_api::pb::etcdserverpb::request_op::Request;
    use ferrite_api::pb::etcdserverpb::response_op::Response;

    use super::*;
    use crate::http::gateway::routes;

    fn read<M: Message + Default>(name: &str, json: &str) -> Result<M, String> {
        let message = to_message(&routes::message(name), json.as_bytes());
        let message = message.map_err(|error| error.to_string())?;
        Ok(M::decode(&message.encode_to_vec()[..]).unwrap())
    }

    fn range(json: &str) -> Result<pb::RangeRequest, String> {
        read("etcdserverpb.RangeRequest", json)
    }

    fn write(name: &str, message: &impl Message) -> String {
        let json = from_message(&routes::message(name), &message.encode_to_vec()[..]);
        String::from_utf8(json.unwrap()).unwrap()
    }

    #[test]
    fn g7_1_both_spellings_and_every_form_of_a_number() {
        let expected = pb::RangeRequest {
            key: "a".into(),
            range_end: vec![0xff, 0xef].into(),
            limit: 7,
            revision: -3,
            sort_order: pb::range_request::SortOrder::Descend.into(),
            sort_target: pb::range_request::SortTarget::Mod.into(),
            keys_only: true,
            min_mod_revision: i64::MAX,
            ..Default::default()
        };
        for json in [
            r#"{"key":"YQ==","range_end":"/+8=","limit":7,"revision":-3,"sort_order":"DESCEND",
                "sort_target":"MOD","keys_only":true,"min_mod_revision":"9223372036854775807"}"#,
            r#"{"key":"YQ","rangeEnd":"_-8","limit":"7","revision":"-3","sortOrder":2,
                "sortTarget":3,"keysOnly":true,"minModRevision":9223372036854775807}"#,
        ] {
            assert_eq!(range(json).as_ref(), Ok(&expected), "{json}");
        }
        let member: pb::MemberRemoveRequest = read(
            "etcdserverpb.MemberRemoveRequest",
            r#"{"ID":"18446744073709551615"}"#,
        )
        .unwrap();
        assert_eq!(member.id, u64::MAX);
        let alarm: pb::AlarmRequest = read(
            "etcdserverpb.AlarmRequest",
            r#"{"memberID":5,"alarm":"CORRUPT"}"#,
        )
        .unwrap();
        assert_eq!((alarm.member_id, alarm.alarm), (5, 2));
    }

    #[test]
    fn g7_1_what_is_unknown_or_null_is_absent() {
        let empty = Ok(pb::RangeRequest::default());
        for json in [
            "{}",
            r#"{"key":null,"limit":null,"sort_order":null}"#,
            r#"{"KEY":"YQ==","nothing":[{"a":{}}]}"#,
            r#"{"sort_order":"NONSENSE"}"#,
            r#"{"sort_order":"1"}"#,
        ] {
            assert_eq!(range(json), empty, "{json}");
        }
        // A number is a value also where it has no name.
        assert_eq!(range(r#"{"sort_order":77}"#).unwrap().sort_order, 77);
    }

    #[test]
    fn g7_1_wrong_types_are_refused() {
        for json in [
            "",
            "null",
            "[]",
            "\"x\"",
            "7",
            "{",
            r#"{"key":5}"#,
            r#"{"key":"***"}"#,
            r#"{"limit":1.5}"#,
            r#"{"limit":" 1"}"#,
            r#"{"limit":9223372036854775808}"#,
            r#"{"limit":true}"#,
            r#"{"keys_only":"true"}"#,
            r#"{"keys_only":1}"#,
            r#"{"sort_order":true}"#,
            "{} {}",
        ] {
            assert!(range(json).is_err(), "{json}");
        }
        for json in [
            r#"{"success":{}}"#,
            r#"{"success":[null]}"#,
            r#"{"success":[{"request_put":{},"request_range":{}}]}"#,
        ] {
            let read = read::<pb::TxnRequest>("etcdserverpb.TxnRequest", json);
            assert!(read.is_err(), "{json}");
        }
    }

    #[test]
    fn g7_1_a_txn() {
        let json = r#"{"compare":[{"result":"GREATER","target":"CREATE","key":"YQ==","createRevision":"0"}],
            "success":[{"requestPut":{"key":"YQ==","value":"Yg=="}},{"request_txn":{"failure":[{}]}}]}"#;
        let txn: pb::TxnRequest = read("etcdserverpb.TxnRequest", json).unwrap();
        let [compare] = &txn.compare[..] else {
            panic!("{txn:?}")
        };
        assert_eq!(compare.result(), CompareResult::Greater);
        assert_eq!(compare.target(), CompareTarget::Create);
        // A zero that is given is given.
        assert_eq!(compare.target_union, Some(TargetUnion::CreateRevision(0)));
        let [put, nested] = &txn.success[..] else {
            panic!("{txn:?}")
        };
        assert!(matches!(&put.request, Some(Request::RequestPut(put)) if put.value == "b"));
        assert!(
            matches!(&nested.request, Some(Request::RequestTxn(txn)) if txn.failure.len() == 1)
        );
    }

    #[test]
    fn g7_2_responses() {
        let header = pb::ResponseHeader {
            cluster_id: u64::MAX,
            revision: 3,
            ..Default::default()
        };
        let status = pb::StatusResponse {
            header: Some(header),
            version: "3.7.1".into(),
            db_size_in_use: 5,
            is_learner: true,
            downgrade_info: Some(pb::DowngradeInfo::default()),
            ..Default::default()
        };
        assert_eq!(
            write("etcdserverpb.StatusResponse", &status),
            r#"{"header":{"cluster_id":"18446744073709551615","revision":"3"},"version":"3.7.1","dbSizeInUse":"5","isLearner":true,"downgradeInfo":{}}"#
        );
        let hash = pb::HashKvResponse {
            hash: u32::MAX,
            compact_revision: -1,
            ..Default::default()
        };
        assert_eq!(
            write("etcdserverpb.HashKVResponse", &hash),
            r#"{"hash":4294967295,"compact_revision":"-1"}"#
        );
        let grant = pb::LeaseGrantResponse {
            id: 7,
            ttl: 60,
            ..Default::default()
        };
        assert_eq!(
            write("etcdserverpb.LeaseGrantResponse", &grant),
            r#"{"ID":"7","TTL":"60"}"#
        );
        let txn = pb::TxnResponse {
            responses: vec![pb::ResponseOp {
                response: Some(Response::ResponsePut(pb::PutResponse::default())),
            }],
            ..Default::default()
        };
        assert_eq!(
            write("etcdserverpb.TxnResponse", &txn),
            r#"{"responses":[{"response_put":{}}]}"#
        );
        let alarms = pb::AlarmResponse {
            alarms: vec![pb::AlarmMember {
                member_id: 1,
                alarm: pb::AlarmType::Nospace.into(),
            }],
            ..Default::default()
        };
        assert_eq!(
            write("etcdserverpb.AlarmResponse", &alarms),
            r#"{"alarms":[{"memberID":"1","alarm":"NOSPACE"}]}"#
        );
    }

    #[test]
    fn g7_2_bytes_and_events() {
        use ferrite_api::pb::mvccpb::{Event, KeyValue, event::EventType};
        let watch = pb::WatchResponse {
            watch_id: 1,
            events: vec![Event {
                r#type: EventType::Delete.into(),
                kv: Some(KeyValue {
                    key: vec![0xff, 0xef].into(),
                    mod_revision: 2,
                    ..Default::default()
                }),
                prev_kv: None,
            }],
            ..Default::default()
        };
        assert_eq!(
            write("etcdserverpb.WatchResponse", &watch),
            r#"{"watch_id":"1","events":[{"type":"DELETE","kv":{"key":"/+8=","mod_revision":"2"}}]}"#
        );
    }
}
