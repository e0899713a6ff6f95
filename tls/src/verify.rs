//! Whether the other side's certificate is trusted: webpki decides, and [`lenient`] about what
//! webpki has no form for. Then the names that may connect.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved,
    SignatureScheme,
};
use webpki::{
    EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage, RawPublicKeyEntity,
    RequiredEkuNotFoundContext,
};

use crate::certificate::{self, Certificate};
use crate::lenient;
use crate::roots::Roots;
use crate::server_name;

/// What a certificate is shown for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    Client,
    Server,
}

/// The usage that stands for every other one; webpki does not know it.
const ANY_USAGE: [usize; 5] = [2, 5, 29, 37, 0];

impl ExtendedKeyUsageValidator for Purpose {
    fn validate(&self, ids: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let usage = match self {
            Self::Client => KeyUsage::client_auth(),
            Self::Server => KeyUsage::server_auth(),
        };
        let mut present = Vec::new();
        for id in ids {
            let id = id?.to_decoded_oid();
            if id == ANY_USAGE || usage.oid_values().eq(id.iter().copied()) {
                return Ok(());
            }
            present.push(id);
        }
        match present.is_empty() {
            true => Ok(()),
            false => Err(webpki::Error::RequiredEkuNotFoundContext(
                RequiredEkuNotFoundContext {
                    required: usage,
                    present,
                },
            )),
        }
    }
}

/// Whose verified certificate is let in.
#[derive(Debug)]
pub(crate) enum Allowed {
    Everybody,
    CommonNames(Vec<String>),
    Hosts(Vec<String>),
}

/// Verifies the other side's certificate, in either direction.
#[derive(Debug)]
pub(crate) struct Verifier {
    pub(crate) roots: Roots,
    /// The names of the roots, for clients to choose by.
    pub(crate) subjects: Vec<DistinguishedName>,
    pub(crate) allowed: Allowed,
    /// Nothing is looked at: whoever it is has the key of what is shown, and that is all.
    pub(crate) insecure: bool,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn verify_chain(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        purpose: Purpose,
        now: UnixTime,
    ) -> Result<(), Error> {
        let parsed = EndEntityCert::try_from(leaf);
        let anchors = self.roots.anchors(now);
        let verified = parsed.and_then(|parsed| {
            parsed
                .verify_for_usage(
                    self.algorithms.all,
                    &anchors,
                    intermediates,
                    now,
                    purpose,
                    None,
                    None,
                )
                .map(drop)
        });
        match verified {
            Err(webpki::Error::UnsupportedCertVersion | webpki::Error::CaUsedAsEndEntity) => {
                lenient::verify(leaf, &self.roots, purpose, now)
            }
            verified => verified.map_err(explain),
        }
    }

    fn verify_allowed(&self, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        let is_allowed = match &self.allowed {
            Allowed::Everybody => true,
            // Without verification there is nothing that could be allowed.
            _ if self.insecure => false,
            Allowed::CommonNames(names) => Certificate::parse(leaf)
                .is_ok_and(|shown| names.iter().any(|name| **name == *shown.common_name)),
            // A name that no host can have may still be a pattern that the certificate shows.
            Allowed::Hosts(hosts) => hosts.iter().any(|host| match server_name(host) {
                Ok(host) => is_for_host(leaf, &host),
                Err(_) => shows_name(leaf, |name| name.eq_ignore_ascii_case(host)),
            }),
        };
        match is_allowed {
            true => Ok(()),
            false => Err(CertificateError::NotValidForName.into()),
        }
    }

    fn verify_host(&self, leaf: &CertificateDer<'_>, host: &ServerName<'_>) -> Result<(), Error> {
        if is_for_host(leaf, host) {
            return Ok(());
        }
        let names = Certificate::parse(leaf).map_err(|_| CertificateError::BadEncoding)?;
        let addresses = names.ip_addresses.iter().map(ToString::to_string);
        Err(CertificateError::NotValidForNameContext {
            expected: host.to_owned(),
            presented: names.dns_names.iter().cloned().chain(addresses).collect(),
        }
        .into())
    }

    /// A signature with the key of a certificate of version 1, which rustls does not read.
    fn verify_with_key_of(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let parsed = certificate::parse(certificate).map_err(|_| CertificateError::BadEncoding)?;
        let key = SubjectPublicKeyInfoDer::from(parsed.tbs_certificate.subject_pki.raw);
        let key = RawPublicKeyEntity::try_from(&key).map_err(explain)?;
        let of_scheme = self
            .algorithms
            .mapping
            .iter()
            .find(|(scheme, _)| *scheme == signed.scheme);
        let (_, algorithms) =
            of_scheme.ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        let mut verified = algorithms
            .iter()
            .map(|algorithm| key.verify_signature(*algorithm, message, signed.signature()));
        match verified.any(|verified| verified.is_ok()) {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => Err(CertificateError::BadSignature.into()),
        }
    }

    fn verify_tls12(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match EndEntityCert::try_from(certificate) {
            Ok(_) => verify_tls12_signature(message, certificate, signed, &self.algorithms),
            Err(_) => self.verify_with_key_of(message, certificate, signed),
        }
    }

    fn verify_tls13(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match EndEntityCert::try_from(certificate) {
            Ok(_) => verify_tls13_signature(message, certificate, signed, &self.algorithms),
            Err(_) if is_of_tls13(signed.scheme) => {
                self.verify_with_key_of(message, certificate, signed)
            }
            Err(_) => Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into()),
        }
    }
}

/// Whether handshakes of TLS 1.3 may be signed so (RFC 8446, section 4.2.3).
fn is_of_tls13(scheme: SignatureScheme) -> bool {
    use SignatureScheme as S;
    !matches!(
        scheme,
        S::RSA_PKCS1_SHA1
            | S::RSA_PKCS1_SHA256
            | S::RSA_PKCS1_SHA384
            | S::RSA_PKCS1_SHA512
            | S::ECDSA_SHA1_Legacy
    )
}

fn is_for_host(leaf: &CertificateDer<'_>, host: &ServerName<'_>) -> bool {
    let valid = EndEntityCert::try_from(leaf)
        .is_ok_and(|leaf| leaf.verify_is_valid_for_subject_name(host).is_ok());
    match host {
        _ if valid => true,
        ServerName::DnsName(host) => shows_name(leaf, |name| is_wildcard_for(name, host.as_ref())),
        _ => false,
    }
}

fn shows_name(leaf: &CertificateDer<'_>, matches: impl Fn(&str) -> bool) -> bool {
    let shown = Certificate::parse(leaf);
    shown.is_ok_and(|shown| shown.dns_names.iter().any(|name| matches(name)))
}

/// A star stands for the first label of a name, whatever comes after it: webpki wants two labels there, Go
/// does not, and clusters have been given certificates for `*.local`.
fn is_wildcard_for(pattern: &str, host: &str) -> bool {
    let rest = |name: &str| {
        name.split_once('.')
            .map(|(_, rest)| rest.to_ascii_lowercase())
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    pattern.starts_with("*.") && !host.starts_with('.') && rest(pattern) == rest(host)
}

/// webpki's error as one of rustls, which decides about the alert that the other side gets.
fn explain(error: webpki::Error) -> Error {
    use webpki::Error as E;
    let error = match error {
        E::UnknownIssuer => CertificateError::UnknownIssuer,
        E::CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
        E::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        E::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        E::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        E::UnsupportedCriticalExtension => CertificateError::UnhandledCriticalExtension,
        E::BadDer | E::BadDerTime | E::TrailingData(_) => CertificateError::BadEncoding,
        other => return Error::General(format!("x509: {other}")),
    };
    error.into()
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify_chain(leaf, intermediates, Purpose::Client, now)?;
        self.verify_allowed(leaf)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_tls12(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_tls13(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.insecure {
            self.verify_host(leaf, host)?;
            self.verify_chain(leaf, intermediates, Purpose::Server, now)?;
        }
        self.verify_allowed(leaf)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_tls12(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_tls13(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
