//! The page file's schema follows the cluster version, on every member: with a checkpoint of its own for
//! each step. So old programs find what they know, as of an entry behind which there is nothing that they
//! do not know, and a member that is cut off in between is at one step or the other.

use ferrite_api::Version;
use ferrite_storage::checkpoint::{Job, Reason};
use ferrite_storage::schema::{self, Step};

use super::{Fatal, Member};
use crate::release::InvalidDowngrade;

/// How far the page file is.
#[derive(Debug, Default)]
pub(super) struct Migration {
    /// The tick before which nobody looks.
    look_at: u64,
    /// Where it is to go.
    target: Option<Version>,
    /// A checkpoint is wanted, whatever else: entries that a lower version may not know are behind it.
    checkpoint: bool,
}

impl<T> Member<T> {
    /// Looks every 4 s whether the page file is in the schema of the cluster version.
    pub(super) fn tick_schema(&mut self) {
        if self.now >= self.migration.look_at {
            self.migration.look_at = self.now + self.options.version_ticks;
            self.want_migration();
        }
    }

    /// The cluster version was `before` and is another one now.
    pub(super) fn cluster_version_changed(&mut self, before: Option<Version>) -> Result<(), Fatal> {
        let Some(version) = self.state.cluster_version() else {
            return Ok(());
        };
        match before {
            None => tracing::info!(
                "cluster-id" = %self.state.cluster_id(),
                "local-member-id" = %self.state.member_id(),
                "cluster-version" = version.short(),
                "set initial cluster version"
            ),
            Some(before) => tracing::info!(
                "cluster-id" = %self.state.cluster_id(),
                "local-member-id" = %self.state.member_id(),
                from = before.short(),
                to = version.short(),
                "updated cluster version"
            ),
        }
        InvalidDowngrade::check(self.options.release, Some(version))?;
        tracing::info!(
            "cluster-version" = version.short(),
            "enabled capabilities for version"
        );
        if let Some(before) = before.filter(|before| version < *before) {
            tracing::info!(
                "prev-cluster-version" = %before,
                "new-cluster-version" = %version,
                "Cluster version downgrade detected, forcing snapshot"
            );
            self.migration.checkpoint = true;
        }
        self.migration.look_at = self.now;
        Ok(())
    }

    /// Another state has taken the place of the one that is to go somewhere.
    pub(super) fn state_replaced(&mut self) {
        self.migration = Migration {
            look_at: self.now,
            ..Migration::default()
        };
    }

    fn want_migration(&mut self) {
        self.migration.target = None;
        let Some(cluster) = self.state.cluster_version() else {
            return;
        };
        // While not everybody's version is known, the schema stays.
        if cluster == Version::OLDEST_CLUSTER {
            return;
        }
        let storage = schema::detect(&self.state.store().page().meta());
        if storage == Ok(cluster.level()) {
            return;
        }
        if let Ok(storage) = storage {
            tracing::info!(
                "cluster-version" = %cluster,
                "storage-version" = %storage,
                "cluster version differs from storage version."
            );
        }
        self.migration.target = Some(cluster.level());
    }

    /// The checkpoint that is due for the schema, if no job is running.
    pub(super) fn migration_job(&mut self) -> Option<Job> {
        if self.job_running {
            return None;
        }
        if let Some(target) = self.migration.target {
            match self.next_step(target) {
                Ok(Some(step)) => {
                    self.migration.checkpoint = false;
                    return self.state.migrate(step);
                }
                Ok(None) => {}
                Err(error) => tracing::error!(
                    "cluster-version" = %target,
                    error = error.explained(),
                    "failed to update storage version"
                ),
            }
            self.migration.target = None;
        }
        match std::mem::take(&mut self.migration.checkpoint) {
            true => self.state.next_job(&self.options.checkpoint, Reason::Aged),
            false => None,
        }
    }

    /// The next step, if there is one that may be taken now.
    fn next_step(&self, target: Version) -> Result<Option<Step>, schema::Error> {
        let Some(log) = self.log_version() else {
            return Ok(None);
        };
        let meta = self.state.store().page().meta();
        let steps = schema::plan_for(&meta, target, self.options.release, log)?;
        Ok(steps.into_iter().next())
    }

    /// What a member must be to apply the entries that no checkpoint of now has; `None` if that cannot
    /// be told without reading the log.
    fn log_version(&self) -> Option<Option<Version>> {
        let after = self.state.applied().get();
        let entries = self.driver.log().cached_after(after)?;
        Some(schema::log::version_of(entries))
    }

    /// The page file is in another schema.
    pub(super) fn migrated(&mut self, version: Version) {
        tracing::info!("new-storage-version" = %version, "updated storage version");
        if self.migration.target != Some(version) {
            return;
        }
        self.migration.target = None;
        if let Some(target) = self.state.downgrade() {
            tracing::info!(
                "target-version" = %target,
                "server-version" = %self.options.release,
                "The server is ready to downgrade"
            );
        }
    }
}
