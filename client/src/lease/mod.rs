//! Leases: keys attached to one go away when it ends. A client keeps a lease by renewing it.
//!
//! [`Leases::keep_alive`] renews in the background: one gRPC stream for all leases of a client
//! ([`machine`] decides, [`stream`] carries), a renewal each third of the time to live, another
//! member when one does not answer.

mod machine;
mod stream;

use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::types::LeaseId;
use tokio::time::sleep;
use tonic::Code;

use crate::call::until;
use crate::{Client, Error, EtcdError, rpc};

pub(crate) use stream::Keeper;

/// The calls about leases: see [`Client::leases`].
#[derive(Clone, Debug)]
pub struct Leases {
    client: Client,
}

impl Leases {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// A new lease of `ttl` seconds. The answer tells its id and the time it really got: servers
    /// have a minimum.
    ///
    /// ```no_run
    /// # use ferrite_client::{Client, Error, LeaseId, PutOptions};
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let lease = LeaseId::new(client.leases().grant(10).await?.id);
    /// client.put("workers/a", "up", PutOptions::new().lease(lease)).await?;
    /// let mut renewals = client.leases().keep_alive(lease);
    /// let lost = loop {
    ///     match renewals.next().await {
    ///         Ok(renewal) => println!("{} s more", renewal.ttl),
    ///         Err(error) => break error,
    ///     }
    /// };
    /// println!("the lease is lost: {lost}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Repeated when the first answer is lost: a lease that nobody knows may stay behind then, and
    /// expires.
    pub async fn grant(&self, ttl: i64) -> Result<pb::LeaseGrantResponse, Error> {
        self.grant_as(LeaseId::new(0), ttl).await
    }

    /// A new lease with an id of the caller's choice.
    ///
    /// # Errors
    ///
    /// [`EtcdError::LeaseExist`] if the id is in use; also after a lost answer, when the lease is
    /// one's own.
    pub async fn grant_as(&self, id: LeaseId, ttl: i64) -> Result<pb::LeaseGrantResponse, Error> {
        let request = pb::LeaseGrantRequest { ttl, id: id.get() };
        self.client.unary(rpc::LEASE_GRANT, request).await
    }

    /// Ends a lease and deletes its keys.
    ///
    /// # Errors
    ///
    /// [`EtcdError::LeaseNotFound`] if it has ended already; also after a lost answer.
    pub async fn revoke(&self, id: LeaseId) -> Result<pb::LeaseRevokeResponse, Error> {
        let request = pb::LeaseRevokeRequest { id: id.get() };
        self.client.unary(rpc::LEASE_REVOKE, request).await
    }

    /// How long the lease still lives: `ttl` seconds of `granted_ttl`. A lease that does not exist
    /// has -1 of 0; that is no error.
    pub async fn time_to_live(&self, id: LeaseId) -> Result<pb::LeaseTimeToLiveResponse, Error> {
        self.ask_time_to_live(id, false).await
    }

    /// As [`Leases::time_to_live`], with the keys attached to the lease.
    pub async fn time_to_live_with_keys(
        &self,
        id: LeaseId,
    ) -> Result<pb::LeaseTimeToLiveResponse, Error> {
        self.ask_time_to_live(id, true).await
    }

    async fn ask_time_to_live(
        &self,
        id: LeaseId,
        keys: bool,
    ) -> Result<pb::LeaseTimeToLiveResponse, Error> {
        let request = pb::LeaseTimeToLiveRequest { id: id.get(), keys };
        let mut response = self.client.unary(rpc::LEASE_TIME_TO_LIVE, request).await?;
        self.client.scope.namespace.leave_keys(&mut response.keys);
        Ok(response)
    }

    /// All leases, as the answering member knows them; possibly stale.
    pub async fn list(&self) -> Result<pb::LeaseLeasesResponse, Error> {
        let request = pb::LeaseLeasesRequest {};
        self.client.unary(rpc::LEASE_LEASES, request).await
    }

    /// Renews a lease once.
    ///
    /// # Errors
    ///
    /// [`EtcdError::LeaseNotFound`] if it has ended, and what else a member answers. Repeated while none
    /// can be reached, as long as the client's time limits allow.
    pub async fn keep_alive_once(&self, id: LeaseId) -> Result<pb::LeaseKeepAliveResponse, Error> {
        let deadline = self.client.scope.limit.deadline();
        let attempts = async {
            loop {
                match self.renew(id).await {
                    Err(error) if is_passing(&error) => {
                        tracing::debug!(%error, "lease was not renewed, again");
                        sleep(self.client.shared.config.retry_interval).await;
                    }
                    result => return result,
                }
            }
        };
        match until(deadline, attempts).await {
            Some(result) => result,
            None => Err(self.client.late(None)),
        }
    }

    async fn renew(&self, id: LeaseId) -> Result<pb::LeaseKeepAliveResponse, Error> {
        let mut stream = self.client.two_way_stream(rpc::LEASE_KEEP_ALIVE);
        let request = pb::LeaseKeepAliveRequest { id: id.get() };
        let requests = stream.requests.clone();
        // There is room for the first request; a stream that failed says why when it is read.
        let _ = requests.try_send(request);
        let response = stream.next().await?;
        if response.ttl <= 0 {
            return Err(Error::Etcd(EtcdError::LeaseNotFound));
        }
        Ok(response)
    }

    /// Renews a lease in the background until the handle is dropped or the lease has ended.
    ///
    /// Renewal goes on whether or not the handle is read. Several handles of one lease share its
    /// renewals. Must be called inside a tokio runtime.
    pub fn keep_alive(&self, id: LeaseId) -> KeepAlive {
        KeepAlive {
            listener: self.client.shared.keeper.listen(&self.client, id),
        }
    }
}

/// Whether another attempt to renew may do better: no member has answered. (One that says that there is
/// no leader has waited for one.)
fn is_passing(error: &Error) -> bool {
    let unreachable = matches!(error.code(), Some(Code::Unavailable | Code::Internal));
    unreachable && !matches!(error, Error::Etcd(_))
}

/// A lease being renewed: see [`Leases::keep_alive`]. Dropping it stops the renewal.
#[derive(Debug)]
pub struct KeepAlive {
    listener: stream::Listener,
}

impl KeepAlive {
    /// The next renewal. At most 16 wait to be read; later ones are dropped until there is room.
    ///
    /// Cancel safety: no renewal is lost when the future is dropped.
    ///
    /// # Errors
    ///
    /// End the renewal. [`EtcdError::LeaseNotFound`]: the lease has expired or was revoked.
    /// [`Error::KeepAliveLost`]: no member renewed it for its time to live, so it may have
    /// expired. [`EtcdError::NoLeader`]: only if the client
    /// [requires a leader](Client::with_require_leader).
    pub async fn next(&mut self) -> Result<pb::LeaseKeepAliveResponse, Error> {
        self.listener.next().await
    }
}
