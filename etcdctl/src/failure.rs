//! How a command ends when it does not succeed: exit code and message.

use std::io;

/// The exit codes of etcdctl (`spec/etcdctl.md` section 1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// A failed call, a bad flag, an unhealthy endpoint.
    Error,
    /// The client could not be set up, or a call about leases failed.
    BadConnection,
    /// Bad input to `txn` or `watch -i`.
    InvalidInput,
    /// A flag value that is not supported.
    BadFeature,
    /// A watch that the server ended, a snapshot that could not be saved.
    Interrupted,
    /// Bad arguments.
    BadArgs,
    /// As the program that `lock` ran.
    Child(u8),
}

impl Exit {
    pub(crate) fn code(self) -> u8 {
        match self {
            Exit::Error => 1,
            Exit::BadConnection => 2,
            Exit::InvalidInput => 3,
            Exit::BadFeature => 4,
            Exit::Interrupted => 5,
            Exit::BadArgs => 128,
            Exit::Child(code) => code,
        }
    }
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Ends with this code; `Error: <message>` goes to stderr if there is a message.
    Exit { code: Exit, message: Option<String> },
    /// Writing the output failed. A reader that went away is a success.
    Output(io::Error),
}

impl Failure {
    pub(crate) fn new(code: Exit, message: impl ToString) -> Self {
        Failure::Exit {
            code,
            message: Some(message.to_string()),
        }
    }

    /// Everything was said already.
    pub(crate) fn silent(code: Exit) -> Self {
        Failure::Exit {
            code,
            message: None,
        }
    }

    /// The same failure with another exit code.
    pub(crate) fn with_code(self, code: Exit) -> Self {
        match self {
            Failure::Exit { message, .. } => Failure::Exit { code, message },
            output => output,
        }
    }

    pub(crate) fn bad_args(message: impl ToString) -> Self {
        Self::new(Exit::BadArgs, message)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Output(error)
    }
}

impl From<ferrite_client::Error> for Failure {
    fn from(error: ferrite_client::Error) -> Self {
        Failure::new(Exit::Error, error)
    }
}
