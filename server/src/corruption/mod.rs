//! Comparing the members' data by its hash (spec/cluster.md section 6): before a member that starts
//! again serves, every so often by the leader, and after compactions.
//!
//! What answers mean, [`judge`] decides; this module asks, at the times that the configuration says,
//! and raises the alarm.

mod judge;

use std::time::Duration;

use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::types::MemberId;
use ferrite_storage::mvcc::hash::KeyValueHash;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::task::AbortOnDropHandle;

use crate::config::{Config, Feature, GoDuration, Url};
use crate::error::Error;
use crate::handle::{Handle, WeakHandle};
use judge::{Asked, Own, Verdict};

/// Why a member that starts again does not serve.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Its data cannot be hashed.
    #[error("{member} failed to fetch hash ({error})")]
    NoHash {
        /// This member.
        member: MemberId,
        /// Why not.
        error: Error,
    },
    /// The data of this member is not that of the others.
    #[error("{0} found data inconsistency with peers")]
    Inconsistent(MemberId),
}

/// Compares a member's data with the others' before it takes part in the cluster.
///
/// # Errors
/// Another member has another hash, or this one none.
pub(crate) async fn initial_check(handle: &Handle) -> Result<(), Refusal> {
    let own = handle.member_id();
    tracing::info!(
        "local-member-id" = %own,
        timeout = %GoDuration::from(handle.request_timeout()),
        "starting initial corruption check"
    );
    let hash = hash_now(handle).await;
    let (hash, _) = hash.map_err(|error| Refusal::NoHash { member: own, error })?;
    let others = ask_others(handle, hash.revision).await;
    if judge::differs(own, hash, &others) {
        return Err(Refusal::Inconsistent(own));
    }
    tracing::info!(
        "local-member-id" = %own,
        "initial corruption checking passed; no corruption"
    );
    Ok(())
}

/// Begins the checks that go on while the member runs.
pub(crate) fn watch(config: &Config, handle: &Handle) {
    if let Some(period) = config.corrupt_check_time {
        tracing::info!(
            "local-member-id" = %handle.member_id(),
            interval = %GoDuration::from(period),
            "enabled corruption checking"
        );
        tokio::spawn(check_periodically(period, handle.downgrade()));
    }
    if config.features.is_on(Feature::CompactHashCheck) {
        let period = config.compact_hash_check_time;
        tokio::spawn(check_compactions(period, handle.downgrade()));
    }
}

async fn check_periodically(period: Duration, member: WeakHandle) {
    let mut timer = interval_at(Instant::now() + period, period);
    timer.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        timer.tick().await;
        let Some(handle) = member.upgrade() else {
            return;
        };
        if handle.leads()
            && let Err(error) = check_now(&handle).await
        {
            tracing::warn!(%error, "failed to check hash KV");
        }
    }
}

/// Compares the newest data of the leader with that of the others at the same revision.
async fn check_now(handle: &Handle) -> Result<(), Error> {
    let (before, _) = hash_now(handle).await?;
    let others = ask_others(handle, before.revision).await;
    // What they had applied when they answered is applied here after this.
    handle.linearizable_read().await?;
    let (after, revision) = hash_now(handle).await?;
    let own = Own {
        member: handle.member_id(),
        before,
        after,
        revision,
    };
    if let Some(member) = judge::periodic(own, &others) {
        raise(handle, member).await;
    }
    Ok(())
}

async fn check_compactions(period: Duration, member: WeakHandle) {
    let mut checked = 0;
    loop {
        tokio::time::sleep(period).await;
        let Some(handle) = member.upgrade() else {
            return;
        };
        if handle.leads() {
            checked = check_unchecked(&handle, checked).await;
        }
    }
}

/// Compares the hashes of compactions to revisions above `checked`, the newest first, until one
/// is known to all members. Returns the newest revision that all have agreed on.
async fn check_unchecked(handle: &Handle, checked: i64) -> i64 {
    let own = handle.member_id();
    tracing::info!(
        "local-member-id" = %own,
        timeout = %GoDuration::from(handle.request_timeout()),
        "starting compact hash check"
    );
    let mut hashes = handle.compaction_hashes();
    hashes.retain(|hash| hash.revision > checked);
    hashes.sort_by_key(|hash| std::cmp::Reverse(hash.revision));
    let (mut agreed, mut number) = (checked, 0);
    for hash in hashes {
        number += 1;
        let others = ask_others(handle, hash.revision).await;
        // Alone, there is nobody to agree with.
        if others.is_empty() {
            continue;
        }
        match judge::compaction(own, hash, &others) {
            Verdict::Incomplete => continue,
            Verdict::Agreed => agreed = agreed.max(hash.revision),
            Verdict::Corrupt(members) => {
                for member in members {
                    raise(handle, member).await;
                }
            }
        }
        break;
    }
    tracing::info!(
        "number-of-hashes-checked" = number,
        "finished compaction hash check"
    );
    agreed
}

/// The newest hash of this member, and its newest revision.
async fn hash_now(handle: &Handle) -> Result<(KeyValueHash, i64), Error> {
    let answer = handle.hash_kv(pb::HashKvRequest { revision: 0 }).await?;
    let hash = KeyValueHash {
        hash: answer.hash,
        compact_revision: answer.compact_revision,
        revision: answer.hash_revision,
    };
    Ok((hash, answer.header.unwrap_or_default().revision))
}

/// Asks all other members, at the same time, for their hash at a revision.
async fn ask_others(handle: &Handle, revision: i64) -> Vec<Asked> {
    let Some(peers) = handle.peers() else {
        return Vec::new();
    };
    let own = handle.member_id();
    let members = handle.members().to_api().into_iter();
    let others = members.filter(|member| member.id != own.get() && !member.peer_ur_ls.is_empty());
    let patience = handle.request_timeout();
    let asking = others.map(|member| {
        let peers = peers.clone();
        async move {
            let urls = member.peer_ur_ls;
            let usable: Vec<Url> = urls.iter().filter_map(|url| Url::parse(url).ok()).collect();
            Asked {
                answer: peers.fetch_hash(&usable, revision, patience).await,
                member: MemberId::new(member.id),
                urls,
            }
        }
    });
    let tasks: Vec<_> = asking
        .map(|task| AbortOnDropHandle::new(tokio::spawn(task)))
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        // One that has panicked has said nothing.
        answers.extend(task.await.ok());
    }
    answers
}

async fn raise(handle: &Handle, member: MemberId) {
    let alarm = pb::AlarmRequest {
        action: pb::alarm_request::AlarmAction::Activate as i32,
        member_id: member.get(),
        alarm: pb::AlarmType::Corrupt as i32,
    };
    if let Err(error) = handle.alarm(alarm).await {
        tracing::warn!(%member, %error, "failed to raise the CORRUPT alarm");
    }
}
