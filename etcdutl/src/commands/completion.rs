//! `completion`: scripts that let a shell complete commands and flags.

use std::fmt::Write as _;
use std::io::Write as _;

use crate::cli::{Flag, Matches};
use crate::failure::Failure;
use crate::tree::ROOT;

pub(crate) fn run(matches: &Matches) -> Result<(), Failure> {
    let script = match matches.arguments[0].to_str() {
        Some("bash") => bash(),
        Some("zsh") => zsh(),
        Some("fish") => fish(),
        Some("powershell") => powershell(),
        _ => {
            let shell = matches.arguments[0].to_string_lossy();
            return Err(Failure::new(format!(
                "invalid argument {shell:?} for \"{} completion\"",
                ROOT.name
            )));
        }
    };
    Ok(std::io::stdout().write_all(script.as_bytes())?)
}

/// What can follow a command: words for a group, and flags.
struct Entry {
    name: &'static str,
    words: Vec<&'static str>,
    flags: Vec<&'static Flag>,
}

/// Every command and every group.
fn entries() -> Vec<Entry> {
    let commands = ROOT.commands.iter();
    let lone = commands.filter(|command| !command.name.contains(' '));
    let lone = lone.map(|command| Entry {
        name: command.name,
        words: Vec::new(),
        flags: command.flags.iter().chain(ROOT.flags).collect(),
    });
    let groups = ROOT.groups.iter().map(|(name, _)| {
        let commands = ROOT.commands.iter();
        let within = commands.filter(|command| {
            let group = command.name.split_once(' ');
            group.is_some_and(|(group, _)| group == *name)
        });
        let mut flags: Vec<&Flag> = within.flat_map(|command| command.flags).collect();
        flags.extend(ROOT.flags);
        let words = ROOT.words(Some(name)).into_iter();
        Entry {
            name,
            words: words.map(|(word, _)| word).collect(),
            flags,
        }
    });
    lone.chain(groups).collect()
}

/// Name and description of what can come first.
fn commands() -> Vec<(&'static str, &'static str)> {
    ROOT.words(None)
}

fn words(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(" ")
}

fn bash() -> String {
    let name = ROOT.name;
    let mut cases = String::new();
    for Entry {
        name,
        words: within,
        flags,
    } in entries()
    {
        let flags = flags.iter().map(|flag| format!("--{}", flag.name));
        let all = words(within.into_iter().map(str::to_owned).chain(flags));
        let _ = writeln!(cases, "    {name}) words=\"{all} --help\" ;;");
    }
    let all = words(commands().into_iter().map(|(name, _)| name.to_owned()));
    format!(
        "# bash completion for {name}
_{name}() {{
  local word=\"${{COMP_WORDS[COMP_CWORD]}}\" words=\"\" command=\"\" i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case \"${{COMP_WORDS[i]}}\" in -*) ;; *) command=\"${{COMP_WORDS[i]}}\"; break ;; esac
  done
  case \"$command\" in
    \"\") words=\"{all}\" ;;
{cases}  esac
  COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))
}}
complete -o default -F _{name} {name}
"
    )
}

fn zsh() -> String {
    let name = ROOT.name;
    let plain = |text: &str| text.replace('\'', "").replace(':', "\\:");
    let mut described = String::new();
    for (command, short) in commands() {
        let _ = writeln!(described, "    '{command}:{}'", plain(short));
    }
    let mut cases = String::new();
    for Entry {
        name,
        words: within,
        flags,
    } in entries()
    {
        let flags = words(flags.iter().map(|flag| {
            let usage = plain(flag.usage).replace(['[', ']'], "");
            format!("'--{}[{usage}]'", flag.name)
        }));
        let first = match within.is_empty() {
            true => String::new(),
            false => format!("'2:command:({})' ", within.join(" ")),
        };
        let _ = writeln!(
            cases,
            "    {name}) _arguments {flags} {first}'*:file:_files' ;;"
        );
    }
    format!(
        "#compdef {name}
_{name}() {{
  local -a commands
  commands=(
{described}  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  case \"$words[2]\" in
{cases}  esac
}}
compdef _{name} {name}
"
    )
}

fn fish() -> String {
    let name = ROOT.name;
    let plain = |text: &str| text.replace('\'', "");
    let mut script = format!("# fish completion for {name}\n");
    for (command, short) in commands() {
        let _ = writeln!(
            script,
            "complete -c {name} -n __fish_use_subcommand -a {command} -d '{}'",
            plain(short)
        );
    }
    for entry in entries() {
        let seen = format!("-n '__fish_seen_subcommand_from {}'", entry.name);
        for word in entry.words {
            let _ = writeln!(script, "complete -c {name} {seen} -a {word}");
        }
        for flag in entry.flags {
            let (flag, usage) = (flag.name, plain(flag.usage));
            let _ = writeln!(script, "complete -c {name} {seen} -l {flag} -d '{usage}'");
        }
    }
    script
}

fn powershell() -> String {
    let name = ROOT.name;
    let list = |words: Vec<String>| words.join(", ");
    let quoted = |word: &str| format!("'{word}'");
    let all = list(commands().iter().map(|(name, _)| quoted(name)).collect());
    let mut cases = String::new();
    for entry in entries() {
        let flags = entry
            .flags
            .iter()
            .map(|flag| quoted(&format!("--{}", flag.name)));
        let words = entry.words.iter().map(|word| quoted(word)).chain(flags);
        let words = list(words.collect());
        let _ = writeln!(cases, "    '{}' {{ $words = @({words}) }}", entry.name);
    }
    format!(
        "# powershell completion for {name}
Register-ArgumentCompleter -Native -CommandName '{name}' -ScriptBlock {{
  param($word, $ast, $cursor)
  $words = @({all})
  $given = $ast.CommandElements | Select-Object -Skip 1 | ForEach-Object {{ \"$_\" }}
  $command = $given | Where-Object {{ -not $_.StartsWith('-') -and $_ -ne $word }} | Select-Object -First 1
  switch ($command) {{
{cases}  }}
  $words | Where-Object {{ $_ -like \"$word*\" }}
}}
"
    )
}
