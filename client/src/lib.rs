//! An async client for etcd v3 clusters (and so for Ferrite).
//!
//! ```no_run
//! use ferrite_client::{Client, Compare, CompareOp, Config, GetOptions, PutOptions, Txn, TxnOp};
//!
//! # async fn example() -> Result<(), ferrite_client::Error> {
//! let client = Client::connect(Config::new(["10.0.0.1:2379", "10.0.0.2:2379", "10.0.0.3:2379"])).await?;
//!
//! client.put("config/a", "1", PutOptions::new()).await?;
//! let page = client.get("config/", GetOptions::new().prefix().limit(100)).await?;
//! println!("{} of {} keys at revision {}", page.kvs.len(), page.count, page.header.unwrap_or_default().revision);
//!
//! let taken = client
//!     .txn(
//!         Txn::new()
//!             .when([Compare::create_revision("lock", CompareOp::Equal, 0)])
//!             .and_then([TxnOp::put("lock", "me", PutOptions::new())])
//!             .or_else([TxnOp::get("lock", GetOptions::new())]),
//!     )
//!     .await?;
//! println!("lock taken: {}", taken.succeeded);
//! # Ok(())
//! # }
//! ```
//!
//! What it promises:
//!
//! * One HTTP/2 connection per endpoint, kept up in the background; every call takes the next
//!   connected endpoint (round robin). A call made while nothing is connected **waits**, as long
//!   as its deadline allows: see [`Client::with_timeout`].
//! * Calls that only read are repeated when a member is unavailable. **A write whose outcome is
//!   unknown is never repeated**: [`Error::may_have_been_applied`] tells the two kinds of failure
//!   apart. The table is in [`Policy`] and `spec/client.md` section 4.
//! * Errors of the etcd API arrive as [`Error::Etcd`], recognised by their text as every etcd
//!   client does; everything else keeps its gRPC status.
//! * Handles are `&self`, cheap to clone, and share their connections. Dropping a future cancels
//!   its call; whether a cancelled write was applied is unknown.
//! * A [`Watcher`] sees every change once and in order, a [`KeepAlive`] renews its lease,
//!   whatever happens to connections and members meanwhile: see [`watch`] and [`lease`].
//! * A deadline that passes without a connection says why, for each endpoint:
//!   [`Client::connection_errors`].
//!
//! Handles are made to measure, and can be combined: [`Client::with_timeout`],
//! [`Client::with_deadline`], [`Client::with_require_leader`], [`Client::with_namespace`],
//! [`Client::with_ordering`].
//!
//! Built on top: [`concurrency`] has locks, elections and transactions in memory, [`Mirror`] copies
//! a prefix, [`Cache`] keeps one in memory, [`Leasing`] reads single keys from memory while it
//! owns them.
//!
//! Reading order: [`kv`] and `call` (one call), `balancer` (where it goes), [`watch`] and [`lease`]
//! (a machine that decides, a stream that carries), [`concurrency`], [`cache`], [`leasing`].
//!
//! A client with a user ([`Config::user`]) logs in when it connects, and again when the cluster does not
//! know its token any more.

pub mod auth;
pub mod cache;
pub mod cluster;
pub mod concurrency;
pub mod kv;
pub mod lease;
pub mod leasing;
pub mod maintenance;
pub mod range;
pub mod txn;
pub mod watch;

mod balancer;
mod call;
mod config;
mod connection;
mod endpoint;
mod error;
mod local;
mod login;
mod mirror;
mod namespace;
mod ordering;
mod range_stream;
mod retry;
mod rpc;
mod sync;
mod tls;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use auth::{Auth, PermissionType};
pub use cache::{Cache, CacheError, CacheOptions, CacheWatcher};
pub use cluster::Cluster;
pub use config::{Config, Secret, User};
pub use error::{EndpointError, Error};
/// The errors of the etcd API, as [`Error::Etcd`] carries them.
pub use ferrite_api::Error as EtcdError;
/// The messages of the API, as calls return them.
pub use ferrite_api::pb;
pub use ferrite_api::types::{LeaseId, MemberId};
pub use kv::{CompactOptions, DeleteOptions, GetOptions, PutOptions, SortOrder, SortTarget};
pub use lease::{KeepAlive, Leases};
pub use leasing::Leasing;
pub use maintenance::{DowngradeAction, Maintenance, SaveError, Snapshot};
pub use mirror::Mirror;
pub use range::prefix_end;
pub use range_stream::RangeStream;
pub use retry::Policy;
pub use tls::{Tls, TlsOptions};
pub use txn::{Compare, CompareOp, Txn, TxnOp};
pub use watch::{WatchOptions, Watcher};

use balancer::Balancer;
use call::{Leader, Limit, Scope};
use concurrency::{ElectionService, LockService};

/// A handle on a cluster: the key-value calls, and the way to the other groups of calls.
///
/// Clones share the connections; the last clone (or open stream) that is dropped closes them.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
    scope: Scope,
}

/// What all clones of a client share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) balancer: Balancer,
    pub(crate) login: login::Login,
    pub(crate) watches: watch::Streams,
    pub(crate) keeper: lease::Keeper,
    _auto_sync: Option<sync::AutoSync>,
}

impl Shared {
    fn new(config: Config) -> Result<Arc<Shared>, Error> {
        let targets = config.check()?;
        let login = login::Login::new(&config)?;
        let balancer = Balancer::start(targets, &config);
        Ok(Arc::new_cyclic(|shared| Shared {
            _auto_sync: config
                .auto_sync
                .map(|interval| sync::AutoSync::start(shared.clone(), interval)),
            config,
            balancer,
            login,
            watches: watch::Streams::default(),
            keeper: lease::Keeper::default(),
        }))
    }
}

impl Client {
    /// Checks the configuration and starts connecting to every endpoint in the background.
    ///
    /// Returns without waiting for a connection: the first call waits for one. Only a client with a
    /// [`Config::user`] logs in, and [`Config::reject_old_cluster`] asks something first, within
    /// [`Config::dial_timeout`]. Must
    /// run inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::NoEndpoints`], [`Error::InvalidEndpoint`] and [`Error::InvalidConfig`], all before any
    /// packet is sent; [`Error::OldCluster`]; what the login ended with.
    pub async fn connect(config: Config) -> Result<Client, Error> {
        let patience = config.dial_timeout;
        let (logs_in, checks) = (config.user.is_some(), config.reject_old_cluster);
        let client = Client {
            shared: Shared::new(config)?,
            scope: Scope::default(),
        };
        let within = client.with_deadline(Instant::now() + patience);
        if logs_in {
            within.renew_token(None).await?;
        }
        if checks {
            within.check_versions().await?;
        }
        Ok(client)
    }

    /// Why endpoints are not connected: the last failure of each that is not. Errors of calls that
    /// waited in vain carry the same as their source.
    pub fn connection_errors(&self) -> Vec<EndpointError> {
        self.shared.balancer.errors()
    }

    /// The same client, each of whose calls fails with [`Error::DeadlineExceeded`] when it took
    /// longer than `timeout`, waiting for a connection and repeats included.
    ///
    /// The default is no limit at all: a call waits until a member answers it.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Client {
        let mut client = self.clone();
        client.scope.limit = Limit::PerCall(timeout);
        client
    }

    /// The same client, all of whose calls end at `deadline`: one budget for several calls.
    #[must_use]
    pub fn with_deadline(&self, deadline: Instant) -> Client {
        let mut client = self.clone();
        client.scope.limit = Limit::At(deadline.into());
        client
    }

    /// The same client, whose calls are refused by a member that knows no leader
    /// ([`EtcdError::NoLeader`]) instead of waiting there; watches end with that error. Sends
    /// metadata `hasleader: true`.
    ///
    /// By default watches ask for a leader, too, but go on with another member when theirs has
    /// none.
    #[must_use]
    pub fn with_require_leader(&self) -> Client {
        let mut client = self.clone();
        client.scope.leader = Leader::Required;
        client
    }

    /// The same client, whose watches stay with a member that has lost its leader: they may be
    /// silent for as long as it is cut off. The default of etcd's Go client.
    #[must_use]
    pub fn without_require_leader(&self) -> Client {
        let mut client = self.clone();
        client.scope.leader = Leader::Indifferent;
        client
    }

    /// Calls about leases, and keeping them alive.
    pub fn leases(&self) -> Leases {
        Leases::new(self.clone())
    }

    /// Calls about the members of the cluster.
    pub fn cluster(&self) -> Cluster {
        Cluster::new(self.clone())
    }

    /// Calls about users and roles.
    pub fn auth(&self) -> Auth {
        Auth::new(self.clone())
    }

    /// Calls about single members: status, hashes, alarms, snapshots.
    pub fn maintenance(&self) -> Maintenance {
        Maintenance::new(self.clone())
    }

    /// Locks that the server runs. [`concurrency::Mutex`] is the same in the client.
    pub fn lock_service(&self) -> LockService {
        LockService::new(self.clone())
    }

    /// Elections that the server runs. [`concurrency::Election`] is the same in the client.
    pub fn election_service(&self) -> ElectionService {
        ElectionService::new(self.clone())
    }

    /// A client of this one endpoint only, with the same settings and scope: what maintenance
    /// calls that name a member use to bypass the balancer.
    pub(crate) fn pinned_to(&self, endpoint: &str) -> Result<Client, Error> {
        let mut config = self.shared.config.clone();
        config.endpoints = vec![endpoint.to_owned()];
        config.auto_sync = None;
        config.reject_old_cluster = false;
        Ok(Client {
            shared: Shared::new(config)?,
            scope: self.scope.clone(),
        })
    }
}
