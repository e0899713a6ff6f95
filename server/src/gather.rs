//! Fewer and larger writes to a socket.
//!
//! When the member has answered a batch, or an event concerns many streams, many tasks wake up and
//! each hands its connection a small frame. The scheduler runs a connection right behind the first of
//! them, and it would write that one frame: a system call for each. [`Gathered`] keeps small writes,
//! and lets everything that is ready to run go first, once, before it flushes. Where nothing is, that
//! costs nothing but one more poll.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Writes from this length on are not copied (bytes).
const LARGE: usize = 8 * 1024;

/// What is gathered before it is written without waiting for more (bytes).
const ENOUGH: usize = 32 * 1024;

/// What an idle connection keeps of its buffer (bytes).
const KEPT: usize = 4 * 1024;

/// A socket whose small writes are gathered until it is flushed.
#[derive(Debug)]
pub(crate) struct Gathered<S> {
    socket: S,
    buffer: Vec<u8>,
    /// How much of the buffer is written.
    written: usize,
    /// Others were let go first since the last flush.
    waited: bool,
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    pub(crate) fn new(socket: S) -> Self {
        Self {
            socket,
            buffer: Vec::new(),
            written: 0,
            waited: false,
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
        for slice in slices {
            self.buffer.extend_from_slice(slice);
        }
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.waited && !self.buffer.is_empty() && self.buffer.len() < ENOUGH {
            self.waited = true;
            // A task that wakes itself goes to the end of the queue.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(self.drain(cx))?;
        self.waited = false;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

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
        Gathered::new(Socket { most, writes })
    }

    fn write(gathered: &mut Gathered<Socket>, data: &[u8]) -> usize {
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(gathered).poll_write(&mut cx, data) {
            Poll::Ready(Ok(length)) => length,
            other => panic!("{other:?}"),
        }
    }

    fn flush(gathered: &mut Gathered<Socket>) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(gathered).poll_flush(&mut cx).is_ready()
    }

    #[test]
    fn what_comes_while_others_go_first_is_one_write() {
        let mut socket = gathered(usize::MAX);
        for round in 1..=3 {
            assert_eq!(write(&mut socket, b"first "), 6);
            assert!(!flush(&mut socket), "others go first");
            assert_eq!(write(&mut socket, b"second"), 6);
            assert!(flush(&mut socket), "once");
            assert_eq!(socket.socket.writes, vec![b"first second".to_vec(); round]);
        }
        assert!(flush(&mut socket), "there is nothing to wait for");
    }

    #[test]
    fn order_is_kept_whatever_the_sizes() {
        for most in [1000, usize::MAX] {
            let mut socket = gathered(most);
            let mut expected = Vec::new();
            for (n, length) in [10, LARGE, 20, ENOUGH, LARGE - 1, 5, LARGE - 1].into_iter().enumerate() {
                let data = vec![u8::try_from(n).unwrap(); length];
                let mut rest = &data[..];
                while !rest.is_empty() {
                    rest = &rest[write(&mut socket, rest)..];
                }
                expected.extend(data);
            }
            while !flush(&mut socket) {}
            assert!(socket.socket.writes.concat() == expected, "at most {most} bytes");
            assert!(socket.buffer.capacity() <= KEPT);
        }
    }
}
