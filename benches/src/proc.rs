//! What the kernel says about a process: CPU time, memory, bytes written.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;

/// The unit of CPU times in `/proc`: fixed at 1/100 s in Linux's interface on the machines
/// that Ferrite runs on, whatever the kernel's own timer does.
const TICK: Duration = Duration::from_millis(10);

/// One look at a process, or the sum over several.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Sample {
    /// CPU time since its start, user and system, all threads. Steps of 10 ms.
    pub cpu: Duration,
    /// Resident memory now.
    pub rss_bytes: u64,
    /// The most it ever was.
    pub peak_rss_bytes: u64,
    /// Bytes it caused to be sent to block devices. Zero for what lies in memory file systems.
    pub written_bytes: u64,
}

impl Sample {
    /// Looks at a process.
    ///
    /// # Errors
    /// There is no such process, or it may not be looked at.
    pub fn of(pid: u32) -> anyhow::Result<Sample> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
        };
        let status = read("status")?;
        Ok(Sample {
            cpu: cpu_of(&read("stat")?).context("unreadable /proc stat")?,
            rss_bytes: field(&status, "VmRSS:").context("no VmRSS")? * 1024,
            peak_rss_bytes: field(&status, "VmHWM:").context("no VmHWM")? * 1024,
            written_bytes: field(&read("io")?, "write_bytes:").context("no write_bytes")?,
        })
    }

    /// Adds another process.
    pub fn plus(self, other: Sample) -> Sample {
        Sample {
            cpu: self.cpu + other.cpu,
            rss_bytes: self.rss_bytes + other.rss_bytes,
            peak_rss_bytes: self.peak_rss_bytes + other.peak_rss_bytes,
            written_bytes: self.written_bytes + other.written_bytes,
        }
    }
}

/// CPU time of this process so far.
///
/// # Errors
/// `/proc` is not mounted.
pub fn own_cpu() -> anyhow::Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").context("cannot read /proc/self/stat")?;
    cpu_of(&stat).context("unreadable /proc stat")
}

fn cpu_of(stat: &str) -> Option<Duration> {
    // The second field is the program's name in parentheses and may hold spaces.
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(TICK * user + TICK * system)
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_a_name_with_spaces_and_parentheses() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 8 0 12345";
        assert_eq!(cpu_of(stat), Some(Duration::from_secs(3)));
        assert_eq!(cpu_of("42 (short) S 1"), None);
    }

    #[test]
    fn fields_are_found_by_their_name() {
        let status = "Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\n";
        assert_eq!(field(status, "VmRSS:"), Some(1024));
        assert_eq!(field(status, "VmHWM:"), Some(2048));
        assert_eq!(field(status, "VmSwap:"), None);
    }

    #[test]
    fn this_process_can_be_looked_at() {
        let sample = Sample::of(std::process::id()).unwrap();
        assert!(sample.rss_bytes > 0 && sample.peak_rss_bytes >= sample.rss_bytes / 2);
        let both = sample.plus(sample);
        assert_eq!(both.rss_bytes, 2 * sample.rss_bytes);
    }
}
