//! What must be true of a cluster when the load has ended.

use anyhow::{Context, ensure};
use ferrite_client::GetOptions;

use super::{Fleet, PATIENCE};
use crate::ledger::{self, Ledger};

/// What the members agree on.
#[derive(Clone, Copy, Debug)]
pub struct Agreement {
    /// The revision that was compared.
    pub revision: i64,
    /// HashKV of it on every member.
    pub hash: u32,
    /// Writes that were acknowledged.
    pub acknowledged: usize,
    /// Writes that were applied although nobody was told.
    pub unacknowledged: usize,
    /// The term of the leader.
    pub term: u64,
}

/// Checks that every running member has every acknowledged write, and that all have the same.
///
/// # Errors
/// The first contradiction found.
pub async fn agree(fleet: &Fleet, ledger: &mut Ledger) -> anyhow::Result<Agreement> {
    let running = fleet.running();
    let revision = converged(fleet, &running).await?;
    let hash = same_hash(fleet, &running, revision).await?;
    let acknowledged = ledger.acknowledged();
    let mut unacknowledged = 0;
    for (nth, at) in running.iter().enumerate() {
        let name = fleet.members[*at].name();
        let client = fleet.client_of(*at).await?;
        let options = GetOptions::new().serializable().revision(revision);
        let (pairs, _) = ledger::everything(&client, ledger.first_key(), options)
            .await
            .with_context(|| format!("reading all of {name}"))?;
        let verdict = ledger
            .check(&pairs, revision)
            .with_context(|| format!("the data of {name}"))?;
        // The first check turns what it finds into acknowledged writes.
        if nth == 0 {
            unacknowledged = verdict.unacknowledged;
        }
    }
    let (_, leader) = fleet.leader().await?;
    Ok(Agreement {
        revision,
        hash,
        acknowledged,
        unacknowledged,
        term: leader.raft_term,
    })
}

/// Waits until all of `members` have applied what was acknowledged before, and returns a revision
/// that all of them have.
///
/// # Errors
/// One of them does not answer.
pub async fn converged(fleet: &Fleet, members: &[usize]) -> anyhow::Result<i64> {
    let mut revisions = Vec::new();
    for at in members {
        // Answered when this member has applied what was committed when it asked.
        let client = fleet.client_of(*at).await?.with_timeout(PATIENCE);
        let response = client
            .get("converged", GetOptions::new())
            .await
            .with_context(|| format!("a linearizable read of {}", fleet.members[*at].name()))?;
        revisions.push(response.header.context("no header")?.revision);
    }
    revisions.into_iter().min().context("nobody runs")
}

/// The HashKV of `revision`, if it is the same on all of `members`.
///
/// # Errors
/// It is not.
pub async fn same_hash(fleet: &Fleet, members: &[usize], revision: i64) -> anyhow::Result<u32> {
    let mut hashes = Vec::new();
    for at in members {
        let endpoint = fleet.members[*at].endpoint();
        let client = fleet.client_of(*at).await?;
        let response = client.maintenance().hash_kv(&endpoint, revision).await?;
        hashes.push((response.hash, response.compact_revision));
    }
    let first = *hashes.first().context("nobody runs")?;
    ensure!(
        hashes.iter().all(|it| *it == first),
        "HashKV and compact revision at revision {revision} differ: {hashes:?}"
    );
    Ok(first.0)
}

impl std::fmt::Display for Agreement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "all members agree at revision {} in term {}: hash {:08x}; {} writes acknowledged and there, {} \
             there without an answer",
            self.revision, self.term, self.hash, self.acknowledged, self.unacknowledged
        )
    }
}
