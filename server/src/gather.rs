//! Fewer and larger writes to a socket.
//!
//! When the member has answered a batch, or an event concerns many streams, many tasks wake up and
//! each hands its connection a small frame. The scheduler runs a connection right behind the first of
//! them, and HTTP/2 flushes after each frame: a system call for every frame. [`Gathered`] keeps small
//! writes until the connection is polled once more, which it asks for, behind everything that is
//! ready to run. Where nothing is, that costs nothing but this poll.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Writes from this length on are not copied (bytes).
const LARGE: usize = 8 * 1024;

/// What is gathered before it is written without waiting for more (bytes).
const ENOUGH: usize = 32 * 1024;

/// What an idle connection keeps of its buffer (bytes).
const KEPT: usize = 4 * 1024;

/// A socket whose small writes are gathered until the next poll of its connection.
///
/// What is in the buffer is on its way: the first flush that finds it wakes the task, whose next poll
/// flushes again, as HTTP/1 and HTTP/2 connections do in every poll.
#[derive(Debug)]
pub(crate) struct Gathered<S> {
    socket: S,
    buffer: Vec<u8>,
    /// How much of the buffer is written.
    written: usize,
    /// The poll in which the oldest of the buffer came.
    since: u64,
    polls: Polls,
    /// The next poll is asked for.
    asked: bool,
}

/// Counts the polls of a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Polls(Arc<AtomicU64>);

impl Polls {
    /// Polls the connection whose socket this counts for, to its end.
    pub(crate) async fn count<F: Future>(&self, mut connection: Pin<&mut F>) -> F::Output {
        poll_fn(|cx| {
            // One task polls: a plain number would do, could it be shared.
            self.0.fetch_add(1, Ordering::Relaxed);
            connection.as_mut().poll(cx)
        })
        .await
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    /// A socket for a connection that is polled through `polls`.
    pub(crate) fn new(socket: S, polls: Polls) -> Self {
        Self {
            socket,
            buffer: Vec::new(),
            written: 0,
            since: 0,
            polls,
            asked: false,
        }
    }

    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.buffer.len() {
            let rest = &self.buffer[self.written..];
            match ready!(Pin::new(&mut self.socket).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        self.written = 0;
        self.buffer.clear();
        self.buffer.shrink_to(KEPT);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        if length >= LARGE {
            ready!(self.drain(cx))?;
            return Pin::new(&mut self.socket).poll_write_vectored(cx, slices);
        }
        if self.buffer.len() >= ENOUGH {
            ready!(self.drain(cx))?;
        }
        if self.buffer.is_empty() {
            self.since = self.polls.now();
            self.asked = false;
        }
        for slice in slices {
            self.buffer.extend_from_slice(slice);
        }
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let small = !self.buffer.is_empty() && self.buffer.len() < ENOUGH;
        if small && self.since == self.polls.now() {
            if !std::mem::replace(&mut self.asked, true) {
                // A task that wakes itself goes to the end of the queue.
                cx.waker().wake_by_ref();
            }
            return Poll::Ready(Ok(()));
        }
        ready!(self.drain(cx))?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::task::{Wake, Waker};

    use super::*;

    /// Takes at most `most` bytes a write.
    struct Socket {
        most: usize,
        writes: Vec<Vec<u8>>,
    }

    impl AsyncWrite for Socket {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            data: &[u8],
        ) -> Poll<io::Result<usize>> {
            let length = data.len().min(self.most);
            self.writes.push(data[..length].to_vec());
            Poll::Ready(Ok(length))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn gathered(most: usize) -> Gathered<Socket> {
        let writes = Vec::new();
        Gathered::new(Socket { most, writes }, Polls::default())
    }

    fn next_poll(gathered: &Gathered<Socket>) {
        gathered.polls.0.fetch_add(1, Ordering::Relaxed);
    }

    fn write(gathered: &mut Gathered<Socket>, data: &[u8]) -> usize {
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(gathered).poll_write(&mut cx, data) {
            Poll::Ready(Ok(length)) => length,
            other => panic!("{other:?}"),
        }
    }

    /// Flushes; returns whether that asked for another poll.
    fn flush(gathered: &mut Gathered<Socket>) -> bool {
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&woken));
        let flushed = Pin::new(gathered).poll_flush(&mut Context::from_waker(&waker));
        assert!(matches!(flushed, Poll::Ready(Ok(()))));
        woken.0.load(Ordering::Relaxed)
    }

    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_comes_until_the_next_poll_is_one_write() {
        let mut socket = gathered(usize::MAX);
        for round in 1..=3 {
            write(&mut socket, b"first ");
            assert!(flush(&mut socket), "the next poll is asked for");
            write(&mut socket, b"second ");
            assert!(!flush(&mut socket), "once");
            next_poll(&socket);
            write(&mut socket, b"third");
            assert!(!flush(&mut socket));
            assert_eq!(
                socket.socket.writes,
                vec![b"first second third".to_vec(); round]
            );
            assert!(!flush(&mut socket), "there is nothing to wait for");
        }
    }

    #[test]
    fn order_is_kept_whatever_the_sizes() {
        for most in [1000, usize::MAX] {
            let mut socket = gathered(most);
            let mut expected = Vec::new();
            let lengths = [10, LARGE, 20, ENOUGH, LARGE - 1, 5, LARGE - 1];
            for (n, length) in lengths.into_iter().enumerate() {
                let data = vec![u8::try_from(n).unwrap(); length];
                let mut rest = &data[..];
                while !rest.is_empty() {
                    rest = &rest[write(&mut socket, rest)..];
                }
                expected.extend(data);
            }
            next_poll(&socket);
            flush(&mut socket);
            assert!(
                socket.socket.writes.concat() == expected,
                "at most {most} bytes"
            );
            assert!(socket.buffer.capacity() <= KEPT);
        }
    }

    #[test]
    fn a_shut_down_socket_has_written_everything() {
        let mut socket = gathered(usize::MAX);
        write(&mut socket, b"the end");
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut socket).poll_shutdown(&mut cx).is_ready());
        assert_eq!(socket.socket.writes, [b"the end"]);
    }
}
