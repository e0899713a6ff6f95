//! TLS: which files and rules the flags name, for clients and for members.

use std::path::PathBuf;

use ferrite_tls::{Info, Protocol, Suites, Version};

use super::error::Error;
use super::note::Note;
use super::resolve::Reader;
use super::urls::Url;

/// TLS of listeners, and for members of the connections that they make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// Certificates and rules; empty for none.
    pub info: Info,
    /// `--auto-tls` or `--peer-auto-tls`: without certificates, one is made. Default false.
    pub auto: bool,
}

impl Security {
    /// Whether there will be a certificate.
    pub fn is_there(&self) -> bool {
        self.auto || !self.info.is_empty()
    }

    /// `--cert-file` and those beside it.
    pub(super) fn of_clients(read: &Reader<'_>) -> Self {
        Self {
            info: Info {
                cert_file: path(read, "cert-file"),
                key_file: path(read, "key-file"),
                client_cert_file: path(read, "client-cert-file"),
                client_key_file: path(read, "client-key-file"),
                trusted_ca_file: path(read, "trusted-ca-file"),
                client_cert_auth: read.bool("client-cert-auth"),
                crl_file: path(read, "client-crl-file"),
                allowed_hostnames: list(read, "client-cert-allowed-hostname"),
                protocol: protocol(read),
                ..Info::default()
            },
            auto: read.bool("auto-tls"),
        }
    }

    /// `--peer-cert-file` and those beside it.
    pub(super) fn of_members(read: &Reader<'_>) -> Self {
        Self {
            info: Info {
                cert_file: path(read, "peer-cert-file"),
                key_file: path(read, "peer-key-file"),
                client_cert_file: path(read, "peer-client-cert-file"),
                client_key_file: path(read, "peer-client-key-file"),
                trusted_ca_file: path(read, "peer-trusted-ca-file"),
                client_cert_auth: read.bool("peer-client-cert-auth"),
                crl_file: path(read, "peer-crl-file"),
                allowed_cns: list(read, "peer-cert-allowed-cn"),
                allowed_hostnames: list(read, "peer-cert-allowed-hostname"),
                skip_client_san_verify: read.bool("peer-skip-client-san-verification"),
                protocol: protocol(read),
                ..Info::default()
            },
            auto: read.bool("peer-auto-tls"),
        }
    }
}

/// TLS towards the discovery service, if a flag asks for it.
pub(super) fn of_discovery(read: &Reader<'_>) -> Option<Info> {
    let info = Info {
        cert_file: path(read, "discovery-cert"),
        key_file: path(read, "discovery-key"),
        trusted_ca_file: path(read, "discovery-cacert"),
        insecure_skip_verify: read.bool("discovery-insecure-skip-tls-verify"),
        ..Info::default()
    };
    let asked = info != Info::default() || !read.bool("discovery-insecure-transport");
    asked.then_some(info)
}

fn path(read: &Reader<'_>, flag: &str) -> Option<PathBuf> {
    Some(read.text(flag))
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
}

fn list(read: &Reader<'_>, flag: &str) -> Vec<String> {
    let mut values = read.list(flag);
    values.retain(|value| !value.is_empty());
    values
}

/// Of values that were checked.
fn protocol(read: &Reader<'_>) -> Protocol {
    let version = |flag| Version::parse(&read.text(flag));
    Protocol {
        min: version("tls-min-version").unwrap_or(Version::Tls12),
        max: version("tls-max-version").unwrap_or(Version::Tls13),
        suites: Suites::parse(&list(read, "cipher-suites")).unwrap_or_default(),
    }
}

/// Step 13 of the validation: versions and suites.
pub(super) fn check(read: &Reader<'_>, problems: &mut Vec<Error>, notes: &mut Vec<Note>) {
    let version = |flag: &str| {
        let text = read.text(flag);
        match Version::parse(&text) {
            None if text.is_empty() => Ok(None),
            None => Err(Error::TlsVersion(text)),
            Some(version) => Ok(Some((version, text))),
        }
    };
    let names = list(read, "cipher-suites");
    match (version("tls-min-version"), version("tls-max-version")) {
        (Err(error), _) | (_, Err(error)) => problems.push(error),
        (Ok(min), Ok(max)) => {
            if let (Some((Version::Tls13, _)), false) = (&min, names.is_empty()) {
                problems.push(Error::CipherSuites);
            }
            if let (Some((low, min)), Some((high, max))) = (min, max)
                && low > high
            {
                problems.push(Error::TlsVersions { min, max });
            }
        }
    }
    match Suites::parse(&names) {
        Ok(suites) => {
            let missing = suites.missing();
            if !missing.is_empty() {
                notes.push(Note::MissingSuites(missing.join(",")));
            }
        }
        Err(unknown) => problems.push(Error::CipherSuite(unknown)),
    }
}

/// What etcd finds while it opens its listeners.
pub(super) fn check_listeners(read: &Reader<'_>, problems: &mut Vec<Error>, notes: &mut Vec<Note>) {
    let (clients, members) = (Security::of_clients(read), Security::of_members(read));
    let secure = |flag: &str| {
        read.urls(flag)
            .into_iter()
            .find(|url| url.scheme().is_tls())
    };
    if let (Some(url), false) = (secure("listen-peer-urls"), members.is_there()) {
        problems.push(Error::PeerTlsWithoutCert(url.address().to_owned()));
    }
    if !clients.is_there() {
        let client = secure("listen-client-urls").or_else(|| secure("listen-client-http-urls"));
        problems.extend(client.map(|url| Error::ClientTlsWithoutCert(url.to_string())));
        if secure("listen-metrics-urls").is_some() {
            problems.push(Error::MetricsTlsWithoutCert);
        }
    }
    let mut ignored = |flag: &str, of: &Security, what: &'static str| {
        let plain = |url: &Url| !url.scheme().is_tls();
        for url in read.urls(flag).into_iter().filter(plain) {
            let url = url.to_string();
            if !of.info.is_empty() {
                notes.push(Note::CertificatesIgnored {
                    what,
                    url: url.clone(),
                });
            }
            if of.info.client_cert_auth {
                notes.push(Note::CertAuthIgnored { what, url });
            }
        }
    };
    ignored("listen-peer-urls", &members, "peer");
    ignored("listen-client-urls", &clients, "client");
    ignored("listen-client-http-urls", &clients, "client");
    if clients.auto && !clients.info.is_empty() {
        notes.push(Note::AutoTlsIgnored("client"));
    }
    if members.auto && !members.info.is_empty() {
        notes.push(Note::AutoTlsIgnored("peer"));
    }
}
