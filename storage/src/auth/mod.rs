//! Users, roles, and what they may do: replicated state (spec auth.md).
//!
//! [`Auth`] is a value: apply changes its own, readers hold the one that was published, and every check
//! is a question to one of them. So a check has the same verdict on every member that has applied the
//! same entries. Nothing here hashes a password, makes a token or knows how much time has passed: those
//! are the business of the member that is asked.
//!
//! Invariants:
//! * The revision counts the changes (switching authentication on is none); the first is 1.
//! * It holds what its rows hold, row by row; equal rows are equal states.
//! * The merged permissions of a user are those of the roles as they are: a change makes them anew.

mod change;
mod permissions;
mod rows;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use ferrite_api::Error as ApiError;
use ferrite_api::pb::authpb;
use ferrite_api::pb::etcdserverpb::RequestHeader;

use crate::page::TableWrite;
pub use permissions::Access;
use permissions::Permissions;

/// The user that must be there, with the role [`ROOT`], while authentication is on.
pub const ROOT: &str = "root";

/// The first auth revision.
const FIRST_REVISION: u64 = 1;

/// Who asks, as it stands in the header of a log entry. The default is nobody.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Identity {
    /// The user; empty for nobody.
    pub user: String,
    /// The auth revision as of which it was established who it is; 0 for nobody.
    pub revision: u64,
}

impl Identity {
    /// Who has proposed an entry.
    pub fn of(header: Option<&RequestHeader>) -> Self {
        header.map_or_else(Self::default, |header| Self {
            user: header.username.clone(),
            revision: header.auth_revision,
        })
    }
}

/// A user.
#[derive(Clone, Debug)]
struct User {
    record: authpb::User,
    /// What its roles permit together; found out when it is first asked for.
    permissions: OnceLock<Permissions>,
}

impl User {
    fn new(record: authpb::User) -> Arc<Self> {
        Arc::new(Self {
            record,
            permissions: OnceLock::new(),
        })
    }

    fn has_role(&self, role: &str) -> bool {
        self.record.roles.iter().any(|has| has == role)
    }
}

/// The password of a user.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// Its bcrypt hash. May be empty: then no password is the right one.
    Hash(Vec<u8>),
    /// It has none, and is known by a certificate only.
    None,
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hash(_) => "Hash(..)",
            Self::None => "None",
        })
    }
}

/// Users, roles, and whether they count.
#[derive(Clone, Default)]
pub struct Auth {
    enabled: bool,
    /// Whether it was ever switched on: then there is a row that says how it stands.
    switched: bool,
    revision: u64,
    users: BTreeMap<String, Arc<User>>,
    roles: BTreeMap<String, Arc<authpb::Role>>,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No hash of a password in any log.
        f.debug_struct("Auth")
            .field("enabled", &self.enabled)
            .field("revision", &self.revision)
            .field("users", &self.users.len())
            .field("roles", &self.roles.len())
            .finish()
    }
}

impl Auth {
    /// Whether authentication is on.
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// How often users, roles or the switch have changed, and 1.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The password of a user; `None` if there is no such user.
    pub fn password(&self, user: &str) -> Option<Password> {
        let record = &self.users.get(user)?.record;
        let no_password = record.options.is_some_and(|options| options.no_password);
        Some(match no_password {
            true => Password::None,
            false => Password::Hash(record.password.to_vec()),
        })
    }

    /// Whether this is somebody who may do everything.
    ///
    /// # Errors
    /// `UserEmpty`, `UserNotFound`, `PermissionDenied`, in this order. None while authentication is off.
    pub fn check_admin(&self, identity: &Identity) -> Result<(), ApiError> {
        if !self.enabled {
            return Ok(());
        }
        if identity.user.is_empty() {
            return Err(ApiError::UserEmpty);
        }
        let user = self.users.get(&identity.user);
        match user.ok_or(ApiError::UserNotFound)?.has_role(ROOT) {
            true => Ok(()),
            false => Err(ApiError::PermissionDenied),
        }
    }

    /// Whether this is somebody who may do this with all keys of a range (spec validation.md section
    /// 1.4). `range_end` is that of a request: empty for one key, one zero byte for an open end.
    ///
    /// # Errors
    /// `UserEmpty`, `AuthOldRevision`, `PermissionDenied`, in this order. None while authentication is off.
    pub fn check(
        &self,
        identity: &Identity,
        access: Access,
        key: &[u8],
        range_end: &[u8],
    ) -> Result<(), ApiError> {
        if !self.enabled {
            return Ok(());
        }
        if identity.revision == 0 {
            return Err(ApiError::UserEmpty);
        }
        if identity.revision < self.revision {
            return Err(ApiError::AuthOldRevision);
        }
        let user = self.users.get(&identity.user);
        let user = user.ok_or(ApiError::PermissionDenied)?;
        if user.has_role(ROOT) || self.permissions(user).permits(access, key, range_end) {
            return Ok(());
        }
        Err(ApiError::PermissionDenied)
    }

    /// Whether a user has a role.
    fn has_role(&self, user: &str, role: &str) -> bool {
        self.users.get(user).is_some_and(|user| user.has_role(role))
    }

    /// The roles of a user, if `identity` may know them: its own, or those of anybody for a root.
    ///
    /// # Errors
    /// As [`Auth::check_admin`]; `UserNotFound`.
    pub(crate) fn user_get(
        &self,
        identity: &Identity,
        name: &str,
    ) -> Result<Vec<String>, ApiError> {
        if let Err(error) = self.check_admin(identity)
            && identity.user != name
        {
            return Err(error);
        }
        let user = self.users.get(name).ok_or(ApiError::UserNotFound)?;
        Ok(user.record.roles.clone())
    }

    /// The permissions of a role, if `identity` may know them: of one that it has, or of any for a root.
    ///
    /// # Errors
    /// As [`Auth::check_admin`]; `RoleNotFound`.
    pub(crate) fn role_get(
        &self,
        identity: &Identity,
        name: &str,
    ) -> Result<Vec<authpb::Permission>, ApiError> {
        if let Err(error) = self.check_admin(identity)
            && !self.has_role(&identity.user, name)
        {
            return Err(error);
        }
        let role = self.roles.get(name).ok_or(ApiError::RoleNotFound)?;
        Ok(match name {
            // Whatever was granted to it.
            ROOT => vec![authpb::Permission {
                perm_type: authpb::permission::Type::Readwrite as i32,
                key: Bytes::new(),
                range_end: Bytes::from_static(&[0]),
            }],
            _ => role.key_permission.clone(),
        })
    }

    /// The names of all users, in order.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        self.users.keys().map(String::as_str)
    }

    /// The names of all roles, in order.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.roles.keys().map(String::as_str)
    }

    /// Gives keys and values of all rows that hold it, in an order of their own: equal states give the same.
    pub fn for_each_row(&self, give: &mut dyn FnMut(&[u8])) {
        for row in self.rows() {
            if let TableWrite::Put { key, value, .. } = row {
                give(&key);
                give(&value);
            }
        }
    }

    fn permissions<'a>(&self, user: &'a User) -> &'a Permissions {
        user.permissions.get_or_init(|| {
            let roles = user.record.roles.iter();
            let roles = roles.filter_map(|role| self.roles.get(role));
            Permissions::merged(roles.flat_map(|role| &role.key_permission))
        })
    }
}
