//! Calls about single members. Those that name an endpoint go to it alone, over a connection of
//! their own, whatever the client is connected to.

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::types::MemberId;
use pb::alarm_request::AlarmAction;

use crate::call::Answers;
use crate::{Client, Error, retry, rpc};

mod save;

pub use save::SaveError;

pub use pb::downgrade_request::DowngradeAction;

/// The oldest version that [`Config::reject_old_cluster`](crate::Config::reject_old_cluster) lets
/// through: the minor version before that of the API.
const OLDEST: (u64, u64) = (3, 6);

impl Client {
    /// Fails unless all endpoints are recent enough.
    pub(crate) async fn check_versions(&self) -> Result<(), Error> {
        for endpoint in self.endpoints() {
            let status = self.maintenance().status(&endpoint).await?;
            if minor_version(&status.version) < Some(OLDEST) {
                return Err(Error::OldCluster);
            }
        }
        Ok(())
    }
}

/// Major and minor number of a version like `3.7.1`.
fn minor_version(version: &str) -> Option<(u64, u64)> {
    let mut numbers = version.split('.');
    let mut number = || numbers.next()?.parse().ok();
    Some((number()?, number()?))
}

/// Status, hashes, alarms, snapshots and other care of members: see [`Client::maintenance`].
#[derive(Clone, Debug)]
pub struct Maintenance {
    client: Client,
}

impl Maintenance {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// What the member behind `endpoint` says about itself. Answered without a leader too.
    ///
    /// ```no_run
    /// # async fn example(client: ferrite_client::Client) -> Result<(), ferrite_client::Error> {
    /// for endpoint in client.endpoints() {
    ///     let status = client.maintenance().status(&endpoint).await?;
    ///     println!("{endpoint}: {} bytes", status.db_size);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn status(&self, endpoint: &str) -> Result<pb::StatusResponse, Error> {
        let member = self.client.pinned_to(endpoint)?;
        member.unary(rpc::STATUS, pb::StatusRequest {}).await
    }

    /// The hash of the key-value history up to `revision` (0: the latest) of the member behind
    /// `endpoint`; members that agree have equal hashes.
    pub async fn hash_kv(
        &self,
        endpoint: &str,
        revision: i64,
    ) -> Result<pb::HashKvResponse, Error> {
        let member = self.client.pinned_to(endpoint)?;
        let request = pb::HashKvRequest { revision };
        member.unary(rpc::HASH_KV, request).await
    }

    /// The active alarms of all members.
    pub async fn alarm_list(&self) -> Result<pb::AlarmResponse, Error> {
        let request = pb::AlarmRequest {
            action: AlarmAction::Get.into(),
            member_id: 0,
            alarm: pb::AlarmType::None.into(),
        };
        self.client.unary(rpc::ALARM, request).await
    }

    /// Ends one alarm. The answer names it, or nothing if it was not active.
    pub async fn alarm_disarm(&self, alarm: pb::AlarmMember) -> Result<pb::AlarmResponse, Error> {
        let request = pb::AlarmRequest {
            action: AlarmAction::Deactivate.into(),
            member_id: alarm.member_id,
            alarm: alarm.alarm,
        };
        self.client.unary(rpc::ALARM, request).await
    }

    /// Ends every active alarm. The answer names them; it has no header.
    ///
    /// # Errors
    ///
    /// The alarms before the one that failed are ended already.
    pub async fn alarm_disarm_all(&self) -> Result<pb::AlarmResponse, Error> {
        let mut ended = pb::AlarmResponse::default();
        for alarm in self.alarm_list().await?.alarms {
            ended.alarms.extend(self.alarm_disarm(alarm).await?.alarms);
        }
        Ok(ended)
    }

    /// Gives the free space in the database of the member behind `endpoint` back to its file
    /// system. The member may not answer anything else meanwhile.
    pub async fn defragment(&self, endpoint: &str) -> Result<pb::DefragmentResponse, Error> {
        let member = self.client.pinned_to(endpoint)?;
        member
            .unary(rpc::DEFRAGMENT, pb::DefragmentRequest {})
            .await
    }

    /// The hash of everything the member behind `endpoint` has stored; of use for tests only:
    /// it changes with the member's version. Compare members with [`Maintenance::hash_kv`].
    pub async fn hash(&self, endpoint: &str) -> Result<pb::HashResponse, Error> {
        let member = self.client.pinned_to(endpoint)?;
        member.unary(rpc::HASH, pb::HashRequest {}).await
    }

    /// Makes `target` the leader. Only the leader does it: pin the client to its endpoint.
    ///
    /// # Errors
    ///
    /// [`EtcdError::NotLeader`](crate::EtcdError::NotLeader) from any other member,
    /// [`EtcdError::BadLeaderTransferee`](crate::EtcdError::BadLeaderTransferee) if `target`
    /// cannot lead.
    pub async fn move_leader(&self, target: MemberId) -> Result<pb::MoveLeaderResponse, Error> {
        let request = pb::MoveLeaderRequest {
            target_id: target.get(),
        };
        self.client.unary(rpc::MOVE_LEADER, request).await
    }

    /// Checks, starts or cancels the way back to the minor version before; `version` is empty for
    /// [`DowngradeAction::Cancel`].
    pub async fn downgrade(
        &self,
        action: DowngradeAction,
        version: impl Into<String>,
    ) -> Result<pb::DowngradeResponse, Error> {
        let request = pb::DowngradeRequest {
            action: action.into(),
            version: version.into(),
        };
        self.client.unary(rpc::DOWNGRADE, request).await
    }

    /// A copy of a member's database as of now, in etcd's own file format. [`Snapshot::save`] puts
    /// it in a file, [`Snapshot::next`] gives it piece by piece.
    ///
    /// Any connected member may answer: use a client of one endpoint to choose.
    ///
    /// # Errors
    ///
    /// Asked again while members are unavailable, until the first piece has come.
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        let client = self.client.with_one_deadline();
        let endpoints = client.shared.balancer.len();
        let config = &client.shared.config;
        for attempt in 1..config.max_attempts {
            match Self::open_snapshot(&client).await {
                Err(error) if rpc::SNAPSHOT.policy.retries(&error, endpoints) => {
                    tracing::debug!(%error, "no snapshot, again");
                }
                result => return result,
            }
            tokio::time::sleep(retry::pause(attempt, endpoints, config.retry_interval)).await;
        }
        Self::open_snapshot(&client).await
    }

    async fn open_snapshot(client: &Client) -> Result<Snapshot, Error> {
        let mut answers = client
            .server_stream(rpc::SNAPSHOT, pb::SnapshotRequest {})
            .await?;
        // The first piece says which version wrote the file.
        let first = answers.next().await?;
        let version = first.as_ref().map(|first| first.version.clone());
        Ok(Snapshot {
            answers,
            first: first.map(|first| first.blob),
            version: version.unwrap_or_default(),
        })
    }
}

/// A database on its way: see [`Maintenance::snapshot`].
///
/// The pieces together are the file, then 32 bytes: the SHA-256 of all bytes before. What has no
/// such end was cut. [`Snapshot::save`] looks at it.
#[derive(Debug)]
pub struct Snapshot {
    answers: Answers<pb::SnapshotResponse>,
    first: Option<Bytes>,
    version: String,
}

impl Snapshot {
    /// The storage version of the member, such as `3.7.0`; empty from members before 3.6.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The next bytes of the file; `None` at the end.
    ///
    /// Cancel safety: no piece is lost when the future is dropped.
    ///
    /// # Errors
    ///
    /// End the stream; the file is not whole then.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        Ok(self.answers.next().await?.map(|answer| answer.blob))
    }
}
