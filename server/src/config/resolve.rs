//! From what was asked for to what the server runs with: defaults, cross-field rules in etcd's
//! order, and the refusal of what is not built (spec/server-flags.md section 6).

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ferrite_api::Version;

use super::error::{Error, Problems};
use super::flags::{FLAGS, Flag, Status, Value};
use super::gates::{self, Feature};
use super::note::Note;
use super::raw::RawConfig;
use super::security::{self, Security};
use super::urls::{Url, join};
use super::value::GoDuration;
use super::{AutoCompaction, Config, Discovery, DiscoverySrv, Tracing};
use crate::logging;

/// Where the values came from: some of etcd's rules look at that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Flags and variables.
    CommandLine,
    /// `--config-file`.
    File,
}

/// The longest election timeout, in milliseconds.
const MAX_ELECTION_MS: u64 = 50_000;
/// A larger quota is warned about.
const RECOMMENDED_QUOTA: i64 = 8 << 30;
/// The quota when the flag is 0.
const DEFAULT_QUOTA: i64 = 2 << 30;
/// A larger request limit is warned about.
const RECOMMENDED_REQUEST_BYTES: u64 = 10 << 20;
/// Both peer timeouts are at least this.
const MIN_PEER_TIMEOUT: GoDuration = GoDuration::from_nanos(5_000_000_000);
/// The one advertised peer URL that a member does not share with others.
pub(crate) const DEFAULT_PEER_URL: &str = "http://localhost:2380";
const DEFAULT_CLIENT_URL: &str = "http://localhost:2379";

/// Reads typed values out of a [`RawConfig`]. Each getter panics on a row of another type, which a
/// test that resolves an empty configuration would show.
pub(super) struct Reader<'a>(&'a RawConfig);

macro_rules! getters {
    ($($getter:ident: $variant:ident -> $type:ty),* $(,)?) => {
        $(pub(super) fn $getter(&self, name: &str) -> $type {
            match self.0.value(name) {
                Value::$variant(value) => value,
                other => unreachable!("--{name} holds {other:?}"),
            }
        })*
    };
}

impl Reader<'_> {
    getters! {
        bool: Bool -> bool,
        uint: Uint -> u64,
        int: Int -> i64,
        duration: Duration -> GoDuration,
        text: Text -> String,
        urls: Urls -> Vec<Url>,
        list: List -> Vec<String>,
    }

    /// Zero means `otherwise`; negative means none.
    fn duration_or(&self, name: &str, otherwise: Duration) -> Duration {
        match self.duration(name) {
            zero if zero.nanos() == 0 => otherwise,
            given => given.clamped(),
        }
    }

    /// Not positive means never.
    fn period(&self, name: &str) -> Option<Duration> {
        Some(self.duration(name).clamped()).filter(|period| !period.is_zero())
    }

    fn uint_or(&self, name: &str, otherwise: u64) -> u64 {
        match self.uint(name) {
            0 => otherwise,
            given => given,
        }
    }
}

/// Applies the rules. `default_host` tells the address by which this machine reaches others; it is
/// asked only when the advertised host must be found out.
///
/// # Errors
/// Every problem at once, in etcd's order.
pub fn resolve(
    raw: &RawConfig,
    source: Source,
    default_host: &dyn Fn() -> Option<IpAddr>,
) -> Result<(Config, Vec<Note>), Problems> {
    let read = Reader(raw);
    let mut notes = Vec::new();
    let mut problems = Vec::new();

    if source == Source::CommandLine && read.text("discovery-fallback") == "proxy" {
        problems.push(Error::DiscoveryFallback);
    }
    let log = log_options(&read, &mut problems);
    check_urls(&read, &mut problems, &mut notes);
    check_bootstrap(&read, raw, source, &mut problems);
    check_timing(&read, &mut problems);
    // Only flags and variables take the default away; a file keeps it.
    if source == Source::CommandLine
        && raw.is_given("listen-client-urls")
        && !raw.is_given("advertise-client-urls")
    {
        problems.push(Error::UnsetAdvertiseClient);
    }
    check_compaction(&read, &mut problems);
    check_tracing(&read, &mut problems);
    check_gates(&read, &mut problems, &mut notes);
    let hash_check = read.duration("compact-hash-check-time");
    if hash_check.nanos() <= 0 {
        problems.push(Error::CompactHashCheckTime(hash_check));
    }
    if read.text("name") == "default" {
        notes.push(Note::DefaultName {
            name: "default".to_owned(),
        });
    }
    security::check(&read, &mut problems, &mut notes);
    check_listeners(&read, &mut problems, &mut notes);
    refuse(raw, source, &mut problems, &mut notes);

    match log {
        Some(log) if problems.is_empty() => {
            let (config, more) = build(&read, source, log, default_host);
            notes.extend(more);
            Ok((config, notes))
        }
        _ => Err(Problems(problems)),
    }
}

/// Step 1: logging. `None` when something is wrong with it.
fn log_options(read: &Reader<'_>, problems: &mut Vec<Error>) -> Option<logging::Options> {
    let before = problems.len();
    match read.text("logger").as_str() {
        "zap" => {}
        "capnslog" => problems.push(Error::Capnslog),
        other => problems.push(Error::Logger(other.to_owned())),
    }
    let outputs = read.list("log-outputs");
    if outputs.len() > 1 && outputs.iter().any(|output| output == "default") {
        problems.push(Error::MixedDefaultOutput);
    }
    let journal = outputs.iter().any(|output| output == "systemd/journal");
    if journal && outputs.len() > 1 && !outputs.iter().any(|output| output == "default") {
        problems.push(Error::MixedJournal(outputs.clone()));
    }
    let rotation = rotation(read, &outputs, problems);
    let level = read.text("log-level");
    let parsed_level = logging::Level::parse(&level);
    if parsed_level.is_none() {
        problems.push(Error::LogLevel(level));
    }
    let format = read.text("log-format");
    let parsed_format = logging::Format::parse(&format);
    if parsed_format.is_none() {
        problems.push(Error::LogFormat(format));
    }
    (problems.len() == before).then_some(())?;
    Some(logging::Options {
        level: parsed_level?,
        format: parsed_format?,
        outputs: logging::Output::parse_all(&outputs),
        rotation,
    })
}

/// How the one log file is rotated, if it is.
fn rotation(
    read: &Reader<'_>,
    outputs: &[String],
    problems: &mut Vec<Error>,
) -> Option<logging::Rotation> {
    if !read.bool("enable-log-rotation") {
        return None;
    }
    let is_file =
        |output: &&String| !["", "default", "stderr", "stdout"].contains(&output.as_str());
    if outputs.iter().filter(is_file).count() != 1 {
        problems.push(Error::RotationWithoutFile);
        return None;
    }
    match logging::Rotation::parse(&read.text("log-rotation-config-json")) {
        Ok(rotation) => Some(rotation),
        Err(reason) => {
            problems.push(Error::Rotation(reason));
            None
        }
    }
}

/// Steps 2 and 3: listen URLs are addresses, advertised ones have hosts.
fn check_urls(read: &Reader<'_>, problems: &mut Vec<Error>, notes: &mut Vec<Note>) {
    for flag in [
        "listen-peer-urls",
        "listen-client-urls",
        "listen-client-http-urls",
        "listen-metrics-urls",
    ] {
        let bad = read
            .urls(flag)
            .iter()
            .find_map(|url| url.check_bindable().err());
        problems.extend(bad.map(Error::Bind));
    }
    if read.urls("listen-client-http-urls").is_empty() {
        notes.push(Note::SinglePort);
    }
    let peers = read.urls("initial-advertise-peer-urls");
    if let Some(reason) = peers.iter().find_map(|url| url.check_host().err()) {
        let urls = join(&peers);
        problems.push(Error::AdvertisePeer { urls, reason });
    }
    let clients = read.urls("advertise-client-urls");
    if let Some(reason) = clients.iter().find_map(|url| url.check_host().err()) {
        let urls = join(&clients);
        problems.push(Error::AdvertiseClient { urls, reason });
    }
}

/// Steps 4 to 6: one way to find the cluster.
fn check_bootstrap(read: &Reader<'_>, raw: &RawConfig, source: Source, problems: &mut Vec<Error>) {
    let state = read.text("initial-cluster-state");
    if state != "new" && state != "existing" {
        problems.push(Error::ClusterState(state));
    }
    let endpoints = read.list("discovery-endpoints");
    let srv = !read.text("discovery-srv").is_empty();
    let srv_name = source == Source::CommandLine && !read.text("discovery-srv-name").is_empty();
    let discovers = srv || srv_name || !endpoints.is_empty();
    let cluster =
        !read.text("initial-cluster").is_empty() && (raw.is_given("initial-cluster") || !discovers);
    if [cluster, srv, !endpoints.is_empty()]
        .iter()
        .filter(|set| **set)
        .count()
        > 1
    {
        problems.push(Error::ConflictingBootstrap);
    }
    if read.text("discovery-token").is_empty() != endpoints.is_empty() {
        problems.push(Error::HalfDiscovery);
    }
    if endpoints.iter().any(|endpoint| endpoint.trim().is_empty()) {
        problems.push(Error::EmptyDiscoveryEndpoint);
    }
}

/// Ways to find the cluster other than by naming it.
fn discovery(read: &Reader<'_>) -> (Option<Discovery>, Option<DiscoverySrv>) {
    let endpoints = read.list("discovery-endpoints");
    let discovery = (!endpoints.is_empty()).then(|| Discovery {
        token: read.text("discovery-token"),
        endpoints,
        dial_timeout: read.duration("discovery-dial-timeout").clamped(),
        request_timeout: read.duration("discovery-request-timeout").clamped(),
        keepalive_time: read.duration("discovery-keepalive-time").clamped(),
        keepalive_timeout: read.duration("discovery-keepalive-timeout").clamped(),
        tls: security::of_discovery(read),
    });
    let domain = read.text("discovery-srv");
    let srv = (!domain.is_empty()).then(|| DiscoverySrv {
        domain,
        service_name: read.text("discovery-srv-name"),
    });
    (discovery, srv)
}

/// Step 7: heartbeats and elections.
fn check_timing(read: &Reader<'_>, problems: &mut Vec<Error>) {
    let heartbeat = read.uint("heartbeat-interval");
    let election = read.uint("election-timeout");
    if heartbeat == 0 {
        problems.push(Error::ZeroHeartbeat);
    }
    if election == 0 {
        problems.push(Error::ZeroElection);
    } else if heartbeat.saturating_mul(5) > election {
        problems.push(Error::ShortElection {
            election,
            heartbeat,
        });
    }
    if election > MAX_ELECTION_MS {
        problems.push(Error::LongElection {
            election,
            limit: MAX_ELECTION_MS,
        });
    }
}

/// Step 9, and the later parsing of the retention.
fn check_compaction(read: &Reader<'_>, problems: &mut Vec<Error>) {
    match read.text("auto-compaction-mode").as_str() {
        "periodic" | "revision" => {}
        "" => problems.push(Error::NoCompactionMode),
        other => problems.push(Error::CompactionMode(other.to_owned())),
    }
    if let Err(reason) = retention(read) {
        problems.push(Error::CompactionRetention(reason));
    }
    let batch = read.int("compaction-batch-limit");
    if batch < 0 {
        problems.push(Error::CompactionBatch(batch));
    }
}

/// What `--auto-compaction-retention` and the mode mean together; `None`: no automatic compaction.
/// A whole number is hours or revisions, everything else a duration, which mode `revision` takes as
/// that many nanoseconds (a quirk of etcd's).
///
/// Deviation: etcd takes negative durations, with which it compacts without pause, and lets hours
/// wrap around.
fn retention(read: &Reader<'_>) -> Result<Option<AutoCompaction>, String> {
    let text = read.text("auto-compaction-retention");
    let text = if text.is_empty() { "0" } else { &text };
    let periodic = read.text("auto-compaction-mode") == "periodic";
    let number = match text.parse::<i64>() {
        Ok(number) if number >= 0 && periodic => number
            .checked_mul(3600 * 1_000_000_000)
            .ok_or_else(|| format!("time: invalid duration {:?}", format!("{text}h")))?,
        Ok(number) if number >= 0 => number,
        _ => GoDuration::parse(text)?.nanos(),
    };
    let unsigned = u64::try_from(number).map_err(|_| format!("negative duration {text:?}"))?;
    Ok(match (number, periodic) {
        (0, _) => None,
        (_, true) => Some(AutoCompaction::Periodic(Duration::from_nanos(unsigned))),
        (_, false) => Some(AutoCompaction::Revision(number)),
    })
}

/// Step 10.
fn check_tracing(read: &Reader<'_>, problems: &mut Vec<Error>) {
    if !read.bool("enable-distributed-tracing") {
        return;
    }
    match read.int("distributed-tracing-sampling-rate") {
        ..0 => problems.push(Error::SamplingRate("positive")),
        0..=1_000_000 => {}
        _ => problems.push(Error::SamplingRate("less than 1000000")),
    }
}

/// Where spans go, if anywhere.
fn tracing(read: &Reader<'_>) -> Option<Tracing> {
    let rate = read.int("distributed-tracing-sampling-rate");
    read.bool("enable-distributed-tracing").then(|| Tracing {
        address: read.text("distributed-tracing-address"),
        service_name: read.text("distributed-tracing-service-name"),
        instance_id: read.text("distributed-tracing-instance-id"),
        // Checked where it was read.
        sampling_rate: u32::try_from(rate).unwrap_or(0),
    })
}

/// Step 11.
fn check_gates(read: &Reader<'_>, problems: &mut Vec<Error>, notes: &mut Vec<Note>) {
    // Checked where it was read.
    let (features, warnings) = gates::parse(&read.text("feature-gates")).unwrap_or_default();
    notes.extend(warnings.into_iter().map(Note::Gate));
    let enabled = |feature| features.is_on(feature);
    if enabled(Feature::LeaseCheckpointPersist) && !enabled(Feature::LeaseCheckpoint) {
        problems.push(Error::PersistWithoutCheckpoint);
    }
    if enabled(Feature::LeaseCheckpoint) && !enabled(Feature::LeaseCheckpointPersist) {
        notes.push(Note::CheckpointWithoutPersist);
    }
}

/// What etcd finds while it opens its listeners.
fn check_listeners(read: &Reader<'_>, problems: &mut Vec<Error>, notes: &mut Vec<Note>) {
    security::check_listeners(read, problems, notes);
    let clients = read.urls("listen-client-urls");
    let shared = read
        .urls("listen-client-http-urls")
        .into_iter()
        .find(|http| clients.iter().any(|url| url.address() == http.address()));
    if let Some(url) = shared {
        problems.push(Error::SameClientUrl(url.to_string()));
    }
}

/// Everything that was given and is not built, or that will go away.
fn refuse(raw: &RawConfig, source: Source, problems: &mut Vec<Error>, notes: &mut Vec<Note>) {
    for flag in FLAGS.iter().filter(|flag| raw.is_given(flag.name)) {
        let value = raw.value(flag.name);
        match flag.name {
            "max-snapshots" => notes.push(Note::Deprecated(
                "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8.",
            )),
            "v2-deprecation" => notes.push(Note::Deprecated(
                "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is enforced, ignoring user input.",
            )),
            "raft-read-timeout" | "raft-write-timeout"
                if source == Source::CommandLine
                    && matches!(&value, Value::Duration(given) if *given < MIN_PEER_TIMEOUT) =>
            {
                notes.push(Note::PeerTimeoutRaised {
                    flag: flag.name,
                    minimum: MIN_PEER_TIMEOUT,
                });
                continue;
            }
            _ => {}
        }
        if let Status::NoEffect(why) = flag.status
            && value != flag.default_value()
        {
            notes.push(Note::NoEffect {
                flag: flag.name,
                why,
            });
        }
        if let Status::Refused { reason, harmless } = flag.status
            && value != flag.default_value()
            && !means_default(flag, harmless, &value)
        {
            problems.push(Error::NotBuilt {
                flag: flag.name,
                value: shown(flag, &value),
                reason,
                default: flag.default,
            });
        }
    }
}

/// Whether a value is one of those that mean the same as the default. A list given as the empty
/// text holds one empty entry, and asks for nothing.
fn means_default(flag: &Flag, harmless: &[&str], value: &Value) -> bool {
    if matches!(value, Value::List(entries) if entries.iter().all(String::is_empty)) {
        return true;
    }
    harmless
        .iter()
        .any(|text| flag.kind.parse(text).as_ref() == Ok(value))
}

/// A value as the error shows it; never a password.
fn shown(flag: &Flag, value: &Value) -> String {
    if flag.name.ends_with("password") {
        "...".to_owned()
    } else {
        value.to_string()
    }
}

/// The typed configuration of valid values, and the notes that come with it.
fn build(
    read: &Reader<'_>,
    source: Source,
    log: logging::Options,
    default_host: &dyn Fn() -> Option<IpAddr>,
) -> (Config, Vec<Note>) {
    let mut notes = Vec::new();
    let name = read.text("name");
    let listen_peer_urls = read.urls("listen-peer-urls");
    let listen_client_urls = read.urls("listen-client-urls");
    let mut advertise_peer_urls = read.urls("initial-advertise-peer-urls");
    let mut advertise_client_urls = read.urls("advertise-client-urls");

    let wildcard = |urls: &[Url]| urls.first().is_some_and(|url| url.host() == "0.0.0.0");
    let is_default = |urls: &[Url], default: &str| urls.len() == 1 && urls[0].as_str() == default;
    let peers_open =
        is_default(&advertise_peer_urls, DEFAULT_PEER_URL) && wildcard(&listen_peer_urls);
    let clients_open =
        is_default(&advertise_client_urls, DEFAULT_CLIENT_URL) && wildcard(&listen_client_urls);
    if (peers_open || clients_open)
        && let Some(host) = default_host()
    {
        // The scheme of the default, the port of the listener.
        if peers_open {
            advertise_peer_urls = vec![listen_peer_urls[0].with_host(host)];
        }
        if clients_open {
            advertise_client_urls = vec![listen_client_urls[0].with_host(host)];
        }
        notes.push(Note::DefaultHost {
            host: host.to_string(),
        });
    }
    let mut initial_cluster = read.text("initial-cluster");
    if name != "default" && initial_cluster == format!("default={DEFAULT_PEER_URL}") {
        let own = if name.is_empty() { "default" } else { &name };
        let pairs: Vec<String> = advertise_peer_urls
            .iter()
            .map(|url| format!("{own}={url}"))
            .collect();
        initial_cluster = pairs.join(",");
    }
    let (discovery, discovery_srv) = discovery(read);
    // The default is taken away by another way to find the cluster.
    if (discovery.is_some() || discovery_srv.is_some()) && !read.0.is_given("initial-cluster") {
        initial_cluster.clear();
    }
    let mut data_dir = read.text("data-dir");
    if data_dir.is_empty() {
        data_dir = format!("{name}.etcd");
        notes.push(Note::DefaultDataDir {
            data_dir: data_dir.clone(),
        });
    }
    let wal_dir = read.text("wal-dir");

    let quota = read.int("quota-backend-bytes");
    if quota > RECOMMENDED_QUOTA {
        notes.push(Note::LargeQuota {
            quota,
            recommended: RECOMMENDED_QUOTA,
        });
    }
    let max_request_bytes = read.uint("max-request-bytes");
    if max_request_bytes > RECOMMENDED_REQUEST_BYTES {
        notes.push(Note::LargeRequests {
            limit: max_request_bytes,
            recommended: RECOMMENDED_REQUEST_BYTES,
        });
    }
    let unsafe_no_fsync = read.bool("unsafe-no-fsync");
    if unsafe_no_fsync {
        notes.push(Note::NoFsync);
    }

    let config = Config {
        name,
        data_dir: PathBuf::from(data_dir),
        wal_dir: (!wal_dir.is_empty()).then(|| PathBuf::from(wal_dir)),
        snapshot_count: read.uint_or("snapshot-count", 10_000),
        snapshot_catchup_entries: read.uint_or("snapshot-catchup-entries", 5_000),
        heartbeat_interval: Duration::from_millis(read.uint("heartbeat-interval")),
        election_timeout: Duration::from_millis(read.uint("election-timeout")),
        pre_vote: read.bool("pre-vote"),
        listen_peer_urls,
        listen_client_urls,
        listen_client_http_urls: read.urls("listen-client-http-urls"),
        listen_metrics_urls: read.urls("listen-metrics-urls"),
        advertise_peer_urls,
        advertise_client_urls,
        initial_cluster,
        new_cluster: read.text("initial-cluster-state") == "new",
        initial_cluster_token: read.text("initial-cluster-token"),
        discovery,
        discovery_srv,
        strict_reconfig_check: read.bool("strict-reconfig-check"),
        max_learners: read.int("max-learners"),
        quota_backend_bytes: if quota == 0 { DEFAULT_QUOTA } else { quota },
        max_request_bytes,
        max_txn_ops: read.uint("max-txn-ops"),
        max_concurrent_streams: u32::try_from(read.uint("max-concurrent-streams"))
            .unwrap_or(u32::MAX),
        grpc_keepalive_interval: read.duration("grpc-keepalive-interval").clamped(),
        grpc_keepalive_timeout: read.duration("grpc-keepalive-timeout").clamped(),
        enable_grpc_gateway: read.bool("enable-grpc-gateway"),
        client_tls: Security::of_clients(read),
        peer_tls: Security::of_members(read),
        self_signed_cert_validity: match (source, read.uint("self-signed-cert-validity")) {
            (Source::File, 0) => 1,
            (_, years) => years,
        },
        cors: read.list("cors"),
        host_whitelist: read.list("host-whitelist"),
        log,
        enable_pprof: read.bool("enable-pprof"),
        tracing: tracing(read),
        extensive_metrics: read.text("metrics") == "extensive",
        features: gates::parse(&read.text("feature-gates"))
            .unwrap_or_default()
            .0,
        corrupt_check_time: read.period("corrupt-check-time"),
        compact_hash_check_time: read.duration("compact-hash-check-time").clamped(),
        warning_apply_duration: read.duration("warning-apply-duration").clamped(),
        warning_unary_request_duration: read
            .duration_or("warning-unary-request-duration", Duration::from_millis(300)),
        auto_compaction: retention(read).unwrap_or_default(),
        compaction_batch_limit: match u64::try_from(read.int("compaction-batch-limit")) {
            Ok(given) if given > 0 => given,
            _ => 1_000,
        },
        compaction_sleep_interval: read
            .duration_or("compaction-sleep-interval", Duration::from_millis(10)),
        watch_progress_notify_interval: read
            .duration_or("watch-progress-notify-interval", Duration::from_secs(600)),
        auth_token: read.text("auth-token"),
        auth_token_ttl: Duration::from_secs(read.uint_or("auth-token-ttl", 300)),
        bcrypt_cost: u32::try_from(read.uint("bcrypt-cost")).unwrap_or(u32::MAX),
        socket_reuse_port: read.bool("socket-reuse-port"),
        memory_mlock: read.bool("memory-mlock"),
        bootstrap_defrag_threshold: read
            .uint("bootstrap-defrag-threshold-megabytes")
            .saturating_mul(1024 * 1024),
        downgrade_check_time: read.duration("downgrade-check-time").clamped(),
        release: Version::RELEASE,
        force_new_cluster: read.bool("force-new-cluster"),
        unsafe_no_fsync,
    };
    (config, notes)
}
