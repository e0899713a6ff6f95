//! The key-value calls and their options.

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::types::LeaseId;

use crate::call::Answers;
use crate::range::Span;
use crate::{Client, Error, Txn, rpc};

pub use pb::range_request::{SortOrder, SortTarget};

impl Client {
    /// Reads a key or, with the options, a range of keys.
    ///
    /// ```no_run
    /// # use ferrite_client::{Client, Error, GetOptions, SortOrder, SortTarget};
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let newest = client
    ///     .get("jobs/", GetOptions::new().prefix().sort(SortTarget::Mod, SortOrder::Descend).limit(1))
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`EtcdError::Compacted`](crate::EtcdError::Compacted) and
    /// [`EtcdError::FutureRev`](crate::EtcdError::FutureRev) for a revision that cannot be read.
    pub async fn get(
        &self,
        key: impl Into<Bytes>,
        options: GetOptions,
    ) -> Result<pb::RangeResponse, Error> {
        self.unary(rpc::RANGE, options.into_request(key)).await
    }

    /// Reads a range in pieces (`KV.RangeStream`, new in 3.7), all at one revision: neither side
    /// ever holds the whole answer.
    ///
    /// Sorting and revision filters are refused. A server without the call answers
    /// `Unimplemented` on the first [`RangeStream::next`] or here: page with [`Client::get`] then.
    /// Never repeated by the client.
    ///
    /// ```no_run
    /// # use ferrite_client::{Client, Error, GetOptions};
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let mut stream = client.range_stream("", GetOptions::new().prefix()).await?;
    /// while let Some(piece) = stream.next().await? {
    ///     for kv in piece.kvs {
    ///         println!("{:?}", kv.key);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn range_stream(
        &self,
        key: impl Into<Bytes>,
        options: GetOptions,
    ) -> Result<RangeStream, Error> {
        let answers = self
            .server_stream(rpc::RANGE_STREAM, options.into_request(key))
            .await?;
        Ok(RangeStream { answers })
    }

    /// Writes a key.
    ///
    /// # Errors
    ///
    /// Never repeated when its outcome is unknown: see [`Error::may_have_been_applied`].
    pub async fn put(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        options: PutOptions,
    ) -> Result<pb::PutResponse, Error> {
        self.unary(rpc::PUT, options.into_request(key, value)).await
    }

    /// Deletes a key or, with the options, a range of keys.
    ///
    /// # Errors
    ///
    /// Never repeated when its outcome is unknown: see [`Error::may_have_been_applied`].
    pub async fn delete(
        &self,
        key: impl Into<Bytes>,
        options: DeleteOptions,
    ) -> Result<pb::DeleteRangeResponse, Error> {
        self.unary(rpc::DELETE_RANGE, options.into_request(key))
            .await
    }

    /// Runs a transaction: see [`Txn`].
    ///
    /// # Errors
    ///
    /// Never repeated when its outcome is unknown, even if it only reads: see
    /// [`Error::may_have_been_applied`].
    pub async fn txn(&self, txn: Txn) -> Result<pb::TxnResponse, Error> {
        self.unary(rpc::TXN, txn.into_request()).await
    }

    /// Gives up the history before `revision`: older versions of keys can no longer be read.
    ///
    /// # Errors
    ///
    /// [`EtcdError::Compacted`](crate::EtcdError::Compacted) if that was done already,
    /// [`EtcdError::FutureRev`](crate::EtcdError::FutureRev) beyond the current revision.
    pub async fn compact(
        &self,
        revision: i64,
        options: CompactOptions,
    ) -> Result<pb::CompactionResponse, Error> {
        let request = pb::CompactionRequest {
            revision,
            physical: options.physical,
        };
        self.unary(rpc::COMPACT, request).await
    }
}

/// What [`Client::get`] returns of which keys. Default: the one key, as of now, linearizable.
#[derive(Clone, Debug, Default)]
pub struct GetOptions {
    span: Span,
    request: pb::RangeRequest,
}

impl GetOptions {
    /// The one key, as of now, linearizable.
    pub fn new() -> Self {
        Self::default()
    }

    /// All keys that start with the key; with an empty key, all keys.
    #[must_use]
    pub fn prefix(mut self) -> Self {
        self.span = Span::Prefix;
        self
    }

    /// All keys from the key on, in byte order; with an empty key, all keys.
    #[must_use]
    pub fn from_key(mut self) -> Self {
        self.span = Span::FromKey;
        self
    }

    /// The keys in `[key, end)`.
    #[must_use]
    pub fn range(mut self, end: impl Into<Bytes>) -> Self {
        self.span = Span::Until(end.into());
        self
    }

    /// At most this many pairs; 0 is no limit. `count` still counts all keys of the range.
    #[must_use]
    pub fn limit(mut self, pairs: i64) -> Self {
        self.request.limit = pairs;
        self
    }

    /// The state at this revision instead of the latest; 0 is the latest.
    #[must_use]
    pub fn revision(mut self, revision: i64) -> Self {
        self.request.revision = revision;
        self
    }

    /// The order of the pairs; by default they come by key, ascending.
    #[must_use]
    pub fn sort(mut self, target: SortTarget, order: SortOrder) -> Self {
        // Ascending by key is how ranges are stored: asking for it makes the server collect the
        // whole range and sort it before it applies the limit.
        let natural = target == SortTarget::Key && order == SortOrder::Ascend;
        self.request.set_sort_target(target);
        self.request
            .set_sort_order(if natural { SortOrder::None } else { order });
        self
    }

    /// The answering member's own state, possibly stale: no quorum is asked.
    #[must_use]
    pub fn serializable(mut self) -> Self {
        self.request.serializable = true;
        self
    }

    /// Without the values.
    #[must_use]
    pub fn keys_only(mut self) -> Self {
        self.request.keys_only = true;
        self
    }

    /// Only `count`.
    #[must_use]
    pub fn count_only(mut self) -> Self {
        self.request.count_only = true;
        self
    }

    /// Only pairs modified at this revision or later.
    #[must_use]
    pub fn min_mod_revision(mut self, revision: i64) -> Self {
        self.request.min_mod_revision = revision;
        self
    }

    /// Only pairs modified at this revision or earlier.
    #[must_use]
    pub fn max_mod_revision(mut self, revision: i64) -> Self {
        self.request.max_mod_revision = revision;
        self
    }

    /// Only pairs created at this revision or later.
    #[must_use]
    pub fn min_create_revision(mut self, revision: i64) -> Self {
        self.request.min_create_revision = revision;
        self
    }

    /// Only pairs created at this revision or earlier.
    #[must_use]
    pub fn max_create_revision(mut self, revision: i64) -> Self {
        self.request.max_create_revision = revision;
        self
    }

    pub(crate) fn into_request(self, key: impl Into<Bytes>) -> pb::RangeRequest {
        let (key, range_end) = self.span.resolve(key.into());
        pb::RangeRequest {
            key,
            range_end,
            ..self.request
        }
    }
}

/// How [`Client::put`] writes.
#[derive(Clone, Debug, Default)]
pub struct PutOptions {
    request: pb::PutRequest,
}

impl PutOptions {
    /// A plain write, without a lease.
    pub fn new() -> Self {
        Self::default()
    }

    /// Attaches the key to this lease; it goes when the lease ends.
    #[must_use]
    pub fn lease(mut self, lease: LeaseId) -> Self {
        self.request.lease = lease.get();
        self
    }

    /// The answer carries the replaced pair.
    #[must_use]
    pub fn prev_kv(mut self) -> Self {
        self.request.prev_kv = true;
        self
    }

    /// Keeps the current value (pass an empty one); the key must exist.
    #[must_use]
    pub fn ignore_value(mut self) -> Self {
        self.request.ignore_value = true;
        self
    }

    /// Keeps the current lease; the key must exist.
    #[must_use]
    pub fn ignore_lease(mut self) -> Self {
        self.request.ignore_lease = true;
        self
    }

    pub(crate) fn into_request(
        self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> pb::PutRequest {
        pb::PutRequest {
            key: key.into(),
            value: value.into(),
            ..self.request
        }
    }
}

/// What [`Client::delete`] deletes. Default: the one key.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    span: Span,
    prev_kv: bool,
}

impl DeleteOptions {
    /// The one key.
    pub fn new() -> Self {
        Self::default()
    }

    /// All keys that start with the key; with an empty key, all keys.
    #[must_use]
    pub fn prefix(mut self) -> Self {
        self.span = Span::Prefix;
        self
    }

    /// All keys from the key on, in byte order; with an empty key, all keys.
    #[must_use]
    pub fn from_key(mut self) -> Self {
        self.span = Span::FromKey;
        self
    }

    /// The keys in `[key, end)`.
    #[must_use]
    pub fn range(mut self, end: impl Into<Bytes>) -> Self {
        self.span = Span::Until(end.into());
        self
    }

    /// The answer carries the deleted pairs.
    #[must_use]
    pub fn prev_kv(mut self) -> Self {
        self.prev_kv = true;
        self
    }

    pub(crate) fn into_request(self, key: impl Into<Bytes>) -> pb::DeleteRangeRequest {
        let (key, range_end) = self.span.resolve(key.into());
        pb::DeleteRangeRequest {
            key,
            range_end,
            prev_kv: self.prev_kv,
        }
    }
}

/// How [`Client::compact`] compacts.
#[derive(Clone, Copy, Debug, Default)]
pub struct CompactOptions {
    physical: bool,
}

impl CompactOptions {
    /// Answered once the compaction is agreed on; the space comes back in the background.
    pub fn new() -> Self {
        Self::default()
    }

    /// Answered only when the answering member has removed the old versions.
    #[must_use]
    pub fn physical(mut self) -> Self {
        self.physical = true;
        self
    }
}

/// A range that arrives in pieces: see [`Client::range_stream`].
#[derive(Debug)]
pub struct RangeStream {
    answers: Answers<pb::RangeStreamResponse>,
}

impl RangeStream {
    /// The next piece: disjoint pairs in key order. Only the last one carries `header`, `more`
    /// and `count`. `None` at the end.
    ///
    /// Cancel safety: no piece is lost when the future is dropped.
    ///
    /// # Errors
    ///
    /// End the stream; the pieces before were valid.
    /// [`EtcdError::Compacted`](crate::EtcdError::Compacted) when the revision that is being read
    /// was compacted meanwhile.
    pub async fn next(&mut self) -> Result<Option<pb::RangeResponse>, Error> {
        let answer = self.answers.next().await?;
        Ok(answer.map(|answer| answer.range_response.unwrap_or_default()))
    }

    /// All pieces as the one answer that [`Client::get`] gives.
    ///
    /// # Errors
    ///
    /// As [`RangeStream::next`]; what arrived before is dropped.
    pub async fn collect(mut self) -> Result<pb::RangeResponse, Error> {
        let mut whole = pb::RangeResponse::default();
        while let Some(piece) = self.next().await? {
            whole.kvs.extend(piece.kvs);
            whole.header = piece.header.or(whole.header);
            whole.more |= piece.more;
            if piece.count != 0 {
                whole.count = piece.count;
            }
        }
        Ok(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_get_option_reaches_the_request() {
        let request = GetOptions::new()
            .prefix()
            .limit(3)
            .revision(7)
            .sort(SortTarget::Value, SortOrder::Descend)
            .serializable()
            .keys_only()
            .count_only()
            .min_mod_revision(1)
            .max_mod_revision(2)
            .min_create_revision(3)
            .max_create_revision(4)
            .into_request("k");
        let expected = pb::RangeRequest {
            key: "k".into(),
            range_end: "l".into(),
            limit: 3,
            revision: 7,
            sort_order: SortOrder::Descend.into(),
            sort_target: SortTarget::Value.into(),
            serializable: true,
            keys_only: true,
            count_only: true,
            min_mod_revision: 1,
            max_mod_revision: 2,
            min_create_revision: 3,
            max_create_revision: 4,
        };
        assert_eq!(request, expected);
    }

    #[test]
    fn ascending_by_key_is_sent_as_unsorted() {
        let order = |target, order| {
            GetOptions::new()
                .sort(target, order)
                .into_request("k")
                .sort_order()
        };
        assert_eq!(order(SortTarget::Key, SortOrder::Ascend), SortOrder::None);
        assert_eq!(
            order(SortTarget::Key, SortOrder::Descend),
            SortOrder::Descend
        );
        assert_eq!(order(SortTarget::Mod, SortOrder::Ascend), SortOrder::Ascend);
    }

    #[test]
    fn put_and_delete_options_reach_the_request() {
        let request = PutOptions::new()
            .lease(LeaseId::new(5))
            .prev_kv()
            .ignore_value()
            .ignore_lease()
            .into_request("k", "v");
        let expected = pb::PutRequest {
            key: "k".into(),
            value: "v".into(),
            lease: 5,
            prev_kv: true,
            ignore_value: true,
            ignore_lease: true,
        };
        assert_eq!(request, expected);

        let request = DeleteOptions::new().from_key().prev_kv().into_request("");
        let expected = pb::DeleteRangeRequest {
            key: "\0".into(),
            range_end: "\0".into(),
            prev_kv: true,
        };
        assert_eq!(request, expected);
    }
}
