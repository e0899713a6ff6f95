//! Sending a snapshot.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body::{Body, Frame};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::super::SnapshotSource;
use super::super::call::{self, CallError, Caller};
use super::super::link::Link;
use super::super::shared::Shared;
use super::{PATH, Progress};
use crate::background;

/// Pieces that wait between the thread that reads them and the connection; the thread has one more
/// in its hand.
const AHEAD: usize = 1;

/// How long the receiver may take to install what it has, while it is alive.
const INSTALLATION: Duration = Duration::from_secs(600);

/// Why a snapshot was not sent.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum Failure {
    #[error("there is one on its way to this peer")]
    Busy,
    #[error("the peer is none any more")]
    Over,
    #[error("nothing gets on")]
    Stuck,
    #[error("it cannot be read: {0}")]
    Source(String),
    #[error("there is no thread to read it with: {0}")]
    NoThread(std::io::Error),
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Whether a snapshot is on its way to a peer: one is enough.
#[derive(Debug, Default)]
pub(in super::super) struct Sending(AtomicBool);

impl Sending {
    fn begin(&self) -> Option<Begun<'_>> {
        let busy = self.0.swap(true, Ordering::AcqRel);
        (!busy).then_some(Begun(&self.0))
    }
}

struct Begun<'a>(&'a AtomicBool);

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Sends a snapshot and tells the sink what became of it.
pub(in super::super) async fn send(
    shared: Arc<Shared>,
    link: Arc<Link>,
    message: Bytes,
    source: Box<dyn SnapshotSource>,
) {
    let (peer, begun) = (link.peer, Instant::now());
    let metrics = &link.metrics.snapshots;
    let expected = source.size_hint();
    let progress = Progress::default();
    let sent = match link.sending.begin() {
        None => Err(Failure::Busy),
        Some(_begun) => {
            tracing::info!(%peer, bytes = expected, "sending a snapshot");
            metrics.sending.inc();
            let report = |bytes| tracing::info!(%peer, bytes, expected, "a snapshot is being sent");
            let sent = tokio::select! {
                sent = transfer(&shared, &link, message, source, &progress) => sent,
                () = link.end.cancelled() => Err(Failure::Over),
                never = progress.report(report) => match never {},
            };
            metrics.sending.dec();
            sent
        }
    };
    let (bytes, took) = (progress.bytes(), begun.elapsed());
    link.metrics.sent_bytes.inc_by(bytes);
    match &sent {
        Ok(()) => {
            metrics.sent.inc();
            metrics.send_seconds.observe(took.as_secs_f64());
            tracing::info!(%peer, bytes, ?took, "sent a snapshot");
        }
        Err(error) => {
            metrics.send_failures.inc();
            link.metrics.sent_failures.inc();
            tracing::warn!(%peer, bytes, ?took, %error, "a snapshot was not sent");
        }
    }
    shared.sink.snapshot_sent(peer, sent.is_ok());
}

/// Sends a snapshot and waits for the receiver's word.
pub(in super::super) async fn transfer(
    shared: &Shared,
    link: &Link,
    message: Bytes,
    source: Box<dyn SnapshotSource>,
    progress: &Progress,
) -> Result<(), Failure> {
    let mut caller = connect(shared, link).await?;
    let (next, pieces) = mpsc::channel(AHEAD);
    background::run("snapshot-read", move || read(source, &next)).map_err(Failure::NoThread)?;
    let (failed, why) = std::sync::mpsc::channel();
    let all_sent = Arc::new(AtomicBool::new(false));
    let mut request = Request::new(Pieces {
        message: Some(message),
        payload: None,
        pieces: Some(pieces),
        progress: progress.clone(),
        failed,
        all_sent: Arc::clone(&all_sent),
    });
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(PATH);
    *request.headers_mut() = shared.identity.headers_to(link.peer);
    // The receiver syncs and checks what it has; the streams show meanwhile that it is alive.
    let installing = |idle: Duration| {
        all_sent.load(Ordering::Relaxed) && idle < INSTALLATION && link.since.lock().is_some()
    };
    let answer = tokio::select! {
        answer = caller.send(request) => answer,
        () = progress.stuck(installing) => return Err(Failure::Stuck),
    };
    match answer {
        Ok(answer) if answer.status() == StatusCode::NO_CONTENT => Ok(()),
        Ok(answer) => Err(call::refusal(answer).await.into()),
        // The library only knows that the body has failed.
        Err(error) => Err(why
            .try_recv()
            .map_or_else(|_| error.into(), Failure::Source)),
    }
}

/// Connects to the URL that the stream goes to, else to the first that answers.
async fn connect(shared: &Shared, link: &Link) -> Result<Caller<Pieces>, CallError> {
    let used = link.url.lock().clone();
    let known = link.urls.borrow().clone();
    let mut failure = CallError::TimedOut;
    for url in used
        .iter()
        .chain(known.iter().filter(|url| Some(*url) != used.as_ref()))
    {
        match timeout(shared.dial_timeout, Caller::connect(url, &shared.via)).await {
            Ok(Ok(caller)) => return Ok(caller),
            Ok(Err(error)) => failure = error,
            Err(_) => failure = CallError::TimedOut,
        }
    }
    Err(failure)
}

/// Reads the source to its end, or until nobody wants it any more.
fn read(mut source: Box<dyn SnapshotSource>, next: &mpsc::Sender<Result<Option<Bytes>, String>>) {
    loop {
        let piece = source.next();
        let last = !matches!(piece, Ok(Some(_)));
        if next.blocking_send(piece).is_err() || last {
            return;
        }
    }
}

/// The body of the request.
struct Pieces {
    message: Option<Bytes>,
    /// What goes next: its length has gone.
    payload: Option<Bytes>,
    pieces: Option<mpsc::Receiver<Result<Option<Bytes>, String>>>,
    progress: Progress,
    /// Takes the reason when the source fails.
    failed: std::sync::mpsc::Sender<String>,
    all_sent: Arc<AtomicBool>,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let this = &mut *self;
        if let Some(payload) = this.payload.take() {
            this.progress.add(payload.len());
            return Poll::Ready(Some(Ok(Frame::data(payload))));
        }
        let next = match this.message.take() {
            Some(message) => Ok(message),
            None => match ready!(this.poll_piece(cx)) {
                Some(piece) => piece,
                None => return Poll::Ready(None),
            },
        };
        let length = next.and_then(|next| {
            let length = u32::try_from(next.len());
            this.payload = Some(next).filter(|next| !next.is_empty());
            length.map_err(|_| "a piece is too long".to_owned())
        });
        Poll::Ready(Some(match length {
            Ok(length) => Ok(Frame::data(Bytes::copy_from_slice(&length.to_le_bytes()))),
            Err(text) => {
                let _nobody = this.failed.send(text.clone());
                Err(Failure::Source(text))
            }
        }))
    }
}

impl Pieces {
    /// The next piece, an empty one for the end; then `None`.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, String>>> {
        loop {
            let Some(pieces) = &mut self.pieces else {
                return Poll::Ready(None);
            };
            let next = ready!(pieces.poll_recv(cx));
            let piece = match next.unwrap_or_else(|| Err("its thread has panicked".to_owned())) {
                // It would be taken for the end.
                Ok(Some(piece)) if piece.is_empty() => continue,
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(piece))),
                Ok(None) => {
                    self.all_sent.store(true, Ordering::Relaxed);
                    Ok(Bytes::new())
                }
                Err(text) => Err(text),
            };
            self.pieces = None;
            return Poll::Ready(Some(piece));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use http_body_util::BodyExt;

    use super::*;

    struct Counted(Arc<AtomicUsize>);

    impl SnapshotSource for Counted {
        fn next(&mut self) -> Result<Option<Bytes>, String> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok(Some("piece".into()))
        }

        fn size_hint(&self) -> u64 {
            0
        }
    }

    #[tokio::test]
    async fn the_source_is_read_two_pieces_ahead_at_most() {
        let read_so_far = Arc::new(AtomicUsize::new(0));
        let source = Box::new(Counted(Arc::clone(&read_so_far)));
        let (next, pieces) = mpsc::channel(AHEAD);
        let reader = background::run("reader", move || read(source, &next)).unwrap();
        let mut body = Pieces {
            message: Some("message".into()),
            payload: None,
            pieces: Some(pieces),
            progress: Progress::default(),
            failed: std::sync::mpsc::channel().0,
            all_sent: Arc::default(),
        };
        for taken in 0..20 {
            for _ in ["its length", "itself"] {
                body.frame().await.unwrap().unwrap();
            }
            assert!(read_so_far.load(Ordering::SeqCst) <= taken + 2);
        }
        drop(body);
        reader.await.unwrap();
        assert!(read_so_far.load(Ordering::SeqCst) <= 22);
    }
}
