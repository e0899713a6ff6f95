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
    /// Commands of etcd's that this program does not have.
    pub(crate) not_built: &'static [&'static str],
}

/// A command.
pub(crate) struct Command {
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
                None => usage(program, None),
                Some(command) => {
                    let about = match command.long {
                        "" => command.short,
                        long => long,
                    };
                    format!("{about}\n\n{}", usage(program, Some(command)))
                }
            };
            Ok(std::io::stdout().write_all(text.as_bytes())?)
        }
    }
}

/// What a command line asks for.
enum Parsed {
    Run(Matches),
    Help(Option<&'static Command>),
}

fn parse(program: &'static Program, args: &[OsString]) -> Result<Parsed, Failure> {
    let mut command: Option<&'static Command> = None;
    let (mut asks_help, mut flags_end) = (false, false);
    let (mut values, mut arguments) = (Vec::new(), Vec::new());
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let wrong = |message: String| Failure::CommandLine {
            message,
            usage: usage(program, command),
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
            [b'-', _, ..] => Some(read_flag(program, command, arg).map_err(wrong)?),
            _ => None,
        };
        match (flag, command) {
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
            (None, None) => command = find(program, arg, &mut asks_help)?,
            (None, Some(_)) => arguments.push(arg.clone()),
        }
    }
    let Some(command) = command.filter(|_| !asks_help) else {
        return Ok(Parsed::Help(command));
    };
    let wrong = |message: String| Failure::CommandLine {
        message,
        usage: usage(program, Some(command)),
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

/// The command of that name, or the only one whose name begins so; `None` for `help`.
fn find(
    program: &'static Program,
    name: &OsStr,
    asks_help: &mut bool,
) -> Result<Option<&'static Command>, Failure> {
    let name = name.to_string_lossy();
    if name == "help" {
        *asks_help = true;
        return Ok(None);
    }
    let exact = program.commands.iter().find(|c| c.name == name);
    let built = program.commands.iter().map(|command| command.name);
    let mut like = built
        .chain(program.not_built.iter().copied())
        .chain(["help"])
        .filter(|command| command.starts_with(&*name));
    let only = like
        .next()
        .filter(|_| !name.is_empty() && like.next().is_none());
    match (exact, only) {
        (Some(command), _) => Ok(Some(command)),
        (None, Some("help")) => {
            *asks_help = true;
            Ok(None)
        }
        (None, Some(only)) => match program.commands.iter().find(|c| c.name == only) {
            Some(command) => Ok(Some(command)),
            None => Err(Failure::new(format!(
                "\"{} {only}\" is not built into this {} yet",
                program.name, program.name
            ))),
        },
        (None, None) => Err(Failure::CommandLine {
            message: format!("unknown command {name:?} for \"{}\"", program.name),
            usage: format!("Run '{} --help' for usage.", program.name),
        }),
    }
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

/// The usage of a command, or of the program.
pub(crate) fn usage(program: &Program, command: Option<&Command>) -> String {
    let mut text = String::from("Usage:");
    match command {
        None => {
            text += &format!("\n  {} [command]\n\nAvailable Commands:", program.name);
            let help = ("help", "Help about any command");
            let mut commands: Vec<(&str, &str)> = program
                .commands
                .iter()
                .map(|command| (command.name, command.short))
                .chain([help])
                .collect();
            commands.sort_unstable();
            for (name, short) in commands {
                text += &format!("\n  {name:11} {short}");
            }
            text += &flags("Flags:", program.flags, Some(program.name));
            text += &format!(
                "\n\nUse \"{} [command] --help\" for more information about a command.",
                program.name
            );
        }
        Some(command) => {
            let arguments = match command.arguments {
                "" => String::new(),
                arguments => format!(" {arguments}"),
            };
            text += &format!("\n  {} {}{arguments} [flags]", program.name, command.name);
            text += &flags("Flags:", command.flags, Some(command.name));
            text += &flags("Global Flags:", program.flags, None);
        }
    }
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
