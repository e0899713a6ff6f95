//! `grpc.reflection.v1` and `v1alpha`: the services describe themselves, so that `grpcurl` and the like
//! need no .proto files. Deviation: etcd does not have it.
//!
//! It tells nobody more than the .proto files do and asks nothing of the member, so none of the checks
//! and counters of other calls apply. The library serves it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use bytes::Bytes;
use ferrite_api::pb::DESCRIPTORS;
use http::{Request, Response};
use http_body::Frame;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic_reflection::server::Builder;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use super::body::Body;

pub(super) type Service =
    BoxCloneSyncService<Request<tonic::body::Body>, Response<tonic::body::Body>, Infallible>;

static V1: LazyLock<Service> = LazyLock::new(|| {
    let service = described().build_v1();
    BoxCloneSyncService::new(service.expect("the build has encoded the descriptors"))
});

/// The same under the name that it had before, which some tools ask for first.
static V1_ALPHA: LazyLock<Service> = LazyLock::new(|| {
    let service = described().build_v1alpha();
    BoxCloneSyncService::new(service.expect("the build has encoded the descriptors"))
});

fn described<'a>() -> Builder<'a> {
    Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS)
}

/// The service of a path.
pub(super) fn of(path: &str) -> Option<&'static LazyLock<Service>> {
    match path {
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo" => Some(&V1),
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => Some(&V1_ALPHA),
        _ => None,
    }
}

/// Serves a call, until `stopping` at the latest.
pub(super) async fn call<B>(
    service: &LazyLock<Service>,
    request: Request<B>,
    stopping: CancellationToken,
) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
{
    let request = request.map(|body| {
        tonic::body::Body::new(UntilStopped {
            body,
            stopped: Box::pin(stopping.cancelled_owned()),
        })
    });
    let response = Service::clone(service).oneshot(request).await;
    response
        .unwrap_or_else(|never| match never {})
        .map(|body| Body::from(axum::body::Body::new(body)))
}

/// The requests of a stream, which end when the server stops; and the stream with them.
struct UntilStopped<B> {
    body: B,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// The client went away.
#[derive(Debug, thiserror::Error)]
#[error("the client is gone")]
struct Gone;

impl<B> http_body::Body for UntilStopped<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = Gone;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Gone>>> {
        if self.stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        frame.map(|frame| frame.map(|frame| frame.map_err(|_| Gone)))
    }
}
