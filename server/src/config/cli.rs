//! The command line, by the rules of Go's `flag` package: `-x v`, `--x v`, `-x=v`, `--x=v`;
//! booleans never take the next argument; the first argument without a dash ends the flags.

use super::flags::find;
use super::raw::RawConfig;

/// What a command line says.
#[derive(Debug, PartialEq, Eq)]
pub enum CommandLine {
    /// `-h` or `--help` came first.
    Help,
    /// Flags only.
    Flags(RawConfig),
    /// A positional argument, which etcd has none of.
    Positional(String),
}

/// Parses the arguments behind the program's name.
///
/// # Errors
/// The line that Go prints to stderr above the usage; the program ends with exit code 2.
pub fn parse(args: &[String]) -> Result<CommandLine, String> {
    let mut raw = RawConfig::default();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if arg == "--" {
            return Ok(rest.next().map_or(CommandLine::Flags(raw), |arg| {
                CommandLine::Positional(arg.clone())
            }));
        }
        let Some(body) = arg
            .strip_prefix("--")
            .or_else(|| arg.strip_prefix('-'))
            .filter(|_| arg.len() > 1)
        else {
            return Ok(CommandLine::Positional(arg.clone()));
        };
        if body.starts_with(['-', '=']) {
            return Err(format!("bad flag syntax: {arg}"));
        }
        let (name, inline) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (body, None),
        };
        let Some(flag) = find(name) else {
            if name == "help" || name == "h" {
                return Ok(CommandLine::Help);
            }
            return Err(format!("flag provided but not defined: -{name}"));
        };
        if flag.kind.is_bool() {
            let value = inline.unwrap_or("true");
            raw.set_text(flag, value).map_err(|reason| {
                format!("invalid boolean value {value:?} for -{name}: {reason}")
            })?;
        } else {
            let value = match inline {
                Some(value) => value,
                None => rest
                    .next()
                    .ok_or_else(|| format!("flag needs an argument: -{name}"))?,
            };
            raw.set_text(flag, value)
                .map_err(|reason| format!("invalid value {value:?} for flag -{name}: {reason}"))?;
        }
    }
    Ok(CommandLine::Flags(raw))
}
