use ferrite_api::pb::mvccpb::KeyValue;
use tonic::Code;

use super::*;
use crate::error::Error;
use crate::handle::readers::{AHEAD, FEW, PIECE, PLENTY};
use crate::handle::{List, RangeReply};

/// All of a list, and how many pieces it took.
async fn read(mut list: List) -> Result<(Vec<KeyValue>, usize), Error> {
    let (mut kvs, mut pieces) = (Vec::new(), 0);
    while let Some(piece) = list.next().await {
        let before = list.bytes();
        let piece = piece?;
        assert!(before < u64::MAX / 2, "more came than was promised");
        kvs.extend(List::pairs(piece).map(|pair| KeyValue::decode(pair).unwrap()));
        pieces += 1;
    }
    assert_eq!(list.bytes(), 0);
    Ok((kvs, pieces))
}

#[tokio::test]
async fn a_long_list_comes_in_pieces_of_its_revision_while_the_store_changes() {
    let mut store = Store::filled(1000, 1000);
    let revision = store.state.store().revision();
    let mut list = store.handle.list(everything()).await.unwrap();
    assert_eq!((list.count(), list.more()), (1000, false));
    assert_eq!(list.header().revision, revision);
    let first = list.next().await.unwrap().unwrap();
    assert!(first.len() <= PIECE, "{} bytes", first.len());
    for number in (0..1000).step_by(2) {
        store.put(key(number), "changed");
        store.put(format!("{}-new", key(number)), "new");
    }
    store.checkpoint();
    let mut kvs: Vec<_> = List::pairs(first)
        .map(|pair| KeyValue::decode(pair).unwrap())
        .collect();
    let (rest, pieces) = read(list).await.unwrap();
    kvs.extend(rest);
    assert!(pieces >= 7, "{pieces} pieces");
    assert_eq!(kvs.len(), 1000);
    for (number, kv) in kvs.iter().enumerate() {
        assert_eq!(kv.key, key(number));
        assert_eq!(kv.value, value(number, 1000));
    }
    until(|| !store.has_pins()).await;
    assert_eq!(store.handle.bytes_read_ahead(), 0);
}

#[tokio::test]
async fn short_lists_are_one_piece_and_pin_nothing() {
    let store = Store::filled(200, 1000);
    for (limit, pieces) in [(1, 1), (64, 1), (100, 1)] {
        let request = pb::RangeRequest {
            limit,
            ..everything()
        };
        let list = store.handle.list(request).await.unwrap();
        assert_eq!((list.count(), list.more()), (200, true));
        assert!(!store.has_pins());
        let (kvs, got) = read(list).await.unwrap();
        assert_eq!((kvs.len(), got), (limit as usize, pieces));
    }
    let none = pb::RangeRequest {
        key: "absent".into(),
        serializable: true,
        ..Default::default()
    };
    let reply = store.handle.range(none).await.unwrap();
    let expected = RangeReply {
        header: reply.header,
        ..RangeReply::default()
    };
    assert_eq!((reply.kvs.len(), reply.count), (expected.kvs.len(), 0));
}

#[tokio::test]
async fn counts_and_keys_never_touch_the_page_file() {
    let store = Store::filled(2000, 1000);
    // Whatever is read from now on fails.
    store.disk.crash();
    for (request, keys) in [
        (
            pb::RangeRequest {
                count_only: true,
                ..everything()
            },
            0,
        ),
        (
            pb::RangeRequest {
                keys_only: true,
                ..everything()
            },
            2000,
        ),
        (
            pb::RangeRequest {
                keys_only: true,
                sort_order: 2,
                sort_target: 3,
                limit: 1500,
                ..everything()
            },
            1500,
        ),
    ] {
        let reply = store.handle.range(request).await.unwrap();
        assert_eq!((reply.kvs.len(), reply.count), (keys, 2000));
    }
    let error = store.handle.range(everything()).await.unwrap_err();
    assert_eq!(error.code(), Code::DataLoss);
}

#[tokio::test]
async fn a_hundred_lists_that_nobody_reads_hold_a_bounded_piece_each_and_no_thread() {
    let store = Store::filled(1500, 1000);
    let mut lists = Vec::new();
    for _ in 0..100 {
        let mut list = store.handle.list(everything()).await.unwrap();
        list.next().await.unwrap().unwrap();
        lists.push(list);
    }
    let few = (100 * FEW * PIECE) as u64;
    // All readers have read what they may: at least a piece less one pair for each.
    until(|| store.handle.bytes_read_ahead() > few * 9 / 10).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
        let ahead = store.handle.bytes_read_ahead();
        assert!(ahead <= PLENTY + few, "{ahead} bytes ahead");
    }
    // They hold up nobody.
    let (kvs, _) = read(store.handle.list(everything()).await.unwrap())
        .await
        .unwrap();
    assert_eq!(kvs.len(), 1500);
    // One of them goes on where it was, the others leave.
    let last = lists.pop().unwrap();
    drop(lists);
    until(|| store.handle.bytes_read_ahead() <= (AHEAD * PIECE) as u64).await;
    let (kvs, _) = read(last).await.unwrap();
    assert_eq!(kvs.last().unwrap().key, key(1499));
    until(|| !store.has_pins()).await;
    assert_eq!(store.handle.bytes_read_ahead(), 0);
}

#[tokio::test]
async fn a_compaction_waits_for_a_list_that_goes_on() {
    let mut store = Store::filled(1000, 1000);
    let mut list = store.handle.list(everything()).await.unwrap();
    list.next().await.unwrap().unwrap();
    for number in 0..1000 {
        store.put(key(number), "newer");
    }
    store.compact(store.state.store().revision());
    store.checkpoint();
    store.checkpoint();
    assert!(store.state.compacting());
    let (kvs, _) = read(list).await.unwrap();
    assert_eq!(kvs.last().unwrap().value, value(999, 1000));
    until(|| !store.has_pins()).await;
    store.finish_compaction();
}

#[tokio::test]
async fn a_list_ends_compacted_when_the_patience_of_compaction_ends() {
    let mut store = Store::filled(1000, 1000);
    let mut list = store.handle.list(everything()).await.unwrap();
    list.next().await.unwrap().unwrap();
    // One of them was taken.
    until(|| store.handle.bytes_read_ahead() > (PIECE * (AHEAD - 1) * 9 / 10) as u64).await;
    for number in 0..1000 {
        store.put(key(number), "newer");
    }
    store.compact(store.state.store().revision());
    store.finish_compaction();
    let error = read(list).await.unwrap_err();
    assert_eq!(error, ferrite_api::Error::Compacted.into());
    until(|| !store.has_pins()).await;
}

#[tokio::test(start_paused = true)]
async fn a_list_that_pauses_gives_up_what_it_holds_and_goes_on_if_it_can() {
    let mut store = Store::filled(1000, 1000);
    let mut goes_on = store.handle.list(everything()).await.unwrap();
    goes_on.next().await.unwrap().unwrap();
    until(|| !store.has_pins()).await;
    // Its revision is still there.
    store.put("k00999", "newer");
    let (kvs, _) = read(goes_on).await.unwrap();
    assert_eq!(kvs.last().unwrap().value, value(999, 1000));

    let mut late = store.handle.list(everything()).await.unwrap();
    late.next().await.unwrap().unwrap();
    until(|| !store.has_pins()).await;
    store.put("k00999", "newest");
    store.compact(store.state.store().revision());
    store.finish_compaction();
    let error = read(late).await.unwrap_err();
    assert_eq!(error, ferrite_api::Error::Compacted.into());
}

#[tokio::test]
async fn damage_under_a_list_ends_it_and_names_the_row() {
    let store = Store::filled(1000, 1000);
    let mut list = store.handle.list(everything()).await.unwrap();
    let first = list.next().await.unwrap().unwrap();
    let read_before = List::pairs(first).count();
    // The value of the last key, wherever it is.
    let file = store.disk.read(Path::new(PATH)).unwrap();
    let needle = value(999, 1000);
    let places = file.windows(needle.len()).enumerate();
    for (at, _) in places.filter(|(_, bytes)| *bytes == needle.as_bytes()) {
        store
            .disk
            .flip_bit(Path::new(PATH), at as u64 + 500, 3)
            .unwrap();
    }
    let mut pairs = read_before;
    let error = loop {
        match list.next().await.expect("an error before the end") {
            Ok(piece) => pairs += List::pairs(piece).count(),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), Code::DataLoss);
    let text = error.message();
    // Revision 2 is the first put's. Three rows share the page that is damaged.
    let rows = ["row 999.0: ", "row 1000.0: ", "row 1001.0: "];
    assert!(rows.iter().any(|row| text.contains(row)), "{text}");
    assert!(text.contains("checksum"), "{text}");
    assert!(pairs >= 800, "{pairs} pairs before the damage");
    assert!(list.next().await.is_none());
    until(|| !store.has_pins()).await;
}
