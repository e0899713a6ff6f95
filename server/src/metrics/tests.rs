//! The exposition, read back by a parser that shares nothing with the encoder, against the tables
//! of spec/metrics.md.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ferrite_api::types::MemberId;
use tonic::Code;

use super::server::CallKind;
use super::*;
use crate::config::{Feature, Features};

#[derive(Debug, Default)]
struct Family {
    kind: String,
    samples: Vec<Sample>,
}

#[derive(Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// `# TYPE` lines and samples; panics on a line of any other form.
fn parse(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            current = name.to_owned();
            let family = families.entry(current.clone()).or_default();
            assert!(family.kind.is_empty(), "{name} stands twice");
            family.kind = kind.to_owned();
        } else if let Some(rest) = line.strip_prefix("# HELP ") {
            assert!(rest.contains(' '), "no help: {line}");
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = match series.split_once('{') {
                Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
                None => (series, ""),
            };
            assert!(name.starts_with(&current), "{name} is not of {current}");
            let labels = labels.split("\",").filter(|l| !l.is_empty()).map(|label| {
                let (key, value) = label.split_once("=\"").unwrap();
                (key.to_owned(), value.trim_end_matches('"').to_owned())
            });
            let sample = Sample {
                name: name.to_owned(),
                labels: labels.collect(),
                value: value.parse().unwrap(),
            };
            families.get_mut(&current).unwrap().samples.push(sample);
        }
    }
    families
}

fn scrape(metrics: &Metrics) -> BTreeMap<String, Family> {
    parse(&String::from_utf8(metrics.scrape().unwrap()).unwrap())
}

impl Family {
    /// The value of the series with exactly these labels.
    fn value(&self, labels: &[(&str, &str)]) -> Option<f64> {
        self.samples
            .iter()
            .find(|sample| {
                sample.labels.len() == labels.len()
                    && labels
                        .iter()
                        .all(|(key, value)| sample.labels.get(*key).is_some_and(|v| v == value))
            })
            .map(|sample| sample.value)
    }

    /// Finite upper bounds of the first series.
    fn bounds(&self) -> Vec<f64> {
        let mut bounds: Vec<f64> = Vec::new();
        for sample in self.samples.iter().filter(|s| s.name.ends_with("_bucket")) {
            match sample.labels["le"].as_str() {
                "+Inf" => return bounds,
                bound => bounds.push(bound.parse().unwrap()),
            }
        }
        bounds
    }
}

const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";

/// Families without labels, or with series from the start, apart from histograms.
const PRESENT: &[(&str, &str)] = &[
    ("etcd_server_has_leader", GAUGE),
    ("etcd_server_is_leader", GAUGE),
    ("etcd_server_is_learner", GAUGE),
    ("etcd_server_leader_changes_seen_total", COUNTER),
    ("etcd_server_version", GAUGE),
    ("etcd_server_go_version", GAUGE),
    ("etcd_server_feature_enabled", GAUGE),
    ("etcd_server_heartbeat_send_failures_total", COUNTER),
    ("etcd_server_proposals_committed_total", GAUGE),
    ("etcd_server_proposals_applied_total", GAUGE),
    ("etcd_server_proposals_pending", GAUGE),
    ("etcd_server_proposals_failed_total", COUNTER),
    ("etcd_server_snapshot_apply_in_progress_total", GAUGE),
    ("etcd_server_learner_promote_successes", COUNTER),
    ("etcd_server_slow_apply_total", COUNTER),
    ("etcd_server_slow_read_indexes_total", COUNTER),
    ("etcd_server_read_indexes_failed_total", COUNTER),
    ("etcd_server_health_success", COUNTER),
    ("etcd_server_health_failures", COUNTER),
    ("etcd_server_quota_backend_bytes", GAUGE),
    ("etcd_network_client_grpc_sent_bytes_total", COUNTER),
    ("etcd_network_client_grpc_received_bytes_total", COUNTER),
    ("etcd_disk_wal_write_bytes_total", GAUGE),
    ("etcd_disk_defrag_inflight", GAUGE),
    ("etcd_mvcc_range_total", COUNTER),
    ("etcd_mvcc_put_total", COUNTER),
    ("etcd_mvcc_delete_total", COUNTER),
    ("etcd_mvcc_txn_total", COUNTER),
    ("etcd_mvcc_db_total_size_in_bytes", GAUGE),
    ("etcd_mvcc_db_total_size_in_use_in_bytes", GAUGE),
    ("etcd_mvcc_db_open_read_transactions", GAUGE),
    ("etcd_debugging_mvcc_keys_total", GAUGE),
    ("etcd_debugging_mvcc_watch_stream_total", GAUGE),
    ("etcd_debugging_mvcc_watcher_total", GAUGE),
    ("etcd_debugging_mvcc_slow_watcher_total", GAUGE),
    ("etcd_debugging_mvcc_events_total", COUNTER),
    ("etcd_debugging_mvcc_pending_events_total", GAUGE),
    ("etcd_debugging_mvcc_db_compaction_last", GAUGE),
    ("etcd_debugging_mvcc_db_compaction_keys_total", COUNTER),
    ("etcd_debugging_mvcc_current_revision", GAUGE),
    ("etcd_debugging_mvcc_compact_revision", GAUGE),
    ("etcd_debugging_mvcc_total_put_size_in_bytes", GAUGE),
    ("etcd_debugging_lease_granted_total", COUNTER),
    ("etcd_debugging_lease_revoked_total", COUNTER),
    ("etcd_debugging_lease_renewed_total", COUNTER),
    ("etcd_debugging_server_lease_expired_total", COUNTER),
    ("etcd_debugging_auth_revision", GAUGE),
    ("etcd_debugging_store_expires_total", COUNTER),
    ("etcd_debugging_store_watch_requests_total", COUNTER),
    ("etcd_debugging_store_watchers", GAUGE),
    ("grpc_server_started_total", COUNTER),
    ("grpc_server_handled_total", COUNTER),
    ("grpc_server_msg_received_total", COUNTER),
    ("grpc_server_msg_sent_total", COUNTER),
    ("os_fd_used", GAUGE),
    ("os_fd_limit", GAUGE),
    ("etcd_grpc_proxy_cache_hits_total", GAUGE),
    ("etcd_grpc_proxy_cache_keys_total", GAUGE),
    ("etcd_grpc_proxy_cache_misses_total", GAUGE),
    ("etcd_grpc_proxy_watchers_coalescing_total", GAUGE),
    ("etcd_grpc_proxy_events_coalescing_total", COUNTER),
    ("process_cpu_seconds_total", COUNTER),
    ("process_resident_memory_bytes", GAUGE),
    ("process_virtual_memory_bytes", GAUGE),
    ("process_virtual_memory_max_bytes", GAUGE),
    ("process_open_fds", GAUGE),
    ("process_max_fds", GAUGE),
    ("process_start_time_seconds", GAUGE),
    ("process_network_receive_bytes_total", COUNTER),
    ("process_network_transmit_bytes_total", COUNTER),
    ("promhttp_metric_handler_requests_total", COUNTER),
    ("promhttp_metric_handler_requests_in_flight", GAUGE),
];

/// Histograms with a series from the start: name, first bound, number of bounds.
const HISTOGRAMS: &[(&str, f64, i32)] = &[
    ("etcd_disk_wal_fsync_duration_seconds", 0.001, 14),
    ("etcd_disk_wal_write_duration_seconds", 0.001, 14),
    ("etcd_disk_backend_commit_duration_seconds", 0.001, 14),
    ("etcd_disk_backend_defrag_duration_seconds", 0.1, 13),
    ("etcd_disk_backend_snapshot_duration_seconds", 0.01, 17),
    ("etcd_snap_fsync_duration_seconds", 0.001, 14),
    ("etcd_snap_db_save_total_duration_seconds", 0.1, 10),
    ("etcd_snap_db_fsync_duration_seconds", 0.001, 14),
    ("etcd_mvcc_hash_duration_seconds", 0.01, 15),
    ("etcd_mvcc_hash_rev_duration_seconds", 0.01, 15),
    (
        "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds",
        0.5,
        14,
    ),
    (
        "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
        1.0,
        13,
    ),
    (
        "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
        100.0,
        14,
    ),
    (
        "etcd_debugging_disk_backend_commit_rebalance_duration_seconds",
        0.001,
        14,
    ),
    (
        "etcd_debugging_disk_backend_commit_spill_duration_seconds",
        0.001,
        14,
    ),
    (
        "etcd_debugging_disk_backend_commit_write_duration_seconds",
        0.001,
        14,
    ),
    ("etcd_debugging_lease_ttl_total", 1.0, 24),
    (
        "etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds",
        0.001,
        14,
    ),
    (
        "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds",
        0.001,
        14,
    ),
    (
        "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds",
        0.001,
        14,
    ),
    (
        "etcd_debugging_server_watch_send_loop_progress_duration_seconds",
        0.001,
        14,
    ),
    (
        "etcd_debugging_snap_save_marshalling_duration_seconds",
        0.001,
        14,
    ),
    ("etcd_debugging_snap_save_total_duration_seconds", 0.001, 14),
];

#[test]
fn a_fresh_member_shows_exactly_these_families() {
    let families = scrape(&Metrics::new(Options::default()));
    let expected: BTreeSet<&str> = PRESENT
        .iter()
        .map(|(name, _)| *name)
        .chain(HISTOGRAMS.iter().map(|(name, ..)| *name))
        .collect();
    let found: BTreeSet<&str> = families.keys().map(String::as_str).collect();
    assert_eq!(found, expected);
    for (name, kind) in PRESENT {
        assert_eq!(families[*name].kind, *kind, "{name}");
    }
}

#[test]
fn buckets_double() {
    let families = scrape(&Metrics::new(Options::default()));
    for (name, first, count) in HISTOGRAMS {
        let family = &families[*name];
        assert_eq!(family.kind, "histogram", "{name}");
        let expected: Vec<f64> = (0..*count).map(|i| first * 2_f64.powi(i)).collect();
        assert_eq!(family.bounds(), expected, "{name}");
        for suffix in ["_sum", "_count"] {
            let wanted = format!("{name}{suffix}");
            let sample = family.samples.iter().find(|s| s.name == wanted);
            assert_eq!(sample.map(|s| s.value), Some(0.0), "{wanted}");
        }
    }
}

#[test]
fn histograms_by_request_appear_with_their_first_observation() {
    let metrics = Metrics::new(Options::default());
    let server = &metrics.server;
    server
        .request_duration
        .observe(RequestKind::Put, true, Duration::from_millis(3));
    server
        .request_duration
        .observe(RequestKind::Put, true, Duration::from_millis(5));
    server
        .apply_duration
        .observe(RequestKind::AuthStatus, false, Duration::from_secs(1));
    server.observe_range(true, Duration::from_micros(150));
    metrics
        .network
        .peer_round_trip_time
        .with_label_values(&["a"])
        .observe(0.2);
    metrics
        .network
        .snapshot_send_total_duration
        .with_label_values(&["a"])
        .observe(0.2);
    metrics
        .network
        .snapshot_receive_total_duration
        .with_label_values(&["a"])
        .observe(0.2);
    let families = scrape(&metrics);
    for (name, first, count) in [
        ("etcd_server_request_duration_seconds", 0.001, 14),
        ("etcd_server_apply_duration_seconds", 0.0001, 20),
        ("etcd_server_range_duration_seconds", 0.0001, 20),
        ("etcd_network_peer_round_trip_time_seconds", 0.0001, 16),
        ("etcd_network_snapshot_send_total_duration_seconds", 0.1, 10),
        (
            "etcd_network_snapshot_receive_total_duration_seconds",
            0.1,
            10,
        ),
    ] {
        let expected: Vec<f64> = (0..count).map(|i| first * 2_f64.powi(i)).collect();
        assert_eq!(families[name].bounds(), expected, "{name}");
    }
    let requests = &families["etcd_server_request_duration_seconds"];
    let labels = |le| [("type", "Put"), ("success", "true"), ("le", le)];
    assert_eq!(requests.value(&labels("0.002")), Some(0.0));
    assert_eq!(requests.value(&labels("0.004")), Some(1.0));
    assert_eq!(requests.value(&labels("0.008")), Some(2.0));
    assert_eq!(requests.value(&labels("+Inf")), Some(2.0));
    let applies = &families["etcd_server_apply_duration_seconds"];
    assert_eq!(
        applies.value(&[
            ("version", "v3"),
            ("op", "unknown"),
            ("success", "false"),
            ("le", "+Inf")
        ]),
        Some(1.0)
    );
    let ranges = &families["etcd_server_range_duration_seconds"];
    assert_eq!(
        ranges.value(&[("success", "true"), ("le", "0.0002")]),
        Some(1.0)
    );
}

#[test]
fn grpc_series_exist_for_every_method_and_code() {
    let metrics = Metrics::new(Options::default());
    let families = scrape(&metrics);
    let handled = &families["grpc_server_handled_total"];
    let methods = Method::ALL.iter().copied();
    let from_the_start = methods.filter(|method| method.is_counted_from_the_start());
    let from_the_start = from_the_start.count();
    assert_eq!(from_the_start, Method::ALL.len() - 7);
    assert_eq!(handled.samples.len(), from_the_start * 17);
    for service in [
        "etcdserverpb.KV",
        "etcdserverpb.Watch",
        "etcdserverpb.Lease",
        "etcdserverpb.Cluster",
        "etcdserverpb.Maintenance",
        "etcdserverpb.Auth",
        "grpc.health.v1.Health",
    ] {
        assert!(
            handled
                .samples
                .iter()
                .any(|s| s.labels["grpc_service"] == service && s.value == 0.0),
            "{service}"
        );
    }
    for name in [
        "grpc_server_started_total",
        "grpc_server_msg_received_total",
        "grpc_server_msg_sent_total",
    ] {
        assert_eq!(families[name].samples.len(), from_the_start, "{name}");
    }
    let watch = [
        ("grpc_type", "bidi_stream"),
        ("grpc_service", "etcdserverpb.Watch"),
        ("grpc_method", "Watch"),
    ];
    assert_eq!(
        families["grpc_server_started_total"].value(&watch),
        Some(0.0)
    );
}

#[test]
fn counting_a_call() {
    let metrics = Metrics::new(Options {
        extensive: true,
        ..Options::default()
    });
    let rpc = metrics.grpc.path("/etcdserverpb.KV/Range").unwrap();
    rpc.started();
    rpc.received();
    rpc.sent();
    rpc.handled(Code::Ok, Duration::from_millis(7));
    metrics
        .grpc
        .method(Method::KvRange)
        .handled(Code::Cancelled, Duration::from_secs(60));
    assert!(metrics.grpc.path("/etcdserverpb.KV/Nothing").is_none());

    let families = scrape(&metrics);
    let range = [
        ("grpc_type", "unary"),
        ("grpc_service", "etcdserverpb.KV"),
        ("grpc_method", "Range"),
    ];
    for name in [
        "grpc_server_started_total",
        "grpc_server_msg_received_total",
        "grpc_server_msg_sent_total",
    ] {
        assert_eq!(families[name].value(&range), Some(1.0), "{name}");
    }
    let with = |key, value| [range.as_slice(), &[(key, value)]].concat();
    let handled = &families["grpc_server_handled_total"];
    assert_eq!(handled.value(&with("grpc_code", "OK")), Some(1.0));
    assert_eq!(handled.value(&with("grpc_code", "Canceled")), Some(1.0));
    assert_eq!(handled.value(&with("grpc_code", "Unavailable")), Some(0.0));
    let handling = &families["grpc_server_handling_seconds"];
    assert_eq!(handling.kind, "histogram");
    assert_eq!(
        handling.bounds(),
        [
            0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0
        ]
    );
    assert_eq!(handling.value(&with("le", "0.005")), Some(0.0));
    assert_eq!(handling.value(&with("le", "0.01")), Some(1.0));
    assert_eq!(handling.value(&with("le", "10")), Some(1.0));
    assert_eq!(handling.value(&with("le", "+Inf")), Some(2.0));
}

#[test]
fn methods_are_found_by_their_own_paths() {
    for &method in Method::ALL {
        let path = format!("/{}/{}", method.service(), method.name());
        assert_eq!(Method::from_path(&path), Some(method));
        assert_eq!(Method::ALL[method as usize], method);
    }
    assert_eq!(
        super::grpc::CODE_NAMES[Code::Unauthenticated as usize],
        "Unauthenticated"
    );
    assert_eq!(super::grpc::CODE_NAMES[Code::DataLoss as usize], "DataLoss");
}

/// The lines that etcd's own presence test looks for.
#[test]
fn exact_lines() {
    let metrics = Metrics::new(Options::default());
    metrics.set_member_id(MemberId::new(0x8e9e_05c5_2164_694d));
    metrics.server.set_cluster_version("3.6");
    metrics.server.set_cluster_version("3.7.0");
    metrics.server.set_cluster_version("3.7");
    metrics.mvcc.keys.set(1);
    let mut features = Features::default();
    features.set(Feature::LeaseCheckpoint, true);
    metrics.server.set_features(&features);
    let text = String::from_utf8(metrics.scrape().unwrap()).unwrap();
    for line in [
        "etcd_server_version{server_version=\"3.7.1\"} 1",
        "etcd_cluster_version{cluster_version=\"3.7\"} 1",
        "etcd_cluster_version{cluster_version=\"3.6\"} 0",
        "etcd_debugging_mvcc_keys_total 1",
        "etcd_server_has_leader 0",
        "etcd_server_id{server_id=\"8e9e05c52164694d\"} 1",
        "etcd_network_known_peers{Local=\"8e9e05c52164694d\",Remote=\"8e9e05c52164694d\"} 1",
        "etcd_server_feature_enabled{name=\"LeaseCheckpoint\",stage=\"ALPHA\"} 1",
        "etcd_server_feature_enabled{name=\"AllBeta\",stage=\"BETA\"} 0",
        "promhttp_metric_handler_requests_total{code=\"503\"} 0",
        "promhttp_metric_handler_requests_in_flight 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}");
    }
    assert!(!text.contains("NoSuchGate"));
}

#[test]
fn closures_run_before_each_scrape() {
    let metrics = Metrics::new(Options::default());
    metrics.on_scrape(|metrics| {
        let db = &metrics.mvcc.db_total_size;
        db.set(db.get() + 7);
    });
    assert_eq!(
        scrape(&metrics)["etcd_mvcc_db_total_size_in_bytes"].value(&[]),
        Some(7.0)
    );
    let second = scrape(&metrics);
    assert_eq!(
        second["etcd_mvcc_db_total_size_in_bytes"].value(&[]),
        Some(14.0)
    );
    let scrapes = &second["promhttp_metric_handler_requests_total"];
    assert_eq!(scrapes.value(&[("code", "200")]), Some(1.0));
}

#[test]
fn client_versions_are_bounded() {
    let metrics = Metrics::new(Options::default());
    for number in 0..1_000 {
        let version = format!("3.{number}.0");
        metrics
            .server
            .count_client_request(CallKind::Unary, Some(&version));
    }
    metrics
        .server
        .count_client_request(CallKind::Unary, Some("3.0.0"));
    metrics
        .server
        .count_client_request(CallKind::Unary, Some("3.0.0"));
    metrics.server.count_client_request(CallKind::Stream, None);
    metrics
        .server
        .count_client_request(CallKind::Stream, Some(""));
    let families = scrape(&metrics);
    let requests = &families["etcd_server_client_requests_total"];
    assert_eq!(requests.samples.len(), 64 + 2);
    let value = |kind, version| requests.value(&[("type", kind), ("client_api_version", version)]);
    assert_eq!(value("unary", "3.0.0"), Some(3.0));
    assert_eq!(value("unary", "3.63.0"), Some(1.0));
    assert_eq!(value("unary", "unknown"), Some(936.0));
    assert_eq!(value("stream", "unknown"), Some(2.0));
}

#[test]
fn health_checks_by_name() {
    let metrics = Metrics::new(Options::default());
    metrics
        .server
        .record_health_check("readyz", "linearizable_read", true);
    metrics
        .server
        .record_health_check("readyz", "linearizable_read", false);
    let families = scrape(&metrics);
    let labels = [("type", "readyz"), ("name", "linearizable_read")];
    assert_eq!(
        families["etcd_server_healthcheck"].value(&labels),
        Some(0.0)
    );
    for status in ["success", "error"] {
        let labels = [labels.as_slice(), &[("status", status)]].concat();
        assert_eq!(
            families["etcd_server_healthchecks_total"].value(&labels),
            Some(1.0)
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn process_values_are_read() {
    let families = scrape(&Metrics::new(Options::default()));
    for name in [
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "os_fd_used",
        "os_fd_limit",
    ] {
        assert!(families[name].value(&[]) >= Some(1.0), "{name}");
    }
    // After 2020, before 2100.
    let start = families["process_start_time_seconds"].value(&[]).unwrap();
    assert!((1.6e9..4.1e9).contains(&start), "{start}");
}
