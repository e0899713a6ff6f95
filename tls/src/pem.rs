//! Certificates and keys in files.

use std::path::Path;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::{Error, open};

/// All certificates of a file, in their order; other sections are left out.
///
/// # Errors
/// [`Error::Open`], [`Error::Malformed`].
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = std::fs::read(path).map_err(open(path))?;
    CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|_| Error::Malformed("certificate"))
}

/// The first key of a file.
///
/// # Errors
/// [`Error::Open`], [`Error::NoKey`], [`Error::BadKey`].
pub(crate) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let text = std::fs::read(path).map_err(open(path))?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => Error::NoKey,
        _ => Error::BadKey,
    })
}
