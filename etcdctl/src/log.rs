//! Log lines on stderr, in the shape of etcd's own (zap JSON), for tools that grep them.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::print::json::push_string;

/// Where the client library reports failed attempts.
const RETRY_TARGET: &str = "ferrite_client::retry";

/// A value in a log line.
pub(crate) enum Value<'a> {
    Text(&'a str),
    Number(u64),
}

/// One line: level, time, the head, the message, then the given keys and values.
pub(crate) fn line(
    level: &str,
    head: &[(&str, &str)],
    message: &str,
    fields: &[(&str, Value<'_>)],
) -> String {
    let mut text = String::from("{\"level\":");
    push_string(&mut text, level);
    text.push_str(",\"ts\":");
    push_string(&mut text, &timestamp(SystemTime::now()));
    for (key, value) in head.iter().chain(&[("msg", message)]) {
        push_field(&mut text, key, &Value::Text(value));
    }
    for (key, value) in fields {
        push_field(&mut text, key, value);
    }
    text.push('}');
    text
}

fn push_field(text: &mut String, key: &str, value: &Value<'_>) {
    text.push(',');
    push_string(text, key);
    text.push(':');
    match value {
        Value::Text(value) => push_string(text, value),
        Value::Number(value) => text.push_str(&value.to_string()),
    }
}

/// Microseconds, UTC.
fn timestamp(now: SystemTime) -> String {
    // A clock before 1970 is not worth more than a wrong time stamp.
    let elapsed = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = elapsed.as_secs();
    let (days, in_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        in_day / 3600,
        in_day / 60 % 60,
        in_day % 60,
        elapsed.subsec_micros()
    )
}

/// Year, month and day of a day since 1970, in the Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    // Counted from 1 March of year 0, so that leap days come last in their year.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// Shows the client library's failed attempts as the warnings that etcd's client prints.
pub(crate) struct RetryWarnings {
    target: String,
}

impl RetryWarnings {
    /// For the rest of the process, unless `level` (of `ETCD_CLIENT_DEBUG`) hides warnings.
    pub(crate) fn install(endpoints: &[String], level: &str) {
        if matches!(level, "error" | "dpanic" | "panic" | "fatal") {
            return;
        }
        let warnings = RetryWarnings {
            target: format!("etcd-endpoints://{}", endpoints.join(",")),
        };
        // Fails when one is installed already, which then does the same.
        let _ = tracing::subscriber::set_global_default(warnings);
    }
}

#[derive(Default)]
struct Fields {
    values: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = write!(text, "{value:?}");
        self.values.push((field.name(), text));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.values.push((field.name(), value.to_owned()));
    }
}

impl Subscriber for RetryWarnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == RETRY_TARGET && *metadata.level() <= Level::DEBUG
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let value = |name: &str| {
            let found = fields.values.iter().find(|(key, _)| *key == name);
            found.map_or("", |(_, value)| value.as_str())
        };
        // Why the time was up says more than that it was.
        let error = match (value("error"), value("cause")) {
            (error, "") => error.to_owned(),
            (error, cause) => format!("{error}: {cause}"),
        };
        let text = line(
            "warn",
            &[("logger", "etcd-client"), ("caller", "client/call.rs")],
            "retrying of unary invoker failed",
            &[
                ("target", Value::Text(&self.target)),
                ("method", Value::Text(value("method"))),
                (
                    "attempt",
                    Value::Number(value("attempt").parse().unwrap_or(0)),
                ),
                ("error", Value::Text(&error)),
            ],
        );
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn timestamps_are_civil() {
        let at =
            |seconds: u64| timestamp(UNIX_EPOCH + Duration::from_micros(seconds * 1_000_000 + 7));
        assert_eq!(at(0), "1970-01-01T00:00:00.000007Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59.000007Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000007Z");
        assert_eq!(at(1_767_225_599), "2025-12-31T23:59:59.000007Z");
    }

    #[test]
    fn lines_are_json() {
        let text = line(
            "warn",
            &[("logger", "x")],
            "say \"hi\"",
            &[("k", Value::Text("v")), ("n", Value::Number(3))],
        );
        let value: serde_json::Value = serde_json::from_str(&text).expect("valid");
        assert_eq!(value["level"], "warn");
        assert_eq!(value["msg"], "say \"hi\"");
        assert_eq!(value["k"], "v");
        assert_eq!(value["n"], 3);
    }
}
