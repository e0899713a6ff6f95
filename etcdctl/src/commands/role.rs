//! `role add`, `delete`, `get`, `list`, `grant-permission` and `revoke-permission`.

use ferrite_client::{PermissionType, prefix_end};

use super::user::texts;
use crate::cli::{Matches, Text};
use crate::context::Context;
use crate::failure::Failure;
use crate::session::Session;

pub(crate) fn add(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let [role] = texts(
        matches,
        "role add command requires role name as its argument",
    )?;
    let session = Session::open(context, matches)?;
    let response = session.run(session.client()?.auth().role_add(&role))?;
    let line = format!("Role {role} created");
    session.printer.auth(context, &line, &response.header)
}

pub(crate) fn delete(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let [role] = texts(
        matches,
        "role delete command requires role name as its argument",
    )?;
    let session = Session::open(context, matches)?;
    let response = session.run(session.client()?.auth().role_delete(&role))?;
    let line = format!("Role {role} deleted");
    session.printer.auth(context, &line, &response.header)
}

pub(crate) fn get(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let [role] = texts(
        matches,
        "role get command requires role name as its argument",
    )?;
    let session = Session::open(context, matches)?;
    let response = session.run(session.client()?.auth().role_get(&role))?;
    session.printer.role_get(context, &role, &response)
}

pub(crate) fn list(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let [] = texts(matches, "role list command requires no arguments")?;
    let session = Session::open(context, matches)?;
    let response = session.run(session.client()?.auth().role_list())?;
    session.printer.role_list(context, &response)
}

pub(crate) fn grant_permission(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let [role, kind, range @ ..] = matches.args.as_slice() else {
        return Err(Failure::bad_args(GRANT_NEEDS));
    };
    if range.is_empty() {
        return Err(Failure::bad_args(GRANT_NEEDS));
    }
    let (role, kind) = (String::from_utf8_lossy(role), String::from_utf8_lossy(kind));
    let kind: PermissionType = kind.parse().map_err(Failure::bad_args)?;
    let (key, range_end) = self::range(matches, range)?;
    let session = Session::open(context, matches)?;
    let auth = session.client()?.auth();
    let granted = auth.role_grant_permission(role.as_ref(), kind, key, range_end);
    let response = session.run(granted)?;
    let line = format!("Role {role} updated");
    session.printer.auth(context, &line, &response.header)
}

const GRANT_NEEDS: &str =
    "role grant command requires role name, permission type, and key [endkey] as its argument";

pub(crate) fn revoke_permission(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let (role, range) = match matches.args.as_slice() {
        [role, range @ ..] if !range.is_empty() => (String::from_utf8_lossy(role), range),
        _ => {
            return Err(Failure::bad_args(
                "role revoke-permission command requires role name and key [endkey] as its argument",
            ));
        }
    };
    let (key, range_end) = self::range(matches, range)?;
    let session = Session::open(context, matches)?;
    let auth = session.client()?.auth();
    let revoked = auth.role_revoke_permission(role.as_ref(), key, range_end.clone());
    let response = session.run(revoked)?;
    // The key as it was given: without one, nothing.
    let key = String::from_utf8_lossy(&range[0]);
    let end = String::from_utf8_lossy(&range_end);
    let line = match &*end {
        "" => format!("Permission of key {key} is revoked from role {role}"),
        "\0" => format!("Permission of range [{key}, <open ended> is revoked from role {role}"),
        end => format!("Permission of range [{key}, {end}) is revoked from role {role}"),
    };
    session.printer.auth(context, &line, &response.header)
}

/// Key and range end of a permission.
fn range(matches: &Matches, args: &[Text]) -> Result<(Vec<u8>, Vec<u8>), Failure> {
    let prefix = matches.flags.switch("prefix");
    let from_key = matches.flags.switch("from-key");
    let exclusive = "--from-key and --prefix flags are mutually exclusive";
    let key = args[0].clone();
    if key.is_empty() {
        if prefix && from_key {
            return Err(Failure::bad_args(exclusive));
        }
        // The first of all keys; everything, if it is to be more than one.
        let all = prefix || from_key;
        return Ok((vec![0], if all { vec![0] } else { Vec::new() }));
    }
    let range_end = match (args, prefix, from_key) {
        ([_], true, true) => return Err(Failure::bad_args(exclusive)),
        ([_], true, false) => prefix_end(&key).to_vec(),
        ([_], false, true) => vec![0],
        ([_], false, false) => Vec::new(),
        (_, true, _) => {
            let message = "unexpected endkey argument with --prefix flag";
            return Err(Failure::bad_args(message));
        }
        (_, false, true) => {
            let message = "unexpected endkey argument with --from-key flag";
            return Err(Failure::bad_args(message));
        }
        ([_, end, ..], false, false) => end.clone(),
        ([], ..) => Vec::new(),
    };
    Ok((key, range_end))
}
