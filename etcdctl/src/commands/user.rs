//! `user add`, `delete`, `get`, `list`, `passwd`, `grant-role` and `revoke-role`.

use std::io::BufRead;

use crate::cli::Matches;
use crate::context::Context;
use crate::failure::Failure;
use crate::session::Session;

/// The arguments as text, if there are so many.
pub(super) fn texts<const N: usize>(
    matches: &Matches,
    message: &str,
) -> Result<[String; N], Failure> {
    let texts = matches.args.iter();
    let texts: Vec<String> = texts
        .map(|text| String::from_utf8_lossy(text).into_owned())
        .collect();
    texts.try_into().map_err(|_| Failure::bad_args(message))
}

pub(crate) fn add(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let [name] = texts(
        matches,
        "user add command requires user name as its argument",
    )?;
    let given = matches.flags.text("new-user-password");
    let (name, password) = if matches.flags.switch("no-password") {
        (name, None)
    } else if !given.is_empty() {
        (name, Some(given))
    } else if let Some((name, password)) = name.split_once(':') {
        if name.is_empty() {
            return Err(Failure::bad_args("empty user name is not allowed"));
        }
        (name.to_owned(), Some(password.to_owned()))
    } else {
        let password = new_password(context, matches, &name)?;
        (name, Some(password))
    };
    let session = Session::open(context, matches)?;
    let auth = session.client()?.auth();
    let response = session.run(async {
        match password {
            Some(password) => auth.user_add(&name, password).await,
            None => auth.user_add_without_password(&name).await,
        }
    })?;
    let line = format!("User {name} created");
    session.printer.auth(context, &line, &response.header)
}

pub(crate) fn delete(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let [name] = texts(
        matches,
        "user delete command requires user name as its argument",
    )?;
    let session = Session::open(context, matches)?;
    let response = session.run(session.client()?.auth().user_delete(&name))?;
    let line = format!("User {name} deleted");
    session.printer.auth(context, &line, &response.header)
}

pub(crate) fn get(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let [name] = texts(
        matches,
        "user get command requires user name as its argument",
    )?;
    let session = Session::open(context, matches)?;
    let auth = session.client()?.auth();
    let response = session.run(auth.user_get(&name))?;
    if !matches.flags.switch("detail") {
        return session.printer.user_get(context, &name, &response);
    }
    writeln!(context.out(), "User: {name}")?;
    for role in &response.roles {
        writeln!(context.out())?;
        let response = session.run(auth.role_get(role))?;
        session.printer.role_get(context, role, &response)?;
    }
    Ok(())
}

pub(crate) fn list(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let [] = texts(matches, "user list command requires no arguments")?;
    let session = Session::open(context, matches)?;
    let response = session.run(session.client()?.auth().user_list())?;
    session.printer.user_list(context, &response)
}

pub(crate) fn passwd(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let [name] = texts(
        matches,
        "user passwd command requires user name as its argument",
    )?;
    let password = new_password(context, matches, &name)?;
    let session = Session::open(context, matches)?;
    let auth = session.client()?.auth();
    let response = session.run(auth.user_change_password(name, password))?;
    session
        .printer
        .auth(context, "Password updated", &response.header)
}

pub(crate) fn grant_role(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let message = "user grant command requires user name and role name as its argument";
    let [user, role] = texts(matches, message)?;
    let session = Session::open(context, matches)?;
    let response = session.run(session.client()?.auth().user_grant_role(&user, &role))?;
    let line = format!("Role {role} is granted to user {user}");
    session.printer.auth(context, &line, &response.header)
}

pub(crate) fn revoke_role(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let message = "user revoke-role requires user name and role name as its argument";
    let [user, role] = texts(matches, message)?;
    let session = Session::open(context, matches)?;
    let response = session.run(session.client()?.auth().user_revoke_role(&user, &role))?;
    let line = format!("Role {role} is revoked from user {user}");
    session.printer.auth(context, &line, &response.header)
}

/// A new password: asked for twice, or the first word of the input.
fn new_password(context: &mut Context, matches: &Matches, name: &str) -> Result<String, Failure> {
    if !matches.flags.switch("interactive") {
        return first_word(&mut *context.stdin);
    }
    let password = context.ask_secretly(&format!("Password of {name}: "))?;
    if password.is_empty() {
        return Err(Failure::bad_args("empty password"));
    }
    let again = format!("Type password of {name} again for confirmation: ");
    match context.ask_secretly(&again)? == password {
        true => Ok(password),
        false => Err(Failure::bad_args("given passwords are different")),
    }
}

/// The first word of the first line; empty if there is none, as with Go's `Scanf`.
fn first_word(input: &mut dyn BufRead) -> Result<String, Failure> {
    let mut line = Vec::new();
    input.read_until(b'\n', &mut line)?;
    let line = String::from_utf8_lossy(&line);
    let word = line.split_whitespace().next();
    Ok(word.unwrap_or_default().to_owned())
}
