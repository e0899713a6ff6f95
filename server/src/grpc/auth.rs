//! The Auth service.

use std::future::Future;

use ferrite_api::pb::etcdserverpb as pb;
use http::Response;
use tonic::Code;

use super::body::Body;
use super::call::Call;
use super::unary::Unary;
use super::{Kv, Server};
use crate::error::Error;
use crate::handle::Handle;
use crate::metrics::Method;

/// The answer of what has no users.
fn unserved() -> Error {
    Error::status(Code::Unimplemented, "there are no users here")
}

/// Declares the trait, its production implementation, a [`Unary`] for each method, and their dispatch.
macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident, $function:ident: $request:ident => $reply:ident, $method:ident;)*) => {
        /// What the Auth service asks of a member; [`Handle`] in production.
        pub trait Auths {
            $($(#[$doc])*
            fn $function(
                &self,
                _: pb::$request,
            ) -> impl Future<Output = Result<pb::$reply, Error>> + Send {
                async { Err(unserved()) }
            })*
        }

        impl Auths for Handle {
            $(fn $function(
                &self,
                request: pb::$request,
            ) -> impl Future<Output = Result<pb::$reply, Error>> + Send {
                Handle::$function(self, request)
            })*
        }

        $($(#[$doc])*
        struct $name;

        impl Unary for $name {
            const METHOD: Method = Method::$method;
            type Request = pb::$request;
            type Reply = pb::$reply;

            fn call<K: Kv>(
                kv: &K,
                request: pb::$request,
            ) -> impl Future<Output = Result<pb::$reply, Error>> + Send {
                kv.$function(request)
            }
        })*

        impl<K: Kv> Server<K> {
            /// A call of the Auth service; `None` if it is of another one.
            pub(super) async fn auth<B>(&self, method: Method, call: &Call, body: B) -> Option<Response<Body>>
            where
                B: http_body::Body<Data = bytes::Bytes> + Unpin,
            {
                Some(match method {
                    $(Method::$method => self.unary::<$name, B>(call, body).await,)*
                    _ => return None,
                })
            }
        }
    };
}

methods! {
    /// Auth.AuthEnable.
    AuthEnable, auth_enable: AuthEnableRequest => AuthEnableResponse, AuthEnable;
    /// Auth.AuthDisable.
    AuthDisable, auth_disable: AuthDisableRequest => AuthDisableResponse, AuthDisable;
    /// Auth.AuthStatus.
    AuthStatus, auth_status: AuthStatusRequest => AuthStatusResponse, AuthStatus;
    /// Auth.Authenticate.
    Authenticate, authenticate: AuthenticateRequest => AuthenticateResponse, AuthAuthenticate;
    /// Auth.UserAdd.
    UserAdd, user_add: AuthUserAddRequest => AuthUserAddResponse, AuthUserAdd;
    /// Auth.UserGet.
    UserGet, user_get: AuthUserGetRequest => AuthUserGetResponse, AuthUserGet;
    /// Auth.UserList.
    UserList, user_list: AuthUserListRequest => AuthUserListResponse, AuthUserList;
    /// Auth.UserDelete.
    UserDelete, user_delete: AuthUserDeleteRequest => AuthUserDeleteResponse, AuthUserDelete;
    /// Auth.UserChangePassword.
    UserChangePassword, user_change_password:
        AuthUserChangePasswordRequest => AuthUserChangePasswordResponse, AuthUserChangePassword;
    /// Auth.UserGrantRole.
    UserGrantRole, user_grant_role:
        AuthUserGrantRoleRequest => AuthUserGrantRoleResponse, AuthUserGrantRole;
    /// Auth.UserRevokeRole.
    UserRevokeRole, user_revoke_role:
        AuthUserRevokeRoleRequest => AuthUserRevokeRoleResponse, AuthUserRevokeRole;
    /// Auth.RoleAdd.
    RoleAdd, role_add: AuthRoleAddRequest => AuthRoleAddResponse, AuthRoleAdd;
    /// Auth.RoleGet.
    RoleGet, role_get: AuthRoleGetRequest => AuthRoleGetResponse, AuthRoleGet;
    /// Auth.RoleList.
    RoleList, role_list: AuthRoleListRequest => AuthRoleListResponse, AuthRoleList;
    /// Auth.RoleDelete.
    RoleDelete, role_delete: AuthRoleDeleteRequest => AuthRoleDeleteResponse, AuthRoleDelete;
    /// Auth.RoleGrantPermission.
    RoleGrantPermission, role_grant_permission:
        AuthRoleGrantPermissionRequest => AuthRoleGrantPermissionResponse, AuthRoleGrantPermission;
    /// Auth.RoleRevokePermission.
    RoleRevokePermission, role_revoke_permission:
        AuthRoleRevokePermissionRequest => AuthRoleRevokePermissionResponse, AuthRoleRevokePermission;
}
