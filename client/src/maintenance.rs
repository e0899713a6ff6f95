//! Calls about single members. Those that name an endpoint go to it alone, over a connection of
//! their own, whatever the client is connected to.

use ferrite_api::pb::etcdserverpb as pb;
use pb::alarm_request::AlarmAction;

use crate::{Client, Error, rpc};

/// Status, hashes and alarms: see [`Client::maintenance`].
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
    ///     let status = client.maintenance().status(endpoint).await?;
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
}
