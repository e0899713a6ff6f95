//! The kind of tokens that a member makes and knows: `--auth-token`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ferrite_api::Error as ApiError;
use parking_lot::Mutex;

use super::jwt::{self, Jwt};
use super::simple::{self, SimpleTokens};
use crate::error::Error;

/// What is wrong with `--auth-token`. etcd's texts.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// The kind, or an option of it.
    #[error("auth: invalid auth options")]
    Invalid,
    /// There is no key that could be used.
    #[error("auth: missing key data")]
    MissingKey,
    /// The public key is not that of the private one.
    #[error("auth: public and private keys don't match")]
    KeyMismatch,
    /// A key cannot be read.
    #[error("{0}")]
    Key(String),
}

/// The tokens of a member.
#[derive(Debug)]
pub struct Tokens(Kind);

#[derive(Debug)]
enum Kind {
    // Shared with the member, which notes what the log has made. Held for one look; never together with
    // another lock.
    Simple(Arc<Mutex<SimpleTokens>>),
    Jwt(Box<Jwt>),
    /// No tokens at all.
    None,
}

/// What is known of a token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// It stands for a user, as things are now.
    User(String),
    /// It stands for a user, as things were at this auth revision.
    UserAt(String, u64),
    /// Nobody's, as far as entries up to this index tell: a later one may have made it.
    NotYet(u64),
    /// Nobody's.
    Nobody,
}

impl Tokens {
    /// Of the kind that `--auth-token` wants. `simple` are those that the member keeps.
    ///
    /// # Errors
    /// [`OptionsError`].
    pub fn new(options: &str, simple: Arc<Mutex<SimpleTokens>>) -> Result<Self, OptionsError> {
        let mut parts = options.split(',');
        let kind = parts.next().unwrap_or_default();
        let mut given = Vec::new();
        for part in parts {
            let pair: Vec<&str> = part.split('=').collect();
            let [key, value] = pair[..] else {
                return Err(OptionsError::Invalid);
            };
            if given.iter().any(|(known, _)| *known == key) {
                return Err(OptionsError::Invalid);
            }
            given.push((key, value));
        }
        Ok(Self(match kind {
            "simple" => {
                tracing::warn!("simple token is not cryptographically signed");
                Kind::Simple(simple)
            }
            "jwt" => Kind::Jwt(Box::new(Jwt::new(&given)?)),
            "" => Kind::None,
            other => {
                tracing::warn!(kind = other, "unknown token type");
                return Err(OptionsError::Invalid);
            }
        }))
    }

    /// Letters for a token to be made; empty if none are needed.
    pub(crate) fn prefix(&self) -> Result<String, Error> {
        match self.0 {
            Kind::Simple(_) => simple::prefix(getrandom::fill).map_err(|error| {
                Error::status(tonic::Code::Unknown, format!("no random letters: {error}"))
            }),
            Kind::Jwt(_) | Kind::None => Ok(String::new()),
        }
    }

    /// The token of a user, for whom an entry of the log has made `simple`.
    ///
    /// # Errors
    /// This member makes none.
    pub(crate) fn issue(&self, user: &str, revision: u64, simple: String) -> Result<String, Error> {
        match &self.0 {
            Kind::Simple(_) => Ok(simple),
            Kind::Jwt(jwt) => jwt.sign(user, revision, unix_now()),
            Kind::None => Err(ApiError::AuthFailed.into()),
        }
    }

    /// Whose token this is. `now` is the time that simple tokens go by.
    pub(crate) fn find(&self, now: Duration, token: &str) -> Found {
        match &self.0 {
            Kind::Simple(tokens) => match tokens.lock().find(now, token) {
                Some(user) => Found::User(user),
                None => simple::index_of(token).map_or(Found::Nobody, Found::NotYet),
            },
            Kind::Jwt(jwt) => match jwt.verify(token, unix_now()) {
                Ok(jwt::Claims { username, revision }) => Found::UserAt(username, revision),
                Err(error) => {
                    tracing::warn!(%error, "failed to parse a JWT token");
                    Found::Nobody
                }
            },
            Kind::None => Found::Nobody,
        }
    }
}

/// The time that signed tokens go by.
fn unix_now() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}
