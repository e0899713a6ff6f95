//! What is read from a certificate.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::error::Error;

/// Who a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The common name of its subject; empty if it has none.
    pub common_name: Arc<str>,
    /// The names of hosts that it is for.
    pub dns_names: Vec<String>,
    /// The addresses that it is for.
    pub ip_addresses: Vec<IpAddr>,
}

impl Certificate {
    /// # Errors
    /// [`Error::Malformed`].
    pub(crate) fn parse(der: &CertificateDer<'_>) -> Result<Self, Error> {
        Ok(Self::of(&parse(der)?))
    }

    pub(crate) fn of(certificate: &X509Certificate<'_>) -> Self {
        // The last one counts, as for Go.
        let common_name = certificate.subject().iter_common_name().last();
        let common_name = common_name.and_then(|name| name.as_str().ok());
        let mut dns_names = Vec::new();
        let mut ip_addresses = Vec::new();
        let names = certificate.subject_alternative_name().ok().flatten();
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => ip_addresses.extend(address(bytes)),
                _ => {}
            }
        }
        Self {
            common_name: common_name.unwrap_or_default().into(),
            dns_names,
            ip_addresses,
        }
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(bytes.into());
    }
    let bytes = <[u8; 16]>::try_from(bytes).ok()?;
    Some(bytes.into())
}

/// # Errors
/// [`Error::Malformed`].
pub(crate) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Error::Malformed("certificate")),
    }
}
