//! A step, and what came of it.

use std::fmt;

use prost_reflect::DynamicMessage;

/// One thing that both servers are asked to do.
#[derive(Clone, Debug)]
pub enum Step {
    /// A call with one request; every answer until the server ends the call.
    Call {
        /// The path, such as `/etcdserverpb.KV/Put`.
        path: String,
        /// The request.
        request: DynamicMessage,
    },
    /// A stream of watches, from its requests until all that there is has come.
    Watch {
        /// What is sent, in this order.
        requests: Vec<DynamicMessage>,
        /// Calls to be made when the watchers are there.
        calls: Vec<Step>,
    },
    /// The same call through the JSON gateway.
    Json {
        /// The path, such as `/v3/kv/put`.
        path: String,
        /// The body.
        body: String,
    },
    /// An HTTP request without a body.
    Get {
        /// The path.
        path: String,
    },
    /// A step of a user, who logs in before if that has not happened.
    As {
        /// The user.
        user: &'static str,
        /// What is done.
        step: Box<Step>,
    },
}

impl Step {
    /// What is done, and the user who does it.
    pub(super) fn by(&self) -> (Option<&'static str>, &Step) {
        match self {
            Self::As { user, step } => (Some(user), step),
            step => (None, step),
        }
    }
}

/// What a server has answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The messages of a call, and how it ended: a gRPC code and its text.
    Call {
        /// The messages.
        messages: Vec<DynamicMessage>,
        /// The code; 0 is success.
        code: i32,
        /// The text.
        text: String,
    },
    /// What each watcher has seen.
    Watch(Vec<Watched>),
    /// A status and a body.
    Http {
        /// The status.
        status: u16,
        /// The body.
        body: String,
    },
}

/// What a watcher has seen.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Watched {
    /// Its id.
    pub id: i64,
    /// Answers without events, in their order.
    pub notes: Vec<DynamicMessage>,
    /// Events, in their order, however they were divided among answers.
    pub events: Vec<DynamicMessage>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call { path, request } => write!(f, "{path} {{{request}}}"),
            Self::Watch { requests, calls } => {
                write!(f, "watch")?;
                let mut requests = requests.iter();
                requests.try_for_each(|request| write!(f, " {{{request}}}"))?;
                let mut calls = calls.iter();
                calls.try_for_each(|call| write!(f, ", then {call}"))
            }
            Self::Json { path, body } => write!(f, "POST {path} {body}"),
            Self::Get { path } => write!(f, "GET {path}"),
            Self::As { user, step } => write!(f, "as {user}: {step}"),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call {
                messages,
                code,
                text,
            } => {
                for message in messages {
                    write!(f, "{{{message}}} ")?;
                }
                match code {
                    0 => Ok(()),
                    _ => write!(f, "code {code}: {text}"),
                }
            }
            Self::Watch(watched) => {
                for Watched { id, notes, events } in watched {
                    write!(f, "[{id}:")?;
                    for message in notes.iter().chain(events) {
                        write!(f, " {{{message}}}")?;
                    }
                    write!(f, "] ")?;
                }
                Ok(())
            }
            Self::Http { status, body } => write!(f, "{status} {body}"),
        }
    }
}
