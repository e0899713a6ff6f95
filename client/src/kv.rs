//! The key-value calls and their options.

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::types::LeaseId;
use pb::request_op::Request;

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
        let mut request = options.into_request(key);
        self.scope.namespace.enter_get(&mut request)?;
        let revision_of = |response: &pb::RangeResponse| revision(response.header.as_ref());
        let mut response = self.in_order(rpc::RANGE, request, revision_of).await?;
        self.scope.namespace.leave_get(&mut response);
        Ok(response)
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
        let mut request = options.into_request(key, value);
        self.scope.namespace.enter_put(&mut request)?;
        let mut response = self.unary(rpc::PUT, request).await?;
        self.note_revision(revision(response.header.as_ref()));
        self.scope.namespace.leave_put(&mut response);
        Ok(response)
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
        let mut request = options.into_request(key);
        self.scope.namespace.enter_delete(&mut request)?;
        let mut response = self.unary(rpc::DELETE_RANGE, request).await?;
        self.note_revision(revision(response.header.as_ref()));
        self.scope.namespace.leave_delete(&mut response);
        Ok(response)
    }

    /// Runs a transaction: see [`Txn`].
    ///
    /// # Errors
    ///
    /// Never repeated when its outcome is unknown, even if it only reads: see
    /// [`Error::may_have_been_applied`].
    pub async fn txn(&self, txn: Txn) -> Result<pb::TxnResponse, Error> {
        let mut request = txn.into_request();
        self.scope.namespace.enter_txn(&mut request)?;
        let revision_of = |response: &pb::TxnResponse| revision(response.header.as_ref());
        let mut response = if is_read_only(&request) {
            self.in_order(rpc::TXN, request, revision_of).await?
        } else {
            let response = self.unary(rpc::TXN, request).await?;
            self.note_revision(revision_of(&response));
            response
        };
        self.scope.namespace.leave_txn(&mut response);
        Ok(response)
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

pub(crate) fn revision(header: Option<&pb::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

/// Whether no branch of a transaction can change anything: then it can be done twice.
fn is_read_only(request: &pb::TxnRequest) -> bool {
    let mut ops = request.success.iter().chain(&request.failure);
    ops.all(|op| match &op.request {
        Some(Request::RequestRange(_)) | None => true,
        Some(Request::RequestTxn(request)) => is_read_only(request),
        Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) => false,
    })
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
