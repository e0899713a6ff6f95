//! A server, a channel to it, and the checks of answers.

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::etcdserverpb::kv_client::KvClient;
use ferrite_server::Server;
use ferrite_server::config::{Config, Url};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

pub(crate) type Answer<T> = Result<Response<T>, Status>;

/// A running server with an empty store.
pub(crate) struct Member {
    server: Server,
    pub(crate) channel: Channel,
    dir: TempDir,
}

impl Member {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), change).await
    }

    /// The same member again, with the same data.
    pub(crate) async fn restart(self, change: impl FnOnce(&mut Config)) -> Self {
        Self::start_in(self.stop().await, change).await
    }

    /// Ends the member, and returns its directory.
    pub(crate) async fn stop(self) -> TempDir {
        self.server.stop().await.unwrap();
        self.dir
    }

    async fn start_in(dir: TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let any = vec![Url::parse("http://127.0.0.1:0").unwrap()];
        let mut config = Config {
            data_dir: dir.path().join("default.etcd"),
            listen_client_urls: any.clone(),
            listen_peer_urls: any,
            ..Config::default()
        };
        change(&mut config);
        let server = Server::start(config).await.unwrap();
        let uri = format!("http://{}", server.client_addresses()[0]);
        let channel = Channel::from_shared(uri).unwrap().connect().await.unwrap();
        Self {
            server,
            channel,
            dir,
        }
    }

    /// Host and port of the clients' side.
    pub(crate) fn address(&self) -> String {
        self.server.client_addresses()[0].to_string()
    }

    /// Host and port of the clients' side that speaks HTTP, also where it is not the one for gRPC.
    pub(crate) fn http_address(&self) -> String {
        let addresses = self.server.client_addresses();
        addresses.last().unwrap().to_string()
    }

    /// What `/metrics` says, line by line.
    pub(crate) async fn metrics(&self) -> Vec<String> {
        let mut stream = tokio::net::TcpStream::connect(self.address())
            .await
            .unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text.lines().map(str::to_owned).collect()
    }

    pub(crate) fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
    }

    /// Puts a pair and returns the revision.
    pub(crate) async fn put(&self, key: &str, value: &str) -> i64 {
        let answer = self.kv().put(put(key, value)).await.unwrap();
        answer.into_inner().header.unwrap().revision
    }

    /// The pair of a key, if it is there.
    pub(crate) async fn pair(&self, key: &str) -> Option<ferrite_api::pb::mvccpb::KeyValue> {
        let answer = self.kv().range(get(key)).await.unwrap();
        answer.into_inner().kvs.into_iter().next()
    }
}

pub(crate) fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: Bytes::from(key.to_owned()),
        value: Bytes::from(value.to_owned()),
        ..Default::default()
    }
}

pub(crate) fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest {
        key: Bytes::from(key.to_owned()),
        ..Default::default()
    }
}

/// The range `[key, end)`.
pub(crate) fn range(key: &str, end: &str) -> pb::RangeRequest {
    pb::RangeRequest {
        key: Bytes::from(key.to_owned()),
        range_end: Bytes::from(end.to_owned()),
        ..Default::default()
    }
}

pub(crate) fn delete(key: &str, end: &str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest {
        key: Bytes::from(key.to_owned()),
        range_end: Bytes::from(end.to_owned()),
        ..Default::default()
    }
}

/// The answer is this refusal.
#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(answer: Answer<T>, code: Code, text: &str) {
    let status = answer.expect_err("a refusal");
    assert_eq!((status.code(), status.message()), (code, text));
}

/// A full header: ids, term, and this revision.
#[track_caller]
pub(crate) fn full(header: Option<pb::ResponseHeader>, revision: i64) {
    let header = header.expect("a header");
    assert!(
        header.cluster_id != 0 && header.member_id != 0 && header.raft_term != 0,
        "{header:?}"
    );
    assert_eq!(header.revision, revision);
}

/// Keys of pairs, as text.
pub(crate) fn keys(kvs: &[ferrite_api::pb::mvccpb::KeyValue]) -> Vec<&str> {
    kvs.iter()
        .map(|kv| std::str::from_utf8(&kv.key).unwrap())
        .collect()
}

pub(crate) const EMPTY_KEY: &str = "etcdserver: key is not provided";
pub(crate) const KEY_NOT_FOUND: &str = "etcdserver: key not found";
pub(crate) const VALUE_PROVIDED: &str = "etcdserver: value is provided";
pub(crate) const LEASE_PROVIDED: &str = "etcdserver: lease is provided";
pub(crate) const LEASE_NOT_FOUND: &str = "etcdserver: requested lease not found";
pub(crate) const SORT_OPTION: &str = "etcdserver: invalid sort option";
pub(crate) const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
pub(crate) const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";
pub(crate) const TOO_MANY_OPS: &str = "etcdserver: too many operations in txn request";
pub(crate) const DUPLICATE_KEY: &str = "etcdserver: duplicate key given in txn request";
pub(crate) const TOO_LARGE: &str = "etcdserver: request is too large";
pub(crate) const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";
pub(crate) const CORRUPT: &str = "etcdserver: corrupt cluster";
