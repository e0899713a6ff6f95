//! etcd's own `etcdctl`, with the same command lines against Ferrite and against etcd: what it prints, and
//! its exit code, must be equal but for ids, times and sizes.

use std::path::Path;
use std::process::Stdio;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::Context;
use regex::Regex;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::{Binaries, Pair};

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Command lines that end by themselves, in their order; what follows `<` is the standard input. Each is tried with every output
/// format that there is.
const COMMANDS: &[&str] = &[
    "put a 1",
    "put a 2 --prev-kv",
    "put a/1 x",
    "put a/2 y",
    "put",
    "put b < from standard input",
    "put none --ignore-value",
    "put a --ignore-value",
    "put c v --lease=123",
    "get",
    "get a",
    "get none",
    "get a --prefix",
    "get a b",
    "get a --from-key",
    "get a --from-key --prefix",
    "get --prefix --keys-only a",
    "get --prefix --count-only a",
    "get --prefix --limit=2 a",
    "get --prefix --order=DESCEND --sort-by=MODIFY a",
    "get --prefix --order=wrong a",
    "get --rev=2 a",
    "get --rev=1000 a",
    "get --print-value-only a",
    "get --hex a",
    "get --consistency=s a",
    "get --consistency=z a",
    "get --min-mod-rev=3 --prefix a",
    "get --max-create-rev=3 --prefix a",
    "txn < value(\"a\") = \"2\"\n\nput a 3\nget a\n\nget none\n\n",
    "txn < mod(\"a\") > \"1000\"\n\nput a 4\n\nget a --prefix\ndel b\n\n",
    "txn < nonsense\n\n\n\n",
    "del none",
    "del b --prev-kv",
    "del",
    "del a/ --prefix --prev-kv",
    "lease grant 1000 0",
    "lease grant x",
    "lease list",
    "lease timetolive 7b",
    "lease revoke 7b",
    "lease keep-alive --once 7b",
    "compaction 3",
    "compaction 3",
    "compaction 1000",
    "compaction x",
    "get --rev=2 a",
    "alarm list",
    "alarm disarm",
    "member list",
    "member list --consistency=s",
    "member remove 123",
    "member promote 123",
    "member update 123 --peer-urls=http://127.0.0.1:1",
    "member add",
    "member add x --peer-urls=nonsense",
    "endpoint health",
    "endpoint health --cluster",
    "endpoint status",
    "endpoint hashkv",
    "endpoint hashkv --rev=5",
    "move-leader 123",
    "lock l true",
    "snapshot",
    "snapshot save",
    "defrag --cluster",
    "role list",
    "user list",
    "auth status",
    "version",
    "nonsense",
];

/// `-w`; the table and fields of a message show the same as these.
const FORMATS: [&str; 3] = ["simple", "json", "fields"];

/// A command that is not answered alike.
#[derive(Clone, Debug)]
pub struct Unequal {
    /// The command line.
    pub command: String,
    /// What it prints against Ferrite.
    pub ours: String,
    /// What it prints against etcd.
    pub etcd: String,
}

/// Runs all commands with this `etcdctl` against two new servers. Also says how many were run.
///
/// # Errors
/// A server does not start, or a command does not end.
pub async fn compare(binaries: &Binaries, etcdctl: &Path) -> anyhow::Result<(usize, Vec<Unequal>)> {
    let pair = Pair::start(binaries).await?;
    let (mut count, mut unequal) = (0, Vec::new());
    for command in COMMANDS {
        for format in FORMATS {
            let [ours, etcd] = &pair.processes;
            let (ours, etcd) = (ours.endpoint(), etcd.endpoint());
            let (ours, etcd) = tokio::try_join!(
                run(etcdctl, &ours, command, format),
                run(etcdctl, &etcd, command, format)
            )
            .with_context(|| format!("etcdctl {command} -w {format}"))?;
            count += 1;
            if ours != etcd {
                unequal.push(Unequal {
                    command: format!("{command} -w {format}"),
                    ours,
                    etcd,
                });
            }
        }
    }
    Ok((count, unequal))
}

/// Everything that the command prints, and how it ends.
async fn run(
    etcdctl: &Path,
    endpoint: &str,
    command: &str,
    format: &str,
) -> anyhow::Result<String> {
    let (line, input) = command.split_once(" < ").unwrap_or((command, ""));
    let mut child = Command::new(etcdctl)
        .args(["--endpoints", endpoint, "--dial-timeout=5s", "-w", format])
        .args(line.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().context("it is piped")?;
    // One that does not read has ended.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = timeout(PATIENCE, child.wait_with_output()).await??;
    let text = format!(
        "{}{}exit {:?}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        output.status.code()
    );
    Ok(without_identity(&text.replace(endpoint, "ENDPOINT")))
}

/// Without what two servers may print differently.
fn without_identity(text: &str) -> String {
    static IDENTITY: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        let replace = |pattern: &str, by| (Regex::new(pattern).expect("it is a pattern"), by);
        vec![
            // The client's own log.
            replace(r"(?m)^\{.level.*\n", ""),
            replace(
                r#""(cluster_id|member_id|raft_term|ID|leader|raftIndex|raftTerm|raftAppliedIndex|dbSize|dbSizeInUse|leader_id|ttl|version|storageVersion)":"?[\w.]+"?"#,
                "\"$1\":_",
            ),
            replace(
                r#""(ClusterID|MemberID|RaftTerm|ID|Leader|RaftIndex|RaftAppliedIndex|DBSize|DBSizeInUse|TTL|Version|StorageVersion)" : "?[\w.]+"?"#,
                "\"$1\" : _",
            ),
            replace(r"\b[0-9a-f]{12,16}\b", "ID"),
            replace(r"\b\d{17,20}\b", "ID"),
            replace(r"http://127\.0\.0\.1:\d+", "URL"),
            replace(r"[\d.]+ ?(µs|ms|s|B|kB|MB)\b|\d+%", "N"),
            replace(r"remaining\(\d+s\)", "remaining"),
        ]
    });
    let mut text = text.to_owned();
    for (pattern, by) in IDENTITY.iter() {
        text = pattern.replace_all(&text, *by).into_owned();
    }
    text
}
