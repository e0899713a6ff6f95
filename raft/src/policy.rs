//! When to drop entries of the log.

/// Up to which index the log should be compacted now, if at all; etcd's rule (`spec/snapshots.md`
/// 2), with the checkpoint in place of its snapshot.
///
/// * `compacted`: up to where it was compacted last;
/// * `applied`: entries up to here have been applied;
/// * `checkpointed`: entries up to here are durable in the page file: nothing above it may be
///   dropped, ever;
/// * `snapshot_count`: entries between two compactions, etcd's `--snapshot-count`;
/// * `catchup_entries`: entries kept behind `applied` for followers, etcd's
///   `--snapshot-catchup-entries`.
pub fn should_compact(
    compacted: u64,
    applied: u64,
    checkpointed: u64,
    snapshot_count: u64,
    catchup_entries: u64,
) -> Option<u64> {
    if applied.saturating_sub(compacted) <= snapshot_count {
        return None;
    }
    let to = checkpointed.min(applied.saturating_sub(catchup_entries));
    (to > compacted).then_some(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_dropped_when_enough_came_and_never_above_the_checkpoint() {
        let should = |compacted, applied, checkpointed| {
            should_compact(compacted, applied, checkpointed, 10_000, 5_000)
        };
        assert_eq!(should(0, 10_000, 10_000), None);
        assert_eq!(should(0, 10_001, 10_001), Some(5_001));
        assert_eq!(should(0, 10_001, 3_000), Some(3_000));
        assert_eq!(should(0, 10_001, 0), None);
        assert_eq!(should(5_001, 15_001, 15_001), None);
        assert_eq!(should(5_001, 15_002, 15_002), Some(10_002));
        // A checkpoint that does not move blocks it.
        assert_eq!(should(5_001, 50_000, 5_001), None);
        assert_eq!(should(9, 8, 8), None);
    }

    #[test]
    fn extreme_settings_do_not_overflow() {
        assert_eq!(should_compact(0, 1, 1, 0, 0), Some(1));
        assert_eq!(should_compact(0, 1, 1, 0, u64::MAX), None);
        assert_eq!(should_compact(0, u64::MAX, u64::MAX, u64::MAX, 0), None);
    }
}
