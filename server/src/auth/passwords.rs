//! Passwords: bcrypt, by the member that is asked, on a thread that may take its time.

use std::sync::Arc;

use bcrypt::Version;
use tokio::sync::Semaphore;
use tonic::Code;

use crate::error::Error;

/// The range of costs that make sense, and what is taken in place of any other.
const COSTS: std::ops::RangeInclusive<u32> = 4..=31;
const DEFAULT_COST: u32 = 10;

/// The longest password: bcrypt looks at no more.
const MAX_BYTES: usize = 72;

/// What hashes and compares. One of it takes some 50 ms of a core, so only as many run at a time as leave
/// room for everything else.
#[derive(Clone, Debug)]
pub(crate) struct Hashing {
    cost: u32,
    turns: Arc<Semaphore>,
}

impl Hashing {
    /// With `--bcrypt-cost`.
    pub(crate) fn new(cost: u32) -> Self {
        let cost = if COSTS.contains(&cost) {
            cost
        } else {
            tracing::warn!(
                "min-cost" = COSTS.start(),
                "max-cost" = COSTS.end(),
                "default-cost" = DEFAULT_COST,
                "given-cost" = cost,
                "use default bcrypt cost instead of the invalid given cost"
            );
            DEFAULT_COST
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            cost,
            turns: Arc::new(Semaphore::new(cores.div_ceil(2))),
        }
    }

    /// The hash of a password.
    ///
    /// # Errors
    /// It is longer than 72 bytes, of which bcrypt would not look at the rest.
    pub(crate) async fn hash(&self, password: String) -> Result<Vec<u8>, Error> {
        if password.len() > MAX_BYTES {
            let text = "bcrypt: password length exceeds 72 bytes";
            return Err(Error::status(Code::Unknown, text));
        }
        let cost = self.cost;
        let hashed = self.run(move || bcrypt::hash_with_result(password, cost));
        let parts = hashed
            .await?
            .map_err(|error| Error::status(Code::Unknown, format!("bcrypt: {error}")))?;
        Ok(parts.format_for_version(Version::TwoA).into_bytes())
    }

    /// Whether this is the password of the hash. None is that of an empty hash.
    pub(crate) async fn matches(&self, password: String, hash: Vec<u8>) -> Result<bool, Error> {
        let compared = self.run(move || {
            let hash = std::str::from_utf8(&hash).unwrap_or_default();
            bcrypt::verify(password, hash).unwrap_or(false)
        });
        compared.await
    }

    async fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Result<R, Error> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(turn);
            result
        });
        done.await.map_err(|error| {
            tracing::error!(%error, "hashing a password panicked");
            Error::status(Code::Internal, "hashing failed; see the server's log")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an etcd has stored for the password `r`.
    const OF_ETCD: &str = "$2a$04$mSvLdw4ZHJbR9QWka0tLDuCFtL0sj3QhNbTaELAlZ5nBoFaDZPoTm";

    #[tokio::test]
    async fn a2_passwords_are_hashed_and_compared_as_by_etcd() {
        let hashing = Hashing::new(4);
        for password in ["", "etcd", "ä\0b", &"x".repeat(72)] {
            let hash = hashing.hash(password.to_owned()).await.unwrap();
            assert!(hash.starts_with(b"$2a$04$"), "{}", hash.escape_ascii());
            assert_eq!(hash.len(), 60);
            let matches = |password: &str| hashing.matches(password.to_owned(), hash.clone());
            assert!(matches(password).await.unwrap(), "{password:?}");
            assert!(!matches("other").await.unwrap(), "{password:?}");
        }
        let long = hashing.hash("x".repeat(73)).await.unwrap_err();
        assert_eq!(long.code(), Code::Unknown);
        assert_eq!(long.message(), "bcrypt: password length exceeds 72 bytes");
        let matches = |password: &str, hash: &str| {
            hashing.matches(password.to_owned(), hash.as_bytes().to_vec())
        };
        assert!(matches("r", OF_ETCD).await.unwrap());
        assert!(!matches("R", OF_ETCD).await.unwrap());
        assert!(!matches("", "").await.unwrap(), "no hash, no password");
        assert!(!matches("etcd", "no hash").await.unwrap());
    }

    #[test]
    fn a2_a_cost_that_makes_no_sense_is_not_taken() {
        for (given, taken) in [(0, 10), (3, 10), (4, 4), (31, 31), (32, 10)] {
            assert_eq!(Hashing::new(given).cost, taken, "{given}");
        }
    }
}
