//! The same command lines with two `etcdctl` against two servers: what is printed, and the exit code, must
//! be equal but for ids, times and sizes. With etcd's own `etcdctl` on both sides it is the servers that are
//! compared, with etcd's server on both sides the programs.

use std::path::Path;
use std::process::Stdio;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::Context;
use regex::Regex;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use crate::process::Process;

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is run; the file says how it is read.
const LINES: &str = include_str!("commands/lines.txt");

/// `-w`, for lines that are tried with each.
const FORMATS: [&str; 5] = ["simple", "json", "fields", "table", "protobuf"];

/// One of the two that are compared: a program and the server that it talks to.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// `etcdctl`.
    pub program: &'a Path,
    /// `etcd`.
    pub server: &'a Path,
}

/// What was compared.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How many commands were run.
    pub count: usize,
    /// Commands that do not end alike.
    pub unequal: Vec<Unequal>,
}

/// A command that does not end alike.
#[derive(Clone, Debug)]
pub struct Unequal {
    /// The command line.
    pub command: String,
    /// What is printed on the one side.
    pub one: String,
    /// What is printed on the other.
    pub other: String,
}

/// Runs all commands on both sides, whose servers are new.
///
/// # Errors
/// A server does not start, or a command does not end.
pub async fn compare(sides: [Side<'_>; 2]) -> anyhow::Result<Outcome> {
    let dir = tempfile::tempdir()?;
    let [one, other] = sides;
    let (mut one, mut other) = tokio::try_join!(
        Running::start(one, dir.path().join("one")),
        Running::start(other, dir.path().join("other"))
    )?;
    let mut outcome = Outcome::default();
    for line in LINES.lines() {
        for line in Line::each(line) {
            let (printed, also) = tokio::try_join!(one.run(&line), other.run(&line))
                .with_context(|| format!("etcdctl {}", line.shown))?;
            outcome.count += 1;
            if printed != also {
                outcome.unequal.push(Unequal {
                    command: line.shown,
                    one: printed,
                    other: also,
                });
            }
        }
    }
    one.process.stopped().await?;
    other.process.stopped().await?;
    Ok(outcome)
}

/// A command as it is run.
struct Line {
    shown: String,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
    input: String,
}

impl Line {
    /// The commands that a line of the file asks for.
    fn each(line: &str) -> Vec<Line> {
        if line.is_empty() || line.starts_with('#') {
            return Vec::new();
        }
        match line.strip_prefix("* ") {
            Some(line) => FORMATS
                .iter()
                .map(|format| Line::read(line, &["-w", format]))
                .collect(),
            None => vec![Line::read(line, &[])],
        }
    }

    fn read(line: &str, format: &[&str]) -> Line {
        let (line, input) = line.split_once(" <").unwrap_or((line, ""));
        let mut words = line.split_whitespace().peekable();
        let mut environment = Vec::new();
        while let Some(word) = words.next_if(|word| word.starts_with("ETCDCTL_")) {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            environment.push((name.to_owned(), value.to_owned()));
        }
        let mut arguments: Vec<String> = format.iter().map(|&word| word.to_owned()).collect();
        if !line.contains("--endpoints") {
            arguments.push("--endpoints=ENDPOINT".to_owned());
        }
        arguments.extend(words.map(str::to_owned));
        Line {
            shown: format!("{line} {}", format.join(" ")),
            environment,
            arguments,
            input: input.trim_start().replace('⏎', "\n"),
        }
    }
}

/// A side whose server runs.
struct Running<'a> {
    program: &'a Path,
    process: Process,
    dir: String,
}

impl<'a> Running<'a> {
    async fn start(side: Side<'a>, dir: std::path::PathBuf) -> anyhow::Result<Running<'a>> {
        std::fs::create_dir_all(&dir)?;
        // Ids come of these, so both have the same. Nobody goes there: there are no other members.
        let peer = "http://127.0.0.1:1";
        let initial = format!("--initial-cluster=default={peer}");
        let advertised = format!("--initial-advertise-peer-urls={peer}");
        let args = ["--unsafe-no-fsync", &initial, &advertised];
        let mut process = Process::new(side.server, &dir, &args)?;
        process.start().await?;
        Ok(Running {
            program: side.program,
            process,
            dir: dir.to_str().context("a readable path")?.to_owned(),
        })
    }

    /// Everything that the command prints, and how it ends.
    async fn run(&self, line: &Line) -> anyhow::Result<String> {
        let endpoint = self.process.endpoint();
        let arguments = line.arguments.iter().map(|word| {
            word.replace("ENDPOINT", &endpoint)
                .replace("DIR", &self.dir)
        });
        let mut child = Command::new(self.program)
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(line.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut stdin = child.stdin.take().context("it is piped")?;
        // One that does not read has ended.
        let _ = stdin.write_all(line.input.as_bytes()).await;
        drop(stdin);
        let output = timeout(PATIENCE, child.wait_with_output()).await??;
        let text = format!(
            "{}{}exit {:?}",
            without_help(&output.stdout),
            without_help(&output.stderr),
            output.status.code()
        );
        let text = text
            .replace(&endpoint, "ENDPOINT")
            .replace(&self.dir, "DIR");
        Ok(without_identity(&text))
    }
}

/// Readable, and without help: each program explains itself in its own words.
fn without_help(printed: &[u8]) -> String {
    let text = match std::str::from_utf8(printed) {
        Ok(text) => text.to_owned(),
        Err(_) => printed.escape_ascii().to_string(),
    };
    match text.split_once("Usage:\n") {
        None => text,
        // A mistake stands before it, an introduction need not be the same.
        Some((before, _)) if before.starts_with("Error: ") => format!("{before}USAGE\n"),
        Some(_) => "HELP\n".to_owned(),
    }
}

/// Without what two servers may print differently.
fn without_identity(text: &str) -> String {
    static IDENTITY: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        let replace = |pattern: &str, by| (Regex::new(pattern).expect("it is a pattern"), by);
        vec![
            // The client's own log.
            replace(r"(?m)^\{.level.*\n", ""),
            replace(
                r#""(raft_term|ID|leader_id|raftIndex|raftTerm|raftAppliedIndex|dbSize|dbSizeInUse|ttl|version|storageVersion)":"?[\w.]+"?"#,
                "\"$1\":_",
            ),
            replace(
                r#""(RaftTerm|ID|RaftIndex|RaftAppliedIndex|DBSize|DBSizeInUse|TTL|Version|StorageVersion)" : "?[\w.]+"?"#,
                "\"$1\" : _",
            ),
            replace(r"\b[0-9a-f]{12,16}\b", "ID"),
            replace(r"\b\d{17,20}\b", "ID"),
            replace(r"[\d.]+ ?(µs|ms|s|B|kB|MB)\b|\d+%", "N"),
            replace(r"remaining\(\d+s\)", "remaining"),
            // Tables are as wide as their times and sizes.
            replace("─+", "─"),
            replace(r" {2,}", " "),
        ]
    });
    let mut text = text.to_owned();
    for (pattern, by) in IDENTITY.iter() {
        text = pattern.replace_all(&text, *by).into_owned();
    }
    text
}
