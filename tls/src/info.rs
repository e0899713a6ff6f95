//! What TLS is made of: files and rules, for the connections that are accepted and those that are made.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, ServerConfig};

use crate::crl::Crl;
use crate::error::Error;
use crate::key_pair::{KeyPair, Role};
use crate::roots::Roots;
use crate::suites::{Suites, Version};
use crate::verify::{Allowed, Verifier};
use crate::{Client, Server, server_name};

/// Versions and suites.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// `--tls-min-version`. Default TLS 1.2.
    pub min: Version,
    /// `--tls-max-version`. Default TLS 1.3.
    pub max: Version,
    /// `--cipher-suites`, of TLS 1.2 only. Default all that are good.
    pub suites: Suites,
}

impl Default for Protocol {
    fn default() -> Self {
        Self {
            min: Version::Tls12,
            max: Version::Tls13,
            suites: Suites::default(),
        }
    }
}

/// Files and rules. The default is TLS without any, which is none for a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// The certificate to show, and its intermediate ones.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
    /// Another certificate for the connections that are made.
    pub client_cert_file: Option<PathBuf>,
    /// Its key.
    pub client_key_file: Option<PathBuf>,
    /// The authorities that are trusted. Without: those of the system.
    pub trusted_ca_file: Option<PathBuf>,
    /// Whether clients have to show a certificate. They have to if there is `trusted_ca_file`, too.
    pub client_cert_auth: bool,
    /// Revoked certificates of clients.
    pub crl_file: Option<PathBuf>,
    /// Common names of which the other side must have one, if there are any.
    pub allowed_cns: Vec<String>,
    /// Hosts for one of which the other side's certificate must be, if there are any.
    pub allowed_hostnames: Vec<String>,
    /// Whether a client may come from an address that its certificate is not for. Looked at by those who
    /// know the address.
    pub skip_client_san_verify: bool,
    /// What servers' certificates have to be for, instead of their hosts.
    pub server_name: Option<String>,
    /// Whether servers are believed whatever they show.
    pub insecure_skip_verify: bool,
    /// Versions and suites.
    pub protocol: Protocol,
}

impl Info {
    /// Whether there is nothing to show.
    pub fn is_empty(&self) -> bool {
        self.cert_file.is_none() && self.key_file.is_none()
    }

    /// What accepts connections, with these protocols above TLS; those who name none are accepted.
    ///
    /// # Errors
    /// Any.
    pub fn server(&self, protocols: &[&[u8]]) -> Result<Server, Error> {
        let provider = Arc::new(self.protocol.suites.provider());
        let pair = self.pair(&provider)?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_protocol_versions(&self.versions());
        let builder = builder.map_err(|_| Error::NoSuite)?;
        let builder = match self.client_cert_auth || self.trusted_ca_file.is_some() {
            true => builder.with_client_cert_verifier(Arc::new(self.verifier(&provider, false)?)),
            false => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(pair));
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        // Who has connected before shows a certificate again: it may be revoked meanwhile.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Server {
            config: Arc::new(config),
            crl: self
                .crl_file
                .as_deref()
                .map(|path| Arc::new(Crl::new(path))),
        })
    }

    /// What makes connections, with these protocols above TLS.
    ///
    /// # Errors
    /// Any.
    pub fn client(&self, protocols: &[&[u8]]) -> Result<Client, Error> {
        let provider = Arc::new(self.protocol.suites.provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_protocol_versions(&self.versions());
        let verifier = self.verifier(&provider, self.insecure_skip_verify)?;
        let builder = builder
            .map_err(|_| Error::NoSuite)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match self.is_empty() {
            true => builder.with_no_client_auth(),
            false => {
                let own = self.pair(&provider)?;
                let other = match (&self.client_cert_file, &self.client_key_file) {
                    (Some(cert), Some(key)) => {
                        Some(KeyPair::open(cert, key, Role::Client, &provider)?)
                    }
                    _ => None,
                };
                builder.with_client_cert_resolver(Arc::new(other.unwrap_or(own)))
            }
        };
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        config.resumption = Resumption::disabled();
        let name = self.server_name.as_deref().map(server_name);
        Ok(Client {
            config: Arc::new(config),
            server_name: name.transpose().map_err(Error::ServerName)?,
        })
    }

    /// The pair that is shown; that of the other direction is looked at, too, as a mistake is better found now.
    fn pair(&self, provider: &Arc<CryptoProvider>) -> Result<KeyPair, Error> {
        let (Some(cert), Some(key)) = (&self.cert_file, &self.key_file) else {
            return Err(Error::Half {
                key: shown(self.key_file.as_deref()),
                cert: shown(self.cert_file.as_deref()),
            });
        };
        let pair = KeyPair::open(cert, key, Role::Server, provider)?;
        match (&self.client_cert_file, &self.client_key_file) {
            (None, None) => {}
            (Some(cert), Some(key)) => {
                KeyPair::open(cert, key, Role::Client, provider)?;
            }
            (cert, key) => {
                return Err(Error::HalfClient {
                    key: shown(key.as_deref()),
                    cert: shown(cert.as_deref()),
                });
            }
        }
        Ok(pair)
    }

    fn verifier(&self, provider: &CryptoProvider, insecure: bool) -> Result<Verifier, Error> {
        let roots = match &self.trusted_ca_file {
            Some(path) => Roots::read(path)?,
            // They would not be looked at.
            None if insecure => Roots::default(),
            None => Roots::of_the_system(),
        };
        let allowed = match (&self.allowed_cns[..], &self.allowed_hostnames[..]) {
            ([], []) => Allowed::Everybody,
            (cns, []) => Allowed::CommonNames(cns.to_vec()),
            ([], hosts) => Allowed::Hosts(hosts.to_vec()),
            (cns, hostnames) => {
                return Err(Error::TwoRules {
                    cns: cns.to_vec(),
                    hostnames: hostnames.to_vec(),
                });
            }
        };
        Ok(Verifier {
            // With the system's authorities, the list would be longer than anything else in a handshake.
            subjects: match self.trusted_ca_file {
                Some(_) => roots.subjects(),
                None => Vec::new(),
            },
            roots,
            allowed,
            insecure,
            algorithms: provider.signature_verification_algorithms,
        })
    }

    fn versions(&self) -> Vec<&'static rustls::SupportedProtocolVersion> {
        Version::between(self.protocol.min, self.protocol.max)
    }
}

fn shown(path: Option<&Path>) -> String {
    path.map_or_else(String::new, |path| path.display().to_string())
}

/// As etcd logs it.
impl fmt::Display for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cert = {}, key = {}, client-cert={}, client-key={}, trusted-ca = {}, client-cert-auth = {}, crl-file = {}",
            shown(self.cert_file.as_deref()),
            shown(self.key_file.as_deref()),
            shown(self.client_cert_file.as_deref()),
            shown(self.client_key_file.as_deref()),
            shown(self.trusted_ca_file.as_deref()),
            self.client_cert_auth,
            shown(self.crl_file.as_deref()),
        )
    }
}
