//! `process_*` and `os_fd_*`, read from `/proc` by each scrape. On systems without `/proc` the
//! values stay 0.

use std::fs;

use parking_lot::Mutex;
use prometheus::{Counter, Gauge, IntCounter, IntGauge};

use super::register::Registrar;

/// `process_*` and `os_fd_*`.
pub struct ProcessMetrics {
    cpu_seconds: Counter,
    open_fds: IntGauge,
    max_fds: Gauge,
    virtual_memory: Gauge,
    virtual_memory_max: Gauge,
    resident_memory: Gauge,
    start_time: Gauge,
    network_received: IntCounter,
    network_sent: IntCounter,
    fd_used: IntGauge,
    fd_limit: Gauge,
    /// Guards the counters, which can only be added to: two scrapes must not add the same
    /// difference twice.
    turn: Mutex<()>,
}

impl ProcessMetrics {
    pub(super) fn new(r: &Registrar<'_>) -> Self {
        Self {
            cpu_seconds: r.float_counter(
                "process_cpu_seconds_total",
                "User and system time spent, in seconds.",
            ),
            open_fds: r.gauge("process_open_fds", "Open file descriptors."),
            max_fds: r.float_gauge("process_max_fds", "Most file descriptors allowed."),
            virtual_memory: r
                .float_gauge("process_virtual_memory_bytes", "Virtual memory in bytes."),
            virtual_memory_max: r.float_gauge(
                "process_virtual_memory_max_bytes",
                "Most virtual memory allowed, in bytes.",
            ),
            resident_memory: r
                .float_gauge("process_resident_memory_bytes", "Resident memory in bytes."),
            start_time: r.float_gauge(
                "process_start_time_seconds",
                "Start of the process, in seconds since the epoch.",
            ),
            network_received: r.counter(
                "process_network_receive_bytes_total",
                "Bytes received over the network in the namespace of the process.",
            ),
            network_sent: r.counter(
                "process_network_transmit_bytes_total",
                "Bytes sent over the network in the namespace of the process.",
            ),
            fd_used: r.gauge("os_fd_used", "File descriptors in use."),
            fd_limit: r.float_gauge("os_fd_limit", "Limit of file descriptors."),
            turn: Mutex::new(()),
        }
    }

    /// Reads everything anew.
    pub(super) fn refresh(&self) {
        let _turn = self.turn.lock();
        if let Some(open) = open_fds() {
            self.open_fds.set(open);
            self.fd_used.set(open);
        }
        if let Ok(limits) = fs::read_to_string("/proc/self/limits") {
            if let Some(most) = limit(&limits, "Max open files") {
                self.max_fds.set(most);
                self.fd_limit.set(most);
            }
            if let Some(most) = limit(&limits, "Max address space") {
                self.virtual_memory_max.set(most);
            }
        }
        if let Ok(status) = fs::read_to_string("/proc/self/status") {
            if let Some(bytes) = status_bytes(&status, "VmSize:") {
                self.virtual_memory.set(bytes);
            }
            if let Some(bytes) = status_bytes(&status, "VmRSS:") {
                self.resident_memory.set(bytes);
            }
        }
        if let Some(times) = fs::read_to_string("/proc/self/stat")
            .ok()
            .and_then(|stat| Times::parse(&stat))
        {
            let more = times.cpu_seconds - self.cpu_seconds.get();
            if more > 0.0 {
                self.cpu_seconds.inc_by(more);
            }
            if self.start_time.get() == 0.0
                && let Some(boot) = boot_time()
            {
                self.start_time.set(boot + times.start_after_boot);
            }
        }
        if let Some((received, sent)) = fs::read_to_string("/proc/self/net/netstat")
            .ok()
            .and_then(|netstat| ip_octets(&netstat))
        {
            self.network_received
                .inc_by(received.saturating_sub(self.network_received.get()));
            self.network_sent
                .inc_by(sent.saturating_sub(self.network_sent.get()));
        }
    }
}

/// The soft limit of open file descriptors of this process; `None` when it cannot be read or is
/// unlimited.
pub fn fd_limit() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    limit_words(&limits, "Max open files")?.parse().ok()
}

/// File descriptors in use, less the one that is open while counting.
fn open_fds() -> Option<i64> {
    let entries = fs::read_dir("/proc/self/fd").ok()?.count();
    i64::try_from(entries.saturating_sub(1)).ok()
}

/// The soft limit on the line that starts with `name`.
fn limit_words<'a>(limits: &'a str, name: &str) -> Option<&'a str> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()
}

/// The same as a number; unlimited is 2^64 - 1, as other exporters of this metric show it.
fn limit(limits: &str, name: &str) -> Option<f64> {
    match limit_words(limits, name)? {
        "unlimited" => Some(u64::MAX as f64),
        number => number.parse().ok(),
    }
}

/// A `Vm...:  123 kB` line in bytes.
fn status_bytes(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024.0)
}

/// The unit of times in `/proc`: fixed at 100 Hz by Linux's interface to user space on every
/// architecture this server supports, whatever the kernel's own tick is.
const USER_HZ: f64 = 100.0;

#[derive(Debug, PartialEq)]
struct Times {
    cpu_seconds: f64,
    start_after_boot: f64,
}

impl Times {
    /// Fields 14, 15 and 22 of `/proc/self/stat`. The second field is the program's name in
    /// parentheses and may hold anything, so counting starts behind the last `)`.
    fn parse(stat: &str) -> Option<Times> {
        let behind_name = stat.get(stat.rfind(')')? + 1..)?;
        let field = |number: usize| -> Option<f64> {
            behind_name.split_whitespace().nth(number - 3)?.parse().ok()
        };
        Some(Times {
            cpu_seconds: (field(14)? + field(15)?) / USER_HZ,
            start_after_boot: field(22)? / USER_HZ,
        })
    }
}

/// Start of the system in seconds since the epoch.
fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

/// `InOctets` and `OutOctets` of the two `IpExt:` lines, names and values.
fn ip_octets(netstat: &str) -> Option<(u64, u64)> {
    let mut lines = netstat
        .lines()
        .filter_map(|line| line.strip_prefix("IpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let column = |wanted: &str| -> Option<u64> {
        let at = names.split_whitespace().position(|name| name == wanted)?;
        values.split_whitespace().nth(at)?.parse().ok()
    };
    Some((column("InOctets")?, column("OutOctets")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_fields_are_counted_behind_the_name() {
        let stat = "42 (a b) c) S 1 42 42 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 12345 1 2 3";
        assert_eq!(
            Times::parse(stat),
            Some(Times {
                cpu_seconds: 2.0,
                start_after_boot: 123.45
            })
        );
        assert_eq!(Times::parse("42 (short) S 1"), None);
        assert_eq!(Times::parse(""), None);
    }

    #[test]
    fn limits_and_status_lines() {
        let limits = "Limit   Soft Limit  Hard Limit  Units\n\
                      Max open files            1024                 4096                 files\n\
                      Max address space         unlimited            unlimited            bytes\n";
        assert_eq!(limit(limits, "Max open files"), Some(1024.0));
        assert_eq!(limit(limits, "Max address space"), Some(u64::MAX as f64));
        assert_eq!(limit(limits, "Max nothing"), None);
        assert_eq!(
            status_bytes("Name:\tx\nVmRSS:\t    2048 kB\n", "VmRSS:"),
            Some(2_097_152.0)
        );
    }

    #[test]
    fn octets_come_from_the_ip_lines() {
        let netstat =
            "TcpExt: A B\nTcpExt: 1 2\nIpExt: InNoRoutes InOctets OutOctets\nIpExt: 0 10 20\n";
        assert_eq!(ip_octets(netstat), Some((10, 20)));
        assert_eq!(ip_octets("IpExt: InOctets\n"), None);
    }
}
