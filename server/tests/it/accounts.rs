//! Users, roles and tokens in clusters of real processes: they are those of every member.

use ferrite_api::pb::authpb::Permission;
use ferrite_api::pb::authpb::permission::Type;
use ferrite_api::pb::etcdserverpb as pb;
use tonic::{Code, Status};

use crate::clusters::{Client, Place, begin_cluster};

const DENIED: &str = "etcdserver: permission denied";
const INVALID_TOKEN: &str = "etcdserver: invalid auth token";

impl Client {
    async fn user_add(&self, name: &str) {
        let request = pb::AuthUserAddRequest {
            name: name.to_owned(),
            password: name.to_owned(),
            ..Default::default()
        };
        let path = "/etcdserverpb.Auth/UserAdd";
        let _: pb::AuthUserAddResponse = self.call(path, request).await.unwrap();
    }

    async fn grant_role(&self, user: &str, role: &str) {
        let request = pb::AuthUserGrantRoleRequest {
            user: user.to_owned(),
            role: role.to_owned(),
        };
        let path = "/etcdserverpb.Auth/UserGrantRole";
        let _: pb::AuthUserGrantRoleResponse = self.call(path, request).await.unwrap();
    }

    async fn permit(&self, role: &str, key: &str) {
        let perm = Permission {
            perm_type: Type::Readwrite as i32,
            key: key.to_owned().into(),
            ..Default::default()
        };
        let request = pb::AuthRoleGrantPermissionRequest {
            name: role.to_owned(),
            perm: Some(perm),
        };
        let path = "/etcdserverpb.Auth/RoleGrantPermission";
        let _: pb::AuthRoleGrantPermissionResponse = self.call(path, request).await.unwrap();
    }

    async fn forbid(&self, role: &str, key: &str) {
        let request = pb::AuthRoleRevokePermissionRequest {
            role: role.to_owned(),
            key: key.to_owned().into(),
            ..Default::default()
        };
        let path = "/etcdserverpb.Auth/RoleRevokePermission";
        let _: pb::AuthRoleRevokePermissionResponse = self.call(path, request).await.unwrap();
    }

    /// Root, a user `u` with the role `r`, and authentication on.
    async fn guard(&self) {
        self.user_add("root").await;
        self.user_add("u").await;
        let role = pb::AuthRoleAddRequest {
            name: "r".to_owned(),
        };
        let path = "/etcdserverpb.Auth/RoleAdd";
        let _: pb::AuthRoleAddResponse = self.call(path, role).await.unwrap();
        self.grant_role("root", "root").await;
        self.grant_role("u", "r").await;
        let path = "/etcdserverpb.Auth/AuthEnable";
        let enable = pb::AuthEnableRequest {};
        let _: pb::AuthEnableResponse = self.call(path, enable).await.unwrap();
    }

    async fn login(&self, name: &str) -> Client {
        let request = pb::AuthenticateRequest {
            name: name.to_owned(),
            password: name.to_owned(),
        };
        let path = "/etcdserverpb.Auth/Authenticate";
        let answer: pb::AuthenticateResponse = self.call(path, request).await.unwrap();
        self.with_token(&answer.token)
    }

    fn token(&self) -> &str {
        self.token.as_deref().unwrap()
    }

    /// Reads what this member has, or is refused.
    async fn try_get(&self, key: &str, serializable: bool) -> Result<usize, Status> {
        let request = pb::RangeRequest {
            key: key.to_owned().into(),
            serializable,
            ..Default::default()
        };
        let path = "/etcdserverpb.KV/Range";
        let answer: pb::RangeResponse = self.call(path, request).await?;
        Ok(answer.kvs.len())
    }

    async fn try_put(&self, key: &str, lease: i64) -> Result<pb::PutResponse, Status> {
        let request = pb::PutRequest {
            key: key.to_owned().into(),
            lease,
            ..Default::default()
        };
        self.call("/etcdserverpb.KV/Put", request).await
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, text: &str) {
    let status = answer.expect_err("a refusal");
    assert_eq!((status.code(), status.message()), (code, text));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_one_member_is_known_by_the_others_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let places = ["a", "b", "c"].map(|name| Place::new(dir.path(), name));
    let (_running, _) = begin_cluster(&places);
    let mut clients = Vec::new();
    for place in &places {
        clients.push(place.client().await);
    }
    clients[0].guard().await;
    for round in 0..10 {
        let (one, other) = (&clients[round % 3], &clients[(round + 1) % 3]);
        let root = one.login("root").await;
        let there = other.with_token(root.token());
        // Also where a read asks nobody: the token makes this member catch up.
        assert_eq!(there.try_get("k", true).await.unwrap(), 0);
        there.permit("r", "k").await;
        let user = other.login("u").await;
        let here = one.with_token(user.token());
        here.try_put("k", 0).await.unwrap();
        let third = clients[(round + 2) % 3].with_token(user.token());
        assert_eq!(third.try_get("k", false).await.unwrap(), 1);
        // What is taken away is gone for whoever asks afterwards, on every member.
        root.forbid("r", "k").await;
        let code = Code::PermissionDenied;
        refused(third.try_get("k", false).await, code, DENIED);
        refused(here.try_put("k", 0).await, code, DENIED);
        let delete = pb::DeleteRangeRequest {
            key: "k".into(),
            ..Default::default()
        };
        let path = "/etcdserverpb.KV/DeleteRange";
        let _: pb::DeleteRangeResponse = root.call(path, delete).await.unwrap();
    }
    for client in &clients {
        let unknown = client.with_token("abcdefghijklmnop.7");
        let answer = unknown.try_get("k", true).await;
        refused(answer, Code::Unauthenticated, INVALID_TOKEN);
        let future = client.with_token("abcdefghijklmnop.999999");
        let answer = future.try_get("k", true).await;
        refused(answer, Code::Unauthenticated, INVALID_TOKEN);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_are_guarded_on_every_member() {
    let dir = tempfile::tempdir().unwrap();
    let places = ["a", "b", "c"].map(|name| Place::new(dir.path(), name));
    let (_running, _) = begin_cluster(&places);
    let first = places[0].client().await;
    first.guard().await;
    let root = first.login("root").await;
    let user = first.login("u").await;
    root.permit("r", "k").await;
    for id in [1, 2] {
        let grant = pb::LeaseGrantRequest { id, ttl: 600 };
        let path = "/etcdserverpb.Lease/LeaseGrant";
        let _: pb::LeaseGrantResponse = user.call(path, grant).await.unwrap();
    }
    user.try_put("k", 1).await.unwrap();
    root.try_put("secret", 2).await.unwrap();
    let code = Code::PermissionDenied;
    for place in &places {
        let client = place.client().await.with_token(user.token());
        // What is attached is known here as soon as a read has been confirmed here.
        client.try_get("k", false).await.unwrap();
        let look = |id| {
            let request = pb::LeaseTimeToLiveRequest { id, keys: true };
            client.call::<_, pb::LeaseTimeToLiveResponse>(
                "/etcdserverpb.Lease/LeaseTimeToLive",
                request,
            )
        };
        assert_eq!(look(1).await.unwrap().keys, ["k"]);
        refused(look(2).await, code, DENIED);
        let keep = |id| {
            let request = pb::LeaseKeepAliveRequest { id };
            client.call::<_, pb::LeaseKeepAliveResponse>(
                "/etcdserverpb.Lease/LeaseKeepAlive",
                request,
            )
        };
        assert_eq!(keep(1).await.unwrap().ttl, 600);
        refused(keep(2).await, code, DENIED);
        let revoke = pb::LeaseRevokeRequest { id: 2 };
        let revoked: Result<pb::LeaseRevokeResponse, _> =
            client.call("/etcdserverpb.Lease/LeaseRevoke", revoke).await;
        refused(revoked, code, DENIED);
        refused(client.try_put("k", 2).await, code, DENIED);
    }
}

/// A member that joins has users and roles, from the log or from a snapshot, and knows tokens only that
/// were made since.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_joins_knows_users() {
    let dir = tempfile::tempdir().unwrap();
    let places = ["a", "b", "c"].map(|name| Place::new(dir.path(), name));
    let (_running, cluster) = begin_cluster(&places);
    let first = places[0].client().await;
    first.guard().await;
    let root = first.login("root").await;
    root.permit("r", "k").await;
    let fourth = Place::new(dir.path(), "d");
    root.add(&fourth.peer).await;
    let all = format!("{cluster},{}", fourth.entry());
    let mut joined = fourth.begin(&[
        "--initial-cluster-state=existing",
        "--initial-cluster",
        &all,
    ]);
    fourth.serves(&mut joined, 1);
    let there = fourth.client().await;
    refused(
        there.try_get("k", false).await,
        Code::InvalidArgument,
        "etcdserver: user name is empty",
    );
    let user = there.login("u").await;
    user.try_put("k", 0).await.unwrap();
    refused(
        user.try_get("secret", false).await,
        Code::PermissionDenied,
        DENIED,
    );
}
