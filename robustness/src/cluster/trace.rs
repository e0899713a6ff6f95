//! The trace of a run: a digest of everything that happened, and the last part of it as text.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};

use super::queue::Time;
use crate::history::hash_value;

/// Lines that are kept for a report.
const KEPT: usize = 400;

/// What has happened.
#[derive(Debug, Default)]
pub struct Trace {
    digest: u64,
    lines: VecDeque<String>,
    /// Whether each line goes to standard output, too.
    print: bool,
}

impl Trace {
    pub(super) fn new(print: bool) -> Self {
        Self {
            print,
            ..Self::default()
        }
    }

    pub(super) fn note(&mut self, now: Time, what: fmt::Arguments<'_>) {
        let mut line = match self.lines.len() {
            KEPT => self.lines.pop_front().unwrap_or_default(),
            _ => String::new(),
        };
        line.clear();
        // Writing to a string does not fail.
        let _infallible = write!(line, "{:>12.6} {what}", now.as_secs_f64());
        let hash = hash_value(line.as_bytes());
        self.digest = (self.digest.rotate_left(5) ^ hash).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if self.print {
            println!("{line}");
        }
        self.lines.push_back(line);
    }

    /// A digest of all lines. The same seed and the same code give the same digest.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The last lines.
    pub fn tail(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}
