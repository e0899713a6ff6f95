//! Reading a command line, and the help texts: unique prefixes of commands, flags anywhere, `--`,
//! `-wjson`, `-w=json`, `--flag value`.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use crate::failure::Failure;

/// The program.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    /// Accepted by every command.
    pub(crate) flags: &'static [Flag],
    pub(crate) commands: &'static [Command],
    /// Groups of commands: name and description.
    pub(crate) groups: &'static [(&'static str, &'static str)],
}

impl Program {
    /// The words that may come next, with what they mean: at the beginning, or within a group.
    pub(crate) fn words(&self, group: Option<&str>) -> Vec<(&'static str, &'static str)> {
        let commands = self.commands.iter();
        let commands = commands.filter_map(|command| match (group, command.name.split_once(' ')) {
            (None, None) => Some((command.name, command.short)),
            (Some(group), Some((of, name))) if of == group => Some((name, command.short)),
            _ => None,
        });
        let groups = self.groups.iter().copied().filter(|_| group.is_none());
        let mut words: Vec<_> = commands.chain(groups).collect();
        words.push(("help", "Help about any command"));
        words.sort_unstable();
        words
    }
}

/// A command.
pub(crate) struct Command {
    /// One word, or the name of a group and one more.
    pub(crate) name: &'static str,
    /// What follows the name in the usage line.
    pub(crate) arguments: &'static str,
    /// How many arguments there must be, at least and at most.
    pub(crate) count: (usize, usize),
    pub(crate) short: &'static str,
    /// More than [`Command::short`], for the command's own help; may be empty.
    pub(crate) long: &'static str,
    pub(crate) flags: &'static [Flag],
    pub(crate) run: fn(&Matches) -> Result<(), Failure>,
}

/// A flag.
#[derive(Debug)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) short: Option<u8>,
    pub(crate) kind: Kind,
    pub(crate) required: bool,
    pub(crate) usage: &'static str,
}

/// What the value of a flag is; with its default.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Switch,
    Text(&'static str),
    Number(i64),
    Time(Duration),
}

impl Flag {
    pub(crate) const fn new(name: &'static str, kind: Kind, usage: &'static str) -> Self {
        Self {
            name,
            short: None,
            kind,
            required: false,
            usage,
        }
    }
}

/// A command line that was understood.
pub(crate) struct Matches {
    pub(crate) command: &'static Command,
    pub(crate) arguments: Vec<OsString>,
    /// Flags and the values they were given, which fit their kinds.
    values: Vec<(&'static Flag, OsString)>,
}

impl Matches {
    /// The value of a flag, if it was given.
    fn given(&self, name: &str) -> Option<&OsStr> {
        let mut values = self.values.iter().rev();
        values
            .find(|(flag, _)| flag.name == name)
            .map(|(_, value)| value.as_os_str())
    }

    pub(crate) fn switch(&self, name: &str) -> bool {
        self.given(name).is_some_and(|value| value == "true")
    }

    pub(crate) fn text<'m>(&'m self, name: &str, default: &'m str) -> String {
        let text = self.given(name).unwrap_or(OsStr::new(default));
        text.to_string_lossy().into_owned()
    }

    /// A path, if it was given and is not empty.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        let path = self.given(name).filter(|path| !path.is_empty());
        path.map(PathBuf::from)
    }

    pub(crate) fn number(&self, name: &str, default: i64) -> i64 {
        let given = self.given(name).and_then(OsStr::to_str);
        given.and_then(|text| text.parse().ok()).unwrap_or(default)
    }

    pub(crate) fn time(&self, name: &str, default: Duration) -> Duration {
        let given = self.given(name).and_then(OsStr::to_str);
        given.and_then(parse_time).unwrap_or(default)
    }
}

/// Runs a command line without the program's name.
pub(crate) fn execute(program: &'static Program, args: &[OsString]) -> Result<(), Failure> {
    match parse(program, args)? {
        Parsed::Run(matches) => (matches.command.run)(&matches),
        Parsed::Help(command) => {
            let text = match command {
                Scope::Words(group) => words_usage(program, group),
                Scope::Command(command) => {
                    let about = match command.long {
                        "" => command.short,
                        long => long,
                    };
                    format!("{about}\n\n{}", usage(program, command))
                }
            };
            Ok(std::io::stdout().write_all(text.as_bytes())?)
        }
    }
}

/// What a command line asks for.
enum Parsed {
    Run(Matches),
    Help(Scope),
}

/// How far the words of a command line have led.
#[derive(Clone, Copy)]
enum Scope {
    /// To the beginning, or to a group.
    Words(Option<&'static str>),
    Command(&'static Command),
}

impl Scope {
    fn command(self) -> Option<&'static Command> {
        match self {
            Self::Words(_) => None,
            Self::Command(command) => Some(command),
        }
    }

    fn usage(self, program: &'static Program) -> String {
        match self {
            Self::Words(group) => words_usage(program, group),
            Self::Command(command) => usage(program, command),
        }
    }
}

fn parse(program: &'static Program, args: &[OsString]) -> Result<Parsed, Failure> {
    let mut scope = Scope::Words(None);
    let (mut asks_help, mut flags_end) = (false, false);
    let (mut values, mut arguments) = (Vec::new(), Vec::new());
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let wrong = |message: String| Failure::CommandLine {
            message,
            usage: scope.usage(program),
        };
        let flag = match arg.as_bytes() {
            _ if flags_end => None,
            b"--" => {
                flags_end = true;
                continue;
            }
            b"-h" | b"--help" => {
                asks_help = true;
                continue;
            }
            [b'-', _, ..] => Some(read_flag(program, scope.command(), arg).map_err(wrong)?),
            _ => None,
        };
        match (flag, scope) {
            (Some((flag, value)), _) => {
                let value = match value {
                    Some(value) => value,
                    None if flag.kind == Kind::Switch => OsString::from("true"),
                    None => rest
                        .next()
                        .cloned()
                        .ok_or_else(|| wrong(format!("flag needs an argument: --{}", flag.name)))?,
                };
                check_value(flag, &value).map_err(wrong)?;
                values.push((flag, value));
            }
            (None, Scope::Words(group)) => match find(program, group, arg)? {
                Some(found) => scope = found,
                None => asks_help = true,
            },
            (None, Scope::Command(_)) => arguments.push(arg.clone()),
        }
    }
    let Some(command) = scope.command().filter(|_| !asks_help) else {
        return Ok(Parsed::Help(scope));
    };
    let wrong = |message: String| Failure::CommandLine {
        message,
        usage: usage(program, command),
    };
    let given = arguments.len();
    match command.count {
        (least, most) if least == most && given != least => {
            return Err(wrong(format!("accepts {least} arg(s), received {given}")));
        }
        (least, most) if given < least || given > most => {
            let message = format!("accepts between {least} and {most} arg(s), received {given}");
            return Err(wrong(message));
        }
        _ => {}
    }
    let missing: Vec<String> = command
        .flags
        .iter()
        .filter(|flag| flag.required && !values.iter().any(|(given, _)| given.name == flag.name))
        .map(|flag| format!("\"{}\"", flag.name))
        .collect();
    if !missing.is_empty() {
        let message = format!("required flag(s) {} not set", missing.join(", "));
        return Err(wrong(message));
    }
    Ok(Parsed::Run(Matches {
        command,
        arguments,
        values,
    }))
}

/// The command or group of that name, or the only one whose name begins so; `None` for `help`.
fn find(
    program: &'static Program,
    group: Option<&'static str>,
    name: &OsStr,
) -> Result<Option<Scope>, Failure> {
    let name = name.to_string_lossy();
    let words = program.words(group);
    let mut like = words.iter().filter(|(word, _)| word.starts_with(&*name));
    let only = like
        .next()
        .filter(|_| !name.is_empty() && like.next().is_none());
    let exact = words.iter().find(|(word, _)| *word == name);
    let Some((word, _)) = exact.or(only) else {
        let parent = match group {
            None => program.name.to_owned(),
            Some(group) => format!("{} {group}", program.name),
        };
        return Err(Failure::CommandLine {
            message: format!("unknown command {name:?} for \"{parent}\""),
            usage: format!("Run '{parent} --help' for usage."),
        });
    };
    if *word == "help" {
        return Ok(None);
    }
    let full = match group {
        None => (*word).to_owned(),
        Some(group) => format!("{group} {word}"),
    };
    let command = program.commands.iter().find(|command| command.name == full);
    Ok(Some(match command {
        Some(command) => Scope::Command(command),
        None => Scope::Words(Some(word)),
    }))
}

/// The flag that `arg` names, and its value if that is part of `arg`.
fn read_flag(
    program: &'static Program,
    command: Option<&'static Command>,
    arg: &OsStr,
) -> Result<(&'static Flag, Option<OsString>), String> {
    let all = || {
        let own = command.map_or(&[][..], |command| command.flags);
        own.iter().chain(program.flags)
    };
    let value = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    if let Some(long) = arg.as_bytes().strip_prefix(b"--") {
        let mut parts = long.splitn(2, |byte| *byte == b'=');
        let name = parts.next().unwrap_or_default();
        let flag = all().find(|flag| flag.name.as_bytes() == name);
        let shown = String::from_utf8_lossy(name);
        let flag = flag.ok_or_else(|| format!("unknown flag: --{shown}"))?;
        return Ok((flag, parts.next().map(value)));
    }
    let short = arg.as_bytes().get(1).copied().unwrap_or_default();
    let flag = all()
        .find(|flag| flag.short == Some(short))
        .ok_or_else(|| {
            format!(
                "unknown shorthand flag: {:?} in {}",
                char::from(short),
                arg.to_string_lossy()
            )
        })?;
    let given = match &arg.as_bytes()[2..] {
        [] => None,
        [b'=', rest @ ..] | rest => Some(value(rest)),
    };
    Ok((flag, given))
}

fn check_value(flag: &Flag, value: &OsStr) -> Result<(), String> {
    let text = value.to_str();
    let fits = match flag.kind {
        Kind::Switch => matches!(text, Some("true" | "false")),
        Kind::Text(_) => true,
        Kind::Number(_) => text.is_some_and(|text| text.parse::<i64>().is_ok()),
        Kind::Time(_) => text.and_then(parse_time).is_some(),
    };
    if fits {
        return Ok(());
    }
    let value = value.to_string_lossy();
    Err(format!(
        "invalid argument {value:?} for \"--{}\" flag",
        flag.name
    ))
}

/// A length of time as Go writes it: numbers with units, such as `1m30s`, `1.5s`, `0`.
fn parse_time(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 7] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut seconds, mut rest) = (0.0, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == &rest[..unit])?;
        seconds += number * scale;
        rest = &rest[unit..];
    }
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|_| !text.is_empty())
}

/// The usage of the program, or of a group.
fn words_usage(program: &Program, group: Option<&str>) -> String {
    let name = match group {
        None => program.name.to_owned(),
        Some(group) => format!("{} {group}", program.name),
    };
    let mut text = format!("Usage:\n  {name} [command]\n\nAvailable Commands:");
    for (word, short) in program.words(group) {
        text += &format!("\n  {word:11} {short}");
    }
    text += &flags("Flags:", program.flags, Some(&name));
    text + &format!("\n\nUse \"{name} [command] --help\" for more information about a command.\n")
}

/// The usage of a command.
pub(crate) fn usage(program: &Program, command: &Command) -> String {
    let arguments = match command.arguments {
        "" => String::new(),
        arguments => format!(" {arguments}"),
    };
    let mut text = format!(
        "Usage:\n  {} {}{arguments} [flags]",
        program.name, command.name
    );
    text += &flags("Flags:", command.flags, Some(command.name));
    text += &flags("Global Flags:", program.flags, None);
    text + "\n"
}

/// A table of flags; with the help flag, if `help_for` is given.
fn flags(title: &str, flags: &[Flag], help_for: Option<&str>) -> String {
    let mut rows: Vec<(String, String)> = flags
        .iter()
        .map(|flag| {
            let short = match flag.short {
                Some(short) => format!("-{}, ", char::from(short)),
                None => "    ".to_owned(),
            };
            let (kind, default) = match flag.kind {
                Kind::Switch => ("", String::new()),
                Kind::Text("") => (" string", String::new()),
                Kind::Text(text) => (" string", format!(" (default {text:?})")),
                Kind::Number(0) => (" int", String::new()),
                Kind::Number(number) => (" int", format!(" (default {number})")),
                Kind::Time(time) => (" duration", format!(" (default {time:?})")),
            };
            let left = format!("  {short}--{}{kind}", flag.name);
            (left, format!("{}{default}", flag.usage))
        })
        .collect();
    rows.extend(help_for.map(|name| ("  -h, --help".to_owned(), format!("help for {name}"))));
    rows.sort_by_key(|(left, _)| left[6..].to_owned());
    let width = rows.iter().map(|(left, _)| left.len()).max().unwrap_or(0);
    let lines: Vec<String> = rows
        .iter()
        .map(|(left, usage)| format!("\n{left:width$}   {usage}"))
        .collect();
    match lines.is_empty() {
        true => String::new(),
        false => format!("\n\n{title}{}", lines.concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_go_reads_them() {
        for (text, seconds) in [
            ("10s", 10.0),
            ("0", 0.0),
            ("1m30s", 90.0),
            ("1.5s", 1.5),
            ("250ms", 0.25),
            ("2h", 7200.0),
        ] {
            let time = parse_time(text).map(|time| time.as_secs_f64());
            assert_eq!(time, Some(seconds), "{text}");
        }
        for text in ["", "10", "s", "-1s", "1x", "1s5", "1..s"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }
}
