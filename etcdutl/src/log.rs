//! Lines on stderr in the form of etcd's tools.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::failure::to_stderr;

/// A line: time, level, place, message, fields, which are JSON.
pub(crate) fn info(place: &str, message: &str, fields: &str) {
    line("info", place, message, fields);
}

/// The same, of another level.
pub(crate) fn warn(place: &str, message: &str, fields: &str) {
    line("warn", place, message, fields);
}

/// The same, of another level.
pub(crate) fn error(place: &str, message: &str, fields: &str) {
    line("error", place, message, fields);
}

fn line(level: &str, place: &str, message: &str, fields: &str) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let now = timestamp(now);
    to_stderr(&format!("{now}\t{level}\t{place}\t{message}\t{fields}\n"));
}

/// Seconds since 1970 as `2026-06-02T07:01:41Z`.
fn timestamp(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Days since 1 March of the year 0, in 400-year cycles: the leap day is the last of a year.
    let days = days + 719_468;
    let (cycle, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = match month {
        0..10 => (month + 3, 0),
        _ => (month - 9, 1),
    };
    format!(
        "{:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        cycle * 400 + year + next_year,
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_follow_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_780_383_701, "2026-06-02T07:01:41Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(timestamp(seconds), text);
        }
    }
}
