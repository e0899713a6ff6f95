//! `Watch.Watch`: requests into a [`WatchStream`], its responses out. Everything that is decided is
//! decided in [`crate::watch`].

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::etcdserverpb::watch_request::RequestUnion;
use prometheus::local::LocalHistogram;
use tonic::Code;

use super::Kv;
use super::stream::{Frames, Requests, Responses, Streaming};
use crate::error::Error;
use crate::handle::WatchStream;
use crate::metrics::{Method, Metrics};
use crate::watch::{Content, Pieces, Response};

/// Responses that are sent before requests are looked at again.
const BURST: u32 = 256;

/// Watch.Watch.
pub(super) struct Watch;

impl Streaming for Watch {
    const METHOD: Method = Method::WatchWatch;
    type Request = pb::WatchRequest;
    type Response = pb::WatchResponse;

    async fn serve<K: Kv>(
        kv: K,
        mut requests: Requests<pb::WatchRequest>,
        responses: Responses<pb::WatchResponse>,
    ) -> Result<(), Error> {
        let mut watch = kv.watch()?.of_connection(requests.connection());
        let mut sender = Sender::new(responses);
        // Whether the client may still send requests. It need not, to go on watching.
        let mut open = true;
        loop {
            let more = sender.burst(&mut watch)?;
            // Not before there is room for the answer: what a request adds is bounded this way.
            sender.responses.room().await;
            tokio::select! {
                biased;
                request = requests.next(), if open => match request {
                    Ok(Some(request)) => take(&mut watch, request).await,
                    Ok(None) => open = false,
                    Err(error) => return Err(sender.broken(error)),
                },
                () = std::future::ready(()), if more => {}
                response = watch.next(), if !more => sender.first(&response?)?,
            }
        }
    }
}

async fn take(watch: &mut WatchStream, request: pb::WatchRequest) {
    match request.request_union {
        Some(RequestUnion::CreateRequest(request)) => watch.create(request).await,
        Some(RequestUnion::CancelRequest(request)) => watch.cancel(request.watch_id),
        Some(RequestUnion::ProgressRequest(_)) => watch.request_progress(),
        // A kind of request that a later version may know.
        None => tracing::debug!("a watch request of no known kind"),
    }
}

impl Pieces for Frames {
    fn small(&mut self, write: impl FnOnce(&mut BytesMut)) {
        self.encode(write);
    }

    fn shared(&mut self, piece: &Bytes) {
        self.share(piece);
    }
}

/// Sends responses, and measures it.
struct Sender {
    responses: Responses<pb::WatchResponse>,
    metrics: Arc<Metrics>,
    // Flushed after each burst: shared counters are not touched for every response.
    stream: LocalHistogram,
    per_event: LocalHistogram,
}

impl Sender {
    fn new(responses: Responses<pb::WatchResponse>) -> Self {
        let metrics = Arc::clone(responses.metrics());
        Self {
            stream: metrics.watch.send_stream.local(),
            per_event: metrics.watch.send_stream_per_event.local(),
            metrics,
            responses,
        }
    }

    /// Sends what is there, until a frame is full. Returns whether there may be more.
    fn burst(&mut self, watch: &mut WatchStream) -> Result<bool, Error> {
        let begun = Instant::now();
        let (mut sent, mut events, mut more) = (0_u32, 0, true);
        while sent < BURST {
            if !self.responses.has_room() {
                break;
            }
            let Some(response) = watch.ready() else {
                more = false;
                break;
            };
            events += self.send(&response)?;
            sent += 1;
        }
        if events > 0 {
            // A response takes less than a clock is good for: the time is shared among them.
            let took = begun.elapsed().as_secs_f64();
            for _ in 0..sent {
                self.stream.observe(took / f64::from(sent));
                self.per_event.observe(took / events as f64);
            }
            self.stream.flush();
            self.per_event.flush();
            self.metrics.watch.events.inc_by(events);
        }
        Ok(more)
    }

    /// Sends a response that was waited for.
    fn first(&mut self, response: &Response) -> Result<(), Error> {
        let begun = Instant::now();
        let events = self.send(response)?;
        if events > 0 {
            let took = begun.elapsed().as_secs_f64();
            self.stream.observe(took);
            self.per_event.observe(took / events as f64);
            self.metrics.watch.events.inc_by(events);
        }
        Ok(())
    }

    /// Sends one response. Returns the number of its events.
    fn send(&mut self, response: &Response) -> Result<u64, Error> {
        let length = response.encoded_len();
        let begun = match &response.content {
            Content::Events { .. } => None,
            _ => Some(Instant::now()),
        };
        self.responses
            .send_pieces(length, |frames| response.pieces(frames))?;
        if let Some(begun) = begun {
            let watch = &self.metrics.watch;
            let series = match &response.content {
                Content::Progress => &watch.send_progress,
                _ => &watch.send_control,
            };
            series.observe(begun.elapsed().as_secs_f64());
        }
        Ok(response.events().len() as u64)
    }

    /// The client's side has failed in a way that is not its going away.
    fn broken(&self, error: Error) -> Error {
        if error.code() != Code::Cancelled {
            let failures = &self.metrics.network.server_stream_failures;
            failures.with_label_values(&["receive", "watch"]).inc();
        }
        error
    }
}
