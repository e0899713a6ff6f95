//! `--force-new-cluster`: the others are lost, and the member of this data directory goes on alone.
//!
//! All that its log holds counts as committed from now on, and after it come entries that remove
//! everybody else; the usual start applies them. So there is one append to the log and nothing else:
//! a crash leaves the old log or the new one, or a part that the next start with this flag completes.
//!
//! Deviation: etcd drops entries that this member does not know to be committed. Here the commit
//! index is not written on its own, so among them may be the last that clients were told are safe.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use ferrite_api::types::{MemberId, RequestId};
use ferrite_disk::Disk;
use ferrite_raft::{Change, ConfChange, EntryKind, log};
use ferrite_storage::membership::{MembershipAction, MembershipChange};
use ferrite_storage::page::PageFile;

use super::Options;

/// Why it cannot.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The member has been added and has received nothing yet.
    #[error("--force-new-cluster: this member has no data to go on with")]
    Nothing,
    /// The log.
    #[error(transparent)]
    Log(#[from] ferrite_raft::Error),
}

/// Leaves this member as the only one of its cluster, if it is not.
pub(super) fn go_on_alone(
    disk: &Arc<dyn Disk>,
    options: &Options,
    wal_dir: &Path,
    page: &PageFile,
) -> Result<(), Error> {
    let meta = page.meta();
    let (own, conf) = (meta.member_id, meta.conf_state);
    if conf.voters.is_empty() {
        return Err(Error::Nothing);
    }
    let mut seen = Seen::default();
    let recovered = log::recover_watched(
        Arc::clone(disk),
        wal_dir,
        &super::log_options(options),
        &mut |_, record| seen.look(record),
    )?;
    let mut others: BTreeSet<u64> = conf.voters.iter().chain(&conf.learners).copied().collect();
    let is_voter = conf.voters.contains(&own);
    // More than there are do no harm: the removal of who is no member is refused when it is applied.
    others.extend(&seen.added);
    others.remove(&own);
    if is_voter && others.is_empty() {
        return Ok(());
    }
    let committed = recovered.hard_state.commit.max(meta.consistent_index);
    // It would leave nobody. If it is known to be committed, this member was removed for good.
    let drop_from = seen.removed_at(own).filter(|index| *index > committed);
    let mut actions = Vec::new();
    if !is_voter || seen.added.contains(&own) {
        let id = MemberId::new(own);
        actions.push((Change::AddVoter(own), MembershipAction::Promote { id }));
    }
    actions.extend(others.into_iter().map(|id| {
        let action = MembershipAction::Remove {
            id: MemberId::new(id),
        };
        (Change::Remove(id), action)
    }));
    let changes: Vec<ConfChange> = actions
        .into_iter()
        .map(|(change, action)| {
            // Nobody waits for it.
            let request = RequestId::new(0);
            ConfChange::new(change, MembershipChange { request, action }.encode())
        })
        .collect();
    tracing::warn!(
        member_id = %MemberId::new(own),
        last_index = recovered.log.last(),
        committed,
        "forcing a new cluster of this member alone"
    );
    log::take_over(recovered, drop_from, &changes)?;
    Ok(())
}

/// Changes of the configuration in the log, also those of entries that were replaced.
#[derive(Default)]
struct Seen {
    added: BTreeSet<u64>,
    /// By index, as far as they were not replaced.
    removed: std::collections::BTreeMap<u64, u64>,
}

impl Seen {
    fn look(&mut self, record: log::Logged) {
        match record {
            log::Logged::Entry { index, kind, .. } => {
                // It replaces everything from its index on.
                self.removed.split_off(&index);
                let EntryKind::ConfChange(change) = kind else {
                    return;
                };
                for change in change.changes {
                    match change {
                        Change::AddVoter(id) | Change::AddLearner(id) => {
                            self.added.insert(id);
                        }
                        Change::Remove(id) => {
                            self.removed.insert(index, id);
                        }
                    }
                }
            }
            log::Logged::Snapshot(_) => self.removed.clear(),
            log::Logged::Metadata(_) | log::Logged::HardState(_) | log::Logged::Truncated(_) => {}
        }
    }

    /// Where the log removes a member.
    fn removed_at(&self, id: u64) -> Option<u64> {
        let removed = self.removed.iter().find(|(_, removed)| **removed == id);
        removed.map(|(index, _)| *index)
    }
}
