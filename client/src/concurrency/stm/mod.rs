//! Transactions in memory: a function reads and writes keys as if it were alone; its effects are
//! applied in one step, or the function runs again.
//!
//! [`attempt`] decides what is read, compared and written; this module carries it.

mod attempt;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;

use crate::{Client, Error, PutOptions};

use attempt::Attempt;

/// What a transaction must not see.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Isolation {
    /// All reads come from one revision, and nothing that was read **or written** has changed since
    /// when the transaction commits.
    #[default]
    SerializableSnapshot,
    /// All reads come from one revision, and nothing that was read has changed since when the
    /// transaction commits.
    Serializable,
    /// Reads come from any committed, perhaps stale revision, each key always from the same; it
    /// has not changed when the transaction commits.
    RepeatableReads,
    /// Reads come from any committed, perhaps stale revision, and may have changed since.
    ReadCommitted,
}

/// A transaction while its function runs: reads see its own writes. See [`Client::stm`].
#[derive(Debug)]
pub struct Stm {
    client: Client,
    attempt: Attempt,
}

impl Client {
    /// Runs `transaction` until its effects could be applied in one step, and returns what it
    /// returned then and the store's answer.
    ///
    /// The function may run often: it should have no effects but those on its [`Stm`]. Reads and
    /// writes together are limited by the server's `--max-txn-ops`.
    ///
    /// ```no_run
    /// # use ferrite_client::{Client, Error};
    /// # use ferrite_client::concurrency::Isolation;
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let (drawn, _) = client
    ///     .stm(Isolation::SerializableSnapshot, async |stm| {
    ///         let balance = stm.get("balance").await?.unwrap_or_default();
    ///         let balance: u64 = String::from_utf8_lossy(&balance).parse().unwrap_or(0);
    ///         if balance < 10 {
    ///             return Ok::<bool, Error>(false);
    ///         }
    ///         stm.put("balance", (balance - 10).to_string());
    ///         Ok(true)
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The function's own, at its first; the calls' otherwise. A commit whose outcome is unknown is
    /// not repeated: see [`Error::may_have_been_applied`].
    pub async fn stm<T, E, F>(
        &self,
        isolation: Isolation,
        mut transaction: F,
    ) -> Result<(T, pb::TxnResponse), E>
    where
        E: From<Error>,
        F: AsyncFnMut(&mut Stm) -> Result<T, E>,
    {
        let mut stm = Stm {
            client: self.clone(),
            attempt: Attempt::new(isolation),
        };
        loop {
            let result = transaction(&mut stm).await?;
            let answer = self.txn(stm.attempt.commit()).await?;
            if answer.succeeded {
                return Ok((result, answer));
            }
            stm.attempt.restart(&answer)?;
        }
    }
}

impl Stm {
    /// The value of a key; `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// [`EtcdError::Compacted`](crate::EtcdError::Compacted) if the revision of the first read is
    /// compacted by now.
    pub async fn get(&mut self, key: impl Into<Bytes>) -> Result<Option<Bytes>, Error> {
        let key = key.into();
        self.prefetch([key.clone()]).await?;
        Ok(self.attempt.value(&key))
    }

    /// The revision that changed a key last, as it was read; 0 if it does not exist. A write of
    /// this transaction does not change it.
    ///
    /// # Errors
    ///
    /// As [`Stm::get`].
    pub async fn revision(&mut self, key: impl Into<Bytes>) -> Result<i64, Error> {
        let key = key.into();
        self.fetch(vec![key.clone()]).await?;
        Ok(self.attempt.revision(&key))
    }

    /// Reads keys in one call; [`Stm::get`] finds them then. Keys that are known or written
    /// already cost nothing.
    ///
    /// # Errors
    ///
    /// As [`Stm::get`].
    pub async fn prefetch<K: Into<Bytes>>(
        &mut self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<(), Error> {
        let keys = keys.into_iter().map(Into::into);
        let unwritten = keys.filter(|key| !self.attempt.is_written(key)).collect();
        self.fetch(unwritten).await
    }

    async fn fetch(&mut self, keys: Vec<Bytes>) -> Result<(), Error> {
        let missing = self.attempt.missing(keys);
        if missing.is_empty() {
            return Ok(());
        }
        let answer = self.client.txn(self.attempt.fetch(&missing)).await?;
        self.attempt.fetched(missing, &answer)
    }

    /// Writes a key when the transaction commits.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.put_with(key, value, PutOptions::new());
    }

    /// As [`Stm::put`], with options.
    pub fn put_with(
        &mut self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        options: PutOptions,
    ) {
        self.attempt.put(key.into(), value.into(), options);
    }

    /// Deletes a key when the transaction commits.
    pub fn delete(&mut self, key: impl Into<Bytes>) {
        self.attempt.delete(key.into());
    }
}
