//! Feeds the metrics of apply from what the state has counted.

use std::sync::Arc;
use std::time::Duration;

use ferrite_api::pb::etcdserverpb::AlarmType;
use ferrite_api::types::MemberId;
use ferrite_storage::apply::tally::{Kind, Tally};

use crate::metrics::{Metrics, RequestKind};

/// Remembers what was counted before.
pub(super) struct Meter {
    metrics: Arc<Metrics>,
    seen: Tally,
    /// `--warning-apply-duration`.
    slow: Duration,
}

impl Meter {
    pub(super) fn new(metrics: Arc<Metrics>, slow: Duration) -> Self {
        Self {
            metrics,
            seen: Tally::default(),
            slow,
        }
    }

    /// Accounts for what was applied in a batch that took `took`: every entry its share.
    pub(super) fn applied(&mut self, tally: &Tally, took: Duration) {
        if *tally == self.seen {
            return;
        }
        let of = |tally: &Tally, kind, success| tally.requests(kind, success);
        let outcomes = Kind::ALL
            .into_iter()
            .flat_map(|kind| [(kind, true), (kind, false)]);
        let counts: Vec<_> = outcomes
            .map(|(kind, success)| {
                (
                    kind,
                    success,
                    of(tally, kind, success) - of(&self.seen, kind, success),
                )
            })
            .filter(|(_, _, count)| *count > 0)
            .collect();
        let total: u64 = counts.iter().map(|(_, _, count)| count).sum();
        let share = took / u32::try_from(total.max(1)).unwrap_or(u32::MAX);
        let server = &self.metrics.server;
        for (kind, success, count) in counts {
            for _ in 0..count {
                server
                    .apply_duration
                    .observe(request_kind(kind), success, share);
            }
        }
        if share > self.slow {
            server.slow_apply.inc();
            tracing::warn!(took = ?share, expected = ?self.slow, "apply request took too long");
        }
        let new = |kind| of(tally, kind, true) - of(&self.seen, kind, true);
        let lease = &self.metrics.lease;
        lease.granted.inc_by(new(Kind::LeaseGrant));
        lease.revoked.inc_by(new(Kind::LeaseRevoke));
        let mvcc = &self.metrics.mvcc;
        mvcc.put.inc_by(tally.puts - self.seen.puts);
        mvcc.delete.inc_by(tally.deletes - self.seen.deletes);
        mvcc.range.inc_by(tally.ranges - self.seen.ranges);
        mvcc.txn.inc_by(tally.txns - self.seen.txns);
        mvcc.total_put_size
            .set(i64::try_from(tally.put_bytes).unwrap_or(i64::MAX));
        for (&(member, kind), count) in &tally.alarms {
            let kind = AlarmType::try_from(kind)
                .map_or_else(|_| kind.to_string(), |known| known.as_str_name().to_owned());
            let series = [MemberId::new(member).to_string(), kind];
            server.alarms.with_label_values(&series).set(*count);
        }
        self.seen = tally.clone();
    }
}

fn request_kind(kind: Kind) -> RequestKind {
    match kind {
        Kind::Put => RequestKind::Put,
        Kind::DeleteRange => RequestKind::DeleteRange,
        Kind::Txn => RequestKind::Txn,
        Kind::Compaction => RequestKind::Compaction,
        Kind::LeaseGrant => RequestKind::LeaseGrant,
        Kind::LeaseRevoke => RequestKind::LeaseRevoke,
        Kind::LeaseCheckpoint => RequestKind::LeaseCheckpoint,
        Kind::Alarm => RequestKind::Alarm,
        Kind::ClusterVersionSet => RequestKind::ClusterVersionSet,
        Kind::ClusterMemberAttrSet => RequestKind::ClusterMemberAttrSet,
        Kind::DowngradeInfoSet => RequestKind::DowngradeInfoSet,
        Kind::DowngradeVersionTest => RequestKind::DowngradeVersionTest,
        Kind::Authenticate => RequestKind::Authenticate,
        Kind::AuthEnable => RequestKind::AuthEnable,
        Kind::AuthDisable => RequestKind::AuthDisable,
        Kind::AuthStatus => RequestKind::AuthStatus,
        Kind::AuthUserAdd => RequestKind::AuthUserAdd,
        Kind::AuthUserDelete => RequestKind::AuthUserDelete,
        Kind::AuthUserChangePassword => RequestKind::AuthUserChangePassword,
        Kind::AuthUserGrantRole => RequestKind::AuthUserGrantRole,
        Kind::AuthUserRevokeRole => RequestKind::AuthUserRevokeRole,
        Kind::AuthUserGet => RequestKind::AuthUserGet,
        Kind::AuthUserList => RequestKind::AuthUserList,
        Kind::AuthRoleAdd => RequestKind::AuthRoleAdd,
        Kind::AuthRoleDelete => RequestKind::AuthRoleDelete,
        Kind::AuthRoleGrantPermission => RequestKind::AuthRoleGrantPermission,
        Kind::AuthRoleRevokePermission => RequestKind::AuthRoleRevokePermission,
        Kind::AuthRoleGet => RequestKind::AuthRoleGet,
        Kind::AuthRoleList => RequestKind::AuthRoleList,
    }
}
