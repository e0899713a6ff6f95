//! What the threads share about one peer: the frames on their way to it, the connection that takes
//! them, and what is asked of it.
//!
//! Frames are queued under one short lock. Whoever finds the writer free writes: the member's thread
//! when there is little, so that a small message costs one system call and wakes nobody; else the
//! peer's task (`dial.rs`). Whoever finds it busy leaves, because the one who writes looks at the queue
//! again after having let go of the writer.
//!
//! At most once: frames leave the queue for one connection. When it ends, those that are not written
//! yet are dropped, the one that is half written with them.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf, Bytes};
use ferrite_api::types::MemberId;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::frame::{Frames, Piece};
use super::message::Message;
use super::questions::Questions;
use super::sessions::Sessions;
use super::snapshot::Sending;
use super::socket::Socket;
use crate::config::Url;
use crate::metrics::network::PeerMetrics;

/// Up to this many bytes the member's thread writes itself.
const DIRECT: usize = 64 * 1024;

/// Pieces that one system call writes.
const SLICES: usize = 64;

/// One peer.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: MemberId,
    pub(super) urls: watch::Sender<Vec<Url>>,
    // Guards the frames that wait. Taken after `writer` where both are held.
    queue: Mutex<Queue>,
    // Guards the connection and what it writes next; held over a system call that does not block.
    writer: Mutex<Writer>,
    /// There is something for the task of the peer to do.
    pub(super) work: Notify,
    /// The peer has shown that it is there.
    pub(super) alive: Notify,
    pub(super) questions: Questions,
    /// The peer's questions that are being answered.
    pub(super) answering: TaskTracker,
    /// The streams from the peer.
    pub(super) sessions: Sessions,
    /// For the peer's task: a stream that the peer has opened to be written to.
    pub(super) offered: mpsc::Sender<Socket>,
    pub(super) metrics: PeerMetrics,
    /// Where the stream to the peer goes, or went last.
    pub(super) url: Mutex<Option<Url>>,
    pub(super) sending: Sending,
    /// When the stream to the peer was established, while it is.
    pub(super) since: Mutex<Option<Instant>>,
    /// All tasks of the peer end.
    pub(super) end: CancellationToken,
    /// Nothing is written to the peer any more.
    pub(super) drained: CancellationToken,
    /// Bytes that may wait; one frame may go beyond.
    bound: usize,
}

#[derive(Debug)]
struct Queue {
    frames: Frames,
    /// Bytes that wait here and in the writer.
    bytes: usize,
    fate: Fate,
    /// Something was dropped since the peer's task last looked because there was no room.
    overflowed: bool,
}

/// What becomes of a frame for a peer that is not connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It waits for the attempt to connect that is being made, or for the connection there is.
    Waits,
    /// It is dropped: the last attempt has failed, and what is fresh now will not be when one
    /// succeeds.
    Dropped,
}

#[derive(Debug, Default)]
struct Writer {
    socket: Option<Arc<Socket>>,
    /// What the socket gets next. The first piece may be written in part.
    pieces: VecDeque<Piece>,
}

/// How far writing got.
#[derive(Debug)]
pub(super) enum Pumped {
    /// Nothing waits, or somebody else is writing.
    Done,
    /// There is more.
    More,
    /// The socket takes no more now.
    Full,
    /// The connection is lost.
    Lost(io::Error),
}

impl Link {
    pub(super) fn new(
        peer: MemberId,
        urls: Vec<Url>,
        offered: mpsc::Sender<Socket>,
        first_question: u64,
        bound: usize,
        metrics: PeerMetrics,
        end: CancellationToken,
    ) -> Self {
        Self {
            peer,
            urls: watch::Sender::new(urls),
            queue: Mutex::new(Queue {
                frames: Frames::default(),
                bytes: 0,
                fate: Fate::Waits,
                overflowed: false,
            }),
            writer: Mutex::default(),
            work: Notify::new(),
            alive: Notify::new(),
            questions: Questions::new(first_question),
            answering: TaskTracker::new(),
            sessions: Sessions::default(),
            offered,
            metrics,
            url: Mutex::new(None),
            sending: Sending::default(),
            since: Mutex::new(None),
            end,
            drained: CancellationToken::new(),
            bound,
        }
    }

    /// Queues a message. Returns how many bytes wait now, 0 if it was dropped.
    pub(super) fn queue_message(&self, message: Message) -> usize {
        self.queue_frame(|frames| frames.message(message))
    }

    /// Queues a question. Returns whether it was.
    pub(super) fn queue_question(&self, number: u64, question: Bytes) -> bool {
        self.queue_frame(|frames| frames.question(number, question)) > 0
    }

    /// Queues an answer and writes.
    pub(super) fn answer(&self, number: u64, answer: Option<Bytes>) {
        self.queue_frame(|frames| frames.answer(number, answer));
        self.flush();
    }

    fn queue_frame(&self, add: impl FnOnce(&mut Frames) -> usize) -> usize {
        let mut queue = self.queue.lock();
        if queue.fate == Fate::Waits && queue.bytes < self.bound {
            let queue = &mut *queue;
            queue.bytes += add(&mut queue.frames);
            return queue.bytes;
        }
        let report = queue.fate == Fate::Waits && !std::mem::replace(&mut queue.overflowed, true);
        drop(queue);
        self.metrics.sent_failures.inc();
        if report {
            self.work.notify_one();
        }
        0
    }

    /// Queues a heartbeat, even when there is no room for anything else.
    pub(super) fn queue_heartbeat(&self) {
        let mut queue = self.queue.lock();
        let queue = &mut *queue;
        queue.bytes += queue.frames.heartbeat();
    }

    /// Bytes that wait to be written.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.queue.lock().bytes
    }

    /// Whether frames were dropped for want of room, and there is still none.
    pub(super) fn is_overflowing(&self) -> bool {
        let mut queue = self.queue.lock();
        // With some distance, so that a peer at the bound is not reported again and again.
        if queue.bytes <= self.bound / 2 {
            queue.overflowed = false;
        }
        queue.overflowed
    }

    /// Writes what waits, or has it written. Never blocks.
    pub(super) fn flush(&self) {
        if self.queue.lock().bytes > DIRECT {
            return self.work.notify_one();
        }
        // A loss is found again by the task, which knows what to do about it.
        if !matches!(self.pump(), (_, Pumped::Done)) {
            self.work.notify_one();
        }
    }

    /// Writes once. Returns how many bytes that were, too.
    pub(super) fn pump(&self) -> (usize, Pumped) {
        let Some(mut writer) = self.writer.try_lock() else {
            return (0, Pumped::Done);
        };
        let Some(socket) = writer.socket.clone() else {
            return (0, Pumped::Done);
        };
        self.queue.lock().frames.move_to(&mut writer.pieces);
        let (bytes, pumped) = match writer.write(&socket) {
            // Over TLS, what was written may wait for room in the socket.
            Ok(bytes) if !socket.is_flushed() => (bytes, Pumped::Full),
            Ok(bytes) => (bytes, Pumped::More),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (0, Pumped::Full),
            Err(error) => (0, Pumped::Lost(error)),
        };
        self.metrics.sent_bytes.inc_by(bytes as u64);
        let mut queue = self.queue.lock();
        queue.bytes -= bytes;
        let rest = !writer.pieces.is_empty();
        // Before the last look at the queue: who adds something after it finds the writer free.
        drop(writer);
        match pumped {
            Pumped::More if !rest && queue.frames.is_empty() => (bytes, Pumped::Done),
            pumped => (bytes, pumped),
        }
    }

    /// A connection is there: what waits, and what will, goes to it.
    pub(super) fn connected(&self, socket: Arc<Socket>) {
        let mut writer = self.writer.lock();
        self.queue.lock().fate = Fate::Waits;
        writer.socket = Some(socket);
    }

    /// The connection has ended: nothing that waits is for the next.
    pub(super) fn disconnected(&self) {
        self.drop_all(Fate::Waits);
    }

    /// There is no connection, and none in sight. Returns whether that is new.
    pub(super) fn unreachable(&self) -> bool {
        self.drop_all(Fate::Dropped) == Fate::Waits
    }

    /// An attempt to connect begins that may well succeed.
    pub(super) fn hopeful(&self) {
        self.queue.lock().fate = Fate::Waits;
    }

    /// Returns the fate of frames before.
    fn drop_all(&self, fate: Fate) -> Fate {
        let mut writer = self.writer.lock();
        writer.socket = None;
        let half_sent: u64 = writer.pieces.drain(..).map(|piece| piece.frames).sum();
        let mut queue = self.queue.lock();
        let dropped = half_sent + queue.frames.clear();
        queue.bytes = 0;
        let before = std::mem::replace(&mut queue.fate, fate);
        queue.overflowed = false;
        drop(queue);
        drop(writer);
        self.metrics.sent_failures.inc_by(dropped);
        self.questions.fail_all();
        before
    }
}

impl Writer {
    fn write(&mut self, socket: &Socket) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let count = self.pieces.len().min(SLICES);
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(&piece.bytes);
        }
        if count == 0 {
            socket.try_flush()?;
            return Ok(0);
        }
        let written = socket.try_write_vectored(&slices[..count])?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let mut left = written;
        while let Some(first) = self.pieces.front_mut() {
            if left < first.bytes.len() {
                first.bytes.advance(left);
                break;
            }
            left -= first.bytes.len();
            self.pieces.pop_front();
        }
        Ok(written)
    }
}
