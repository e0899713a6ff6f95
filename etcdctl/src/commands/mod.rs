//! The commands, one module each.

pub(crate) mod alarm;
pub(crate) mod auth;
pub(crate) mod check;
pub(crate) mod compaction;
pub(crate) mod completion;
pub(crate) mod defrag;
pub(crate) mod del;
pub(crate) mod downgrade;
pub(crate) mod elect;
pub(crate) mod endpoint;
pub(crate) mod get;
pub(crate) mod help;
pub(crate) mod lease;
pub(crate) mod lock;
pub(crate) mod make_mirror;
pub(crate) mod member;
pub(crate) mod move_leader;
pub(crate) mod options;
pub(crate) mod put;
pub(crate) mod role;
pub(crate) mod snapshot;
pub(crate) mod txn;
pub(crate) mod user;
pub(crate) mod version;
pub(crate) mod watch;

mod child;
mod signals;

use crate::cli::{self, Action, Parsed, Text};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::go::quote::quote;
use crate::tree::ROOT;

/// Runs a command line.
pub(crate) fn execute(context: &mut Context, args: &[Text]) -> Result<(), Failure> {
    match cli::parse(&ROOT, args) {
        Parsed::Run(matches) => match matches.chain.command().action {
            Action::Run(run) => run(context, &matches),
            Action::Group => help::show(context, &matches.chain),
        },
        Parsed::Help(chain) => help::show(context, &chain),
        Parsed::UnknownCommand(message) => {
            context.error_line(format!("Error: {message}"))?;
            let path = ROOT.name;
            context.error_line(format!("Run '{path} --help' for usage."))?;
            Err(Failure::silent(Exit::Error))
        }
        Parsed::BadFlags { chain, message } => {
            context.error_line(format!("Error: {message}"))?;
            context.error_line(cli::help::usage(&chain))?;
            Err(Failure::silent(Exit::Error))
        }
    }
}

/// Reads the value of a `--consistency` flag: true for serializable. A refusal shows `shown`.
fn is_serializable(value: &str, shown: &str) -> Result<bool, Failure> {
    match value {
        "s" => Ok(true),
        "l" => Ok(false),
        _ => {
            let message = format!("unknown consistency flag {}", quote(shown));
            Err(Failure::new(Exit::BadFeature, message))
        }
    }
}

/// The text about `--prefix` and `--from-key`, which `get` and `del` share.
const PREFIX_AND_FROM_KEY: &str =
    "`--prefix` and `--from-key` cannot be set at the same time, choose one";

/// The text about a range end beside one of those.
const RANGE_END_TOO_MANY: &str =
    "too many arguments, only accept one argument when `--prefix` or `--from-key` is set";
