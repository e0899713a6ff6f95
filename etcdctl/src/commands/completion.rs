//! `completion`: scripts that let a shell complete commands and flags.
//!
//! Each script holds a table: for the path of every command (`lease grant`) what may come next. The
//! shell's part only finds the path in what was typed.

use crate::cli::{self, Command, Matches};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::go::quote::quote;
use crate::tree::ROOT;

pub(crate) fn run(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let script = match matches.args.as_slice() {
        [shell] => match shell.as_slice() {
            b"bash" => bash(),
            b"zsh" => zsh(),
            b"fish" => fish(),
            b"powershell" => powershell(),
            _ => {
                let path = matches.chain.path();
                let message = format!("invalid argument {} for {}", quote(shell), quote(path));
                return refused(context, matches, message);
            }
        },
        args => {
            let message = format!("accepts 1 arg(s), received {}", args.len());
            return refused(context, matches, message);
        }
    };
    context.out().write_all(script.as_bytes())?;
    Ok(())
}

/// A mistake in the line, told as a wrong flag is.
fn refused(context: &mut Context, matches: &Matches, message: String) -> Result<(), Failure> {
    context.error_line(format!("Error: {message}"))?;
    context.error_line(cli::help::usage(&matches.chain))?;
    Err(Failure::silent(Exit::Error))
}

/// A command by its path, with the names below it and its flags.
struct Entry {
    path: String,
    /// Name and description.
    below: Vec<(&'static str, &'static str)>,
    flags: Vec<(&'static str, &'static str)>,
}

/// Every command that is built, parents before children.
fn entries() -> Vec<Entry> {
    let mut entries = Vec::new();
    collect(&ROOT, String::new(), Vec::new(), &mut entries);
    entries
}

fn collect(
    command: &'static Command,
    path: String,
    inherited: Vec<(&'static str, &'static str)>,
    entries: &mut Vec<Entry>,
) {
    let listed = |flags: &'static [cli::Flag]| flags.iter().map(|flag| (flag.name, flag.usage));
    let handed_on: Vec<_> = inherited
        .into_iter()
        .chain(listed(command.persistent))
        .collect();
    entries.push(Entry {
        path: path.clone(),
        below: command
            .commands
            .iter()
            .map(|child| (child.name, child.short))
            .collect(),
        flags: listed(command.flags)
            .chain(handed_on.iter().copied())
            .chain([("help", "show the help")])
            .collect(),
    });
    for child in command.commands.iter() {
        let path = format!("{path} {}", child.name).trim_start().to_owned();
        collect(child, path, handed_on.clone(), entries);
    }
}

/// A text in single quotes, in which no quote or bracket ends anything.
fn plain(text: &str) -> String {
    let text = text.replace(['\'', '`', '[', ']'], "");
    text.replace(':', "\\:")
}

/// `case` lines of a POSIX shell, one for each path.
fn cases(line: impl Fn(&Entry) -> String) -> String {
    entries()
        .iter()
        .map(|entry| format!("    \"{}\") {} ;;\n", entry.path, line(entry)))
        .collect()
}

fn bash() -> String {
    let name = ROOT.name;
    let words = cases(|entry| {
        let below = entry.below.iter().map(|(name, _)| (*name).to_owned());
        let flags = entry.flags.iter().map(|(name, _)| format!("--{name}"));
        format!(
            "words=\"{}\"",
            below.chain(flags).collect::<Vec<_>>().join(" ")
        )
    });
    let below = cases(|entry| {
        let below: Vec<&str> = entry.below.iter().map(|(name, _)| *name).collect();
        format!("below=\" {} \"", below.join(" "))
    });
    format!(
        "# bash completion for {name}
_{name}() {{
  local typed=\"${{COMP_WORDS[COMP_CWORD]}}\" command=\"\" words=\"\" below=\"\" i word
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\"${{COMP_WORDS[i]}}\"
    case \"$command\" in
{below}    esac
    case \"$below\" in *\" $word \"*) command=\"${{command:+$command }}$word\" ;; esac
  done
  case \"$command\" in
{words}  esac
  COMPREPLY=($(compgen -W \"$words\" -- \"$typed\"))
}}
complete -o default -F _{name} {name}
"
    )
}

fn zsh() -> String {
    let name = ROOT.name;
    let described = |pairs: &[(&str, &str)], dashes: &str| -> String {
        pairs
            .iter()
            .map(|(name, about)| format!(" '{dashes}{name}:{}'", plain(about)))
            .collect()
    };
    let words = cases(|entry| {
        let below = described(&entry.below, "");
        let flags = described(&entry.flags, "--");
        format!("below=({below} ); flags=({flags} )")
    });
    format!(
        "#compdef {name}
_{name}() {{
  local command=\"\" word
  local -a below flags
  _{name}_at() {{
    case \"$command\" in
{words}    esac
  }}
  _{name}_at
  for word in \"${{(@)words[2,CURRENT-1]}}\"; do
    if (( ${{below[(I)$word:*]}} )); then
      command=\"${{command:+$command }}$word\"
      _{name}_at
    fi
  done
  if [[ \"$PREFIX\" == -* ]]; then
    _describe flag flags
  elif (( $#below )); then
    _describe command below
  else
    _files
  fi
}}
compdef _{name} {name}
"
    )
}

fn fish() -> String {
    let name = ROOT.name;
    let quoted = |text: &str| format!("'{}'", text.replace(['\'', '`', '\\'], ""));
    let mut script = format!("# fish completion for {name}\n");
    for entry in entries() {
        // All words of the path were typed, and none of those below.
        let mut seen: Vec<String> = entry
            .path
            .split_whitespace()
            .map(|word| format!("__fish_seen_subcommand_from {word}"))
            .collect();
        if !entry.below.is_empty() {
            let below: Vec<&str> = entry.below.iter().map(|(name, _)| *name).collect();
            seen.push(format!(
                "not __fish_seen_subcommand_from {}",
                below.join(" ")
            ));
        }
        let condition = seen.join("; and ");
        for (word, about) in &entry.below {
            let about = quoted(about);
            script.push_str(&format!(
                "complete -c {name} -f -n '{condition}' -a {word} -d {about}\n"
            ));
        }
        for (flag, about) in &entry.flags {
            let about = quoted(about);
            script.push_str(&format!(
                "complete -c {name} -n '{condition}' -l {flag} -d {about}\n"
            ));
        }
    }
    script
}

fn powershell() -> String {
    let name = ROOT.name;
    let list = |words: Vec<String>| format!("@({})", words.join(", "));
    let table: String = entries()
        .iter()
        .map(|entry| {
            let below = entry.below.iter().map(|(name, _)| format!("'{name}'"));
            let flags = entry.flags.iter().map(|(name, _)| format!("'--{name}'"));
            let (below, flags) = (list(below.collect()), list(flags.collect()));
            let path = &entry.path;
            format!("    '{path}' = @{{ below = {below}; flags = {flags} }}\n")
        })
        .collect();
    format!(
        "# powershell completion for {name}
Register-ArgumentCompleter -Native -CommandName '{name}' -ScriptBlock {{
  param($typed, $ast, $cursor)
  $table = @{{
{table}  }}
  $command = ''
  foreach ($element in ($ast.CommandElements | Select-Object -Skip 1)) {{
    $word = \"$element\"
    if ($word -ne $typed -and $table[$command].below -contains $word) {{
      $command = \"$command $word\".Trim()
    }}
  }}
  $table[$command].below + $table[$command].flags | Where-Object {{ $_ -like \"$typed*\" }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_command_is_in_the_table() {
        let entries = entries();
        let paths: Vec<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
        for path in ["", "get", "lease", "lease keep-alive", "member add"] {
            assert!(paths.contains(&path), "{path}");
        }
        for entry in &entries {
            let flags: Vec<&str> = entry.flags.iter().map(|(name, _)| *name).collect();
            assert!(flags.contains(&"endpoints") && flags.contains(&"help"));
            for (name, _) in &entry.below {
                let path = format!("{} {name}", entry.path);
                assert!(paths.contains(&path.trim()), "{path}");
            }
        }
        let health = entries.iter().find(|entry| entry.path == "endpoint health");
        let flags = &health.expect("a command").flags;
        assert!(flags.iter().any(|(name, _)| *name == "cluster"));
    }

    #[test]
    fn every_script_knows_every_command() {
        for script in [bash(), zsh(), fish(), powershell()] {
            for word in ["timetolive", "move-leader", "progress-notify", "write-out"] {
                assert!(script.contains(word), "{word}");
            }
        }
    }
}
