//! Auth: who makes a call, what it may do, and the RPCs that change that (spec auth.md).
//!
//! A call that only reads is checked here, with the published state, after its view was taken: what is
//! published is never older than the view, so a read sees nothing that was written after it lost the
//! right to. What goes through the log carries the caller's name, and is checked there.
//!
//! While authentication is off all of this is one look at a flag.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ferrite_api::Error as ApiError;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::types::LeaseId;
use ferrite_storage::apply::outcome::{AuthOutcome, Response};
use ferrite_storage::auth::{Access, Auth, Identity, Password, ROOT};

use super::{Handle, mixed_up};
use crate::auth::{Caller, Credentials, Found};
use crate::error::Error;
use crate::member::{Input, LeaseCheck, Published, Reply};
use crate::metrics::RequestKind;

/// A caller, and the state as of which it is known who it is.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) auth: Arc<Auth>,
    pub(super) identity: Identity,
}

impl Known {
    /// # Errors
    /// As [`Auth::check`].
    pub(super) fn may_read(&self, key: &[u8], range_end: &[u8]) -> Result<(), ApiError> {
        self.auth
            .check(&self.identity, Access::Read, key, range_end)
    }
}

/// Notices that users or roles have changed while somebody reads for long.
#[derive(Debug)]
pub(super) struct AuthGuard {
    published: Arc<Published>,
    revision: u64,
}

impl AuthGuard {
    /// The error of a read that has taken too long.
    pub(super) fn check(self) -> Option<Error> {
        let changed = self.published.auth().revision() != self.revision;
        changed.then(|| ApiError::AuthOldRevision.into())
    }
}

impl Handle {
    /// For a read that is about to be checked; `None` while authentication is off.
    pub(super) fn auth_guard(&self) -> Option<AuthGuard> {
        let published = &self.inner.published;
        published.auth_enabled().then(|| AuthGuard {
            published: Arc::clone(published),
            revision: published.auth().revision(),
        })
    }

    /// Whether users have to show who they are.
    pub fn auth_enabled(&self) -> bool {
        self.inner.published.auth_enabled()
    }

    /// This member as a client with these credentials sees it: they decide what it may do once
    /// authentication is on.
    #[must_use]
    pub fn with_credentials(&self, credentials: Credentials) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            caller: Caller::Client(credentials),
        }
    }

    /// Who makes the call, once authentication is on; nobody is somebody too.
    ///
    /// # Errors
    /// `InvalidAuthToken`; the read that a token of another member's needs could not be confirmed.
    pub(super) async fn known(&self) -> Result<Option<Known>, Error> {
        let published = &self.inner.published;
        if !published.auth_enabled() {
            return Ok(None);
        }
        let (user, revision) = match &self.caller {
            Caller::Member => (ROOT.to_owned(), None),
            Caller::Client(credentials) => self.user(credentials).await?,
        };
        let auth = published.auth();
        let revision = match (user.is_empty(), revision) {
            (_, Some(revision)) => revision,
            (true, None) => 0,
            // Whoever is known now is known as of now.
            (false, None) => auth.revision(),
        };
        let identity = Identity { user, revision };
        Ok(Some(Known { auth, identity }))
    }

    /// The user that credentials stand for, and as of which auth revision, if that is not the newest.
    async fn user(&self, credentials: &Credentials) -> Result<(String, Option<u64>), Error> {
        let Some(token) = &credentials.token else {
            return Ok(match &credentials.common_name {
                // Whoever is known now is known as of now.
                Some(name) => {
                    let revision = self.inner.published.auth().revision();
                    (name.as_str().to_owned(), Some(revision))
                }
                None => (String::new(), None),
            });
        };
        let find = || self.inner.tokens.find(self.inner.clock.now(), token.text());
        let mut found = find();
        if let Found::NotYet(index) = found {
            if index > self.inner.published.applied() {
                // Another member has made it. What it has acknowledged is applied here afterwards.
                self.view(false).await?;
            }
            // It may have been applied between the two looks.
            found = find();
        }
        match found {
            Found::User(user) => Ok((user, None)),
            Found::UserAt(user, revision) => Ok((user, Some(revision))),
            Found::NotYet(_) | Found::Nobody => {
                tracing::warn!("invalid auth token");
                Err(ApiError::InvalidAuthToken.into())
            }
        }
    }

    /// Any user will do.
    ///
    /// # Errors
    /// As [`Handle::known`]; `UserEmpty`.
    pub(super) async fn check_login(&self) -> Result<(), Error> {
        match self.known().await? {
            // A token may name an empty user; it is a token all the same.
            Some(Known { identity, .. }) if identity == Identity::default() => {
                Err(ApiError::UserEmpty.into())
            }
            _ => Ok(()),
        }
    }

    /// A user with the role `root` only.
    ///
    /// # Errors
    /// As [`Handle::known`] and [`Auth::check_admin`].
    pub(super) async fn check_admin(&self) -> Result<(), Error> {
        if let Some(Known { auth, identity }) = self.known().await? {
            auth.check_admin(&identity)?;
        }
        Ok(())
    }

    /// Whoever may read all keys of a range. To be asked after the view was taken that is read.
    ///
    /// # Errors
    /// As [`Handle::known`] and [`Auth::check`].
    pub(super) async fn check_read(&self, key: &[u8], range_end: &[u8]) -> Result<(), Error> {
        if let Some(known) = self.known().await? {
            known.may_read(key, range_end)?;
        }
        Ok(())
    }

    /// A known user who may do this with all keys of a lease, or of all leases (as far as this member
    /// has applied them).
    ///
    /// # Errors
    /// As [`Handle::check_login`] and [`Auth::check`].
    pub(super) async fn check_lease(
        &self,
        access: Access,
        lease: Option<LeaseId>,
    ) -> Result<(), Error> {
        let Some(Known { auth, identity }) = self.known().await? else {
            return Ok(());
        };
        if identity == Identity::default() {
            return Err(ApiError::UserEmpty.into());
        }
        if auth.check_admin(&identity).is_ok() {
            return Ok(());
        }
        let check = LeaseCheck {
            identity,
            access,
            lease,
        };
        match self
            .ask(|waiter| Input::CheckLease { check, waiter })
            .await?
        {
            Reply::Done => Ok(()),
            Reply::Failed(error) => Err(error),
            _ => Err(mixed_up()),
        }
    }

    /// Proposes a request of the Auth service: its outcome, and the header of the answer.
    async fn propose_auth(
        &self,
        kind: RequestKind,
        request: pb::InternalRaftRequest,
    ) -> Result<(Option<pb::ResponseHeader>, AuthOutcome), Error> {
        let applied = self.propose(kind, request).await?;
        let Response::Auth(outcome) = applied.result? else {
            return Err(mixed_up());
        };
        Ok((Some(self.header(applied.view.revision)), outcome))
    }

    /// Auth.Authenticate. The password is compared here; the log says who has got a token.
    ///
    /// # Errors
    /// As etcd's.
    pub async fn authenticate(
        &self,
        request: pb::AuthenticateRequest,
    ) -> Result<pb::AuthenticateResponse, Error> {
        let pb::AuthenticateRequest { name, password } = request;
        self.view(false).await?;
        loop {
            let auth = self.inner.published.auth();
            if !auth.enabled() {
                return Err(ApiError::AuthNotEnabled.into());
            }
            let invalid = |error: ApiError| {
                tracing::warn!(user = name, %error, "invalid authentication was requested");
                Error::from(error)
            };
            let hash = match auth.password(&name) {
                None => return Err(invalid(ApiError::AuthFailed)),
                Some(Password::None) => return Err(invalid(ApiError::NoPasswordUser)),
                Some(Password::Hash(hash)) => hash,
            };
            if !self.inner.hashing.matches(password.clone(), hash).await? {
                return Err(invalid(ApiError::AuthFailed));
            }
            let request = pb::InternalRaftRequest {
                authenticate: Some(pb::InternalAuthenticateRequest {
                    name: name.clone(),
                    password: String::new(),
                    simple_token: self.inner.tokens.prefix()?,
                }),
                ..Default::default()
            };
            let (header, outcome) = self
                .propose_auth(RequestKind::Authenticate, request)
                .await?;
            let AuthOutcome::Authenticated {
                user,
                revision,
                token,
            } = outcome
            else {
                return Err(mixed_up());
            };
            let token = self.inner.tokens.issue(&user, revision, token)?;
            // The password that was compared may not have been the user's any more.
            if revision == auth.revision() {
                return Ok(pb::AuthenticateResponse { header, token });
            }
            tracing::info!("revision when password checked became stale; retrying");
        }
    }

    /// Auth.AuthStatus.
    ///
    /// # Errors
    /// As etcd's.
    pub async fn auth_status(
        &self,
        request: pb::AuthStatusRequest,
    ) -> Result<pb::AuthStatusResponse, Error> {
        let request = pb::InternalRaftRequest {
            auth_status: Some(request),
            ..Default::default()
        };
        match self.propose_auth(RequestKind::AuthStatus, request).await? {
            (header, AuthOutcome::Status { enabled, revision }) => Ok(pb::AuthStatusResponse {
                header,
                enabled,
                auth_revision: revision,
            }),
            _ => Err(mixed_up()),
        }
    }

    /// Auth.UserAdd.
    ///
    /// # Errors
    /// As etcd's.
    pub async fn user_add(
        &self,
        mut request: pb::AuthUserAddRequest,
    ) -> Result<pb::AuthUserAddResponse, Error> {
        // Never into the log, needed or not.
        let password = std::mem::take(&mut request.password);
        if !request.options.is_some_and(|options| options.no_password) {
            request.hashed_password = self.hashed(password).await?;
        }
        let request = pb::InternalRaftRequest {
            auth_user_add: Some(request),
            ..Default::default()
        };
        let (header, _) = self.propose_auth(RequestKind::AuthUserAdd, request).await?;
        Ok(pb::AuthUserAddResponse { header })
    }

    /// Auth.UserChangePassword. Without a password, the hash in the request is taken as it is; without
    /// that, too, the user cannot log in any more.
    ///
    /// # Errors
    /// As etcd's.
    pub async fn user_change_password(
        &self,
        mut request: pb::AuthUserChangePasswordRequest,
    ) -> Result<pb::AuthUserChangePasswordResponse, Error> {
        let password = std::mem::take(&mut request.password);
        if !password.is_empty() {
            request.hashed_password = self.hashed(password).await?;
        }
        let request = pb::InternalRaftRequest {
            auth_user_change_password: Some(request),
            ..Default::default()
        };
        let kind = RequestKind::AuthUserChangePassword;
        let (header, _) = self.propose_auth(kind, request).await?;
        Ok(pb::AuthUserChangePasswordResponse { header })
    }

    /// The hash of a password, as it travels in a request.
    async fn hashed(&self, password: String) -> Result<String, Error> {
        let hash = self.inner.hashing.hash(password).await?;
        Ok(STANDARD.encode(hash))
    }

    /// Auth.UserGet.
    ///
    /// # Errors
    /// As etcd's.
    pub async fn user_get(
        &self,
        request: pb::AuthUserGetRequest,
    ) -> Result<pb::AuthUserGetResponse, Error> {
        let request = pb::InternalRaftRequest {
            auth_user_get: Some(request),
            ..Default::default()
        };
        match self.propose_auth(RequestKind::AuthUserGet, request).await? {
            (header, AuthOutcome::User(roles)) => Ok(pb::AuthUserGetResponse { header, roles }),
            _ => Err(mixed_up()),
        }
    }

    /// Auth.UserList.
    ///
    /// # Errors
    /// As etcd's.
    pub async fn user_list(
        &self,
        request: pb::AuthUserListRequest,
    ) -> Result<pb::AuthUserListResponse, Error> {
        let request = pb::InternalRaftRequest {
            auth_user_list: Some(request),
            ..Default::default()
        };
        match self
            .propose_auth(RequestKind::AuthUserList, request)
            .await?
        {
            (header, AuthOutcome::Users(users)) => Ok(pb::AuthUserListResponse { header, users }),
            _ => Err(mixed_up()),
        }
    }

    /// Auth.RoleGet.
    ///
    /// # Errors
    /// As etcd's.
    pub async fn role_get(
        &self,
        request: pb::AuthRoleGetRequest,
    ) -> Result<pb::AuthRoleGetResponse, Error> {
        let request = pb::InternalRaftRequest {
            auth_role_get: Some(request),
            ..Default::default()
        };
        match self.propose_auth(RequestKind::AuthRoleGet, request).await? {
            (header, AuthOutcome::Role(perm)) => Ok(pb::AuthRoleGetResponse { header, perm }),
            _ => Err(mixed_up()),
        }
    }

    /// Auth.RoleList.
    ///
    /// # Errors
    /// As etcd's.
    pub async fn role_list(
        &self,
        request: pb::AuthRoleListRequest,
    ) -> Result<pb::AuthRoleListResponse, Error> {
        let request = pb::InternalRaftRequest {
            auth_role_list: Some(request),
            ..Default::default()
        };
        match self
            .propose_auth(RequestKind::AuthRoleList, request)
            .await?
        {
            (header, AuthOutcome::Roles(roles)) => Ok(pb::AuthRoleListResponse { header, roles }),
            _ => Err(mixed_up()),
        }
    }
}

/// RPCs that are a request of the log and answer nothing but a header.
macro_rules! changes {
    ($($(#[$doc:meta])* $name:ident, $field:ident, $kind:ident: $request:ident => $response:ident;)*) => {
        impl Handle {
            $($(#[$doc])*
            ///
            /// # Errors
            /// As etcd's.
            pub async fn $name(&self, request: pb::$request) -> Result<pb::$response, Error> {
                let request = pb::InternalRaftRequest {
                    $field: Some(request),
                    ..Default::default()
                };
                let (header, _) = self.propose_auth(RequestKind::$kind, request).await?;
                Ok(pb::$response { header })
            })*
        }
    };
}

changes! {
    /// Auth.AuthEnable.
    auth_enable, auth_enable, AuthEnable: AuthEnableRequest => AuthEnableResponse;
    /// Auth.AuthDisable.
    auth_disable, auth_disable, AuthDisable: AuthDisableRequest => AuthDisableResponse;
    /// Auth.UserDelete.
    user_delete, auth_user_delete, AuthUserDelete: AuthUserDeleteRequest => AuthUserDeleteResponse;
    /// Auth.UserGrantRole.
    user_grant_role, auth_user_grant_role, AuthUserGrantRole:
        AuthUserGrantRoleRequest => AuthUserGrantRoleResponse;
    /// Auth.UserRevokeRole.
    user_revoke_role, auth_user_revoke_role, AuthUserRevokeRole:
        AuthUserRevokeRoleRequest => AuthUserRevokeRoleResponse;
    /// Auth.RoleAdd.
    role_add, auth_role_add, AuthRoleAdd: AuthRoleAddRequest => AuthRoleAddResponse;
    /// Auth.RoleDelete.
    role_delete, auth_role_delete, AuthRoleDelete: AuthRoleDeleteRequest => AuthRoleDeleteResponse;
    /// Auth.RoleGrantPermission.
    role_grant_permission, auth_role_grant_permission, AuthRoleGrantPermission:
        AuthRoleGrantPermissionRequest => AuthRoleGrantPermissionResponse;
    /// Auth.RoleRevokePermission.
    role_revoke_permission, auth_role_revoke_permission, AuthRoleRevokePermission:
        AuthRoleRevokePermissionRequest => AuthRoleRevokePermissionResponse;
}
