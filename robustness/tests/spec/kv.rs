//! Sections 1.2, 2, 4.1, 4.3, 4.4 and 4.6: Range, Put, DeleteRange, Compact.

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::mvccpb::KeyValue;
use tonic::Code;

use crate::lease::{grant, put_with};
use crate::support::*;

#[tokio::test]
async fn s1_2_3_a_proposal_above_max_request_bytes_is_too_large() {
    let member = Member::start().await;
    let put = |length: usize| pb::PutRequest {
        key: Bytes::from_static(b"k"),
        value: vec![b'v'; length].into(),
        ..Default::default()
    };
    refused(
        member.kv().put(put(1_572_864)).await,
        Code::InvalidArgument,
        TOO_LARGE,
    );
    // What is around the value counts, too.
    refused(
        member.kv().put(put(1_572_860)).await,
        Code::InvalidArgument,
        TOO_LARGE,
    );
    full(
        member
            .kv()
            .put(put(1_572_000))
            .await
            .unwrap()
            .into_inner()
            .header,
        2,
    );
}

#[tokio::test]
async fn s2_headers_of_kv_answers() {
    let member = Member::start().await;
    let mut kv = member.kv();
    full(kv.range(get("a")).await.unwrap().into_inner().header, 1);
    full(kv.put(put("a", "1")).await.unwrap().into_inner().header, 2);
    full(kv.put(put("a", "1")).await.unwrap().into_inner().header, 3);
    // Range: the store revision, not the one asked for.
    let old = pb::RangeRequest {
        revision: 2,
        ..get("a")
    };
    full(kv.range(old).await.unwrap().into_inner().header, 3);
    full(
        kv.delete_range(delete("x", ""))
            .await
            .unwrap()
            .into_inner()
            .header,
        3,
    );
    full(
        kv.delete_range(delete("a", ""))
            .await
            .unwrap()
            .into_inner()
            .header,
        4,
    );
    let compact = pb::CompactionRequest {
        revision: 2,
        physical: true,
    };
    full(kv.compact(compact).await.unwrap().into_inner().header, 4);
}

#[tokio::test]
async fn s4_1_range_refusals() {
    let member = Member::start().await;
    let mut kv = member.kv();
    for revision in 2..=5 {
        assert_eq!(member.put("a", "1").await, revision);
    }
    let compact = pb::CompactionRequest {
        revision: 4,
        physical: false,
    };
    kv.compact(compact).await.unwrap();

    let row = |change: fn(&mut pb::RangeRequest)| {
        let mut request = get("a");
        change(&mut request);
        request
    };
    // 1, also where 2 and 3 would refuse as well.
    let all_wrong = row(|r| (r.key, r.sort_order, r.sort_target) = (Bytes::new(), 7, 7));
    refused(kv.range(all_wrong).await, Code::InvalidArgument, EMPTY_KEY);
    // 2 and 3.
    for (order, target) in [(3, 0), (-1, 0), (0, 5), (0, -1)] {
        let request = pb::RangeRequest {
            sort_order: order,
            sort_target: target,
            ..get("a")
        };
        refused(kv.range(request).await, Code::InvalidArgument, SORT_OPTION);
    }
    // 6 and 7; the compacted revision itself can be read, 0 and below mean the newest.
    refused(
        kv.range(row(|r| r.revision = 6)).await,
        Code::OutOfRange,
        FUTURE,
    );
    refused(
        kv.range(row(|r| r.revision = 3)).await,
        Code::OutOfRange,
        COMPACTED,
    );
    for (revision, modified) in [(4, 4), (5, 5), (0, 5), (-9, 5), (i64::MIN, 5)] {
        let request = pb::RangeRequest {
            revision,
            ..get("a")
        };
        let answer = kv.range(request).await.unwrap().into_inner();
        assert_eq!(answer.kvs[0].mod_revision, modified, "revision {revision}");
    }
}

#[tokio::test]
async fn s4_1_sort_options_are_checked_before_the_revision() {
    let member = Member::start().await;
    let mut request = pb::RangeRequest {
        revision: 99,
        sort_target: 5,
        ..get("a")
    };
    for serializable in [false, true] {
        request.serializable = serializable;
        let answer = member.kv().range(request.clone()).await;
        refused(answer, Code::InvalidArgument, SORT_OPTION);
    }
    request.sort_target = 4;
    let answer = member.kv().range(request).await;
    refused(answer, Code::OutOfRange, FUTURE);
}

#[tokio::test]
async fn s4_1_range_ends() {
    let member = Member::start().await;
    for key in ["a", "b", "c"] {
        member.put(key, "v").await;
    }
    for (from, end, expected) in [
        ("b", "", &["b"][..]),
        ("b", "\0", &["b", "c"]),
        ("a", "c", &["a", "b"]),
        ("b", "b", &[]),
        ("c", "a", &[]),
        ("\0", "\0", &["a", "b", "c"]),
    ] {
        let answer = member
            .kv()
            .range(range(from, end))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(keys(&answer.kvs), expected, "[{from:?}, {end:?})");
        assert_eq!(answer.count, i64::try_from(expected.len()).unwrap());
    }
}

#[tokio::test]
async fn s4_1_counts_limits_filters_and_sorts() {
    use pb::range_request::{SortOrder, SortTarget};
    let member = Member::start().await;
    // Revisions 2 to 6: a created at 2 and changed at 6, values against the order of keys.
    for (key, value) in [("a", "9"), ("b", "3"), ("c", "2"), ("d", "1"), ("a", "0")] {
        member.put(key, value).await;
    }
    let ask = async |change: &dyn Fn(&mut pb::RangeRequest)| {
        let mut request = range("a", "z");
        change(&mut request);
        member.kv().range(request).await.unwrap().into_inner()
    };

    let counted = ask(&|r| (r.count_only, r.limit, r.min_mod_revision) = (true, 1, 5)).await;
    assert_eq!(
        (counted.kvs.len(), counted.count, counted.more),
        (0, 4, false)
    );

    let cut = ask(&|r| r.limit = 3).await;
    assert_eq!(
        (keys(&cut.kvs), cut.count, cut.more),
        (vec!["a", "b", "c"], 4, true)
    );
    let whole = ask(&|r| r.limit = 4).await;
    assert_eq!((whole.kvs.len(), whole.more), (4, false));
    let unlimited = ask(&|r| r.limit = -1).await;
    assert_eq!((unlimited.kvs.len(), unlimited.more), (4, false));

    let filtered = ask(&|r| (r.min_mod_revision, r.max_mod_revision) = (3, 4)).await;
    assert_eq!((keys(&filtered.kvs), filtered.count), (vec!["b", "c"], 4));
    let filtered = ask(&|r| (r.min_create_revision, r.max_create_revision) = (2, 3)).await;
    assert_eq!(keys(&filtered.kvs), ["a", "b"]);
    // The limit comes after the filter.
    let filtered = ask(&|r| (r.min_create_revision, r.limit) = (4, 1)).await;
    assert_eq!((keys(&filtered.kvs), filtered.more), (vec!["c"], true));

    for (target, order, expected) in [
        (SortTarget::Key, SortOrder::Descend, ["d", "c", "b", "a"]),
        (SortTarget::Mod, SortOrder::Ascend, ["b", "c", "d", "a"]),
        (SortTarget::Create, SortOrder::Descend, ["d", "c", "b", "a"]),
        (SortTarget::Value, SortOrder::Ascend, ["a", "d", "c", "b"]),
        (
            SortTarget::Version,
            SortOrder::Descend,
            ["a", "b", "c", "d"],
        ),
        // No order, but a target: ascending by it.
        (SortTarget::Mod, SortOrder::None, ["b", "c", "d", "a"]),
    ] {
        let sorted = ask(&|r| {
            r.set_sort_target(target);
            r.set_sort_order(order);
        })
        .await;
        assert_eq!(keys(&sorted.kvs), expected, "{target:?} {order:?}");
    }
    // A target without an order and a filter: limit + 1 keys are taken before they are sorted.
    let cut = ask(&|r| {
        r.set_sort_target(SortTarget::Value);
        r.limit = 2;
    })
    .await;
    assert_eq!((keys(&cut.kvs), cut.more), (vec!["a", "c"], true));

    let bare = ask(&|r| r.keys_only = true).await;
    assert!(bare.kvs.iter().all(|kv| kv.value.is_empty()));
    assert_eq!((bare.kvs[0].version, bare.kvs[0].create_revision), (2, 2));
}

#[tokio::test]
async fn s4_1_keys_are_in_the_order_of_their_bytes() {
    let member = Member::start().await;
    let sorted: [&[u8]; 6] = [b"\0", b"A", b"a", b"a\0", b"aa", b"\xff\xfe"];
    for key in [4, 0, 5, 2, 1, 3].map(|place| Bytes::from_static(sorted[place])) {
        let request = pb::PutRequest {
            key,
            ..Default::default()
        };
        member.kv().put(request).await.unwrap();
    }
    let answer = member.kv().range(range("\0", "\0")).await.unwrap();
    let found = answer.into_inner().kvs.into_iter().map(|kv| kv.key);
    assert_eq!(found.collect::<Vec<_>>(), sorted);
}

#[tokio::test]
async fn s4_1_count_only_ignores_limit_filters_and_sort() {
    let member = Member::start().await;
    for key in ["a", "b", "c"] {
        member.put(key, "v").await;
    }
    let request = pb::RangeRequest {
        count_only: true,
        limit: 1,
        max_mod_revision: 1,
        sort_order: 2,
        sort_target: 4,
        keys_only: true,
        ..range("a", "z")
    };
    let answer = member.kv().range(request).await.unwrap().into_inner();
    assert_eq!((answer.kvs.len(), answer.more, answer.count), (0, false, 3));
    // A revision counts.
    let old = pb::RangeRequest {
        count_only: true,
        revision: 3,
        ..range("a", "z")
    };
    let answer = member.kv().range(old).await.unwrap().into_inner();
    assert_eq!(answer.count, 2);
}

#[tokio::test]
async fn s4_1_filters_are_inclusive_and_come_before_sort_and_limit() {
    let member = Member::start().await;
    // Created at 2, 3, 4, changed at 7, 6, 5.
    for key in ["a", "b", "c", "c", "b", "a"] {
        member.put(key, "v").await;
    }
    let ask = async |change: &dyn Fn(&mut pb::RangeRequest)| {
        let mut request = range("a", "z");
        change(&mut request);
        let answer = member.kv().range(request).await.unwrap().into_inner();
        assert_eq!(answer.count, 3, "filters do not count");
        (keys(&answer.kvs).concat(), answer.more)
    };
    let whole = |keys: &str| (keys.to_owned(), false);
    assert_eq!(ask(&|r| r.min_mod_revision = 6).await, whole("ab"));
    assert_eq!(ask(&|r| r.max_mod_revision = 6).await, whole("bc"));
    assert_eq!(ask(&|r| r.min_create_revision = 3).await, whole("bc"));
    assert_eq!(ask(&|r| r.max_create_revision = 3).await, whole("ab"));
    let both = |r: &mut pb::RangeRequest| {
        (r.min_mod_revision, r.max_mod_revision) = (6, 6);
        (r.min_create_revision, r.max_create_revision) = (3, 3);
    };
    assert_eq!(ask(&both).await, whole("b"));
    assert_eq!(ask(&|r| r.min_mod_revision = 8).await, whole(""));
    // Sorted before it is cut, because there is a filter.
    let by_modification = |r: &mut pb::RangeRequest| {
        r.set_sort_target(pb::range_request::SortTarget::Mod);
        (r.limit, r.max_create_revision) = (2, 4);
    };
    assert_eq!(ask(&by_modification).await, ("cb".to_owned(), true));
    // Without it the first three by key are taken: here, all of them.
    let unfiltered = |r: &mut pb::RangeRequest| {
        r.set_sort_target(pb::range_request::SortTarget::Mod);
        r.limit = 1;
    };
    assert_eq!(ask(&unfiltered).await, ("b".to_owned(), true));
}

#[tokio::test]
async fn s4_1_keys_only_has_the_lease_if_values_were_needed_for_the_sort() {
    use pb::range_request::{SortOrder, SortTarget};
    let member = Member::start().await;
    grant(&member, 7, 60).await;
    for _ in 0..2 {
        member.kv().put(put_with("a", 7)).await.unwrap();
    }
    for (target, lease) in [
        (SortTarget::Key, 0),
        (SortTarget::Version, 0),
        (SortTarget::Create, 0),
        (SortTarget::Mod, 0),
        (SortTarget::Value, 7),
    ] {
        for order in [SortOrder::None, SortOrder::Ascend, SortOrder::Descend] {
            let mut request = range("a", "z");
            request.keys_only = true;
            request.set_sort_target(target);
            request.set_sort_order(order);
            let answer = member.kv().range(request).await.unwrap().into_inner();
            let pair = KeyValue {
                key: Bytes::from_static(b"a"),
                create_revision: 2,
                mod_revision: 3,
                version: 2,
                value: Bytes::new(),
                lease,
            };
            assert_eq!(answer.kvs, [pair], "{target:?} {order:?}");
        }
    }
}

#[tokio::test]
async fn s4_3_put_refusals() {
    let member = Member::start().await;
    let mut kv = member.kv();
    let row = |key: &str, value: &str, ignore_value, ignore_lease, lease| pb::PutRequest {
        ignore_value,
        ignore_lease,
        lease,
        ..put(key, value)
    };
    // 2 before 3 before 4.
    let invalid = Code::InvalidArgument;
    refused(
        kv.put(row("", "v", true, true, 5)).await,
        invalid,
        EMPTY_KEY,
    );
    refused(
        kv.put(row("k", "v", true, true, 5)).await,
        invalid,
        VALUE_PROVIDED,
    );
    refused(
        kv.put(row("k", "", true, true, 5)).await,
        invalid,
        LEASE_PROVIDED,
    );
    // 11 before 12.
    refused(
        kv.put(row("k", "", true, false, 5)).await,
        Code::NotFound,
        LEASE_NOT_FOUND,
    );
    refused(
        kv.put(row("k", "", true, false, 0)).await,
        invalid,
        KEY_NOT_FOUND,
    );
    refused(
        kv.put(row("k", "v", false, true, 0)).await,
        invalid,
        KEY_NOT_FOUND,
    );
    // Nothing of that has changed anything.
    full(kv.range(get("k")).await.unwrap().into_inner().header, 1);
}

#[tokio::test]
async fn s4_3_put_answers() {
    let member = Member::start().await;
    let mut kv = member.kv();
    let with_previous = |value| pb::PutRequest {
        prev_kv: true,
        ..put("k", value)
    };
    let first = kv.put(with_previous("1")).await.unwrap().into_inner();
    assert_eq!(first.prev_kv, None);
    let second = kv.put(with_previous("2")).await.unwrap().into_inner();
    let previous = second.prev_kv.unwrap();
    assert_eq!((&previous.value[..], previous.version), (&b"1"[..], 1));
    let keep = pb::PutRequest {
        ignore_value: true,
        ..put("k", "")
    };
    kv.put(keep).await.unwrap();
    let pair = member.pair("k").await.unwrap();
    assert_eq!(
        (
            &pair.value[..],
            pair.version,
            pair.create_revision,
            pair.mod_revision
        ),
        (&b"2"[..], 3, 2, 4)
    );
    // An empty value is a value.
    member.put("empty", "").await;
    assert_eq!(member.pair("empty").await.unwrap().value, "");
}

/// The pair `a` of [`put_with`], put once at revision 2 with lease 7.
fn leased() -> KeyValue {
    KeyValue {
        key: Bytes::from_static(b"a"),
        create_revision: 2,
        mod_revision: 2,
        version: 1,
        value: Bytes::from_static(b"v"),
        lease: 7,
    }
}

#[tokio::test]
async fn s4_3_the_previous_pair_is_whole() {
    let member = Member::start().await;
    grant(&member, 7, 60).await;
    let mut kv = member.kv();
    kv.put(put_with("a", 7)).await.unwrap();
    let request = |ignore_lease| pb::PutRequest {
        prev_kv: true,
        ignore_lease,
        ..put("a", "v")
    };
    let answer = kv.put(request(true)).await.unwrap().into_inner();
    assert_eq!(answer.prev_kv, Some(leased()));
    // The lease has stayed, until a put without one.
    let kept = KeyValue {
        mod_revision: 3,
        version: 2,
        ..leased()
    };
    let answer = kv.put(request(false)).await.unwrap().into_inner();
    assert_eq!(answer.prev_kv, Some(kept));
    assert_eq!(member.pair("a").await.unwrap().lease, 0);
    // Not asked for.
    let answer = kv.put(put("a", "v")).await.unwrap().into_inner();
    assert_eq!(answer.prev_kv, None);
}

#[tokio::test]
async fn s4_3_ignoring_both_changes_the_revision_only() {
    let member = Member::start().await;
    grant(&member, 7, 60).await;
    member.kv().put(put_with("a", 7)).await.unwrap();
    let request = pb::PutRequest {
        ignore_value: true,
        ignore_lease: true,
        ..put("a", "")
    };
    member.kv().put(request).await.unwrap();
    let pair = KeyValue {
        mod_revision: 3,
        version: 2,
        ..leased()
    };
    assert_eq!(member.pair("a").await, Some(pair));
}

#[tokio::test]
async fn s4_4_previous_pairs_are_whole_and_in_the_order_of_keys() {
    let member = Member::start().await;
    grant(&member, 7, 60).await;
    member.kv().put(put_with("a", 7)).await.unwrap();
    for key in ["c", "b"] {
        member.put(key, "v").await;
    }
    let request = pb::DeleteRangeRequest {
        prev_kv: true,
        ..delete("a", "\0")
    };
    let answer = member.kv().delete_range(request).await.unwrap();
    let answer = answer.into_inner();
    assert_eq!(
        (answer.deleted, keys(&answer.prev_kvs).concat()),
        (3, "abc".to_owned())
    );
    assert_eq!(answer.prev_kvs[0], leased());
}

#[tokio::test]
async fn s4_4_delete_range() {
    let member = Member::start().await;
    let mut kv = member.kv();
    refused(
        kv.delete_range(delete("", "z")).await,
        Code::InvalidArgument,
        EMPTY_KEY,
    );
    for key in ["a", "b", "c"] {
        member.put(key, "v").await;
    }
    let none = kv.delete_range(delete("x", "")).await.unwrap().into_inner();
    assert_eq!(none.deleted, 0);
    full(none.header, 4);
    // Nor is a range that holds nothing.
    for (from, end) in [("b", "b"), ("c", "a"), ("x", "\0")] {
        let none = kv.delete_range(delete(from, end)).await.unwrap();
        assert_eq!(none.into_inner().deleted, 0, "[{from:?}, {end:?})");
    }
    let two = pb::DeleteRangeRequest {
        prev_kv: true,
        ..delete("a", "c")
    };
    let two = kv.delete_range(two).await.unwrap().into_inner();
    assert_eq!((two.deleted, keys(&two.prev_kvs)), (2, vec!["a", "b"]));
    full(two.header, 5);
    let rest = kv
        .delete_range(delete("\0", "\0"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((rest.deleted, rest.prev_kvs.len()), (1, 0));
}

#[tokio::test]
async fn s4_6_compact() {
    let member = Member::start().await;
    let mut kv = member.kv();
    for _ in 2..=5 {
        member.put("a", "1").await;
    }
    let to = |revision| pb::CompactionRequest {
        revision,
        physical: false,
    };
    // 4: nothing is compacted at first (-1), so 0 succeeds once.
    refused(kv.compact(to(-1)).await, Code::OutOfRange, COMPACTED);
    full(kv.compact(to(0)).await.unwrap().into_inner().header, 5);
    refused(kv.compact(to(0)).await, Code::OutOfRange, COMPACTED);
    // 5.
    refused(kv.compact(to(6)).await, Code::OutOfRange, FUTURE);
    kv.compact(to(3)).await.unwrap();
    refused(kv.compact(to(3)).await, Code::OutOfRange, COMPACTED);
    let physical = pb::CompactionRequest {
        revision: 5,
        physical: true,
    };
    kv.compact(physical).await.unwrap();
    refused(kv.compact(physical).await, Code::OutOfRange, COMPACTED);
    // 6.
    let below = pb::RangeRequest {
        revision: 4,
        ..get("a")
    };
    refused(kv.range(below).await, Code::OutOfRange, COMPACTED);
    assert_eq!(member.pair("a").await.unwrap().version, 4);
}
