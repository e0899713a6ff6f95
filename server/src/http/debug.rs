//! `/version` and `/debug/vars`.

use axum::response::Response;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::reply;
use super::source::RaftStatus;
use crate::handle::Versions;
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
