//! Which service and method a path names, which of them are built, and the texts for those that
//! are not there. The list here is the only one: routing, the README and the tests use it.

use std::borrow::Cow;

use tonic::Code;

use crate::error::Error;
use crate::metrics::Method;

/// Where a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// A method that is built.
    Built(Method),
    /// A method that is known but not built.
    NotBuilt(Method),
}

/// Methods of the services above that answer `UNIMPLEMENTED` for now.
const NOT_BUILT: &[Method] = &[
    Method::AuthEnable,
    Method::AuthDisable,
    Method::AuthStatus,
    Method::AuthAuthenticate,
    Method::AuthUserAdd,
    Method::AuthUserGet,
    Method::AuthUserList,
    Method::AuthUserDelete,
    Method::AuthUserChangePassword,
    Method::AuthUserGrantRole,
    Method::AuthUserRevokeRole,
    Method::AuthRoleAdd,
    Method::AuthRoleGet,
    Method::AuthRoleList,
    Method::AuthRoleDelete,
    Method::AuthRoleGrantPermission,
    Method::AuthRoleRevokePermission,
];

/// Every RPC of etcd's that answers `UNIMPLEMENTED`, as (service, method).
pub fn not_built() -> impl Iterator<Item = (&'static str, &'static str)> {
    NOT_BUILT
        .iter()
        .map(|method| (method.service(), method.name()))
}

/// The answer of an RPC that is not built. The text leaves out the package of the service.
pub(super) fn not_built_error(method: Method) -> Error {
    let (service, method) = (method.service(), method.name());
    let service = service.rsplit_once('.').map_or(service, |(_, name)| name);
    Error::status(
        Code::Unimplemented,
        format!("etcdserver: {service}/{method} is not built yet"),
    )
}

/// Finds what a request path names.
///
/// # Errors
/// gRPC's own texts for a path, service or method that etcd does not have either.
pub(super) fn route(path: &str) -> Result<Route, Error> {
    if let Some(method) = Method::from_path(path) {
        return Ok(if NOT_BUILT.contains(&method) {
            Route::NotBuilt(method)
        } else {
            Route::Built(method)
        });
    }
    let unimplemented = |text: String| Err(Error::status(Code::Unimplemented, Cow::Owned(text)));
    let Some((service, method)) = path
        .strip_prefix('/')
        .and_then(|path| path.rsplit_once('/'))
    else {
        return unimplemented(format!("malformed method name: {path:?}"));
    };
    if !is_service(service) {
        return unimplemented(format!("unknown service {service}"));
    }
    unimplemented(format!("unknown method {method} for service {service}"))
}

/// Whether a path belongs to one of etcd's gRPC services, whatever its method.
pub(super) fn is_service_path(path: &str) -> bool {
    path.strip_prefix('/')
        .and_then(|path| path.rsplit_once('/'))
        .is_some_and(|(service, _)| is_service(service))
}

fn is_service(service: &str) -> bool {
    Method::ALL.iter().any(|method| method.service() == service)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn refusal(path: &str) -> String {
        let error = route(path).expect_err("no such method");
        assert_eq!(error.code(), Code::Unimplemented);
        error.message().into_owned()
    }

    #[test]
    fn what_is_built_is_exactly_this() {
        let built: Vec<_> = Method::ALL
            .iter()
            .filter(|method| !NOT_BUILT.contains(method))
            .map(|method| format!("{}/{}", method.service(), method.name()))
            .collect();
        let expected = [
            "etcdserverpb.KV/Range",
            "etcdserverpb.KV/RangeStream",
            "etcdserverpb.KV/Put",
            "etcdserverpb.KV/DeleteRange",
            "etcdserverpb.KV/Txn",
            "etcdserverpb.KV/Compact",
            "etcdserverpb.Watch/Watch",
            "etcdserverpb.Lease/LeaseGrant",
            "etcdserverpb.Lease/LeaseRevoke",
            "etcdserverpb.Lease/LeaseKeepAlive",
            "etcdserverpb.Lease/LeaseTimeToLive",
            "etcdserverpb.Lease/LeaseLeases",
            "etcdserverpb.Cluster/MemberAdd",
            "etcdserverpb.Cluster/MemberRemove",
            "etcdserverpb.Cluster/MemberUpdate",
            "etcdserverpb.Cluster/MemberList",
            "etcdserverpb.Cluster/MemberPromote",
            "etcdserverpb.Maintenance/Alarm",
            "etcdserverpb.Maintenance/Status",
            "etcdserverpb.Maintenance/Defragment",
            "etcdserverpb.Maintenance/Hash",
            "etcdserverpb.Maintenance/HashKV",
            "etcdserverpb.Maintenance/Snapshot",
            "etcdserverpb.Maintenance/MoveLeader",
            "etcdserverpb.Maintenance/Downgrade",
            "v3lockpb.Lock/Lock",
            "v3lockpb.Lock/Unlock",
            "v3electionpb.Election/Campaign",
            "v3electionpb.Election/Proclaim",
            "v3electionpb.Election/Leader",
            "v3electionpb.Election/Observe",
            "v3electionpb.Election/Resign",
            "grpc.health.v1.Health/Check",
            "grpc.health.v1.Health/List",
            "grpc.health.v1.Health/Watch",
        ];
        assert_eq!(built, expected);
    }

    #[test]
    fn every_rpc_that_is_not_built_is_listed_once_and_routed() {
        let mut seen = BTreeSet::new();
        for (service, method) in not_built() {
            assert!(seen.insert((service, method)), "{service}/{method} twice");
            match route(&format!("/{service}/{method}")) {
                Ok(Route::NotBuilt(found)) => {
                    assert_eq!((found.service(), found.name()), (service, method));
                }
                other => panic!("{service}/{method}: {other:?}"),
            }
        }
        assert_eq!(seen.len(), 17);
        assert_eq!(
            not_built_error(Method::AuthEnable).message(),
            "etcdserver: Auth/AuthEnable is not built yet"
        );
    }

    #[test]
    fn texts_for_what_etcd_does_not_have_either() {
        assert_eq!(refusal("/a.B/C"), "unknown service a.B");
        assert_eq!(
            refusal("/etcdserverpb.KV/Get"),
            "unknown method Get for service etcdserverpb.KV"
        );
        assert_eq!(
            refusal("/v3lockpb.Lock/Try"),
            "unknown method Try for service v3lockpb.Lock"
        );
        assert_eq!(refusal("/x"), "malformed method name: \"/x\"");
        assert_eq!(refusal("/"), "malformed method name: \"/\"");
        assert_eq!(refusal("/a/b/c"), "unknown service a/b");
        assert_eq!(
            refusal("/etcdserverpb.KV/"),
            "unknown method  for service etcdserverpb.KV"
        );
    }

    #[test]
    fn service_paths() {
        assert!(is_service_path("/etcdserverpb.KV/Range"));
        assert!(is_service_path("/v3electionpb.Election/Nothing"));
        assert!(!is_service_path("/v3/kv/range"));
        assert!(!is_service_path("/health"));
    }
}
