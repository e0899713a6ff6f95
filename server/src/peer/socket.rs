//! The sockets between members: the one place that connects, and what a listener has accepted, with TLS
//! or without.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ferrite_tls::{Client, Session};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use crate::config::{Scheme, Url};
use crate::serve::{self, Admitted};

/// The most that one read brings over TLS, in bytes.
const READ: usize = 64 * 1024;

/// A connection to another member.
#[derive(Debug)]
pub(super) struct Socket {
    raw: Raw,
    tls: Option<Session>,
}

/// The system's part of a connection.
#[derive(Debug)]
enum Raw {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Does the same with either kind.
macro_rules! either {
    ($socket:expr, $inner:ident => $call:expr) => {
        match $socket {
            Raw::Tcp($inner) => $call,
            Raw::Unix($inner) => $call,
        }
    };
}

impl ferrite_tls::Socket for Raw {
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        either!(self, stream => stream.try_read(buffer))
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        either!(self, stream => stream.try_write(bytes))
    }
}

impl Socket {
    /// Connects to a peer URL, `from` an address of this machine if there is one to come from, with TLS
    /// if that is given.
    ///
    /// # Errors
    /// Those of the system, of resolving a name, and of TLS.
    pub(super) async fn connect(
        url: &Url,
        from: Option<IpAddr>,
        tls: Option<&Client>,
    ) -> io::Result<Self> {
        match url.scheme() {
            Scheme::Http | Scheme::Https => {
                let stream = match from {
                    None => TcpStream::connect(url.address()).await?,
                    Some(from) => connect_from(from, url.address()).await?,
                };
                serve::set_up(&stream)?;
                match tls {
                    Some(tls) => {
                        let (stream, session) = tls.connect(url.host(), stream).await?.into_inner();
                        Ok(Self::secure(Raw::Tcp(stream), Session::new(session)))
                    }
                    None => Ok(Self::plain(Raw::Tcp(stream))),
                }
            }
            Scheme::Unix | Scheme::Unixs => {
                let stream = UnixStream::connect(url.address()).await?;
                match tls {
                    Some(tls) => {
                        let (stream, session) =
                            tls.connect("localhost", stream).await?.into_inner();
                        Ok(Self::secure(Raw::Unix(stream), Session::new(session)))
                    }
                    None => Ok(Self::plain(Raw::Unix(stream))),
                }
            }
        }
    }

    fn plain(raw: Raw) -> Self {
        Self { raw, tls: None }
    }

    fn secure(raw: Raw, session: Session) -> Self {
        Self {
            raw,
            tls: Some(session),
        }
    }

    /// The other end, for the log.
    pub(super) fn remote(&self) -> String {
        match &self.raw {
            Raw::Tcp(stream) => stream
                .peer_addr()
                .map_or_else(|_| "gone".to_owned(), |address| address.to_string()),
            Raw::Unix(_) => "unix socket".to_owned(),
        }
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        if self.tls.as_ref().is_some_and(Session::has_read) {
            return Ok(());
        }
        either!(&self.raw, stream => stream.readable().await)
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        either!(&self.raw, stream => stream.writable().await)
    }

    pub(super) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.tls {
            Some(session) => session.try_read(&self.raw, buffer),
            None => either!(&self.raw, stream => stream.try_read(buffer)),
        }
    }

    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.tls {
            Some(session) => session.try_write(&self.raw, &[IoSlice::new(bytes)]),
            None => either!(&self.raw, stream => stream.try_write(bytes)),
        }
    }

    pub(super) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.tls {
            Some(session) => session.try_write(&self.raw, slices),
            None => either!(&self.raw, stream => stream.try_write_vectored(slices)),
        }
    }

    /// Whether everything that was written is on its way: TLS may hold back what a full socket does not
    /// take.
    pub(super) fn is_flushed(&self) -> bool {
        self.tls.as_ref().is_none_or(Session::is_flushed)
    }

    /// Puts on its way what was held back.
    ///
    /// # Errors
    /// `WouldBlock` if the socket does not take all of it now.
    pub(super) fn try_flush(&self) -> io::Result<()> {
        match &self.tls {
            Some(session) => session.try_flush(&self.raw),
            None => Ok(()),
        }
    }

    /// Says that nothing more will be written.
    pub(super) fn finish(&self) -> io::Result<()> {
        use rustix::net::{Shutdown, shutdown};
        if let Some(session) = &self.tls {
            session.close();
            // A socket that is too full for a goodbye is ended without.
            let _best_effort = session.try_flush(&self.raw);
        }
        either!(&self.raw, stream => Ok(shutdown(stream, Shutdown::Write)?))
    }
}

/// Connects to the first address of a host that answers, of those of the same family as `from`.
async fn connect_from(from: IpAddr, host: &str) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(
        io::ErrorKind::AddrNotAvailable,
        format!("{host} has no address that can be reached from {from}"),
    );
    for to in tokio::net::lookup_host(host).await? {
        if to.is_ipv4() != from.is_ipv4() {
            continue;
        }
        let socket = match from {
            IpAddr::V4(_) => TcpSocket::new_v4()?,
            IpAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.bind(SocketAddr::new(from, 0))?;
        match socket.connect(to).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

macro_rules! from_admitted {
    ($type:ty, $raw:path) => {
        impl From<Admitted<$type>> for Socket {
            fn from(admitted: Admitted<$type>) -> Self {
                match admitted {
                    Admitted::Plain(stream) => Socket::plain($raw(stream)),
                    Admitted::Secure(stream, _) => {
                        let (stream, session) = stream.into_inner();
                        Socket::secure($raw(stream), Session::new(session))
                    }
                }
            }
        }
    };
}

from_admitted!(TcpStream, Raw::Tcp);
from_admitted!(UnixStream, Raw::Unix);

/// Tries until the socket is ready, by its own means to wait.
macro_rules! when_ready {
    ($raw:expr, $cx:ident, $ready:ident, $attempt:expr) => {
        loop {
            match $attempt {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(either!($raw, stream => stream.$ready($cx)))?;
                }
                done => break Poll::Ready(done),
            }
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { raw, tls } = self.get_mut();
        let Some(session) = tls else {
            return either!(raw, stream => Pin::new(stream).poll_read(cx, buf));
        };
        let room = buf.initialize_unfilled_to(buf.remaining().min(READ));
        let read = when_ready!(&*raw, cx, poll_read_ready, session.try_read(raw, room));
        read.map_ok(|read| buf.advance(read))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { raw, tls } = self.get_mut();
        let Some(session) = tls else {
            return either!(raw, stream => Pin::new(stream).poll_write_vectored(cx, slices));
        };
        when_ready!(&*raw, cx, poll_write_ready, session.try_write(raw, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { raw, tls } = self.get_mut();
        let Some(session) = tls else {
            return either!(raw, stream => Pin::new(stream).poll_flush(cx));
        };
        when_ready!(&*raw, cx, poll_write_ready, session.try_flush(raw))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(session) = &self.tls {
            session.close();
            ready!(self.as_mut().poll_flush(cx))?;
        }
        either!(&mut self.get_mut().raw, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
