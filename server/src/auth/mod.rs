//! Who makes a call: what a client shows of itself ([`Credentials`]), the tokens that stand for users
//! ([`Tokens`]), and passwords. What a user may do is replicated state: [`ferrite_storage::auth`].
//!
//! ```text
//!   password ── checked here, by the member that is asked ──▶ log: a token for the user
//!   token, certificate ── known here ──▶ user, auth revision ──▶ in the header of what is proposed
//!                                                └──▶ checked with the published state, for reads
//! ```
//!
//! Simple tokens are made by the log and kept in memory by every member, for as long as they are used
//! there. A JWT carries what it says, signed; nobody keeps it.

mod jwt;
pub(crate) mod passwords;
mod simple;
mod tokens;

use std::fmt;
use std::sync::Arc;

pub use simple::SimpleTokens;
pub(crate) use tokens::Found;
pub use tokens::{OptionsError, Tokens};

/// What may stand before a token.
const BEARER: &[u8] = b"Bearer ";

/// A token, as a client sends it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<[u8]>);

impl Token {
    /// The token in the value of a header, which may name its kind before it.
    pub fn of_header(value: &[u8]) -> Self {
        Self(value.strip_prefix(BEARER).unwrap_or(value).into())
    }

    /// Its text; a token that is none is nobody's.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Token {
    /// Whoever reads a log shall not be able to use it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The subject's common name in the verified certificate of a client: a user, if the client sends no
/// token. Whoever makes one has verified the certificate. An empty one is a user whom nobody knows: it may
/// do what needs no permission, as with etcd.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommonName(Arc<str>);

impl CommonName {
    /// The name.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a client shows of itself with a call. The default is nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Credentials {
    /// The token. While there is one, nothing else counts.
    pub token: Option<Token>,
    /// The name in its certificate.
    pub common_name: Option<CommonName>,
}

/// Who makes a call.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// The member itself, or the program around it: it may do everything.
    Member,
    /// A client.
    Client(Credentials),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a4_a_token_may_be_named_a_bearer() {
        for (value, text) in [
            ("abc.1", "abc.1"),
            ("Bearer abc.1", "abc.1"),
            ("bearer abc.1", "bearer abc.1"),
            ("Bearer  abc.1", " abc.1"),
            ("Bearer", "Bearer"),
        ] {
            assert_eq!(Token::of_header(value.as_bytes()).text(), text);
        }
        assert_eq!(Token::of_header(b"\xff").text(), "");
        assert_eq!(format!("{:?}", Token::of_header(b"abc")), "Token(..)");
    }
}
