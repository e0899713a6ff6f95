//! Ranges in pieces, from servers that stream them and from servers that do not.

use ferrite_client::pb::etcdserverpb::RangeResponse;
use ferrite_client::{Client, DeleteOptions, GetOptions, PutOptions, SortOrder, SortTarget};
use ferrite_fake::Fake;
use tonic::Code;

use crate::client_of;

/// More than two pages.
const PAIRS: usize = 2100;

async fn filled(client: &Client) {
    for chunk in (0..PAIRS).collect::<Vec<_>>().chunks(500) {
        let puts = chunk.iter().map(|index| {
            let key = format!("k{index:05}");
            ferrite_client::TxnOp::put(key, "v", PutOptions::new())
        });
        let txn = ferrite_client::Txn::new().and_then(puts);
        client.txn(txn).await.expect("put");
    }
}

async fn streamed(client: &Client, options: GetOptions) -> RangeResponse {
    let stream = client.range_stream("k", options).await.expect("open");
    stream.collect().await.expect("whole")
}

#[tokio::test]
async fn pieces_together_are_what_a_get_returns() {
    for lacking in [false, true] {
        let fake = Fake::start(1);
        let client = client_of(&[&fake]).await;
        filled(&client).await;
        if lacking {
            fake.lack_range_stream();
        }
        let prefix = || GetOptions::new().prefix();
        for options in [
            prefix(),
            prefix().limit(1500),
            prefix().limit(1000),
            prefix().limit(PAIRS as i64),
            prefix().keys_only(),
            prefix().count_only(),
            prefix().revision(3),
            GetOptions::new(),
            GetOptions::new().range("k00003"),
        ] {
            let got = client.get("k", options.clone()).await.expect("get");
            let streamed = streamed(&client, options.clone()).await;
            assert!(got == streamed, "lacking: {lacking}, {options:?}");
        }
    }
}

#[tokio::test]
async fn pages_are_of_one_revision() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    filled(&client).await;
    fake.lack_range_stream();
    let before = client.get("k", GetOptions::new().prefix()).await;
    let before = before.expect("get");
    let options = GetOptions::new().prefix();
    let mut stream = client.range_stream("k", options).await.expect("open");
    let first = stream.next().await.expect("a page").expect("a first one");
    assert_eq!(
        (first.kvs.len(), first.header, first.count),
        (1000, None, 0)
    );
    let all = DeleteOptions::new().prefix();
    client.delete("k", all).await.expect("delete");
    let mut kvs = first.kvs;
    let mut header = None;
    while let Some(piece) = stream.next().await.expect("a page") {
        kvs.extend(piece.kvs);
        header = piece.header;
    }
    assert!(kvs == before.kvs);
    assert_eq!(header, before.header);
    assert!(stream.next().await.expect("the end").is_none());
}

#[tokio::test]
async fn what_pages_cannot_do_is_refused() {
    let fake = Fake::start(1);
    fake.lack_range_stream();
    let client = client_of(&[&fake]).await;
    for options in [
        GetOptions::new().sort(SortTarget::Mod, SortOrder::Ascend),
        GetOptions::new().min_mod_revision(2),
        GetOptions::new().max_create_revision(2),
    ] {
        let error = client.range_stream("k", options).await;
        let error = error.expect_err("refused");
        assert_eq!(error.code(), Some(Code::Unimplemented));
    }
}
