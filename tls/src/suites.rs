//! Cipher suites by Go's names, and versions by etcd's.

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite as suite, default_provider};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// `TLS1.2`.
    Tls12,
    /// `TLS1.3`.
    Tls13,
}

impl Version {
    /// The version of that name.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "TLS1.2" => Some(Self::Tls12),
            "TLS1.3" => Some(Self::Tls13),
            _ => None,
        }
    }

    /// All from the first to the last.
    pub(crate) fn between(min: Self, max: Self) -> Vec<&'static SupportedProtocolVersion> {
        let all = [
            (Self::Tls13, &rustls::version::TLS13),
            (Self::Tls12, &rustls::version::TLS12),
        ];
        let allowed = all
            .into_iter()
            .filter(|(version, _)| (min..=max).contains(version));
        allowed.map(|(_, version)| version).collect()
    }
}

/// Suites of TLS 1.2 that both Go and rustls have. The last two are names that etcd knows beside Go's.
const BOTH: [(&str, SupportedCipherSuite); 8] = [
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
        suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
        suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// Suites of TLS 1.3: they are always on, whether or not they are named.
const ALWAYS: [&str; 3] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
];

/// What Go has beyond that: block ciphers chained with an authentication of their own, keys without forward
/// secrecy, RC4. rustls has none of them.
const GO_ONLY: [&str; 16] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];

/// A name that Go does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unexpected TLS cipher suite {0:?}")]
pub struct Unknown(pub String);

/// Suites that are allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suites {
    /// As they were named; empty for all that are good.
    names: Vec<String>,
}

impl Suites {
    /// # Errors
    /// [`Unknown`].
    pub fn parse(names: &[String]) -> Result<Self, Unknown> {
        let is_known = |name: &&str| {
            let both = BOTH.iter().any(|(known, _)| known == name);
            both || ALWAYS.contains(name) || GO_ONLY.contains(name)
        };
        match names.iter().find(|name| !is_known(&name.as_str())) {
            Some(unknown) => Err(Unknown(unknown.clone())),
            None => Ok(Self {
                names: names.to_vec(),
            }),
        }
    }

    /// As they were named; none if all that are good are allowed.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Those that were named and are not here.
    pub fn missing(&self) -> Vec<&str> {
        let names = self.names.iter().map(String::as_str);
        names.filter(|name| GO_ONLY.contains(name)).collect()
    }

    /// The cryptography with these suites only.
    pub(crate) fn provider(&self) -> CryptoProvider {
        let mut provider = default_provider();
        if !self.names.is_empty() {
            let is_named = |suite: &SupportedCipherSuite| {
                let named =
                    |(name, of)| of == *suite && self.names.iter().any(|named| named == name);
                suite.tls13().is_some() || BOTH.into_iter().any(named)
            };
            provider.cipher_suites.retain(is_named);
        }
        provider
    }
}
