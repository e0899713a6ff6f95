//! Why there is no TLS.

use std::io;
use std::path::{Path, PathBuf};

use ferrite_api::os_text;

/// What is wrong with files or rules. Texts are Go's and etcd's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("open {}: {}", .path.display(), os_text(.source))]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is no certificate in a file.
    #[error("tls: failed to find any PEM data in certificate input")]
    NoCertificate,
    /// There is no key in a file.
    #[error("tls: failed to find any PEM data in key input")]
    NoKey,
    /// The key is none that is known.
    #[error("tls: failed to parse private key")]
    BadKey,
    /// Certificate and key are not a pair.
    #[error("tls: private key does not match public key")]
    Mismatch,
    /// A certificate, or a list of revoked ones, does not parse.
    #[error("x509: malformed {0}")]
    Malformed(&'static str),
    /// Only one of certificate and key.
    #[error("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]")]
    Half {
        /// The key.
        key: String,
        /// The certificate.
        cert: String,
    },
    /// Only one of certificate and key, of those for the other direction.
    #[error(
        "ClientKeyFile and ClientCertFile must both be present or both absent: key: {key}, cert: {cert}]"
    )]
    HalfClient {
        /// The key.
        key: String,
        /// The certificate.
        cert: String,
    },
    /// Two rules about names.
    #[error(
        "AllowedCNs and AllowedHostnames are mutually exclusive (cns={cns:?}, hostnames={hostnames:?})"
    )]
    TwoRules {
        /// Common names.
        cns: Vec<String>,
        /// Names of hosts.
        hostnames: Vec<String>,
    },
    /// No suite is left that this program has, at the versions that are allowed.
    #[error("none of the TLS cipher suites is available")]
    NoSuite,
    /// The name to look for cannot be in a certificate.
    #[error("{0}")]
    ServerName(io::Error),
    /// A certificate cannot be made.
    #[error("cannot generate cert: {0}")]
    SelfSigned(String),
    /// It is to be valid for no time.
    #[error("selfSignedCertValidity is invalid,it should be greater than 0")]
    NoValidity,
    /// rustls does not take it.
    #[error("tls: {0}")]
    Other(#[from] rustls::Error),
}

pub(crate) fn open(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
    |source| Error::Open {
        path: path.to_owned(),
        source,
    }
}
