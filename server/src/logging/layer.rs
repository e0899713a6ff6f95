//! The `tracing` layer that writes lines, and the handle that changes its level.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::journal::{self, Journal};
use super::line::{Line, caller, level_of};
use super::rotate::RotatingFile;
use super::{Error, Format, Level, Options, Output, Rotation};

/// Libraries of the HTTP stack, whose events below warn say nothing to an operator.
const NOISY: [&str; 7] = [
    "h2",
    "hyper",
    "hyper_util",
    "mio",
    "rustls",
    "tonic",
    "tower",
];

/// Where lines go, and what has gone there; taken for one line at a time, never while formatting.
struct Sinks {
    sinks: Vec<Sink>,
    sampler: Sampler,
}

/// One place that lines go to.
pub(super) enum Sink {
    Writer(Box<dyn Write + Send>),
    Journal(Journal),
}

struct Shared {
    level: AtomicU8,
    format: Format,
    clock: fn() -> SystemTime,
    sinks: Mutex<Sinks>,
}

impl Shared {
    fn level(&self) -> Level {
        let raw = self.level.load(Ordering::Relaxed);
        Level::ALL
            .into_iter()
            .find(|level| *level as u8 == raw)
            .unwrap_or(Level::Info)
    }

    /// Whether an event of this callsite can be printed at the present level. An error event may
    /// turn out to be a fatal one, so it passes here at every level.
    fn admits(&self, metadata: &Metadata<'_>) -> bool {
        let Some(level) = level_of(metadata) else {
            return false;
        };
        let quiet = level < Level::Warn && NOISY.contains(&crate_of(metadata.target()));
        !quiet && (level == Level::Error || level >= self.level())
    }
}

fn crate_of(target: &str) -> &str {
    target.split("::").next().unwrap_or(target)
}

/// Prints events as zap does; see the module.
pub struct ZapLayer {
    shared: Arc<Shared>,
}

/// Changes a running log. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    /// The level in effect.
    pub fn level(&self) -> Level {
        self.shared.level()
    }

    /// Drops what is less severe from now on.
    pub fn set_level(&self, level: Level) {
        self.shared.level.store(level as u8, Ordering::Relaxed);
        // Callsites remember whether they are of interest.
        tracing::callsite::rebuild_interest_cache();
    }
}

impl ZapLayer {
    /// A layer that writes to the given outputs.
    ///
    /// # Errors
    /// When a file cannot be opened.
    pub fn new(options: &Options) -> Result<(ZapLayer, Handle), Error> {
        let mut sinks = Vec::new();
        for output in &options.outputs {
            sinks.push(match output {
                Output::Stderr => Sink::Writer(Box::new(std::io::stderr())),
                Output::Stdout => Sink::Writer(Box::new(std::io::stdout())),
                Output::Discard => continue,
                Output::Journal => Sink::Journal(
                    Journal::connect(Path::new(journal::SOCKET)).map_err(Error::Journal)?,
                ),
                Output::File(path) => {
                    let opened = open(path, options.rotation.as_ref());
                    Sink::Writer(opened.map_err(|error| Error::Open {
                        path: path.clone(),
                        error,
                    })?)
                }
            });
        }
        Ok(Self::with_sinks(
            options.level,
            options.format,
            sinks,
            SystemTime::now,
        ))
    }

    /// The same over any sinks and any clock.
    pub(super) fn with_sinks(
        level: Level,
        format: Format,
        sinks: Vec<Sink>,
        clock: fn() -> SystemTime,
    ) -> (ZapLayer, Handle) {
        let shared = Arc::new(Shared {
            level: AtomicU8::new(level as u8),
            format,
            clock,
            sinks: Mutex::new(Sinks {
                sinks,
                sampler: Sampler::default(),
            }),
        });
        let handle = Handle {
            shared: shared.clone(),
        };
        (ZapLayer { shared }, handle)
    }
}

fn open(path: &Path, rotation: Option<&Rotation>) -> std::io::Result<Box<dyn Write + Send>> {
    Ok(match rotation {
        Some(rotation) => {
            let file = RotatingFile::open(path, rotation.clone(), SystemTime::now)?;
            Box::new(file)
        }
        None => Box::new(OpenOptions::new().append(true).create(true).open(path)?),
    })
}

impl<S: Subscriber> Layer<S> for ZapLayer {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.shared.admits(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.shared.admits(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match self.shared.level() {
            Level::Debug => LevelFilter::DEBUG,
            Level::Info => LevelFilter::INFO,
            Level::Warn => LevelFilter::WARN,
            _ => LevelFilter::ERROR,
        })
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let Some(level) = level_of(metadata) else {
            return;
        };
        let line = Line::new(event, level);
        if line.level < self.shared.level() {
            return;
        }
        let now = (self.shared.clock)();
        let text = line.format(metadata, now, self.shared.format);
        let mut sinks = self.shared.sinks.lock();
        if !sinks.sampler.admits(&line, now) {
            return;
        }
        for sink in &mut sinks.sinks {
            match sink {
                Sink::Writer(writer) => {
                    // A log that cannot be written must not stop the server, and there is nowhere to
                    // say it.
                    let _ = writer.write_all(text.as_bytes());
                    let _ = writer.flush();
                }
                Sink::Journal(journal) => {
                    journal.write(line.level, caller(metadata).as_deref(), &text);
                }
            }
        }
    }
}

/// Identical messages printed in a second before sampling begins, and one of how many after that.
const SAMPLE_FIRST: u64 = 100;
const SAMPLE_EACH: u64 = 100;
/// Different messages remembered; then all counts begin anew, which prints more, never less.
const SAMPLE_MESSAGES: usize = 4096;

/// Keeps a message that is logged in a storm from filling the disk.
#[derive(Default)]
struct Sampler {
    /// By hash of level and message: when the second ends, and how often it was seen in it.
    windows: HashMap<u64, (SystemTime, u64)>,
}

impl Sampler {
    fn admits(&mut self, line: &Line, now: SystemTime) -> bool {
        let mut hasher = DefaultHasher::new();
        (line.level as u8, &line.message).hash(&mut hasher);
        if self.windows.len() >= SAMPLE_MESSAGES {
            self.windows.clear();
        }
        let second = Duration::from_secs(1);
        let (ends, seen) = self
            .windows
            .entry(hasher.finish())
            .or_insert((now + second, 0));
        // A clock that was set back must not keep a window open for long.
        if *ends <= now || *ends > now + second {
            (*ends, *seen) = (now + second, 0);
        }
        *seen += 1;
        *seen <= SAMPLE_FIRST || (*seen - SAMPLE_FIRST).is_multiple_of(SAMPLE_EACH)
    }
}
