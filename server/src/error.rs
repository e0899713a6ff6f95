//! What a request can end in: an error of etcd's table, or one of the few texts outside it.

use std::borrow::Cow;

use tonic::Code;

/// The failure of a request, as its client sees it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An error of etcd's table (`ferrite_api::Error`).
    #[error(transparent)]
    Api(#[from] ferrite_api::Error),
    /// A status outside the table (spec errors.md section 4).
    #[error("{text}")]
    Status {
        /// The gRPC code.
        code: Code,
        /// The text.
        text: Cow<'static, str>,
    },
}

impl Error {
    /// A status outside the table.
    pub fn status(code: Code, text: impl Into<Cow<'static, str>>) -> Self {
        Error::Status {
            code,
            text: text.into(),
        }
    }

    /// The gRPC code that leaves the server.
    pub fn code(&self) -> Code {
        match self {
            Error::Api(error) => error.wire_code(),
            Error::Status { code, .. } => *code,
        }
    }

    /// The text that leaves the server.
    pub fn message(&self) -> Cow<'static, str> {
        match self {
            Error::Api(error) => Cow::Borrowed(error.message()),
            Error::Status { text, .. } => text.clone(),
        }
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        tonic::Status::new(error.code(), error.message())
    }
}

/// A failure with its causes, which the texts of hyper and tonic leave out.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
