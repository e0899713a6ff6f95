//! One event as one line.

use std::fmt::Write as _;
use std::time::SystemTime;

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata};

use super::{Format, Level, time};

/// The field that stands for a level that tracing does not have.
const LEVEL_FIELD: &str = "zap.level";

/// The parts of an event.
pub(super) struct Line {
    pub(super) level: Level,
    pub(super) message: String,
    fields: Vec<(&'static str, Value)>,
}

/// The level of an event that names none itself; `None` is below everything.
pub(super) fn level_of(metadata: &Metadata<'_>) -> Option<Level> {
    match *metadata.level() {
        tracing::Level::ERROR => Some(Level::Error),
        tracing::Level::WARN => Some(Level::Warn),
        tracing::Level::INFO => Some(Level::Info),
        tracing::Level::DEBUG => Some(Level::Debug),
        tracing::Level::TRACE => None,
    }
}

impl Line {
    pub(super) fn new(event: &Event<'_>, level: Level) -> Line {
        let mut line = Line {
            level,
            message: String::new(),
            fields: Vec::new(),
        };
        event.record(&mut line);
        line
    }

    /// The text with the final newline.
    pub(super) fn format(&self, metadata: &Metadata<'_>, at: SystemTime, format: Format) -> String {
        let at = time::format(at);
        let logger = logger(metadata);
        let caller = caller(metadata);
        let mut text = String::with_capacity(256);
        match format {
            Format::Json => {
                text.push_str("{\"level\":");
                push_text(&mut text, self.level.name());
                text.push_str(",\"ts\":");
                push_text(&mut text, &at);
                let head = [
                    ("logger", logger),
                    ("caller", caller.as_deref()),
                    ("msg", Some(self.message.as_str())),
                ];
                for (name, value) in head {
                    if let Some(value) = value {
                        let _ = write!(text, ",\"{name}\":");
                        push_text(&mut text, value);
                    }
                }
                for (name, value) in &self.fields {
                    text.push(',');
                    push_text(&mut text, name);
                    let _ = write!(text, ":{value}");
                }
                text.push_str("}\n");
            }
            Format::Console => {
                text.push_str(&at);
                let head = [
                    Some(self.level.name()),
                    logger,
                    caller.as_deref(),
                    Some(self.message.as_str()),
                ];
                for column in head.into_iter().flatten() {
                    text.push('\t');
                    text.push_str(column);
                }
                for (at, (name, value)) in self.fields.iter().enumerate() {
                    text.push_str(if at == 0 { "\t{" } else { ", " });
                    push_text(&mut text, name);
                    let _ = write!(text, ": {value}");
                }
                if !self.fields.is_empty() {
                    text.push('}');
                }
                text.push('\n');
            }
        }
        text
    }

    fn push(&mut self, field: &Field, value: Value) {
        match (field.name(), &value) {
            ("message", Value::String(text)) => self.message.clone_from(text),
            (LEVEL_FIELD, Value::String(name)) => {
                self.level = Level::parse(name).unwrap_or(self.level);
            }
            (name, _) => self.fields.push((name, value)),
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let text = format!("{value:?}");
        // Tracing has no lists: this is how `?Vec<String>` becomes one.
        let list = if text.starts_with('[') {
            serde_json::from_str::<Vec<String>>(&text).ok()
        } else {
            None
        };
        self.push(field, list.map_or(Value::String(text), Value::from));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, Value::from(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no such numbers; zap prints them as texts too.
        let value = if value.is_finite() {
            Value::from(value)
        } else {
            Value::from(value.to_string())
        };
        self.push(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, Value::from(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.push(field, Value::from(value.to_string()));
    }
}

/// The target, where it is not merely the module that the event stands in.
fn logger<'a>(metadata: &Metadata<'a>) -> Option<&'a str> {
    (metadata.module_path() != Some(metadata.target())).then_some(metadata.target())
}

/// The last directory and the file, and the line.
pub(super) fn caller(metadata: &Metadata<'_>) -> Option<String> {
    let (file, line) = (metadata.file()?, metadata.line()?);
    let mut cuts = file.rmatch_indices('/').map(|(at, _)| at);
    let start = cuts.nth(1).map_or(0, |at| at + 1);
    Some(format!("{}:{line}", file.get(start..)?))
}

/// A JSON string.
fn push_text(out: &mut String, text: &str) {
    let _ = write!(out, "{}", Value::from(text));
}
