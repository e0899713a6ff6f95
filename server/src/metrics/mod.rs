//! The Prometheus metrics: etcd's names, types, labels and buckets (spec/metrics.md).
//!
//! [`Metrics`] is made once per member and handed to every component as an `Arc`; nothing here is
//! process-wide, so several members can live in one process. Components keep the handles they feed
//! (an `IntCounter` or a `Histogram` is an atomic behind an `Arc`) and never look a label up on a
//! hot path: what has labels there comes as an array of handles ([`grpc::Rpc`], [`ByRequest`]).
//!
//! A gauge whose value lives elsewhere is either set by its owner when it changes, or by a closure
//! given to [`Metrics::on_scrape`], which runs before each exposition.
//!
//! Everything etcd exposes is here except the Go runtime's own `go_*`. Names of parts that are not
//! built yet are present where zero is the truth about them.

use std::sync::Arc;

use ferrite_api::Version;
use ferrite_api::types::MemberId;
use parking_lot::RwLock;
use prometheus::{Encoder, IntCounter, IntCounterVec, IntGauge, Registry, TextEncoder};

pub mod grpc;
pub mod network;
pub mod process;
mod register;
pub mod server;
pub mod storage;

#[cfg(test)]
mod tests;

pub use grpc::{GrpcMetrics, Method};
pub use network::NetworkMetrics;
pub use process::ProcessMetrics;
pub use server::{ByRequest, RequestKind, ServerMetrics};
pub use storage::{DiskMetrics, LeaseMetrics, MvccMetrics, SnapMetrics, WatchMetrics};

use register::Registrar;

/// The media type of [`Metrics::scrape`].
pub const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `--metrics extensive`: adds `grpc_server_handling_seconds`.
    pub extensive: bool,
    /// The version of the program.
    pub release: Version,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            extensive: false,
            release: Version::RELEASE,
        }
    }
}

type Refresh = Arc<dyn Fn(&Metrics) + Send + Sync>;

/// All metrics of one member.
pub struct Metrics {
    registry: Registry,
    /// `etcd_server_*`, `etcd_cluster_version`.
    pub server: ServerMetrics,
    /// `etcd_network_*`.
    pub network: NetworkMetrics,
    /// `etcd_disk_*`.
    pub disk: DiskMetrics,
    /// `etcd_snap_*`, `etcd_debugging_snap_*`.
    pub snap: SnapMetrics,
    /// `etcd_mvcc_*`, `etcd_debugging_mvcc_*` without the watch ones.
    pub mvcc: MvccMetrics,
    /// Watch streams and watchers.
    pub watch: WatchMetrics,
    /// `etcd_debugging_lease_*`.
    pub lease: LeaseMetrics,
    /// `grpc_server_*`.
    pub grpc: GrpcMetrics,
    /// `process_*`, `os_fd_*`: read by each scrape.
    pub process: ProcessMetrics,
    /// `etcd_debugging_auth_revision`.
    pub auth_revision: IntGauge,
    scrapes: IntCounterVec,
    scrapes_in_flight: IntGauge,
    /// Run before each exposition. Cloned out before running, so a closure may take its time and
    /// may itself register another one.
    refresh: RwLock<Vec<Refresh>>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// A fresh registry with everything registered.
    pub fn new(options: Options) -> Arc<Self> {
        let registry = Registry::new();
        let r = Registrar::new(&registry);
        let scrapes = r.counter_vec(
            "promhttp_metric_handler_requests_total",
            "Scrapes answered, by HTTP status code.",
            &["code"],
        );
        for code in ["200", "500", "503"] {
            scrapes.with_label_values(&[code]);
        }
        register_leftovers(&r);
        Arc::new(Self {
            server: ServerMetrics::new(&r, options.release),
            network: NetworkMetrics::new(&r),
            disk: DiskMetrics::new(&r),
            snap: SnapMetrics::new(&r),
            mvcc: MvccMetrics::new(&r),
            watch: WatchMetrics::new(&r),
            lease: LeaseMetrics::new(&r),
            grpc: GrpcMetrics::new(&r, options.extensive),
            process: ProcessMetrics::new(&r),
            auth_revision: r.gauge(
                "etcd_debugging_auth_revision",
                "Revision of the auth store.",
            ),
            scrapes,
            scrapes_in_flight: r.gauge(
                "promhttp_metric_handler_requests_in_flight",
                "Scrapes being answered now.",
            ),
            refresh: RwLock::new(Vec::new()),
            registry,
        })
    }

    /// Registers a closure that sets gauges just before each exposition. It must be quick and must
    /// not block; it runs on the thread of the scrape. Give it a weak reference if what it reads
    /// also holds the metrics.
    pub fn on_scrape(&self, refresh: impl Fn(&Metrics) + Send + Sync + 'static) {
        self.refresh.write().push(Arc::new(refresh));
    }

    /// The exposition in the text format 0.0.4 ([`TEXT_FORMAT`]), families sorted by name. Counted
    /// in `promhttp_metric_handler_*`.
    ///
    /// # Errors
    /// When the encoder refuses a family; the text is for the body of a 500.
    pub fn scrape(&self) -> Result<Vec<u8>, String> {
        self.scrapes_in_flight.inc();
        let closures = self.refresh.read().clone();
        for refresh in closures {
            refresh(self);
        }
        self.process.refresh();
        let mut text = Vec::with_capacity(256 * 1024);
        let encoded = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        self.scrapes_in_flight.dec();
        match encoded {
            Ok(()) => {
                self.scrapes.with_label_values(&["200"]).inc();
                Ok(text)
            }
            Err(error) => {
                self.scrapes.with_label_values(&["500"]).inc();
                Err(error.to_string())
            }
        }
    }

    /// Tells who this member is: sets `etcd_server_id{server_id}` and the `Local` series of the
    /// network metrics.
    pub fn set_member_id(&self, id: MemberId) {
        let id = id.to_string();
        self.server.id.with_label_values(&[id.as_str()]).set(1);
        self.network
            .known_peers
            .with_label_values(&[id.as_str(), id.as_str()])
            .set(1);
    }
}

/// Families that etcd has and that can only be zero here: leftovers of its v2 store (whose
/// vectors have no series) and of its gRPC proxy.
fn register_leftovers(r: &Registrar<'_>) {
    for (name, help) in [
        (
            "etcd_grpc_proxy_cache_hits_total",
            "Proxy cache hits; always 0 on a server.",
        ),
        (
            "etcd_grpc_proxy_cache_keys_total",
            "Keys in the proxy cache; always 0 on a server.",
        ),
        (
            "etcd_grpc_proxy_cache_misses_total",
            "Proxy cache misses; always 0 on a server.",
        ),
        (
            "etcd_grpc_proxy_watchers_coalescing_total",
            "Watchers merged by the proxy; always 0 on a server.",
        ),
        (
            "etcd_debugging_store_watchers",
            "Watchers of the v2 store; always 0.",
        ),
    ] {
        let _: IntGauge = r.gauge(name, help);
    }
    for (name, help) in [
        (
            "etcd_grpc_proxy_events_coalescing_total",
            "Events merged by the proxy; always 0 on a server.",
        ),
        (
            "etcd_debugging_store_expires_total",
            "Expired keys of the v2 store; always 0.",
        ),
        (
            "etcd_debugging_store_watch_requests_total",
            "Watch requests to the v2 store; always 0.",
        ),
    ] {
        let _: IntCounter = r.counter(name, help);
    }
}
