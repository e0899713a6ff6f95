//! Simple tokens: sixteen random letters and the raft index of the entry that made them (spec auth.md
//! section 4). Every member notes each one when it applies that entry, and forgets it when it was not
//! used here for a while. Sans-IO: letters and time are handed in.

use std::collections::BTreeMap;
use std::time::Duration;

/// Letters before the dot.
pub(crate) const PREFIX_LETTERS: usize = 16;

/// Pause between two looks at which tokens are over.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Entry {
    user: String,
    /// When it ends, if it is not used before.
    ends: Duration,
}

/// The tokens that are good here. Times are from any origin, and never go back but for what threads see
/// of each other.
#[derive(Debug)]
pub struct SimpleTokens {
    ttl: Duration,
    good: BTreeMap<String, Entry>,
    swept: Duration,
}

impl SimpleTokens {
    /// No tokens; those to come live for `ttl` after each use.
    pub fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            good: BTreeMap::new(),
            swept: Duration::ZERO,
        }
    }

    /// A user has got a token.
    pub(crate) fn assign(&mut self, now: Duration, token: String, user: String) {
        let ends = now.saturating_add(self.ttl);
        self.good.insert(token, Entry { user, ends });
    }

    /// Whose token this is. It lives for the whole time again.
    pub(crate) fn find(&mut self, now: Duration, token: &str) -> Option<String> {
        let entry = self.good.get_mut(token)?;
        if now > entry.ends {
            self.good.remove(token);
            return None;
        }
        entry.ends = now.saturating_add(self.ttl);
        Some(entry.user.clone())
    }

    /// Forgets all tokens of a user.
    pub(crate) fn end_of(&mut self, user: &str) {
        self.good.retain(|_, entry| entry.user != user);
    }

    /// Forgets all tokens.
    pub(crate) fn end_all(&mut self) {
        self.good.clear();
    }

    /// Forgets tokens that nobody has used for too long. To be called now and then.
    pub(crate) fn sweep(&mut self, now: Duration) {
        if now.saturating_sub(self.swept) < SWEEP_INTERVAL {
            return;
        }
        self.swept = now;
        self.good.retain(|_, entry| now <= entry.ends);
    }
}

/// The raft index in a token; `None` if it has none and so is nobody's.
pub(crate) fn index_of(token: &str) -> Option<u64> {
    let (prefix, index) = token.split_once('.')?;
    // Rust reads a sign where Go does not.
    let digits = !prefix.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
    index.parse().ok().filter(|_| digits)
}

/// Random letters for a token, out of random bytes as `fill` gives them.
///
/// # Errors
/// Those of `fill`.
pub(crate) fn prefix<E>(mut fill: impl FnMut(&mut [u8]) -> Result<(), E>) -> Result<String, E> {
    const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    // Bytes from here on would make some letters more likely than others.
    const FAIR: u8 = 4 * 52;
    let mut prefix = String::with_capacity(PREFIX_LETTERS);
    while prefix.len() < PREFIX_LETTERS {
        let mut bytes = [0; 2 * PREFIX_LETTERS];
        fill(&mut bytes)?;
        let fair = bytes.into_iter().filter(|byte| *byte < FAIR);
        let letters = fair.map(|byte| char::from(LETTERS[usize::from(byte % 52)]));
        prefix.extend(letters.take(PREFIX_LETTERS - prefix.len()));
    }
    Ok(prefix)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const TTL: Duration = Duration::from_secs(300);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn tokens(given: &[(&str, &str)]) -> SimpleTokens {
        let mut tokens = SimpleTokens::new(TTL);
        for (token, user) in given {
            tokens.assign(at(0), (*token).to_owned(), (*user).to_owned());
        }
        tokens
    }

    #[test]
    fn a4_a_token_lives_as_long_as_it_is_used() {
        let mut tokens = tokens(&[("a.1", "u"), ("b.2", "u")]);
        for used in [200, 400, 700, 1000] {
            assert_eq!(tokens.find(at(used), "a.1").as_deref(), Some("u"), "{used}");
        }
        assert_eq!(tokens.find(at(1000), "b.2"), None);
        assert_eq!(tokens.find(at(1301), "a.1"), None);
        assert_eq!(tokens.find(at(1000), "a.1"), None, "gone is gone");
    }

    #[test]
    fn a4_tokens_that_nobody_uses_are_not_kept() {
        let mut tokens = tokens(&[("a.1", "u"), ("b.2", "u")]);
        tokens.find(at(200), "a.1");
        tokens.sweep(at(301));
        assert_eq!(tokens.good.len(), 1);
        tokens.sweep(at(501));
        assert_eq!(tokens.good.len(), 0);
    }

    #[test]
    fn a4_tokens_end_with_the_user_or_all_at_once() {
        let mut tokens = tokens(&[("a.1", "u"), ("b.2", "v"), ("c.3", "u")]);
        tokens.end_of("u");
        assert_eq!(tokens.find(at(1), "a.1"), None);
        assert_eq!(tokens.find(at(1), "b.2").as_deref(), Some("v"));
        tokens.end_all();
        assert_eq!(tokens.find(at(1), "b.2"), None);
    }

    #[test]
    fn a4_the_index_of_a_token() {
        assert_eq!(index_of("aBc.12"), Some(12));
        for none in [
            "",
            "abc",
            "abc.",
            ".1",
            "a.b.1",
            "a.1.2",
            "a.+1",
            "a.-1",
            "a.99999999999999999999",
        ] {
            assert_eq!(index_of(none), None, "{none}");
        }
    }

    #[test]
    fn a4_letters_are_taken_from_all_bytes_alike() {
        let mut next = 200_u8;
        let prefix = prefix(|bytes| {
            for byte in bytes {
                *byte = next;
                next = next.wrapping_add(1);
            }
            Ok::<_, Infallible>(())
        });
        assert_eq!(prefix, Ok("STUVWXYZabcdefgh".to_owned()));
    }
}
