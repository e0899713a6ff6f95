//! Usage and help texts, in cobra's layout.

use super::{Action, Chain, Command, Flag, Kind, sorted};
use crate::go::duration;
use crate::go::quote::quote;

/// Names of subcommands are padded to at least this.
const NAME_WIDTH: usize = 11;

/// The help of a command: what it is, then its usage.
pub(crate) fn help(chain: &Chain) -> String {
    let command = chain.command();
    let about = match command.long {
        "" => command.short,
        long => long,
    };
    format!("{}\n\n{}", about.trim_end(), usage(chain))
}

/// The usage of a command, ending with a newline.
pub(crate) fn usage(chain: &Chain) -> String {
    let command = chain.command();
    let path = chain.path();
    let mut text = String::from("Usage:");
    if matches!(command.action, Action::Run(_)) {
        text.push_str(&format!("\n  {}", usage_line(chain)));
    }
    let listed = sorted(command.commands);
    if !listed.is_empty() {
        text.push_str(&format!("\n  {path} [command]"));
        for heading in headings(command) {
            let title = if heading.is_empty() {
                "Available Commands:"
            } else {
                heading
            };
            text.push_str(&format!("\n\n{title}"));
            for command in listed.iter().filter(|command| command.group == heading) {
                text.push_str(&format!(
                    "\n  {:NAME_WIDTH$} {}",
                    command.name, command.short
                ));
            }
        }
    }
    let help_line = (!chain.is_root()).then(|| format!("help for {}", command.name));
    push_flags(&mut text, "Flags:", chain.local_flags(), help_line);
    push_flags(&mut text, "Global Flags:", chain.inherited_flags(), None);
    if !listed.is_empty() {
        text.push_str(&format!(
            "\n\nUse \"{path} [command] --help\" for more information about a command."
        ));
    }
    text.push('\n');
    text
}

fn usage_line(chain: &Chain) -> String {
    let path = chain.path();
    let parent = path.strip_suffix(chain.command().name).unwrap_or(&path);
    format!("{parent}{} [flags]", chain.command().usage)
}

/// The groups of subcommands, in order of declaration.
fn headings(command: &'static Command) -> Vec<&'static str> {
    let mut headings: Vec<&str> = Vec::new();
    for child in command.commands {
        if !headings.contains(&child.group) {
            headings.push(child.group);
        }
    }
    headings
}

fn push_flags(
    text: &mut String,
    heading: &str,
    flags: impl Iterator<Item = &'static Flag>,
    help: Option<String>,
) {
    let visible: Vec<&Flag> = flags.filter(|flag| !flag.hidden).collect();
    let table = flag_table(&visible, help);
    if !table.is_empty() {
        text.push_str(&format!("\n\n{heading}\n{}", table.trim_end()));
    }
}

/// One line per flag, by name, descriptions aligned. `help` adds the help flag.
pub(crate) fn flag_table(flags: &[&Flag], help: Option<String>) -> String {
    let mut rows: Vec<(&str, String, String)> = flags
        .iter()
        .map(|flag| {
            let short = match flag.short {
                Some(short) => format!("  -{short}, --"),
                None => "      --".to_owned(),
            };
            let kind = match flag.kind {
                Kind::Switch(_) => "",
                Kind::Int(_) => " int",
                Kind::Uint(_) => " uint",
                Kind::Text(_) => " string",
                Kind::List(_) => " strings",
                Kind::Duration(_) => " duration",
            };
            let default = match flag.kind {
                Kind::Switch(false)
                | Kind::Int(0)
                | Kind::Uint(0)
                | Kind::Text("")
                | Kind::Duration(0) => None,
                Kind::Switch(true) => Some("true".to_owned()),
                Kind::Int(value) => Some(value.to_string()),
                Kind::Uint(value) => Some(value.to_string()),
                Kind::Text(text) => Some(quote(text)),
                Kind::List(element) => Some(format!("[{element}]")),
                Kind::Duration(nanos) => Some(duration::format(nanos)),
            };
            let usage = match default {
                Some(default) => format!("{} (default {default})", flag.usage),
                None => flag.usage.to_owned(),
            };
            (flag.name, format!("{short}{}{kind}", flag.name), usage)
        })
        .collect();
    if let Some(usage) = help {
        rows.push(("help", "  -h, --help".to_owned(), usage));
    }
    rows.sort_by_key(|(name, ..)| *name);
    let width = rows
        .iter()
        .map(|(_, left, _)| left.len())
        .max()
        .unwrap_or(0);
    rows.iter()
        .map(|(_, left, usage)| format!("{left:width$}   {usage}\n"))
        .collect()
}
