//! The permissions of a user on key ranges, merged: which keys may be read, and which written.

use ferrite_api::pb::authpb::Permission;
use ferrite_api::pb::authpb::permission::Type;

/// What is to be done with keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// They are read.
    Read,
    /// They are written or deleted.
    Write,
}

/// Where a range of keys ends. The order is that of the ends.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum End {
    /// Before this key.
    Before(Vec<u8>),
    /// Nowhere.
    Open,
}

impl End {
    /// The end of a range that begins with `key`. `range_end` is empty for this key alone, one zero byte
    /// for an open end.
    fn of(key: &[u8], range_end: &[u8]) -> Self {
        match range_end {
            [] => Self::Before([key, &[0]].concat()),
            [0] => Self::Open,
            end => Self::Before(end.to_vec()),
        }
    }
}

/// Disjoint ranges that do not touch, in ascending order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Ranges(Vec<(Vec<u8>, End)>);

impl Ranges {
    fn merged(mut ranges: Vec<(Vec<u8>, End)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(Vec<u8>, End)> = Vec::with_capacity(ranges.len());
        for (begin, end) in ranges {
            match merged.last_mut() {
                // What begins where the last one ends goes on with it.
                Some((_, last)) if !is_before(last, &begin) => {
                    if end > *last {
                        *last = end;
                    }
                }
                _ => merged.push((begin, end)),
            }
        }
        Self(merged)
    }

    /// Whether all keys from `key` to the end of the range are in it. A range that ends before it begins
    /// counts for its key, as in etcd.
    fn contain(&self, key: &[u8], range_end: &[u8]) -> bool {
        let after = self.0.partition_point(|(begin, _)| begin[..] <= *key);
        let Some((_, end)) = after.checked_sub(1).and_then(|last| self.0.get(last)) else {
            return false;
        };
        match end {
            End::Open => true,
            End::Before(end) if end[..] <= *key => false,
            // No key is between this one and its successor.
            End::Before(_) if range_end.is_empty() => true,
            End::Before(end) => range_end != [0] && range_end <= &end[..],
        }
    }
}

/// Whether there is a gap between an end and the next begin.
fn is_before(end: &End, begin: &[u8]) -> bool {
    match end {
        End::Before(end) => end[..] < *begin,
        End::Open => false,
    }
}

/// What may be read and what may be written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Permissions {
    read: Ranges,
    write: Ranges,
}

impl Permissions {
    /// The permissions of all roles together. A type that does not exist permits nothing.
    pub(super) fn merged<'a>(permissions: impl Iterator<Item = &'a Permission>) -> Self {
        let (mut read, mut write) = (Vec::new(), Vec::new());
        for permission in permissions {
            let key = permission.key.to_vec();
            let range = (key, End::of(&permission.key, &permission.range_end));
            match Type::try_from(permission.perm_type) {
                Ok(Type::Read) => read.push(range),
                Ok(Type::Write) => write.push(range),
                Ok(Type::Readwrite) => {
                    read.push(range.clone());
                    write.push(range);
                }
                Err(_) => {}
            }
        }
        Self {
            read: Ranges::merged(read),
            write: Ranges::merged(write),
        }
    }

    pub(super) fn permits(&self, access: Access, key: &[u8], range_end: &[u8]) -> bool {
        let ranges = match access {
            Access::Read => &self.read,
            Access::Write => &self.write,
        };
        ranges.contain(key, range_end)
    }
}

/// Whether a permission on this range can be granted.
pub(super) fn is_valid(key: &[u8], range_end: &[u8]) -> bool {
    !key.is_empty() && (range_end.is_empty() || range_end == [0] || key < range_end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permission(kind: Type, key: &str, range_end: &str) -> Permission {
        Permission {
            perm_type: kind as i32,
            key: key.to_owned().into(),
            range_end: range_end.to_owned().into(),
        }
    }

    fn merged(permissions: &[Permission]) -> Permissions {
        Permissions::merged(permissions.iter())
    }

    #[test]
    fn roles_cover_a_range_together() {
        let permissions = merged(&[
            permission(Type::Read, "c", "e"),
            permission(Type::Readwrite, "a", "c"),
            permission(Type::Read, "e", ""),
            permission(Type::Read, "x", "\0"),
        ]);
        let reads = |key: &str, end: &str| {
            permissions.permits(Access::Read, key.as_bytes(), end.as_bytes())
        };
        assert!(reads("a", "e") && reads("b", "d") && reads("a", "e\0"));
        assert!(!reads("a", "e\0\0"), "one key ends before its successor");
        assert!(!reads("a", "f") && !reads("e\0", "") && !reads("a", "\0"));
        assert!(reads("x", "\0") && reads("zzz", "") && reads("y", "z"));
        assert!(!reads("w", "\0"));
        let writes = |key: &str, end: &str| {
            permissions.permits(Access::Write, key.as_bytes(), end.as_bytes())
        };
        assert!(writes("a", "c") && writes("bb", "") && !writes("c", "") && !writes("a", "d"));
        // An empty range counts for where it begins.
        assert!(reads("b", "a") && reads("b", "b") && !reads("f", "a"));
    }

    #[test]
    fn a_type_that_does_not_exist_permits_nothing() {
        let mut odd = permission(Type::Read, "a", "\0");
        odd.perm_type = 7;
        assert_eq!(merged(&[odd]), Permissions::default());
    }

    #[test]
    fn what_can_be_granted() {
        for (key, end, valid) in [
            ("", "", false),
            ("", "\0", false),
            ("a", "", true),
            ("a", "\0", true),
            ("\0", "\0", true),
            ("a", "b", true),
            ("a", "a", false),
            ("b", "a", false),
        ] {
            assert_eq!(
                is_valid(key.as_bytes(), end.as_bytes()),
                valid,
                "{key:?} {end:?}"
            );
        }
    }
}
