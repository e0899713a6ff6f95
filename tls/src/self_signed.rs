//! `--auto-tls`: a certificate that a member makes for itself, as etcd makes it. It keeps listeners from
//! being listened to, and proves nothing.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P521_SHA512, SanType,
};
use time::{Duration, OffsetDateTime};

use crate::error::{Error, open};
use crate::info::Info;

/// The certificate in `dir`, for `hosts` (names and addresses), made if it is not there; valid for so many
/// years, of 365 days.
///
/// # Errors
/// Those of files, and [`Error::SelfSigned`].
pub fn self_signed(dir: &Path, hosts: &[String], years: u64) -> Result<Info, Error> {
    if years == 0 {
        return Err(Error::NoValidity);
    }
    let dir = std::path::absolute(dir).map_err(open(dir))?;
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir);
    made.map_err(open(&dir))?;
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    if !cert.exists() || !key.exists() {
        make(&cert, &key, hosts, years)?;
    }
    Ok(Info {
        cert_file: Some(cert.clone()),
        key_file: Some(key.clone()),
        client_cert_file: Some(cert),
        client_key_file: Some(key),
        // The others have made theirs, too.
        insecure_skip_verify: true,
        ..Info::default()
    })
}

fn make(cert: &Path, key: &Path, hosts: &[String], years: u64) -> Result<(), Error> {
    let failed = |error: rcgen::Error| Error::SelfSigned(error.to_string());
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "etcd");
    params.not_before = now;
    let days = i64::try_from(years).unwrap_or(i64::MAX).saturating_mul(365);
    params.not_after = now
        .checked_add(Duration::days(days.min(1_000_000)))
        .ok_or(Error::NoValidity)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::CrlSign,
    ];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for host in hosts {
        params.subject_alt_names.push(match host.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(host.as_str().try_into().map_err(failed)?),
        });
    }
    tracing::warn!(
        "certificate-validity-bound-not-after" = %params.not_after,
        "automatically generate certificates"
    );
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).map_err(failed)?;
    let made = params.self_signed(&pair).map_err(failed)?;
    write(cert, 0o644, &made.pem())?;
    tracing::info!(path = %cert.display(), "created cert file");
    write(key, 0o600, &pair.serialize_pem())?;
    tracing::info!(path = %key.display(), "created key file");
    Ok(())
}

fn write(path: &Path, mode: u32, text: &str) -> Result<(), Error> {
    let mut options = fs::OpenOptions::new();
    let opened = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(open(path))
}
