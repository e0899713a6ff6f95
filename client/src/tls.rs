//! TLS of connections.

use std::io;
use std::path::PathBuf;

use ferrite_tls::{Client, H2, Info};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::Error;

/// Which servers are believed, and what is shown to them. The default believes those whom an authority
/// vouches for that the system trusts, and shows nothing.
///
/// ```no_run
/// # fn example() -> Result<(), ferrite_client::Error> {
/// use ferrite_client::{Config, TlsOptions};
///
/// let tls = TlsOptions {
///     ca_file: Some("ca.crt".into()),
///     cert_file: Some("client.crt".into()),
///     key_file: Some("client.key".into()),
///     ..TlsOptions::default()
/// };
/// let config = Config::new(["https://10.0.0.1:2379"]).tls(tls.load()?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// The authorities that are trusted. Default those of the system.
    pub ca_file: Option<PathBuf>,
    /// The certificate to show; it is looked at again at each connection.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
    /// What servers' certificates have to be for, instead of the host of the endpoint.
    pub server_name: Option<String>,
    /// Whether servers are believed whatever they show. Anybody on the way can read and change
    /// everything then.
    pub insecure_skip_verify: bool,
}

impl TlsOptions {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`], in Go's words.
    pub fn load(&self) -> Result<Tls, Error> {
        let info = Info {
            trusted_ca_file: self.ca_file.clone(),
            cert_file: self.cert_file.clone(),
            key_file: self.key_file.clone(),
            server_name: self.server_name.clone(),
            insecure_skip_verify: self.insecure_skip_verify,
            ..Info::default()
        };
        match info.client(&[H2]) {
            Ok(client) => Ok(Tls(client)),
            Err(error) => Err(Error::InvalidConfig(error.to_string())),
        }
    }
}

/// [`TlsOptions`] whose files were read.
#[derive(Clone, Debug)]
pub struct Tls(Client);

impl Tls {
    /// Shakes hands with a host; the failure is a text as gRPC's.
    pub(crate) async fn connect<S>(
        &self,
        host: &str,
        stream: S,
    ) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + use<S>, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let failed = |error: io::Error| {
            let reason = ferrite_tls::text(&error);
            format!("transport: authentication handshake failed: {reason}")
        };
        self.0.connect(host, stream).await.map_err(failed)
    }
}
