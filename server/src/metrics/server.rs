//! `etcd_server_*`, `etcd_cluster_version`, `etcd_debugging_server_*` (spec/metrics.md section 1).

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use ferrite_api::Version;
use parking_lot::Mutex;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::register::{Registrar, doubling};
use crate::config::Features;
use crate::config::gates::GATES;

macro_rules! request_kinds {
    ($($name:ident),* $(,)?) => {
        /// What a request was: label `type` of `etcd_server_request_duration_seconds` and `op` of
        /// `etcd_server_apply_duration_seconds`. The variants are the label values.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum RequestKind { $($name),* }

        impl RequestKind {
            /// Every kind, in the order of the discriminants.
            pub const ALL: &'static [RequestKind] = &[$(RequestKind::$name),*];

            /// The label value.
            pub const fn name(self) -> &'static str {
                match self { $(RequestKind::$name => stringify!($name)),* }
            }
        }
    };
}

request_kinds! {
    Range, ReadonlyTxn,
    Put, DeleteRange, Txn, Compaction, LeaseGrant, LeaseRevoke, LeaseCheckpoint, Alarm,
    Authenticate, AuthEnable, AuthDisable, AuthStatus, AuthUserAdd, AuthUserDelete,
    AuthUserChangePassword, AuthUserGrantRole, AuthUserGet, AuthUserRevokeRole, AuthUserList,
    AuthRoleAdd, AuthRoleGrantPermission, AuthRoleGet, AuthRoleRevokePermission, AuthRoleDelete,
    AuthRoleList, ClusterVersionSet, ClusterMemberAttrSet, DowngradeInfoSet, DowngradeVersionTest,
    Unknown,
}

/// A histogram by request kind and success whose series are looked up once and appear with their
/// first observation, as etcd's do.
pub struct ByRequest {
    vec: HistogramVec,
    /// Label values of a kind and an outcome.
    labels: fn(RequestKind, bool) -> Vec<&'static str>,
    series: Vec<[OnceLock<Histogram>; 2]>,
}

impl ByRequest {
    fn new(vec: HistogramVec, labels: fn(RequestKind, bool) -> Vec<&'static str>) -> Self {
        let series = RequestKind::ALL.iter().map(|_| Default::default());
        Self {
            vec,
            labels,
            series: series.collect(),
        }
    }

    /// Counts one request that took `took`.
    pub fn observe(&self, kind: RequestKind, success: bool, took: Duration) {
        self.series[kind as usize][usize::from(success)]
            .get_or_init(|| self.vec.with_label_values(&(self.labels)(kind, success)))
            .observe(took.as_secs_f64());
    }
}

fn outcome(success: bool) -> &'static str {
    if success { "true" } else { "false" }
}

/// `etcd_server_*` and friends. Fields are named after the metric.
pub struct ServerMetrics {
    /// 1 while this member knows a leader.
    pub has_leader: IntGauge,
    /// 1 while this member is leader.
    pub is_leader: IntGauge,
    /// 1 while this member is a learner.
    pub is_learner: IntGauge,
    /// +1 when a different non-zero leader appears.
    pub leader_changes_seen: IntCounter,
    pub(super) id: IntGaugeVec,
    cluster_version: IntGaugeVec,
    /// The label that `cluster_version` shows as 1 now.
    cluster_version_now: Mutex<Option<String>>,
    feature_enabled: IntGaugeVec,
    /// Heartbeat rounds that ran late.
    pub heartbeat_send_failures: IntCounter,
    /// Raft commit index (hard state).
    pub proposals_committed: IntGauge,
    /// Raft applied index.
    pub proposals_applied: IntGauge,
    /// Proposals waiting for their result.
    pub proposals_pending: IntGauge,
    /// Propose errors, timeouts and cancellations.
    pub proposals_failed: IntCounter,
    /// 1 while installing a leader's snapshot.
    pub snapshot_apply_in_progress: IntGauge,
    /// Learners promoted here while leader.
    pub learner_promote_successes: IntCounter,
    /// Failed promotions, by error text (`Reason`).
    pub learner_promote_failures: IntCounterVec,
    /// End-to-end time of a request, from its arrival at the server's core to its result.
    pub request_duration: ByRequest,
    /// Time to apply one entry. [`RequestKind::AuthStatus`] and `Unknown` count as `unknown`.
    pub apply_duration: ByRequest,
    range_duration: HistogramVec,
    range_series: [OnceLock<Histogram>; 2],
    /// Applies and read-only requests above `warning-apply-duration`.
    pub slow_apply: IntCounter,
    /// Read-index rounds that timed out.
    pub slow_read_indexes: IntCounter,
    /// Read-index rounds that failed.
    pub read_indexes_failed: IntCounter,
    /// Healthy answers of `/health`.
    pub health_success: IntCounter,
    /// Unhealthy answers of `/health`.
    pub health_failures: IntCounter,
    healthcheck: IntGaugeVec,
    healthchecks: IntCounterVec,
    client_requests: IntCounterVec,
    unary_requests: LastVersion,
    stream_requests: LastVersion,
    known_client_versions: Mutex<Vec<String>>,
    /// The quota in effect, in bytes; negative = none.
    pub quota_backend_bytes: IntGauge,
    /// Active alarms by `server_id` and `alarm_type`: +1 per activation applied, -1 per
    /// deactivation.
    pub alarms: IntGaugeVec,
    /// Leases that ran out.
    pub lease_expired: IntCounter,
}

/// The series of the client version seen last, so that a client that does not change its version
/// costs no label lookup.
type LastVersion = ArcSwapOption<(String, IntCounter)>;

/// Distinct `client_api_version` labels kept; the metadata is the client's to choose, so without a
/// bound it could grow the registry for ever. Later ones are counted as `unknown`.
const MAX_CLIENT_VERSIONS: usize = 64;

/// Whether a call is unary or a stream, for `etcd_server_client_requests_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// One request, one response.
    Unary,
    /// A stream in either direction; counted once.
    Stream,
}

impl ServerMetrics {
    pub(super) fn new(r: &Registrar<'_>, release: Version) -> Self {
        r.gauge_vec(
            "etcd_server_version",
            "1 for the etcd version this server speaks.",
            &["server_version"],
        )
        .with_label_values(&[&release.to_string()])
        .set(1);
        // The name is etcd's; the value says truthfully that there is no Go here.
        r.gauge_vec(
            "etcd_server_go_version",
            "1 for the runtime of this server.",
            &["server_go_version"],
        )
        .with_label_values(&[concat!(
            "none (ferrite ",
            env!("CARGO_PKG_VERSION"),
            ", rust)"
        )])
        .set(1);
        let feature_enabled = r.gauge_vec(
            "etcd_server_feature_enabled",
            "1 for an enabled feature gate, 0 for a disabled one.",
            &["name", "stage"],
        );
        // Off, also those that are on by default in etcd, where their effect is not built.
        for gate in GATES {
            feature_enabled
                .with_label_values(&[gate.name, gate.stage.name()])
                .set(0);
        }
        Self {
            has_leader: r.gauge(
                "etcd_server_has_leader",
                "1 while this member knows a leader.",
            ),
            is_leader: r.gauge("etcd_server_is_leader", "1 while this member is leader."),
            is_learner: r.gauge(
                "etcd_server_is_learner",
                "1 while this member is a learner.",
            ),
            leader_changes_seen: r.counter(
                "etcd_server_leader_changes_seen_total",
                "Leader changes this member has seen.",
            ),
            id: r.gauge_vec(
                "etcd_server_id",
                "1 for the id of this member, in hex.",
                &["server_id"],
            ),
            cluster_version: r.gauge_vec(
                "etcd_cluster_version",
                "1 for the cluster version in effect, 0 for earlier ones.",
                &["cluster_version"],
            ),
            cluster_version_now: Mutex::new(None),
            feature_enabled,
            heartbeat_send_failures: r.counter(
                "etcd_server_heartbeat_send_failures_total",
                "Heartbeats that a leader sent too late.",
            ),
            proposals_committed: r.gauge(
                "etcd_server_proposals_committed_total",
                "Index of the last committed raft entry.",
            ),
            proposals_applied: r.gauge(
                "etcd_server_proposals_applied_total",
                "Index of the last applied raft entry.",
            ),
            proposals_pending: r.gauge(
                "etcd_server_proposals_pending",
                "Proposals waiting for their result.",
            ),
            proposals_failed: r.counter(
                "etcd_server_proposals_failed_total",
                "Proposals that failed, timed out or were cancelled.",
            ),
            snapshot_apply_in_progress: r.gauge(
                "etcd_server_snapshot_apply_in_progress_total",
                "1 while a snapshot of the leader is being installed.",
            ),
            learner_promote_successes: r.counter(
                "etcd_server_learner_promote_successes",
                "Learners promoted by this member as leader.",
            ),
            learner_promote_failures: r.counter_vec(
                "etcd_server_learner_promote_failures",
                "Failed learner promotions on this member as leader.",
                &["Reason"],
            ),
            request_duration: ByRequest::new(
                r.histogram_vec(
                    "etcd_server_request_duration_seconds",
                    "Time from a request's arrival to its result.",
                    &["type", "success"],
                    doubling(0.001, 14),
                ),
                |kind, success| vec![kind.name(), outcome(success)],
            ),
            apply_duration: ByRequest::new(
                r.histogram_vec(
                    "etcd_server_apply_duration_seconds",
                    "Time to apply one raft entry.",
                    &["version", "op", "success"],
                    doubling(0.0001, 20),
                ),
                |kind, success| {
                    let op = match kind {
                        RequestKind::AuthStatus | RequestKind::Unknown => "unknown",
                        named => named.name(),
                    };
                    vec!["v3", op, outcome(success)]
                },
            ),
            range_duration: r.histogram_vec(
                "etcd_server_range_duration_seconds",
                "Time of the storage part of a Range.",
                &["success"],
                doubling(0.0001, 20),
            ),
            range_series: Default::default(),
            slow_apply: r.counter(
                "etcd_server_slow_apply_total",
                "Applies and read-only requests slower than the warning threshold.",
            ),
            slow_read_indexes: r.counter(
                "etcd_server_slow_read_indexes_total",
                "Read-index requests that timed out.",
            ),
            read_indexes_failed: r.counter(
                "etcd_server_read_indexes_failed_total",
                "Read-index requests that failed.",
            ),
            health_success: r.counter("etcd_server_health_success", "Healthy answers of /health."),
            health_failures: r.counter(
                "etcd_server_health_failures",
                "Unhealthy answers of /health.",
            ),
            healthcheck: r.gauge_vec(
                "etcd_server_healthcheck",
                "Last result of each check of /livez and /readyz: 1 passed, 0 failed.",
                &["type", "name"],
            ),
            healthchecks: r.counter_vec(
                "etcd_server_healthchecks_total",
                "Checks of /livez and /readyz that ran, by result.",
                &["type", "name", "status"],
            ),
            client_requests: r.counter_vec(
                "etcd_server_client_requests_total",
                "Calls by kind and by the API version the client names.",
                &["type", "client_api_version"],
            ),
            unary_requests: LastVersion::empty(),
            stream_requests: LastVersion::empty(),
            known_client_versions: Mutex::new(Vec::new()),
            quota_backend_bytes: r.gauge(
                "etcd_server_quota_backend_bytes",
                "Storage quota in bytes; negative means none.",
            ),
            alarms: r.gauge_vec(
                "etcd_debugging_server_alarms",
                "Alarms raised, less those disarmed.",
                &["server_id", "alarm_type"],
            ),
            lease_expired: r.counter(
                "etcd_debugging_server_lease_expired_total",
                "Leases that ran out.",
            ),
        }
    }

    /// Counts the storage part of a Range.
    pub fn observe_range(&self, success: bool, took: Duration) {
        self.range_series[usize::from(success)]
            .get_or_init(|| self.range_duration.with_label_values(&[outcome(success)]))
            .observe(took.as_secs_f64());
    }

    /// Sets `etcd_cluster_version` to the major and minor part of `version` (`3.7.0` and `3.7` are
    /// both `3.7` there); an earlier one goes to 0. Cheap when nothing changed.
    pub fn set_cluster_version(&self, version: &str) {
        let version = match version.match_indices('.').nth(1) {
            Some((patch, _)) => &version[..patch],
            None => version,
        };
        let mut now = self.cluster_version_now.lock();
        if now.as_deref() == Some(version) {
            return;
        }
        if let Some(old) = now.as_deref() {
            self.cluster_version.with_label_values(&[old]).set(0);
        }
        self.cluster_version.with_label_values(&[version]).set(1);
        *now = Some(version.to_owned());
    }

    /// Shows which features are on.
    pub fn set_features(&self, features: &Features) {
        for (gate, on) in features.iter() {
            self.feature_enabled
                .with_label_values(&[gate.name, gate.stage.name()])
                .set(i64::from(on));
        }
    }

    /// Records one check of `/livez` or `/readyz` (`kind` without the slash).
    pub fn record_health_check(&self, kind: &str, name: &str, success: bool) {
        self.healthcheck
            .with_label_values(&[kind, name])
            .set(i64::from(success));
        let status = if success { "success" } else { "error" };
        self.healthchecks
            .with_label_values(&[kind, name, status])
            .inc();
    }

    /// Counts one call of a client. `version` is the metadata `client-api-version`; `None` when
    /// absent.
    pub fn count_client_request(&self, kind: CallKind, version: Option<&str>) {
        let (label, last) = match kind {
            CallKind::Unary => ("unary", &self.unary_requests),
            CallKind::Stream => ("stream", &self.stream_requests),
        };
        let version = version.filter(|v| !v.is_empty()).unwrap_or("unknown");
        if let Some(seen) = &*last.load()
            && seen.0 == version
        {
            seen.1.inc();
            return;
        }
        let kept = self.admit_client_version(version);
        let series = self
            .client_requests
            .with_label_values(&[label, if kept { version } else { "unknown" }]);
        series.inc();
        if kept {
            last.store(Some(Arc::new((version.to_owned(), series))));
        }
    }

    /// Whether this version may have a label of its own.
    fn admit_client_version(&self, version: &str) -> bool {
        let mut known = self.known_client_versions.lock();
        if version == "unknown" || known.iter().any(|v| v == version) {
            return true;
        }
        let room = known.len() < MAX_CLIENT_VERSIONS;
        if room {
            known.push(version.to_owned());
        }
        room
    }
}
