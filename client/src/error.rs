//! What can go wrong in a call.

use ferrite_api::Error as EtcdError;
use tonic::{Code, Status};

use crate::cache::CacheError;
use crate::concurrency::RecipeError;

/// A failed call, or a configuration that cannot work.
///
/// `Display` is what etcd's own tools print: the bare text for an error of the API,
/// `rpc error: code = … desc = …` for any other status, `context deadline exceeded` when the
/// caller's time was up.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server answered with one of etcd's errors, recognised by its text.
    #[error("{}", etcd_text(*.0))]
    Etcd(EtcdError),
    /// The server, or the connection to it, failed in some other way.
    #[error("{}", status_text(.0))]
    Status(Status),
    /// The caller's time was up. `source()` is the last failure before that: of an attempt, or
    /// of connecting, for each endpoint that is not connected.
    #[error("context deadline exceeded")]
    DeadlineExceeded {
        /// What went wrong before the time was up, if anything did.
        #[source]
        last: Option<Box<Error>>,
    },
    /// Endpoints are not connected. Appears as the source of [`Error::DeadlineExceeded`].
    #[error("connection error: {}", list(.endpoints))]
    Connect {
        /// Why, for each of them. Never empty.
        endpoints: Vec<EndpointError>,
    },
    /// No member that answered was as new as what this client had read before: see
    /// [`Client::with_ordering`](crate::Client::with_ordering).
    #[error(
        "etcdclient: no cluster members have a revision higher than the previously received revision"
    )]
    NoGreaterRevision,
    /// A lease was not renewed for its time to live: it may have expired, and it may not.
    /// `source()` is why the last attempt failed, if it is known.
    #[error("lease keep alive: no answer within the time to live of the lease")]
    KeepAliveLost {
        /// Why the last stream of renewals ended.
        #[source]
        last: Option<Box<Error>>,
    },
    /// The server refused a watch, or ended it, for this reason.
    #[error("{0}")]
    WatchRefused(String),
    /// A cache refused: see [`crate::Cache`].
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A lock or an election refused: see [`crate::concurrency`].
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// A member is older than [`Config::reject_old_cluster`](crate::Config::reject_old_cluster)
    /// allows.
    #[error("etcdclient: old cluster version")]
    OldCluster,
    /// The configuration names no endpoint.
    #[error("etcdclient: no available endpoints")]
    NoEndpoints,
    /// An endpoint is of none of the forms `host:port`, `http://host:port`, `unix:path`, or those with `https` and `unixs`.
    #[error("invalid endpoint {endpoint:?}: {reason}")]
    InvalidEndpoint {
        /// The endpoint as configured.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Options that contradict each other, or files of TLS that are not as they must be.
    #[error("{0}")]
    InvalidConfig(String),
}

/// Why one endpoint is not connected.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{endpoint}: {reason}")]
pub struct EndpointError {
    /// The endpoint as configured.
    pub endpoint: String,
    /// The operating system's or the protocol's reason for the last failure.
    pub reason: String,
}

fn list(endpoints: &[EndpointError]) -> String {
    let texts: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

impl Error {
    /// The etcd error this is, if it is one.
    pub fn etcd(&self) -> Option<EtcdError> {
        match self {
            Error::Etcd(error) => Some(*error),
            _ => None,
        }
    }

    /// The gRPC code of the failure: for an etcd error the code of its constant. `None` for
    /// failures that happened before anything was sent.
    pub fn code(&self) -> Option<Code> {
        match self {
            Error::Etcd(error) => Some(error.code()),
            Error::Status(status) => Some(status.code()),
            Error::DeadlineExceeded { .. } => Some(Code::DeadlineExceeded),
            Error::Connect { .. } => Some(Code::Unavailable),
            Error::KeepAliveLost { .. }
            | Error::NoGreaterRevision
            | Error::WatchRefused(_)
            | Error::Cache(_)
            | Error::Recipe(_)
            | Error::OldCluster
            | Error::NoEndpoints
            | Error::InvalidEndpoint { .. }
            | Error::InvalidConfig(_) => None,
        }
    }

    /// Whether a write that failed with this error may nevertheless have happened.
    ///
    /// `false` is a promise (the server refused the request, or never saw it), `true` is not: a
    /// caller that must know reads the key back, or guards the write with a compare.
    pub fn may_have_been_applied(&self) -> bool {
        match self {
            // Time-outs, a lost leader and a stopping server leave the proposal in the log.
            Error::Etcd(error) => matches!(
                error.code(),
                Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Unknown
            ),
            Error::Status(status) => !matches!(
                status.code(),
                Code::InvalidArgument
                    | Code::NotFound
                    | Code::AlreadyExists
                    | Code::PermissionDenied
                    | Code::FailedPrecondition
                    | Code::Unimplemented
                    | Code::Unauthenticated
            ),
            Error::DeadlineExceeded { .. } => true,
            Error::Connect { .. }
            | Error::KeepAliveLost { .. }
            | Error::NoGreaterRevision
            | Error::WatchRefused(_)
            | Error::Cache(_)
            | Error::Recipe(_)
            | Error::OldCluster
            | Error::NoEndpoints
            | Error::InvalidEndpoint { .. }
            | Error::InvalidConfig(_) => false,
        }
    }
}

impl From<Status> for Error {
    /// Texts decide, codes do not: two of etcd's errors leave the server with another code than
    /// their constant has.
    fn from(status: Status) -> Self {
        if let Some(error) = EtcdError::from_message(status.message()) {
            return Error::Etcd(error);
        }
        match RecipeError::from_message(status.message()) {
            Some(error) => Error::Recipe(error),
            None => Error::Status(normalised(status)),
        }
    }
}

/// A few errors that etcd's client never turns into typed ones print like any other status.
fn etcd_text(error: EtcdError) -> String {
    if error.is_typed() {
        error.message().to_owned()
    } else {
        status_line(error.wire_code(), error.message())
    }
}

fn status_text(status: &Status) -> String {
    status_line(status.code(), status.message())
}

fn status_line(code: Code, message: &str) -> String {
    format!("rpc error: code = {} desc = {message}", code_name(code))
}

/// The names that gRPC implementations in Go print.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// A response over the receive limit, told as every etcd client tells it: the decoder under us
/// words it differently and calls it out of range.
fn normalised(status: Status) -> Status {
    const OURS: &str = "Error, decoded message length too large: found ";
    let Some(rest) = status.message().strip_prefix(OURS) else {
        return status;
    };
    let mut numbers = rest
        .split(|c: char| !c.is_ascii_digit())
        .filter(|part| !part.is_empty());
    match (numbers.next(), numbers.next()) {
        (Some(found), Some(limit)) => Status::resource_exhausted(format!(
            "grpc: received message larger than max ({found} vs. {limit})"
        )),
        _ => status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etcd_errors_are_recognised_by_text_whatever_the_code() {
        let error = Error::from(Status::unknown("etcdserver: too many requests"));
        assert_eq!(error.etcd(), Some(EtcdError::RequestTooManyRequests));
        assert_eq!(error.code(), Some(Code::ResourceExhausted));
        assert_eq!(error.to_string(), "etcdserver: too many requests");
    }

    #[test]
    fn other_statuses_keep_code_and_text() {
        let error = Error::from(Status::unimplemented("unknown service"));
        assert_eq!(error.etcd(), None);
        assert_eq!(
            error.to_string(),
            "rpc error: code = Unimplemented desc = unknown service"
        );
    }

    #[test]
    fn untyped_etcd_errors_print_as_a_status() {
        let error = Error::from(Status::invalid_argument("etcdserver: permission not given"));
        assert_eq!(error.etcd(), Some(EtcdError::PermissionNotGiven));
        assert_eq!(
            error.to_string(),
            "rpc error: code = InvalidArgument desc = etcdserver: permission not given"
        );
    }

    #[test]
    fn only_refusals_promise_that_nothing_happened() {
        for (error, expected) in [
            (Error::Etcd(EtcdError::EmptyKey), false),
            (Error::Etcd(EtcdError::NoSpace), false),
            (Error::Etcd(EtcdError::Timeout), true),
            (Error::Etcd(EtcdError::LeaderChanged), true),
            (Error::Etcd(EtcdError::Stopped), true),
            (Status::unavailable("connection lost").into(), true),
            (Status::unimplemented("no").into(), false),
            (Error::DeadlineExceeded { last: None }, true),
            (Error::NoEndpoints, false),
        ] {
            assert_eq!(error.may_have_been_applied(), expected, "{error}");
        }
    }

    #[test]
    fn oversized_responses_are_told_as_other_clients_tell_them() {
        let status = Status::out_of_range(
            "Error, decoded message length too large: found 2048 bytes, the limit is: 1024 bytes",
        );
        assert_eq!(
            Error::from(status).to_string(),
            "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (2048 vs. 1024)"
        );
    }
}
