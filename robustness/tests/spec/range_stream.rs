//! Section 4.2: RangeStream. The sizes of its messages and what it does while it is compacted under
//! way are tested where nothing comes in between: `server/src/handle/tests/range_stream.rs`.

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use pb::range_request::{SortOrder, SortTarget};
use prost::Message;
use tonic::Code;

use crate::lease::{grant, put_with};
use crate::support::*;

impl Member {
    /// All messages of a stream.
    async fn stream(&self, request: pb::RangeRequest) -> Vec<pb::RangeResponse> {
        let answer = self.kv().range_stream(request).await;
        let mut stream = answer.unwrap().into_inner();
        let mut messages = Vec::new();
        while let Some(message) = stream.message().await.unwrap() {
            messages.push(message.range_response.unwrap());
        }
        messages
    }

    /// The call or its first message is refused with this.
    async fn refuses_stream(&self, request: pb::RangeRequest, code: Code, text: &str) {
        let answer = match self.kv().range_stream(request).await {
            Ok(stream) => stream.into_inner().message().await,
            Err(status) => Err(status),
        };
        refused(answer.map(tonic::Response::new), code, text);
    }

    /// `k00` to `k24`, revisions 2 to 26.
    async fn filled() -> Self {
        let member = Self::start().await;
        for number in 0..25 {
            member.put(&format!("k{number:02}"), "value").await;
        }
        member
    }
}

/// Protobuf's merge of all messages.
fn merged(messages: &[pb::RangeResponse]) -> pb::RangeResponse {
    let bytes: Vec<u8> = messages.iter().flat_map(Message::encode_to_vec).collect();
    pb::RangeResponse::decode(&bytes[..]).unwrap()
}

#[tokio::test]
async fn s4_2_refusals_in_order() {
    let member = Member::start().await;
    for _ in 2..=4 {
        member.put("a", "1").await;
    }
    member.compact(3).await;
    let (invalid, unimplemented) = (Code::InvalidArgument, Code::Unimplemented);
    let orders = "RangeStream does not support custom sort orders";
    let filters = "RangeStream does not support revision filters";
    // With everything else wrong, too: 1, 2 and 3, 4, 5, 6.
    let mut request = pb::RangeRequest {
        sort_order: 9,
        sort_target: 9,
        min_create_revision: 1,
        revision: 99,
        ..get("")
    };
    let ask = async |request: &pb::RangeRequest, code, text| {
        member.refuses_stream(request.clone(), code, text).await;
    };
    ask(&request, invalid, EMPTY_KEY).await;
    request.key = Bytes::from_static(b"a");
    ask(&request, invalid, SORT_OPTION).await;
    request.set_sort_target(SortTarget::Mod);
    ask(&request, invalid, SORT_OPTION).await;
    request.set_sort_order(SortOrder::Ascend);
    ask(&request, unimplemented, orders).await;
    request.set_sort_target(SortTarget::Key);
    ask(&request, unimplemented, filters).await;
    request.min_create_revision = 0;
    ask(&request, Code::OutOfRange, FUTURE).await;
    request.revision = 2;
    ask(&request, Code::OutOfRange, COMPACTED).await;
}

#[tokio::test]
async fn s4_2_orders_and_filters_that_do_not_stream() {
    let member = Member::start().await;
    let orders = "RangeStream does not support custom sort orders";
    for (order, target) in [
        (SortOrder::Descend, SortTarget::Key),
        (SortOrder::Ascend, SortTarget::Version),
        (SortOrder::Ascend, SortTarget::Create),
        (SortOrder::Ascend, SortTarget::Mod),
        (SortOrder::Ascend, SortTarget::Value),
    ] {
        let mut request = get("a");
        request.set_sort_order(order);
        request.set_sort_target(target);
        member
            .refuses_stream(request, Code::Unimplemented, orders)
            .await;
    }
    let filters: [fn(&mut pb::RangeRequest); 4] = [
        |request| request.min_mod_revision = 1,
        |request| request.max_mod_revision = -1,
        |request| request.min_create_revision = 1,
        |request| request.max_create_revision = 1,
    ];
    for set in filters {
        let mut request = get("a");
        set(&mut request);
        let text = "RangeStream does not support revision filters";
        member
            .refuses_stream(request, Code::Unimplemented, text)
            .await;
    }
    member.put("a", "1").await;
    let mut request = get("a");
    request.set_sort_order(SortOrder::Ascend);
    assert_eq!(merged(&member.stream(request).await).count, 1);
}

#[tokio::test]
async fn s4_2_chunks_hold_pairs_and_the_last_one_the_rest() {
    let member = Member::filled().await;
    let messages = member.stream(range("k", "l")).await;
    let (last, others) = messages.split_last().unwrap();
    let lengths: Vec<_> = messages.iter().map(|message| message.kvs.len()).collect();
    // Ten, then twice as many, as far as there are any.
    assert_eq!(lengths, [10, 15]);
    for message in others {
        let bare = pb::RangeResponse {
            kvs: message.kvs.clone(),
            ..Default::default()
        };
        assert_eq!(*message, bare);
    }
    full(last.header, 26);
    assert_eq!((last.more, last.count), (false, 25));
}

#[tokio::test]
async fn s4_2_limits() {
    let member = Member::filled().await;
    for (limit, lengths, more) in [
        (5, &[5][..], true),
        (12, &[10, 2], true),
        (25, &[10, 15], false),
        (99, &[10, 15], false),
        // Everything at once.
        (-1, &[25], false),
    ] {
        let request = pb::RangeRequest {
            limit,
            ..range("k", "l")
        };
        let messages = member.stream(request).await;
        let found: Vec<_> = messages.iter().map(|message| message.kvs.len()).collect();
        assert_eq!(found, lengths, "limit {limit}");
        let last = messages.last().unwrap();
        assert_eq!((last.more, last.count), (more, 25), "limit {limit}");
    }
}

#[tokio::test]
async fn s4_2_count_only_and_nothing_are_one_message_with_a_header() {
    let member = Member::filled().await;
    let count_only = pb::RangeRequest {
        count_only: true,
        limit: 3,
        ..range("k", "l")
    };
    for (request, count) in [(count_only, 25), (range("x", "y"), 0)] {
        let messages = member.stream(request).await;
        let [only] = &messages[..] else {
            panic!("{messages:?}");
        };
        full(only.header, 26);
        assert_eq!((only.kvs.len(), only.more, only.count), (0, false, count));
    }
}

#[tokio::test]
async fn s4_2_all_messages_together_are_the_answer_of_range() {
    let member = Member::filled().await;
    grant(&member, 7, 60).await;
    member.kv().put(put_with("k03", 7)).await.unwrap();
    member.delete("k10", "k12").await;
    let requests: [fn(&mut pb::RangeRequest); 7] = [
        |_| {},
        |request| request.limit = 12,
        |request| request.keys_only = true,
        |request| request.count_only = true,
        |request| request.revision = 20,
        |request| request.serializable = true,
        |request| (request.revision, request.limit) = (9, 3),
    ];
    for change in requests {
        let mut request = range("k", "l");
        change(&mut request);
        let answer = member.kv().range(request.clone()).await.unwrap();
        let messages = member.stream(request.clone()).await;
        assert_eq!(merged(&messages), answer.into_inner(), "{request:?}");
    }
}

/// Up to ten pairs as in etcd, which sorts each message of its own and then goes on behind the wrong key.
#[tokio::test]
async fn s4_2_a_target_without_an_order_sorts_as_in_range() {
    let member = Member::filled().await;
    member.put("k00", "changed").await;
    for target in [
        SortTarget::Version,
        SortTarget::Create,
        SortTarget::Mod,
        SortTarget::Value,
    ] {
        for (limit, count_only) in [(0, false), (7, false), (25, false), (0, true)] {
            let mut request = pb::RangeRequest {
                limit,
                count_only,
                ..range("k", "l")
            };
            request.set_sort_target(target);
            let answer = member.kv().range(request.clone()).await.unwrap();
            let messages = member.stream(request.clone()).await;
            assert_eq!(messages, [answer.into_inner()], "{request:?}");
        }
    }
    let mut none = range("x", "y");
    none.set_sort_target(SortTarget::Mod);
    let messages = member.stream(none).await;
    assert_eq!((messages.len(), messages[0].count), (1, 0));
    full(messages[0].header, 27);
}

/// More than the pieces in which it is read.
#[tokio::test]
async fn s4_2_a_long_sorted_answer_is_one_message() {
    let member = Member::start().await;
    let value = "v".repeat(1 << 20);
    for number in [3, 1, 2, 5, 4] {
        member.put(&format!("k{number}"), &value).await;
    }
    let mut request = range("k", "l");
    request.set_sort_target(SortTarget::Create);
    let mut client = member.kv().max_decoding_message_size(usize::MAX);
    let mut stream = client.range_stream(request).await.unwrap().into_inner();
    let message = stream.message().await.unwrap().unwrap();
    let kvs = message.range_response.unwrap().kvs;
    assert_eq!(keys(&kvs), ["k3", "k1", "k2", "k5", "k4"]);
    assert!(kvs.iter().all(|kv| kv.value == value));
    assert!(stream.message().await.unwrap().is_none());
}

/// More than windows and buffers hold, so that the stream has not ended when the store changes.
#[tokio::test]
async fn s4_2_the_revision_of_the_first_message_counts_for_all() {
    let member = Member::start().await;
    let value = "v".repeat(1 << 20);
    for number in 10..26 {
        member.put(&format!("k{number}"), &value).await;
    }
    let mut client = member.kv().max_decoding_message_size(usize::MAX);
    let answer = client.range_stream(range("k", "l")).await;
    let mut stream = answer.unwrap().into_inner();
    let mut messages = vec![stream.message().await.unwrap().unwrap()];
    member.delete("k25", "").await;
    member.put("k24", "changed").await;
    member.put("k26", "new").await;
    while let Some(message) = stream.message().await.unwrap() {
        messages.push(message);
    }
    let messages = messages.into_iter().map(|message| message.range_response);
    let messages: Vec<_> = messages.map(Option::unwrap).collect();
    assert!(messages.len() > 1);
    let whole = merged(&messages);
    full(whole.header, 17);
    assert_eq!((whole.kvs.len(), whole.count), (16, 16));
    assert!(
        whole
            .kvs
            .iter()
            .all(|kv| kv.mod_revision <= 17 && kv.value == value)
    );
}
