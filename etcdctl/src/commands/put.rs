//! `put`: writes a key.

use std::io::Read;

use ferrite_client::{LeaseId, PutOptions};

use crate::cli::{Flags, Matches, Text};
use crate::context::Context;
use crate::failure::Failure;
use crate::go::number;
use crate::session::{Session, Timeout};

const NEEDS_VALUE: &str = "put command needs 1 argument and input from stdin or 2 arguments";

pub(crate) fn run(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let (key, value, options) = operation(&matches.flags, &matches.args, || {
        let mut value = Vec::new();
        match context.stdin.read_to_end(&mut value) {
            Ok(length) if length > 0 => Some(value),
            _ => None,
        }
    })?;
    let deadline = Timeout::of(&matches.flags).deadline();
    let session = Session::open(context, matches)?;
    let client = session.client()?.with_deadline(deadline);
    let response = session.run(client.put(key, value, options))?;
    session.printer.put(context, &response)
}

/// Key, value and options of a write, from the command line or from a line of a transaction.
/// `input` gives the value if it is not an argument.
pub(super) fn operation(
    flags: &Flags,
    args: &[Text],
    input: impl FnOnce() -> Option<Text>,
) -> Result<(Text, Text, PutOptions), Failure> {
    let Some(key) = args.first() else {
        return Err(Failure::bad_args(NEEDS_VALUE));
    };
    let ignore_value = flags.switch("ignore-value");
    if ignore_value && args.len() > 1 {
        return Err(Failure::bad_args(
            "put command needs only 1 argument when 'ignore-value' is set",
        ));
    }
    let value = match args.get(1) {
        _ if ignore_value => Text::new(),
        Some(value) => value.clone(),
        None => input().ok_or_else(|| Failure::bad_args(NEEDS_VALUE))?,
    };
    let lease = number::parse_int(&flags.text("lease"), 16).map_err(|reason| {
        Failure::bad_args(format!("bad lease ID ({reason}), expecting ID in Hex"))
    })?;
    let mut options = PutOptions::new().lease(LeaseId::new(lease));
    if flags.switch("prev-kv") {
        options = options.prev_kv();
    }
    if ignore_value {
        options = options.ignore_value();
    }
    if flags.switch("ignore-lease") {
        options = options.ignore_lease();
    }
    Ok((key.clone(), value, options))
}
