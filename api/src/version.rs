//! Versions of servers, clusters and storage: `major.minor.patch`, as etcd writes them.

use std::fmt;

/// A version. Clusters and storage have [levels](Version::level): versions whose last part is 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Version {
    /// Changes when nothing fits together any more.
    pub major: u64,
    /// Changes with what the members of a cluster can do, and with the storage schema.
    pub minor: u64,
    /// Changes with everything else.
    pub patch: u64,
}

impl Version {
    /// etcd's level that this workspace speaks: what servers and tools say that they are.
    pub const RELEASE: Version = Version::new(3, 7, 1);

    /// The oldest cluster that a server of this level can be in. Also what a cluster says that does not
    /// know yet what all its members can do.
    pub const OLDEST_CLUSTER: Version = Version::new(3, 0, 0);

    /// A version.
    pub const fn new(major: u64, minor: u64, patch: u64) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }

    /// The version that a text is: three numbers, and perhaps a pre-release (`-rc.1`) and a build
    /// (`+abc`), which do not count here.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.split_once('+').map_or(text, |(text, _)| text);
        let text = text.split_once('-').map_or(text, |(text, _)| text);
        let mut parts = text.split('.').map(number);
        let version = Self::new(parts.next()??, parts.next()??, parts.next()??);
        parts.next().is_none().then_some(version)
    }

    /// The level: this version without its last part.
    #[must_use]
    pub const fn level(self) -> Self {
        Self::new(self.major, self.minor, 0)
    }

    /// The level before this one's; `None` if it is the first of its major version.
    pub const fn level_before(self) -> Option<Self> {
        match self.minor.checked_sub(1) {
            Some(minor) => Some(Self::new(self.major, minor, 0)),
            None => None,
        }
    }

    /// The level after this one's.
    #[must_use]
    pub const fn level_after(self) -> Self {
        Self::new(self.major, self.minor.saturating_add(1), 0)
    }

    /// `3.7`.
    pub fn short(self) -> String {
        format!("{}.{}", self.major, self.minor)
    }
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // Go's integers, in which etcd keeps them.
    let number = text.parse::<i64>().ok().filter(|_| digits)?;
    u64::try_from(number).ok()
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_are_versions_and_others() {
        for (text, version) in [
            ("3.7.1", Some(Version::new(3, 7, 1))),
            ("3.06.0", Some(Version::new(3, 6, 0))),
            ("3.7.0-rc.1", Some(Version::new(3, 7, 0))),
            ("3.7.0+git.1", Some(Version::new(3, 7, 0))),
            ("3.7.0-a+b-c", Some(Version::new(3, 7, 0))),
            ("", None),
            ("3.7", None),
            ("3.7.0.1", None),
            ("3.7.x", None),
            ("3..0", None),
            ("+3.7.0", None),
            ("3.7. 0", None),
            ("not_decided", None),
            ("3.7.9223372036854775808", None),
        ] {
            assert_eq!(Version::parse(text), version, "{text}");
        }
    }

    #[test]
    fn levels_are_in_order() {
        let version = Version::new(3, 7, 1);
        assert_eq!(version.to_string(), "3.7.1");
        assert_eq!(version.short(), "3.7");
        assert_eq!(version.level(), Version::new(3, 7, 0));
        assert_eq!(version.level_before(), Some(Version::new(3, 6, 0)));
        assert_eq!(version.level_after(), Version::new(3, 8, 0));
        assert_eq!(Version::new(3, 0, 5).level_before(), None);
        assert!(version.level() < version && version < version.level_after());
    }
}
