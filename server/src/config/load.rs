//! The start of the program: command line, then file or environment, then the rules.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use super::cli::{self, CommandLine};
use super::error::{Error, Problems};
use super::flags::Value;
use super::note::Note;
use super::raw::RawConfig;
use super::resolve::{Source, resolve};
use super::{Config, USAGE, default_host, env, file, help_flags, read_file, version};

/// A configuration to run with.
#[derive(Debug)]
pub struct Loaded {
    /// Valid values.
    pub config: Config,
    /// Lines for the log, once it is set up.
    pub notes: Vec<Note>,
}

/// The end of the program before it began.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// 0 help and version, 1 errors, 2 flags that do not parse.
    pub code: u8,
    /// Text for stdout.
    pub stdout: String,
    /// Text for stderr.
    pub stderr: String,
    /// Lines for the log; the default log, because there is no valid configuration.
    pub notes: Vec<Note>,
}

impl Exit {
    /// Prints everything and returns the code for `main`. The log must be set up.
    pub fn finish(self) -> ExitCode {
        use std::io::Write as _;
        // A reader that is gone does not change how the program ends.
        let _ = std::io::stderr().write_all(self.stderr.as_bytes());
        let _ = std::io::stdout().write_all(self.stdout.as_bytes());
        for note in &self.notes {
            note.emit();
        }
        ExitCode::from(self.code)
    }
}

/// What the command line and its surroundings lead to.
#[derive(Debug)]
pub enum Outcome {
    /// Run with this.
    Run(Box<Loaded>),
    /// Say this and end.
    Exit(Exit),
}

/// Reads everything: `args` with the program's name first, and the environment.
pub fn load(
    args: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Outcome {
    let text = |text: OsString| text.to_string_lossy().into_owned();
    let args: Vec<String> = args.into_iter().map(text).collect();
    let variables: Vec<(String, String)> = variables
        .into_iter()
        .map(|(name, value)| (text(name), text(value)))
        .collect();
    match run(&args, &variables) {
        Ok(loaded) => Outcome::Run(Box::new(loaded)),
        Err(exit) => Outcome::Exit(exit),
    }
}

fn run(args: &[String], variables: &[(String, String)]) -> Result<Loaded, Exit> {
    let flags = args.get(1..).unwrap_or_default();
    if let Some(command @ ("gateway" | "grpc-proxy")) = flags.first().map(String::as_str) {
        return Err(Exit {
            code: 1,
            stderr: format!(
                "etcd {command} is not built yet in {}\n",
                super::error::FERRITE
            ),
            ..Exit::default()
        });
    }
    let command_line = cli::parse(flags).map_err(|line| Exit {
        code: 2,
        stderr: format!("{line}\n{USAGE}"),
        ..Exit::default()
    })?;
    let raw = match command_line {
        CommandLine::Help => {
            return Err(Exit {
                stdout: help_flags(),
                stderr: USAGE.to_owned(),
                ..Exit::default()
            });
        }
        CommandLine::Positional(arg) => {
            return Err(fail(args, Vec::new(), Error::Positional(arg).into()));
        }
        CommandLine::Flags(raw) => raw,
    };
    if raw.value("version") == Value::Bool(true) {
        return Err(Exit {
            stdout: version(),
            ..Exit::default()
        });
    }

    let mut notes = Vec::new();
    let resolved = match config_file(&raw, variables) {
        Some(path) => from_file(&path, &mut notes)?,
        None => from_flags(raw, variables, &mut notes)?,
    };
    match resolved {
        Ok((config, more)) => {
            notes.extend(more);
            notes.push(Note::Running {
                args: args.to_vec(),
            });
            Ok(Loaded { config, notes })
        }
        Err(problems) => Err(fail(args, notes, problems)),
    }
}

type Resolved = Result<(Config, Vec<Note>), Problems>;

/// The flag before the variable; empty means none.
fn config_file(raw: &RawConfig, variables: &[(String, String)]) -> Option<String> {
    let flag = raw.value("config-file").to_string();
    let variable = || {
        variables
            .iter()
            .find(|(name, _)| name == "ETCD_CONFIG_FILE")
            .map(|(_, value)| value.clone())
    };
    Some(flag)
        .filter(|path| !path.is_empty())
        .or_else(variable)
        .filter(|path| !path.is_empty())
}

/// `Err` ends the program in a way of its own; `Ok(Err)` are ordinary problems.
fn from_file(path: &str, notes: &mut Vec<Note>) -> Result<Resolved, Exit> {
    let parsed = read_file(Path::new(path))
        .map_err(Error::File)
        .and_then(|text| file::parse(&text));
    match parsed {
        Ok(raw) => {
            notes.push(Note::FileLoaded {
                path: path.to_owned(),
            });
            Ok(resolve(&raw, Source::File, &default_host))
        }
        // etcd prints these two bare.
        Err(error @ Error::FileUrls { .. }) => Err(Exit {
            code: 1,
            stderr: format!("{error}\n"),
            ..Exit::default()
        }),
        Err(error) => Ok(Err(error.into())),
    }
}

fn from_flags(
    mut raw: RawConfig,
    variables: &[(String, String)],
    notes: &mut Vec<Note>,
) -> Result<Resolved, Exit> {
    match env::apply(&mut raw, variables, notes) {
        Ok(()) => Ok(resolve(&raw, Source::CommandLine, &default_host)),
        // Fatal on the spot, without the line about flags that failed.
        Err(Error::Shadowed { name }) => {
            let mut notes = std::mem::take(notes);
            notes.push(Note::VariableShadowed { name });
            Err(Exit {
                code: 1,
                notes,
                ..Exit::default()
            })
        }
        Err(error) => Ok(Err(error.into())),
    }
}

/// Exit code 1 with the line that etcd ends in.
fn fail(args: &[String], mut notes: Vec<Note>, problems: Problems) -> Exit {
    notes.push(Note::Running {
        args: args.to_vec(),
    });
    notes.push(Note::Invalid {
        error: problems.to_string(),
    });
    if problems.0.contains(&Error::UnsetAdvertiseClient) {
        notes.push(Note::AdvertiseClientUnset {
            error: Error::UnsetAdvertiseClient.to_string(),
        });
    }
    Exit {
        code: 1,
        notes,
        ..Exit::default()
    }
}
