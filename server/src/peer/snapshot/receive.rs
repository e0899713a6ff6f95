//! Receiving a snapshot.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::Response;
use bytes::{Buf, Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::super::link::Link;
use super::super::shared::Shared;
use super::{MAX_MESSAGE, MAX_PIECE, Progress, STUCK};
use crate::background;
use crate::http::reply;

/// Pieces that wait for the thread that takes them.
const AHEAD: usize = 1;

/// What is set aside for a piece before it is there, in bytes.
const RESERVED: usize = 1 << 20;

/// How long the rest of a refused snapshot is read, so that the sender gets to read why.
const LINGER: Duration = Duration::from_secs(5);

/// Takes a snapshot in and answers the sender.
pub(in super::super) async fn receive(
    shared: Arc<Shared>,
    link: Arc<Link>,
    body: Incoming,
) -> Response {
    let (peer, begun) = (link.peer, Instant::now());
    let metrics = &link.metrics.snapshots;
    tracing::info!(%peer, "receiving a snapshot");
    let progress = Progress::default();
    let mut sections = Sections {
        body,
        rest: Bytes::new(),
    };
    metrics.receiving.inc();
    let report = |bytes| tracing::info!(%peer, bytes, "a snapshot is being received");
    let taken = tokio::select! {
        taken = take(&shared, &link, &mut sections, &progress) => taken,
        () = link.end.cancelled() => Err("the sender is no member any more".to_owned()),
        never = progress.report(report) => match never {},
    };
    metrics.receiving.dec();
    let (bytes, took) = (progress.bytes(), begun.elapsed());
    link.metrics.received_bytes.inc_by(bytes);
    match taken {
        Ok(()) => {
            metrics.received.inc();
            metrics.receive_seconds.observe(took.as_secs_f64());
            tracing::info!(%peer, bytes, ?took, "received a snapshot");
            reply::empty(StatusCode::NO_CONTENT)
        }
        Err(error) => {
            metrics.receive_failures.inc();
            link.metrics.received_failures.inc();
            tracing::warn!(%peer, bytes, ?took, error, "a snapshot was not taken");
            tokio::spawn(timeout(LINGER, sections.read_out()));
            reply::error(StatusCode::INTERNAL_SERVER_ERROR, &error)
        }
    }
}

/// Feeds a thread that may block with what comes.
async fn take(
    shared: &Shared,
    link: &Link,
    sections: &mut Sections,
    progress: &Progress,
) -> Result<(), String> {
    let message = sections.next(MAX_MESSAGE).await?;
    progress.add(message.len());
    let (next, mut pieces) = mpsc::channel(AHEAD);
    let (sink, from) = (Arc::clone(&shared.sink), link.peer);
    let taking = background::run("snapshot-take", move || {
        let gone = || Err("the sender has gone".to_owned());
        let mut piece = || pieces.blocking_recv().unwrap_or_else(gone);
        sink.receive_snapshot(from, message, &mut piece)
    });
    let taking = taking.map_err(|error| format!("no thread to receive with: {error}"))?;
    let feeding = async {
        loop {
            let piece = sections.next(MAX_PIECE).await;
            let piece = piece.map(|piece| Some(piece).filter(|piece| !piece.is_empty()));
            let last = !matches!(piece, Ok(Some(_)));
            progress.add(piece.iter().flatten().map(Bytes::len).sum());
            if next.send(piece).await.is_err() || last {
                // The thread has the last word.
                return pending::<Infallible>().await;
            }
        }
    };
    tokio::select! {
        taken = taking => taken.unwrap_or_else(|_| Err("the receiving thread has panicked".to_owned())),
        never = feeding => match never {},
    }
}

/// The body of the request, cut into what has a length before it.
struct Sections {
    body: Incoming,
    /// What came with the section before.
    rest: Bytes,
}

impl Sections {
    async fn next(&mut self, bound: usize) -> Result<Bytes, String> {
        let mut length = self.take(4).await?;
        let length = length.get_u32_le() as usize;
        if length > bound {
            return Err(format!("{length} bytes at once are more than {bound}"));
        }
        self.take(length).await
    }

    /// Exactly so many bytes.
    async fn take(&mut self, length: usize) -> Result<Bytes, String> {
        while self.rest.is_empty() && length > 0 {
            self.read().await?;
        }
        if self.rest.len() >= length {
            return Ok(self.rest.split_to(length));
        }
        let mut taken = BytesMut::with_capacity(length.min(RESERVED));
        loop {
            let part = self.rest.len().min(length - taken.len());
            taken.extend_from_slice(&self.rest.split_to(part));
            if taken.len() == length {
                return Ok(taken.freeze());
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<(), String> {
        let frame = timeout(STUCK, self.body.frame()).await;
        let frame = frame.map_err(|_| format!("nothing has come for {STUCK:?}"))?;
        let frame = frame.ok_or("the snapshot ends early")?;
        let frame = frame.map_err(|error| format!("the connection broke: {error}"))?;
        self.rest = frame.into_data().unwrap_or_default();
        Ok(())
    }

    async fn read_out(mut self) {
        while let Some(Ok(_)) = self.body.frame().await {}
    }
}
