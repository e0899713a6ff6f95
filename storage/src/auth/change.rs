//! Changes of users and roles (spec auth.md section 2): each is carried out as a whole or refused, and
//! says which rows it has changed.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ferrite_api::Error as ApiError;
use ferrite_api::pb::authpb;
use ferrite_api::pb::etcdserverpb::{
    AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, AuthUserAddRequest,
    AuthUserChangePasswordRequest,
};

use super::rows::{enabled_row, revision_row, role_row, user_row};
use super::{Auth, ROOT, User, permissions};
use crate::page::{Table, TableWrite};

/// The rows that a change has changed; none if it was not necessary.
type Changed = Result<Vec<TableWrite>, ApiError>;

impl Auth {
    /// Switches authentication on. That is not counted as a change.
    pub(crate) fn enable(&mut self) -> Changed {
        if self.enabled {
            return Ok(Vec::new());
        }
        let root = self.users.get(ROOT).ok_or(ApiError::RootUserNotExist)?;
        if !root.has_role(ROOT) {
            return Err(ApiError::RootRoleNotExist);
        }
        (self.enabled, self.switched) = (true, true);
        Ok(vec![enabled_row(true)])
    }

    /// Switches authentication off.
    pub(crate) fn disable(&mut self) -> Vec<TableWrite> {
        if !self.enabled {
            return Vec::new();
        }
        self.enabled = false;
        self.counted([enabled_row(false)])
    }

    pub(crate) fn user_add(&mut self, request: &AuthUserAddRequest) -> Changed {
        if request.name.is_empty() {
            return Err(ApiError::UserEmpty);
        }
        if self.users.contains_key(&request.name) {
            return Err(ApiError::UserAlreadyExist);
        }
        let options = request.options.unwrap_or_default();
        let password = match options.no_password {
            true => Bytes::new(),
            false => hash(&request.hashed_password)?,
        };
        let row = self.put_user(authpb::User {
            name: Bytes::from(request.name.clone()),
            password,
            roles: Vec::new(),
            options: Some(options),
        });
        Ok(self.counted([row]))
    }

    pub(crate) fn user_delete(&mut self, name: &str) -> Changed {
        if self.enabled && name == ROOT {
            return Err(ApiError::InvalidAuthMgmt);
        }
        let user = self.users.remove(name).ok_or(ApiError::UserNotFound)?;
        let row = TableWrite::delete(Table::AuthUsers, user.record.name.clone());
        Ok(self.counted([row]))
    }

    pub(crate) fn user_change_password(
        &mut self,
        request: &AuthUserChangePasswordRequest,
    ) -> Changed {
        let mut user = self.user(&request.name)?;
        let no_password = user.options.is_some_and(|options| options.no_password);
        user.password = match no_password {
            true => Bytes::new(),
            false => hash(&request.hashed_password)?,
        };
        let row = self.put_user(user);
        Ok(self.counted([row]))
    }

    /// Granting what is granted already is no change.
    pub(crate) fn user_grant_role(&mut self, name: &str, role: &str) -> Changed {
        let mut user = self.user(name)?;
        // The role that may do everything need not be there.
        if role != ROOT && !self.roles.contains_key(role) {
            return Err(ApiError::RoleNotFound);
        }
        if user.roles.iter().any(|has| has == role) {
            return Ok(Vec::new());
        }
        user.roles.push(role.to_owned());
        user.roles.sort_unstable();
        let row = self.put_user(user);
        Ok(self.counted([row]))
    }

    pub(crate) fn user_revoke_role(&mut self, name: &str, role: &str) -> Changed {
        if self.enabled && name == ROOT && role == ROOT {
            return Err(ApiError::InvalidAuthMgmt);
        }
        let mut user = self.user(name)?;
        let before = user.roles.len();
        user.roles.retain(|has| has != role);
        if user.roles.len() == before {
            return Err(ApiError::RoleNotGranted);
        }
        let row = self.put_user(user);
        Ok(self.counted([row]))
    }

    pub(crate) fn role_add(&mut self, name: &str) -> Changed {
        if name.is_empty() {
            return Err(ApiError::RoleEmpty);
        }
        if self.roles.contains_key(name) {
            return Err(ApiError::RoleAlreadyExist);
        }
        let row = self.put_role(authpb::Role {
            name: Bytes::from(name.to_owned()),
            key_permission: Vec::new(),
        });
        Ok(self.counted([row]))
    }

    /// Deletes a role, and takes it from everybody who has it.
    pub(crate) fn role_delete(&mut self, name: &str) -> Changed {
        if self.enabled && name == ROOT {
            return Err(ApiError::InvalidAuthMgmt);
        }
        let role = self.roles.remove(name).ok_or(ApiError::RoleNotFound)?;
        let mut rows = vec![TableWrite::delete(Table::AuthRoles, role.name.clone())];
        let having = self.users.values().filter(|user| user.has_role(name));
        let mut having: Vec<authpb::User> = having.map(|user| user.record.clone()).collect();
        for user in &mut having {
            user.roles.retain(|has| has != name);
        }
        rows.extend(having.into_iter().map(|user| self.put_user(user)));
        Ok(self.counted(rows))
    }

    pub(crate) fn role_grant_permission(
        &mut self,
        request: &AuthRoleGrantPermissionRequest,
    ) -> Changed {
        let given = request.perm.as_ref();
        let given = given.ok_or(ApiError::PermissionNotGiven)?;
        if !permissions::is_valid(&given.key, &given.range_end) {
            return Err(ApiError::InvalidAuthMgmt);
        }
        let mut role = self.role(&request.name)?;
        let has = &mut role.key_permission;
        let at = has.partition_point(|permission| permission.key < given.key);
        match has.get_mut(at) {
            // Only the first of this key is looked at, as in etcd: so a range can be there twice.
            Some(same) if same.key == given.key && same.range_end == given.range_end => {
                same.perm_type = given.perm_type;
            }
            _ => {
                has.push(authpb::Permission {
                    perm_type: given.perm_type,
                    // Copied: slices would keep the entry that they came in.
                    key: Bytes::copy_from_slice(&given.key),
                    range_end: Bytes::copy_from_slice(&given.range_end),
                });
                has.sort_by(|a, b| a.key.cmp(&b.key));
            }
        }
        let row = self.put_role(role);
        Ok(self.counted([row]))
    }

    pub(crate) fn role_revoke_permission(
        &mut self,
        request: &AuthRoleRevokePermissionRequest,
    ) -> Changed {
        let mut role = self.role(&request.role)?;
        let before = role.key_permission.len();
        role.key_permission.retain(|permission| {
            permission.key != request.key || permission.range_end != request.range_end
        });
        if role.key_permission.len() == before {
            return Err(ApiError::PermissionNotGranted);
        }
        let row = self.put_role(role);
        Ok(self.counted([row]))
    }

    /// A copy to change.
    fn user(&self, name: &str) -> Result<authpb::User, ApiError> {
        let user = self.users.get(name).ok_or(ApiError::UserNotFound)?;
        Ok(user.record.clone())
    }

    /// A copy to change.
    fn role(&self, name: &str) -> Result<authpb::Role, ApiError> {
        let role = self.roles.get(name).ok_or(ApiError::RoleNotFound)?;
        Ok(authpb::Role::clone(role))
    }

    fn put_user(&mut self, user: authpb::User) -> TableWrite {
        let row = user_row(&user);
        let name = String::from_utf8_lossy(&user.name).into_owned();
        self.users.insert(name, User::new(user));
        row
    }

    /// Whoever has the role has other permissions now.
    fn put_role(&mut self, role: authpb::Role) -> TableWrite {
        let row = role_row(&role);
        let name = String::from_utf8_lossy(&role.name).into_owned();
        for user in self.users.values_mut() {
            if user.has_role(&name) {
                *user = User::new(user.record.clone());
            }
        }
        self.roles.insert(name, Arc::new(role));
        row
    }

    fn counted(&mut self, rows: impl IntoIterator<Item = TableWrite>) -> Vec<TableWrite> {
        self.revision += 1;
        let revision = [revision_row(self.revision)];
        rows.into_iter().chain(revision).collect()
    }
}

/// The hash of a password, as it travels in a request.
fn hash(text: &str) -> Result<Bytes, ApiError> {
    let hash = STANDARD.decode(text);
    hash.map(Bytes::from).map_err(|_| ApiError::NoPasswordUser)
}
