//! A member in this process: the embeddable server, which the `etcd` program also runs.
//!
//! Start: bind the listeners, lock and restore the data directory, start the member's threads, wait
//! until the member has introduced itself through the log, serve clients. Stop, in order: no new
//! calls, calls in flight finish, the member stops and puts everything into the page file.

mod assemble;
mod listeners;
mod origin;

use std::sync::Arc;
use std::time::Duration;

use ferrite_disk::DiskLock;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use crate::auth;
use crate::bootstrap;
use crate::compactor;
use crate::config::{AutoCompaction, Config, GoDuration, Url};
use crate::corruption;
use crate::grpc;
use crate::handle::Handle;
use crate::http;
use crate::member::Fatal;
use crate::metrics::Metrics;
use crate::peer::Peers;
use crate::serve::{self, Address, Serving};
use crate::shell::{Ended, Inbox, Wanted};
use crate::spans::Spans;
use assemble::Started;
use listeners::Certificates;
pub use origin::{DiscoveryError, Error as OriginError, SrvError};

/// How long calls have for their answers when the member has ended. As long as etcd's waits before it stops.
const LEAVE_PATIENCE: Duration = Duration::from_secs(1);

/// How long the last messages to other members may take to leave.
const DRAIN_PATIENCE: Duration = Duration::from_millis(500);

/// How long the last spans may take to the collector.
const SPANS_PATIENCE: Duration = Duration::from_secs(3);

/// Why a server did not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A member without data cannot begin or join its cluster.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// An address cannot be listened on.
    #[error("listen {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// There can be no TLS: a certificate, a key or an authority is not as it must be.
    #[error("{what}: {source}")]
    Tls {
        /// The listener, or whose they are.
        what: String,
        /// Why not.
        source: ferrite_tls::Error,
    },
    /// The data directory cannot be used or is damaged.
    #[error(transparent)]
    Bootstrap(#[from] bootstrap::Error),
    /// Spans cannot be sent to the given address.
    #[error("distributed tracing: {0}")]
    Spans(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The data of this member is not that of the others.
    #[error(transparent)]
    Corrupt(#[from] corruption::Refusal),
    /// `--auth-token` cannot be used.
    #[error(transparent)]
    AuthToken(#[from] auth::OptionsError),
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
    scrapers: Serving<Handle>,
    peers: Peers,
    ended: oneshot::Receiver<Result<Ended, Fatal>>,
    stop_patience: Duration,
    spans: Option<Spans>,
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
        metrics.server.set_features(&config.features);
        metrics
            .server
            .quota_backend_bytes
            .set(config.quota_backend_bytes);
        assemble::quota(&config).announce();
        let certificates = Certificates::find(&config)?;
        let peers = listeners::members(&config, &certificates.members).await?;
        let clients = listeners::clients(&config, &certificates.clients).await?;
        let scrapers = listeners::scrapers(&config, &certificates.clients).await?;

        let Started {
            handle,
            inbox,
            peers,
            mut ended,
            lock,
            hub,
        } = assemble::start(&config, peers, &certificates.members, &metrics).await?;
        let options = serve::Options {
            max_concurrent_streams: config.max_concurrent_streams,
            keepalive_interval: Some(config.grpc_keepalive_interval)
                .filter(|interval| !interval.is_zero() && !config.grpc_keepalive_timeout.is_zero()),
            keepalive_timeout: config.grpc_keepalive_timeout,
        };
        let spans = config.tracing.as_ref().map(Spans::start).transpose()?;
        let services = || {
            let limit = usize::try_from(config.max_request_bytes).unwrap_or(usize::MAX);
            grpc::Server::traced(
                handle.clone(),
                Arc::clone(&metrics),
                limit,
                config.warning_unary_request_duration,
                spans.clone(),
            )
        };
        let grpc = services();
        let http_options = http::Options::from(&config);
        let gateway = config
            .enable_grpc_gateway
            .then(|| http::Gateway::new(grpc.clone()));
        let router = http::client_router(
            handle.clone(),
            Arc::clone(&metrics),
            http_options.clone(),
            gateway,
        );
        let scrape_router =
            http::metrics_router(handle.clone(), Arc::clone(&metrics), http_options);
        let scrapers = serve::serve(scrapers, services(), scrape_router, &options);
        tokio::select! {
            () = handle.ready() => {}
            result = &mut ended => return Err(why(result)),
        }
        tracing::info!("ready to serve client requests");
        tokio::spawn({
            let (grpc, timeout) = (grpc.clone(), config.election_timeout);
            async move { grpc.watch_leader(timeout).await }
        });
        if let Some(mode) = config.auto_compaction {
            tokio::spawn(compactor::run(mode, handle.downgrade()));
        }
        corruption::watch(&config, &handle);
        clients.iter().for_each(listeners::announce);
        let clients = serve::serve(clients, grpc, router, &options);
        let stop_patience = config.request_timeout();
        Ok(Server {
            handle,
            inbox,
            clients,
            scrapers,
            peers,
            ended,
            stop_patience,
            spans,
            _hub: hub,
            _lock: lock,
        })
    }

    /// The member, for calls from inside the process. It may do everything; see [`Handle`].
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

    /// After [`Server::ended`]: the calls that have their answer, such as the one that has removed the
    /// member, get the time to send it.
    pub async fn leave(self) {
        if !self.clients.shutdown(LEAVE_PATIENCE).await {
            tracing::warn!(patience = ?LEAVE_PATIENCE, "calls in flight did not finish in time");
        }
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
        self.scrapers.shutdown(Duration::ZERO).await;
        self.inbox.want(Wanted::Stop);
        let ended = self.ended.await;
        self.peers.shutdown(DRAIN_PATIENCE).await;
        if let Some(spans) = self.spans {
            spans.stop(SPANS_PATIENCE).await;
        }
        match ended {
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
        "etcd-version" = %config.release,
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

fn strings(urls: &[Url]) -> Vec<String> {
    urls.iter().map(|url| url.as_str().to_owned()).collect()
}
