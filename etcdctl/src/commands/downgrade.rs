//! `downgrade validate`, `enable`, `cancel`.

use ferrite_client::DowngradeAction;

use crate::cli::Matches;
use crate::context::Context;
use crate::failure::Failure;
use crate::session::{Session, Timeout};

pub(crate) fn validate(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let target = target(matches)?;
    run(context, matches, DowngradeAction::Validate, target)
}

pub(crate) fn enable(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let target = target(matches)?;
    run(context, matches, DowngradeAction::Enable, target)
}

pub(crate) fn cancel(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    run(context, matches, DowngradeAction::Cancel, String::new())
}

fn target(matches: &Matches) -> Result<String, Failure> {
    match matches.args.as_slice() {
        [] => Err(Failure::bad_args("TARGET_VERSION not provided")),
        [target] if target.is_empty() => Err(Failure::bad_args("target version not provided")),
        [target] => Ok(String::from_utf8_lossy(target).into_owned()),
        _ => Err(Failure::bad_args("too many arguments")),
    }
}

fn run(
    context: &mut Context,
    matches: &Matches,
    action: DowngradeAction,
    target: String,
) -> Result<(), Failure> {
    let deadline = Timeout::of(&matches.flags).deadline();
    let session = Session::open(context, matches)?;
    let client = session.client()?.with_deadline(deadline);
    let response = session.run(client.maintenance().downgrade(action, target))?;
    let name = matches.chain.command().name;
    session.printer.downgrade(context, name, &response)
}
