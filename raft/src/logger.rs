//! raft-rs logs through slog; this hands its lines to `tracing`, target `raft`.

use std::fmt::{self, Write};

use slog::{Drain, KV, Key, Level, Logger, Never, OwnedKVList, Record, Serializer, o};

/// A logger for [`raft::RawNode`].
pub(crate) fn logger() -> Logger {
    Logger::root(Forward, o!())
}

#[derive(Debug)]
struct Forward;

/// One macro call per level, since a callsite's level is a constant.
macro_rules! forward {
    ($level:ident, $record:expr, $values:expr) => {
        // Formatting is what costs: the arguments of debug lines hold whole messages.
        if tracing::enabled!(target: "raft", tracing::Level::$level) {
            let line = line($record, $values);
            tracing::event!(target: "raft", tracing::Level::$level, "{line}");
        }
    };
}

impl Drain for Forward {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        match record.level() {
            Level::Critical | Level::Error => forward!(ERROR, record, values),
            Level::Warning => forward!(WARN, record, values),
            Level::Info => forward!(INFO, record, values),
            Level::Debug => forward!(DEBUG, record, values),
            Level::Trace => forward!(TRACE, record, values),
        }
        Ok(())
    }
}

/// The message and its values as one line. The logger's own values are left out: the member's id is in the caller's span.
fn line(record: &Record<'_>, _values: &OwnedKVList) -> String {
    let mut line = Line(record.msg().to_string());
    // Writing to a string does not fail, and a value that cannot print itself only loses its line.
    let _printed = record.kv().serialize(record, &mut line);
    line.0
}

struct Line(String);

impl Serializer for Line {
    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        write!(self.0, ", {key}: {value}").map_err(slog::Error::from)
    }
}
