//! Which path is which RPC (spec/wire.md section 3), and what its messages look like.

use std::collections::HashMap;
use std::sync::LazyLock;

use ferrite_api::pb::DESCRIPTORS;
use http::Uri;
use prost_reflect::{DescriptorPool, MessageDescriptor};

use crate::metrics::Method;
use crate::metrics::grpc::MethodType;

/// What every path begins with.
pub(in crate::http) const PREFIX: &str = "/v3/";

/// The paths below [`PREFIX`]. `KV.RangeStream` and the health service have none.
const PATHS: &[(&str, Method)] = &[
    ("kv/range", Method::KvRange),
    ("kv/put", Method::KvPut),
    ("kv/deleterange", Method::KvDeleteRange),
    ("kv/txn", Method::KvTxn),
    ("kv/compaction", Method::KvCompact),
    ("watch", Method::WatchWatch),
    ("lease/grant", Method::LeaseGrant),
    ("lease/revoke", Method::LeaseRevoke),
    ("kv/lease/revoke", Method::LeaseRevoke),
    ("lease/keepalive", Method::LeaseKeepAlive),
    ("lease/timetolive", Method::LeaseTimeToLive),
    ("kv/lease/timetolive", Method::LeaseTimeToLive),
    ("lease/leases", Method::LeaseLeases),
    ("kv/lease/leases", Method::LeaseLeases),
    ("cluster/member/add", Method::ClusterMemberAdd),
    ("cluster/member/remove", Method::ClusterMemberRemove),
    ("cluster/member/update", Method::ClusterMemberUpdate),
    ("cluster/member/list", Method::ClusterMemberList),
    ("cluster/member/promote", Method::ClusterMemberPromote),
    ("maintenance/alarm", Method::MaintenanceAlarm),
    ("maintenance/status", Method::MaintenanceStatus),
    ("maintenance/defragment", Method::MaintenanceDefragment),
    ("maintenance/hash", Method::MaintenanceHash),
    ("maintenance/hashkv", Method::MaintenanceHashKv),
    ("maintenance/snapshot", Method::MaintenanceSnapshot),
    (
        "maintenance/transfer-leadership",
        Method::MaintenanceMoveLeader,
    ),
    ("maintenance/downgrade", Method::MaintenanceDowngrade),
    ("auth/enable", Method::AuthEnable),
    ("auth/disable", Method::AuthDisable),
    ("auth/status", Method::AuthStatus),
    ("auth/authenticate", Method::AuthAuthenticate),
    ("auth/user/add", Method::AuthUserAdd),
    ("auth/user/get", Method::AuthUserGet),
    ("auth/user/list", Method::AuthUserList),
    ("auth/user/delete", Method::AuthUserDelete),
    ("auth/user/changepw", Method::AuthUserChangePassword),
    ("auth/user/grant", Method::AuthUserGrantRole),
    ("auth/user/revoke", Method::AuthUserRevokeRole),
    ("auth/role/add", Method::AuthRoleAdd),
    ("auth/role/get", Method::AuthRoleGet),
    ("auth/role/list", Method::AuthRoleList),
    ("auth/role/delete", Method::AuthRoleDelete),
    ("auth/role/grant", Method::AuthRoleGrantPermission),
    ("auth/role/revoke", Method::AuthRoleRevokePermission),
    ("lock/lock", Method::LockLock),
    ("lock/unlock", Method::LockUnlock),
    ("election/campaign", Method::ElectionCampaign),
    ("election/proclaim", Method::ElectionProclaim),
    ("election/leader", Method::ElectionLeader),
    ("election/observe", Method::ElectionObserve),
    ("election/resign", Method::ElectionResign),
];

/// An RPC that has a path.
#[derive(Debug)]
pub(super) struct Rpc {
    /// How its messages flow.
    pub(super) kind: MethodType,
    /// Its path in gRPC.
    pub(super) uri: Uri,
    pub(super) request: MessageDescriptor,
    pub(super) response: MessageDescriptor,
}

/// Made for the first request: some megabytes that a server which nobody asks in JSON does not need.
static RPCS: LazyLock<HashMap<&str, Rpc>> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(DESCRIPTORS).expect("the build has encoded it");
    let rpcs = PATHS.iter().map(|(path, method)| {
        let service = pool.get_service_by_name(method.service());
        let described = service
            .and_then(|service| service.methods().find(|m| m.name() == method.name()))
            .expect("the table of methods has the names of the .proto files");
        let uri = format!("/{}/{}", method.service(), method.name());
        let rpc = Rpc {
            kind: method.kind(),
            uri: uri.parse().expect("names of services and methods"),
            request: described.input(),
            response: described.output(),
        };
        (*path, rpc)
    });
    rpcs.collect()
});

/// The RPC of a path; `None` if there is none.
pub(super) fn find(path: &str) -> Option<&'static Rpc> {
    RPCS.get(path.strip_prefix(PREFIX)?)
}

/// A message by its full name.
#[cfg(test)]
pub(super) fn message(name: &str) -> MessageDescriptor {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    pool.get_message_by_name(name).unwrap()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn g7_51_paths_of_48_rpcs() {
        assert_eq!(RPCS.len(), 51);
        assert_eq!(PATHS.len(), 51);
        let mapped: BTreeSet<_> = PATHS.iter().map(|(_, m)| (m.service(), m.name())).collect();
        assert_eq!(mapped.len(), 48);
        let unmapped: Vec<_> = Method::ALL
            .iter()
            .filter(|m| !mapped.contains(&(m.service(), m.name())))
            .collect();
        assert_eq!(
            unmapped,
            [
                &Method::KvRangeStream,
                &Method::HealthCheck,
                &Method::HealthList,
                &Method::HealthWatch
            ]
        );
    }

    #[test]
    fn what_the_table_of_methods_says_of_streams_is_what_the_descriptors_say() {
        let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
        for method in Method::ALL {
            let service = pool.get_service_by_name(method.service()).unwrap();
            let described = service.methods().find(|m| m.name() == method.name());
            let described = described.unwrap();
            let kind = match (
                described.is_client_streaming(),
                described.is_server_streaming(),
            ) {
                (false, false) => MethodType::Unary,
                (false, true) => MethodType::ServerStream,
                (true, true) => MethodType::BidiStream,
                (true, false) => panic!("{method:?}: no such RPC"),
            };
            assert_eq!(method.kind(), kind, "{method:?}");
        }
    }

    #[test]
    fn paths_are_exact() {
        assert_eq!(
            find("/v3/kv/range").unwrap().uri.path(),
            "/etcdserverpb.KV/Range"
        );
        for none in [
            "/v3/",
            "/v3/kv/range/",
            "/v3/KV/range",
            "kv/range",
            "/kv/range",
        ] {
            assert!(find(none).is_none(), "{none}");
        }
    }
}
