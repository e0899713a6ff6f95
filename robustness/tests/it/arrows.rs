//! The arrows between the crates (ARCHITECTURE.md, "Crates"): dependencies point one way.

use std::collections::BTreeMap;
use std::process::Command;

/// What each crate may depend on, among the workspace's own.
const ALLOWED: [(&str, &[&str]); 13] = [
    ("ferrite-api", &[]),
    ("ferrite-tls", &["ferrite-api"]),
    // For tests only: nothing but dev-dependencies may name it.
    ("ferrite-test-authority", &[]),
    ("ferrite-disk", &[]),
    ("ferrite-storage", &["ferrite-api", "ferrite-disk"]),
    ("ferrite-raft", &["ferrite-api", "ferrite-disk"]),
    (
        "ferrite-server",
        &[
            "ferrite-api",
            "ferrite-disk",
            "ferrite-raft",
            "ferrite-storage",
            "ferrite-tls",
        ],
    ),
    ("ferrite-client", &["ferrite-api", "ferrite-tls"]),
    // For tests only: nothing but dev-dependencies may name it.
    ("ferrite-fake", &["ferrite-api"]),
    ("ferrite-etcdctl", &["ferrite-api", "ferrite-client"]),
    (
        "ferrite-etcdutl",
        &[
            "ferrite-api",
            "ferrite-disk",
            "ferrite-raft",
            "ferrite-storage",
        ],
    ),
    // Nobody depends on these two, so they may use anything.
    (
        "ferrite-robustness",
        &[
            "ferrite-api",
            "ferrite-client",
            "ferrite-disk",
            "ferrite-raft",
            "ferrite-server",
            "ferrite-storage",
        ],
    ),
    ("ferrite-benches", &["ferrite-api"]),
];

/// Libraries that only one crate may use, because one of its modules is their only home.
const HOMES: [(&str, &str); 3] = [
    ("redb", "ferrite-storage"),
    ("raft", "ferrite-raft"),
    ("rustls", "ferrite-tls"),
];

#[test]
fn dependencies_point_one_way() {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let allowed: BTreeMap<_, _> = ALLOWED.into_iter().collect();
    let packages = metadata["packages"].as_array().unwrap();
    assert_eq!(
        packages.len(),
        allowed.len(),
        "a crate is new or gone: change this table"
    );
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let may = allowed
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not in the table"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let on = dependency["name"].as_str().unwrap();
            // Tests may use what they like, as long as the library does not.
            if dependency["kind"].as_str() == Some("dev") {
                continue;
            }
            if on.starts_with("ferrite-") {
                assert!(may.contains(&on), "{name} must not depend on {on}");
            }
            for (library, home) in HOMES {
                assert!(
                    on != library || name == home,
                    "{library} is used by {home} only, not by {name}"
                );
            }
        }
    }
}
