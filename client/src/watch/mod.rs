//! Watching keys: every change from a revision on, once and in order, whatever happens to
//! connections and members meanwhile.
//!
//! All watches of a client share one gRPC stream (one for each of the three wishes for a leader:
//! [`Client::with_require_leader`]). [`machine`] decides, [`stream`] carries.
//!
//! What is promised to a [`Watcher`]:
//!
//! * Changes come in the order of their revisions, and all that a revision changed comes in one
//!   response.
//! * A lost connection or member is not seen: the watch goes on elsewhere from the first revision
//!   that was not handed over. Only a compaction can make that impossible, and says so.
//! * A reader that is slower than the changes costs bounded memory: the watch is taken off the
//!   stream when 16 MiB wait, and goes on from there when they are read. Other watches do not feel
//!   it. Should the server have compacted the changes by then, the watch ends with
//!   [`EtcdError::Compacted`](crate::EtcdError::Compacted).
//!
//! Deviations from etcd's Go client: it buffers without bound for slow readers; it closes a watch
//! that the server cancels without telling why, here the reader gets the error.

mod machine;
mod stream;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use pb::watch_create_request::FilterType;

use crate::call::until;
use crate::namespace::Namespace;
use crate::range::Span;
use crate::{Client, Error};

pub(crate) use stream::Streams;

impl Client {
    /// Watches a key or, with the options, a range of keys.
    ///
    /// Returns when the server has accepted the watch, so a change made after that is seen. The
    /// client's time limits bound this wait; they do not end the watch later.
    ///
    /// A member that loses its cluster is left for another one: it would keep the watch open and
    /// have nothing to say. [`Client::with_require_leader`] makes an error of it,
    /// [`Client::without_require_leader`] stays with the member.
    ///
    /// ```no_run
    /// # use ferrite_client::{Client, Error, EtcdError, GetOptions, WatchOptions};
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// // List, then watch what comes after.
    /// let listed = client.get("jobs/", GetOptions::new().prefix()).await?;
    /// let next = listed.header.unwrap_or_default().revision + 1;
    /// let mut watcher = client
    ///     .watch("jobs/", WatchOptions::new().prefix().start_revision(next))
    ///     .await?;
    /// loop {
    ///     match watcher.next().await {
    ///         Ok(response) => println!("{} changes", response.events.len()),
    ///         Err(Error::Etcd(EtcdError::Compacted)) => break, // too late: list again
    ///         Err(error) => return Err(error),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The server's refusal, such as
    /// [`EtcdError::PermissionDenied`](crate::EtcdError::PermissionDenied). A start revision that
    /// is compacted is told by [`Watcher::next`].
    pub async fn watch(
        &self,
        key: impl Into<Bytes>,
        options: WatchOptions,
    ) -> Result<Watcher, Error> {
        self.watch_on(&self.shared.watches, key, options).await
    }

    /// As [`Client::watch`], over one of these streams.
    pub(crate) async fn watch_on(
        &self,
        streams: &Streams,
        key: impl Into<Bytes>,
        options: WatchOptions,
    ) -> Result<Watcher, Error> {
        let created_notify = options.created_notify;
        let deadline = self.scope.limit.deadline();
        let namespace = self.scope.namespace.clone();
        let mut request = options.into_request(key);
        namespace.enter_watch(&mut request)?;
        let mut reader = streams.of(self).open(self, request, created_notify);
        match until(deadline, reader.decided()).await {
            Some(Ok(())) => Ok(Watcher { reader, namespace }),
            Some(Err(error)) => Err(error),
            None => Err(self.late(None)),
        }
    }

    /// Asks the server how far it is. The answer goes to every watch of this client (with the same
    /// wish for a leader) as a response without events, after all changes up to its revision.
    ///
    /// There may be no answer: servers keep silent while one of the watches is not up to date.
    pub fn request_watch_progress(&self) {
        self.shared.watches.request_progress(self);
    }
}

/// What [`Client::watch`] watches. Default: the one key, from now on.
#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    span: Span,
    request: pb::WatchCreateRequest,
    created_notify: bool,
}

impl WatchOptions {
    /// The one key, from now on.
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

    /// Changes from this revision on, itself included; 0 is from now on.
    #[must_use]
    pub fn start_revision(mut self, revision: i64) -> Self {
        self.request.start_revision = revision;
        self
    }

    /// Events carry the pair before the change, unless it is compacted.
    #[must_use]
    pub fn prev_kv(mut self) -> Self {
        self.request.prev_kv = true;
        self
    }

    /// The server says from time to time how far it is, when there are no changes: a response
    /// without events.
    #[must_use]
    pub fn progress_notify(mut self) -> Self {
        self.request.progress_notify = true;
        self
    }

    /// The first response says that the watch was accepted, and at which revision.
    #[must_use]
    pub fn created_notify(mut self) -> Self {
        self.created_notify = true;
        self
    }

    /// Lets the server split responses that would be too large for one message. The client puts
    /// them together again.
    #[must_use]
    pub fn fragment(mut self) -> Self {
        self.request.fragment = true;
        self
    }

    /// Without the puts.
    #[must_use]
    pub fn without_puts(mut self) -> Self {
        self.request.filters.push(FilterType::Noput.into());
        self
    }

    /// Without the deletions.
    #[must_use]
    pub fn without_deletes(mut self) -> Self {
        self.request.filters.push(FilterType::Nodelete.into());
        self
    }

    /// Whether responses without events are wanted.
    pub(crate) fn wants_notes(&self) -> bool {
        self.created_notify || self.request.progress_notify
    }

    pub(crate) fn into_request(self, key: impl Into<Bytes>) -> pb::WatchCreateRequest {
        let (key, range_end) = self.span.resolve(key.into());
        pb::WatchCreateRequest {
            key,
            range_end,
            ..self.request
        }
    }
}

/// A watch that is open: see [`Client::watch`]. Dropping it ends the watch on the server, too.
#[derive(Debug)]
pub struct Watcher {
    reader: stream::Reader,
    namespace: Namespace,
}

impl Watcher {
    /// The next response: changes, or without events how far the server is.
    ///
    /// Cancel safety: no response is lost when the future is dropped.
    ///
    /// # Errors
    ///
    /// End the watch; asked again, the same error comes again.
    /// [`EtcdError::Compacted`](crate::EtcdError::Compacted): changes that were not handed over
    /// are compacted, [`Watcher::ended_by`] names the revision.
    /// [`EtcdError::NoLeader`](crate::EtcdError::NoLeader): a leader was required and is lost.
    pub async fn next(&mut self) -> Result<pb::WatchResponse, Error> {
        let mut response = self.reader.next().await?;
        self.namespace.leave_events(&mut response.events);
        Ok(response)
    }

    /// The response with which the server ended the watch, once [`Watcher::next`] has failed:
    /// `compact_revision` is the oldest revision that can still be watched.
    pub fn ended_by(&self) -> Option<pb::WatchResponse> {
        self.reader.ended_by()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_reaches_the_request() {
        let request = WatchOptions::new()
            .prefix()
            .start_revision(7)
            .prev_kv()
            .progress_notify()
            .fragment()
            .without_puts()
            .without_deletes()
            .into_request("k");
        let expected = pb::WatchCreateRequest {
            key: "k".into(),
            range_end: "l".into(),
            start_revision: 7,
            progress_notify: true,
            filters: vec![FilterType::Noput.into(), FilterType::Nodelete.into()],
            prev_kv: true,
            watch_id: 0,
            fragment: true,
        };
        assert_eq!(request, expected);
    }
}
