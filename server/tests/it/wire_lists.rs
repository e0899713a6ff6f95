//! Long answers of a whole server: clients that read slowly, leave, or run into their deadline.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, too")]

use std::time::Duration;

use bytes::{Buf, Bytes};
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_server::config::{Config, Url};
use ferrite_server::handle::Handle;
use ferrite_server::{Server, handle};
use prost::Message;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::wire_support::{Raw, send, soon, status_of};

const RANGE: &str = "/etcdserverpb.KV/Range";
const RANGE_STREAM: &str = "/etcdserverpb.KV/RangeStream";

/// More than the window of a client and all that is read ahead.
const KEYS: usize = 100;
const VALUE_LEN: usize = 100_000;

struct Running {
    server: Server,
    _dir: tempfile::TempDir,
}

impl Running {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let any = vec![Url::parse("http://127.0.0.1:0").unwrap()];
        let config = Config {
            data_dir: dir.path().join("default.etcd"),
            listen_client_urls: any.clone(),
            listen_peer_urls: any,
            ..Config::default()
        };
        let server = Server::start(config).await.unwrap();
        for number in 0..KEYS {
            let put = pb::PutRequest {
                key: format!("k{number:03}").into(),
                value: vec![b'v'; VALUE_LEN].into(),
                ..Default::default()
            };
            server.handle().put(put).await.unwrap();
        }
        Self { server, _dir: dir }
    }

    fn handle(&self) -> &Handle {
        self.server.handle()
    }

    async fn raw(&self) -> Raw {
        let address = self.server.client_addresses()[0].to_string();
        Raw::connect(TcpStream::connect(address).await.unwrap()).await
    }

    async fn idle(&self) {
        soon(async {
            while self.handle().bytes_read_ahead() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }
}

fn everything() -> pb::RangeRequest {
    pb::RangeRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_and_the_stream_are_whole() {
    let running = Running::start().await;
    let raw = running.raw().await;
    let answer = raw.answer(send(RANGE, &everything())).await;
    let whole: pb::RangeResponse = answer.message();
    assert_eq!((whole.kvs.len(), whole.count), (KEYS, KEYS as i64));

    let answer = raw.answer(send(RANGE_STREAM, &everything())).await;
    assert_eq!(answer.status().0, 0);
    let mut data = answer.data.clone();
    let mut merged = pb::RangeStreamResponse::default();
    let mut messages = 0;
    while data.has_remaining() {
        assert_eq!(data.get_u8(), 0);
        let length = data.get_u32() as usize;
        merged.merge(data.split_to(length)).unwrap();
        messages += 1;
    }
    assert_eq!(merged.range_response.unwrap(), whole);
    // 10, 20, 20, ...: a million bytes and more is enough for one message.
    assert!(messages > 3, "{messages} messages");
    running.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_in_the_middle_leaves_nothing_behind() {
    let running = Running::start().await;
    let raw = running.raw().await;
    for path in [RANGE, RANGE_STREAM] {
        let (response, stream) = raw.begin(send(path, &everything())).await.unwrap();
        let mut body = response.into_body();
        body.data().await.unwrap().unwrap();
        // The window is full now and the reader waits, without a thread.
        soon(async {
            while running.handle().bytes_read_ahead() < VALUE_LEN as u64 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        drop((body, stream));
        running.idle().await;
    }
    // The connection and the server go on.
    let answer = raw.answer(send(RANGE, &everything())).await;
    assert_eq!(answer.message::<pb::RangeResponse>().kvs.len(), KEYS);
    running.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deadline_ends_an_answer_in_the_middle() {
    let running = Running::start().await;
    let raw = running.raw().await;
    let deadline = Duration::from_millis(200);
    for path in [RANGE, RANGE_STREAM] {
        let request = send(path, &everything()).header("grpc-timeout", "200m");
        let begun = Instant::now();
        let (response, _stream) = raw.begin(request).await.unwrap();
        let mut body = response.into_body();
        // The window holds less than half of the answer: there it stands when time is over, which the
        // server counts from when it has seen the request.
        tokio::time::sleep_until(begun + 5 * deadline).await;
        while let Some(data) = soon(body.data()).await {
            let data = data.unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
        }
        let trailers = soon(body.trailers()).await.unwrap().unwrap();
        assert_eq!(
            status_of(&trailers),
            (4, "context deadline exceeded".to_owned())
        );
        running.idle().await;
    }
    running.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedding_program_reads_as_it_likes() {
    let running = Running::start().await;
    let mut list = running.handle().list(everything()).await.unwrap();
    assert_eq!((list.count(), list.more()), (KEYS as i64, false));
    let mut pairs = 0;
    while let Some(piece) = list.next().await {
        for pair in handle::List::pairs(piece.unwrap()) {
            let pair = ferrite_api::pb::mvccpb::KeyValue::decode(pair).unwrap();
            assert_eq!(pair.value.len(), VALUE_LEN);
            pairs += 1;
        }
    }
    assert_eq!(pairs, KEYS);
    running.server.stop().await.unwrap();
}
