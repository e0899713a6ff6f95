//! Watchers over a server that is killed: whoever resumes behind the last revision it has seen
//! misses nothing and sees nothing twice.

use std::time::Duration;

use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::etcdserverpb::kv_client::KvClient;
use ferrite_api::pb::etcdserverpb::watch_client::WatchClient;
use ferrite_api::pb::etcdserverpb::watch_request::RequestUnion;
use ferrite_robustness::process::Process;
use tonic::transport::{Channel, Endpoint};

/// Puts in flight while the server is killed.
const WRITERS: usize = 8;

/// A change: revision, key, value.
type Change = (i64, bytes::Bytes, bytes::Bytes);

async fn channel(server: &Process) -> Channel {
    let uri = format!("http://{}", server.endpoint());
    Endpoint::from_shared(uri).unwrap().connect().await.unwrap()
}

/// Watches everything from `start` on into `seen`, until `upto` or the end of the connection.
async fn watch(channel: Channel, start: i64, upto: i64, seen: &mut Vec<Change>) {
    let create = pb::WatchCreateRequest {
        key: bytes::Bytes::from_static(b"\0"),
        range_end: bytes::Bytes::from_static(b"\0"),
        start_revision: start,
        ..Default::default()
    };
    let request = pb::WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    };
    let mut client = WatchClient::new(channel);
    let Ok(stream) = client.watch(tokio_stream::once(request)).await else {
        return;
    };
    let mut stream = stream.into_inner();
    while seen.last().is_none_or(|(last, ..)| *last < upto) {
        let response = tokio::time::timeout(Duration::from_secs(60), stream.message()).await;
        let Ok(Some(response)) = response.expect("an event or the end of the stream") else {
            return;
        };
        assert!(!response.canceled, "{response:?}");
        for event in response.events {
            let kv = event.kv.unwrap();
            seen.push((kv.mod_revision, kv.key, kv.value));
        }
    }
}

/// Puts until the connection ends.
async fn write(channel: Channel, writer: usize, round: i64) {
    let mut client = KvClient::new(channel);
    for n in 0_u64.. {
        let put = pb::PutRequest {
            key: format!("writer {writer}").into(),
            value: format!("{round} {n}").into(),
            ..Default::default()
        };
        if client.put(put).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_resume_exactly_after_kill_minus_9() {
    let binary = Process::built_beside_tests().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut server = Process::new(&binary, dir.path(), &[]).unwrap();
    let mut seen: Vec<Change> = Vec::new();
    for round in 0..3 {
        server.start().await.unwrap();
        let channel = channel(&server).await;
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| tokio::spawn(write(channel.clone(), writer, round)))
            .collect();
        let start = seen.last().map_or(1, |(last, ..)| last + 1);
        // Some hundred events, then the kill, with events and writes in flight.
        watch(channel.clone(), start, start + 300, &mut seen).await;
        server.kill().unwrap();
        for writer in writers {
            writer.await.unwrap();
        }
    }
    server.start().await.unwrap();
    let channel = channel(&server).await;
    let all = pb::RangeRequest {
        key: bytes::Bytes::from_static(b"\0"),
        range_end: bytes::Bytes::from_static(b"\0"),
        ..Default::default()
    };
    let newest = KvClient::new(channel.clone()).range(all).await.unwrap();
    let newest = newest.into_inner().header.unwrap().revision;
    let start = seen.last().map_or(1, |(last, ..)| last + 1);
    watch(channel.clone(), start, newest, &mut seen).await;
    let mut history = Vec::new();
    watch(channel, 1, newest, &mut history).await;
    assert!(history.len() > 900, "{} changes", history.len());
    // One put a revision: no gap, nothing twice, and the same as whoever reads it all at once.
    let revisions: Vec<i64> = history.iter().map(|(revision, ..)| *revision).collect();
    assert_eq!(revisions, (2..=newest).collect::<Vec<_>>());
    assert_eq!(seen, history);
}
