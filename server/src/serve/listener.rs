//! Bound sockets, and the connections that they accept.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::secure::Tls;

/// Silence after which TCP asks whether the client is still there, and the time between questions.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// Connections that wait to be accepted; the system may hold fewer.
const BACKLOG: u32 = 1024;

/// First and longest pause after a failure to accept, such as no free file descriptor.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// What a listener serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Serves {
    /// gRPC and HTTP.
    #[default]
    Both,
    /// gRPC only: `--listen-client-urls` when there are `--listen-client-http-urls`.
    Grpc,
    /// HTTP only: `--listen-client-http-urls`.
    Http,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP address, the port resolved.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => path.display().fmt(f),
        }
    }
}

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    address: Address,
    serves: Serves,
    tls: Option<Tls>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// An accepted connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// Binds `host:port`. An empty host is every address, IPv6 and IPv4.
    ///
    /// # Errors
    /// Those of the system, and of resolving a name.
    pub async fn tcp(address: &str, serves: Serves) -> io::Result<Self> {
        Self::tcp_with(address, serves, false).await
    }

    /// As [`Listener::tcp`]. With `reuse_port` other sockets with this option may listen on the same
    /// address; the system then spreads connections over them.
    ///
    /// # Errors
    /// As [`Listener::tcp`].
    pub async fn tcp_with(address: &str, serves: Serves, reuse_port: bool) -> io::Result<Self> {
        let port = address.strip_prefix(':').map(str::parse::<u16>);
        let socket = match port {
            Some(Ok(port)) => match bind((Ipv6Addr::UNSPECIFIED, port).into(), reuse_port) {
                Ok(socket) => socket,
                // No IPv6 here.
                Err(_) => bind((Ipv4Addr::UNSPECIFIED, port).into(), reuse_port)?,
            },
            _ => {
                let mut bound = Err(io::Error::from(io::ErrorKind::AddrNotAvailable));
                for address in tokio::net::lookup_host(address).await? {
                    bound = bind(address, reuse_port);
                    if bound.is_ok() {
                        break;
                    }
                }
                bound?
            }
        };
        let address = Address::Tcp(socket.local_addr()?);
        Ok(Self {
            socket: Socket::Tcp(socket),
            address,
            serves,
            tls: None,
        })
    }

    /// Binds a Unix socket. A socket file that nobody listens on, left by a process that died, is
    /// replaced; the file is removed when the listener is dropped.
    ///
    /// # Errors
    /// Those of the system; `AddrInUse` when somebody listens there.
    pub async fn unix(path: &Path, serves: Serves) -> io::Result<Self> {
        let socket = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if UnixStream::connect(path).await.is_ok() {
                    return Err(error);
                }
                std::fs::remove_file(path)?;
                UnixListener::bind(path)?
            }
            bound => bound?,
        };
        let address = Address::Unix(path.to_owned());
        Ok(Self {
            socket: Socket::Unix(socket),
            address,
            serves,
            tls: None,
        })
    }

    /// The same over TLS.
    pub fn secured(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Its TLS, if it has one.
    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// What it serves.
    pub(crate) fn serves(&self) -> Serves {
        self.serves
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Hands each connection to `begin`, which must not wait, until `end`.
    pub(crate) async fn accept_all<T>(
        &self,
        end: &CancellationToken,
        mut begin: impl FnMut(Stream) -> T,
    ) {
        let mut pause = ACCEPT_PAUSE.0;
        loop {
            let accepted = tokio::select! {
                biased;
                () = end.cancelled() => return,
                accepted = self.accept() => accepted,
            };
            match accepted {
                Ok(stream) => {
                    pause = ACCEPT_PAUSE.0;
                    begin(stream);
                }
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    let address = &self.address;
                    tracing::warn!(%address, %error, ?pause, "cannot accept connections, pausing");
                    tokio::select! {
                        () = end.cancelled() => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (pause * 2).min(ACCEPT_PAUSE.1);
                }
            }
        }
    }

    async fn accept(&self) -> io::Result<Stream> {
        match &self.socket {
            Socket::Tcp(socket) => {
                let (stream, _) = socket.accept().await?;
                if let Err(error) = set_up(&stream) {
                    // The caller has gone already, or the system lacks an option: serve anyway.
                    tracing::debug!(%error, "cannot set up a connection");
                }
                Ok(Stream::Tcp(stream))
            }
            Socket::Unix(socket) => Ok(Stream::Unix(socket.accept().await?.0)),
        }
    }
}

/// Listens on an address, also if connections of an earlier process linger there.
fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(reuse_port)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Address::Unix(path) = &self.address {
            // Best effort: the next start replaces a left-over.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Whether a failed accept says nothing about the next one.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

pub(crate) fn set_up(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, TCP_KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(stream, TCP_KEEPALIVE)?;
    Ok(())
}
