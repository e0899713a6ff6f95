//! What the cluster version becomes, and when a downgrade is over (spec versioning.md sections 3 and 4).

use ferrite_api::Version;

/// What is to be done about the cluster version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It stays.
    Keep,
    /// It becomes this.
    Set(Version),
    /// A downgrade leads somewhere that one cannot go from here.
    CannotDowngrade {
        /// What it cannot be reached from.
        from: From,
        /// Where it leads.
        target: Version,
    },
}

/// What a downgrade begins at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// The cluster version.
    Cluster(Version),
    /// The lowest version of a member.
    Members(Version),
}

/// Decides. `lowest` is the lowest version of all members, if all are known.
pub(super) fn decide(
    cluster: Option<Version>,
    lowest: Option<Version>,
    downgrade: Option<Version>,
) -> Decision {
    let Some(cluster) = cluster else {
        let first = lowest.map_or(Version::OLDEST_CLUSTER, Version::level);
        return Decision::Set(first);
    };
    let Some(lowest) = lowest else {
        return Decision::Keep;
    };
    match downgrade {
        Some(target) if target == cluster => Decision::Keep,
        Some(target) if cluster.level_before() != Some(target) => Decision::CannotDowngrade {
            from: From::Cluster(cluster),
            target,
        },
        Some(target) if lowest.level_before() != Some(target) => Decision::CannotDowngrade {
            from: From::Members(lowest),
            target,
        },
        Some(target) => Decision::Set(target),
        None if lowest.major == cluster.major && lowest.level() > cluster.level() => {
            Decision::Set(lowest.level())
        }
        None => Decision::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn v(minor: u64) -> Version {
        Version::new(3, minor, 0)
    }

    #[test]
    fn the_first_decision_is_what_all_can_do() {
        let lowest = Some(Version::new(3, 7, 1));
        assert_eq!(decide(None, lowest, None), Decision::Set(v(7)));
        assert_eq!(decide(None, None, None), Decision::Set(v(0)));
    }

    #[test]
    fn it_rises_to_the_lowest_member_and_never_falls() {
        let decided = |cluster, lowest| decide(Some(cluster), Some(lowest), None);
        let patched = Version::new(3, 7, 1);
        assert_eq!(decided(v(0), patched), Decision::Set(v(7)));
        assert_eq!(decided(v(6), patched), Decision::Set(v(7)));
        assert_eq!(decided(v(7), patched), Decision::Keep);
        assert_eq!(decided(v(7), v(6)), Decision::Keep);
        assert_eq!(decided(v(7), v(5)), Decision::Keep);
        assert_eq!(decided(v(7), Version::new(4, 0, 0)), Decision::Keep);
        assert_eq!(decide(Some(v(6)), None, None), Decision::Keep);
    }

    #[test]
    fn a_downgrade_lowers_it_by_one() {
        let decided = |cluster, lowest, target| decide(Some(cluster), Some(lowest), Some(target));
        let patched = Version::new(3, 7, 1);
        assert_eq!(decided(v(7), patched, v(6)), Decision::Set(v(6)));
        // Done: it does not rise again, whatever the members are.
        assert_eq!(decided(v(6), patched, v(6)), Decision::Keep);
        assert_eq!(decided(v(6), v(6), v(6)), Decision::Keep);
        assert_eq!(decide(Some(v(7)), None, Some(v(6))), Decision::Keep);
        let cannot = |from, target| Decision::CannotDowngrade { from, target };
        assert_eq!(
            decided(v(7), patched, v(5)),
            cannot(From::Cluster(v(7)), v(5))
        );
        assert_eq!(decided(v(7), v(8), v(6)), cannot(From::Members(v(8)), v(6)));
    }
}
