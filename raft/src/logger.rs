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

/// The message and its values as one line. The logger's own values are left out: the member's id is
/// in the caller's span.
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

#[cfg(test)]
mod tests {
    use std::fmt::Debug;
    use std::sync::{Arc, Mutex};

    use tracing::field::{Field, Visit};
    use tracing::span;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);

    impl tracing::Subscriber for Lines {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            metadata.target() == "raft" && *metadata.level() <= tracing::Level::INFO
        }
        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            let level = event.metadata().level();
            let mut visitor = Message(format!("{level} "));
            event.record(&mut visitor);
            self.0.lock().unwrap().push(visitor.0);
        }
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    struct Message(String);

    impl Visit for Message {
        fn record_debug(&mut self, _: &Field, value: &dyn Debug) {
            write!(self.0, "{value:?}").unwrap();
        }
    }

    #[test]
    fn lines_keep_their_level_and_their_values() {
        let lines = Lines::default();
        tracing::subscriber::with_default(lines.clone(), || {
            let logger = logger();
            slog::info!(logger, "became leader at term {}", 7; "index" => 3, "peers" => ?[1, 2]);
            slog::warn!(logger, "odd");
            slog::error!(logger, "bad");
            slog::debug!(logger, "not wanted");
        });
        let expected = [
            "INFO became leader at term 7, peers: [1, 2], index: 3",
            "WARN odd",
            "ERROR bad",
        ];
        assert_eq!(*lines.0.lock().unwrap(), expected);
    }
}
