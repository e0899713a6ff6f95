//! A member in this process: the embeddable server, which the `etcd` program also runs.
//!
//! Start: bind the listeners, lock and restore the data directory, start the member's threads, wait
//! until the member has introduced itself through the log, serve clients. Stop, in order: no new
//! calls, calls in flight finish, the member stops and puts everything into the page file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use ferrite_disk::{Disk, DiskLock, RealDisk, UnsyncedDisk, wal};
use ferrite_storage::checkpoint::Policy;
use ferrite_storage::page;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use crate::bootstrap::{self, Origin, Restored};
use crate::compactor;
use crate::config::{self, AutoCompaction, Config, GoDuration, Scheme, Url, UrlsMap};
use crate::grpc;
use crate::handle::{Handle, Inner, Limits, Readers, Watching};
use crate::http;
use crate::lessor;
use crate::member::{self, Fatal, Member};
use crate::metrics::Metrics;
use crate::quota::Quota;
use crate::request_id::RequestIds;
use crate::serve::{self, Address, Listener, Serves, Serving};
use crate::shell::{self, Clock, Ended, Inbox, Wanted};
use crate::watch::{self, Hub};

/// Time between checkpoints of a store that changes.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);

/// Time between checkpoints of what is left of a lease.
const LEASE_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(300);

/// Bytes of raft entries kept in memory beside the log: what a follower that is a little behind
/// needs.
const ENTRY_CACHE_BYTES: usize = 16 << 20;

/// A quarter of the size of etcd's segments: what is not recycled has to be written with zeros
/// first, and a young store should be small. Under the heaviest load two or three are filled between
/// checkpoints, which release them; they are kept for reuse.
const WAL: wal::Options = wal::Options {
    segment_bytes: 16_000_000,
    spare_segments: 4,
};

/// Bytes of page file that redb keeps in memory, for commits and scans: single rows are read past it.
const PAGE_CACHE_BYTES: usize = 16 << 20;

/// Why a server did not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration contradicts itself, or the initial cluster does.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// An address cannot be listened on.
    #[error("listen {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The data directory cannot be used or is damaged.
    #[error(transparent)]
    Bootstrap(#[from] bootstrap::Error),
    /// The cluster has removed this member, for good.
    #[error("the member has been permanently removed from the cluster")]
    Removed,
    /// The member cannot go on.
    #[error(transparent)]
    Fatal(#[from] Fatal),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
    /// A thread has panicked; its message is in the log.
    #[error("the {0} thread has panicked")]
    Panicked(&'static str),
}

/// A running member with its client and metrics ports.
#[derive(Debug)]
pub struct Server {
    handle: Handle,
    inbox: Arc<Inbox>,
    clients: Serving<Handle>,
    others: Vec<Serving<Handle>>,
    ended: oneshot::Receiver<Result<Ended, Fatal>>,
    stop_patience: Duration,
    _hub: AbortOnDropHandle<()>,
    /// The directory stays locked until the member has ended.
    _lock: Box<dyn DiskLock>,
}

impl Server {
    /// Starts a member and returns when it serves.
    ///
    /// # Errors
    /// See [`Error`]; nothing is left running.
    pub async fn start(config: Config) -> Result<Server, Error> {
        let metrics = Metrics::new(config.metrics_options());
        announce(&config);
        metrics.server.set_feature("FastLeaseKeepAlive", true);
        for gate in ["LeaseCheckpoint", "LeaseCheckpointPersist"] {
            metrics.server.set_feature(gate, config.lease_checkpoint);
        }
        metrics
            .server
            .quota_backend_bytes
            .set(config.quota_backend_bytes);
        quota(&config).announce();
        let peers = bind(&config.listen_peer_urls, Serves::Http).await?;
        let serves = if config.listen_client_http_urls.is_empty() {
            Serves::Both
        } else {
            Serves::Grpc
        };
        let mut clients = bind(&config.listen_client_urls, serves).await?;
        clients.extend(bind(&config.listen_client_http_urls, Serves::Http).await?);
        let scrapers = bind(&config.listen_metrics_urls, Serves::Http).await?;

        let (handle, inbox, ended, lock, hub) = start_member(&config, &metrics).await?;
        let options = serve::Options {
            max_concurrent_streams: config.max_concurrent_streams,
            keepalive_interval: Some(config.grpc_keepalive_interval)
                .filter(|interval| !interval.is_zero() && !config.grpc_keepalive_timeout.is_zero()),
            keepalive_timeout: config.grpc_keepalive_timeout,
        };
        let services = || {
            let limit = usize::try_from(config.max_request_bytes).unwrap_or(usize::MAX);
            grpc::Server::new(
                handle.clone(),
                Arc::clone(&metrics),
                limit,
                config.warning_unary_request_duration,
            )
        };
        let http_options = http::Options::from(&config);
        let router =
            http::client_router(handle.clone(), Arc::clone(&metrics), http_options.clone());
        let scrape_router =
            http::metrics_router(handle.clone(), Arc::clone(&metrics), http_options);
        let others = vec![
            serve::serve(scrapers, services(), scrape_router, &options),
            serve::serve(peers, services(), peer_router(handle.clone()), &options),
        ];

        let mut ended = ended;
        tokio::select! {
            () = handle.ready() => {}
            result = &mut ended => return Err(why(result)),
        }
        tracing::info!("ready to serve client requests");
        let grpc = services();
        tokio::spawn({
            let (grpc, timeout) = (grpc.clone(), config.election_timeout);
            async move { grpc.watch_leader(timeout).await }
        });
        if let Some(mode) = config.auto_compaction {
            tokio::spawn(compactor::run(mode, handle.downgrade()));
        }
        let clients = serve::serve(clients, grpc, router, &options);
        for address in clients.addresses() {
            tracing::info!(%address, traffic = "grpc+http", "serving client traffic insecurely; this is strongly discouraged!");
        }
        let stop_patience = config.request_timeout();
        Ok(Server {
            handle,
            inbox,
            clients,
            others,
            ended,
            stop_patience,
            _hub: hub,
            _lock: lock,
        })
    }

    /// The member, for calls from inside the process.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Where clients are served, ports resolved.
    pub fn client_addresses(&self) -> &[Address] {
        self.clients.addresses()
    }

    /// Waits until the member ends by itself: [`Error::Removed`] if the cluster has removed it, any
    /// other error if it has failed. Does not return otherwise.
    ///
    /// Cancel safety: may be dropped and called again.
    pub async fn ended(&mut self) -> Error {
        why((&mut self.ended).await)
    }

    /// Stops in order and returns when everything is on the disk.
    ///
    /// # Errors
    /// The member failed on the way; what was acknowledged is in its log.
    pub async fn stop(self) -> Result<(), Error> {
        // First: the others go on without waiting for an election, and calls in flight finish there.
        self.inbox.want(Wanted::HandOver);
        if !self.clients.shutdown(self.stop_patience).await {
            tracing::warn!(patience = ?self.stop_patience, "calls in flight did not finish in time");
        }
        for other in self.others {
            other.shutdown(Duration::ZERO).await;
        }
        self.inbox.want(Wanted::Stop);
        match self.ended.await {
            Ok(result) => result.map(drop).map_err(Error::from),
            Err(_) => Err(Error::Panicked("member")),
        }
    }
}

/// One line with nearly the whole effective configuration, which tools and people look for.
fn announce(config: &Config) {
    let auto_compaction = match config.auto_compaction {
        None => ("periodic", GoDuration::from_nanos(0)),
        Some(AutoCompaction::Periodic(period)) => ("periodic", GoDuration::from(period)),
        // As etcd prints it.
        Some(AutoCompaction::Revision(retention)) => {
            ("revision", GoDuration::from_nanos(retention))
        }
    };
    tracing::info!(
        "etcd-version" = crate::metrics::ETCD_VERSION,
        "ferrite-version" = env!("CARGO_PKG_VERSION"),
        name = config.name,
        "data-dir" = %config.data_dir.display(),
        "wal-dir" = %config.wal_path().display(),
        "member-initialized" = config.wal_path().exists(),
        "heartbeat-interval" = ?config.heartbeat_interval,
        "election-timeout" = ?config.election_timeout,
        "snapshot-count" = config.snapshot_count,
        "snapshot-catchup-entries" = config.snapshot_catchup_entries,
        "max-request-bytes" = config.max_request_bytes,
        "max-txn-ops" = config.max_txn_ops,
        "max-concurrent-streams" = config.max_concurrent_streams,
        "quota-backend-bytes" = config.quota_backend_bytes,
        "initial-advertise-peer-urls" = ?strings(&config.advertise_peer_urls),
        "listen-peer-urls" = ?strings(&config.listen_peer_urls),
        "advertise-client-urls" = ?strings(&config.advertise_client_urls),
        "listen-client-urls" = ?strings(&config.listen_client_urls),
        "listen-metrics-urls" = ?strings(&config.listen_metrics_urls),
        "initial-cluster" = config.initial_cluster,
        "initial-cluster-token" = config.initial_cluster_token,
        "auto-compaction-mode" = auto_compaction.0,
        "auto-compaction-retention" = %auto_compaction.1,
        "auto-compaction-interval" = %auto_compaction.1,
        "pre-vote" = config.pre_vote,
        "unsafe-no-fsync" = config.unsafe_no_fsync,
        "starting an etcd server"
    );
}

fn why(result: Result<Result<Ended, Fatal>, oneshot::error::RecvError>) -> Error {
    match result {
        Ok(Err(fatal)) => fatal.into(),
        Ok(Ok(Ended::Removed)) => Error::Removed,
        // The thread is asked to end only by what consumes the server.
        Ok(Ok(Ended::Asked)) | Err(_) => Error::Panicked("member"),
    }
}

type Started = (
    Handle,
    Arc<Inbox>,
    oneshot::Receiver<Result<Ended, Fatal>>,
    Box<dyn DiskLock>,
    AbortOnDropHandle<()>,
);

async fn start_member(config: &Config, metrics: &Arc<Metrics>) -> Result<Started, Error> {
    let options = bootstrap_options(config)?;
    let unsynced = config.unsafe_no_fsync;
    let restored = tokio::task::spawn_blocking(move || {
        let disk: Arc<dyn Disk> = if unsynced {
            Arc::new(UnsyncedDisk::new(RealDisk))
        } else {
            Arc::new(RealDisk)
        };
        warn_about_mode(&options.data_dir);
        bootstrap::restore(&disk, &options)
    });
    let Restored {
        driver,
        state,
        wal,
        lock,
    } = restored.await.map_err(|_| Error::Panicked("restore"))??;

    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let unix_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
    let ids = Arc::new(RequestIds::new(state.member_id(), unix_ms));
    let (cluster_id, member_id) = (state.cluster_id(), state.member_id());
    metrics.set_member_id(member_id);
    let (member, published) = Member::new(driver, state, member_options(config), Arc::clone(&ids));

    let (lessor, clock) = (member.lessor(), Clock::start());
    let inbox = Arc::new(Inbox::default());
    let thread = shell::start(shell::Parts {
        member,
        published: Arc::clone(&published),
        wal,
        transport: Box::new(Nowhere),
        inbox: Arc::clone(&inbox),
        metrics: Arc::clone(metrics),
        clock,
        heartbeat: config.heartbeat_interval,
        hand_over_patience: config.request_timeout(),
        compaction_pause: config.compaction_sleep_interval,
        slow_apply: config.warning_apply_duration,
    })
    .map_err(Error::Thread)?;
    let (end, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("member-end".to_owned())
        .spawn(move || {
            // A panic is reported by dropping `end`.
            if let Ok(result) = thread.join() {
                let _nobody = end.send(result);
            }
        })
        .map_err(Error::Thread)?;

    let limits = Limits {
        max_request_bytes: usize::try_from(config.max_request_bytes).unwrap_or(usize::MAX),
        max_txn_ops: usize::try_from(config.max_txn_ops).unwrap_or(usize::MAX),
        quota: quota(config),
        request_timeout: config.request_timeout(),
    };
    let max_message = grpc::max_message_bytes(limits.max_request_bytes);
    let hub = Arc::new(Hub::new(
        Arc::clone(&published),
        watch::Limits::new(max_message),
    ));
    let hub_task = AbortOnDropHandle::new(tokio::spawn(Watching::run(Arc::clone(&hub))));
    let handle = Handle::new(Inner {
        cluster_id,
        member_id,
        published,
        inbox: Arc::clone(&inbox),
        ids,
        lessor,
        clock,
        limits,
        metrics: Arc::clone(metrics),
        watching: Watching::new(hub, config.watch_progress_notify_interval),
        readers: Readers::default(),
    });
    refresh_at_scrape(metrics, &handle);
    Ok((handle, inbox, ended, lock, hub_task))
}

fn quota(config: &Config) -> Quota {
    Quota {
        bytes: config.quota_backend_bytes,
    }
}

fn bootstrap_options(config: &Config) -> Result<bootstrap::Options, Error> {
    // A member with a log does not look at the initial cluster any more.
    let members = match config.wal_path().exists() {
        true => UrlsMap::default(),
        false => config.bootstrap_cluster(&config::lookup_host)?,
    };
    Ok(bootstrap::Options {
        data_dir: config.data_dir.clone(),
        wal_dir: config.wal_dir.clone(),
        origin: Origin::New {
            name: config.name.clone(),
            members: members
                .iter()
                .map(|(name, urls)| (name.to_owned(), strings(urls)))
                .collect(),
            token: config.initial_cluster_token.clone(),
        },
        election_ticks: usize::try_from(config.election_ticks()).unwrap_or(usize::MAX),
        pre_vote: config.pre_vote,
        seed: u64::from(std::process::id()),
        page: page::Options {
            cache_bytes: PAGE_CACHE_BYTES,
            ..page::Options::default()
        },
        wal: WAL,
        entry_cache_bytes: ENTRY_CACHE_BYTES,
    })
}

fn member_options(config: &Config) -> member::Options {
    let ticks = |time: Duration| {
        let ticks = time.as_millis() / config.heartbeat_interval.as_millis().max(1);
        u64::try_from(ticks).unwrap_or(u64::MAX).max(1)
    };
    member::Options {
        request_ticks: ticks(config.request_timeout()),
        election_ticks: config.election_ticks(),
        checkpoint_ticks: ticks(CHECKPOINT_INTERVAL),
        checkpoint: Policy {
            remove_rows: usize::try_from(config.compaction_batch_limit).unwrap_or(usize::MAX),
            ..Policy::default()
        },
        snapshot_count: config.snapshot_count,
        catchup_entries: config.snapshot_catchup_entries,
        max_learners: usize::try_from(config.max_learners).unwrap_or(0),
        strict_reconfig_check: config.strict_reconfig_check,
        quota: quota(config),
        name: config.name.clone(),
        client_urls: strings(&config.advertise_client_urls),
        lessor: lessor::Options {
            election_timeout: config.election_timeout,
            min_ttl: lessor::Options::min_ttl(config.election_ticks(), config.heartbeat_interval),
            retry: config.request_timeout(),
            checkpoint_interval: config.lease_checkpoint.then_some(LEASE_CHECKPOINT_INTERVAL),
        },
    }
}

fn strings(urls: &[Url]) -> Vec<String> {
    urls.iter().map(|url| url.as_str().to_owned()).collect()
}

/// etcd's advice: nobody but the server's user should see the data.
fn warn_about_mode(data_dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let Ok(metadata) = std::fs::metadata(data_dir) else {
        return;
    };
    let mode = metadata.permissions().mode() & 0o777;
    if mode != 0o700 {
        tracing::warn!(
            dir = %data_dir.display(),
            permission = format!("{mode:o}"),
            recommended = "700",
            "the data directory's permission is wider than recommended"
        );
    }
}

async fn bind(urls: &[Url], serves: Serves) -> Result<Vec<Listener>, Error> {
    let mut listeners = Vec::new();
    for url in urls {
        let listener = match url.scheme() {
            Scheme::Unix => Listener::unix(&PathBuf::from(url.address()), serves).await,
            // Configuration refuses the TLS schemes until TLS is built.
            _ => Listener::tcp(url.address(), serves).await,
        };
        let address = url.as_str().to_owned();
        listeners.push(listener.map_err(|source| Error::Listen { address, source })?);
    }
    Ok(listeners)
}

/// The peer port: members of a cluster will meet here. Today it answers who it is.
fn peer_router(handle: Handle) -> Router {
    Router::new().route(
        "/version",
        axum::routing::get(async move || http::version_reply(&handle.versions())),
    )
}

/// Gauges whose values live in the published state.
fn refresh_at_scrape(metrics: &Metrics, handle: &Handle) {
    let handle = handle.downgrade();
    metrics.on_scrape(move |metrics| {
        let Some(handle) = handle.upgrade() else {
            return;
        };
        handle.measure(metrics);
    });
}

struct Nowhere;
impl crate::peer::Transport for Nowhere {
    fn set_peers(&mut self, _: Vec<crate::peer::Peer>, _: Vec<ferrite_api::types::MemberId>) {}
    fn send(&mut self, _: ferrite_api::types::MemberId, _: crate::peer::Message) {}
    fn send_snapshot(
        &mut self,
        _: ferrite_api::types::MemberId,
        _: bytes::Bytes,
        _: Box<dyn crate::peer::SnapshotSource>,
    ) {
    }
}
