//! Certificates that Go takes and webpki has no form for: those of version 1, which `openssl x509 -req`
//! made for many years, and those of authorities, shown as one's own, which `openssl req -x509` makes.
//!
//! One must be signed by a trusted authority itself, or be one. What goes beyond that (intermediate
//! certificates, constraints on names) is webpki's, and refused here.

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, Error};
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::X509Certificate;

use crate::certificate;
use crate::roots::Roots;
use crate::verify::Purpose;

/// # Errors
/// Why it is not trusted.
pub(crate) fn verify(
    der: &CertificateDer<'_>,
    roots: &Roots,
    purpose: Purpose,
    now: UnixTime,
) -> Result<(), Error> {
    let malformed = |_| Error::from(CertificateError::BadEncoding);
    let leaf = certificate::parse(der).map_err(malformed)?;
    let seconds = |time: i64| {
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(
            u64::try_from(time).unwrap_or(0),
        ))
    };
    let not_before = seconds(leaf.validity().not_before.timestamp());
    let not_after = seconds(leaf.validity().not_after.timestamp());
    if now < not_before {
        return Err(CertificateError::NotValidYetContext {
            time: now,
            not_before,
        }
        .into());
    }
    if now > not_after {
        return Err(CertificateError::ExpiredContext {
            time: now,
            not_after,
        }
        .into());
    }
    if !is_understood(&leaf) {
        return Err(CertificateError::UnhandledCriticalExtension.into());
    }
    if !is_for(&leaf, purpose)? {
        return Err(CertificateError::InvalidPurpose.into());
    }
    let trusted = roots.certificates(now).any(|root| {
        root == der || certificate::parse(root).is_ok_and(|root| has_signed(&root, &leaf))
    });
    match trusted {
        true => Ok(()),
        false => Err(CertificateError::UnknownIssuer.into()),
    }
}

fn is_understood(certificate: &X509Certificate<'_>) -> bool {
    let mut critical = certificate
        .extensions()
        .iter()
        .filter(|extension| extension.critical);
    critical.all(|extension| {
        matches!(
            extension.parsed_extension(),
            ParsedExtension::BasicConstraints(_)
                | ParsedExtension::KeyUsage(_)
                | ParsedExtension::ExtendedKeyUsage(_)
                | ParsedExtension::SubjectAlternativeName(_)
        )
    })
}

fn is_for(certificate: &X509Certificate<'_>, purpose: Purpose) -> Result<bool, Error> {
    let usages = certificate.extended_key_usage();
    let usages = usages.map_err(|_| CertificateError::BadEncoding)?;
    Ok(usages.is_none_or(|usages| {
        usages.value.any
            || match purpose {
                Purpose::Client => usages.value.client_auth,
                Purpose::Server => usages.value.server_auth,
            }
    }))
}

fn has_signed(root: &X509Certificate<'_>, leaf: &X509Certificate<'_>) -> bool {
    let is_authority = match root.basic_constraints() {
        Ok(Some(constraints)) => constraints.value.ca,
        Ok(None) => root.version() != x509_parser::x509::X509Version::V3,
        Err(_) => false,
    };
    let may_sign = match root.key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
        Err(_) => false,
    };
    let is_constrained = !matches!(root.name_constraints(), Ok(None));
    root.subject().as_raw() == leaf.issuer().as_raw()
        && is_authority
        && may_sign
        && !is_constrained
        && leaf.verify_signature(Some(root.public_key())).is_ok()
}
