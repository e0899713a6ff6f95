//! `help` and `--help`.

use crate::cli::{self, Chain, Matches, Text};
use crate::context::Context;
use crate::failure::Failure;

/// Shows the help of the command named by the arguments, of the program without.
pub(crate) fn run(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let root = matches.chain.root();
    match cli::find(root, &matches.args) {
        Ok((chain, _)) => show(context, &chain),
        Err(_) => {
            let topic = matches.args.iter().map(back_quoted).collect::<Vec<_>>();
            context.error_line(format!("Unknown help topic [{}]", topic.join(" ")))?;
            let (chain, _) = cli::find(root, &[]).map_err(Failure::bad_args)?;
            // The usage ends its own last line.
            context.error_line(cli::help::usage(&chain).trim_end())
        }
    }
}

/// Shows the help of a command.
pub(crate) fn show(context: &mut Context, chain: &Chain) -> Result<(), Failure> {
    let help = cli::help::help(chain);
    let root = chain.root().name;
    writeln!(
        context.out(),
        "{help}Use \"{root} options\" for a list of global command-line options (applies to all commands)."
    )?;
    Ok(())
}

fn back_quoted(text: &Text) -> String {
    format!("`{}`", String::from_utf8_lossy(text))
}
