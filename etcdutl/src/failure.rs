//! How a command ends when it does not succeed.

use std::fmt::Display;
use std::io;

/// The exit codes of etcdutl (`spec/etcdutl.md` section 1), without that of a panic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Exit {
    /// The command failed, or the command line was not understood.
    Error = 1,
    /// An output format that is not supported.
    BadFeature = 4,
    /// Arguments or flags that do not go together.
    BadArgs = 128,
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line was not understood: the message is said before and after the usage.
    CommandLine { message: String, usage: String },
    /// `Error: <message>` goes to stderr.
    Exit { code: Exit, message: String },
    /// Writing the output failed. A reader that went away is a success.
    Output(io::Error),
}

impl Failure {
    /// A command that failed.
    pub(crate) fn new(message: impl Display) -> Self {
        Self::with_code(Exit::Error, message)
    }

    pub(crate) fn with_code(code: Exit, message: impl Display) -> Self {
        let message = message.to_string();
        Self::Exit { code, message }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Output(error)
    }
}

/// Says what went wrong and gives the process's exit code.
pub(crate) fn report(result: Result<(), Failure>) -> u8 {
    let (code, text) = match result {
        Ok(()) => return 0,
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => return 0,
        Err(Failure::Output(error)) => (
            Exit::Error,
            format!("Error: cannot write the output: {error}\n"),
        ),
        Err(Failure::Exit { code, message }) => (code, format!("Error: {message}\n")),
        // Twice, as etcd's.
        Err(Failure::CommandLine { message, usage }) => (
            Exit::Error,
            format!("Error: {message}\n{usage}\nError: {message}\n"),
        ),
    };
    to_stderr(&text);
    code as u8
}

/// A closed stderr is nobody's problem.
pub(crate) fn to_stderr(text: &str) {
    use std::io::Write as _;
    let _ = io::stderr().write_all(text.as_bytes());
}
