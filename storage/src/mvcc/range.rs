//! [`KeyRange`]: the keys that a request or a watcher selects (spec: mvcc.md section 3).

use bytes::Bytes;

/// A contiguous set of keys, in bytewise order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRange {
    start: Bytes,
    end: End,
}

/// Where a [`KeyRange`] ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// The start key is the only one.
    Single,
    /// All keys from the start on.
    Unbounded,
    /// All keys from the start on that are less than this one.
    Before(Bytes),
}

/// As `range_end`, this means "no upper bound".
const UNBOUNDED: &[u8] = &[0];

impl KeyRange {
    /// The range that `key` and `range_end` of a request mean: without `range_end` the key alone,
    /// with one zero byte every key from `key` on, otherwise the keys in `[key, range_end)`.
    pub fn new(key: Bytes, range_end: &Bytes) -> Self {
        let end = match range_end.as_ref() {
            [] => End::Single,
            UNBOUNDED => End::Unbounded,
            _ => End::Before(range_end.clone()),
        };
        Self { start: key, end }
    }

    /// The range that holds `key` only.
    pub fn single(key: Bytes) -> Self {
        Self {
            start: key,
            end: End::Single,
        }
    }

    /// Every key.
    pub fn all() -> Self {
        Self {
            start: Bytes::new(),
            end: End::Unbounded,
        }
    }

    /// The keys that begin with `prefix`; every key if it is empty.
    pub fn prefix(prefix: Bytes) -> Self {
        let Some(last) = prefix.iter().rposition(|byte| *byte < u8::MAX) else {
            return Self {
                start: prefix,
                end: End::Unbounded,
            };
        };
        let mut end = prefix[..=last].to_vec();
        end[last] += 1;
        Self {
            start: prefix,
            end: End::Before(end.into()),
        }
    }

    /// The first key that can be in the range.
    pub fn start(&self) -> &Bytes {
        &self.start
    }

    /// Where the range ends.
    pub fn end(&self) -> &End {
        &self.end
    }

    /// The part of the range at or after `key`.
    pub fn from(&self, key: Bytes) -> Self {
        if key <= self.start {
            return self.clone();
        }
        match &self.end {
            End::Single => Self {
                end: End::Before(key.clone()),
                start: key,
            },
            end => Self {
                end: end.clone(),
                start: key,
            },
        }
    }

    /// Whether the range can hold no key: its end is not after its start.
    pub fn is_empty(&self) -> bool {
        matches!(&self.end, End::Before(end) if *end <= self.start)
    }

    /// Whether `key` is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.start.as_ref() <= key && !self.is_past(key)
    }

    /// Whether `key` and all greater keys are behind the end of the range.
    pub(crate) fn is_past(&self, key: &[u8]) -> bool {
        match &self.end {
            End::Single => key > self.start.as_ref(),
            End::Unbounded => false,
            End::Before(end) => key >= end.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(key: &'static [u8], range_end: &'static [u8]) -> KeyRange {
        KeyRange::new(Bytes::from_static(key), &Bytes::from_static(range_end))
    }

    fn check(range: &KeyRange, inside: &[&[u8]], outside: &[&[u8]]) {
        for key in inside {
            assert!(range.contains(key), "{key:?} should be in {range:?}");
        }
        for key in outside {
            assert!(!range.contains(key), "{key:?} should not be in {range:?}");
        }
    }

    #[test]
    fn shapes_of_a_request() {
        check(&range(b"k", b""), &[b"k"], &[b"", b"j", b"k\0", b"l"]);
        check(
            &range(b"k", b"\0"),
            &[b"k", b"k\0", b"\xff"],
            &[b"", b"j\xff"],
        );
        check(&range(b"\0", b"\0"), &[b"\0", b"a", b"\xff\xff"], &[]);
        check(
            &range(b"k", b"m"),
            &[b"k", b"kz", b"l\xff"],
            &[b"j", b"m", b"\xff"],
        );
        check(&range(b"k", b"\0\0"), &[], &[b"\0", b"\0\0", b"k", b"l"]);
    }

    #[test]
    fn empty_when_the_end_is_not_after_the_start() {
        for (key, range_end, empty) in [
            (&b"k"[..], &b"k"[..], true),
            (b"k", b"a", true),
            (b"k", b"k\0", false),
            (b"k", b"", false),
            (b"k", b"\0", false),
        ] {
            assert_eq!(
                range(key, range_end).is_empty(),
                empty,
                "{key:?} {range_end:?}"
            );
        }
    }

    #[test]
    fn prefixes() {
        let prefix = |prefix: &'static [u8]| KeyRange::prefix(Bytes::from_static(prefix));
        check(
            &prefix(b"ab"),
            &[b"ab", b"ab\xff\xff"],
            &[b"aa\xff", b"ac", b""],
        );
        check(&prefix(b"a\xff"), &[b"a\xff", b"a\xff\0"], &[b"a", b"b"]);
        check(&prefix(b"\xff"), &[b"\xff", b"\xff\xff"], &[b"\xfe\xff"]);
        check(&prefix(b""), &[b"", b"a", b"\xff"], &[]);
    }

    #[test]
    fn the_rest_of_a_range() {
        let from = |range: KeyRange, key: &'static [u8]| range.from(Bytes::from_static(key));
        assert_eq!(from(range(b"k", b"m"), b"a"), range(b"k", b"m"));
        check(
            &from(range(b"k", b"m"), b"l"),
            &[b"l", b"l\xff"],
            &[b"k", b"m"],
        );
        assert!(from(range(b"k", b"m"), b"m").is_empty());
        assert!(from(range(b"k", b""), b"k\0").is_empty());
        check(&from(range(b"k", b"\0"), b"z"), &[b"z"], &[b"k", b"y"]);
    }
}
