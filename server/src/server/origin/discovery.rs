//! v3 discovery: the members of a new cluster find each other by keys in another etcd
//! (spec/server-flags.md section 7).
//!
//! | Key | Value |
//! |---|---|
//! | `/_etcd/registry/<token>/_config/size` | how many members, written by the operator |
//! | `/_etcd/registry/<token>/members/<id>` | `name=url,name=url`, written by each member |
//!
//! Who is among the first by the revision in which its key was made is a member.

use std::pin::Pin;
use std::time::Duration;

use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::etcdserverpb::kv_client::KvClient;
use ferrite_api::pb::etcdserverpb::watch_client::WatchClient;
use ferrite_api::pb::etcdserverpb::watch_request::RequestUnion;
use ferrite_api::pb::mvccpb::KeyValue;
use ferrite_api::types::MemberId;
use ferrite_tls::H2;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tower::service_fn;

use crate::config::{Discovery, UrlsMap};
use crate::error::chain;

/// Where everything about clusters that find each other begins.
const REGISTRY: &str = "/_etcd/registry";

/// Attempts after which the pause between two of them grows no more; it doubles from 2 s.
const MAX_DOUBLINGS: u32 = 8;

/// Why it ends without a cluster. What may pass is tried again for ever.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The operator has not written how many members there are.
    #[error("discovery: size key not found")]
    SizeNotFound,
    /// What is written there is no number of members.
    #[error("discovery: size key is bad")]
    BadSize,
    /// Others were faster.
    #[error("discovery: cluster is full")]
    Full,
    /// Some member has registered URLs that are none.
    #[error("discovery: invalid peer URL")]
    InvalidUrl,
}

/// Registers a member as `own` and waits until all have come; gives them as `--initial-cluster` would
/// name them.
///
/// # Errors
/// See [`Error`].
pub(super) async fn join(discovery: &Discovery, id: MemberId, own: &str) -> Result<String, Error> {
    let service = Service { discovery };
    let keys = Keys::of(&discovery.token, id);
    let mut attempts = Attempts::default();
    // The first look keeps a member out of the registry that has no place in the cluster.
    service.look(&keys, &mut attempts).await?;
    while let Err(status) = service.put(&keys.own, own).await {
        tracing::warn!(%status, "failed to register members itself to the discovery service");
        attempts.pause("register member itself").await;
    }
    attempts = Attempts::default();
    tracing::info!(
        memberKey = keys.own,
        memberInfo = own,
        "register member itself successfully"
    );
    let (mut registered, size, mut revision) = service.look(&keys, &mut attempts).await?;
    while registered.members.len() < size {
        tracing::info!(
            clusterSize = size,
            "found-peers" = registered.members.len(),
            "waiting for peers from discovery service"
        );
        if let Err(status) = service.wait(&keys, &mut registered, size, revision).await {
            tracing::warn!(%status, "the discovery service does not answer any more");
            attempts.pause("waiting for peers").await;
            (registered, _, revision) = service.look(&keys, &mut attempts).await?;
        }
    }
    registered.cluster(size)
}

/// Pauses between attempts that fail.
#[derive(Default)]
struct Attempts(u32);

impl Attempts {
    async fn pause(&mut self, reason: &str) {
        self.0 = (self.0 + 1).min(MAX_DOUBLINGS);
        let backoff = Duration::from_secs(1 << self.0);
        tracing::warn!(reason, ?backoff, "retry connecting to discovery service");
        sleep(backoff).await;
    }
}

/// The keys of a cluster and of one of its members.
pub(super) struct Keys {
    pub(super) size: String,
    pub(super) members: String,
    pub(super) own: String,
}

impl Keys {
    pub(super) fn of(token: &str, id: MemberId) -> Keys {
        let members = join_path(&[REGISTRY, token, "members"]);
        Keys {
            size: join_path(&[REGISTRY, token, "_config/size"]),
            own: format!("{members}/{id}"),
            members,
        }
    }
}

/// Go's `path.Join`, of an absolute path.
fn join_path(parts: &[&str]) -> String {
    let mut steps = Vec::new();
    for step in parts.iter().flat_map(|part| part.split('/')) {
        match step {
            "" | "." => {}
            ".." => drop(steps.pop()),
            step => steps.push(step),
        }
    }
    format!("/{}", steps.join("/"))
}

/// Who has registered, in the order in which that was done.
#[derive(Debug, Default)]
pub(super) struct Registered {
    pub(super) members: Vec<Registration>,
}

/// One member's key.
#[derive(Debug)]
pub(super) struct Registration {
    key: String,
    urls: String,
    created: i64,
}

impl Registered {
    /// Takes a key of the registry; what makes no sense is left out, with a line in the log.
    pub(super) fn add(&mut self, found: &KeyValue) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let (key, urls) = (text(&found.key), text(&found.value));
        let reason = if !urls.contains('=') {
            "invalid peer info returned from discovery service"
        } else if self.members.iter().any(|member| member.key == key) {
            "found duplicate peer from discovery service"
        } else {
            tracing::info!(
                memberKey = key,
                memberInfo = urls,
                "found peer from discovery service"
            );
            let created = found.create_revision;
            self.members.push(Registration { key, urls, created });
            self.members.sort_by_key(|member| member.created);
            return;
        };
        tracing::warn!(memberKey = key, memberInfo = urls, "{reason}");
    }

    /// Whether `size` others were faster.
    pub(super) fn is_full(&self, own: &str, size: usize) -> bool {
        let before = self.members.iter().take_while(|member| member.key != own);
        before.count() >= size
    }

    /// The first `size`, as `--initial-cluster` would name them.
    pub(super) fn cluster(&self, size: usize) -> Result<String, Error> {
        let members = self.members.iter().take(size);
        let urls: Vec<&str> = members.map(|member| &*member.urls).collect();
        let cluster = urls.join(",");
        match UrlsMap::parse(&cluster) {
            Ok(_) => Ok(cluster),
            Err(_) => Err(Error::InvalidUrl),
        }
    }
}

/// The number of members that the operator wants.
pub(super) fn size_of(value: &[u8]) -> Result<usize, Error> {
    let text = std::str::from_utf8(value).map_err(|_| Error::BadSize)?;
    match text.parse::<i64>().map(usize::try_from) {
        Ok(Ok(size)) if size > 0 => Ok(size),
        _ => Err(Error::BadSize),
    }
}

/// A call under way. Boxed, so that it is plain to the compiler that a start may move to another thread.
type Calling<T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send>>;

/// The other etcd. Each request tries the endpoints in turn, over a new connection.
struct Service<'a> {
    discovery: &'a Discovery,
}

impl Service<'_> {
    /// Reads size and members, until that succeeds.
    async fn look(
        &self,
        keys: &Keys,
        attempts: &mut Attempts,
    ) -> Result<(Registered, usize, i64), Error> {
        loop {
            match self.read(keys).await {
                Ok((None, ..)) => return Err(Error::SizeNotFound),
                Ok((Some(size), registered, revision)) => {
                    let size = size_of(&size.value)?;
                    if registered.is_full(&keys.own, size) {
                        return Err(Error::Full);
                    }
                    return Ok((registered, size, revision));
                }
                Err(status) => {
                    tracing::warn!(%status, "failed to get cluster from discovery service");
                    attempts.pause("cluster status check").await;
                }
            }
        }
    }

    async fn read(&self, keys: &Keys) -> Result<(Option<KeyValue>, Registered, i64), Status> {
        let size = self
            .range(pb::RangeRequest {
                key: keys.size.clone().into(),
                ..pb::RangeRequest::default()
            })
            .await?;
        let members = self
            .range(pb::RangeRequest {
                key: keys.members.clone().into(),
                range_end: end_of(&keys.members).into(),
                ..pb::RangeRequest::default()
            })
            .await?;
        let mut registered = Registered::default();
        members.kvs.iter().for_each(|found| registered.add(found));
        let revision = members.header.unwrap_or_default().revision;
        Ok((size.kvs.into_iter().next(), registered, revision))
    }

    async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
        let call = |channel| -> Calling<_> {
            let request = request.clone();
            Box::pin(async move { KvClient::new(channel).range(request).await })
        };
        Ok(self.call(call).await?.into_inner())
    }

    async fn put(&self, key: &str, value: &str) -> Result<(), Status> {
        let request = pb::PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..pb::PutRequest::default()
        };
        // A second time it does no harm.
        let call = |channel| -> Calling<_> {
            let request = request.clone();
            Box::pin(async move { KvClient::new(channel).put(request).await })
        };
        self.call(call).await.map(drop)
    }

    /// Watches the registry after `revision` until `size` members are in it.
    async fn wait(
        &self,
        keys: &Keys,
        registered: &mut Registered,
        size: usize,
        revision: i64,
    ) -> Result<(), Status> {
        let create = pb::WatchCreateRequest {
            key: keys.members.clone().into(),
            range_end: end_of(&keys.members).into(),
            start_revision: revision + 1,
            ..pb::WatchCreateRequest::default()
        };
        let request = pb::WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        };
        let call = |channel| -> Calling<_> {
            // A stream that ends would end the watch.
            let requests = tokio_stream::once(request.clone()).chain(tokio_stream::pending());
            Box::pin(async move { WatchClient::new(channel).watch(requests).await })
        };
        let mut responses = self.call(call).await?.into_inner();
        while registered.members.len() < size {
            let response = responses.message().await?;
            let response = response.ok_or_else(|| Status::unavailable("the watch has ended"))?;
            if response.canceled {
                return Err(Status::unavailable(response.cancel_reason));
            }
            let puts = response.events.iter().filter_map(|event| event.kv.as_ref());
            puts.for_each(|found| registered.add(found));
        }
        Ok(())
    }

    async fn call<T>(&self, call: impl Fn(Channel) -> Calling<T>) -> Result<T, Status> {
        let mut failure = Status::new(Code::Unavailable, "no endpoint");
        for endpoint in &self.discovery.endpoints {
            let called = timeout(self.discovery.request_timeout, async {
                call(self.connect(endpoint).await?).await
            });
            match called.await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) => failure = status,
                Err(_) => failure = Status::deadline_exceeded("context deadline exceeded"),
            }
        }
        Err(failure)
    }

    async fn connect(&self, endpoint: &str) -> Result<Channel, Status> {
        let (secure, address) = match endpoint.split_once("://") {
            Some(("https", address)) => (true, address),
            Some(("http", address)) => (false, address),
            Some(_) => return Err(Status::unavailable(format!("{endpoint}: unknown scheme"))),
            None => (self.discovery.tls.is_some(), endpoint),
        };
        let failed = |error: tonic::transport::Error| {
            Status::unavailable(format!("{endpoint}: {}", chain(&error)))
        };
        // TLS is the connector's business.
        let target = Endpoint::from_shared(format!("http://{address}"))
            .map_err(failed)?
            .connect_timeout(self.discovery.dial_timeout)
            .http2_keep_alive_interval(self.discovery.keepalive_time)
            .keep_alive_timeout(self.discovery.keepalive_timeout);
        if !secure {
            return target.connect().await.map_err(failed);
        }
        let info = self.discovery.tls.clone().unwrap_or_default();
        let tls = info.client(&[H2]);
        let tls = tls.map_err(|error| Status::unavailable(format!("{endpoint}: {error}")))?;
        let connector = service_fn(move |url: Uri| {
            let tls = tls.clone();
            async move {
                let host = url.host().unwrap_or_default();
                let address = url.authority().map_or("", |authority| authority.as_str());
                let stream = TcpStream::connect(address).await?;
                tls.connect(host, stream).await.map(TokioIo::new)
            }
        });
        target
            .connect_with_connector(connector)
            .await
            .map_err(failed)
    }
}

/// The end of the range of keys that begin with `prefix`, whose last byte is a letter.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}
