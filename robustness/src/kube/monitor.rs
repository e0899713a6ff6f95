//! Rates, latencies and sizes of a run.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use std::sync::Mutex;

use crate::history::Moment;
use crate::process::Process;

/// Time between two samples.
pub(super) const SAMPLE: Duration = Duration::from_secs(30);

/// What is timed apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Write,
    Get,
    /// One page of a list.
    Page,
}

const KINDS: [(Kind, &str); 3] = [
    (Kind::Write, "writes"),
    (Kind::Get, "gets"),
    (Kind::Page, "pages"),
];

/// Latencies of one kind, microseconds.
#[derive(Debug, Default)]
struct Times {
    all: Vec<u32>,
    /// How many of `all` were there at the last sample.
    sampled: usize,
}

#[derive(Debug, Default)]
struct Inner {
    times: [Times; KINDS.len()],
    /// Resident memory and file sizes, bytes, at each sample.
    samples: Vec<Sizes>,
    last: Moment,
}

/// Sizes at one moment, bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sizes {
    /// Resident memory of the server.
    pub memory: u64,
    /// Blocks of the page file.
    pub page_file: u64,
    /// Blocks of the log.
    pub log: u64,
}

/// What a run measured.
#[derive(Clone, Debug)]
pub struct Totals {
    /// Per kind: name, operations per second, p50 and p99 in microseconds.
    pub kinds: Vec<(&'static str, f64, u32, u32)>,
    /// All samples.
    pub samples: Vec<Sizes>,
}

#[derive(Debug)]
pub(super) struct Monitor {
    inner: Mutex<Inner>,
}

impl Monitor {
    pub(super) fn new() -> Self {
        Self {
            inner: Mutex::default(),
        }
    }

    /// An operation was answered.
    pub(super) fn answered(&self, kind: Kind, took: Duration) {
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        let mut inner = self.inner.lock().expect("no holder of the lock panics");
        inner.times[kind as usize].all.push(micros);
    }

    /// Takes a sample and describes it.
    pub(super) fn sample(&self, now: Moment, server: &Process) -> anyhow::Result<String> {
        let sizes = sizes(server)?;
        let mut inner = self.inner.lock().expect("no holder of the lock panics");
        let seconds = (now - inner.last).as_secs_f64();
        inner.last = now;
        inner.samples.push(sizes);
        let mut line = format!("{:>5.0} s:", now.as_secs_f64());
        for ((_, name), times) in KINDS.iter().zip(&mut inner.times) {
            let (rate, p50, p99) = describe(&mut times.all[times.sampled..].to_vec(), seconds);
            times.sampled = times.all.len();
            line += &format!(" {rate:.0} {name}/s p50 {p50} p99 {p99} us;");
        }
        let mib = |bytes: u64| bytes >> 20;
        line += &format!(
            " memory {} MiB, page file {} MiB, log {} MiB",
            mib(sizes.memory),
            mib(sizes.page_file),
            mib(sizes.log)
        );
        Ok(line)
    }

    pub(super) fn totals(&self, duration: Duration) -> Totals {
        let mut inner = self.inner.lock().expect("no holder of the lock panics");
        let kinds = KINDS
            .iter()
            .zip(&mut inner.times)
            .map(|((_, name), times)| {
                let (rate, p50, p99) = describe(&mut times.all, duration.as_secs_f64());
                (*name, rate, p50, p99)
            })
            .collect();
        Totals {
            kinds,
            samples: inner.samples.clone(),
        }
    }
}

/// Rate, p50 and p99 of some times.
fn describe(times: &mut [u32], seconds: f64) -> (f64, u32, u32) {
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or(0);
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = times.len() as f64 / seconds.max(f64::MIN_POSITIVE);
    (rate, at(50), at(99))
}

fn sizes(server: &Process) -> anyhow::Result<Sizes> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid()?))?;
    let memory: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .context("/proc has no VmRSS")?
        .parse()?;
    let member = server.data_dir().join("member");
    let mut log = 0;
    for entry in std::fs::read_dir(member.join("wal"))? {
        // A segment may be released meanwhile.
        log += blocks(&entry?.path()).unwrap_or(0);
    }
    Ok(Sizes {
        memory: memory << 10,
        page_file: blocks(&member.join("snap/db"))?,
        log,
    })
}

/// Bytes of the blocks of a file.
fn blocks(path: &Path) -> anyhow::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata(path)?.blocks() * 512)
}
