//! When to drop entries of the log.

/// Up to which index the log should be compacted now, if at all; etcd's rule (`spec/snapshots.md` 2), with the checkpoint in place of its
/// snapshot.
///
/// * `compacted`: up to where it was compacted last;
/// * `applied`: entries up to here have been applied;
/// * `checkpointed`: entries up to here are durable in the page file: nothing above it may be dropped, ever;
/// * `snapshot_count`: entries between two compactions, etcd's `--snapshot-count`;
/// * `catchup_entries`: entries kept behind `applied` for followers, etcd's `--snapshot-catchup-entries`.
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
