//! TLS as etcd does it, over rustls (spec http.md section 5).
//!
//! [`Info`] says which files and rules; it makes a [`Server`] that accepts and a [`Client`] that
//! connects. What differs from a plain rustls configuration:
//!
//! * Certificates and keys are looked at again at every handshake ([`key_pair`]), so a certificate is
//!   replaced by replacing its files. Sessions are not resumed: every connection shows its certificate.
//! * What Go takes and rustls does not is taken ([`verify`]): certificates of version 1, and those of
//!   authorities, shown as one's own. Expired authorities are refused, as by Go.
//! * Revoked certificates ([`crl`]), and names that may connect ([`Info::allowed_cns`]).
//! * Errors read as Go's ([`text`]): operators and tools look for them.
//!
//! aws-lc-rs does the arithmetic, because it knows P-521, which `--auto-tls` of etcd makes its keys on.

pub mod certificate;
mod crl;
mod error;
mod info;
mod key_pair;
mod lenient;
mod pem;
mod roots;
mod self_signed;
mod session;
mod suites;
mod text;
mod verify;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::{LazyConfigAcceptor, TlsConnector};

pub use certificate::Certificate;
use crl::Crl;
pub use error::Error;
pub use info::{Info, Protocol};
pub use self_signed::self_signed;
pub use session::{Session, Socket};
pub use suites::{Suites, Unknown, Version};
pub use text::{explain, text};
pub use tokio_rustls::{client, server};

/// How long a handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// HTTP/2, in the words of a handshake.
pub const H2: &[u8] = b"h2";

/// HTTP/1.1, in the words of a handshake.
pub const HTTP1: &[u8] = b"http/1.1";

/// Accepts connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Server {
    config: Arc<rustls::ServerConfig>,
    crl: Option<Arc<Crl>>,
}

/// A connection that was accepted.
#[derive(Debug)]
pub struct Accepted<S> {
    /// The connection.
    pub stream: server::TlsStream<S>,
    /// The certificate that the other side has shown; it is verified.
    pub certificate: Option<Certificate>,
}

/// A connection that was not.
#[derive(Debug)]
pub struct Rejected {
    /// The name that the client has asked for, if it did.
    pub server_name: String,
    /// The certificate of the other side, if it was accepted before something else went wrong.
    pub certificate: Option<Certificate>,
    /// Go's text for what went wrong.
    pub error: String,
    /// The other side has just left, or was never there.
    pub is_eof: bool,
}

impl Rejected {
    fn early(error: &io::Error, server_name: String) -> Self {
        Self {
            server_name,
            certificate: None,
            error: text(error),
            is_eof: text::is_eof(error),
        }
    }
}

impl Server {
    /// Shakes hands.
    ///
    /// # Errors
    /// [`Rejected`]; the connection is closed.
    pub async fn accept<S>(&self, stream: S) -> Result<Accepted<S>, Rejected>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut server_name = String::new();
        let handshake = async {
            let started =
                LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
            if let Some(name) = started.client_hello().server_name() {
                name.clone_into(&mut server_name);
            }
            started.into_stream(Arc::clone(&self.config)).await
        };
        let shaken = timeout(HANDSHAKE_TIMEOUT, handshake).await;
        let stream = match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(Rejected::early(&error, server_name)),
            Err(_) => {
                let error = io::Error::new(io::ErrorKind::TimedOut, "i/o timeout");
                return Err(Rejected::early(&error, server_name));
            }
        };
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let checked = match &self.crl {
            Some(crl) => crl.check(shown),
            None => Ok(()),
        };
        let certificate = shown.first().map(Certificate::parse).transpose();
        match (checked, certificate) {
            (Ok(()), Ok(certificate)) => Ok(Accepted {
                stream,
                certificate,
            }),
            (Err(error), certificate) => Err(Rejected {
                server_name,
                certificate: certificate.ok().flatten(),
                error,
                is_eof: false,
            }),
            (Ok(()), Err(error)) => Err(Rejected {
                server_name,
                certificate: None,
                error: error.to_string(),
                is_eof: false,
            }),
        }
    }
}

/// Connects. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    config: Arc<rustls::ClientConfig>,
    /// The name to look for in the other side's certificate, instead of its host's.
    server_name: Option<ServerName<'static>>,
}

impl Client {
    /// Shakes hands with a host: a name or an address, without a port.
    ///
    /// # Errors
    /// The text is Go's.
    pub async fn connect<S>(&self, host: &str, stream: S) -> io::Result<client::TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => server_name(host)?,
        };
        let connector = TlsConnector::from(Arc::clone(&self.config));
        match timeout(HANDSHAKE_TIMEOUT, connector.connect(name, stream)).await {
            Ok(shaken) => shaken.map_err(|error| match text::is_eof(&error) {
                true => io::Error::new(error.kind(), "EOF"),
                false => explain(error),
            }),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "net/http: TLS handshake timeout",
            )),
        }
    }
}

/// A host as a certificate names it.
fn server_name(host: &str) -> io::Result<ServerName<'static>> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    // A dot at the end is not part of the names in certificates.
    let bare = bare.strip_suffix('.').unwrap_or(bare);
    ServerName::try_from(bare.to_owned()).map_err(|_| {
        let text = format!("tls: {host:?} is no name that a certificate can have");
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })
}
