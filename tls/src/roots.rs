//! The authorities that are trusted.

use std::path::Path;

use rustls::DistinguishedName;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};

use crate::certificate;
use crate::error::Error;
use crate::pem;

/// Authorities, read once: other ones need a restart, as with etcd.
#[derive(Debug, Default)]
pub(crate) struct Roots {
    roots: Vec<Root>,
}

#[derive(Debug)]
struct Root {
    certificate: CertificateDer<'static>,
    /// `None` if webpki does not know what to do with it.
    anchor: Option<TrustAnchor<'static>>,
    /// Seconds since 1970.
    valid: std::ops::RangeInclusive<i64>,
}

impl Roots {
    /// All certificates in a file.
    ///
    /// # Errors
    /// [`Error::Open`], [`Error::Malformed`].
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let roots = pem::certificates(path)?.into_iter().map(Root::new);
        Ok(Self {
            roots: roots.collect::<Result<_, _>>()?,
        })
    }

    /// Those that the system trusts. What does not parse is left out.
    pub(crate) fn of_the_system() -> Self {
        let found = rustls_native_certs::load_native_certs().certs.into_iter();
        Self {
            roots: found.filter_map(|found| Root::new(found).ok()).collect(),
        }
    }

    /// Those that are valid now, for webpki. Go does not trust an authority beyond its time, either.
    pub(crate) fn anchors(&self, now: UnixTime) -> Vec<TrustAnchor<'static>> {
        let valid = self.valid(now);
        valid.filter_map(|root| root.anchor.clone()).collect()
    }

    /// The certificates of those that are valid now.
    pub(crate) fn certificates(
        &self,
        now: UnixTime,
    ) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.valid(now).map(|root| &root.certificate)
    }

    fn valid(&self, now: UnixTime) -> impl Iterator<Item = &Root> {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        self.roots
            .iter()
            .filter(move |root| root.valid.contains(&now))
    }

    /// Their names, as a hint for clients that have several certificates.
    pub(crate) fn subjects(&self) -> Vec<DistinguishedName> {
        let anchors = self.roots.iter().filter_map(|root| root.anchor.as_ref());
        anchors
            .map(|anchor| DistinguishedName::in_sequence(&anchor.subject))
            .collect()
    }
}

impl Root {
    fn new(der: CertificateDer<'static>) -> Result<Self, Error> {
        let parsed = certificate::parse(&der)?;
        let valid = parsed.validity();
        let valid = valid.not_before.timestamp()..=valid.not_after.timestamp();
        let anchor = webpki::anchor_from_trusted_cert(&der);
        Ok(Self {
            anchor: anchor.ok().map(|anchor| anchor.to_owned()),
            certificate: der.clone(),
            valid,
        })
    }
}
