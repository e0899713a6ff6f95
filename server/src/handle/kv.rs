//! KV: reads from views, writes through the log.

use std::time::Instant;

use ferrite_api::pb::etcdserverpb as pb;
use ferrite_storage::apply::outcome::Response;
use ferrite_storage::apply::{check_read_only, cost, read_only};

use super::list::LONG_READ;
use super::{Handle, mixed_up};
use crate::error::Error;
use crate::member::Input;
use crate::metrics::RequestKind;
use crate::validate;

impl Handle {
    /// KV.Put.
    ///
    /// # Errors
    /// As etcd's.
    pub async fn put(&self, request: pb::PutRequest) -> Result<pb::PutResponse, Error> {
        self.has_room(cost::put(&request)).await?;
        validate::put(&request)?;
        let request = pb::InternalRaftRequest {
            put: Some(request),
            ..Default::default()
        };
        let applied = self.propose(RequestKind::Put, request).await?;
        let Response::Put(outcome) = &applied.result? else {
            return Err(mixed_up());
        };
        let mut response = outcome
            .resolve(&applied.view)
            .map_err(|error| self.damaged(error))?;
        response.header = Some(self.header(outcome.revision));
        Ok(response)
    }

    /// KV.DeleteRange.
    ///
    /// # Errors
    /// As etcd's.
    pub async fn delete_range(
        &self,
        request: pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, Error> {
        validate::delete_range(&request)?;
        let request = pb::InternalRaftRequest {
            delete_range: Some(request),
            ..Default::default()
        };
        let applied = self.propose(RequestKind::DeleteRange, request).await?;
        let Response::DeleteRange(outcome) = applied.result? else {
            return Err(mixed_up());
        };
        let (this, view, pin) = (self.clone(), applied.view, applied.pin);
        self.run(outcome.previous.len() as u64 > LONG_READ, move || {
            let _pin = pin;
            let mut response = outcome
                .resolve(&view)
                .map_err(|error| this.damaged(error))?;
            response.header = Some(this.header(outcome.revision));
            Ok(response)
        })
        .await
    }

    /// KV.Txn.
    ///
    /// # Errors
    /// As etcd's.
    pub async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Error> {
        let cost = cost::txn(&request);
        if cost > 0 {
            self.has_room(cost).await?;
        }
        validate::txn(&request, self.inner.limits.max_txn_ops)?;
        if validate::is_read_only(&request) {
            return self.read_txn(request).await;
        }
        self.warm(&request);
        let request = pb::InternalRaftRequest {
            txn: Some(request),
            ..Default::default()
        };
        let applied = self.propose(RequestKind::Txn, request).await?;
        let Response::Txn(outcome) = applied.result? else {
            return Err(mixed_up());
        };
        let (this, view, pin) = (self.clone(), applied.view, applied.pin);
        self.run(reads_ranges(&outcome), move || {
            let _pin = pin;
            let mut response = outcome
                .resolve(&view)
                .map_err(|error| this.damaged(error))?;
            response.header = Some(this.header(outcome.revision));
            Ok(response)
        })
        .await
    }

    async fn read_txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Error> {
        let begun = Instant::now();
        let result = async {
            let view = self.view(validate::all_serializable(&request)).await?;
            if let Some(known) = self.known().await? {
                check_read_only(&known.auth, &known.identity, &request)?;
            }
            let this = self.clone();
            self.run(true, move || {
                let _pin = view.pins.pin(view.revision);
                let read = || {
                    let outcome = read_only(&view, &request)?;
                    let mut response = outcome.resolve(&view)?;
                    response.header = Some(this.header(outcome.revision));
                    Ok(response)
                };
                read().map_err(|error| this.failed(error, view.compacted.max(0)))
            })
            .await
        }
        .await;
        self.observe(RequestKind::ReadonlyTxn, begun, result.is_ok());
        result
    }

    /// KV.Compact. With `physical`, returns when the rows are removed.
    ///
    /// # Errors
    /// As etcd's.
    pub async fn compact(
        &self,
        request: pb::CompactionRequest,
    ) -> Result<pb::CompactionResponse, Error> {
        self.check_admin().await?;
        let physical = request.physical;
        let request = pb::InternalRaftRequest {
            compaction: Some(request),
            ..Default::default()
        };
        let applied = self.propose(RequestKind::Compaction, request).await?;
        if physical {
            // Also when the revision was compacted before: its rows may still be there.
            let revision = applied.view.compacted;
            self.ask(|waiter| Input::AwaitCompaction { revision, waiter })
                .await?;
        }
        applied.result?;
        let header = Some(self.header(self.inner.published.view().revision));
        Ok(pb::CompactionResponse { header })
    }

    /// Reads what apply will have to read to decide, so that it finds it in memory: a cold page
    /// then costs this client time and nobody else.
    fn warm(&self, request: &pb::TxnRequest) {
        let view = self.inner.published.view();
        let mut rows = view.rows();
        for compare in &request.compare {
            use pb::compare::CompareTarget::{Lease, Value};
            let reads = matches!(
                pb::compare::CompareTarget::try_from(compare.target),
                Ok(Value | Lease)
            );
            if reads
                && compare.range_end.is_empty()
                && let Some(meta) = view.index.latest(&compare.key)
            {
                // Only for its effect on the cache; apply reports what is wrong with the row.
                let _warmed = rows.get(meta.modified);
            }
        }
    }
}

fn reads_ranges(outcome: &ferrite_storage::apply::outcome::TxnOutcome) -> bool {
    use ferrite_storage::apply::outcome::OpOutcome;
    outcome.ops.iter().any(|op| match op {
        OpOutcome::Range { request, .. } => !request.range_end.is_empty(),
        OpOutcome::Txn(nested) => reads_ranges(nested),
        OpOutcome::Put(_) => false,
        OpOutcome::DeleteRange(delete) => delete.previous.len() as u64 > LONG_READ,
    })
}
