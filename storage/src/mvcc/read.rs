//! Range reads over a [`View`], with every option of `RangeRequest` (spec: mvcc.md section 3).
//!
//! Filters, sorting and limits work on index metadata; only the rows that are really returned are
//! fetched, unless the sort is by value.

use std::cmp::Reverse;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb::RangeRequest;
use ferrite_api::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use ferrite_api::pb::mvccpb::KeyValue;

use super::index::{KeyIndex, KeyMeta};
use super::range::KeyRange;
use super::record;
use super::view::{RowError, Rows, View};
use crate::error::Error;

/// The outcome of a range read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResult {
    /// Encoded `mvccpb.KeyValue` records, in answer order.
    pub kvs: Vec<Bytes>,
    /// Whether the limit cut something off.
    pub more: bool,
    /// Live keys in the range at the revision, whatever limit and filters say.
    pub count: i64,
}

/// Why a range read has no result.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// The revision was compacted (also: while the read ran).
    #[error("revision {at} was compacted, the oldest is {compacted}")]
    Compacted {
        /// The revision asked for.
        at: i64,
        /// The last compaction.
        compacted: i64,
    },
    /// The revision is not there yet.
    #[error("revision {at} is in the future, the newest is {revision}")]
    Future {
        /// The revision asked for.
        at: i64,
        /// The store revision.
        revision: i64,
    },
    /// A row that the index names is missing at a revision that the view still serves: compacted
    /// since the view was pinned, or damage. The caller compares with the newest compaction.
    #[error("row {0} is missing")]
    Missing(ferrite_api::types::Revision),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] Error),
}

impl From<RowError> for RangeError {
    fn from(error: RowError) -> Self {
        match error {
            RowError::Missing(revision) => RangeError::Missing(revision),
            RowError::Storage(error) => RangeError::Storage(error),
        }
    }
}

impl View {
    /// The revision that a request for `revision` reads at: 0 or less means the newest.
    ///
    /// # Errors
    /// [`RangeError::Future`] and [`RangeError::Compacted`]; the compacted revision itself can be
    /// read.
    pub fn resolve(&self, revision: i64) -> Result<i64, RangeError> {
        if revision > self.revision {
            return Err(RangeError::Future {
                at: revision,
                revision: self.revision,
            });
        }
        if revision <= 0 {
            return Ok(self.revision);
        }
        if revision < self.compacted {
            return Err(RangeError::Compacted {
                at: revision,
                compacted: self.compacted,
            });
        }
        Ok(revision)
    }

    /// Answers a range request.
    ///
    /// # Errors
    /// See [`RangeError`].
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResult, RangeError> {
        let at = self.resolve(request.revision)?;
        self.range_at(&self.index, at, request)
    }

    /// Answers a range request from another index root of the same store (an older one that was
    /// kept, or one in the middle of a transaction) at a revision that has been checked. The view
    /// supplies the rows.
    ///
    /// # Errors
    /// [`RangeError::Missing`] and [`RangeError::Storage`].
    pub fn range_at(
        &self,
        index: &KeyIndex,
        at: i64,
        request: &RangeRequest,
    ) -> Result<RangeResult, RangeError> {
        let range = KeyRange::new(request.key.clone(), &request.range_end);
        let count = index.count(&range, at);
        let mut result = RangeResult {
            count: signed(count),
            ..RangeResult::default()
        };
        if request.count_only || count == 0 {
            return Ok(result);
        }
        let options = Options::of(request);
        if options.in_key_order() {
            let take = options.limit.unwrap_or(count);
            result.more = take < count;
            let mut pairs = index.range(&range, at).take(usize_of(take));
            result.kvs = self.fetch(&mut pairs, request.keys_only, usize_of(take.min(count)))?;
            return Ok(result);
        }

        let mut pairs: Vec<(&[u8], KeyMeta)> = match options.unsorted_cut() {
            // etcd reads limit + 1 pairs in key order and sorts those: kept, clients can see it.
            Some(limit) => index.range(&range, at).take(usize_of(limit + 1)).collect(),
            None => index
                .range(&range, at)
                .filter(|(_, meta)| options.accepts(meta))
                .collect(),
        };
        if options.target == SortTarget::Value {
            return self.sorted_by_value(&pairs, &options, request.keys_only, result);
        }
        match options.target {
            SortTarget::Key | SortTarget::Value => options.sort(&mut pairs, |(key, _)| *key),
            SortTarget::Version => options.sort(&mut pairs, |(_, meta)| meta.version),
            SortTarget::Create => options.sort(&mut pairs, |(_, meta)| meta.created),
            SortTarget::Mod => options.sort(&mut pairs, |(_, meta)| meta.modified.main),
        }
        if let Some(limit) = options.limit
            && usize_of(limit) < pairs.len()
        {
            pairs.truncate(usize_of(limit));
            result.more = true;
        }
        let length = pairs.len();
        result.kvs = self.fetch(&mut pairs.into_iter(), request.keys_only, length)?;
        Ok(result)
    }

    fn fetch(
        &self,
        pairs: &mut dyn Iterator<Item = (&[u8], KeyMeta)>,
        keys_only: bool,
        length: usize,
    ) -> Result<Vec<Bytes>, RangeError> {
        // The length comes from the index, but a huge list should not reserve everything at once.
        let mut kvs = Vec::with_capacity(length.min(1 << 16));
        if keys_only {
            kvs.extend(pairs.map(|(key, meta)| record::put(&without_value(key, &meta))));
            return Ok(kvs);
        }
        let mut rows = self.rows();
        for (_, meta) in pairs {
            kvs.push(rows.get(meta.modified)?);
        }
        Ok(kvs)
    }

    fn sorted_by_value(
        &self,
        pairs: &[(&[u8], KeyMeta)],
        options: &Options,
        keys_only: bool,
        mut result: RangeResult,
    ) -> Result<RangeResult, RangeError> {
        let mut rows = self.rows();
        let mut kvs = read_all(&mut rows, pairs)?;
        options.sort(&mut kvs, |(kv, _)| kv.value.clone());
        if let Some(limit) = options.limit
            && usize_of(limit) < kvs.len()
        {
            kvs.truncate(usize_of(limit));
            result.more = true;
        }
        result.kvs = kvs
            .into_iter()
            .map(|(kv, record)| {
                // Sorting by value has read the pair: unlike the index path it keeps the lease.
                if keys_only {
                    record::put(&KeyValue {
                        value: Bytes::new(),
                        ..kv
                    })
                } else {
                    record
                }
            })
            .collect();
        Ok(result)
    }
}

fn read_all(
    rows: &mut Rows<'_>,
    pairs: &[(&[u8], KeyMeta)],
) -> Result<Vec<(KeyValue, Bytes)>, RangeError> {
    pairs
        .iter()
        .map(|(_, meta)| {
            let bytes = rows.get(meta.modified)?;
            Ok((record::decode(meta.modified, &bytes)?, bytes))
        })
        .collect()
}

/// The pair as the index knows it: no value, and (a quirk of etcd 3.7 that clients see) no lease.
fn without_value(key: &[u8], meta: &KeyMeta) -> KeyValue {
    KeyValue {
        key: Bytes::copy_from_slice(key),
        create_revision: meta.created,
        mod_revision: meta.modified.main,
        version: meta.version,
        ..KeyValue::default()
    }
}

/// The options of a request, decoded. Unknown enum numbers were refused by validation; here they
/// mean the default.
struct Options {
    limit: Option<u64>,
    sorted: bool,
    descending: bool,
    target: SortTarget,
    filtered: bool,
    modified: (i64, i64),
    created: (i64, i64),
}

impl Options {
    fn of(request: &RangeRequest) -> Self {
        let order = SortOrder::try_from(request.sort_order).unwrap_or_default();
        let bound = |value: i64, open: i64| if value == 0 { open } else { value };
        let modified = (
            bound(request.min_mod_revision, i64::MIN),
            bound(request.max_mod_revision, i64::MAX),
        );
        let created = (
            bound(request.min_create_revision, i64::MIN),
            bound(request.max_create_revision, i64::MAX),
        );
        let open = (i64::MIN, i64::MAX);
        Self {
            limit: u64::try_from(request.limit).ok().filter(|limit| *limit > 0),
            sorted: order != SortOrder::None,
            descending: order == SortOrder::Descend,
            target: SortTarget::try_from(request.sort_target).unwrap_or_default(),
            filtered: modified != open || created != open,
            modified,
            created,
        }
    }

    /// Whether the answer is a plain prefix of the range in key order.
    fn in_key_order(&self) -> bool {
        self.target == SortTarget::Key && !self.descending && !self.filtered
    }

    /// The limit, where etcd cuts before it sorts: a target without an order, and no filter.
    fn unsorted_cut(&self) -> Option<u64> {
        if self.sorted || self.filtered {
            None
        } else {
            self.limit
        }
    }

    /// Sorts by `of`. Ties stay in key order in both directions: etcd leaves them undefined, and
    /// its sort does the same with a dozen pairs or less.
    fn sort<P, O: Ord>(&self, pairs: &mut [P], of: impl Fn(&P) -> O) {
        if self.descending {
            pairs.sort_by_key(|pair| Reverse(of(pair)));
        } else {
            pairs.sort_by_key(of);
        }
    }

    fn accepts(&self, meta: &KeyMeta) -> bool {
        (self.modified.0..=self.modified.1).contains(&meta.modified.main)
            && (self.created.0..=self.created.1).contains(&meta.created)
    }
}

fn usize_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Counts and lengths fit `i64`: they count things that are in memory.
fn signed(number: u64) -> i64 {
    i64::try_from(number).expect("a count of keys in memory fits i64")
}
