//! The log: `tracing` events printed as etcd's logger (zap) prints them, one JSON object per line
//! or tab-separated for a console (spec/server-flags.md section 9).
//!
//! ```text
//! {"level":"info","ts":"2026-01-02T03:04:05.678901Z","logger":"raft","caller":"raft/driver.rs:7","msg":"became leader","term":2}
//! ```
//!
//! * `logger` is an event's `target` where the event names one itself (`target: "raft"`).
//! * Messages are constant texts, data goes into fields. A field whose value is `?list` of strings
//!   becomes a JSON list. Durations are texts: `?duration`, or [`crate::config::GoDuration`] for
//!   Go's exact form (`1m30s`).
//! * zap's levels above error are an error event with the field `"zap.level" = "fatal"` (or
//!   `panic`, `dpanic`), which replaces the level and is not printed.
//! * The HTTP stack's own events below warn are dropped, and so is everything at trace.
//! * Of identical messages of one level, the first 100 in a second are printed, then every 100th.
//!
//! Deviation: times are always in UTC, and there are no stack traces.

mod journal;
mod layer;
mod line;
mod rotate;
mod time;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::OnceLock;

use ferrite_api::os_text;
use tracing_subscriber::layer::SubscriberExt;

#[cfg(test)]
use layer::Sink;
pub use layer::{Handle, ZapLayer};
pub use rotate::Rotation;
pub(crate) use time::{parse_rfc3339, rfc3339_nanos};

/// Severity, in zap's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Per request.
    Debug,
    /// What happens once in a while.
    Info,
    /// Degraded, going on.
    Warn,
    /// An operator must act.
    Error,
    /// A bug that would stop a development build.
    DPanic,
    /// About to unwind.
    Panic,
    /// About to end the process.
    Fatal,
}

impl Level {
    const ALL: [Level; 7] = [
        Level::Debug,
        Level::Info,
        Level::Warn,
        Level::Error,
        Level::DPanic,
        Level::Panic,
        Level::Fatal,
    ];

    /// The name in log lines.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
            Level::DPanic => "dpanic",
            Level::Panic => "panic",
            Level::Fatal => "fatal",
        }
    }

    /// `--log-level`: a name in lower or in upper case; empty means info.
    pub fn parse(text: &str) -> Option<Level> {
        if text.is_empty() {
            return Some(Level::Info);
        }
        Level::ALL
            .into_iter()
            .find(|level| level.name() == text || level.name().to_ascii_uppercase() == text)
    }
}

/// `--log-format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line.
    Json,
    /// Columns separated by tabs, fields as JSON in the last.
    Console,
}

impl Format {
    /// The format of that name.
    pub fn parse(text: &str) -> Option<Format> {
        match text {
            "json" => Some(Format::Json),
            "console" => Some(Format::Console),
            _ => None,
        }
    }
}

/// One place that lines go to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Output {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// systemd's journal.
    Journal,
    /// Appended to a file, which is created if absent.
    File(PathBuf),
    /// Nowhere.
    Discard,
}

impl Output {
    /// The outputs of `--log-outputs`: no output means stderr, and `/dev/null` among them means
    /// none at all.
    pub fn parse_all(texts: &[String]) -> Vec<Output> {
        if texts.iter().any(|text| text == "/dev/null") {
            return vec![Output::Discard];
        }
        let mut outputs: Vec<Output> = texts
            .iter()
            .map(|text| match text.as_str() {
                "" | "default" | "stderr" => Output::Stderr,
                "stdout" => Output::Stdout,
                "systemd/journal" => Output::Journal,
                path => Output::File(PathBuf::from(path)),
            })
            .collect();
        if outputs.is_empty() {
            outputs.push(Output::Stderr);
        }
        outputs.sort();
        outputs.dedup();
        outputs
    }
}

/// How to log. The default is etcd's: info and above as JSON to stderr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `--log-level`. What is less severe is dropped.
    pub level: Level,
    /// `--log-format`.
    pub format: Format,
    /// `--log-outputs`. Every line goes to each.
    pub outputs: Vec<Output>,
    /// `--enable-log-rotation` and `--log-rotation-config-json`, for the files among the outputs.
    /// Default none.
    pub rotation: Option<Rotation>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            level: Level::Info,
            format: Format::Json,
            outputs: vec![Output::Stderr],
            rotation: None,
        }
    }
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An output cannot be opened.
    #[error("couldn't open sink {path:?}: {error}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// There is no journal. Go's text.
    #[error("can't find journal (dial unixgram {}: connect: {})", journal::SOCKET, os_text(.0))]
    Journal(std::io::Error),
    /// The process has a log already.
    #[error("a log is already set up in this process")]
    AlreadySet,
}

/// Sets up the log of the process. The handle changes the level later.
///
/// # Errors
/// When an output cannot be opened, or another log is set up already. An embedding program that
/// has its own subscriber adds [`ZapLayer`] to it, or none.
pub fn init(options: &Options) -> Result<Handle, Error> {
    let (layer, handle) = ZapLayer::new(options)?;
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| Error::AlreadySet)?;
    let _first = OF_PROCESS.set(handle.clone());
    Ok(handle)
}

static OF_PROCESS: OnceLock<Handle> = OnceLock::new();

/// The log that [`init`] has set up, if it has.
pub fn of_process() -> Option<&'static Handle> {
    OF_PROCESS.get()
}
