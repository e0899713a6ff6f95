//! Calls about the members of the cluster.

use ferrite_api::pb::etcdserverpb as pb;

use crate::{Client, Error, rpc};

/// The members of the cluster: see [`Client::cluster`].
#[derive(Clone, Debug)]
pub struct Cluster {
    client: Client,
}

impl Cluster {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// The members, in order of their ids. Linearizable: the answering member asks a quorum first.
    pub async fn member_list(&self) -> Result<pb::MemberListResponse, Error> {
        self.list(true).await
    }

    /// The members as the answering member knows them, possibly stale; works without a quorum.
    pub async fn member_list_serializable(&self) -> Result<pb::MemberListResponse, Error> {
        self.list(false).await
    }

    async fn list(&self, linearizable: bool) -> Result<pb::MemberListResponse, Error> {
        let request = pb::MemberListRequest { linearizable };
        self.client.unary(rpc::MEMBER_LIST, request).await
    }
}
