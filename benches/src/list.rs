//! Lists: the whole key space in one answer, several at a time, through clients that look at nothing
//! but what they need to know that it is all there. What counts is what the server does meanwhile:
//! memory above all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use ferrite_api::pb::etcdserverpb::RangeRequest;

use crate::discard::{Discarded, discard};
use crate::keys::KeySpace;
use crate::proc::Sample;

/// Pause between two looks at the server's memory.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What a number of concurrent lists did.
#[derive(Clone, Debug)]
pub struct Lists {
    /// Lists at the same time.
    pub lists: usize,
    /// Bytes of all their messages.
    pub bytes: u64,
    /// Messages in all of them.
    pub messages: u64,
    /// From the first request to the last answer's end.
    pub elapsed: Duration,
    /// From the first request to the slowest answer's first byte.
    pub first_byte: Duration,
    /// CPU time of the server.
    pub server_cpu: Duration,
    /// Memory of the server before, and the most that was seen meanwhile.
    pub rss_bytes: (u64, u64),
}

impl Lists {
    /// Millions of bytes a second, all lists together.
    pub fn megabytes_per_second(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    /// Seconds of server CPU for a billion bytes.
    pub fn cpu_per_gigabyte(&self) -> f64 {
        self.server_cpu.as_secs_f64() / (self.bytes.max(1) as f64 / 1e9)
    }

    /// Memory that the server took for it, millions of bytes.
    pub fn extra_megabytes(&self) -> f64 {
        self.rss_bytes.1.saturating_sub(self.rss_bytes.0) as f64 / 1e6
    }

    /// One line for people.
    pub fn line(&self, name: &str) -> String {
        format!(
            "{name}: {} lists, {:.2} GB in {} messages in {:.2} s: {:.0} MB/s, first byte after {:.1} ms at most, \
             {:.2} s of server CPU per GB, {:.1} MB of memory beside {:.0} MB",
            self.lists,
            self.bytes as f64 / 1e9,
            self.messages,
            self.elapsed.as_secs_f64(),
            self.megabytes_per_second(),
            self.first_byte.as_secs_f64() * 1e3,
            self.cpu_per_gigabyte(),
            self.extra_megabytes(),
            self.rss_bytes.0 as f64 / 1e6,
        )
    }
}

/// Lists the whole space `lists` times at once, each over a connection of its own. `streamed`: by
/// `RangeStream`. `sample` looks at the server.
///
/// # Errors
/// The server cannot be reached or fails; a message is not whole; an answer is shorter than its keys
/// and values.
pub fn list(
    endpoint: &str,
    keys: &KeySpace,
    value_size: usize,
    lists: usize,
    streamed: bool,
    sample: impl Fn() -> anyhow::Result<Sample> + Sync,
) -> anyhow::Result<Lists> {
    let request = RangeRequest {
        key: keys.key(0),
        range_end: keys.end(),
        ..RangeRequest::default()
    };
    let path = if streamed {
        "/etcdserverpb.KV/RangeStream"
    } else {
        "/etcdserverpb.KV/Range"
    };
    let least = keys.count() * (keys.key(0).len() + value_size) as u64;
    let before = sample()?;
    let done = Arc::new(AtomicBool::new(false));
    let (answers, elapsed, peak) = std::thread::scope(|scope| {
        let watched = Arc::clone(&done);
        let watching = scope.spawn(|| watch_memory(watched, &sample));
        let begin = Instant::now();
        let answers = run(endpoint, path, &request, lists);
        let elapsed = begin.elapsed();
        done.store(true, Ordering::Relaxed);
        let peak = watching.join().expect("looking does not panic");
        anyhow::Ok((answers?, elapsed, peak?))
    })?;
    let after = sample()?;
    for answer in &answers {
        ensure!(
            answer.bytes >= least,
            "an answer of {} bytes, the keys and values are {least}",
            answer.bytes
        );
    }
    Ok(Lists {
        lists,
        bytes: answers.iter().map(|answer| answer.bytes).sum(),
        messages: answers.iter().map(|answer| answer.messages).sum(),
        elapsed,
        first_byte: answers
            .iter()
            .map(|answer| answer.first_byte)
            .max()
            .unwrap_or_default(),
        server_cpu: after.cpu.saturating_sub(before.cpu),
        rss_bytes: (before.rss_bytes, peak.max(after.rss_bytes)),
    })
}

fn run(
    endpoint: &str,
    path: &str,
    request: &RangeRequest,
    lists: usize,
) -> anyhow::Result<Vec<Discarded>> {
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..lists)
            .map(|_| scope.spawn(|| discard(endpoint, path, request)))
            .collect();
        let answers = clients
            .into_iter()
            .map(|client| client.join().expect("a client does not panic"));
        answers.collect()
    })
}

/// The most memory seen until `done`.
fn watch_memory(
    done: Arc<AtomicBool>,
    sample: &impl Fn() -> anyhow::Result<Sample>,
) -> anyhow::Result<u64> {
    let mut most = 0;
    while !done.load(Ordering::Relaxed) {
        most = most.max(sample()?.rss_bytes);
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(most)
}
