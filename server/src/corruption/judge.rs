//! What answers mean: etcd's rules (spec/cluster.md section 6), without asking anybody. Each says in
//! the log what it has found.

use std::collections::BTreeMap;

use ferrite_api::types::MemberId;
use ferrite_storage::mvcc::hash::KeyValueHash;

use crate::peer::{NoHash, RemoteHash};

/// What another member has said.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) member: MemberId,
    pub(super) urls: Vec<String>,
    pub(super) answer: Result<RemoteHash, NoHash>,
}

/// Whether a member that starts again may have other data than the others: only a difference at the
/// same revision after the same compaction tells anything.
pub(super) fn differs(own: MemberId, hash: KeyValueHash, others: &[Asked]) -> bool {
    let mut mismatch = false;
    for Asked {
        member,
        urls,
        answer,
    } in others
    {
        match answer {
            Ok(theirs) if theirs.hash.hash == hash.hash => {}
            Ok(theirs) => {
                let same = theirs.hash.compact_revision == hash.compact_revision;
                mismatch |= same;
                let what = if same { "hash" } else { "compact revision" };
                tracing::warn!(
                    "local-member-id" = %own,
                    "local-member-revision" = hash.revision,
                    "local-member-compact-revision" = hash.compact_revision,
                    "local-member-hash" = hash.hash,
                    "remote-peer-id" = %member,
                    "remote-peer-endpoints" = ?urls,
                    "remote-peer-revision" = theirs.revision,
                    "remote-peer-compact-revision" = theirs.hash.compact_revision,
                    "remote-peer-hash" = theirs.hash.hash,
                    "found different {what} values from remote peer"
                );
            }
            Err(error) => {
                let what = match error {
                    NoHash::Future => "cannot fetch hash from slow remote peer",
                    NoHash::Compacted => {
                        "cannot fetch hash from remote peer; local member is behind"
                    }
                    NoHash::OtherCluster => "cluster ID mismatch",
                    // Said where it was asked.
                    NoHash::NoUrl | NoHash::Call(_) => continue,
                };
                tracing::warn!(
                    "local-member-id" = %own,
                    "local-member-revision" = hash.revision,
                    "local-member-compact-revision" = hash.compact_revision,
                    "local-member-hash" = hash.hash,
                    "remote-peer-id" = %member,
                    "remote-peer-endpoints" = ?urls,
                    %error,
                    "{what}"
                );
            }
        }
    }
    mismatch
}

/// What a leader knows when the others have answered. `before` is its hash when they were asked,
/// `after` and `revision` what it has after a read that was confirmed since.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    pub(super) member: MemberId,
    pub(super) before: KeyValueHash,
    pub(super) after: KeyValueHash,
    pub(super) revision: i64,
}

/// The member that a periodic check finds corrupt, if any: the first one.
pub(super) fn periodic(own: Own, others: &[Asked]) -> Option<MemberId> {
    let mut corrupt = None;
    let mut found = |member| {
        corrupt.get_or_insert(member);
    };
    let Own { before, after, .. } = own;
    if before.hash != after.hash
        && before.revision == after.revision
        && before.compact_revision == after.compact_revision
    {
        tracing::warn!(
            "revision-1" = before.revision,
            "compact-revision-1" = before.compact_revision,
            "hash-1" = before.hash,
            "revision-2" = after.revision,
            "compact-revision-2" = after.compact_revision,
            "hash-2" = after.hash,
            "found hash mismatch"
        );
        found(own.member);
    }
    let mut checked = 0;
    for asked in others {
        let Ok(theirs) = &asked.answer else { continue };
        let member = asked.member;
        checked += 1;
        if theirs.revision > own.revision {
            tracing::warn!(
                "leader-revision" = own.revision,
                "follower-revision" = theirs.revision,
                "follower-peer-id" = %member,
                "revision from follower must be less than or equal to leader's"
            );
            found(member);
        }
        if theirs.hash.compact_revision > after.compact_revision {
            tracing::warn!(
                "leader-compact-revision" = after.compact_revision,
                "follower-compact-revision" = theirs.hash.compact_revision,
                "follower-peer-id" = %member,
                "compact revision from follower must be less than or equal to leader's"
            );
            found(member);
        }
        if theirs.hash.compact_revision == before.compact_revision
            && theirs.hash.hash != before.hash
        {
            tracing::warn!(
                "leader-compact-revision" = after.compact_revision,
                "leader-hash" = before.hash,
                "follower-compact-revision" = theirs.hash.compact_revision,
                "follower-hash" = theirs.hash.hash,
                "follower-peer-id" = %member,
                "same compact revision then hashes must match"
            );
            found(member);
        }
    }
    tracing::info!(
        "number-of-peers-checked" = checked,
        "finished peer corruption check"
    );
    corrupt
}

/// What the hashes of one compaction say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All members have the same.
    Agreed,
    /// Those that have it have the same; others have not, or have not answered.
    Incomplete,
    /// These have another one than the majority; member 0 stands for a cluster without a majority.
    Corrupt(Vec<MemberId>),
}

/// Compares the leader's hash of a compaction with the others'.
pub(super) fn compaction(leader: MemberId, hash: KeyValueHash, others: &[Asked]) -> Verdict {
    let mut members = BTreeMap::from([(hash.hash, vec![leader])]);
    let mut checked = 0;
    for asked in others {
        let reason = match &asked.answer {
            Ok(theirs) if theirs.hash.compact_revision == hash.compact_revision => {
                checked += 1;
                let same = members.entry(theirs.hash.hash).or_default();
                same.push(asked.member);
                continue;
            }
            Ok(theirs) => format!(
                "the peer's CompactRevision {} doesn't match leader's CompactRevision {}",
                theirs.hash.compact_revision, hash.compact_revision
            ),
            Err(_) => "no response".to_owned(),
        };
        tracing::warn!(
            "number-of-peers" = others.len(),
            "leader-id" = %leader,
            "peer-id" = %asked.member,
            reason,
            "Skipped peer's hash"
        );
    }
    if members.len() == 1 {
        return agreed(hash, checked, others.len());
    }
    let quorum = others.len().div_ceil(2) + 1;
    let right = members.iter().find(|(_, same)| same.len() >= quorum);
    let right = right.map(|(hash, _)| *hash);
    if let Some(right) = right {
        members.remove(&right);
    } else {
        tracing::error!(
            "leader-id" = %leader,
            "leader-revision" = hash.revision,
            "leader-compact-revision" = hash.compact_revision,
            "leader-hash" = hash.hash,
            "Detected compaction hash mismatch but cannot identify the corrupted members, so intentionally set the memberID as 0"
        );
    }
    for (theirs, same) in &members {
        let ids: Vec<_> = same.iter().map(MemberId::to_string).collect();
        tracing::error!(
            "leader-id" = %leader,
            "leader-revision" = hash.revision,
            "leader-compact-revision" = hash.compact_revision,
            "leader-hash" = hash.hash,
            "peer-hash" = theirs,
            "peer-ids" = ids.join(","),
            "quorum-exist" = right.is_some(),
            "Detected compaction hash mismatch"
        );
    }
    Verdict::Corrupt(match right {
        Some(_) => members.into_values().flatten().collect(),
        None => vec![MemberId::new(0)],
    })
}

fn agreed(hash: KeyValueHash, checked: usize, others: usize) -> Verdict {
    if checked == others {
        tracing::info!(
            "number-of-peers-checked" = checked,
            revision = hash.revision,
            compactRevision = hash.compact_revision,
            "successfully checked hash on whole cluster"
        );
        return Verdict::Agreed;
    }
    tracing::warn!(
        "number-of-peers-checked" = checked,
        "number-of-peers" = others,
        revision = hash.revision,
        compactRevision = hash.compact_revision,
        "skipped revision in compaction hash check; was not able to check all peers"
    );
    Verdict::Incomplete
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: MemberId = MemberId::new(1);

    fn hash(hash: u32, compact_revision: i64) -> KeyValueHash {
        KeyValueHash {
            hash,
            compact_revision,
            revision: 10,
        }
    }

    fn says(member: u64, value: u32, compact_revision: i64, revision: i64) -> Asked {
        Asked {
            member: MemberId::new(member),
            urls: Vec::new(),
            answer: Ok(RemoteHash {
                hash: hash(value, compact_revision),
                revision,
            }),
        }
    }

    fn fails(member: u64, error: NoHash) -> Asked {
        Asked {
            member: MemberId::new(member),
            urls: Vec::new(),
            answer: Err(error),
        }
    }

    #[test]
    fn a_start_is_refused_by_another_hash_after_the_same_compaction_only() {
        let differs = |others: &[Asked]| differs(OWN, hash(7, 3), others);
        assert!(!differs(&[]));
        let pass = [
            says(2, 7, 3, 99),
            says(3, 8, 4, 99),
            fails(4, NoHash::Compacted),
            fails(5, NoHash::Future),
            fails(6, NoHash::OtherCluster),
            fails(7, NoHash::NoUrl),
        ];
        assert!(!differs(&pass));
        // One is enough: the member cannot know who is right.
        assert!(differs(&[says(2, 7, 3, 99), says(3, 8, 3, 99)]));
    }

    fn own(before: KeyValueHash, after: KeyValueHash) -> Own {
        Own {
            member: OWN,
            before,
            after,
            revision: 12,
        }
    }

    #[test]
    fn a_periodic_check_finds_the_first_that_cannot_be_right() {
        let same = own(hash(7, 3), hash(7, 3));
        let id = |member| Some(MemberId::new(member));
        let clean = [
            says(2, 7, 3, 12),
            says(3, 9, 2, 11),
            fails(4, NoHash::Future),
        ];
        assert_eq!(periodic(same, &clean), None);
        assert_eq!(periodic(same, &[says(2, 7, 3, 13)]), id(2), "ahead");
        assert_eq!(
            periodic(same, &[says(2, 7, 4, 12)]),
            id(2),
            "compacted more"
        );
        let two = [says(2, 7, 3, 12), says(3, 8, 3, 12), says(4, 9, 3, 12)];
        assert_eq!(periodic(same, &two), id(3), "differs");
        // The leader itself, but not if it has changed meanwhile.
        let changed = own(hash(7, 3), hash(8, 3));
        assert_eq!(periodic(changed, &two), id(1));
        let compacted = own(hash(7, 3), hash(8, 5));
        assert_eq!(periodic(compacted, &[says(2, 7, 3, 12)]), None);
        let later = KeyValueHash {
            revision: 11,
            ..hash(8, 3)
        };
        assert_eq!(periodic(own(hash(7, 3), later), &[]), None);
    }

    #[test]
    fn the_majority_is_right_about_a_compaction() {
        let judge = |others: &[Asked]| compaction(OWN, hash(7, 3), others);
        let ids = |members: &[u64]| {
            Verdict::Corrupt(members.iter().copied().map(MemberId::new).collect())
        };
        assert_eq!(
            judge(&[says(2, 7, 3, 0), says(3, 7, 3, 0)]),
            Verdict::Agreed
        );
        for absent in [fails(3, NoHash::Future), says(3, 8, 2, 0)] {
            let others = [says(2, 7, 3, 0), absent];
            assert_eq!(judge(&others), Verdict::Incomplete);
        }
        assert_eq!(judge(&[says(2, 7, 3, 0), says(3, 8, 3, 0)]), ids(&[3]));
        // The leader can be the one.
        assert_eq!(judge(&[says(2, 8, 3, 0), says(3, 8, 3, 0)]), ids(&[1]));
        // A majority of all members, not of those that have answered.
        let half = [says(2, 8, 3, 0), fails(3, NoHash::Future)];
        assert_eq!(judge(&half), ids(&[0]));
        assert_eq!(judge(&[says(2, 8, 3, 0)]), ids(&[0]));
        let four = [says(2, 7, 3, 0), says(3, 8, 3, 0), says(4, 8, 3, 0)];
        assert_eq!(judge(&four), ids(&[0]));
        let five = [
            says(2, 8, 3, 0),
            says(3, 7, 3, 0),
            says(4, 9, 3, 0),
            says(5, 7, 3, 0),
        ];
        assert_eq!(judge(&five), ids(&[2, 4]));
    }
}
