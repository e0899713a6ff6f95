//! `auth enable`, `auth disable` and `auth status`.

use ferrite_client::EtcdError;

use crate::cli::Matches;
use crate::context::Context;
use crate::failure::Failure;
use crate::session::{Session, Timeout};

pub(crate) fn enable(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    no_arguments(matches, "auth enable command does not accept any arguments")?;
    let deadline = Timeout::of(&matches.flags).deadline();
    let session = Session::open(context, matches)?;
    let auth = session.client()?.with_deadline(deadline).auth();
    session.run(async {
        let mut enabled = auth.enable().await;
        if let Err(error) = &enabled
            && error.etcd() == Some(EtcdError::RootRoleNotExist)
        {
            auth.role_add("root").await?;
            auth.user_grant_role("root", "root").await?;
            enabled = auth.enable().await;
        }
        enabled
    })?;
    writeln!(context.out(), "Authentication Enabled")?;
    Ok(())
}

pub(crate) fn disable(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    no_arguments(
        matches,
        "auth disable command does not accept any arguments",
    )?;
    let deadline = Timeout::of(&matches.flags).deadline();
    let session = Session::open(context, matches)?;
    let auth = session.client()?.with_deadline(deadline).auth();
    session.run(auth.disable())?;
    writeln!(context.out(), "Authentication Disabled")?;
    Ok(())
}

pub(crate) fn status(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    no_arguments(matches, "auth status command does not accept any arguments")?;
    let deadline = Timeout::of(&matches.flags).deadline();
    let session = Session::open(context, matches)?;
    let auth = session.client()?.with_deadline(deadline).auth();
    let response = session.run(auth.status())?;
    session.printer.auth_status(context, &response)
}

fn no_arguments(matches: &Matches, message: &str) -> Result<(), Failure> {
    match matches.args.is_empty() {
        true => Ok(()),
        false => Err(Failure::bad_args(message)),
    }
}
