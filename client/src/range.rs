//! Ranges of keys as the API spells them (`spec/mvcc.md` section 3).
//!
//! A request names a first key and a `range_end`: empty for that key alone, one zero byte for
//! every key from there on, anything else is the exclusive upper bound.

use bytes::Bytes;

/// The `range_end` that means "every key from the first one on"; as a first key, the smallest key.
pub const ZERO: Bytes = Bytes::from_static(b"\0");

/// The exclusive upper bound of all keys that start with `prefix`.
///
/// ```
/// use ferrite_client::prefix_end;
///
/// assert_eq!(prefix_end(b"foo"), "fop");
/// assert_eq!(prefix_end(b"a\xff\xff"), "b");
/// assert_eq!(prefix_end(b"\xff"), "\0"); // nothing follows: open-ended
/// ```
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return Bytes::from(end);
        }
    }
    ZERO
}

/// Whether a range, as requests spell it, has a key.
pub(crate) fn contains(key: &[u8], end: &[u8], candidate: &[u8]) -> bool {
    match end {
        [] => candidate == key,
        [0] => candidate >= key,
        end => candidate >= key && candidate < end,
    }
}

/// Which keys a request is about, relative to its first key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) enum Span {
    #[default]
    Single,
    Prefix,
    FromKey,
    Until(Bytes),
}

impl Span {
    /// `key` and `range_end` of the request. The empty prefix and "from the empty key" are the
    /// whole keyspace, whose first key is spelled as one zero byte.
    pub(crate) fn resolve(self, key: Bytes) -> (Bytes, Bytes) {
        match self {
            Span::Single => (key, Bytes::new()),
            Span::Prefix | Span::FromKey if key.is_empty() => (ZERO, ZERO),
            Span::Prefix => {
                let end = prefix_end(&key);
                (key, end)
            }
            Span::FromKey => (key, ZERO),
            Span::Until(end) => (key, end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_end_cuts_trailing_ff() {
        assert_eq!(prefix_end(b"a"), "b");
        assert_eq!(prefix_end(b"a\xff"), "b");
        assert_eq!(prefix_end(b"a\xfe"), b"a\xff".as_slice());
        assert_eq!(prefix_end(b"\xff\xff"), ZERO);
        assert_eq!(prefix_end(b""), ZERO);
        assert_eq!(prefix_end(b"\x00"), b"\x01".as_slice());
    }

    #[test]
    fn spans_resolve_to_the_api_spelling() {
        let check = |span: Span, key: &'static str, expected: (&'static str, &'static str)| {
            let (key, end) = span.resolve(Bytes::from_static(key.as_bytes()));
            assert_eq!((key, end), (expected.0.into(), expected.1.into()));
        };
        check(Span::Single, "k", ("k", ""));
        check(Span::Single, "", ("", ""));
        check(Span::Prefix, "k", ("k", "l"));
        check(Span::Prefix, "", ("\0", "\0"));
        check(Span::FromKey, "k", ("k", "\0"));
        check(Span::FromKey, "", ("\0", "\0"));
        check(Span::Until("z".into()), "k", ("k", "z"));
    }
}
