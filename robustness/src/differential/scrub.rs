//! What two servers may answer differently: who they are, when they began, how much they hold on a disk.

use prost_reflect::{DynamicMessage, Value};
use serde_json::Value as Json;

use super::step::{Answer, Step};

/// Fields that say who somebody is, wherever they are.
const IDENTITY: [&str; 7] = [
    "cluster_id",
    "member_id",
    "raft_term",
    "memberID",
    "peerURLs",
    "clientURLs",
    "leader_id",
];

/// Lists whose order is chance.
const UNORDERED: [&str; 3] = ["keys", "alarms", "leases"];

/// The answer without them.
pub(super) fn answer(step: &Step, answer: Answer) -> Answer {
    let (_, step) = step.by();
    match (step, answer) {
        (
            Step::Call { path, .. },
            Answer::Call {
                mut messages,
                code,
                text,
            },
        ) => {
            for answered in &mut messages {
                message(answered, path);
            }
            Answer::Call {
                messages,
                code,
                text,
            }
        }
        (_, Answer::Watch(mut watched)) => {
            for seen in &mut watched {
                for note in seen.notes.iter_mut().chain(&mut seen.events) {
                    message(note, "");
                }
            }
            Answer::Watch(watched)
        }
        // Whether there is a space after a comma is another for each build of etcd.
        (Step::Json { path, .. } | Step::Get { path }, Answer::Http { status, body }) => {
            Answer::Http {
                status,
                body: match serde_json::from_str(&body) {
                    Ok(mut parsed) => {
                        json(&mut parsed, path);
                        parsed.to_string()
                    }
                    // Checks: etcd has them in a hash map.
                    Err(_) => {
                        let mut lines: Vec<&str> = body.lines().collect();
                        lines.sort_unstable();
                        lines.join("\n")
                    }
                },
            }
        }
        (_, answer) => answer,
    }
}

/// What else an RPC answers that depends on the server.
fn of_path(path: &str) -> &'static [&'static str] {
    match path {
        "/etcdserverpb.Maintenance/Hash" => &["hash"],
        "/etcdserverpb.Auth/Authenticate" | "/v3/auth/authenticate" => &["token"],
        "/etcdserverpb.Maintenance/Status" | "/v3/maintenance/status" => &[
            "version",
            "dbSize",
            "dbSizeInUse",
            "dbSizeQuota",
            "leader",
            "raftIndex",
            "raftTerm",
            "raftAppliedIndex",
            "errors",
            "storageVersion",
            "downgradeInfo",
        ],
        "/etcdserverpb.Cluster/MemberList" | "/v3/cluster/member/list" => &["ID"],
        // etcd looks every 4 s whether its file is at the cluster's version yet.
        "/version" => &["storage"],
        // What is left of it.
        "/etcdserverpb.Lease/LeaseTimeToLive" | "/v3/lease/timetolive" => &["TTL"],
        _ => &[],
    }
}

fn message(of: &mut DynamicMessage, path: &str) {
    for name in IDENTITY.iter().chain(of_path(path)) {
        of.clear_field_by_name(name);
    }
    let fields: Vec<_> = of.fields().map(|(field, _)| field).collect();
    for field in fields {
        match of.get_field_mut(&field) {
            Value::Message(inner) => message(inner, path),
            // Keys of a lease, and alarms: etcd has them in a hash map. Leases are in the order in which
            // they end, by clocks that differ.
            Value::List(list) if UNORDERED.contains(&field.name()) => {
                list.iter_mut()
                    .filter_map(Value::as_message_mut)
                    .for_each(|inner| message(inner, path));
                list.sort_unstable_by_key(|item| format!("{item:?}"));
            }
            Value::List(list) => {
                let messages = list.iter_mut().filter_map(Value::as_message_mut);
                messages.for_each(|inner| message(inner, path));
                if field.name() == "perm" {
                    settle(list, |item| {
                        item.as_message()
                            .and_then(|permission| permission.get_field_by_name("key"))
                            .map(|key| format!("{key:?}"))
                    });
                }
            }
            _ => {}
        }
    }
}

/// Sorts permissions of one key by what else they say: Go's sort leaves the order of equal ones to
/// chance as soon as there have been more than a dozen.
fn settle<T: std::fmt::Debug>(permissions: &mut [T], key: impl Fn(&T) -> Option<String>) {
    for same in permissions.chunk_by_mut(|a, b| key(a) == key(b)) {
        same.sort_unstable_by_key(|permission| format!("{permission:?}"));
    }
}

fn json(value: &mut Json, path: &str) {
    match value {
        Json::Object(fields) => {
            for name in IDENTITY.iter().chain(of_path(path)) {
                fields.remove(*name);
            }
            fields.values_mut().for_each(|inner| json(inner, path));
            for name in UNORDERED {
                if let Some(Json::Array(list)) = fields.get_mut(name) {
                    list.sort_unstable_by_key(ToString::to_string);
                }
            }
            if let Some(Json::Array(list)) = fields.get_mut("perm") {
                settle(list, |item| item.get("key").map(ToString::to_string));
            }
            // Of two alarms, etcd names any.
            let is_alarm = |text: &Json| text.as_str().is_some_and(|it| it.starts_with("ALARM"));
            if fields.get("reason").is_some_and(is_alarm) {
                fields.insert("reason".to_owned(), "ALARM".into());
            }
            // The decoder's own words (spec wire.md 7.1: not stable).
            let is_syntax =
                |text: &Json| text.as_str().is_some_and(|text| text.starts_with("proto:"));
            if fields.get("message").is_some_and(is_syntax) {
                fields.remove("message");
            }
        }
        Json::Array(list) => list.iter_mut().for_each(|inner| json(inner, path)),
        _ => {}
    }
}
