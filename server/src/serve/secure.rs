//! TLS of a listener: which connections are let in, and what is known of them (spec/http.md section 5).

use std::net::SocketAddr;

use ferrite_tls::server::TlsStream;
use ferrite_tls::{Accepted, H2, HANDSHAKE_TIMEOUT, Rejected};
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::listener::Serves;
use super::san;
use crate::auth::CommonName;

/// The first byte of a connection over TLS.
const HANDSHAKE: u8 = 0x16;

/// Whose connections they are: what the log calls them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Clients.
    Client,
    /// Other members.
    Peer,
}

/// TLS of a listener.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Shakes hands.
    pub server: ferrite_tls::Server,
    /// Whose connections.
    pub endpoint: Endpoint,
    /// Whether those without TLS are served on the same address.
    pub plain_too: bool,
    /// Whether a client's certificate must be for the address that it comes from.
    pub checks_address: bool,
    /// Whether the common name of a client's certificate says who the client is (`--client-cert-auth`).
    pub identifies: bool,
}

/// With each request that has come over TLS.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OverTls {
    /// Whether the client has a name by its certificate, and so is a user.
    pub(crate) is_named: bool,
}

/// What is known of a connection over TLS.
#[derive(Clone, Debug)]
pub(crate) struct Secured {
    /// Who the client is, if its certificate says so and that counts.
    pub(crate) common_name: Option<CommonName>,
}

impl Secured {
    /// Tells a request of the connection.
    pub(crate) fn tell<B>(&self, request: &mut http::Request<B>) {
        let name = self.common_name.as_ref();
        let is_named = name.is_some_and(|name| !name.as_str().is_empty());
        request.extensions_mut().insert(OverTls { is_named });
    }
}

/// A connection that was let in.
pub(crate) enum Admitted<S> {
    Plain(S),
    Secure(Box<TlsStream<S>>, Secured),
}

impl Tls {
    /// Lets a connection in, or logs why not. May take [`HANDSHAKE_TIMEOUT`].
    pub(crate) async fn admit<S: Transport>(
        &self,
        stream: S,
        serves: Serves,
    ) -> Option<Admitted<S>> {
        if self.plain_too {
            match timeout(HANDSHAKE_TIMEOUT, stream.first_byte()).await {
                Ok(Ok(HANDSHAKE)) => {}
                Ok(Ok(_)) => return Some(Admitted::Plain(stream)),
                Ok(Err(_)) | Err(_) => return None,
            }
        }
        let remote = stream.remote();
        let shaken = self.server.accept(stream).await;
        let admitted = match shaken {
            Ok(accepted) => self.check(accepted, remote, serves).await,
            Err(rejected) => Err(rejected),
        };
        admitted
            .inspect_err(|rejected| self.log(rejected, remote))
            .ok()
    }

    async fn check<S: Transport>(
        &self,
        accepted: Accepted<S>,
        remote: Option<SocketAddr>,
        serves: Serves,
    ) -> Result<Admitted<S>, Rejected> {
        let Accepted {
            stream,
            certificate,
        } = accepted;
        let session = stream.get_ref().1;
        let mut checked = Ok(());
        if serves == Serves::Grpc && session.alpn_protocol() != Some(H2) {
            checked =
                Err("credentials: cannot check peer: missing selected ALPN property".to_owned());
        } else if let (true, Some(certificate), Some(remote)) =
            (self.checks_address, &certificate, remote)
        {
            checked = san::check(certificate, remote.ip().to_canonical()).await;
        }
        if let Err(error) = checked {
            return Err(Rejected {
                server_name: session.server_name().unwrap_or_default().to_owned(),
                certificate,
                error,
                is_eof: false,
            });
        }
        let certificate = certificate.filter(|_| self.identifies);
        let common_name = certificate.map(|shown| CommonName::new(&shown.common_name));
        let secured = Secured { common_name };
        Ok(Admitted::Secure(Box::new(stream), secured))
    }

    fn log(&self, rejected: &Rejected, remote: Option<SocketAddr>) {
        let remote = remote.map_or_else(String::new, |remote| remote.to_string());
        let Rejected {
            server_name,
            certificate,
            error,
            is_eof,
        } = rejected;
        macro_rules! line {
            ($level:ident, $message:literal) => {
                match certificate {
                    Some(shown) => {
                        let addresses = shown.ip_addresses.iter().map(ToString::to_string);
                        let addresses: Vec<String> = addresses.collect();
                        tracing::$level!("remote-addr" = remote, "server-name" = server_name,
                            "ip-addresses" = ?addresses, "dns-names" = ?shown.dns_names, error, $message);
                    }
                    None => {
                        tracing::$level!("remote-addr" = remote, "server-name" = server_name, error, $message);
                    }
                }
            };
        }
        match (self.endpoint, is_eof) {
            // Health checks that only connect are not worth a line.
            (Endpoint::Client, true) => line!(debug, "rejected connection on client endpoint"),
            (Endpoint::Client, false) => line!(warn, "rejected connection on client endpoint"),
            (Endpoint::Peer, true) => line!(debug, "rejected connection on peer endpoint"),
            (Endpoint::Peer, false) => line!(warn, "rejected connection on peer endpoint"),
        }
    }
}

/// A connection of the system's.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Who is at the other end, if that is an address.
    fn remote(&self) -> Option<SocketAddr>;

    /// Waits for the first byte and leaves it there.
    fn first_byte(&self) -> impl Future<Output = std::io::Result<u8>> + Send;
}

macro_rules! transport {
    ($type:ty, $stream:ident => $remote:expr) => {
        impl Transport for $type {
            fn remote(&self) -> Option<SocketAddr> {
                let $stream = self;
                $remote
            }

            async fn first_byte(&self) -> std::io::Result<u8> {
                loop {
                    self.readable().await?;
                    let mut first = [0];
                    let peeked = self.try_io(Interest::READABLE, || {
                        Ok(recv(self, &mut first, RecvFlags::PEEK)?.0)
                    });
                    match peeked {
                        Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                        Ok(_) => return Ok(first[0]),
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
    };
}

transport!(TcpStream, stream => stream.peer_addr().ok());
transport!(UnixStream, _stream => None);
