//! Streams from other members: cut into frames, delivered as they come.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::frame::{Frame, HEARTBEAT_FRAME};
use super::link::Link;
use super::message::Malformed;
use super::shared::Shared;
use super::socket::Socket;

/// How long a stream may be silent: three heartbeats.
const SILENCE: Duration = Duration::from_secs(5);

/// Room for a read, in bytes. A frame that is longer gets more, in steps, as it arrives.
const READ: usize = 64 * 1024;

/// The most that is read at once.
const MAX_READ: usize = 1 << 20;

/// Questions of one peer that are being answered.
const MAX_QUESTIONS: usize = 10_000;

/// A stream from a peer.
pub(super) struct Stream {
    shared: Arc<Shared>,
    /// The peer.
    pub(super) link: Arc<Link>,
    session: u64,
    /// A newer session has begun, or the peer is none any more.
    pub(super) end: CancellationToken,
}

/// Why a stream has ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the peer has closed it")]
    Closed,
    #[error("nothing has come for {SILENCE:?}")]
    Silent,
    #[error("a newer one has taken its place")]
    Superseded,
    #[error("this side has ended it")]
    Over,
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Broken(#[from] io::Error),
}

impl Stream {
    /// The stream of a session that has begun; `end` is what it began with.
    pub(super) fn begin(
        shared: Arc<Shared>,
        link: Arc<Link>,
        session: u64,
        end: CancellationToken,
    ) -> Self {
        // Whatever was on its way over an older stream is lost.
        link.questions.fail_all();
        Self {
            shared,
            link,
            session,
            end,
        }
    }

    /// Takes everything in until the end. `early` was read already.
    pub(super) async fn receive(self, socket: Socket, early: Bytes) {
        // A question whose asker has lost the stream need not be answered.
        let asked = CancellationToken::new();
        let _asked = asked.clone().drop_guard();
        let running = self.run(socket, BytesMut::from(early), &asked);
        let ended = tokio::select! {
            biased;
            () = self.end.cancelled() => Ended::Superseded,
            () = self.link.end.cancelled() => Ended::Over,
            ended = running => ended,
        };
        let peer = self.link.peer;
        match ended {
            Ended::Malformed(error) => {
                self.link.metrics.received_failures.inc();
                tracing::warn!(%peer, %error, "ended a stream from a peer");
            }
            Ended::Broken(error) => {
                self.link.metrics.received_failures.inc();
                tracing::info!(%peer, %error, "a stream from a peer has ended");
            }
            reason => tracing::info!(%peer, %reason, "a stream from a peer has ended"),
        }
        self.over();
    }

    /// Notes that the session is over.
    pub(super) fn over(&self) {
        if self.link.sessions.ended(self.session) {
            // The answers would have come this way.
            self.link.questions.fail_all();
        }
    }

    async fn run(
        &self,
        mut socket: Socket,
        mut buffer: BytesMut,
        asked: &CancellationToken,
    ) -> Ended {
        let mut long = false;
        loop {
            let take = || self.take(&socket, &mut buffer, asked);
            match self.link.sessions.take(self.session, take) {
                Some(Ok(())) => {}
                Some(Err(ended)) => return ended,
                None => return Ended::Superseded,
            }
            let missing = Frame::missing(&buffer);
            if std::mem::replace(&mut long, missing > MAX_READ) && buffer.is_empty() {
                // Not to keep for ever what the longest frame has needed.
                buffer = BytesMut::new();
            }
            let room = missing.clamp(READ, MAX_READ);
            if buffer.capacity() - buffer.len() < room / 4 {
                buffer.reserve(room);
            }
            match timeout(SILENCE, socket.read_buf(&mut buffer)).await {
                Err(_) => return Ended::Silent,
                Ok(Err(error)) => return Ended::Broken(error),
                Ok(Ok(0)) if buffer.is_empty() => return Ended::Closed,
                Ok(Ok(0)) => return Ended::Broken(io::ErrorKind::UnexpectedEof.into()),
                Ok(Ok(bytes)) => self.link.metrics.received_bytes.inc_by(bytes as u64),
            }
        }
    }

    /// Takes the frames that are complete, all messages among them at once.
    fn take(
        &self,
        socket: &Socket,
        buffer: &mut BytesMut,
        asked: &CancellationToken,
    ) -> Result<(), Ended> {
        let mut messages = Vec::new();
        let result = loop {
            match Frame::next(buffer) {
                Ok(None) => break Ok(()),
                Ok(Some(Frame::Message(message))) => messages.push(message),
                Ok(Some(Frame::Heartbeat)) => {
                    if let Err(error) = echo(socket) {
                        break Err(error.into());
                    }
                }
                Ok(Some(Frame::Question { number, question })) => {
                    self.answer(number, question, asked);
                }
                Ok(Some(Frame::Answer { number, answer })) => {
                    self.link.questions.answer(number, answer);
                }
                Err(malformed) => break Err(malformed.into()),
            }
        };
        if !messages.is_empty() {
            self.shared.sink.deliver(self.link.peer, messages);
        }
        result
    }

    fn answer(&self, number: u64, question: Bytes, asked: &CancellationToken) {
        if self.link.answering.len() >= MAX_QUESTIONS {
            return self.link.answer(number, None);
        }
        let answering = self.shared.sink.answer(self.link.peer, question);
        let link = Arc::clone(&self.link);
        let asked = asked.clone();
        self.link.answering.spawn(async move {
            if let Some(answer) = asked.run_until_cancelled(answering).await {
                link.answer(number, Some(answer));
            }
        });
    }
}

/// Echoes a heartbeat. A peer that reads its echoes has room for them.
fn echo(socket: &Socket) -> io::Result<()> {
    match socket.try_write(&HEARTBEAT_FRAME) {
        Ok(written) if written == HEARTBEAT_FRAME.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
    }
}
