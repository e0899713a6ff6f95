//! Users, roles and tokens: section 9 of spec validation.md and spec auth.md. Who may do what with the
//! rest of the API is in `authorization`.

use bytes::Bytes;
use ferrite_api::pb::authpb::permission::Type;
use ferrite_api::pb::authpb::{Permission, UserAddOptions};
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::etcdserverpb::auth_client::AuthClient;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::support::*;

pub(crate) const USER_EMPTY: &str = "etcdserver: user name is empty";
pub(crate) const DENIED: &str = "etcdserver: permission denied";
pub(crate) const INVALID_TOKEN: &str = "etcdserver: invalid auth token";
pub(crate) const OLD_REVISION: &str = "etcdserver: revision of auth store is old";
const AUTH_FAILED: &str = "etcdserver: authentication failed, invalid user ID or password";
const NO_PASSWORD: &str = "auth: authentication failed, password was given for no password user";
const INVALID_MGMT: &str = "etcdserver: invalid auth management";
const USER_NOT_FOUND: &str = "etcdserver: user name not found";
const ROLE_NOT_FOUND: &str = "etcdserver: role name not found";

/// A request with a token; without, if it is empty.
pub(crate) fn with<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !token.is_empty() {
        let token = MetadataValue::try_from(token).unwrap();
        request.metadata_mut().insert("token", token);
    }
    request
}

impl Member {
    pub(crate) fn auth(&self) -> AuthClient<Channel> {
        AuthClient::new(self.channel.clone())
    }

    pub(crate) async fn user_add(&self, token: &str, name: &str) {
        let request = pb::AuthUserAddRequest {
            name: name.to_owned(),
            password: format!("{name}-pw"),
            ..Default::default()
        };
        self.auth().user_add(with(token, request)).await.unwrap();
    }

    pub(crate) async fn grant_role(&self, token: &str, user: &str, role: &str) {
        let (user, role) = (user.to_owned(), role.to_owned());
        let request = pb::AuthUserGrantRoleRequest { user, role };
        let granted = self.auth().user_grant_role(with(token, request)).await;
        granted.unwrap();
    }

    pub(crate) async fn permit(&self, token: &str, role: &str, kind: Type, key: &str, end: &str) {
        let request = with(token, grant(role, kind, key, end));
        self.auth().role_grant_permission(request).await.unwrap();
    }

    pub(crate) async fn enable_auth(&self) {
        self.auth()
            .auth_enable(pb::AuthEnableRequest {})
            .await
            .unwrap();
    }

    /// A token for a user of [`Member::user_add`].
    pub(crate) async fn login(&self, name: &str) -> String {
        let request = login(name, &format!("{name}-pw"));
        let answer = self.auth().authenticate(request).await;
        answer.unwrap().into_inner().token
    }

    /// Root, a user `u` with the role `r`, which permits nothing, and authentication on: their tokens.
    pub(crate) async fn guarded(&self) -> (String, String) {
        for name in ["root", "u"] {
            self.user_add("", name).await;
        }
        let role = pb::AuthRoleAddRequest {
            name: "r".to_owned(),
        };
        self.auth().role_add(role).await.unwrap();
        self.grant_role("", "root", "root").await;
        self.grant_role("", "u", "r").await;
        self.enable_auth().await;
        (self.login("root").await, self.login("u").await)
    }

    async fn auth_state(&self) -> (bool, u64) {
        let answer = self.auth().auth_status(pb::AuthStatusRequest {}).await;
        let status = answer.unwrap().into_inner();
        (status.enabled, status.auth_revision)
    }
}

fn login(name: &str, password: &str) -> pb::AuthenticateRequest {
    pb::AuthenticateRequest {
        name: name.to_owned(),
        password: password.to_owned(),
    }
}

pub(crate) fn grant(
    role: &str,
    kind: Type,
    key: &str,
    end: &str,
) -> pb::AuthRoleGrantPermissionRequest {
    pb::AuthRoleGrantPermissionRequest {
        name: role.to_owned(),
        perm: Some(Permission {
            perm_type: kind as i32,
            key: Bytes::from(key.to_owned()),
            range_end: Bytes::from(end.to_owned()),
        }),
    }
}

#[tokio::test]
async fn s2_headers_of_auth_answers() {
    let member = Member::start().await;
    member.put("a", "1").await;
    let mut auth = member.auth();
    let revision = 2;
    macro_rules! header {
        ($call:ident, $request:expr) => {
            full(
                auth.$call($request).await.unwrap().into_inner().header,
                revision,
            )
        };
    }
    let (user, role) = ("root".to_owned(), "root".to_owned());
    let password = "root-pw".to_owned();
    let name = user.clone();
    header!(
        user_add,
        pb::AuthUserAddRequest {
            name: name.clone(),
            password: password.clone(),
            ..Default::default()
        }
    );
    header!(
        role_add,
        pb::AuthRoleAddRequest {
            name: "root".to_owned()
        }
    );
    header!(
        user_grant_role,
        pb::AuthUserGrantRoleRequest {
            user,
            role: role.clone()
        }
    );
    header!(role_grant_permission, grant("root", Type::Read, "a", ""));
    header!(
        role_revoke_permission,
        pb::AuthRoleRevokePermissionRequest {
            role: role.clone(),
            key: Bytes::from("a"),
            ..Default::default()
        }
    );
    header!(user_get, pb::AuthUserGetRequest { name: name.clone() });
    header!(user_list, pb::AuthUserListRequest {});
    header!(role_get, pb::AuthRoleGetRequest { role: role.clone() });
    header!(role_list, pb::AuthRoleListRequest {});
    header!(auth_status, pb::AuthStatusRequest {});
    header!(auth_enable, pb::AuthEnableRequest {});
    let token = member.login("root").await;
    header!(authenticate, login("root", "root-pw"));
    header!(
        user_change_password,
        with(
            &token,
            pb::AuthUserChangePasswordRequest {
                name: name.clone(),
                password,
                ..Default::default()
            }
        )
    );
    let token = member.login("root").await;
    header!(auth_disable, with(&token, pb::AuthDisableRequest {}));
    header!(
        user_revoke_role,
        pb::AuthUserRevokeRoleRequest {
            name: name.clone(),
            role: role.clone()
        }
    );
    header!(role_delete, pb::AuthRoleDeleteRequest { role });
    header!(user_delete, pb::AuthUserDeleteRequest { name });
}

#[tokio::test]
async fn s9_users_roles_and_what_counts_as_a_change() {
    let member = Member::start().await;
    let mut auth = member.auth();
    assert_eq!(member.auth_state().await, (false, 1));
    member.user_add("", "u").await;
    let add = |name: &str| pb::AuthUserAddRequest {
        name: name.to_owned(),
        ..Default::default()
    };
    let code = Code::FailedPrecondition;
    refused(
        auth.user_add(add("u")).await,
        code,
        "etcdserver: user name already exists",
    );
    refused(
        auth.user_add(add("")).await,
        Code::InvalidArgument,
        USER_EMPTY,
    );
    let role = |name: &str| pb::AuthRoleAddRequest {
        name: name.to_owned(),
    };
    for name in ["r", "q"] {
        auth.role_add(role(name)).await.unwrap();
    }
    refused(
        auth.role_add(role("r")).await,
        code,
        "etcdserver: role name already exists",
    );
    let text = "etcdserver: role name is empty";
    refused(auth.role_add(role("")).await, Code::InvalidArgument, text);
    for role in ["r", "q", "r", "root"] {
        member.grant_role("", "u", role).await;
    }
    let grant_role = |user: &str, role: &str| pb::AuthUserGrantRoleRequest {
        user: user.to_owned(),
        role: role.to_owned(),
    };
    refused(
        auth.user_grant_role(grant_role("x", "r")).await,
        code,
        USER_NOT_FOUND,
    );
    refused(
        auth.user_grant_role(grant_role("u", "x")).await,
        code,
        ROLE_NOT_FOUND,
    );
    let get = pb::AuthUserGetRequest {
        name: "u".to_owned(),
    };
    let roles = auth.user_get(get).await.unwrap().into_inner().roles;
    assert_eq!(roles, ["q", "r", "root"]);
    let revoke = |role: &str| pb::AuthUserRevokeRoleRequest {
        name: "u".to_owned(),
        role: role.to_owned(),
    };
    auth.user_revoke_role(revoke("root")).await.unwrap();
    let text = "etcdserver: role is not granted to the user";
    refused(auth.user_revoke_role(revoke("root")).await, code, text);
    // What has gone takes the role from its users.
    let delete = pb::AuthRoleDeleteRequest {
        role: "q".to_owned(),
    };
    auth.role_delete(delete.clone()).await.unwrap();
    refused(auth.role_delete(delete).await, code, ROLE_NOT_FOUND);
    let get = pb::AuthUserGetRequest {
        name: "u".to_owned(),
    };
    assert_eq!(auth.user_get(get).await.unwrap().into_inner().roles, ["r"]);
    member.user_add("", "b").await;
    let users = auth.user_list(pb::AuthUserListRequest {}).await.unwrap();
    assert_eq!(users.into_inner().users, ["b", "u"]);
    let roles = auth.role_list(pb::AuthRoleListRequest {}).await.unwrap();
    assert_eq!(roles.into_inner().roles, ["r"]);
    // 2 users, 2 roles, 3 grants, 1 revocation, 1 deletion.
    assert_eq!(member.auth_state().await, (false, 10));
    let metric = "etcd_debugging_auth_revision 10";
    assert!(member.metrics().await.contains(&metric.to_owned()));
    // None of that is a revision of the store.
    full(
        member
            .kv()
            .range(get_a())
            .await
            .unwrap()
            .into_inner()
            .header,
        1,
    );
}

fn get_a() -> pb::RangeRequest {
    get("a")
}

#[tokio::test]
async fn s9_permissions_of_a_role() {
    let member = Member::start().await;
    let mut auth = member.auth();
    for name in ["r", "root"] {
        let role = pb::AuthRoleAddRequest {
            name: name.to_owned(),
        };
        auth.role_add(role).await.unwrap();
    }
    let code = Code::InvalidArgument;
    for (key, end) in [("", ""), ("b", "a"), ("a", "a")] {
        let invalid = auth
            .role_grant_permission(grant("r", Type::Read, key, end))
            .await;
        refused(invalid, code, INVALID_MGMT);
    }
    let nothing = pb::AuthRoleGrantPermissionRequest {
        name: "x".to_owned(),
        perm: None,
    };
    let nothing = auth.role_grant_permission(nothing).await;
    refused(nothing, code, "etcdserver: permission not given");
    let unknown = auth
        .role_grant_permission(grant("x", Type::Read, "a", ""))
        .await;
    refused(unknown, Code::FailedPrecondition, ROLE_NOT_FOUND);
    member.permit("", "r", Type::Read, "b", "").await;
    member.permit("", "r", Type::Write, "a", "c").await;
    member.permit("", "r", Type::Readwrite, "b", "").await;
    member.permit("", "r", Type::Read, "\0", "\0").await;
    let get = |role: &str| pb::AuthRoleGetRequest {
        role: role.to_owned(),
    };
    let found = auth.role_get(get("r")).await.unwrap().into_inner().perm;
    let found: Vec<_> = found
        .iter()
        .map(|perm| (perm.perm_type, &perm.key[..], &perm.range_end[..]))
        .collect();
    let expected: [(i32, &[u8], &[u8]); 3] = [(0, b"\0", b"\0"), (1, b"a", b"c"), (2, b"b", b"")];
    assert_eq!(found, expected);
    // Whatever it was granted, this role is everything.
    member.permit("", "root", Type::Read, "a", "").await;
    let root = auth.role_get(get("root")).await.unwrap().into_inner().perm;
    let everything = Permission {
        perm_type: Type::Readwrite as i32,
        key: Bytes::new(),
        range_end: Bytes::from_static(&[0]),
    };
    assert_eq!(root, [everything]);
    refused(
        auth.role_get(get("x")).await,
        Code::FailedPrecondition,
        ROLE_NOT_FOUND,
    );
    let revoke = |end: &str| pb::AuthRoleRevokePermissionRequest {
        role: "r".to_owned(),
        key: Bytes::from("a"),
        range_end: Bytes::from(end.to_owned()),
    };
    let text = "etcdserver: permission is not granted to the role";
    let other = auth.role_revoke_permission(revoke("")).await;
    refused(other, Code::FailedPrecondition, text);
    auth.role_revoke_permission(revoke("c")).await.unwrap();
}

#[tokio::test]
async fn s9_authentication_is_switched_on_and_off() {
    let member = Member::start().await;
    let mut auth = member.auth();
    let code = Code::FailedPrecondition;
    let off = auth.authenticate(login("root", "root-pw")).await;
    refused(off, code, "etcdserver: authentication is not enabled");
    let enable = auth.auth_enable(pb::AuthEnableRequest {}).await;
    refused(enable, code, "etcdserver: root user does not exist");
    member.user_add("", "root").await;
    let enable = auth.auth_enable(pb::AuthEnableRequest {}).await;
    refused(
        enable,
        code,
        "etcdserver: root user does not have root role",
    );
    member.grant_role("", "root", "root").await;
    // A token means nothing while authentication is off.
    member.kv().range(with("x.1", get("a"))).await.unwrap();
    member.enable_auth().await;
    assert_eq!(member.auth_state().await, (true, 3));
    let root = member.login("root").await;
    auth.auth_enable(with(&root, pb::AuthEnableRequest {}))
        .await
        .unwrap();
    let protected = pb::AuthUserDeleteRequest {
        name: "root".to_owned(),
    };
    let protected = auth.user_delete(with(&root, protected)).await;
    refused(protected, Code::InvalidArgument, INVALID_MGMT);
    let protected = pb::AuthRoleDeleteRequest {
        role: "root".to_owned(),
    };
    let protected = auth.role_delete(with(&root, protected)).await;
    refused(protected, Code::InvalidArgument, INVALID_MGMT);
    let protected = pb::AuthUserRevokeRoleRequest {
        name: "root".to_owned(),
        role: "root".to_owned(),
    };
    let protected = auth.user_revoke_role(with(&root, protected)).await;
    refused(protected, Code::InvalidArgument, INVALID_MGMT);
    auth.auth_disable(with(&root, pb::AuthDisableRequest {}))
        .await
        .unwrap();
    auth.auth_disable(pb::AuthDisableRequest {}).await.unwrap();
    assert_eq!(member.auth_state().await, (false, 4));
    // Tokens of before are gone with it.
    member.enable_auth().await;
    let gone = member.kv().range(with(&root, get("a"))).await;
    refused(gone, Code::Unauthenticated, INVALID_TOKEN);
}

#[tokio::test]
async fn s9_who_can_log_in() {
    let member = Member::start().await;
    let (root, _) = member.guarded().await;
    let mut auth = member.auth();
    let code = Code::InvalidArgument;
    for (name, password) in [("x", ""), ("u", ""), ("u", "u-pw2"), ("", "")] {
        refused(
            auth.authenticate(login(name, password)).await,
            code,
            AUTH_FAILED,
        );
    }
    let certified = pb::AuthUserAddRequest {
        name: "certified".to_owned(),
        password: "ignored".to_owned(),
        options: Some(UserAddOptions { no_password: true }),
        ..Default::default()
    };
    auth.user_add(with(&root, certified)).await.unwrap();
    let refusal = auth.authenticate(login("certified", "ignored")).await;
    refused(refusal, Code::Unknown, NO_PASSWORD);
    let token = member.login("u").await;
    let (letters, index) = token.split_once('.').unwrap();
    assert!(letters.len() == 16 && letters.bytes().all(|letter| letter.is_ascii_alphabetic()));
    assert!(index.parse::<u64>().unwrap() > 0);
    // An empty password is one, given to a new user; set later, it is none.
    let empty = pb::AuthUserAddRequest {
        name: "empty".to_owned(),
        ..Default::default()
    };
    auth.user_add(with(&root, empty)).await.unwrap();
    auth.authenticate(login("empty", "")).await.unwrap();
    let empty = pb::AuthUserChangePasswordRequest {
        name: "empty".to_owned(),
        ..Default::default()
    };
    auth.user_change_password(with(&root, empty)).await.unwrap();
    refused(
        auth.authenticate(login("empty", "")).await,
        code,
        AUTH_FAILED,
    );
    let unknown = pb::AuthUserChangePasswordRequest {
        name: "x".to_owned(),
        ..Default::default()
    };
    let unknown = auth.user_change_password(with(&root, unknown)).await;
    refused(unknown, Code::FailedPrecondition, USER_NOT_FOUND);
}

#[tokio::test]
async fn s1_5_a_password_has_72_bytes_at_most() {
    let member = Member::start().await;
    let add = |name: &str, length: usize| pb::AuthUserAddRequest {
        name: name.to_owned(),
        password: "x".repeat(length),
        ..Default::default()
    };
    member.auth().user_add(add("u", 72)).await.unwrap();
    let text = "bcrypt: password length exceeds 72 bytes";
    // Before anything else is looked at: the user is there already.
    refused(
        member.auth().user_add(add("u", 73)).await,
        Code::Unknown,
        text,
    );
}

#[tokio::test]
async fn s9_what_ends_a_token() {
    let member = Member::start().await;
    let (root, user) = member.guarded().await;
    let mut auth = member.auth();
    let status = |token: String| {
        let mut auth = member.auth();
        async move {
            let get = pb::AuthUserGetRequest {
                name: "u".to_owned(),
            };
            auth.user_get(with(&token, get)).await
        }
    };
    // Not: other roles, other users, a second token.
    member.user_add(&root, "v").await;
    member.grant_role(&root, "v", "r").await;
    let revoke = pb::AuthUserRevokeRoleRequest {
        name: "u".to_owned(),
        role: "r".to_owned(),
    };
    auth.user_revoke_role(with(&root, revoke)).await.unwrap();
    let second = member.login("u").await;
    status(user.clone()).await.unwrap();
    status(second.clone()).await.unwrap();
    let change = pb::AuthUserChangePasswordRequest {
        name: "u".to_owned(),
        password: "u-pw".to_owned(),
        ..Default::default()
    };
    auth.user_change_password(with(&root, change))
        .await
        .unwrap();
    for token in [user, second] {
        refused(status(token).await, Code::Unauthenticated, INVALID_TOKEN);
    }
    let third = member.login("u").await;
    let delete = pb::AuthUserDeleteRequest {
        name: "u".to_owned(),
    };
    auth.user_delete(with(&root, delete.clone())).await.unwrap();
    refused(status(third).await, Code::Unauthenticated, INVALID_TOKEN);
    let again = auth.user_delete(with(&root, delete)).await;
    refused(again, Code::FailedPrecondition, USER_NOT_FOUND);
    status(root).await.expect_err("there is no such user");
}

/// Users and roles are data; tokens are not.
#[tokio::test]
async fn s9_a_restart_keeps_users_and_no_tokens() {
    let member = Member::start().await;
    let (root, _) = member.guarded().await;
    let before = member.auth_state().await;
    let member = member.restart(|_| {}).await;
    assert_eq!(member.auth_state().await, before);
    let gone = member.kv().range(with(&root, get("a"))).await;
    refused(gone, Code::Unauthenticated, INVALID_TOKEN);
    let root = member.login("root").await;
    member.kv().range(with(&root, get("a"))).await.unwrap();
}

#[tokio::test]
async fn s1_4_signed_tokens_are_good_on_every_member_and_as_of_their_revision() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "a secret of some bytes").unwrap();
    let options = format!("jwt,sign-method=HS256,priv-key={}", secret.display());
    let signed = |config: &mut ferrite_server::config::Config| config.auth_token = options.clone();
    let member = Member::start_with(signed).await;
    let (root, user) = member.guarded().await;
    assert_eq!(user.split('.').count(), 3, "{user}");
    let member = member.restart(signed).await;
    member.kv().range(with(&root, get("a"))).await.unwrap();
    member.permit(&root, "r", Type::Read, "a", "").await;
    // Whatever has changed: the token is as of before. But users and roles may still be managed.
    for token in [&root, &user] {
        let old = member.kv().range(with(token, get("a"))).await;
        refused(old, Code::InvalidArgument, OLD_REVISION);
    }
    member.user_add(&root, "v").await;
    let user = member.login("u").await;
    member.kv().range(with(&user, get("a"))).await.unwrap();
    let mut forged = user.clone().into_bytes();
    let last = forged.len() - 2;
    forged[last] = if forged[last] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    let forged = member.kv().range(with(&forged, get("a"))).await;
    refused(forged, Code::Unauthenticated, INVALID_TOKEN);
}

#[tokio::test]
async fn s9_without_a_kind_of_tokens_nobody_gets_one() {
    let member = Member::start().await;
    member.guarded().await;
    let member = member
        .restart(|config| config.auth_token = String::new())
        .await;
    let refusal = member.auth().authenticate(login("u", "u-pw")).await;
    refused(refusal, Code::InvalidArgument, AUTH_FAILED);
    let refusal = member.kv().range(with("x.1", get("a"))).await;
    refused(refusal, Code::Unauthenticated, INVALID_TOKEN);
}
