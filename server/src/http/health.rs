//! `/health` for load balancers and old probes, `/livez` and `/readyz` for Kubernetes (spec/http.md
//! section 3).

use axum::response::Response;
use ferrite_api::pb::etcdserverpb::{AlarmMember, AlarmType};
use http::StatusCode;
use serde_json::Value;
use tracing::{debug, error, warn};
use url::form_urlencoded;

use super::source::Source;
use super::{Endpoints, reply};

/// Which set of checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Livez,
    Readyz,
}

/// One check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Kind::Livez => "livez",
            Kind::Readyz => "readyz",
        }
    }

    /// etcd runs them in random order; here the cheap ones come first.
    const fn checks(self) -> &'static [Check] {
        match self {
            Kind::Livez => &[Check::SerializableRead],
            Kind::Readyz => &[
                Check::DataCorruption,
                Check::NonLearner,
                Check::SerializableRead,
                Check::LinearizableRead,
            ],
        }
    }

    /// The set of a path such as `/readyz`, and the one check of `/readyz/non_learner`.
    pub(super) fn of_path(path: &str) -> Option<(Kind, Option<Check>)> {
        [Kind::Livez, Kind::Readyz].into_iter().find_map(|kind| {
            let rest = path.strip_prefix('/')?.strip_prefix(kind.name())?;
            if rest.is_empty() {
                return Some((kind, None));
            }
            let name = rest.strip_prefix('/')?;
            let check = kind.checks().iter().find(|check| check.name() == name)?;
            Some((kind, Some(*check)))
        })
    }
}

impl Check {
    const fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::SerializableRead => "serializable_read",
            Check::LinearizableRead => "linearizable_read",
            Check::NonLearner => "non_learner",
        }
    }
}

/// Anything but GET.
pub(super) fn refuse_method(message: &'static str, path: &str) -> Response {
    warn!(path, "status-code" = 405, "{message}");
    reply::method_not_allowed()
}

/// The values of a query key, without empty ones.
fn query_values(query: Option<&str>, key: &str) -> Vec<String> {
    form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .filter(|(name, value)| name == key && !value.is_empty())
        .map(|(_, value)| value.into_owned())
        .collect()
}

/// The name of an alarm type, as `exclude` names it.
fn alarm_name(alarm: &AlarmMember) -> String {
    match AlarmType::try_from(alarm.alarm) {
        Ok(known) => known.as_str_name().to_owned(),
        Err(_) => alarm.alarm.to_string(),
    }
}

impl<S: Source> Endpoints<S> {
    /// `/health`.
    pub(super) async fn health(&self, query: Option<&str>) -> Response {
        let excluded = query_values(query, "exclude");
        // Of a repeated key, Go looks at the first value only.
        let serializable = form_urlencoded::parse(query.unwrap_or_default().as_bytes())
            .find(|(name, _)| name == "serializable")
            .is_some_and(|(_, value)| value == "true");
        let failure = self.health_failure(&excluded, serializable).await;
        let body = format!(
            "{{\"health\":\"{}\",\"reason\":{}}}",
            failure.is_none(),
            Value::from(failure.as_deref().unwrap_or_default()),
        );
        if failure.is_some() {
            self.metrics.server.health_failures.inc();
            warn!(output = body, "status-code" = 503, "/health error");
            return reply::error(StatusCode::SERVICE_UNAVAILABLE, &body);
        }
        self.metrics.server.health_success.inc();
        debug!("status-code" = 200, "/health OK");
        reply::with_type(StatusCode::OK, reply::PLAIN, body)
    }

    /// The first thing that is wrong.
    async fn health_failure(&self, excluded: &[String], serializable: bool) -> Option<String> {
        for alarm in self.source.alarms() {
            let name = alarm_name(&alarm);
            if excluded.contains(&name) {
                debug!(alarm = name, "/health excluded alarm");
                continue;
            }
            warn!(
                alarm = name,
                member_id = format!("{:x}", alarm.member_id),
                "serving /health false due to an alarm"
            );
            return Some(match AlarmType::try_from(alarm.alarm) {
                Ok(AlarmType::Nospace) => "ALARM NOSPACE".to_owned(),
                Ok(AlarmType::Corrupt) => "ALARM CORRUPT".to_owned(),
                _ => "ALARM UNKNOWN".to_owned(),
            });
        }
        if !serializable && self.source.leader() == 0 {
            warn!("serving /health false; no leader");
            return Some("RAFT NO LEADER".to_owned());
        }
        let read = async {
            if serializable {
                self.source.serializable_read().await
            } else {
                self.source.linearizable_read().await
            }
        };
        let failure = match tokio::time::timeout(self.options.request_timeout, read).await {
            Ok(Ok(())) => return None,
            Ok(Err(error)) => error.message().into_owned(),
            Err(_) => "context deadline exceeded".to_owned(),
        };
        warn!(error = failure, "serving /health false; Range fails");
        Some(format!("RANGE ERROR:{failure}"))
    }

    /// `/livez`, `/readyz`, and one check of them.
    pub(super) async fn checks(
        &self,
        kind: Kind,
        only: Option<Check>,
        path: &str,
        query: Option<&str>,
    ) -> Response {
        let checks: Vec<Check> = match only {
            Some(check) => vec![check],
            None => {
                let mut excluded = query_values(query, "exclude");
                let mut checks = kind.checks().to_vec();
                checks.retain(|check| {
                    let before = excluded.len();
                    excluded.retain(|name| name != check.name());
                    excluded.len() == before
                });
                if !excluded.is_empty() {
                    warn!(
                        "missing-health-checks" = ?excluded,
                        "some health checks cannot be excluded"
                    );
                }
                checks
            }
        };
        let mut report = String::new();
        let mut healthy = true;
        for check in checks {
            let result = self.check(check).await;
            self.metrics
                .server
                .record_health_check(kind.name(), check.name(), result.is_ok());
            report.push_str(&match result {
                Ok(()) => format!("[+]{} ok\n", check.name()),
                Err(reason) => {
                    healthy = false;
                    format!("[-]{} failed: {reason}\n", check.name())
                }
            });
        }
        if !healthy {
            error!(
                path,
                reason = report,
                "status-code" = 503,
                "Health check error"
            );
            return reply::error(StatusCode::SERVICE_UNAVAILABLE, &report);
        }
        debug!(
            path,
            reason = report,
            "status-code" = 200,
            "Health check OK"
        );
        let verbose = form_urlencoded::parse(query.unwrap_or_default().as_bytes())
            .any(|(name, _)| name == "verbose");
        if !verbose {
            report.clear();
        }
        report.push_str("ok\n");
        reply::nosniff(StatusCode::OK, report)
    }

    async fn check(&self, check: Check) -> Result<(), String> {
        let read = match check {
            Check::DataCorruption => {
                let corrupt = i32::from(AlarmType::Corrupt);
                return match self.source.alarms().iter().any(|a| a.alarm == corrupt) {
                    true => Err("alarm activated: CORRUPT".to_owned()),
                    false => Ok(()),
                };
            }
            Check::NonLearner => {
                return match self.source.is_learner() {
                    true => Err("not supported for learner".to_owned()),
                    false => Ok(()),
                };
            }
            Check::SerializableRead => self.source.serializable_read().await,
            Check::LinearizableRead => self.source.linearizable_read().await,
        };
        read.map_err(|error| error.message().into_owned())
    }
}
