//! What a long command says meanwhile, if a person watches.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use crate::failure::to_stderr;

/// Commands that take less say nothing: programs that run them on a terminal of their own, and read what
/// they print, get that and nothing else.
const PATIENCE: Duration = Duration::from_secs(1);

/// One line on a terminal, which goes away at the end; nothing elsewhere.
pub(crate) struct Progress {
    shown: bool,
    begun: Instant,
    /// Of the last text.
    percent: Option<u64>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            shown: std::io::stderr().is_terminal(),
            begun: Instant::now(),
            percent: None,
        }
    }

    /// So much of the work is done.
    pub(crate) fn tell(&mut self, what: &str, done: u64, all: u64) {
        let percent = (100 * done).checked_div(all).unwrap_or(100).min(100);
        if self.shown && self.percent != Some(percent) && self.begun.elapsed() >= PATIENCE {
            self.percent = Some(percent);
            to_stderr(&format!("\r{what}: {percent} %\x1b[K"));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.percent.is_some() {
            to_stderr("\r\x1b[K");
        }
    }
}
