//! Figures for people.

use std::collections::BTreeMap;
use std::time::Duration;

use super::load::{Attempt, Outcome};

/// Some times.
#[derive(Clone, Debug, Default)]
pub struct Times {
    all: Vec<Duration>,
}

impl Times {
    /// Adds one.
    pub fn add(&mut self, time: Duration) {
        self.all.push(time);
        self.all.sort_unstable();
    }

    /// Adds some.
    pub fn extend(&mut self, times: Times) {
        self.all.extend(times.all);
        self.all.sort_unstable();
    }

    /// The time that `percent` of them do not exceed.
    pub fn at(&self, percent: usize) -> Duration {
        let at = (self.all.len() * percent).div_ceil(100).max(1) - 1;
        self.all.get(at).copied().unwrap_or_default()
    }

    /// How many are longer than `limit`.
    pub fn over(&self, limit: Duration) -> usize {
        self.all.iter().filter(|time| **time > limit).count()
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (p50, max) = (ms(self.at(50)), ms(self.at(100)));
        match self.all.len() {
            0 => f.write_str("none"),
            count => write!(f, "p50 {p50}, max {max} (n = {count})"),
        }
    }
}

impl FromIterator<Duration> for Times {
    fn from_iter<I: IntoIterator<Item = Duration>>(times: I) -> Self {
        let mut all: Vec<_> = times.into_iter().collect();
        all.sort_unstable();
        Self { all }
    }
}

/// Milliseconds.
pub fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// The longest time without an acknowledged write between `from` and `to`.
pub fn longest_silence(attempts: &[Attempt], from: Duration, to: Duration) -> Duration {
    let mut last = from;
    let mut longest = Duration::ZERO;
    let answers = attempts.iter().filter(|it| it.error.is_none());
    for at in answers.map(|it| it.returned).chain([to]) {
        if at > from && at <= to {
            longest = longest.max(at - last);
            last = at;
        }
    }
    longest
}

/// The times of the acknowledged writes that were called between `from` and `to`.
pub fn acknowledged(attempts: &[Attempt], from: Duration, to: Duration) -> Times {
    let within = |it: &&Attempt| it.called >= from && it.called < to && it.error.is_none();
    let took = |it: &Attempt| it.returned - it.called;
    attempts.iter().filter(within).map(took).collect()
}

/// What became of the writes and reads of a load, a line each.
pub fn describe(outcome: &Outcome) -> Vec<String> {
    let times = acknowledged(&outcome.attempts, Duration::ZERO, Duration::MAX);
    let mut lines = vec![format!(
        "writes acknowledged: {}; p50 {}, p99 {}, max {}; reads answered: {}",
        times.all.len(),
        ms(times.at(50)),
        ms(times.at(99)),
        ms(times.at(100)),
        outcome.reads
    )];
    for (what, again) in [("write", false), ("second try", true)] {
        let failed = outcome.attempts.iter().filter(|it| it.again == again);
        for (error, times) in by_error(failed) {
            lines.push(format!("{what} failed: {error}: {times}"));
        }
    }
    let mut reads: BTreeMap<&str, u32> = BTreeMap::new();
    for error in &outcome.failed_reads {
        *reads.entry(error).or_default() += 1;
    }
    for (error, count) in reads {
        lines.push(format!("read failed: {error}: {count}"));
    }
    lines
}

/// The times of failed attempts, by error.
pub fn by_error<'a>(attempts: impl Iterator<Item = &'a Attempt>) -> BTreeMap<&'a str, Times> {
    let mut errors: BTreeMap<&str, Times> = BTreeMap::new();
    for attempt in attempts {
        if let Some(error) = &attempt.error {
            let times = errors.entry(error).or_default();
            times.add(attempt.returned - attempt.called);
        }
    }
    errors
}
