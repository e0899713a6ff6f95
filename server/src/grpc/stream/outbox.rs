//! The responses of a stream on their way from the method to the body.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::Poll;

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::{Mutex, MutexGuard};
use prost::Message;

use crate::error::Error;
use crate::grpc::message::PREFIX;
use crate::grpc::reply::{self, MAX_COMPRESSED};
use crate::metrics::{Method, Metrics};

/// Bytes that are gathered for one DATA frame: the frame size that nearly every client has. Small
/// messages share a frame, which costs a copy and saves far more in HTTP/2.
const FRAME_BYTES: usize = 16 * 1024;

/// Pieces from this length on are not copied but referred to.
const SHARED_BYTES: usize = 2 * 1024;

/// The responses of a stream, as its method sees them.
pub(in crate::grpc) struct Responses<M> {
    outbox: Arc<Outbox>,
    response: PhantomData<fn(M)>,
}

impl<M: Message> Responses<M> {
    pub(super) fn new(outbox: Arc<Outbox>) -> Self {
        Self {
            outbox,
            response: PhantomData,
        }
    }

    /// Sends a message, once the client has room for it.
    ///
    /// Cancel safety: the message is sent whole or not at all.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` for a message that is too long.
    pub(in crate::grpc) async fn send(&self, message: &M) -> Result<(), Error> {
        self.room().await;
        self.send_now(message)
    }

    /// As [`Responses::send`], after [`Responses::room`].
    ///
    /// # Errors
    /// As [`Responses::send`].
    pub(in crate::grpc) fn send_now(&self, message: &M) -> Result<(), Error> {
        self.send_pieces(message.encoded_len(), |frames| {
            frames.encode(|buf| message.encode_raw(buf));
        })
    }

    /// Sends a message of `length` bytes that `write` puts together from pieces, some of which may
    /// be shared with other streams.
    ///
    /// # Errors
    /// As [`Responses::send`].
    pub(in crate::grpc) fn send_pieces(
        &self,
        length: usize,
        write: impl FnOnce(&mut Frames),
    ) -> Result<(), Error> {
        self.outbox.push(length, write)
    }

    /// Where what the stream does is counted.
    pub(in crate::grpc) fn metrics(&self) -> &Arc<Metrics> {
        &self.outbox.metrics
    }

    /// Whether a message of this length is compressed.
    pub(in crate::grpc) fn compresses(&self, length: usize) -> bool {
        self.outbox.compresses(length)
    }

    /// Begins a message of `length` bytes that is not compressed; its pieces follow, and nothing
    /// else before they are complete.
    ///
    /// # Errors
    /// As [`Responses::send`].
    pub(in crate::grpc) fn begin(&self, length: usize) -> Result<(), Error> {
        let mut frames = self.outbox.begin(length)?;
        frames.prefix(0, length);
        Ok(())
    }

    /// Sends the next piece of the message begun.
    pub(in crate::grpc) fn piece(&self, piece: &Bytes) {
        self.outbox.frames.lock().share(piece);
    }

    /// Waits until what was sent before is on its way, but for less than a frame.
    pub(in crate::grpc) async fn room(&self) {
        // The body takes what is full before it polls the method again, so nobody needs to be woken.
        poll_fn(|_| {
            if self.has_room() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Whether [`Responses::room`] would not wait.
    pub(in crate::grpc) fn has_room(&self) -> bool {
        !self.outbox.frames.lock().is_full()
    }
}

/// What the method has sent and the body has not taken.
pub(super) struct Outbox {
    // Both sides are polled by the same task: never contended, never held across an await.
    frames: Mutex<Frames>,
    metrics: Arc<Metrics>,
    method: Method,
    gzip: bool,
}

impl Outbox {
    pub(super) fn new(metrics: Arc<Metrics>, method: Method, gzip: bool) -> Self {
        let frames = Mutex::default();
        Self {
            frames,
            metrics,
            method,
            gzip,
        }
    }

    fn compresses(&self, length: usize) -> bool {
        self.gzip && length > 0 && length <= MAX_COMPRESSED
    }

    /// Counts a message, if it can be sent.
    fn begin(&self, length: usize) -> Result<MutexGuard<'_, Frames>, Error> {
        reply::check_length(length)?;
        self.metrics.grpc.method(self.method).sent();
        let sent = &self.metrics.network.client_grpc_sent_bytes;
        sent.inc_by(length as u64);
        Ok(self.frames.lock())
    }

    fn push(&self, length: usize, write: impl FnOnce(&mut Frames)) -> Result<(), Error> {
        let mut frames = self.begin(length)?;
        if self.compresses(length) {
            let mut plain = Frames::default();
            write(&mut plain);
            let compressed = reply::gzip(&plain.into_message());
            frames.prefix(1, compressed.len());
            frames.share(&compressed.into());
            return Ok(());
        }
        frames.prefix(0, length);
        let before = frames.bytes;
        write(&mut frames);
        assert_eq!(frames.bytes - before, length, "a message of another length");
        Ok(())
    }

    /// Takes the next frame, if there is a full one.
    pub(super) fn take_full(&self) -> Option<Bytes> {
        let mut frames = self.frames.lock();
        frames.is_full().then(|| frames.take()).flatten()
    }

    /// Takes the next frame, if there is anything.
    pub(super) fn take(&self) -> Option<Bytes> {
        self.frames.lock().take()
    }
}

/// Bytes that become DATA frames.
#[derive(Debug, Default)]
pub(in crate::grpc) struct Frames {
    ready: VecDeque<Bytes>,
    /// What follows `ready`.
    tail: BytesMut,
    /// Length of `ready` and `tail` together.
    bytes: usize,
}

impl Frames {
    /// Adds what `encode` writes.
    pub(in crate::grpc) fn encode(&mut self, encode: impl FnOnce(&mut BytesMut)) {
        let before = self.tail.len();
        encode(&mut self.tail);
        self.bytes += self.tail.len() - before;
    }

    /// Adds a copy.
    pub(in crate::grpc) fn copy(&mut self, piece: &[u8]) {
        self.tail.extend_from_slice(piece);
        self.bytes += piece.len();
    }

    /// Adds a piece, which is copied only if that is cheaper.
    pub(in crate::grpc) fn share(&mut self, piece: &Bytes) {
        if piece.len() < SHARED_BYTES {
            return self.copy(piece);
        }
        self.cut();
        self.bytes += piece.len();
        self.ready.push_back(piece.clone());
    }

    fn prefix(&mut self, flag: u8, length: usize) {
        self.tail.reserve(PREFIX + length.min(FRAME_BYTES));
        reply::put_prefix(&mut self.tail, flag, length);
        self.bytes += PREFIX;
    }

    fn cut(&mut self) {
        if !self.tail.is_empty() {
            self.ready.push_back(self.tail.split().freeze());
        }
    }

    fn is_full(&self) -> bool {
        self.bytes >= FRAME_BYTES
    }

    fn take(&mut self) -> Option<Bytes> {
        if self.ready.is_empty() {
            self.cut();
        }
        let frame = self.ready.pop_front()?;
        self.bytes -= frame.len();
        Some(frame)
    }

    /// All of it in one piece.
    fn into_message(mut self) -> Vec<u8> {
        let mut message = Vec::with_capacity(self.bytes);
        while let Some(piece) = self.take() {
            message.put(piece);
        }
        message
    }
}
