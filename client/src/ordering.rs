//! Reads that never go back: a member that is behind what this client has seen is not believed.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use prost::Message;
use tokio::time::sleep;

use crate::rpc::Rpc;
use crate::{Client, Error, retry};

/// How often each endpoint is asked for something newer.
const ROUNDS: usize = 5;

impl Client {
    /// The same client, whose reads never show an older state than an earlier answer did: neither
    /// one of its own reads, nor one of its writes. Of use with
    /// [serializable](crate::GetOptions::serializable) reads, which any member answers from what
    /// it has.
    ///
    /// An answer of a member that is behind is dropped, and the next endpoint asked, up to five
    /// times each. Clones of the returned client share what they have seen; other handles of the
    /// same connections take no part. It holds for [`Client::get`], and for [`Client::txn`] that
    /// only reads, not for [`Client::range_stream`] and watches.
    ///
    /// ```no_run
    /// # use ferrite_client::{Client, Error, GetOptions, PutOptions};
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let client = client.with_ordering();
    /// client.put("k", "v", PutOptions::new()).await?;
    /// // Whichever member answers, it has seen the write.
    /// let found = client.get("k", GetOptions::new().serializable()).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Reads may fail with [`Error::NoGreaterRevision`]: nobody who answered was new enough.
    #[must_use]
    pub fn with_ordering(&self) -> Client {
        let mut client = self.clone();
        client.scope.order = Some(Arc::default());
        client
    }

    /// Makes a call that reads, until its answer is new enough.
    pub(crate) async fn in_order<Req, Resp>(
        &self,
        rpc: Rpc<Req, Resp>,
        request: Req,
        revision_of: impl Fn(&Resp) -> i64,
    ) -> Result<Resp, Error>
    where
        Req: Message + Clone + 'static,
        Resp: Message + Default + 'static,
    {
        let Some(order) = &self.scope.order else {
            return self.unary(rpc, request).await;
        };
        // What was seen when the call began: answers to others may come meanwhile.
        let seen = order.seen();
        let client = self.with_one_deadline();
        let endpoints = self.shared.balancer.len().max(1);
        let attempts = u32::try_from(endpoints * ROUNDS).unwrap_or(u32::MAX);
        for attempt in 1..=attempts {
            let answer = client.unary(rpc, request.clone()).await?;
            let revision = revision_of(&answer);
            if revision >= seen {
                order.note(revision);
                return Ok(answer);
            }
            tracing::debug!(revision, seen, "an answer of a member that is behind");
            sleep(retry::pause(
                attempt,
                endpoints,
                self.shared.config.retry_interval,
            ))
            .await;
        }
        Err(Error::NoGreaterRevision)
    }

    /// Remembers the revision of a write.
    pub(crate) fn note_revision(&self, revision: i64) {
        if let Some(order) = &self.scope.order {
            order.note(revision);
        }
    }
}

/// The greatest revision that was seen.
#[derive(Debug, Default)]
pub(crate) struct Order(AtomicI64);

impl Order {
    fn seen(&self) -> i64 {
        self.0.load(Ordering::Acquire)
    }

    fn note(&self, revision: i64) {
        self.0.fetch_max(revision, Ordering::AcqRel);
    }
}
