//! Calls about the members of the cluster.

use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::types::MemberId;

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

    /// Adds a voter that will listen for its peers on `peer_urls`; start it afterwards.
    ///
    /// ```no_run
    /// # async fn example(client: ferrite_client::Client) -> Result<(), ferrite_client::Error> {
    /// let added = client.cluster().member_add(["http://10.0.0.4:2380"]).await?;
    /// println!("new member: {:x}", added.member.unwrap_or_default().id);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn member_add<U: Into<String>>(
        &self,
        peer_urls: impl IntoIterator<Item = U>,
    ) -> Result<pb::MemberAddResponse, Error> {
        self.add(peer_urls, false).await
    }

    /// Adds a learner: it gets the data and has no vote until [`Cluster::member_promote`].
    pub async fn member_add_learner<U: Into<String>>(
        &self,
        peer_urls: impl IntoIterator<Item = U>,
    ) -> Result<pb::MemberAddResponse, Error> {
        self.add(peer_urls, true).await
    }

    async fn add<U: Into<String>>(
        &self,
        peer_urls: impl IntoIterator<Item = U>,
        is_learner: bool,
    ) -> Result<pb::MemberAddResponse, Error> {
        let request = pb::MemberAddRequest {
            peer_ur_ls: peer_urls.into_iter().map(Into::into).collect(),
            is_learner,
        };
        self.client.unary(rpc::MEMBER_ADD, request).await
    }

    /// Removes a member for ever: its id is never used again.
    pub async fn member_remove(&self, member: MemberId) -> Result<pb::MemberRemoveResponse, Error> {
        let request = pb::MemberRemoveRequest { id: member.get() };
        self.client.unary(rpc::MEMBER_REMOVE, request).await
    }

    /// Replaces the peer URLs of a member.
    pub async fn member_update<U: Into<String>>(
        &self,
        member: MemberId,
        peer_urls: impl IntoIterator<Item = U>,
    ) -> Result<pb::MemberUpdateResponse, Error> {
        let request = pb::MemberUpdateRequest {
            id: member.get(),
            peer_ur_ls: peer_urls.into_iter().map(Into::into).collect(),
        };
        self.client.unary(rpc::MEMBER_UPDATE, request).await
    }

    /// Makes a learner a voter.
    ///
    /// # Errors
    ///
    /// [`EtcdError::LearnerNotReady`](crate::EtcdError::LearnerNotReady) while it lags behind the
    /// leader: try again later.
    pub async fn member_promote(
        &self,
        member: MemberId,
    ) -> Result<pb::MemberPromoteResponse, Error> {
        let request = pb::MemberPromoteRequest { id: member.get() };
        self.client.unary(rpc::MEMBER_PROMOTE, request).await
    }
}
