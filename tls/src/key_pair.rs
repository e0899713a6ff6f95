//! A certificate and its key, looked at again whenever they are shown.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::certificate;
use crate::error::{Error, open};
use crate::pem;

/// How long after its last change a file is read again each time: two changes in a row may look like one.
const SETTLED: Duration = Duration::from_secs(2);

/// Which state of a file was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: u64,
    bytes: u64,
    changed: SystemTime,
    looked: SystemTime,
}

impl Stamp {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let metadata = fs::metadata(path)?;
        Ok(Self {
            inode: metadata.ino(),
            bytes: metadata.len(),
            changed: metadata.modified()?,
            looked: SystemTime::now(),
        })
    }

    /// Whether the file is certainly the same now.
    pub(crate) fn is(&self, now: &Stamp) -> bool {
        let same =
            self.inode == now.inode && self.bytes == now.bytes && self.changed == now.changed;
        let quiet = self.looked.duration_since(self.changed);
        same && quiet.is_ok_and(|quiet| quiet >= SETTLED)
    }
}

/// Which side shows it: what the log calls it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    Server,
    Client,
}

/// A certificate and its key in files.
#[derive(Debug)]
pub(crate) struct KeyPair {
    cert: PathBuf,
    key: PathBuf,
    role: Role,
    provider: Arc<CryptoProvider>,
    last: Mutex<Option<(Stamp, Stamp, Arc<CertifiedKey>)>>,
}

impl KeyPair {
    /// Reads the files once, to know that they are good.
    ///
    /// # Errors
    /// Any about files.
    pub(crate) fn open(
        cert: &Path,
        key: &Path,
        role: Role,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let pair = Self {
            cert: cert.to_owned(),
            key: key.to_owned(),
            role,
            provider: Arc::clone(provider),
            last: Mutex::new(None),
        };
        pair.current()?;
        Ok(pair)
    }

    fn current(&self) -> Result<Arc<CertifiedKey>, Error> {
        let cert = Stamp::of(&self.cert).map_err(open(&self.cert))?;
        let key = Stamp::of(&self.key).map_err(open(&self.key))?;
        if let Some((of_cert, of_key, pair)) = &*self.last.lock()
            && of_cert.is(&cert)
            && of_key.is(&key)
        {
            return Ok(Arc::clone(pair));
        }
        let pair = Arc::new(self.read()?);
        *self.last.lock() = Some((cert, key, Arc::clone(&pair)));
        Ok(pair)
    }

    fn read(&self) -> Result<CertifiedKey, Error> {
        let chain = pem::certificates(&self.cert)?;
        let key = pem::key(&self.key)?;
        let key = self.provider.key_provider.load_private_key(key);
        let key = key.map_err(|_| Error::BadKey)?;
        let leaf = certificate::parse(chain.first().ok_or(Error::NoCertificate)?)?;
        let matches = key
            .public_key()
            .is_none_or(|of_key| of_key.as_ref() == leaf.tbs_certificate.subject_pki.raw);
        match matches {
            true => Ok(CertifiedKey::new(chain, key)),
            false => Err(Error::Mismatch),
        }
    }

    fn show(&self) -> Option<Arc<CertifiedKey>> {
        let current = self.current();
        current
            .inspect_err(|error| {
                let absent = matches!(error, Error::Open { source, .. } if source.kind() == io::ErrorKind::NotFound);
                let (cert, key) = (self.cert.display(), self.key.display());
                match (self.role, absent) {
                    (Role::Server, true) => tracing::warn!("cert-file" = %cert, "key-file" = %key, %error, "failed to find peer cert files"),
                    (Role::Server, false) => tracing::warn!("cert-file" = %cert, "key-file" = %key, %error, "failed to create peer certificate"),
                    (Role::Client, true) => tracing::warn!("cert-file" = %cert, "key-file" = %key, %error, "failed to find client cert files"),
                    (Role::Client, false) => tracing::warn!("cert-file" = %cert, "key-file" = %key, %error, "failed to create client certificate"),
                }
            })
            .ok()
    }
}

impl ResolvesServerCert for KeyPair {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.show()
    }
}

impl ResolvesClientCert for KeyPair {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.show()
    }

    fn has_certs(&self) -> bool {
        true
    }
}
