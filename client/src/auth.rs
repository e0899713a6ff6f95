//! Calls about users and roles, and about whether they count.

use std::str::FromStr;

use bytes::Bytes;
use ferrite_api::pb::authpb;
use ferrite_api::pb::etcdserverpb as pb;

use crate::{Client, Error, rpc};

/// What a permission is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PermissionType {
    /// Keys may be read.
    Read,
    /// Keys may be written and deleted.
    Write,
    /// Both.
    ReadWrite,
}

impl PermissionType {
    fn to_api(self) -> authpb::permission::Type {
        match self {
            Self::Read => authpb::permission::Type::Read,
            Self::Write => authpb::permission::Type::Write,
            Self::ReadWrite => authpb::permission::Type::Readwrite,
        }
    }
}

impl FromStr for PermissionType {
    type Err = String;

    /// `read`, `write` or `readwrite`, in small letters or large ones.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "read" => Ok(Self::Read),
            "write" => Ok(Self::Write),
            "readwrite" => Ok(Self::ReadWrite),
            _ => Err(format!("invalid permission type: {text}")),
        }
    }
}

/// Users and roles: see [`Client::auth`].
#[derive(Clone, Debug)]
pub struct Auth {
    client: Client,
}

impl Auth {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Whether authentication is on, and how often users and roles have changed. Nobody has to log in
    /// for that.
    pub async fn status(&self) -> Result<pb::AuthStatusResponse, Error> {
        let request = pb::AuthStatusRequest {};
        self.client.unary(rpc::AUTH_STATUS, request).await
    }

    /// Switches authentication on. There must be a user `root` that has the role `root`.
    pub async fn enable(&self) -> Result<pb::AuthEnableResponse, Error> {
        let request = pb::AuthEnableRequest {};
        self.client.unary(rpc::AUTH_ENABLE, request).await
    }

    /// Switches authentication off.
    pub async fn disable(&self) -> Result<pb::AuthDisableResponse, Error> {
        let request = pb::AuthDisableRequest {};
        self.client.unary(rpc::AUTH_DISABLE, request).await
    }

    /// A token for a user. A client that is to use it is given the user
    /// ([`Config::user`](crate::Config::user)) or the token ([`Config::token`](crate::Config::token)).
    pub async fn authenticate(
        &self,
        name: impl Into<String>,
        password: impl Into<String>,
    ) -> Result<pb::AuthenticateResponse, Error> {
        let request = pb::AuthenticateRequest {
            name: name.into(),
            password: password.into(),
        };
        self.client.unary(rpc::AUTHENTICATE, request).await
    }

    /// A new user.
    pub async fn user_add(
        &self,
        name: impl Into<String>,
        password: impl Into<String>,
    ) -> Result<pb::AuthUserAddResponse, Error> {
        self.add(name.into(), password.into(), false).await
    }

    /// A new user that is known by its certificate only.
    pub async fn user_add_without_password(
        &self,
        name: impl Into<String>,
    ) -> Result<pb::AuthUserAddResponse, Error> {
        self.add(name.into(), String::new(), true).await
    }

    async fn add(
        &self,
        name: String,
        password: String,
        no_password: bool,
    ) -> Result<pb::AuthUserAddResponse, Error> {
        let request = pb::AuthUserAddRequest {
            name,
            password,
            options: Some(authpb::UserAddOptions { no_password }),
            hashed_password: String::new(),
        };
        self.client.unary(rpc::USER_ADD, request).await
    }

    /// The end of a user.
    pub async fn user_delete(
        &self,
        name: impl Into<String>,
    ) -> Result<pb::AuthUserDeleteResponse, Error> {
        let request = pb::AuthUserDeleteRequest { name: name.into() };
        self.client.unary(rpc::USER_DELETE, request).await
    }

    /// Another password. The user's tokens end.
    pub async fn user_change_password(
        &self,
        name: impl Into<String>,
        password: impl Into<String>,
    ) -> Result<pb::AuthUserChangePasswordResponse, Error> {
        let request = pb::AuthUserChangePasswordRequest {
            name: name.into(),
            password: password.into(),
            hashed_password: String::new(),
        };
        self.client.unary(rpc::USER_CHANGE_PASSWORD, request).await
    }

    /// The roles of a user.
    pub async fn user_get(
        &self,
        name: impl Into<String>,
    ) -> Result<pb::AuthUserGetResponse, Error> {
        let request = pb::AuthUserGetRequest { name: name.into() };
        self.client.unary(rpc::USER_GET, request).await
    }

    /// The names of all users.
    pub async fn user_list(&self) -> Result<pb::AuthUserListResponse, Error> {
        let request = pb::AuthUserListRequest {};
        self.client.unary(rpc::USER_LIST, request).await
    }

    /// A role more for a user.
    pub async fn user_grant_role(
        &self,
        user: impl Into<String>,
        role: impl Into<String>,
    ) -> Result<pb::AuthUserGrantRoleResponse, Error> {
        let (user, role) = (user.into(), role.into());
        let request = pb::AuthUserGrantRoleRequest { user, role };
        self.client.unary(rpc::USER_GRANT_ROLE, request).await
    }

    /// A role less for a user.
    pub async fn user_revoke_role(
        &self,
        user: impl Into<String>,
        role: impl Into<String>,
    ) -> Result<pb::AuthUserRevokeRoleResponse, Error> {
        let request = pb::AuthUserRevokeRoleRequest {
            name: user.into(),
            role: role.into(),
        };
        self.client.unary(rpc::USER_REVOKE_ROLE, request).await
    }

    /// A new role, which permits nothing yet.
    pub async fn role_add(
        &self,
        role: impl Into<String>,
    ) -> Result<pb::AuthRoleAddResponse, Error> {
        let request = pb::AuthRoleAddRequest { name: role.into() };
        self.client.unary(rpc::ROLE_ADD, request).await
    }

    /// The end of a role, also for the users who have it.
    pub async fn role_delete(
        &self,
        role: impl Into<String>,
    ) -> Result<pb::AuthRoleDeleteResponse, Error> {
        let request = pb::AuthRoleDeleteRequest { role: role.into() };
        self.client.unary(rpc::ROLE_DELETE, request).await
    }

    /// The permissions of a role.
    pub async fn role_get(
        &self,
        role: impl Into<String>,
    ) -> Result<pb::AuthRoleGetResponse, Error> {
        let request = pb::AuthRoleGetRequest { role: role.into() };
        self.client.unary(rpc::ROLE_GET, request).await
    }

    /// The names of all roles.
    pub async fn role_list(&self) -> Result<pb::AuthRoleListResponse, Error> {
        let request = pb::AuthRoleListRequest {};
        self.client.unary(rpc::ROLE_LIST, request).await
    }

    /// A permission more for a role, on the keys from `key` up to and without `range_end`; with an empty
    /// one on `key` alone, with one zero byte on all keys from it on.
    pub async fn role_grant_permission(
        &self,
        role: impl Into<String>,
        permission: PermissionType,
        key: impl Into<Bytes>,
        range_end: impl Into<Bytes>,
    ) -> Result<pb::AuthRoleGrantPermissionResponse, Error> {
        let request = pb::AuthRoleGrantPermissionRequest {
            name: role.into(),
            perm: Some(authpb::Permission {
                perm_type: permission.to_api() as i32,
                key: key.into(),
                range_end: range_end.into(),
            }),
        };
        self.client.unary(rpc::ROLE_GRANT_PERMISSION, request).await
    }

    /// A permission less for a role: the one on exactly these keys.
    pub async fn role_revoke_permission(
        &self,
        role: impl Into<String>,
        key: impl Into<Bytes>,
        range_end: impl Into<Bytes>,
    ) -> Result<pb::AuthRoleRevokePermissionResponse, Error> {
        let request = pb::AuthRoleRevokePermissionRequest {
            role: role.into(),
            key: key.into(),
            range_end: range_end.into(),
        };
        self.client
            .unary(rpc::ROLE_REVOKE_PERMISSION, request)
            .await
    }
}
