//! Room on the disk: the quota, disks that are full, and what of the log is given back.

use ferrite_api::pb::etcdserverpb::alarm_request::AlarmAction;
use ferrite_api::pb::etcdserverpb::{AlarmRequest, AlarmType, InternalRaftRequest};
use ferrite_raft::Append;

use super::Member;

impl<T> Member<T> {
    /// etcd's second look at the quota. What was applied stays, but its client learns that there is
    /// no room for more, and the cluster by an alarm. Entries that are applied again at the start
    /// had their look when they were new.
    pub(super) fn check_quota(
        &mut self,
        allocated: u64,
        cost: u64,
    ) -> Result<(), ferrite_api::Error> {
        let quota = self.options.quota;
        if !self.published.ready() || quota.admits(allocated, cost) {
            return Ok(());
        }
        let raised = self.state.alarms().is_active(AlarmType::Nospace);
        if !raised && self.now >= self.alarm_at {
            self.alarm_at = self.now + self.options.request_ticks;
            tracing::warn!(
                "quota-size-bytes" = quota.bytes,
                "quota-size" = quota.text(),
                error = "etcdserver: no space",
                "message exceeded backend quota; raising alarm"
            );
            self.propose_own(InternalRaftRequest {
                alarm: Some(AlarmRequest {
                    action: AlarmAction::Activate as i32,
                    member_id: self.state.member_id().get(),
                    alarm: AlarmType::Nospace as i32,
                }),
                ..InternalRaftRequest::default()
            });
        }
        Err(ferrite_api::Error::NoSpace)
    }

    /// Drops raft entries that the page file has absorbed, and the segments that held them.
    pub(super) fn compact_log(&mut self) {
        let to = ferrite_raft::should_compact(
            self.driver.status().first_index.saturating_sub(1),
            self.state.applied().get(),
            self.checkpointed,
            self.options.snapshot_count,
            self.options.catchup_entries,
        );
        if let Some(to) = to
            && self.driver.compact(to)
        {
            tracing::info!(
                to,
                applied = self.state.applied().get(),
                "compacted the raft log"
            );
        }
    }

    pub(super) fn next_append(&mut self) -> Option<Append> {
        if self.log_full && !std::mem::take(&mut self.retry_append) {
            return None;
        }
        self.append.pop_front()
    }

    /// Segments that no entry of the log needs any more, if there are new ones.
    pub(super) fn next_release(&mut self) -> Option<u64> {
        let releasable = self.driver.releasable_before();
        if releasable <= self.released {
            return None;
        }
        self.released = releasable;
        Some(releasable)
    }

    pub(super) fn set_log_full(&mut self, full: bool) {
        if self.log_full != full {
            self.log_full = full;
            if full {
                tracing::error!(
                    "no space for the next log segment; refusing writes until there is"
                );
            } else {
                tracing::info!("the log has space again; accepting writes");
            }
            self.publish_space();
        }
    }

    pub(super) fn publish_space(&self) {
        self.published.set_no_space(self.page_full || self.log_full);
    }
}
