//! The calls of the API that the client makes: path and retry class of each, in one table.

use std::marker::PhantomData;

use ferrite_api::pb::{etcdserverpb as pb, v3electionpb as electionpb, v3lockpb as lockpb};

use crate::Policy;
use crate::Policy::{Never, NonRepeatable, Repeatable};

/// One call: where it goes, what travels, how safe it is to repeat.
pub(crate) struct Rpc<Request, Response> {
    pub(crate) path: &'static str,
    pub(crate) policy: Policy,
    types: PhantomData<fn(Request) -> Response>,
}

// Derived, they would ask the same of the messages.
impl<Request, Response> Clone for Rpc<Request, Response> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Request, Response> Copy for Rpc<Request, Response> {}

impl<Request, Response> Rpc<Request, Response> {
    const fn new(path: &'static str, policy: Policy) -> Self {
        Self {
            path,
            policy,
            types: PhantomData,
        }
    }
}

macro_rules! rpcs {
    ($($name:ident: $path:literal, $($request:ident)::+ => $($response:ident)::+, $policy:ident;)*) => {
        $(pub(crate) const $name: Rpc<$($request)::+, $($response)::+> = Rpc::new($path, $policy);)*

        #[cfg(test)]
        pub(crate) const ALL: &[(&str, Policy)] = &[$(($path, $policy),)*];
    };
}

rpcs! {
    RANGE: "/etcdserverpb.KV/Range", pb::RangeRequest => pb::RangeResponse, Repeatable;
    RANGE_STREAM: "/etcdserverpb.KV/RangeStream", pb::RangeRequest => pb::RangeStreamResponse, Never;
    PUT: "/etcdserverpb.KV/Put", pb::PutRequest => pb::PutResponse, NonRepeatable;
    DELETE_RANGE: "/etcdserverpb.KV/DeleteRange", pb::DeleteRangeRequest => pb::DeleteRangeResponse, NonRepeatable;
    // A read-only transaction too: nobody looks inside.
    TXN: "/etcdserverpb.KV/Txn", pb::TxnRequest => pb::TxnResponse, NonRepeatable;
    COMPACT: "/etcdserverpb.KV/Compact", pb::CompactionRequest => pb::CompactionResponse, NonRepeatable;

    WATCH: "/etcdserverpb.Watch/Watch", pb::WatchRequest => pb::WatchResponse, Never;

    // A repeated grant may leave a lease behind that nobody knows; it expires.
    LEASE_GRANT: "/etcdserverpb.Lease/LeaseGrant", pb::LeaseGrantRequest => pb::LeaseGrantResponse, Repeatable;
    LEASE_REVOKE: "/etcdserverpb.Lease/LeaseRevoke", pb::LeaseRevokeRequest => pb::LeaseRevokeResponse, Repeatable;
    LEASE_KEEP_ALIVE: "/etcdserverpb.Lease/LeaseKeepAlive", pb::LeaseKeepAliveRequest => pb::LeaseKeepAliveResponse, Never;
    LEASE_TIME_TO_LIVE: "/etcdserverpb.Lease/LeaseTimeToLive", pb::LeaseTimeToLiveRequest => pb::LeaseTimeToLiveResponse, Repeatable;
    LEASE_LEASES: "/etcdserverpb.Lease/LeaseLeases", pb::LeaseLeasesRequest => pb::LeaseLeasesResponse, Repeatable;

    MEMBER_LIST: "/etcdserverpb.Cluster/MemberList", pb::MemberListRequest => pb::MemberListResponse, Repeatable;
    MEMBER_ADD: "/etcdserverpb.Cluster/MemberAdd", pb::MemberAddRequest => pb::MemberAddResponse, NonRepeatable;
    MEMBER_REMOVE: "/etcdserverpb.Cluster/MemberRemove", pb::MemberRemoveRequest => pb::MemberRemoveResponse, NonRepeatable;
    MEMBER_UPDATE: "/etcdserverpb.Cluster/MemberUpdate", pb::MemberUpdateRequest => pb::MemberUpdateResponse, NonRepeatable;
    MEMBER_PROMOTE: "/etcdserverpb.Cluster/MemberPromote", pb::MemberPromoteRequest => pb::MemberPromoteResponse, NonRepeatable;

    // Also the disarming kind, which is idempotent.
    ALARM: "/etcdserverpb.Maintenance/Alarm", pb::AlarmRequest => pb::AlarmResponse, Repeatable;
    STATUS: "/etcdserverpb.Maintenance/Status", pb::StatusRequest => pb::StatusResponse, Repeatable;
    HASH: "/etcdserverpb.Maintenance/Hash", pb::HashRequest => pb::HashResponse, Repeatable;
    HASH_KV: "/etcdserverpb.Maintenance/HashKV", pb::HashKvRequest => pb::HashKvResponse, Repeatable;
    MOVE_LEADER: "/etcdserverpb.Maintenance/MoveLeader", pb::MoveLeaderRequest => pb::MoveLeaderResponse, Repeatable;
    DEFRAGMENT: "/etcdserverpb.Maintenance/Defragment", pb::DefragmentRequest => pb::DefragmentResponse, NonRepeatable;
    DOWNGRADE: "/etcdserverpb.Maintenance/Downgrade", pb::DowngradeRequest => pb::DowngradeResponse, NonRepeatable;
    // A stream, begun again until its first piece has come.
    SNAPSHOT: "/etcdserverpb.Maintenance/Snapshot", pb::SnapshotRequest => pb::SnapshotResponse, Repeatable;

    AUTH_STATUS: "/etcdserverpb.Auth/AuthStatus", pb::AuthStatusRequest => pb::AuthStatusResponse, NonRepeatable;
    AUTH_ENABLE: "/etcdserverpb.Auth/AuthEnable", pb::AuthEnableRequest => pb::AuthEnableResponse, NonRepeatable;
    AUTH_DISABLE: "/etcdserverpb.Auth/AuthDisable", pb::AuthDisableRequest => pb::AuthDisableResponse, NonRepeatable;
    AUTHENTICATE: "/etcdserverpb.Auth/Authenticate", pb::AuthenticateRequest => pb::AuthenticateResponse, NonRepeatable;
    USER_ADD: "/etcdserverpb.Auth/UserAdd", pb::AuthUserAddRequest => pb::AuthUserAddResponse, NonRepeatable;
    USER_DELETE: "/etcdserverpb.Auth/UserDelete", pb::AuthUserDeleteRequest => pb::AuthUserDeleteResponse, NonRepeatable;
    USER_CHANGE_PASSWORD: "/etcdserverpb.Auth/UserChangePassword", pb::AuthUserChangePasswordRequest => pb::AuthUserChangePasswordResponse, NonRepeatable;
    USER_GRANT_ROLE: "/etcdserverpb.Auth/UserGrantRole", pb::AuthUserGrantRoleRequest => pb::AuthUserGrantRoleResponse, NonRepeatable;
    USER_REVOKE_ROLE: "/etcdserverpb.Auth/UserRevokeRole", pb::AuthUserRevokeRoleRequest => pb::AuthUserRevokeRoleResponse, NonRepeatable;
    USER_GET: "/etcdserverpb.Auth/UserGet", pb::AuthUserGetRequest => pb::AuthUserGetResponse, Repeatable;
    USER_LIST: "/etcdserverpb.Auth/UserList", pb::AuthUserListRequest => pb::AuthUserListResponse, Repeatable;
    ROLE_ADD: "/etcdserverpb.Auth/RoleAdd", pb::AuthRoleAddRequest => pb::AuthRoleAddResponse, NonRepeatable;
    ROLE_DELETE: "/etcdserverpb.Auth/RoleDelete", pb::AuthRoleDeleteRequest => pb::AuthRoleDeleteResponse, NonRepeatable;
    ROLE_GRANT_PERMISSION: "/etcdserverpb.Auth/RoleGrantPermission", pb::AuthRoleGrantPermissionRequest => pb::AuthRoleGrantPermissionResponse, NonRepeatable;
    ROLE_REVOKE_PERMISSION: "/etcdserverpb.Auth/RoleRevokePermission", pb::AuthRoleRevokePermissionRequest => pb::AuthRoleRevokePermissionResponse, NonRepeatable;
    ROLE_GET: "/etcdserverpb.Auth/RoleGet", pb::AuthRoleGetRequest => pb::AuthRoleGetResponse, Repeatable;
    ROLE_LIST: "/etcdserverpb.Auth/RoleList", pb::AuthRoleListRequest => pb::AuthRoleListResponse, Repeatable;

    LOCK: "/v3lockpb.Lock/Lock", lockpb::LockRequest => lockpb::LockResponse, NonRepeatable;
    UNLOCK: "/v3lockpb.Lock/Unlock", lockpb::UnlockRequest => lockpb::UnlockResponse, NonRepeatable;
    CAMPAIGN: "/v3electionpb.Election/Campaign", electionpb::CampaignRequest => electionpb::CampaignResponse, NonRepeatable;
    PROCLAIM: "/v3electionpb.Election/Proclaim", electionpb::ProclaimRequest => electionpb::ProclaimResponse, NonRepeatable;
    LEADER: "/v3electionpb.Election/Leader", electionpb::LeaderRequest => electionpb::LeaderResponse, Repeatable;
    OBSERVE: "/v3electionpb.Election/Observe", electionpb::LeaderRequest => electionpb::LeaderResponse, Never;
    RESIGN: "/v3electionpb.Election/Resign", electionpb::ResignRequest => electionpb::ResignResponse, NonRepeatable;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_not_repeatable() {
        let of = |policy: Policy| -> Vec<&str> {
            ALL.iter()
                .filter(|(_, class)| *class == policy)
                .map(|(path, _)| path.rsplit('/').next().unwrap_or_default())
                .collect()
        };
        assert_eq!(
            of(NonRepeatable),
            [
                "Put",
                "DeleteRange",
                "Txn",
                "Compact",
                "MemberAdd",
                "MemberRemove",
                "MemberUpdate",
                "MemberPromote",
                "Defragment",
                "Downgrade",
                "AuthStatus",
                "AuthEnable",
                "AuthDisable",
                "Authenticate",
                "UserAdd",
                "UserDelete",
                "UserChangePassword",
                "UserGrantRole",
                "UserRevokeRole",
                "RoleAdd",
                "RoleDelete",
                "RoleGrantPermission",
                "RoleRevokePermission",
                "Lock",
                "Unlock",
                "Campaign",
                "Proclaim",
                "Resign"
            ]
        );
        assert_eq!(
            of(Repeatable),
            [
                "Range",
                "LeaseGrant",
                "LeaseRevoke",
                "LeaseTimeToLive",
                "LeaseLeases",
                "MemberList",
                "Alarm",
                "Status",
                "Hash",
                "HashKV",
                "MoveLeader",
                "Snapshot",
                "UserGet",
                "UserList",
                "RoleGet",
                "RoleList",
                "Leader"
            ]
        );
        assert_eq!(
            of(Never),
            ["RangeStream", "Watch", "LeaseKeepAlive", "Observe"]
        );
    }
}
