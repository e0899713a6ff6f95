//! RangeStream against messages that etcd 3.7.1 sent for the same puts, and against Range.

use bytes::BytesMut;
use ferrite_api::pb::mvccpb::KeyValue;
use proptest::prelude::*;

use super::*;
use crate::error::Error;
use crate::handle::range_stream::Messages;
use crate::handle::readers::PIECE;

/// Bytes of the longest value in these tests.
const LONGEST_VALUE: usize = 900_000;

/// All messages.
async fn messages(mut stream: Messages) -> Result<Vec<Bytes>, Error> {
    let (mut messages, mut begun) = (Vec::new(), None);
    while let Some(piece) = stream.next().await {
        let piece = piece?;
        // A single long pair is a piece by itself.
        let longest = PIECE.max(LONGEST_VALUE);
        assert!(
            piece.bytes.len() <= longest + 200,
            "{} bytes",
            piece.bytes.len()
        );
        if let Some(length) = piece.begins {
            assert_eq!(begun, None, "a message in another");
            begun = Some((length, BytesMut::with_capacity(length)));
        }
        let (length, mut message) = begun.take().expect("a message has begun");
        message.extend_from_slice(&piece.bytes);
        if message.len() == length {
            messages.push(message.freeze());
        } else {
            begun = Some((length, message));
        }
    }
    assert_eq!(begun, None, "a message that does not end");
    Ok(messages)
}

fn decode(message: &Bytes) -> pb::RangeResponse {
    let message = pb::RangeStreamResponse::decode(message.clone()).unwrap();
    message.range_response.unwrap()
}

/// Pairs in the message, its length in bytes, the CRC-32C of the bytes.
type Golden = (usize, usize, u32);

/// Keys as the puts of [`GOLDEN`] had them.
fn golden_key(number: usize) -> String {
    format!("k{number:07}")
}

/// Request (limit, keys only) and messages, after 3 puts of 5 bytes.
const SMALL: [(i64, bool, &[Golden]); 4] = [
    (0, false, &[(3, 105, 0x036d_d112)]),
    (2, false, &[(2, 82, 0xebfe_ca6a)]),
    (-1, false, &[(3, 105, 0x036d_d112)]),
    (0, true, &[(3, 84, 0x33f2_c719)]),
];

/// The same after 3000 puts of 1000 bytes.
const MANY: [(i64, bool, &[Golden]); 5] = [
    (
        0,
        false,
        &[
            (10, 10_223, 0x2c8b_c1b5),
            (20, 20_444, 0x10be_36e7),
            (40, 40_884, 0xdfd4_bf31),
            (80, 81_818, 0x39f3_82cd),
            (160, 163_844, 0xbd1f_f562),
            (320, 327_684, 0xd5ff_8257),
            (640, 655_364, 0x31aa_5c91),
            (1280, 1_310_724, 0xad70_3e23),
            (450, 460_834, 0x2175_9e62),
        ],
    ),
    (
        35,
        false,
        &[
            (10, 10_223, 0x2c8b_c1b5),
            (20, 20_444, 0x10be_36e7),
            (5, 5_145, 0xc92e_5ca7),
        ],
    ),
    (
        2999,
        false,
        &[
            (10, 10_223, 0x2c8b_c1b5),
            (20, 20_444, 0x10be_36e7),
            (40, 40_884, 0xdfd4_bf31),
            (80, 81_818, 0x39f3_82cd),
            (160, 163_844, 0xbd1f_f562),
            (320, 327_684, 0xd5ff_8257),
            (640, 655_364, 0x31aa_5c91),
            (1280, 1_310_724, 0xad70_3e23),
            (449, 459_812, 0xff2f_8462),
        ],
    ),
    (
        0,
        true,
        &[
            (10, 183, 0x8991_b7c4),
            (20, 363, 0x0fa0_d7d5),
            (40, 723, 0x9d61_49c0),
            (80, 1_497, 0xeb00_33f1),
            (160, 3_203, 0xbd62_9828),
            (320, 6_403, 0xa5bf_9d00),
            (640, 12_803, 0x92f6_495c),
            (1280, 25_604, 0x22df_54e5),
            (450, 9_033, 0xd63a_be03),
        ],
    ),
    (-1, false, &[(3000, 3_071_789, 0x54a3_6a85)]),
];

/// The same after 40 puts of 500,000 bytes.
const LARGE: [(i64, bool, &[Golden]); 1] = [(
    60,
    false,
    &[
        (10, 5_000_255, 0xa02e_8e28),
        (5, 2_500_130, 0xbcf7_e9bd),
        (5, 2_500_130, 0x3be7_3a18),
        (5, 2_500_130, 0x0814_5cd8),
        (5, 2_500_130, 0x865d_37fa),
        (5, 2_500_130, 0x6197_afdc),
        (5, 2_500_130, 0x9f9e_2351),
        (5, 5_113, 0x6a8a_9c35),
        (10, 10_223, 0xaf7e_0372),
        (5, 5_145, 0xbec4_fa02),
    ],
)];

#[tokio::test]
async fn messages_are_those_of_etcd_byte_by_byte() {
    let mut store = Store::with_ids(548_853_080_575_244_926, 5_894_895_405_749_231_597);
    store.published.set_raft(2, 0, 0, false);
    for (count, length, expected) in [
        (3, 5, &SMALL[..]),
        (3000, 1000, &MANY[..]),
        (40, 500_000, &LARGE[..]),
    ] {
        for number in 0..count {
            store.put(golden_key(number), value(number, length));
        }
        store.checkpoint();
        for (limit, keys_only, expected) in expected {
            let request = pb::RangeRequest {
                limit: *limit,
                keys_only: *keys_only,
                ..everything()
            };
            let stream = store.handle.range_stream(request).await.unwrap();
            let got: Vec<Golden> = messages(stream)
                .await
                .unwrap()
                .iter()
                .map(|message| {
                    let pairs = decode(message).kvs.len();
                    (pairs, message.len(), crc32c::crc32c(message))
                })
                .collect();
            assert_eq!(got, *expected, "limit {limit}, keys only {keys_only}");
        }
    }
}

#[tokio::test]
async fn header_more_and_count_are_in_the_last_message_only() {
    let mut store = Store::filled(100, 10);
    let revision = store.state.store().revision();
    let request = pb::RangeRequest {
        limit: 70,
        ..everything()
    };
    let stream = store.handle.range_stream(request).await.unwrap();
    store.put(key(200), "not seen");
    let responses: Vec<_> = messages(stream).await.unwrap().iter().map(decode).collect();
    let (last, others) = responses.split_last().unwrap();
    for response in others {
        let bare = pb::RangeResponse {
            kvs: response.kvs.clone(),
            ..Default::default()
        };
        assert_eq!(*response, bare);
    }
    assert_eq!((last.more, last.count), (true, 100));
    assert_eq!(last.header.unwrap().revision, revision);
}

#[tokio::test]
async fn counts_and_nothing_are_one_message() {
    let store = Store::filled(100, 10);
    let none = pb::RangeRequest {
        key: "z".into(),
        ..everything()
    };
    for (request, count) in [
        (
            pb::RangeRequest {
                count_only: true,
                limit: 5,
                ..everything()
            },
            100,
        ),
        (none, 0),
    ] {
        let stream = store.handle.range_stream(request).await.unwrap();
        let messages = messages(stream).await.unwrap();
        assert_eq!(messages.len(), 1);
        let response = decode(&messages[0]);
        assert_eq!((response.kvs.len(), response.count), (0, count));
        assert!(!response.more && response.header.is_some());
    }
}

#[tokio::test]
async fn refusals() {
    let mut store = Store::filled(100, 10);
    store.compact(50);
    let error = async |request| store.handle.range_stream(request).await.unwrap_err();
    let at = |revision| pb::RangeRequest {
        revision,
        ..everything()
    };
    assert_eq!(error(at(49)).await, ferrite_api::Error::Compacted.into());
    assert_eq!(error(at(200)).await, ferrite_api::Error::FutureRev.into());
    let descending = pb::RangeRequest {
        sort_order: 2,
        ..everything()
    };
    assert_eq!(
        error(descending).await.message(),
        "RangeStream does not support custom sort orders"
    );
}

#[tokio::test]
async fn a_stream_ends_compacted_when_the_patience_of_compaction_ends() {
    let mut store = Store::filled(1000, 1000);
    let mut stream = store.handle.range_stream(everything()).await.unwrap();
    stream.next().await.unwrap().unwrap();
    until(|| store.handle.bytes_read_ahead() > 0).await;
    for number in 0..1000 {
        store.put(key(number), "newer");
    }
    store.compact(store.state.store().revision());
    store.finish_compaction();
    let error = loop {
        match stream.next().await.expect("an error before the end") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error, ferrite_api::Error::Compacted.into());
    assert!(stream.next().await.is_none());
    until(|| !store.has_pins()).await;
}

/// Protobuf's merge of all messages.
fn merged(messages: &[Bytes]) -> pb::RangeResponse {
    let mut all = pb::RangeStreamResponse::default();
    for message in messages {
        all.merge(message.clone()).unwrap();
    }
    all.range_response.unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn messages_merge_to_the_answer_of_range(
        lengths in prop::collection::vec(prop_oneof![4 => 1usize..2000, 1 => 100_000..LONGEST_VALUE], 0..60),
        limits in prop::collection::vec(prop_oneof![Just(0i64), 1i64..70, Just(-1)], 1..4),
        keys_only in any::<bool>(),
        first in 0usize..20,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut store = Store::new();
        for (number, length) in lengths.iter().enumerate() {
            store.put(key(number), value(number, *length));
        }
        for limit in limits {
            let request = pb::RangeRequest {
                key: key(first).into(),
                limit,
                keys_only,
                ..everything()
            };
            let (stream, reply) = runtime.block_on(async {
                let stream = store.handle.range_stream(request.clone()).await.unwrap();
                (messages(stream).await.unwrap(), store.handle.range(request).await.unwrap())
            });
            let expected = pb::RangeResponse {
                header: Some(reply.header),
                kvs: reply.kvs.into_iter().map(|kv| KeyValue::decode(kv).unwrap()).collect(),
                more: reply.more,
                count: reply.count,
            };
            prop_assert_eq!(merged(&stream), expected);
        }
    }
}
