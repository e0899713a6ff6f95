//! Range reads over a [`View`], with every option of `RangeRequest` (spec: mvcc.md section 3).
//!
//! What is selected and in which order is decided by [`Listing`]; here its pairs are gathered, for
//! whoever wants them all at once: transactions above all.

use bytes::{Bytes, BytesMut};
use ferrite_api::pb::etcdserverpb::RangeRequest;

use super::index::KeyIndex;
use super::list::{self, Listing};
use super::view::{RowError, View};
use crate::error::Error;

/// Rows are fetched in pieces of this many bytes, each in a page-file transaction of its own.
const PIECE: usize = 256 << 10;

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
        let mut listing = Listing::begin(self, index, at, request)?;
        let mut result = RangeResult {
            count: listing.count(),
            more: listing.more(),
            kvs: Vec::new(),
        };
        while listing.left().count > 0 {
            let mut piece = BytesMut::new();
            listing.read(self, PIECE, &mut piece)?;
            result.kvs.extend(list::pairs(piece.freeze()));
        }
        Ok(result)
    }
}
