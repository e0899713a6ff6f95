//! Users, roles and the switch, and who may do what to keys (spec auth.md, validation.md sections 1.4
//! and 9). Every entry is checked with the state right before it, as everybody else checks it.

use std::sync::Arc;

use ferrite_api::Error as ApiError;
use ferrite_api::pb::etcdserverpb::request_op::Request;
use ferrite_api::pb::etcdserverpb::{
    DeleteRangeRequest, InternalAuthenticateRequest, InternalRaftRequest, PutRequest, RequestOp,
    TxnRequest,
};
use ferrite_api::types::LeaseId;

use super::outcome::{AuthOutcome, Response};
use super::tally::Kind;
use super::{Error, Failure};
use crate::auth::{Access, Auth, Identity, Password};
use crate::leases::Leases;
use crate::page::TableWrite;
use crate::state::State;

/// What may be asked of keys, by one who is known.
pub(super) struct Checks<'a> {
    pub(super) auth: &'a Auth,
    pub(super) leases: &'a Leases,
    pub(super) identity: &'a Identity,
}

/// A change of users or roles, as a function of the request that asks for it.
type Change<'a> = &'a mut dyn FnMut(&mut Auth) -> Result<Vec<TableWrite>, ApiError>;

impl State {
    /// Applies a request of the Auth service; `None` if it is none.
    pub(super) fn auth_request(
        &mut self,
        index: u64,
        identity: &Identity,
        request: &InternalRaftRequest,
    ) -> Option<(Kind, Result<Response, Failure>)> {
        let admin = |state: &Self| state.auth().check_admin(identity);
        let mut change = |kind, outcome, change: Change<'_>| {
            let result = admin(self).and_then(|()| self.change_auth(change));
            let response = result.map(|()| Response::Auth(outcome));
            Some((kind, response.map_err(Failure::from)))
        };
        let done = AuthOutcome::Done;
        if request.auth_enable.is_some() {
            let enabled = AuthOutcome::Enabled;
            return change(Kind::AuthEnable, enabled, &mut |auth| auth.enable());
        }
        if request.auth_disable.is_some() {
            let disabled = AuthOutcome::Disabled;
            return change(Kind::AuthDisable, disabled, &mut |auth| Ok(auth.disable()));
        }
        if let Some(add) = &request.auth_user_add {
            if let Err(failure) = expect_hash(index, &add.password, &add.hashed_password) {
                return Some((Kind::AuthUserAdd, Err(failure)));
            }
            return change(Kind::AuthUserAdd, done, &mut |auth| auth.user_add(add));
        }
        if let Some(delete) = &request.auth_user_delete {
            let gone = AuthOutcome::TokensEnd(delete.name.clone());
            return change(Kind::AuthUserDelete, gone, &mut |auth| {
                auth.user_delete(&delete.name)
            });
        }
        if let Some(set) = &request.auth_user_change_password {
            if let Err(failure) = expect_hash(index, &set.password, &set.hashed_password) {
                return Some((Kind::AuthUserChangePassword, Err(failure)));
            }
            let changed = AuthOutcome::TokensEnd(set.name.clone());
            return change(Kind::AuthUserChangePassword, changed, &mut |auth| {
                auth.user_change_password(set)
            });
        }
        if let Some(grant) = &request.auth_user_grant_role {
            return change(Kind::AuthUserGrantRole, done, &mut |auth| {
                auth.user_grant_role(&grant.user, &grant.role)
            });
        }
        if let Some(revoke) = &request.auth_user_revoke_role {
            return change(Kind::AuthUserRevokeRole, done, &mut |auth| {
                auth.user_revoke_role(&revoke.name, &revoke.role)
            });
        }
        if let Some(add) = &request.auth_role_add {
            return change(Kind::AuthRoleAdd, done, &mut |auth| {
                auth.role_add(&add.name)
            });
        }
        if let Some(delete) = &request.auth_role_delete {
            return change(Kind::AuthRoleDelete, done, &mut |auth| {
                auth.role_delete(&delete.role)
            });
        }
        if let Some(grant) = &request.auth_role_grant_permission {
            return change(Kind::AuthRoleGrantPermission, done, &mut |auth| {
                auth.role_grant_permission(grant)
            });
        }
        if let Some(revoke) = &request.auth_role_revoke_permission {
            return change(Kind::AuthRoleRevokePermission, done, &mut |auth| {
                auth.role_revoke_permission(revoke)
            });
        }
        let (kind, outcome) = self.auth_question(index, identity, request)?;
        let response = outcome.map(Response::Auth).map_err(Failure::from);
        Some((kind, response))
    }

    /// Requests that change nothing. They are in the log so that their answer is as of a moment that
    /// everybody agrees on.
    fn auth_question(
        &self,
        index: u64,
        identity: &Identity,
        request: &InternalRaftRequest,
    ) -> Option<(Kind, Result<AuthOutcome, ApiError>)> {
        let auth = self.auth();
        let admin = || auth.check_admin(identity);
        let owned = |name: &str| name.to_owned();
        Some(if request.auth_status.is_some() {
            let status = AuthOutcome::Status {
                enabled: auth.enabled(),
                revision: auth.revision(),
            };
            (Kind::AuthStatus, Ok(status))
        } else if let Some(authenticate) = &request.authenticate {
            let outcome = authenticated(auth, index, authenticate);
            (Kind::Authenticate, outcome)
        } else if let Some(get) = &request.auth_user_get {
            let roles = auth.user_get(identity, &get.name);
            (Kind::AuthUserGet, roles.map(AuthOutcome::User))
        } else if let Some(get) = &request.auth_role_get {
            let permissions = auth.role_get(identity, &get.role);
            (Kind::AuthRoleGet, permissions.map(AuthOutcome::Role))
        } else if request.auth_user_list.is_some() {
            let users = admin().map(|()| auth.users().map(owned).collect());
            (Kind::AuthUserList, users.map(AuthOutcome::Users))
        } else if request.auth_role_list.is_some() {
            let roles = admin().map(|()| auth.roles().map(owned).collect());
            (Kind::AuthRoleList, roles.map(AuthOutcome::Roles))
        } else {
            return None;
        })
    }

    fn change_auth(&mut self, change: Change<'_>) -> Result<(), ApiError> {
        let rows = change(Arc::make_mut(self.auth_mut()))?;
        self.checkpoint.tables.extend(rows);
        Ok(())
    }

    /// The checks for who has proposed an entry.
    pub(super) fn checks<'a>(&'a self, identity: &'a Identity) -> Checks<'a> {
        Checks {
            auth: self.auth(),
            leases: self.leases(),
            identity,
        }
    }
}

/// The password was checked before; what may have changed since is looked at again.
fn authenticated(
    auth: &Auth,
    index: u64,
    request: &InternalAuthenticateRequest,
) -> Result<AuthOutcome, ApiError> {
    if !auth.enabled() {
        return Err(ApiError::AuthNotEnabled);
    }
    match auth.password(&request.name) {
        None | Some(Password::None) => Err(ApiError::AuthFailed),
        Some(Password::Hash(_)) => Ok(AuthOutcome::Authenticated {
            user: request.name.clone(),
            revision: auth.revision(),
            token: format!("{}.{index}", request.simple_token),
        }),
    }
}

/// Members before 3.5 left the password in the entry, to be hashed by each member with a salt of its own.
fn expect_hash(index: u64, password: &str, hashed: &str) -> Result<(), Failure> {
    if password.is_empty() || !hashed.is_empty() {
        return Ok(());
    }
    let why = "carries a password that is not hashed, as those of 3.4 and before".to_owned();
    Err(Failure::Fatal(Error::Entry { index, why }))
}

/// The checks of a transaction that only reads, and so is not in the log.
///
/// # Errors
/// As [`Auth::check`].
pub fn check_read_only(
    auth: &Auth,
    identity: &Identity,
    request: &TxnRequest,
) -> Result<(), ApiError> {
    let checks = Checks {
        auth,
        // It attaches no key.
        leases: &Leases::default(),
        identity,
    };
    checks.txn(request)
}

impl State {
    /// Whether all keys of a lease may be read, or written.
    ///
    /// # Errors
    /// As [`Auth::check`].
    pub fn check_lease(
        &self,
        identity: &Identity,
        access: Access,
        id: LeaseId,
    ) -> Result<(), ApiError> {
        self.checks(identity).lease_keys(access, id)
    }

    /// Whether the keys of all leases may be read, or written.
    ///
    /// # Errors
    /// As [`Auth::check`].
    pub fn check_leases(&self, identity: &Identity, access: Access) -> Result<(), ApiError> {
        let mut leases = self.leases().iter();
        leases.try_for_each(|(id, _)| self.check_lease(identity, access, id))
    }
}

impl Checks<'_> {
    fn key(&self, access: Access, key: &[u8], range_end: &[u8]) -> Result<(), ApiError> {
        self.auth.check(self.identity, access, key, range_end)
    }

    pub(super) fn put(&self, request: &PutRequest) -> Result<(), ApiError> {
        self.key(Access::Write, &request.key, &[])?;
        // Who cannot end a lease shall not put more keys under it.
        self.lease(LeaseId::new(request.lease))?;
        match request.prev_kv {
            true => self.key(Access::Read, &request.key, &[]),
            false => Ok(()),
        }
    }

    pub(super) fn delete_range(&self, request: &DeleteRangeRequest) -> Result<(), ApiError> {
        self.key(Access::Write, &request.key, &request.range_end)?;
        match request.prev_kv {
            true => self.key(Access::Read, &request.key, &request.range_end),
            false => Ok(()),
        }
    }

    /// All keys of a lease may be written; one that does not exist has none.
    pub(super) fn lease(&self, id: LeaseId) -> Result<(), ApiError> {
        self.lease_keys(Access::Write, id)
    }

    pub(super) fn lease_keys(&self, access: Access, id: LeaseId) -> Result<(), ApiError> {
        if self.auth.check_admin(self.identity).is_ok() || self.leases.get(id).is_none() {
            return Ok(());
        }
        let mut keys = self.leases.keys(id);
        keys.try_for_each(|key| self.key(access, key, &[]))
    }

    /// Both branches, whichever is taken.
    pub(super) fn txn(&self, request: &TxnRequest) -> Result<(), ApiError> {
        if !self.auth.enabled() {
            return Ok(());
        }
        for compare in &request.compare {
            self.key(Access::Read, &compare.key, &compare.range_end)?;
        }
        let mut ops = request.success.iter().chain(&request.failure);
        ops.try_for_each(|op| self.op(op))
    }

    fn op(&self, op: &RequestOp) -> Result<(), ApiError> {
        match &op.request {
            Some(Request::RequestRange(range)) => {
                self.key(Access::Read, &range.key, &range.range_end)
            }
            Some(Request::RequestPut(put)) => self.put(put),
            Some(Request::RequestDeleteRange(delete)) => {
                // The other way round than alone; so it is in etcd.
                if delete.prev_kv {
                    self.key(Access::Read, &delete.key, &delete.range_end)?;
                }
                self.key(Access::Write, &delete.key, &delete.range_end)
            }
            Some(Request::RequestTxn(txn)) => self.txn(txn),
            None => Ok(()),
        }
    }
}
