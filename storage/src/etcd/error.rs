//! What can be wrong with files of etcd's.

use crate::{bolt, page};

/// Why a file of etcd's cannot be read, or nothing can be made of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its pages.
    #[error(transparent)]
    Bolt(#[from] bolt::Error),
    /// What is in a bucket.
    #[error("bucket \"{bucket}\": {what}")]
    Bucket {
        /// The bucket.
        bucket: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// It was written by a version of etcd that this program does not know.
    #[error("storage version {0} is newer than this program's {ours}", ours = ferrite_api::Version::RELEASE.level())]
    Newer(String),
    /// The file has no checksum at its end.
    #[error("snapshot missing hash but --skip-hash-check=false")]
    NoChecksum,
    /// The checksum is that of another content.
    #[error("expected sha256 {}, got {}", numbers(expected), numbers(found))]
    Checksum {
        /// What the file says.
        expected: [u8; 32],
        /// What its content gives.
        found: [u8; 32],
    },
    /// The log.
    #[error("log: {what}")]
    Wal {
        /// What is wrong with it.
        what: String,
    },
    /// The page file that is made of it.
    #[error(transparent)]
    Storage(#[from] crate::Error),
}

impl Error {
    pub(super) fn bucket(bucket: &'static str, what: impl ToString) -> Self {
        Self::Bucket {
            bucket,
            what: what.to_string(),
        }
    }
}

impl From<page::Error> for Error {
    fn from(error: page::Error) -> Self {
        Self::Storage(error.into())
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Bolt(error.into())
    }
}

/// As etcd's tool shows bytes.
fn numbers(bytes: &[u8]) -> String {
    let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
    format!("[{}]", numbers.join(" "))
}
