//! Lists of revoked certificates: a file, looked at again at each connection. As etcd, only serial numbers
//! count: whose list it is, and until when it is valid, is not looked at.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use crate::certificate;
use crate::error::{Error, open};
use crate::key_pair::Stamp;

/// A list in a file.
#[derive(Debug)]
pub(crate) struct Crl {
    path: PathBuf,
    /// What was read last, and of which state of the file that is.
    last: Mutex<Option<(Stamp, Serials)>>,
}

type Serials = HashSet<Vec<u8>>;

impl Crl {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            last: Mutex::new(None),
        }
    }

    /// Looks each certificate up that the other side has shown.
    ///
    /// # Errors
    /// Go's text: one is revoked, or the list cannot be read.
    pub(crate) fn check(&self, shown: &[CertificateDer<'_>]) -> Result<(), String> {
        let mut last = self.last.lock();
        let stamp = Stamp::of(&self.path).map_err(|error| open(&self.path)(error).to_string())?;
        let serials = match last.take().filter(|(of, _)| of.is(&stamp)) {
            Some((_, serials)) => serials,
            None => read(&self.path).map_err(|error| error.to_string())?,
        };
        let checked = shown.iter().try_for_each(|shown| {
            let shown = certificate::parse(shown).map_err(|error| error.to_string())?;
            let serial = number(shown.raw_serial());
            match serials.contains(serial) {
                true => Err(format!(
                    "transport: certificate serial {} revoked",
                    hex(serial)
                )),
                false => Ok(()),
            }
        });
        *last = Some((stamp, serials));
        checked
    }
}

fn read(path: &Path) -> Result<Serials, Error> {
    let bytes = std::fs::read(path).map_err(open(path))?;
    // As text, too, which etcd does not read.
    let bytes = match CertificateRevocationListDer::from_pem_slice(&bytes) {
        Ok(content) => content.to_vec(),
        Err(_) => bytes,
    };
    let Ok(([], list)) = CertificateRevocationList::from_der(&bytes) else {
        return Err(Error::Malformed("crl"));
    };
    let revoked = list.iter_revoked_certificates();
    Ok(revoked
        .map(|revoked| number(revoked.raw_serial()).to_owned())
        .collect())
}

/// The digits of a number, without leading zeros.
fn number(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeros..]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
