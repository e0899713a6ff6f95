//! Users and roles as rows of the page file, which are etcd's (spec auth.md section 7).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ferrite_api::pb::authpb;
use prost::Message;

use super::{Auth, FIRST_REVISION, User};
use crate::error::Error;
use crate::page::{Table, TableWrite};

/// The row of the `auth` table that says whether authentication is on: one byte, 0 or 1.
const ENABLED: &[u8] = b"authEnabled";

/// The row of the `auth` table with the revision: 8 bytes, big endian.
const REVISION: &[u8] = b"authRevision";

/// The rows of a table: keys and values.
type Rows = [(Bytes, Bytes)];

impl Auth {
    /// What the rows of the three tables hold. A store without a revision has the first one.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming the row that holds something else.
    pub(crate) fn load(switches: &Rows, users: &Rows, roles: &Rows) -> Result<Self, Error> {
        let mut auth = Self::default();
        for (key, value) in switches {
            match &key[..] {
                ENABLED => {
                    auth.switched = true;
                    auth.enabled = match value[..] {
                        [1] => true,
                        // etcd has nothing in it for a moment.
                        [] | [0] => false,
                        _ => return Err(corrupt(Table::Auth, key, "is neither 0 nor 1")),
                    };
                }
                REVISION => {
                    let bytes = <[u8; 8]>::try_from(&value[..]);
                    let bytes = bytes.map_err(|_| corrupt(Table::Auth, key, "is no number"))?;
                    auth.revision = u64::from_be_bytes(bytes);
                }
                _ => {}
            }
        }
        auth.revision = auth.revision.max(FIRST_REVISION);
        auth.users = read(Table::AuthUsers, users, |user: &authpb::User| &user.name)?
            .into_iter()
            .map(|(name, user)| (name, User::new(user)))
            .collect();
        auth.roles = read(Table::AuthRoles, roles, |role: &authpb::Role| &role.name)?
            .into_iter()
            .map(|(name, role)| (name, Arc::new(role)))
            .collect();
        Ok(auth)
    }

    /// The rows that hold it.
    pub(crate) fn rows(&self) -> impl Iterator<Item = TableWrite> {
        let enabled = self.switched.then(|| enabled_row(self.enabled));
        let users = self.users.values().map(|user| user_row(&user.record));
        let roles = self.roles.values().map(|role| role_row(role));
        let switches = enabled.into_iter().chain([revision_row(self.revision)]);
        switches.chain(users).chain(roles)
    }
}

/// Rows whose key is the name in their message.
fn read<M: Message + Default>(
    table: Table,
    rows: &Rows,
    name: impl Fn(&M) -> &Bytes,
) -> Result<BTreeMap<String, M>, Error> {
    let read = rows.iter().map(|(key, value)| {
        let message = M::decode(value.clone());
        let message = message.map_err(|_| corrupt(table, key, "does not decode"))?;
        if name(&message) != key {
            return Err(corrupt(table, key, "holds another one"));
        }
        let key = std::str::from_utf8(key).map_err(|_| corrupt(table, key, "is no text"))?;
        Ok((key.to_owned(), message))
    });
    read.collect()
}

fn corrupt(table: Table, key: &[u8], what: &str) -> Error {
    let (table, key) = (table.name(), key.escape_ascii());
    Error::Corrupt {
        what: format!("{table} row \"{key}\" {what}"),
    }
}

pub(super) fn enabled_row(enabled: bool) -> TableWrite {
    let value: &[u8] = if enabled { &[1] } else { &[0] };
    let key = Bytes::from_static(ENABLED);
    TableWrite::put(Table::Auth, key, Bytes::from_static(value))
}

pub(super) fn revision_row(revision: u64) -> TableWrite {
    let value = Bytes::copy_from_slice(&revision.to_be_bytes());
    TableWrite::put(Table::Auth, Bytes::from_static(REVISION), value)
}

pub(super) fn user_row(user: &authpb::User) -> TableWrite {
    let value = Bytes::from(user.encode_to_vec());
    TableWrite::put(Table::AuthUsers, user.name.clone(), value)
}

pub(super) fn role_row(role: &authpb::Role) -> TableWrite {
    let value = Bytes::from(role.encode_to_vec());
    TableWrite::put(Table::AuthRoles, role.name.clone(), value)
}
