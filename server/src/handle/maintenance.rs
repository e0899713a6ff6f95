//! What a member says about itself and its cluster: status, members, alarms, versions, health.

use std::time::Instant;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::{Error as ApiError, Version};
use ferrite_storage::apply::outcome::Response;
use ferrite_storage::auth::Auth;
use ferrite_storage::members::Members;
use ferrite_storage::mvcc::hash::{HashError, Hashing, KeyValueHash};
use ferrite_storage::mvcc::view::View;
use ferrite_storage::schema;
use prost::Message;
use tokio::sync::watch;
use tonic::Code;

use super::{Handle, Inner, mixed_up, signed};
use crate::config::Feature;
use crate::error::Error;
use crate::member::{Cluster, Input, Published, Reply};
use crate::metrics::RequestKind;

/// How often a hash is begun again because a compaction has overtaken it. Each time takes the
/// patience of a compaction, so a store that does it twice is compacted all the time.
const HASH_ATTEMPTS: u32 = 3;

/// The versions of `/version`.
#[derive(Clone, Debug)]
pub struct Versions {
    /// This program's level, `3.7.1`.
    pub server: String,
    /// The cluster version, `3.7.0`, once decided.
    pub cluster: Option<String>,
    /// The storage schema version, `3.7.0`, once known.
    pub storage: Option<String>,
}

impl Versions {
    pub(crate) fn of(published: &Published) -> Self {
        let cluster = published.cluster().version;
        Self {
            server: published.release().to_string(),
            cluster: cluster.map(|version| version.to_string()),
            storage: storage_version(published),
        }
    }
}

impl Handle {
    /// Maintenance.Status.
    ///
    /// # Errors
    /// As etcd's.
    pub async fn status_for_caller(&self) -> Result<pb::StatusResponse, Error> {
        self.check_login().await?;
        Ok(self.status())
    }

    /// As [`Handle::status_for_caller`], for anybody: local, never waits.
    pub fn status(&self) -> pb::StatusResponse {
        let Inner {
            published, limits, ..
        } = &*self.inner;
        let view = published.view();
        let sizes = view.page.sizes();
        let leader = published.leader();
        // In this order: what is applied is committed.
        let raft_applied_index = published.applied();
        let raft_index = published.committed();
        let mut errors = Vec::new();
        if leader == 0 {
            errors.push(ApiError::NoLeader.message().to_owned());
        }
        errors.extend(self.alarms().iter().map(|alarm| {
            format!(
                "memberID:{} alarm:{}",
                alarm.member_id,
                alarm.alarm().as_str_name()
            )
        }));
        pb::StatusResponse {
            header: Some(self.header(view.revision)),
            version: published.release().to_string(),
            db_size: signed(sizes.allocated),
            leader,
            raft_index,
            raft_term: published.term(),
            raft_applied_index,
            errors,
            db_size_in_use: signed(sizes.in_use),
            is_learner: self.is_learner(),
            storage_version: storage_version(published).unwrap_or_default(),
            db_size_quota: limits.quota.bytes,
            downgrade_info: Some(downgrade_info(published.cluster().downgrade)),
        }
    }

    /// Cluster.MemberList.
    ///
    /// # Errors
    /// As etcd's.
    pub async fn member_list(
        &self,
        request: pb::MemberListRequest,
    ) -> Result<pb::MemberListResponse, Error> {
        if request.linearizable {
            self.view(false).await?;
        }
        self.check_login().await?;
        let members = self.inner.published.cluster().members.to_api();
        // Membership has no store revision: etcd answers 0.
        Ok(pb::MemberListResponse {
            header: Some(self.header(0)),
            members,
        })
    }

    /// All members.
    pub(crate) fn members(&self) -> Members {
        self.inner.published.cluster().members.clone()
    }

    /// Active alarms of all members.
    pub fn alarms(&self) -> Vec<pb::AlarmMember> {
        self.inner
            .published
            .cluster()
            .alarms
            .list(pb::AlarmType::None as i32)
    }

    /// Maintenance.Alarm.
    ///
    /// # Errors
    /// As etcd's; an action that does not exist (etcd crashes on one).
    pub async fn alarm(&self, request: pb::AlarmRequest) -> Result<pb::AlarmResponse, Error> {
        match pb::alarm_request::AlarmAction::try_from(request.action) {
            Ok(pb::alarm_request::AlarmAction::Get) => self.check_login().await?,
            _ => self.check_admin().await?,
        }
        if pb::alarm_request::AlarmAction::try_from(request.action).is_err() {
            let text = "etcdserver: unknown alarm action";
            return Err(Error::status(Code::InvalidArgument, text));
        }
        self.propose_alarm(request).await
    }

    /// As [`Handle::alarm`], whoever calls.
    pub(super) async fn propose_alarm(
        &self,
        request: pb::AlarmRequest,
    ) -> Result<pb::AlarmResponse, Error> {
        let request = pb::InternalRaftRequest {
            alarm: Some(request),
            ..Default::default()
        };
        let applied = self.propose(RequestKind::Alarm, request).await?;
        let Response::Alarm(alarms) = applied.result? else {
            return Err(mixed_up());
        };
        let header = Some(self.header(applied.view.revision));
        Ok(pb::AlarmResponse { header, alarms })
    }

    /// Maintenance.Defragment: of this member's page file. Reads and writes go on meanwhile, where etcd
    /// stops them. The answer has no header, as etcd's.
    ///
    /// # Errors
    /// The file could not be rebuilt; it is as it was.
    pub async fn defragment(&self) -> Result<pb::DefragmentResponse, Error> {
        self.check_admin().await?;
        let path = self.inner.page_path.clone();
        let paused = self.is_on(Feature::StopGRPCServiceOnDefrag);
        let _paused = paused.then(|| self.inner.paused.begin());
        let reply = self
            .ask(|waiter| Input::Defragment { path, waiter })
            .await?;
        match reply {
            Reply::Done => Ok(pb::DefragmentResponse { header: None }),
            Reply::Failed(error) => Err(error),
            _ => Err(mixed_up()),
        }
    }

    /// How many defragmentations are running that the health service has to tell of.
    pub(crate) fn paused(&self) -> watch::Receiver<usize> {
        self.inner.paused.0.subscribe()
    }

    /// Maintenance.HashKV: of this member's own state.
    ///
    /// # Errors
    /// As etcd's. Also the compacted error when compactions have overtaken it again and again.
    pub async fn hash_kv(&self, request: pb::HashKvRequest) -> Result<pb::HashKvResponse, Error> {
        self.check_admin().await?;
        let published = &self.inner.published;
        let hash = match published.hashes().get(request.revision) {
            Some(hash) => hash,
            None => {
                let begun = Instant::now();
                let hash = self.hash_at(request.revision).await?;
                let mvcc = &self.inner.metrics.mvcc;
                mvcc.hash_rev_duration
                    .observe(begun.elapsed().as_secs_f64());
                hash
            }
        };
        Ok(pb::HashKvResponse {
            header: Some(self.header(published.view().revision)),
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            hash_revision: hash.revision,
        })
    }

    /// Maintenance.Hash: of everything that is replicated, as this member has it now. Members with
    /// the same state have the same hash.
    ///
    /// Deviation: etcd hashes the bytes of its file; this is another number, over the alarms, the
    /// cluster version, the downgrade, the members, users and roles as the page file holds them, and the
    /// hash of the key space.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn hash(&self) -> Result<pb::HashResponse, Error> {
        self.check_admin().await?;
        let begun = Instant::now();
        let keys = self.hash_at(0).await?;
        let published = &self.inner.published;
        let hash = hash_all(&published.cluster(), &published.auth(), &keys);
        let mvcc = &self.inner.metrics.mvcc;
        mvcc.hash_duration.observe(begun.elapsed().as_secs_f64());
        let header = Some(self.header(keys.revision));
        Ok(pb::HashResponse { header, hash })
    }

    /// The hashes that the last compactions have left here, by revision.
    pub(crate) fn compaction_hashes(&self) -> Vec<KeyValueHash> {
        self.inner.published.hashes().all()
    }

    async fn hash_at(&self, revision: i64) -> Result<KeyValueHash, Error> {
        for _ in 0..HASH_ATTEMPTS {
            let view = View::clone(&self.inner.published.view());
            let hashing = Hashing::at(view, revision);
            let hashed = self
                .run(true, move || Ok(hashing.and_then(Hashing::run)))
                .await?;
            return match hashed {
                Ok(hash) => Ok(hash),
                Err(HashError::Overtaken) => continue,
                Err(HashError::Compacted) => Err(ApiError::Compacted.into()),
                Err(HashError::Future) => Err(ApiError::FutureRev.into()),
                Err(HashError::Storage(error)) => {
                    tracing::error!(%error, "failed to hash the key space");
                    Err(Error::status(Code::DataLoss, error.to_string()))
                }
            };
        }
        Err(ApiError::Compacted.into())
    }

    /// The three versions.
    pub fn versions(&self) -> Versions {
        Versions::of(&self.inner.published)
    }

    /// A read of the local state that succeeds if the store can be read (livez, readyz).
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn serializable_read(&self) -> Result<(), Error> {
        self.probe(true).await
    }

    /// A confirmed read (readyz, health).
    ///
    /// # Errors
    /// The read could not be confirmed or done.
    pub async fn linearizable_read(&self) -> Result<(), Error> {
        self.probe(false).await
    }

    async fn probe(&self, serializable: bool) -> Result<(), Error> {
        let request = pb::RangeRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            limit: 1,
            serializable,
            ..Default::default()
        };
        self.begin_list(request).await.map(drop)
    }
}

/// How many defragmentations are running that the health service has to tell of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Running(watch::Sender<usize>);

/// One of them.
struct Paused(Running);

impl Running {
    fn begin(&self) -> Paused {
        self.0.send_modify(|running| *running += 1);
        tracing::warn!(
            service = "",
            status = "NOT_SERVING",
            reason = "defrag is active",
            "grpc service status changed"
        );
        Paused(self.clone())
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        let Running(running) = &self.0;
        running.send_modify(|running| *running -= 1);
        if *running.borrow() == 0 {
            tracing::info!(
                service = "",
                status = "SERVING",
                "grpc service status changed"
            );
        }
    }
}

/// The schema of the page file; `None` if it cannot be told.
fn storage_version(published: &Published) -> Option<String> {
    let version = schema::detect(&published.view().page.meta());
    version.ok().map(|version| version.to_string())
}

fn downgrade_info(target: Option<Version>) -> pb::DowngradeInfo {
    pb::DowngradeInfo {
        enabled: target.is_some(),
        target_version: target.map_or_else(String::new, |target| target.to_string()),
    }
}

fn hash_all(cluster: &Cluster, auth: &Auth, keys: &KeyValueHash) -> u32 {
    let mut crc = 0;
    let mut add = |bytes: &[u8]| crc = crc32c::crc32c_append(crc, bytes);
    add(b"alarms");
    for alarm in cluster.alarms.list(pb::AlarmType::None as i32) {
        add(&alarm.encode_to_vec());
    }
    add(b"auth");
    auth.for_each_row(&mut |row| add(row));
    add(b"cluster");
    for version in [cluster.version, cluster.downgrade] {
        let text = version.map_or_else(String::new, |version| version.to_string());
        add(text.as_bytes());
    }
    add(b"key");
    add(&keys.hash.to_be_bytes());
    add(b"members");
    for member in cluster.members.iter() {
        add(&member.encode_to_vec());
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_running_defragmentation_is_a_reason() {
        let running = Running::default();
        let reasons = running.0.subscribe();
        let (one, two) = (running.begin(), running.begin());
        assert_eq!(*reasons.borrow(), 2);
        drop(one);
        assert_eq!(*reasons.borrow(), 1);
        drop(two);
        assert_eq!(*reasons.borrow(), 0);
    }
}
