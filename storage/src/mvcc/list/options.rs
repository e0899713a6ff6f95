//! The options of a range request, decoded.

use ferrite_api::pb::etcdserverpb::RangeRequest;
use ferrite_api::pb::etcdserverpb::range_request::{SortOrder, SortTarget};

use crate::mvcc::index::KeyMeta;

/// Unknown enum numbers were refused by validation; here they mean the default.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// Pairs that are answered at most.
    pub(super) limit: Option<u64>,
    sorted: bool,
    pub(super) descending: bool,
    pub(super) target: SortTarget,
    modified: (i64, i64),
    created: (i64, i64),
    /// Whether a bound was given, even one that excludes nothing.
    bounded: bool,
}

/// Bounds that exclude nothing.
const OPEN: (i64, i64) = (i64::MIN, i64::MAX);

impl Options {
    pub(super) fn of(request: &RangeRequest) -> Self {
        let order = SortOrder::try_from(request.sort_order).unwrap_or_default();
        let bounds = |min: i64, max: i64| {
            (
                if min == 0 { OPEN.0 } else { min },
                if max == 0 { OPEN.1 } else { max },
            )
        };
        let given = [
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        ];
        Self {
            bounded: given != [0; 4],
            limit: u64::try_from(request.limit).ok().filter(|limit| *limit > 0),
            sorted: order != SortOrder::None,
            descending: order == SortOrder::Descend,
            target: SortTarget::try_from(request.sort_target).unwrap_or_default(),
            modified: bounds(request.min_mod_revision, request.max_mod_revision),
            created: bounds(request.min_create_revision, request.max_create_revision),
        }
    }

    /// Options that select and order nothing: every pair, in key order.
    pub(super) fn none() -> Self {
        Self::of(&RangeRequest::default())
    }

    /// Whether the answer is in key order.
    pub(super) fn in_key_order(&self) -> bool {
        self.target == SortTarget::Key && !self.descending
    }

    /// Whether pairs can be left out because of their revisions.
    pub(super) fn filtered(&self) -> bool {
        self.modified != OPEN || self.created != OPEN
    }

    /// The limit, where etcd cuts before it sorts: a target without an order, and no filter, be it one
    /// that lets everything pass.
    pub(super) fn unsorted_cut(&self) -> Option<u64> {
        if self.sorted || self.bounded {
            None
        } else {
            self.limit
        }
    }

    pub(super) fn accepts(&self, meta: &KeyMeta) -> bool {
        (self.modified.0..=self.modified.1).contains(&meta.modified.main)
            && (self.created.0..=self.created.1).contains(&meta.created)
    }
}
