//! `completion`: scripts that let a shell complete commands and flags.

use std::fmt::Write as _;
use std::io::Write as _;

use crate::cli::{Command, Flag, Matches};
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

/// Name and description of every command.
fn commands() -> Vec<(&'static str, &'static str)> {
    let help = ("help", "Help about any command");
    let commands = ROOT
        .commands
        .iter()
        .map(|command| (command.name, command.short));
    commands.chain([help]).collect()
}

fn flags(command: &'static Command) -> impl Iterator<Item = &'static Flag> {
    command.flags.iter().chain(ROOT.flags)
}

fn words(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(" ")
}

fn bash() -> String {
    let name = ROOT.name;
    let mut cases = String::new();
    for command in ROOT.commands {
        let flags = words(flags(command).map(|flag| format!("--{}", flag.name)));
        let _ = writeln!(cases, "    {}) words=\"{flags} --help\" ;;", command.name);
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
    for command in ROOT.commands {
        let flags = words(flags(command).map(|flag| {
            let usage = plain(flag.usage).replace(['[', ']'], "");
            format!("'--{}[{usage}]'", flag.name)
        }));
        let _ = writeln!(
            cases,
            "    {}) _arguments {flags} '*:file:_files' ;;",
            command.name
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
    for command in ROOT.commands {
        for flag in flags(command) {
            let _ = writeln!(
                script,
                "complete -c {name} -n '__fish_seen_subcommand_from {}' -l {} -d '{}'",
                command.name,
                flag.name,
                plain(flag.usage)
            );
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
    for command in ROOT.commands {
        let flags = flags(command).map(|flag| quoted(&format!("--{}", flag.name)));
        let _ = writeln!(
            cases,
            "    '{}' {{ $words = @({}) }}",
            command.name,
            list(flags.collect())
        );
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
