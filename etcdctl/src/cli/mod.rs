//! Reading command lines the way cobra and pflag do, which etcdctl users rely on: unique prefixes
//! of commands, flags anywhere, `--`, `-wjson`, `-w=json`, `--flag value`, and their error texts.
//!
//! A program is a tree of constant [`Command`]s. [`parse`] finds the command and reads its flags;
//! what is done about the result is the caller's business. [`help`] renders usage texts.

pub(crate) mod flags;
pub(crate) mod help;

use crate::context::Context;
use crate::failure::Failure;
use crate::go::quote::quote;

pub(crate) use flags::{Flag, Flags, Kind};

/// An argument: any bytes.
pub(crate) type Text = Vec<u8>;

/// One command and everything below it.
pub(crate) struct Command {
    pub(crate) name: &'static str,
    /// Name and arguments, for the usage line.
    pub(crate) usage: &'static str,
    pub(crate) short: &'static str,
    /// More than [`Command::short`], for the command's own help; may be empty.
    pub(crate) long: &'static str,
    /// Heading under which the parent lists it.
    pub(crate) group: &'static str,
    /// Flags of this command only.
    pub(crate) flags: &'static [Flag],
    /// Flags of this command and all below it.
    pub(crate) persistent: &'static [Flag],
    pub(crate) commands: &'static [Command],
    pub(crate) action: Action,
}

/// What a command does when it is chosen.
pub(crate) enum Action {
    /// Shows its help.
    Group,
    /// Runs.
    Run(fn(&mut Context, &Matches) -> Result<(), Failure>),
}

impl Command {
    /// A command with nothing but a name, to fill in.
    pub(crate) const EMPTY: Command = Command {
        name: "",
        usage: "",
        short: "",
        long: "",
        group: "",
        flags: &[],
        persistent: &[],
        commands: &[],
        action: Action::Group,
    };

    /// The subcommand of that name, or the only one whose name begins so.
    fn child(&'static self, name: &[u8]) -> Option<&'static Command> {
        let exact = self.commands.iter().find(|c| c.name.as_bytes() == name);
        exact.or_else(|| {
            let mut matches = self
                .commands
                .iter()
                .filter(|c| c.name.as_bytes().starts_with(name));
            matches.next().filter(|_| matches.next().is_none())
        })
    }
}

/// A command with its ancestors, root first; never empty.
#[derive(Clone)]
pub(crate) struct Chain(Vec<&'static Command>);

impl Chain {
    pub(crate) fn command(&self) -> &'static Command {
        self.0.last().expect("a chain begins with the root")
    }

    pub(crate) fn root(&self) -> &'static Command {
        self.0[0]
    }

    pub(crate) fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// The names from the root on: how the command is called.
    pub(crate) fn path(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|command| command.name).collect();
        names.join(" ")
    }

    /// Flags declared by the command itself.
    pub(crate) fn local_flags(&self) -> impl Iterator<Item = &'static Flag> + use<> {
        let command = self.command();
        command.flags.iter().chain(command.persistent)
    }

    /// Flags declared by its ancestors.
    pub(crate) fn inherited_flags(&self) -> impl Iterator<Item = &'static Flag> {
        let ancestors = &self.0[..self.0.len() - 1];
        ancestors.iter().flat_map(|command| command.persistent)
    }
}

/// A command line that names a command which can run.
pub(crate) struct Matches {
    pub(crate) chain: Chain,
    pub(crate) flags: Flags,
    /// What is left without commands and flags.
    pub(crate) args: Vec<Text>,
    /// All of the line.
    pub(crate) given: Vec<Text>,
}

/// What a command line asks for.
pub(crate) enum Parsed {
    Run(Matches),
    Help(Chain),
    /// No such command; the text says so, with suggestions.
    UnknownCommand(String),
    BadFlags {
        chain: Chain,
        message: String,
    },
}

/// Reads a command line without the program's name.
pub(crate) fn parse(root: &'static Command, args: &[Text]) -> Parsed {
    let (chain, rest) = match find(root, args) {
        Ok(found) => found,
        Err(message) => return Parsed::UnknownCommand(message),
    };
    let given = args.to_vec();
    let mut flags = Flags::of(&chain);
    let args = match flags.parse(&rest) {
        Ok(args) => args,
        Err(message) => return Parsed::BadFlags { chain, message },
    };
    if flags.help_wanted() || matches!(chain.command().action, Action::Group) {
        return Parsed::Help(chain);
    }
    Parsed::Run(Matches {
        chain,
        flags,
        args,
        given,
    })
}

/// The command that the arguments name, and the arguments without those names.
///
/// # Errors
///
/// The text about an unknown command.
pub(crate) fn find(root: &'static Command, args: &[Text]) -> Result<(Chain, Vec<Text>), String> {
    let mut chain = Chain(vec![root]);
    let mut rest = args.to_vec();
    loop {
        let flags = Flags::of(&chain);
        let Some(position) = first_positional(&rest, &flags) else {
            return Ok((chain, rest));
        };
        match chain.command().child(&rest[position]) {
            Some(child) => {
                rest.remove(position);
                chain.0.push(child);
            }
            None if chain.is_root() && !root.commands.is_empty() => {
                return Err(unknown_command(&chain, &rest[position]));
            }
            None => return Ok((chain, rest)),
        }
    }
}

/// Where the first argument is that is neither a flag nor a flag's value.
fn first_positional(args: &[Text], flags: &Flags) -> Option<usize> {
    let mut position = 0;
    while let Some(arg) = args.get(position) {
        if arg == b"--" {
            return None;
        }
        let separate_value = !arg.contains(&b'=')
            && match arg.as_slice() {
                [b'-', b'-', name @ ..] => !flags.is_switch(name),
                [b'-', short] => !flags.is_short_switch(*short),
                _ => false,
            };
        if separate_value {
            position += 2;
        } else if arg.is_empty() || arg[0] == b'-' {
            position += 1;
        } else {
            return Some(position);
        }
    }
    None
}

fn unknown_command(chain: &Chain, name: &[u8]) -> String {
    let typed = String::from_utf8_lossy(name).to_lowercase();
    let mut message = format!(
        "unknown command {} for {}",
        quote(name),
        quote(chain.path())
    );
    let suggestions: Vec<&str> = chain
        .command()
        .commands
        .iter()
        .map(|command| command.name)
        .filter(|name| distance(&typed, name) <= 2 || name.starts_with(&typed))
        .collect();
    if !suggestions.is_empty() {
        message.push_str("\n\nDid you mean this?\n");
        for name in suggestions {
            message.push_str(&format!("\t{name}\n"));
        }
    }
    message
}

/// Commands in the order help texts list them.
pub(crate) fn sorted(commands: &'static [Command]) -> Vec<&'static Command> {
    let mut sorted: Vec<&Command> = commands.iter().collect();
    sorted.sort_by_key(|command| command.name);
    sorted
}

/// The Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
