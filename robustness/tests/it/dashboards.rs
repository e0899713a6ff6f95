//! What the alert rules and the dashboard of etcd's repository (contrib/mixin at 3.7.1) look at is
//! there, under the same names, types and labels, in a form that a parser of Prometheus' format takes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::{Context, ensure};
use ferrite_client::PutOptions;
use ferrite_robustness::fleet::{Fleet, PATIENCE};
use ferrite_robustness::process::Process;
use prometheus_parse::{Sample, Scrape, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}
use Kind::{Counter, Gauge, Histogram};

/// Every metric of the rules and the dashboard, with the labels that they select or group by.
const LOOKED_AT: [(&str, Kind, &[&str]); 21] = [
    ("etcd_server_has_leader", Gauge, &[]),
    ("etcd_server_leader_changes_seen_total", Counter, &[]),
    ("etcd_server_proposals_failed_total", Counter, &[]),
    ("etcd_server_proposals_pending", Gauge, &[]),
    ("etcd_server_proposals_committed_total", Gauge, &[]),
    ("etcd_server_proposals_applied_total", Gauge, &[]),
    ("etcd_server_quota_backend_bytes", Gauge, &[]),
    ("etcd_mvcc_db_total_size_in_bytes", Gauge, &[]),
    ("etcd_mvcc_db_total_size_in_use_in_bytes", Gauge, &[]),
    ("etcd_disk_wal_fsync_duration_seconds", Histogram, &[]),
    ("etcd_disk_backend_commit_duration_seconds", Histogram, &[]),
    (
        "etcd_network_peer_round_trip_time_seconds",
        Histogram,
        &["To"],
    ),
    ("etcd_network_peer_sent_failures_total", Counter, &["To"]),
    ("etcd_network_peer_sent_bytes_total", Counter, &["To"]),
    ("etcd_network_peer_received_bytes_total", Counter, &["From"]),
    ("etcd_network_client_grpc_sent_bytes_total", Counter, &[]),
    (
        "etcd_network_client_grpc_received_bytes_total",
        Counter,
        &[],
    ),
    (
        "grpc_server_started_total",
        Counter,
        &["grpc_type", "grpc_service", "grpc_method"],
    ),
    (
        "grpc_server_handled_total",
        Counter,
        &["grpc_type", "grpc_service", "grpc_method", "grpc_code"],
    ),
    (
        "grpc_server_handling_seconds",
        Histogram,
        &["grpc_type", "grpc_service", "grpc_method"],
    ),
    ("process_resident_memory_bytes", Gauge, &[]),
];

/// Those that appear with their first event, which no healthy cluster has.
const OF_EVENTS: [&str; 1] = ["etcd_network_peer_sent_failures_total"];

async fn page(endpoint: &str) -> anyhow::Result<String> {
    let mut stream = tokio::net::TcpStream::connect(endpoint).await?;
    let request = b"GET /metrics HTTP/1.0\r\nhost: x\r\n\r\n";
    stream.write_all(request).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("an answer has a head")?;
    ensure!(head.contains(" 200 OK"), "{head}");
    ensure!(
        head.to_lowercase()
            .contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    Ok(body.to_owned())
}

/// The families of a page: kind and labels of the first sample. Every line has been understood.
fn families(page: &str) -> anyhow::Result<BTreeMap<String, (Kind, BTreeSet<String>)>> {
    let lines = page.lines().map(|line| Ok(line.to_owned()));
    let scrape = Scrape::parse(lines)?;
    let typed = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names: BTreeSet<_> = typed.filter_map(|line| line.split_once(' ')).collect();
    let mut found = BTreeMap::new();
    for Sample {
        metric,
        value,
        labels,
        ..
    } in scrape.samples
    {
        let kind = match value {
            Value::Counter(_) => Counter,
            Value::Gauge(_) => Gauge,
            Value::Histogram(_) => Histogram,
            // The parser gives sum and count of a histogram as samples of their own.
            _ => continue,
        };
        let labels = labels.keys().cloned().collect();
        found.entry(metric).or_insert((kind, labels));
    }
    for (name, kind) in names {
        ensure!(
            ["counter", "gauge", "histogram", "summary"].contains(&kind),
            "{name} is a {kind}"
        );
        ensure!(
            kind == "summary" || found.contains_key(name),
            "{name} has a type and no sample that the parser finds"
        );
    }
    Ok(found)
}

fn missing(found: &BTreeMap<String, (Kind, BTreeSet<String>)>) -> Vec<&'static str> {
    let names = LOOKED_AT.iter().map(|(name, ..)| *name);
    names
        .filter(|name| !found.contains_key(*name) && !OF_EVENTS.contains(name))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcds_rules_and_dashboard_find_what_they_look_at() {
    let binary = Process::built_beside_tests().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let fleet = Fleet::start(&binary, dir.path(), 3, &["--metrics=extensive"])
        .await
        .unwrap();
    let client = fleet.client().await.unwrap();
    client.put("a", "b", PutOptions::new()).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    let found = loop {
        // Members probe each other every few seconds, and histograms of calls come with calls.
        let found = families(&page(&fleet.members[0].endpoint()).await.unwrap()).unwrap();
        let missing = missing(&found);
        if missing.is_empty() {
            break found;
        }
        assert!(Instant::now() < deadline, "{missing:?} are not there");
        tokio::task::yield_now().await;
    };
    for (name, kind, labels) in LOOKED_AT {
        let Some((is, has)) = found.get(name) else {
            continue;
        };
        assert_eq!(*is, kind, "{name}");
        for label in labels {
            assert!(has.contains(*label), "{name} has {has:?}, not {label}");
        }
    }
}
