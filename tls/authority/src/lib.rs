//! For tests: an authority that makes certificates, also those of unusual forms. What cannot happen in a
//! test that is right panics.
#![allow(clippy::unwrap_used, reason = "for tests only")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData,
    RevokedCertParams, SerialNumber, SigningKey,
};
use time::{Duration, OffsetDateTime};

/// An authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    name: String,
}

/// Whom a certificate is for.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Its common name.
    pub common_name: String,
    /// Hosts and addresses.
    pub hosts: Vec<String>,
    /// For servers, for clients.
    pub usages: (bool, bool),
    /// From when to when it is valid, in days from now.
    pub days: (i64, i64),
    /// Whether it says that it is an authority's.
    pub is_authority: bool,
}

impl Subject {
    /// A member: server and client, on this machine.
    pub fn member(common_name: &str) -> Self {
        Self {
            common_name: common_name.to_owned(),
            hosts: vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
            usages: (true, true),
            days: (-1, 1),
            is_authority: false,
        }
    }

    /// A client, from anywhere.
    pub fn client(common_name: &str) -> Self {
        Self {
            hosts: Vec::new(),
            usages: (false, true),
            ..Self::member(common_name)
        }
    }
}

/// A certificate and its key.
pub struct Pair {
    /// PEM.
    pub cert: String,
    /// PEM.
    pub key: String,
    /// The serial number.
    pub serial: u64,
}

impl Pair {
    /// Writes `<name>.crt` and `<name>.key`, in the place of what is there.
    pub fn write(&self, dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        (
            write(dir, &format!("{name}.crt"), self.cert.as_bytes()),
            write(dir, &format!("{name}.key"), self.key.as_bytes()),
        )
    }
}

/// Writes a file beside its place and puts it there.
pub fn write(dir: &Path, name: &str, content: &[u8]) -> PathBuf {
    let (path, new) = (dir.join(name), dir.join(format!("{name}.new")));
    fs::write(&new, content).unwrap();
    fs::rename(new, &path).unwrap();
    path
}

fn params(subject: &Subject, serial: u64) -> CertificateParams {
    let mut params = CertificateParams::new(subject.hosts.clone()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, subject.common_name.as_str());
    let now = OffsetDateTime::now_utc();
    params.not_before = now + Duration::days(subject.days.0);
    params.not_after = now + Duration::days(subject.days.1);
    params.serial_number = Some(SerialNumber::from(serial));
    if subject.usages.0 {
        params
            .extended_key_usages
            .push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    if subject.usages.1 {
        params
            .extended_key_usages
            .push(ExtendedKeyUsagePurpose::ClientAuth);
    }
    if subject.is_authority {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params
}

fn next_serial() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0x1000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Authority {
    /// A new one, valid for a day.
    pub fn new(name: &str) -> Self {
        Self::valid(name, (-1, 1))
    }

    /// A new one, valid for some days from now.
    pub fn valid(name: &str, days: (i64, i64)) -> Self {
        let subject = Subject {
            usages: (false, false),
            hosts: Vec::new(),
            days,
            is_authority: true,
            ..Subject::member(name)
        };
        let mut params = params(&subject, next_serial());
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self {
            issuer,
            name: name.to_owned(),
        }
    }

    /// Its certificate, as PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Writes its certificate as `<name>.crt`.
    pub fn write(&self, dir: &Path) -> PathBuf {
        write(dir, &format!("{}.crt", self.name), self.pem().as_bytes())
    }

    /// A certificate.
    pub fn issue(&self, subject: &Subject) -> Pair {
        let (serial, key) = (next_serial(), KeyPair::generate().unwrap());
        let cert = params(subject, serial)
            .signed_by(&key, &self.issuer)
            .unwrap();
        Pair {
            cert: cert.pem(),
            key: key.serialize_pem(),
            serial,
        }
    }

    /// A certificate of version 1, which has neither hosts nor usages: what `openssl x509 -req` made for many
    /// years.
    pub fn issue_version_1(&self, common_name: &str) -> Pair {
        let (serial, key) = (next_serial(), KeyPair::generate().unwrap());
        let algorithm = sequence(&[&[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]]);
        let now = OffsetDateTime::now_utc();
        let validity = sequence(&[
            &time(now - Duration::days(1)),
            &time(now + Duration::days(1)),
        ]);
        let body = sequence(&[
            &element(2, &serial.to_be_bytes()),
            &algorithm,
            &name(&self.name),
            &validity,
            &name(common_name),
            &key.subject_public_key_info(),
        ]);
        let signature = self.issuer.key().sign(&body).unwrap();
        let signature = element(3, &[&[0], signature.as_slice()].concat());
        let der = sequence(&[&body, &algorithm, &signature]);
        Pair {
            cert: pem("CERTIFICATE", &der),
            key: key.serialize_pem(),
            serial,
        }
    }

    /// A list of revoked certificates, in DER.
    pub fn revoke(&self, serials: &[u64]) -> Vec<u8> {
        let now = OffsetDateTime::now_utc();
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: now,
            next_update: now + Duration::days(1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().der().to_vec()
    }
}

/// A certificate that is its own authority, as `openssl req -x509` makes it.
pub fn self_signed(subject: &Subject) -> Pair {
    let (serial, key) = (next_serial(), KeyPair::generate().unwrap());
    let cert = params(subject, serial).self_signed(&key).unwrap();
    Pair {
        cert: cert.pem(),
        key: key.serialize_pem(),
        serial,
    }
}

/// An element of DER, shorter than 64 KiB.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    let head: &[u8] = match content.len() {
        0..0x80 => &[tag, low],
        0x80..0x100 => &[tag, 0x81, low],
        _ => &[tag, 0x82, high, low],
    };
    [head, content].concat()
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(0x30, &parts.concat())
}

/// A name that is a common name in UTF-8 and nothing else.
fn name(common_name: &str) -> Vec<u8> {
    let attribute = sequence(&[&[6, 3, 0x55, 4, 3], &element(12, common_name.as_bytes())]);
    sequence(&[&element(0x31, &attribute)])
}

/// A `GeneralizedTime`, to the second.
fn time(at: OffsetDateTime) -> Vec<u8> {
    let text = format!(
        "{:04}{:02}{:02}{:02}{:02}{:02}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    );
    element(24, text.as_bytes())
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}
