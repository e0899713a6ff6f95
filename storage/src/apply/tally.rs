//! What apply has done since the start, counted for the metrics. Not part of the state: two members
//! of the same state may have counted differently.

use std::collections::BTreeMap;

use ferrite_api::pb::etcdserverpb::alarm_request::AlarmAction;
use ferrite_api::pb::etcdserverpb::{AlarmMember, AlarmRequest};

/// The kinds of requests that this build applies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A put.
    Put,
    /// A delete.
    DeleteRange,
    /// A transaction.
    Txn,
    /// A compaction.
    Compaction,
    /// The grant of a lease.
    LeaseGrant,
    /// The end of a lease.
    LeaseRevoke,
    /// What is left of leases.
    LeaseCheckpoint,
    /// A look at the alarms, or a change of them.
    Alarm,
    /// The decision of the cluster version.
    ClusterVersionSet,
    /// A member's name and client URLs.
    ClusterMemberAttrSet,
    /// The beginning or the end of a downgrade.
    DowngradeInfoSet,
    /// Nothing but a version that is needed to read it.
    DowngradeVersionTest,
    /// A token for a user.
    Authenticate,
    /// Authentication switched on.
    AuthEnable,
    /// Authentication switched off.
    AuthDisable,
    /// A look at the switch.
    AuthStatus,
    /// A new user.
    AuthUserAdd,
    /// The end of a user.
    AuthUserDelete,
    /// Another password.
    AuthUserChangePassword,
    /// A role for a user.
    AuthUserGrantRole,
    /// A role less for a user.
    AuthUserRevokeRole,
    /// A look at a user.
    AuthUserGet,
    /// A look at all users.
    AuthUserList,
    /// A new role.
    AuthRoleAdd,
    /// The end of a role.
    AuthRoleDelete,
    /// A permission for a role.
    AuthRoleGrantPermission,
    /// A permission less for a role.
    AuthRoleRevokePermission,
    /// A look at a role.
    AuthRoleGet,
    /// A look at all roles.
    AuthRoleList,
}

impl Kind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Kind; 29] = [
        Kind::Put,
        Kind::DeleteRange,
        Kind::Txn,
        Kind::Compaction,
        Kind::LeaseGrant,
        Kind::LeaseRevoke,
        Kind::LeaseCheckpoint,
        Kind::Alarm,
        Kind::ClusterVersionSet,
        Kind::ClusterMemberAttrSet,
        Kind::DowngradeInfoSet,
        Kind::DowngradeVersionTest,
        Kind::Authenticate,
        Kind::AuthEnable,
        Kind::AuthDisable,
        Kind::AuthStatus,
        Kind::AuthUserAdd,
        Kind::AuthUserDelete,
        Kind::AuthUserChangePassword,
        Kind::AuthUserGrantRole,
        Kind::AuthUserRevokeRole,
        Kind::AuthUserGet,
        Kind::AuthUserList,
        Kind::AuthRoleAdd,
        Kind::AuthRoleDelete,
        Kind::AuthRoleGrantPermission,
        Kind::AuthRoleRevokePermission,
        Kind::AuthRoleGet,
        Kind::AuthRoleList,
    ];
}

/// Counters, all since the start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Requests by kind: answered with an error, and with success.
    requests: [[u64; 2]; Kind::ALL.len()],
    /// Puts, those inside transactions included.
    pub puts: u64,
    /// Bytes of keys and values of the puts.
    pub put_bytes: u64,
    /// Deletes (not deleted keys), those inside transactions included.
    pub deletes: u64,
    /// Ranges inside transactions.
    pub ranges: u64,
    /// Transactions of more than one operation.
    pub txns: u64,
    /// Activations of alarms less deactivations, by member and type. Activating one that is active
    /// counts, too; deactivating one that is not does not.
    pub alarms: BTreeMap<(u64, i32), i64>,
}

impl Tally {
    pub(crate) fn request(&mut self, kind: Kind, success: bool) {
        self.requests[kind as usize][usize::from(success)] += 1;
    }

    /// Counts a request that was answered with these alarms.
    pub(crate) fn alarms(&mut self, request: &AlarmRequest, answer: &[AlarmMember]) {
        let change = match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Activate) => 1,
            Ok(AlarmAction::Deactivate) => -1,
            Ok(AlarmAction::Get) | Err(_) => return,
        };
        for alarm in answer {
            let count = self.alarms.entry((alarm.member_id, alarm.alarm));
            *count.or_default() += change;
        }
    }

    /// How many requests of a kind were answered so.
    pub fn requests(&self, kind: Kind, success: bool) -> u64 {
        self.requests[kind as usize][usize::from(success)]
    }
}
