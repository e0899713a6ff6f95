//! Configuration: etcd's flags, environment variables and file, with etcd's precedence, rules and
//! error texts (spec/server-flags.md).
//!
//! Two steps. [`RawConfig`] is what was asked for, parsed and nothing more: from the command line
//! ([`cli`]), the environment ([`env`]) or a file ([`file`]). [`resolve`] turns it into a
//! [`Config`], whose values are typed, in effect (a 0 that means "default" is gone) and checked
//! against each other, or into all problems at once. One table ([`flags::FLAGS`]) describes every
//! flag of etcd; what is not built is refused by name, never ignored in silence.
//!
//! [`load`] does both steps for the program; an embedding program starts from
//! [`Config::default`] and sets fields. Rules that count only for a member without data are asked
//! for later ([`Config::check_new_cluster`], [`Config::check_existing_cluster`]). Nothing reads the environment later.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ferrite_api::{Version, os_text};
pub mod bootstrap;
pub mod cli;
mod env;
mod error;
mod file;
pub mod flags;
pub mod gates;
mod help;
mod load;
mod note;
mod raw;
mod resolve;
mod security;
pub use ferrite_api::urls;
mod value;

#[cfg(test)]
mod table;
#[cfg(test)]
mod tests;

pub(crate) use bootstrap::same_urls;
pub use error::{Error, Problems};
pub use gates::{Feature, Features};
pub use help::{USAGE, flags as help_flags, version};
pub use load::{Exit, Loaded, Outcome, load};
pub use note::Note;
pub use raw::RawConfig;
pub(crate) use resolve::DEFAULT_PEER_URL;
pub use resolve::{Source, resolve};
pub use security::Security;
pub use urls::{Scheme, Url, UrlsMap};
pub use value::GoDuration;

use crate::{logging, metrics};

/// What the server runs with. The default is etcd's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `--name`, `ETCD_NAME`. Default `default`.
    pub name: String,
    /// `--data-dir`, `ETCD_DATA_DIR`. Default `<name>.etcd`.
    pub data_dir: PathBuf,
    /// `--wal-dir`, `ETCD_WAL_DIR`. Default none: inside the data directory. See
    /// [`Config::wal_path`].
    pub wal_dir: Option<PathBuf>,
    /// `--snapshot-count`, `ETCD_SNAPSHOT_COUNT`. Applied entries between two snapshots of the
    /// raft log, above 0. Default 10000.
    pub snapshot_count: u64,
    /// `--snapshot-catchup-entries`, `ETCD_SNAPSHOT_CATCHUP_ENTRIES`. Raft entries kept behind a
    /// snapshot, above 0. Default 5000.
    pub snapshot_catchup_entries: u64,
    /// `--heartbeat-interval`, `ETCD_HEARTBEAT_INTERVAL`. One raft tick; whole milliseconds, above
    /// 0. Default 100 ms.
    pub heartbeat_interval: Duration,
    /// `--election-timeout`, `ETCD_ELECTION_TIMEOUT`. Whole milliseconds, at least 5 heartbeats,
    /// at most 50 s. Default 1 s. See [`Config::election_ticks`].
    pub election_timeout: Duration,
    /// `--pre-vote`, `ETCD_PRE_VOTE`. Default true.
    pub pre_vote: bool,
    /// `--listen-peer-urls`, `ETCD_LISTEN_PEER_URLS`. Not empty. Default `http://localhost:2380`.
    pub listen_peer_urls: Vec<Url>,
    /// `--listen-client-urls`, `ETCD_LISTEN_CLIENT_URLS`. gRPC, and HTTP unless
    /// `listen_client_http_urls` has any. Not empty. Default `http://localhost:2379`.
    pub listen_client_urls: Vec<Url>,
    /// `--listen-client-http-urls`, `ETCD_LISTEN_CLIENT_HTTP_URLS`. HTTP only. Default none.
    pub listen_client_http_urls: Vec<Url>,
    /// `--listen-metrics-urls`, `ETCD_LISTEN_METRICS_URLS`. Metrics and health only. Default none.
    pub listen_metrics_urls: Vec<Url>,
    /// `--initial-advertise-peer-urls`, `ETCD_INITIAL_ADVERTISE_PEER_URLS`. Sorted, not empty.
    /// Default `http://localhost:2380`; with a peer listener on `0.0.0.0`, the host is this
    /// machine's.
    pub advertise_peer_urls: Vec<Url>,
    /// `--advertise-client-urls`, `ETCD_ADVERTISE_CLIENT_URLS`. Sorted. Default
    /// `http://localhost:2379`; with a client listener on `0.0.0.0`, the host is this machine's.
    pub advertise_client_urls: Vec<Url>,
    /// `--initial-cluster`, `ETCD_INITIAL_CLUSTER`. As given; read by
    /// [`Config::named_cluster`]. Default `<name>=<advertise_peer_urls>`.
    pub initial_cluster: String,
    /// `--initial-cluster-state new`, `ETCD_INITIAL_CLUSTER_STATE`. False for `existing`: a member
    /// without data joins a cluster that has added it. Default true.
    pub new_cluster: bool,
    /// `--initial-cluster-token`, `ETCD_INITIAL_CLUSTER_TOKEN`. Part of member and cluster ids.
    /// Default `etcd-cluster`.
    pub initial_cluster_token: String,
    /// `--discovery-endpoints`, `--discovery-token` and their details. Default none.
    pub discovery: Option<Discovery>,
    /// `--discovery-srv` and `--discovery-srv-name`, `ETCD_DISCOVERY_SRV` and
    /// `ETCD_DISCOVERY_SRV_NAME`. Default none.
    pub discovery_srv: Option<DiscoverySrv>,
    /// `--strict-reconfig-check`, `ETCD_STRICT_RECONFIG_CHECK`. Whether changes of the membership that
    /// could cost the quorum are refused. Default true.
    pub strict_reconfig_check: bool,
    /// `--max-learners`, `ETCD_MAX_LEARNERS`. Learners at a time; the same on all members. Default 1.
    pub max_learners: i64,
    /// `--quota-backend-bytes`, `ETCD_QUOTA_BACKEND_BYTES`. Bytes, the value in effect and in the
    /// metric; negative means none. Default 2 GiB. See [`Config::quota`].
    pub quota_backend_bytes: i64,
    /// `--max-request-bytes`, `ETCD_MAX_REQUEST_BYTES`. Bytes of one proposal; gRPC receives
    /// [`Config::grpc_receive_limit`]. Default 1572864.
    pub max_request_bytes: u64,
    /// `--max-txn-ops`, `ETCD_MAX_TXN_OPS`. Operations in each part of a Txn. Default 128.
    pub max_txn_ops: u64,
    /// `--max-concurrent-streams`, `ETCD_MAX_CONCURRENT_STREAMS`. HTTP/2 streams of one client
    /// connection. Default 2^32 - 1.
    pub max_concurrent_streams: u32,
    /// `--grpc-keepalive-interval`, `ETCD_GRPC_KEEPALIVE_INTERVAL`. Time between the server's
    /// pings; 0 for none. Default 2 h.
    pub grpc_keepalive_interval: Duration,
    /// `--grpc-keepalive-timeout`, `ETCD_GRPC_KEEPALIVE_TIMEOUT`. Wait for the answer to a ping; 0
    /// for no pings. Default 20 s.
    pub grpc_keepalive_timeout: Duration,
    /// `--enable-grpc-gateway`, `ETCD_ENABLE_GRPC_GATEWAY`. The API as JSON under `/v3/`. Default true.
    pub enable_grpc_gateway: bool,
    /// `--cert-file`, `--auto-tls` and those beside them: TLS of the client and metrics listeners. Default
    /// none.
    pub client_tls: Security,
    /// `--peer-cert-file`, `--peer-auto-tls` and those beside them: TLS between members. Default none.
    pub peer_tls: Security,
    /// `--self-signed-cert-validity`, `ETCD_SELF_SIGNED_CERT_VALIDITY`. Years that a certificate is valid that
    /// is made here. Default 1.
    pub self_signed_cert_validity: u64,
    /// `--cors`, `ETCD_CORS`. Origins, or `*`. Default `*`.
    pub cors: Vec<String>,
    /// `--host-whitelist`, `ETCD_HOST_WHITELIST`. Host names, or `*`. Default `*`.
    pub host_whitelist: Vec<String>,
    /// `--log-level`, `--log-format`, `--log-outputs` and their variables. Default info, json,
    /// stderr.
    pub log: logging::Options,
    /// `--enable-pprof`, `ETCD_ENABLE_PPROF`. A CPU profile is served to clients of HTTP; also at log
    /// level debug. Default false.
    pub enable_pprof: bool,
    /// `--enable-distributed-tracing` and its details. Default none.
    pub tracing: Option<Tracing>,
    /// `--metrics extensive`, `ETCD_METRICS`. Default false.
    pub extensive_metrics: bool,
    /// `--feature-gates`, `ETCD_FEATURE_GATES`. Default etcd's.
    pub features: Features,
    /// `--corrupt-check-time`, `ETCD_CORRUPT_CHECK_TIME`. Time between two comparisons of the
    /// members' hashes by the leader. Default none.
    pub corrupt_check_time: Option<Duration>,
    /// `--compact-hash-check-time`, `ETCD_COMPACT_HASH_CHECK_TIME`. Time between two comparisons of
    /// the hashes that compactions leave, above 0; with [`Feature::CompactHashCheck`] only.
    /// Default 1 min.
    pub compact_hash_check_time: Duration,
    /// `--warning-apply-duration`, `ETCD_WARNING_APPLY_DURATION`. Slower applies are warned about.
    /// Default 100 ms.
    pub warning_apply_duration: Duration,
    /// `--warning-unary-request-duration`, `ETCD_WARNING_UNARY_REQUEST_DURATION`. Slower calls are
    /// warned about. Default 300 ms.
    pub warning_unary_request_duration: Duration,
    /// `--auto-compaction-mode` and `--auto-compaction-retention`, `ETCD_AUTO_COMPACTION_MODE` and
    /// `ETCD_AUTO_COMPACTION_RETENTION`. Default none.
    pub auto_compaction: Option<AutoCompaction>,
    /// `--compaction-batch-limit`, `ETCD_COMPACTION_BATCH_LIMIT`. Revisions removed at a time,
    /// above 0. Default 1000.
    pub compaction_batch_limit: u64,
    /// `--compaction-sleep-interval`, `ETCD_COMPACTION_SLEEP_INTERVAL`. Pause between two batches.
    /// Default 10 ms.
    pub compaction_sleep_interval: Duration,
    /// `--watch-progress-notify-interval`, `ETCD_WATCH_PROGRESS_NOTIFY_INTERVAL`. Time between two
    /// progress notifications to a watcher that wants them. Default 10 min.
    pub watch_progress_notify_interval: Duration,
    /// `--auth-token`, `ETCD_AUTH_TOKEN`. The kind of tokens that users get, and its options. Default
    /// `simple`.
    pub auth_token: String,
    /// `--auth-token-ttl`, `ETCD_AUTH_TOKEN_TTL`. Whole seconds, above 0: how long a simple token lives that
    /// is not used. Default 300 s.
    pub auth_token_ttl: Duration,
    /// `--bcrypt-cost`, `ETCD_BCRYPT_COST`. What hashing a password costs: 4 to 31; another one is not
    /// taken. Default 10.
    pub bcrypt_cost: u32,
    /// `--socket-reuse-port`, `ETCD_SOCKET_REUSE_PORT`. Whether other processes may listen on the same
    /// ports. Default false.
    pub socket_reuse_port: bool,
    /// `--memory-mlock`, `ETCD_MEMORY_MLOCK`. The memory of the process stays out of the swap. For the
    /// program: [`Server`](crate::Server) does not look at it. Default false.
    pub memory_mlock: bool,
    /// `--bootstrap-defrag-threshold-megabytes`, `ETCD_BOOTSTRAP_DEFRAG_THRESHOLD_MEGABYTES`. Bytes that
    /// a defragmentation at start has to free, or it is not done; 0 for never. Default 0.
    pub bootstrap_defrag_threshold: u64,
    /// `--downgrade-check-time`, `ETCD_DOWNGRADE_CHECK_TIME`. Time between two looks of the leader whether
    /// a downgrade is done; 0 for none. Default 5 s.
    pub downgrade_check_time: Duration,
    /// The version that the program says it is of. No flag: for programs that stand in for others.
    pub release: Version,
    /// `--force-new-cluster`, `ETCD_FORCE_NEW_CLUSTER`. The other members are lost: this one goes on
    /// alone with its data, and removes them. Default false.
    pub force_new_cluster: bool,
    /// `--unsafe-no-fsync`, `ETCD_UNSAFE_NO_FSYNC`. Nothing waits for the disk: a crash of the
    /// machine loses acknowledged writes. Default false.
    pub unsafe_no_fsync: bool,
}

/// Where the members of a new cluster find each other: keys in another etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// `--discovery-token`, `ETCD_DISCOVERY_TOKEN`. The cluster's name there, and its token here.
    pub token: String,
    /// `--discovery-endpoints`, `ETCD_DISCOVERY_ENDPOINTS`. Not empty.
    pub endpoints: Vec<String>,
    /// `--discovery-dial-timeout`, `ETCD_DISCOVERY_DIAL_TIMEOUT`. Default 2 s.
    pub dial_timeout: Duration,
    /// `--discovery-request-timeout`, `ETCD_DISCOVERY_REQUEST_TIMEOUT`. Default 5 s.
    pub request_timeout: Duration,
    /// `--discovery-keepalive-time`, `ETCD_DISCOVERY_KEEPALIVE_TIME`. Default 2 s.
    pub keepalive_time: Duration,
    /// `--discovery-keepalive-timeout`, `ETCD_DISCOVERY_KEEPALIVE_TIMEOUT`. Default 6 s.
    pub keepalive_timeout: Duration,
    /// `--discovery-cacert` and those beside it: TLS for endpoints that leave it open; those of `https` have
    /// it anyway. Default none.
    pub tls: Option<ferrite_tls::Info>,
}

/// A DNS domain whose SRV records name the members of a new cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoverySrv {
    /// The domain.
    pub domain: String,
    /// What is appended to the name of the service, if anything.
    pub service_name: String,
}

/// Where spans of calls are sent to, and of which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// `--distributed-tracing-address`, `ETCD_DISTRIBUTED_TRACING_ADDRESS`. Host and port of a collector
    /// that speaks OTLP over gRPC. Default `localhost:4317`.
    pub address: String,
    /// `--distributed-tracing-service-name`, `ETCD_DISTRIBUTED_TRACING_SERVICE_NAME`. Default `etcd`.
    pub service_name: String,
    /// `--distributed-tracing-instance-id`, `ETCD_DISTRIBUTED_TRACING_INSTANCE_ID`. Default empty: none.
    pub instance_id: String,
    /// `--distributed-tracing-sampling-rate`, `ETCD_DISTRIBUTED_TRACING_SAMPLING_RATE`. Spans of each
    /// million calls that belong to no trace of a client's, at most a million. Default 0.
    pub sampling_rate: u32,
}

/// What automatic compaction keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// The history of the last so long, above 0.
    Periodic(Duration),
    /// The last so many revisions, above 0.
    Revision(i64),
}

impl Default for Config {
    fn default() -> Self {
        let (config, _) = resolve(&RawConfig::default(), Source::File, &|| None)
            .expect("the defaults of the table obey every rule");
        config
    }
}

impl Config {
    /// Election timeout in ticks, rounded down as etcd does; at least 5.
    pub fn election_ticks(&self) -> u64 {
        let ticks = self.election_timeout.as_millis() / self.heartbeat_interval.as_millis().max(1);
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    /// How long a request may take: 5 s and two election timeouts.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.election_timeout
    }

    /// Most bytes of one received gRPC message: a proposal and 512 KiB for everything around it.
    pub fn grpc_receive_limit(&self) -> u64 {
        self.max_request_bytes.saturating_add(512 * 1024)
    }

    /// The quota in bytes, if there is one.
    pub fn quota(&self) -> Option<u64> {
        u64::try_from(self.quota_backend_bytes).ok()
    }

    /// `<data-dir>/member`.
    pub fn member_path(&self) -> PathBuf {
        self.data_dir.join("member")
    }

    /// The write-ahead log: `--wal-dir` or `<data-dir>/member/wal`.
    pub fn wal_path(&self) -> PathBuf {
        match &self.wal_dir {
            Some(dir) => dir.clone(),
            None => self.member_path().join("wal"),
        }
    }

    /// `<data-dir>/member/snap`, the directory of the page file.
    pub fn snap_path(&self) -> PathBuf {
        self.member_path().join("snap")
    }

    /// What the registry measures.
    pub fn metrics_options(&self) -> metrics::Options {
        metrics::Options {
            extensive: self.extensive_metrics,
            release: self.release,
        }
    }
}

/// The address by which this machine reaches others, if it has a default route. Asks the routing
/// table by connecting a datagram socket; nothing is sent.
fn default_host() -> Option<IpAddr> {
    let via = |local: &str, remote: &str| {
        let socket = UdpSocket::bind(local).ok()?;
        socket.connect(remote).ok()?;
        let ip = socket.local_addr().ok()?.ip();
        (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
    };
    // Addresses of the documentation ranges: every default route covers them.
    via("0.0.0.0:0", "192.0.2.1:9").or_else(|| via("[::]:0", "[2001:db8::1]:9"))
}

/// The addresses of a host name, from the system's resolver.
///
/// # Errors
/// When the name does not resolve.
pub fn lookup_host(host: &str) -> std::io::Result<Vec<IpAddr>> {
    Ok((host, 0)
        .to_socket_addrs()?
        .map(|address: SocketAddr| address.ip())
        .collect())
}

/// Reads a configuration file; the error is Go's text for it.
fn read_file(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path)
        .map_err(|error| format!("open {}: {}", path.display(), os_text(&error)))
}
