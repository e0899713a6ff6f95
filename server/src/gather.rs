//! Fewer and larger writes to a socket.
//!
//! When the member has answered a batch, or an event concerns many streams, many tasks wake up and
//! each hands its connection a small frame. The scheduler runs a connection right behind the first of
//! them, and HTTP/2 flushes after each frame: a system call for every frame. [`Gathered`] keeps small
//! writes until the end of a second poll of the connection, which it asks for, behind everything that
//! is ready to run. Where nothing is, that costs nothing but this poll.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Writes from this length on are not copied (bytes). Frames of long answers are shorter, 16 KiB with
/// most clients, and are copied: that costs less than a system call for each.
const LARGE: usize = 32 * 1024;

/// What is gathered before it is written without waiting for more (bytes): as much as one pass through
/// the network stack carries.
const ENOUGH: usize = 64 * 1024;

/// What an idle connection keeps of its buffer (bytes).
const KEPT: usize = 4 * 1024;

/// A socket whose small writes are gathered. Its connection must be polled through
/// [`Gathered::drive`]: what has been flushed is on its way only then, or after
/// [`Gathered::write_through`].
#[derive(Debug)]
pub(crate) struct Gathered<S> {
    // One task polls the connection and what is behind it: the lock is never waited for.
    inner: Arc<Mutex<Inner<S>>>,
}

#[derive(Debug)]
struct Inner<S> {
    socket: S,
    buffer: Vec<u8>,
    /// How much of the buffer is written.
    written: usize,
    /// The buffer has been there at the end of a poll: it leaves at the end of the next.
    waited: bool,
    /// The socket has a buffer of its own (that of TLS), which has not left as a whole.
    flushing: bool,
    /// Nothing is gathered any more.
    through: bool,
    /// Why the buffer could not be written. The next call has it.
    failure: Option<io::Error>,
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    pub(crate) fn new(socket: S) -> Self {
        let inner = Inner {
            socket,
            buffer: Vec::new(),
            written: 0,
            waited: false,
            flushing: false,
            through: false,
            failure: None,
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    /// The same socket, to drive the connection that is given this one.
    pub(crate) fn share(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }

    /// Gathers nothing from now on: for a connection that somebody else will poll.
    pub(crate) fn write_through(&self) {
        self.inner.lock().through = true;
    }

    /// Polls the connection of this socket to its end.
    pub(crate) async fn drive<F: Future>(&self, mut connection: Pin<&mut F>) -> F::Output {
        poll_fn(|cx| {
            let polled = connection.as_mut().poll(cx);
            if polled.is_pending() {
                self.inner.lock().end_of_poll(cx);
            }
            polled
        })
        .await
    }
}

impl<S: AsyncWrite + Unpin> Inner<S> {
    fn end_of_poll(&mut self, cx: &mut Context<'_>) {
        // A failure is the connection's to take, which was woken for it.
        let waiting = (!self.buffer.is_empty() || self.flushing) && self.failure.is_none();
        if waiting {
            if !self.flushing && !std::mem::replace(&mut self.waited, true) {
                // A task that wakes itself goes to the end of the queue.
                cx.waker().wake_by_ref();
            } else if let Poll::Ready(Err(error)) = self.drain_and_flush(cx) {
                self.failure = Some(error);
                // For the connection to learn it.
                cx.waker().wake_by_ref();
            }
        }
        if self.buffer.is_empty() {
            self.buffer.shrink_to(KEPT);
        }
    }

    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Err(failure));
        }
        while self.written < self.buffer.len() {
            let rest = &self.buffer[self.written..];
            match ready!(Pin::new(&mut self.socket).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        self.written = 0;
        self.waited = false;
        self.buffer.clear();
        Poll::Ready(Ok(()))
    }

    fn drain_and_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(cx))?;
        self.flushing = true;
        ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        self.flushing = false;
        Poll::Ready(Ok(()))
    }

    fn write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        if length >= LARGE || self.through {
            ready!(self.drain(cx))?;
            return Pin::new(&mut self.socket).poll_write_vectored(cx, slices);
        }
        if self.buffer.len() >= ENOUGH || self.failure.is_some() {
            ready!(self.drain(cx))?;
        }
        if self.buffer.len() + length > self.buffer.capacity() && length > KEPT {
            // Frames like this one follow, most likely.
            let all = (ENOUGH + LARGE).saturating_sub(self.buffer.len());
            self.buffer.reserve_exact(all);
        }
        for slice in slices {
            self.buffer.extend_from_slice(slice);
        }
        Poll::Ready(Ok(length))
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let later = !self.through && !self.buffer.is_empty() && self.buffer.len() < ENOUGH;
        if later && self.failure.is_none() {
            return Poll::Ready(Ok(()));
        }
        self.drain_and_flush(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner.lock().socket).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.inner.lock().write(cx, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.inner.lock().write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.lock().socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.lock().flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner.lock();
        ready!(inner.drain(cx))?;
        Pin::new(&mut inner.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Wake, Waker};

    use super::*;

    /// Takes at most `most` bytes a write, and nothing while it is `full` or `broken`.
    #[derive(Default)]
    struct Socket {
        most: usize,
        full: bool,
        broken: bool,
        /// Keeps what was written until it is flushed, which it is not while this is set.
        holding: bool,
        writes: Vec<Vec<u8>>,
    }

    impl AsyncWrite for Socket {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            data: &[u8],
        ) -> Poll<io::Result<usize>> {
            if self.broken {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            if self.full {
                return Poll::Pending;
            }
            let length = data.len().min(self.most);
            self.writes.push(data[..length].to_vec());
            Poll::Ready(Ok(length))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            match self.holding {
                true => Poll::Pending,
                false => Poll::Ready(Ok(())),
            }
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn gathered(most: usize) -> Gathered<Socket> {
        Gathered::new(Socket {
            most,
            ..Socket::default()
        })
    }

    fn write(gathered: &mut Gathered<Socket>, data: &[u8]) -> Poll<io::Result<usize>> {
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(gathered).poll_write(&mut cx, data)
    }

    fn written(gathered: &mut Gathered<Socket>, data: &[u8]) -> usize {
        match write(gathered, data) {
            Poll::Ready(Ok(length)) => length,
            other => panic!("{other:?}"),
        }
    }

    /// A poll of the connection, in which it flushes what it writes. Returns whether that asked for
    /// another poll.
    fn poll(socket: &mut Gathered<Socket>, data: &[&[u8]]) -> bool {
        let driver = socket.share();
        let mut connection = std::pin::pin!(poll_fn(|cx| {
            for data in data {
                assert_eq!(written(socket, data), data.len());
                let flushed = Pin::new(&mut *socket).poll_flush(cx);
                assert!(matches!(flushed, Poll::Ready(Ok(()))));
            }
            Poll::<()>::Pending
        }));
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&woken));
        let mut drive = std::pin::pin!(driver.drive(connection.as_mut()));
        let polled = drive.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        woken.0.load(Ordering::Relaxed)
    }

    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_comes_in_two_polls_is_one_write() {
        let mut socket = gathered(usize::MAX);
        for round in 1..=3 {
            assert!(poll(&mut socket, &[b"first ", b"second "]), "one more poll");
            assert!(!poll(&mut socket, &[b"third ", b"fourth"]), "no more");
            let expected = vec![b"first second third fourth".to_vec(); round];
            assert_eq!(socket.inner.lock().socket.writes, expected);
            assert!(!poll(&mut socket, &[]), "there is nothing to wait for");
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
                    rest = &rest[written(&mut socket, rest)..];
                }
                expected.extend(data);
            }
            poll(&mut socket, &[]);
            poll(&mut socket, &[]);
            let inner = socket.inner.lock();
            assert!(
                inner.socket.writes.concat() == expected,
                "at most {most} bytes"
            );
            assert!(inner.buffer.capacity() <= KEPT);
        }
    }

    #[test]
    fn a_full_socket_takes_no_more_than_enough_and_loses_nothing() {
        let mut socket = gathered(1000);
        socket.inner.lock().socket.full = true;
        let piece = [7; LARGE - 1];
        let mut expected = 0;
        while let Poll::Ready(length) = write(&mut socket, &piece) {
            expected += length.unwrap();
            poll(&mut socket, &[]);
        }
        assert!((ENOUGH..ENOUGH + LARGE).contains(&expected), "{expected}");
        socket.inner.lock().socket.full = false;
        assert!(!poll(&mut socket, &[]), "it is on its way");
        assert_eq!(socket.inner.lock().socket.writes.concat().len(), expected);
    }

    /// As TLS does whose socket was full.
    #[test]
    fn a_socket_that_holds_back_is_flushed_until_all_has_left() {
        let mut socket = gathered(usize::MAX);
        socket.inner.lock().socket.holding = true;
        assert!(poll(&mut socket, &[b"held"]));
        assert!(
            !poll(&mut socket, &[]),
            "the socket wakes when it can go on"
        );
        assert!(socket.inner.lock().flushing);
        assert!(!poll(&mut socket, &[]));
        assert!(socket.inner.lock().flushing);
        socket.inner.lock().socket.holding = false;
        assert!(!poll(&mut socket, &[]));
        assert!(!socket.inner.lock().flushing, "all has left");
        assert!(poll(&mut socket, &[b"next"]), "as before");
    }

    #[test]
    fn a_broken_socket_is_reported() {
        let mut socket = gathered(1000);
        socket.inner.lock().socket.broken = true;
        assert!(poll(&mut socket, &[b"lost"]));
        assert!(poll(&mut socket, &[]), "the connection has to learn it");
        assert!(!poll(&mut socket, &[]), "once: it does not spin");
        let failed = write(&mut socket, b"more");
        assert!(matches!(failed, Poll::Ready(Err(_))), "{failed:?}");
    }

    #[test]
    fn nothing_waits_for_who_is_not_driven() {
        let mut socket = gathered(usize::MAX);
        written(&mut socket, b"before");
        socket.write_through();
        written(&mut socket, b"behind");
        assert_eq!(
            socket.inner.lock().socket.writes,
            [&b"before"[..], b"behind"]
        );
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut socket).poll_flush(&mut cx).is_ready());
    }

    #[test]
    fn a_shut_down_socket_has_written_everything() {
        let mut socket = gathered(usize::MAX);
        written(&mut socket, b"the end");
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut socket).poll_shutdown(&mut cx).is_ready());
        assert_eq!(socket.inner.lock().socket.writes, [b"the end"]);
    }
}
