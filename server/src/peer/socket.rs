//! The sockets between members: the one place that connects, and what a listener has accepted.
//! TLS will be another kind of [`Socket`].

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use crate::config::{Scheme, Url};
use crate::serve::{self, Stream};

/// A connection to another member.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Does the same with either kind.
macro_rules! either {
    ($socket:expr, $inner:ident => $call:expr) => {
        match $socket {
            Socket::Tcp($inner) => $call,
            Socket::Unix($inner) => $call,
        }
    };
}

impl Socket {
    /// Connects to a peer URL, `from` an address of this machine if there is one to come from.
    ///
    /// # Errors
    /// Those of the system and of resolving a name; `Unsupported` for the TLS schemes.
    pub(super) async fn connect(url: &Url, from: Option<IpAddr>) -> io::Result<Self> {
        match url.scheme() {
            Scheme::Http => {
                let stream = match from {
                    None => TcpStream::connect(url.address()).await?,
                    Some(from) => connect_from(from, url.address()).await?,
                };
                serve::set_up(&stream)?;
                Ok(Socket::Tcp(stream))
            }
            Scheme::Unix => Ok(Socket::Unix(UnixStream::connect(url.address()).await?)),
            Scheme::Https | Scheme::Unixs => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "TLS between members is not built yet",
            )),
        }
    }

    /// The other end, for the log.
    pub(super) fn remote(&self) -> String {
        match self {
            Socket::Tcp(stream) => stream
                .peer_addr()
                .map_or_else(|_| "gone".to_owned(), |address| address.to_string()),
            Socket::Unix(_) => "unix socket".to_owned(),
        }
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        either!(self, stream => stream.readable().await)
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        either!(self, stream => stream.writable().await)
    }

    pub(super) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        either!(self, stream => stream.try_read(buffer))
    }

    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        either!(self, stream => stream.try_write(bytes))
    }

    pub(super) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        either!(self, stream => stream.try_write_vectored(slices))
    }

    /// Says that nothing more will be written.
    pub(super) fn finish(&self) -> io::Result<()> {
        use rustix::net::{Shutdown, shutdown};
        either!(self, stream => Ok(shutdown(stream, Shutdown::Write)?))
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

impl From<Stream> for Socket {
    fn from(accepted: Stream) -> Self {
        match accepted {
            Stream::Tcp(stream) => Socket::Tcp(stream),
            Stream::Unix(stream) => Socket::Unix(stream),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}
