//! The way out of a full store, by the tools that an operator has: the runbook `docs/quota.md`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use bytes::Bytes;
use ferrite_api::Error as ApiError;
use ferrite_client::{Client, Config, PutOptions};
use ferrite_robustness::process::Process;

/// Bytes of a value.
const VALUE: usize = 1 << 20;

/// Most values that are put until the store has to be full: its quota is 16 MiB.
const MOST: usize = 100;

const ARGS: [&str; 2] = [
    "--quota-backend-bytes=16777216",
    "--bootstrap-defrag-threshold-megabytes=4",
];

/// `etcdctl`, built beside the server.
struct Tool {
    path: PathBuf,
    endpoint: String,
}

impl Tool {
    /// What a command prints.
    fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.path);
        command.args(["--endpoints", &self.endpoint]).args(args);
        let output = command
            .output()
            .with_context(|| format!("cannot run {}", self.path.display()))?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{args:?}: {error}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// A field of `endpoint status`.
    fn status(&self, field: &str) -> anyhow::Result<i64> {
        let text = self.run(&["endpoint", "status", "-w", "json"])?;
        let json: serde_json::Value = serde_json::from_str(&text)?;
        let status = &json[0]["Status"];
        let found = match field {
            "revision" => &status["header"]["revision"],
            field => &status[field],
        };
        found
            .as_i64()
            .with_context(|| format!("no {field} in {text}"))
    }
}

/// Puts over and over until there is no room.
async fn fill(process: &Process) -> anyhow::Result<()> {
    let client = Client::connect(Config::new([process.endpoint()])).await?;
    let value = Bytes::from(vec![b'x'; VALUE]);
    for _ in 0..MOST {
        if let Err(error) = client.put("big", value.clone(), PutOptions::new()).await {
            let text = error.to_string();
            ensure!(text.contains(ApiError::NoSpace.message()), "{text}");
            return Ok(());
        }
    }
    anyhow::bail!("{MOST} MiB fit into 16");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_store_is_writable_again_after_compact_defrag_and_disarm() {
    let binary = Process::built_beside_tests().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::new(&binary, dir.path(), &ARGS).unwrap();
    process.start().await.unwrap();
    let tool = Tool {
        path: binary.with_file_name("etcdctl"),
        endpoint: process.endpoint(),
    };
    fill(&process).await.unwrap();
    let alarms = tool.run(&["alarm", "list"]).unwrap();
    assert!(alarms.contains("alarm:NOSPACE"), "{alarms}");
    let refused = tool.run(&["put", "small", "1"]).unwrap_err().to_string();
    assert!(refused.contains("database space exceeded"), "{refused}");
    assert!(tool.run(&["get", "big"]).unwrap().starts_with("big"));

    // Disarmed too early it is raised again.
    tool.run(&["alarm", "disarm"]).unwrap();
    tool.run(&["put", "small", "1"]).unwrap_err();
    let alarms = tool.run(&["alarm", "list"]).unwrap();
    assert!(alarms.contains("alarm:NOSPACE"), "{alarms}");

    let revision = tool.status("revision").unwrap().to_string();
    let full = tool.status("dbSize").unwrap();
    // It returns before the rows are gone; what follows has their room all the same.
    tool.run(&["compact", &revision]).unwrap();
    tool.run(&["defrag"]).unwrap();
    let after = tool.status("dbSize").unwrap();
    assert!(after < full / 2, "{full} bytes before, {after} after");
    let disarmed = tool.run(&["alarm", "disarm"]).unwrap();
    assert!(disarmed.contains("alarm:NOSPACE"), "{disarmed}");
    tool.run(&["put", "small", "2"]).unwrap();
    assert_eq!(tool.run(&["alarm", "list"]).unwrap(), "");

    // A start does the same where that frees enough, and leaves a dense file alone.
    fill(&process).await.unwrap();
    let revision = tool.status("revision").unwrap().to_string();
    tool.run(&["compact", &revision, "--physical"]).unwrap();
    let defragmented = "\"finished defragmenting\"";
    assert_eq!(process.says(&[defragmented]), 1, "by hand");
    process.stopped().await.unwrap();
    process.start().await.unwrap();
    assert_eq!(process.says(&[defragmented]), 2, "at the start");
    assert!(tool.status("dbSize").unwrap() < full / 2);
    process.stopped().await.unwrap();
    process.start().await.unwrap();
    assert_eq!(process.says(&[defragmented]), 2);
    assert_eq!(process.says(&["\"Skipping defragmentation\""]), 1);
}
