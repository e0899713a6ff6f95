//! `/version`, `/debug/vars` and `/debug/log-level`.

use axum::response::Response;
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use url::form_urlencoded;

use super::reply;
use super::source::RaftStatus;
use crate::handle::Versions;
use crate::logging::{Handle, Level};
use crate::metrics::process::fd_limit;

/// The three versions; other members and clients read them.
pub(super) fn version(versions: &Versions) -> Response {
    // By hand, because the order of the keys is part of the answer.
    let body = format!(
        "{{\"etcdserver\":{},\"etcdcluster\":{},\"storage\":{}}}",
        Value::from(versions.server.as_str()),
        Value::from(versions.cluster.as_deref().unwrap_or("not_decided")),
        Value::from(versions.storage.as_deref().unwrap_or("unknown")),
    );
    reply::with_type(StatusCode::OK, "application/json", body)
}

/// The variables of Go's expvar that mean something here. `memstats` would be those of Go's
/// runtime; it is there, and empty.
pub(super) fn vars(status: &RaftStatus) -> Response {
    let cmdline: Vec<String> = std::env::args_os()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let variables = [
        ("cmdline", json!(cmdline).to_string()),
        (
            "file_descriptor_limit",
            json!(fd_limit().unwrap_or(0)).to_string(),
        ),
        ("memstats", "{}".to_owned()),
        ("raft.status", raft_status(status)),
    ];
    let lines: Vec<String> = variables
        .iter()
        .map(|(name, value)| format!("\"{name}\": {value}"))
        .collect();
    let body = format!("{{\n{}\n}}\n", lines.join(",\n"));
    reply::with_type(StatusCode::OK, "application/json; charset=utf-8", body)
}

/// The level of the log, which `PUT` with `?level=debug` changes until the process ends. Not in etcd;
/// where profiles are switched on.
pub(super) fn log_level(method: &Method, query: Option<&str>, log: Option<&Handle>) -> Response {
    let Some(log) = log else {
        return reply::error(StatusCode::NOT_FOUND, "this process has another log");
    };
    if method == Method::PUT {
        let mut pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        let given = pairs.find(|(name, _)| name == "level");
        let level = given.filter(|(_, level)| !level.is_empty());
        let Some(level) = level.and_then(|(_, level)| Level::parse(&level)) else {
            return reply::error(StatusCode::BAD_REQUEST, "?level= names no level");
        };
        tracing::info!(level = level.name(), "changing the level of the log");
        log.set_level(level);
    } else if method != Method::GET {
        return reply::method_not_allowed();
    }
    let body = format!("{{\"level\":\"{}\"}}\n", log.level().name());
    reply::with_type(StatusCode::OK, "application/json", body)
}

/// Raft's own JSON form, ids in hex.
fn raft_status(status: &RaftStatus) -> String {
    let progress: Map<String, Value> = status
        .progress
        .iter()
        .map(|of| {
            let value = json!({ "match": of.matched, "next": of.next, "state": of.state });
            (format!("{:x}", of.id), value)
        })
        .collect();
    let vote = match status.vote {
        Some(vote) => format!("\"vote\":\"{vote:x}\","),
        None => String::new(),
    };
    format!(
        "{{\"id\":\"{:x}\",\"term\":{},{vote}\"commit\":{},\"lead\":\"{:x}\",\"raftState\":\"{}\",\"applied\":{},\"progress\":{},\"leadtransferee\":\"{:x}\"}}",
        status.id,
        status.term,
        status.commit,
        status.lead,
        status.state,
        status.applied,
        Value::Object(progress),
        status.transferee,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::{Options, Output, ZapLayer};

    #[test]
    fn the_level_of_the_log_can_be_changed() {
        let options = Options {
            outputs: vec![Output::Discard],
            ..Options::default()
        };
        let (_layer, log) = ZapLayer::new(&options).unwrap();
        let ask = |method: &Method, query| log_level(method, query, Some(&log)).status().as_u16();
        assert_eq!(ask(&Method::GET, None), 200);
        assert_eq!(log.level(), Level::Info);
        assert_eq!(ask(&Method::PUT, Some("level=warn")), 200);
        assert_eq!(log.level(), Level::Warn);
        for bad in [None, Some("level="), Some("level=loud"), Some("debug")] {
            assert_eq!(ask(&Method::PUT, bad), 400, "{bad:?}");
        }
        assert_eq!(ask(&Method::POST, Some("level=debug")), 405);
        assert_eq!(log.level(), Level::Warn);
        let none = log_level(&Method::GET, None, None);
        assert_eq!(none.status().as_u16(), 404);
    }
}
