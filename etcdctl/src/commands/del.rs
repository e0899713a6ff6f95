//! `del`: deletes a key or a range of keys.

use std::time::Duration;

use ferrite_client::DeleteOptions;

use super::{PREFIX_AND_FROM_KEY, RANGE_END_TOO_MANY};
use crate::cli::{Flags, Matches, Text};
use crate::context::Context;
use crate::failure::Failure;
use crate::go::quote::quote;
use crate::session::{Session, Timeout};

/// Time to think about a range that was given without `--range`.
const SECOND_THOUGHTS: Duration = Duration::from_secs(2);

pub(crate) fn run(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let (key, options) = operation(context, &matches.flags, &matches.args)?;
    let deadline = Timeout::of(&matches.flags).deadline();
    let session = Session::open(context, matches)?;
    let client = session.client()?.with_deadline(deadline);
    let response = session.run(client.delete(key, options))?;
    session.printer.delete(context, &response)
}

/// Key and options of a deletion, from the command line or from a line of a transaction.
pub(super) fn operation(
    context: &mut Context,
    flags: &Flags,
    args: &[Text],
) -> Result<(Text, DeleteOptions), Failure> {
    let (key, end) = match args {
        [key] => (key, None),
        [key, end] => (key, Some(end)),
        _ => {
            return Err(Failure::bad_args(
                "del command needs one argument as key and an optional argument as range_end",
            ));
        }
    };
    let (prefix, from_key) = (flags.switch("prefix"), flags.switch("from-key"));
    if prefix && from_key {
        return Err(Failure::bad_args(PREFIX_AND_FROM_KEY));
    }
    let mut options = DeleteOptions::new();
    if let Some(end) = end {
        if prefix || from_key {
            return Err(Failure::bad_args(RANGE_END_TOO_MANY));
        }
        options = options.range(end.clone());
        if !flags.switch("range") {
            let (from, to) = (quote(key), quote(end));
            context.error_line(format!(
                "Warning: Keys between {from} and {to} will be deleted. Please interrupt the command within next 2 seconds to cancel. You can provide `--range` flag to avoid the delay."
            ))?;
            std::thread::sleep(SECOND_THOUGHTS);
        }
    }
    if prefix {
        options = options.prefix();
    }
    if from_key {
        options = options.from_key();
    }
    if flags.switch("prev-kv") {
        options = options.prev_kv();
    }
    Ok((key.clone(), options))
}
