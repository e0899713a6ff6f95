//! Programs that `watch` and `lock` run.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use crate::cli::Text;
use crate::context::Context;
use crate::failure::Failure;

/// How a program failed.
#[derive(Debug)]
pub(super) struct ChildFailure {
    /// In the words of Go's `os/exec`.
    pub(super) message: String,
    /// The program's own exit status, if it ran.
    pub(super) code: Option<u8>,
}

/// Runs a program with variables beside our environment, our stdout and stderr and no stdin, to
/// its end. The runtime's other tasks go on meanwhile.
pub(super) async fn run(
    context: &mut Context,
    program: &[Text],
    variables: Vec<(&'static str, Text)>,
) -> Result<Result<(), ChildFailure>, Failure> {
    // Its output comes after ours.
    context.flush()?;
    let mut words = program.iter().cloned().map(OsString::from_vec);
    let name = words.next().unwrap_or_default();
    let mut command = Command::new(&name);
    command.args(words).stdin(Stdio::null());
    for (variable, value) in variables {
        command.env(variable, OsString::from_vec(value));
    }
    let shown = name.to_string_lossy().into_owned();
    let status = tokio::task::spawn_blocking(move || command.status())
        .await
        .map_err(io::Error::other)?;
    Ok(match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(failed(status)),
        Err(error) => Err(ChildFailure {
            message: not_started(&shown, &error),
            code: None,
        }),
    })
}

fn failed(status: ExitStatus) -> ChildFailure {
    match (status.code(), status.signal()) {
        (Some(code), _) => ChildFailure {
            message: format!("exit status {code}"),
            // The low byte is all that the system hands on.
            code: Some((code & 0xff) as u8),
        },
        (None, signal) => ChildFailure {
            message: format!("signal: {}", signal_name(signal.unwrap_or(0))),
            // etcd's tool exits with -1 then.
            code: Some(u8::MAX),
        },
    }
}

fn signal_name(signal: i32) -> String {
    match signal {
        1 => "hangup".to_owned(),
        2 => "interrupt".to_owned(),
        3 => "quit".to_owned(),
        6 => "aborted".to_owned(),
        9 => "killed".to_owned(),
        11 => "segmentation fault".to_owned(),
        13 => "broken pipe".to_owned(),
        15 => "terminated".to_owned(),
        signal => format!("signal {signal}"),
    }
}

fn not_started(name: &str, error: &io::Error) -> String {
    let reason = match error.kind() {
        io::ErrorKind::NotFound if !name.contains('/') => {
            let name = crate::go::quote::quote(name);
            return format!("exec: {name}: executable file not found in $PATH");
        }
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    };
    format!("fork/exec {name}: {reason}")
}
