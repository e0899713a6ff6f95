//! Which clusters a program of some version may be in (spec versioning.md section 3).

use std::ops::RangeInclusive;

use ferrite_api::Version;

/// A program in a cluster whose version is above its own: others may have written what it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid downgrade; server version is lower than determined cluster version (this is {release}, the \
     cluster is {cluster}: downgrade the cluster first)"
)]
pub struct InvalidDowngrade {
    /// The program's version.
    pub release: Version,
    /// The cluster's.
    pub cluster: Version,
}

impl InvalidDowngrade {
    /// Refuses a cluster version above the program's.
    ///
    /// # Errors
    /// It is.
    pub fn check(release: Version, cluster: Option<Version>) -> Result<(), Self> {
        match cluster {
            Some(cluster) if release.level() < cluster.level() => Err(Self { release, cluster }),
            _ => Ok(()),
        }
    }
}

/// The cluster versions at which a program may join. A cluster that goes back to this program's level may
/// still be at the level above.
pub(crate) fn joinable(release: Version, downgrading: bool) -> RangeInclusive<Version> {
    match downgrading {
        true => release.level_after()..=release.level_after(),
        false => Version::OLDEST_CLUSTER..=release.level(),
    }
}
