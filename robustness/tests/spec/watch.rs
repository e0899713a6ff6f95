//! Section 5 of spec validation.md, and sections 2 (`w2_…`), 3, 4 and 6 of spec watch.md.

use std::time::Duration;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::etcdserverpb::watch_client::WatchClient;
use ferrite_api::pb::etcdserverpb::watch_request::RequestUnion;
use ferrite_api::pb::mvccpb;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Streaming};

use crate::support::*;
use crate::txn::{put_op, then};

/// A watch stream and the requests into it.
pub(crate) struct Watch {
    requests: Option<mpsc::UnboundedSender<pb::WatchRequest>>,
    responses: Streaming<pb::WatchResponse>,
}

impl Watch {
    /// Opens a stream with this first request.
    pub(crate) async fn open(member: &Member, first: pb::WatchCreateRequest) -> Self {
        let (requests, receiver) = mpsc::unbounded_channel();
        requests
            .send(request(RequestUnion::CreateRequest(first)))
            .unwrap();
        let mut client = WatchClient::new(member.channel.clone());
        let stream = UnboundedReceiverStream::new(receiver);
        let responses = client.watch(stream).await.unwrap().into_inner();
        Self {
            requests: Some(requests),
            responses,
        }
    }

    fn send(&self, union: RequestUnion) {
        let requests = self.requests.as_ref().expect("not closed");
        requests.send(request(union)).unwrap();
    }

    fn create(&self, create: pb::WatchCreateRequest) {
        self.send(RequestUnion::CreateRequest(create));
    }

    fn cancel(&self, watch_id: i64) {
        self.send(RequestUnion::CancelRequest(pb::WatchCancelRequest {
            watch_id,
        }));
    }

    fn progress(&self) {
        self.send(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
    }

    /// The next response.
    async fn next(&mut self) -> pb::WatchResponse {
        tokio::time::timeout(Duration::from_secs(30), self.responses.message())
            .await
            .expect("a response")
            .unwrap()
            .expect("the stream goes on")
    }

    /// The next response, of a watcher that is created.
    pub(crate) async fn created(&mut self, id: i64, revision: i64) {
        let response = self.next().await;
        assert!(response.created && !response.canceled, "{response:?}");
        assert_eq!((response.watch_id, response.events.len()), (id, 0));
        full(response.header, revision);
    }

    /// The next response, of a request that is refused.
    async fn refused(&mut self, reason: &str) {
        let response = self.next().await;
        assert!(response.created && response.canceled, "{response:?}");
        assert_eq!((response.watch_id, response.compact_revision), (-1, 0));
        assert_eq!(response.cancel_reason, reason);
        assert!(response.header.unwrap().member_id != 0);
    }

    /// The next response: events of this watcher, as text.
    pub(crate) async fn events(&mut self, id: i64) -> Vec<String> {
        let response = self.next().await;
        assert!(!response.created && !response.canceled && !response.fragment);
        assert_eq!(response.watch_id, id, "{response:?}");
        assert!(!response.events.is_empty());
        response.events.iter().map(text).collect()
    }

    /// The next events, of this watcher, in however many responses.
    async fn collect(&mut self, id: i64, count: usize) -> Vec<String> {
        let mut seen = Vec::new();
        while seen.len() < count {
            seen.extend(self.events(id).await);
        }
        seen
    }
}

fn request(union: RequestUnion) -> pb::WatchRequest {
    pb::WatchRequest {
        request_union: Some(union),
    }
}

/// `PUT a=1@2`, `DELETE a@3`, and what was before in brackets.
fn text(event: &mvccpb::Event) -> String {
    let kv = event.kv.as_ref().unwrap();
    let key = String::from_utf8_lossy(&kv.key);
    let value = String::from_utf8_lossy(&kv.value);
    let prev = event.prev_kv.as_ref().map_or(String::new(), |prev| {
        let value = String::from_utf8_lossy(&prev.value);
        format!(" ({value}@{})", prev.mod_revision)
    });
    match event.r#type {
        0 => format!("PUT {key}={value}@{}{prev}", kv.mod_revision),
        _ => {
            assert_eq!((kv.create_revision, kv.version, kv.value.len()), (0, 0, 0));
            format!("DELETE {key}@{}{prev}", kv.mod_revision)
        }
    }
}

fn key(key: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        key: Bytes::from(key.to_owned()),
        ..Default::default()
    }
}

pub(crate) fn keys(from: &str, end: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        range_end: Bytes::from(end.to_owned()),
        ..key(from)
    }
}

fn from(start_revision: i64, request: pb::WatchCreateRequest) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        start_revision,
        ..request
    }
}

#[tokio::test]
async fn w2_now_is_exactly_the_created_revision() {
    let member = Member::start().await;
    member.put("a", "old").await;
    let mut watch = Watch::open(&member, key("a")).await;
    watch.created(0, 2).await;
    member.put("b", "other").await;
    member.put("a", "new").await;
    assert_eq!(watch.events(0).await, ["PUT a=new@4"]);
}

#[tokio::test]
async fn w2_ranges() {
    let member = Member::start().await;
    let mut watch = Watch::open(&member, keys("", "\0")).await; // 0: everything
    watch.create(key("")); // 1: the key of one zero byte
    watch.create(keys("b", "\0")); // 2: from b on
    watch.create(keys("a", "b")); // 3: [a, b)
    for id in 0..4 {
        watch.created(id, 1).await;
    }
    for (key, ids) in [("a", &[0, 3][..]), ("b", &[0, 2]), ("\0", &[0, 1])] {
        let revision = member.put(key, "x").await;
        let mut seen = Vec::new();
        for _ in ids {
            let response = watch.next().await;
            assert_eq!(response.header.unwrap().revision, revision);
            assert_eq!(text(&response.events[0]), format!("PUT {key}=x@{revision}"));
            seen.push(response.watch_id);
        }
        seen.sort_unstable();
        assert_eq!(seen, ids, "{key:?}");
    }
}

#[tokio::test]
async fn w2_refusals_leave_the_stream_alone() {
    let member = Member::start().await;
    let mut watch = Watch::open(&member, from(-1, key("a"))).await;
    watch.refused(COMPACTED).await;
    watch.create(keys("b", "b"));
    watch.refused("mvcc: watcher range is empty").await;
    watch.create(keys("b", "a"));
    watch.refused("mvcc: watcher range is empty").await;
    // The negative revision is looked at first.
    watch.create(from(-5, keys("b", "a")));
    watch.refused(COMPACTED).await;
    let seven = pb::WatchCreateRequest {
        watch_id: 7,
        ..key("a")
    };
    watch.create(seven.clone());
    watch.created(7, 1).await;
    watch.create(seven);
    watch
        .refused("mvcc: duplicate watch ID provided on the WatchStream")
        .await;
    member.put("a", "1").await;
    assert_eq!(watch.events(7).await, ["PUT a=1@2"]);
}

/// A request with several faults is refused for the first one.
#[tokio::test]
async fn s5_the_order_of_refusals() {
    let member = Member::start().await;
    let taken = pb::WatchCreateRequest {
        watch_id: 7,
        ..key("a")
    };
    let mut watch = Watch::open(&member, taken).await;
    watch.created(7, 1).await;
    let mut request = pb::WatchCreateRequest {
        watch_id: 7,
        start_revision: -1,
        ..keys("b", "a")
    };
    watch.create(request.clone());
    watch.refused(COMPACTED).await;
    request.start_revision = 0;
    watch.create(request.clone());
    watch.refused("mvcc: watcher range is empty").await;
    request.range_end = Bytes::from_static(b"z");
    watch.create(request);
    watch
        .refused("mvcc: duplicate watch ID provided on the WatchStream")
        .await;
}

#[tokio::test]
async fn s5_ids_of_the_counter_are_used_once_and_given_ones_are_free() {
    let member = Member::start().await;
    let mut watch = Watch::open(&member, key("a")).await;
    watch.created(0, 1).await;
    watch.cancel(0);
    assert!(watch.next().await.canceled);
    watch.create(key("a"));
    watch.created(1, 1).await;
    for id in [-5, i64::MIN, i64::MAX] {
        watch.create(pb::WatchCreateRequest {
            watch_id: id,
            ..key("a")
        });
        watch.created(id, 1).await;
    }
}

#[tokio::test]
async fn s5_unknown_filters_and_empty_requests_are_ignored() {
    let member = Member::start().await;
    let unknown = pb::WatchCreateRequest {
        filters: vec![2, -1, 77],
        ..key("a")
    };
    let mut watch = Watch::open(&member, unknown).await;
    watch.created(0, 1).await;
    let requests = watch.requests.as_ref().unwrap();
    requests.send(pb::WatchRequest::default()).unwrap();
    watch.create(key("b"));
    watch.created(1, 1).await;
    member.put("a", "1").await;
    member.delete("a", "").await;
    let seen = watch.collect(0, 2).await;
    assert_eq!(seen, ["PUT a=1@2", "DELETE a@3"]);
}

#[tokio::test]
async fn s5_both_filters_leave_nothing_to_send() {
    let member = Member::start().await;
    let nothing = pb::WatchCreateRequest {
        filters: vec![0, 1],
        ..from(1, key("a"))
    };
    member.put("a", "1").await;
    let mut watch = Watch::open(&member, nothing).await;
    watch.created(0, 2).await;
    watch.create(from(1, key("a")));
    watch.created(1, 2).await;
    member.delete("a", "").await;
    let seen = watch.collect(1, 2).await;
    assert_eq!(seen, ["PUT a=1@2", "DELETE a@3"]);
}

#[tokio::test]
async fn s5_headers_of_events() {
    let member = Member::start().await;
    for value in ["1", "2"] {
        member.put("a", value).await;
    }
    member.put("b", "3").await;
    let mut watch = Watch::open(&member, from(2, key("a"))).await;
    watch.created(0, 4).await;
    // History: the revision of the store, not that of the events.
    let history = watch.next().await;
    assert_eq!(history.events.len(), 2);
    full(history.header, 4);
    // Live: that of the events.
    member.put("a", "4").await;
    full(watch.next().await.header, 5);
}

/// Two keys at each of many revisions: no response ends within one, and none has more than a thousand.
#[tokio::test]
async fn s5_history_comes_in_responses_of_whole_revisions() {
    let member = Member::start().await;
    let last = 1102;
    let mut puts = tokio::task::JoinSet::new();
    for _ in 2..=last {
        let mut kv = member.kv();
        let request = then(vec![put_op("a", ""), put_op("b", "")]);
        puts.spawn(async move { kv.txn(request).await.unwrap() });
    }
    puts.join_all().await;
    let mut watch = Watch::open(&member, from(1, keys("a", "z"))).await;
    watch.created(0, last).await;
    let mut next = 2;
    while next <= last {
        let events = watch.events(0).await;
        assert!(events.len() <= 2000 && events.len().is_multiple_of(2));
        for pair in events.chunks(2) {
            assert_eq!(pair, [format!("PUT a=@{next}"), format!("PUT b=@{next}")]);
            next += 1;
        }
    }
}

#[tokio::test]
async fn s5_a_refused_start_revision_takes_no_history_from_others() {
    let member = Member::start().await;
    for value in ["1", "2", "3"] {
        member.put("a", value).await;
    }
    let mut watch = Watch::open(&member, from(2, key("a"))).await;
    watch.create(from(-1, key("a")));
    watch.create(from(3, key("a")));
    watch.created(0, 4).await;
    let mut refusals = 0;
    let mut seen = [Vec::new(), Vec::new()];
    while seen[0].len() < 3 || seen[1].len() < 2 {
        let response = watch.next().await;
        match response.watch_id {
            -1 => refusals += 1,
            0 => seen[0].extend(response.events.iter().map(text)),
            _ => seen[1].extend(response.events.iter().map(text)),
        }
    }
    assert_eq!(refusals, 1);
    assert_eq!(seen[0], ["PUT a=1@2", "PUT a=2@3", "PUT a=3@4"]);
    assert_eq!(seen[1], ["PUT a=2@3", "PUT a=3@4"]);
}

#[tokio::test]
async fn s5_a_stream_ends_with_its_server() {
    let member = Member::start().await;
    let mut watch = Watch::open(&member, key("a")).await;
    watch.created(0, 1).await;
    let _stopped = member.stop().await;
    let end = watch.responses.message().await.unwrap_err();
    let text = "etcdserver: server stopped";
    refused::<()>(Err(end), Code::Unavailable, text);
}

#[tokio::test]
async fn w2_ids_are_counted_from_0_and_skip_those_in_use() {
    let member = Member::start().await;
    let one = pb::WatchCreateRequest {
        watch_id: 1,
        ..key("a")
    };
    let mut watch = Watch::open(&member, one).await;
    watch.created(1, 1).await;
    for id in [0, 2, 3] {
        watch.create(key("a"));
        watch.created(id, 1).await;
    }
}

#[tokio::test]
async fn w2_history_then_live() {
    let member = Member::start().await;
    for value in ["1", "2", "3"] {
        member.put("a", value).await;
    }
    member.delete("a", "").await;
    let mut watch = Watch::open(&member, from(3, key("a"))).await;
    watch.created(0, 5).await;
    let history = watch.events(0).await;
    assert_eq!(history, ["PUT a=2@3", "PUT a=3@4", "DELETE a@5"]);
    member.put("a", "4").await;
    assert_eq!(watch.events(0).await, ["PUT a=4@6"]);
}

#[tokio::test]
async fn w2_a_future_start_waits() {
    let member = Member::start().await;
    let mut watch = Watch::open(&member, from(4, key("a"))).await;
    watch.created(0, 1).await;
    // As proxies do, to learn that the leader is lost.
    watch.create(from(i64::MAX - 2, key("__lostleader")));
    watch.created(1, 1).await;
    for value in ["2", "3", "4"] {
        member.put("a", value).await;
    }
    assert_eq!(watch.events(0).await, ["PUT a=4@4"]);
}

#[tokio::test]
async fn w2_below_the_compaction_is_created_then_cancelled_and_at_it_is_legal() {
    let member = Member::start().await;
    member.put("a", "1").await;
    member.put("a", "2").await;
    member.delete("a", "").await;
    member.put("b", "5").await;
    member.compact(4).await;
    let mut watch = Watch::open(&member, from(3, key("a"))).await;
    watch.created(0, 5).await;
    let response = watch.next().await;
    assert!(response.canceled && !response.created);
    assert_eq!((response.watch_id, response.compact_revision), (0, 4));
    assert_eq!(response.cancel_reason, "");
    assert_eq!(response.header.unwrap().revision, 0, "etcd's quirk");
    // The deletion exactly at the compaction is still there (issues 18089, 19179).
    watch.create(from(4, keys("a", "c")));
    watch.created(1, 5).await;
    assert_eq!(watch.events(1).await, ["DELETE a@4", "PUT b=5@5"]);
}

#[tokio::test]
async fn w2_the_id_of_a_watcher_that_a_compaction_has_ended_is_taken_until_it_is_cancelled() {
    let member = Member::start().await;
    member.put("a", "1").await;
    member.put("a", "2").await;
    member.compact(3).await;
    let mut watch = Watch::open(&member, from(2, key("a"))).await;
    watch.created(0, 3).await;
    assert_eq!(watch.next().await.compact_revision, 3);
    let zero = || pb::WatchCreateRequest {
        watch_id: 7,
        ..from(2, key("a"))
    };
    watch.create(zero());
    watch.created(7, 3).await;
    assert_eq!(watch.next().await.compact_revision, 3);
    watch.create(zero());
    watch
        .refused("mvcc: duplicate watch ID provided on the WatchStream")
        .await;
    watch.cancel(7);
    let response = watch.next().await;
    assert!(response.canceled && response.compact_revision == 0);
    assert_eq!(response.watch_id, 7);
    watch.create(zero());
    watch.created(7, 3).await;
}

#[tokio::test]
async fn w3_after_a_cancel_nothing_comes_and_the_id_is_free() {
    let member = Member::start().await;
    let five = pb::WatchCreateRequest {
        watch_id: 5,
        ..key("a")
    };
    let mut watch = Watch::open(&member, five.clone()).await;
    watch.created(5, 1).await;
    watch.cancel(99); // No answer at all.
    watch.cancel(5);
    let response = watch.next().await;
    assert!(response.canceled && !response.created && response.cancel_reason.is_empty());
    assert_eq!((response.watch_id, response.compact_revision), (5, 0));
    full(response.header, 1);
    member.put("a", "1").await;
    watch.create(five);
    watch.created(5, 2).await;
    member.put("a", "2").await;
    assert_eq!(watch.events(5).await, ["PUT a=2@3"]);
}

#[tokio::test]
async fn w3_a_client_that_closes_its_side_goes_on_watching() {
    let member = Member::start().await;
    let mut watch = Watch::open(&member, key("a")).await;
    watch.created(0, 1).await;
    watch.requests = None;
    for revision in 2..5 {
        member.put("a", "x").await;
        assert_eq!(watch.events(0).await, [format!("PUT a=x@{revision}")]);
    }
}

#[tokio::test]
async fn w4_a_transaction_is_one_response_in_the_order_of_its_operations() {
    let member = Member::start().await;
    member.put("c", "1").await;
    let mut watch = Watch::open(&member, keys("a", "z")).await;
    watch.created(0, 2).await;
    let put = |k: &str| pb::RequestOp {
        request: Some(pb::request_op::Request::RequestPut(put(k, "t"))),
    };
    let delete = pb::RequestOp {
        request: Some(pb::request_op::Request::RequestDeleteRange(delete("c", ""))),
    };
    let txn = pb::TxnRequest {
        success: vec![put("b"), delete, put("a")],
        ..Default::default()
    };
    member.kv().txn(txn).await.unwrap();
    let events = watch.events(0).await;
    assert_eq!(events, ["PUT b=t@3", "DELETE c@3", "PUT a=t@3"]);
}

#[tokio::test]
async fn w4_filters_and_previous_pairs() {
    let member = Member::start().await;
    let filtered = |filter| pb::WatchCreateRequest {
        filters: vec![filter],
        ..key("a")
    };
    let prev = pb::WatchCreateRequest {
        prev_kv: true,
        ..key("a")
    };
    let mut puts = Watch::open(&member, filtered(1)).await;
    let mut deletes = Watch::open(&member, filtered(0)).await;
    let mut all = Watch::open(&member, prev.clone()).await;
    for watch in [&mut puts, &mut deletes, &mut all] {
        watch.created(0, 1).await;
    }
    member.put("a", "1").await;
    member.put("a", "2").await;
    member.delete("a", "").await;
    member.put("a", "3").await;
    let seen = all.collect(0, 4).await;
    let expected = [
        "PUT a=1@2",
        "PUT a=2@3 (1@2)",
        "DELETE a@4 (2@3)",
        "PUT a=3@5",
    ];
    assert_eq!(seen, expected);
    assert_eq!(deletes.events(0).await, ["DELETE a@4"]);
    let seen = puts.collect(0, 3).await;
    assert_eq!(seen, ["PUT a=1@2", "PUT a=2@3", "PUT a=3@5"]);
}

/// Kubernetes tells by the pair that is missing that a watcher came too late.
#[tokio::test]
async fn w4_a_previous_pair_that_is_compacted_is_not_shown_though_another_watcher_has_seen_it() {
    let member = Member::start().await;
    member.put("a", "1").await;
    let prev = |from: pb::WatchCreateRequest| pb::WatchCreateRequest {
        prev_kv: true,
        ..from
    };
    let mut early = Watch::open(&member, prev(key("a"))).await;
    early.created(0, 2).await;
    member.put("a", "2").await;
    assert_eq!(early.events(0).await, ["PUT a=2@3 (1@2)"]);
    member.compact(3).await;
    let mut late = Watch::open(&member, prev(from(3, key("a")))).await;
    late.created(0, 3).await;
    assert_eq!(late.events(0).await, ["PUT a=2@3"]);
}

#[tokio::test]
async fn w4_previous_pairs_of_history_unless_they_are_compacted() {
    let member = Member::start().await;
    member.put("a", "1").await;
    member.put("a", "2").await;
    member.delete("a", "").await;
    member.put("a", "3").await;
    member.compact(3).await;
    let prev = pb::WatchCreateRequest {
        prev_kv: true,
        ..from(3, key("a"))
    };
    let mut watch = Watch::open(&member, prev).await;
    watch.created(0, 5).await;
    assert_eq!(
        watch.events(0).await,
        ["PUT a=2@3", "DELETE a@4 (2@3)", "PUT a=3@5"]
    );
}

/// A response of 2 MiB or more: three values of one Txn, and three that they replace.
#[tokio::test]
async fn w4_fragments_only_if_asked_for() {
    let member = Member::start().await;
    let value = "v".repeat(450 << 10);
    let names = ["a", "b", "c"];
    for name in names {
        member.put(name, &value).await;
    }
    let request = |fragment| {
        let create = pb::WatchCreateRequest {
            fragment,
            prev_kv: true,
            ..keys("a", "z")
        };
        tokio_stream::once(request(RequestUnion::CreateRequest(create)))
    };
    let mut client = WatchClient::new(member.channel.clone()).max_decoding_message_size(64 << 20);
    let mut whole = client.watch(request(false)).await.unwrap().into_inner();
    let mut parts = client.watch(request(true)).await.unwrap().into_inner();
    for stream in [&mut whole, &mut parts] {
        assert!(stream.message().await.unwrap().unwrap().created);
    }
    let success = names.map(|name| pb::RequestOp {
        request: Some(pb::request_op::Request::RequestPut(put(name, &value))),
    });
    let txn = pb::TxnRequest {
        success: success.into(),
        ..Default::default()
    };
    member.kv().txn(txn).await.unwrap();
    let response = whole.message().await.unwrap().unwrap();
    assert_eq!((response.events.len(), response.fragment), (3, false));
    let mut seen = Vec::new();
    for (count, fragment) in [(2, true), (1, false)] {
        let response = parts.message().await.unwrap().unwrap();
        assert_eq!(
            (response.events.len(), response.fragment),
            (count, fragment)
        );
        full(response.header, 5);
        seen.extend(
            response
                .events
                .into_iter()
                .map(|event| event.kv.unwrap().key),
        );
    }
    assert_eq!(seen, names);
}

#[tokio::test]
async fn w6_progress_speaks_for_all_watchers_behind_their_events() {
    let member = Member::start().await;
    let mut watch = Watch::open(&member, key("a")).await;
    watch.created(0, 1).await;
    watch.create(from(1, key("b")));
    watch.created(1, 1).await;
    member.put("a", "1").await;
    member.put("c", "2").await;
    watch.progress();
    // The event first, however the request is timed.
    assert_eq!(watch.events(0).await, ["PUT a=1@2"]);
    let response = watch.next().await;
    assert!(response.events.is_empty() && !response.created && !response.canceled);
    assert_eq!(response.watch_id, -1);
    full(response.header, 3);
}

#[tokio::test]
async fn w6_no_progress_without_watchers_or_before_a_start_revision() {
    let member = Member::start().await;
    let mut watch = Watch::open(&member, from(9, key("a"))).await;
    watch.created(0, 1).await;
    watch.progress();
    watch.cancel(0);
    assert!(watch.next().await.canceled, "issue 20221: no progress at 1");
    watch.progress();
    watch.create(key("a"));
    watch.created(1, 1).await;
    watch.progress();
    let response = watch.next().await;
    assert_eq!((response.watch_id, response.events.len()), (-1, 0));
    full(response.header, 1);
}

#[tokio::test]
async fn w6_watchers_are_told_of_progress_periodically() {
    let member = Member::start_with(|config| {
        config.watch_progress_notify_interval = Duration::from_millis(100);
    })
    .await;
    let notified = pb::WatchCreateRequest {
        progress_notify: true,
        ..key("a")
    };
    let mut watch = Watch::open(&member, notified).await;
    watch.created(0, 1).await;
    member.put("b", "1").await;
    let mut last = 0;
    while last < 2 {
        let response = watch.next().await;
        assert_eq!((response.watch_id, response.events.len()), (0, 0));
        let revision = response.header.unwrap().revision;
        assert!(revision >= last);
        last = revision;
    }
    assert_eq!(last, 2);
}
