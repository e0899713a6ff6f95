//! Go's textual forms, which etcd's flags, environment and log lines are made of: booleans, base-0
//! integers and durations.
//!
//! Parse errors carry the text that Go's `flag` package prints behind `invalid value`.

use std::fmt;
use std::time::Duration;

/// The reason for anything that is not of the expected form.
pub(super) const PARSE_ERROR: &str = "parse error";
/// The reason for a number that does not fit.
pub(super) const OUT_OF_RANGE: &str = "value out of range";

/// Go's `strconv.ParseBool`.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Go's `strconv.ParseUint(text, 0, 64)`: decimal, `0x`, `0o`, `0b`, a leading `0` for octal, and
/// `_` between digits. No sign.
pub(super) fn parse_uint(text: &str) -> Result<u64, &'static str> {
    let lower = text.to_ascii_lowercase();
    let (digits, radix) = match lower.as_bytes() {
        [b'0', b'x', ..] => (&lower[2..], 16),
        [b'0', b'o', ..] => (&lower[2..], 8),
        [b'0', b'b', ..] => (&lower[2..], 2),
        [b'0', _, ..] => (&lower[1..], 8),
        _ => (lower.as_str(), 10),
    };
    // An underscore stands between digits or between the prefix and a digit.
    let prefixed = digits.len() != lower.len();
    let misplaced =
        digits.ends_with('_') || digits.contains("__") || (digits.starts_with('_') && !prefixed);
    let digits: String = digits.chars().filter(|c| *c != '_').collect();
    if misplaced || digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(PARSE_ERROR);
    }
    u64::from_str_radix(&digits, radix).map_err(|_| OUT_OF_RANGE)
}

/// Go's `strconv.ParseInt(text, 0, 64)`.
pub(super) fn parse_int(text: &str) -> Result<i64, &'static str> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let magnitude = i128::from(parse_uint(digits)?);
    i64::try_from(if negative { -magnitude } else { magnitude }).map_err(|_| OUT_OF_RANGE)
}

/// A span of time as Go has it: signed nanoseconds. Prints in Go's form (`1h0m0s`, `1.5s`, `0s`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(i64);

impl GoDuration {
    /// From nanoseconds, the form of durations in configuration files.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Signed nanoseconds.
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// The same as an unsigned duration; negative becomes zero.
    pub fn clamped(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }

    /// Go's `time.ParseDuration`: `100ms`, `1h30m`, `-1.5s`, `0`.
    ///
    /// # Errors
    /// The text of Go's error, e.g. `time: missing unit in duration "5"`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let invalid = || format!("time: invalid duration {text:?}");
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(Self(0));
        }
        if rest.is_empty() {
            return Err(invalid());
        }
        // Exact: up to 2^63 ns times 10^18 of fraction scale stays below 2^127.
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let (whole, after_whole) = split_digits(rest);
            let (fraction, after_number) = match after_whole.strip_prefix('.') {
                Some(behind_point) => split_digits(behind_point),
                None => ("", after_whole),
            };
            if whole.is_empty() && fraction.is_empty() {
                return Err(invalid());
            }
            let unit_end = after_number
                .find(|c: char| c == '.' || c.is_ascii_digit())
                .unwrap_or(after_number.len());
            let (unit, behind_unit) = after_number.split_at(unit_end);
            if unit.is_empty() {
                return Err(format!("time: missing unit in duration {text:?}"));
            }
            let scale: i128 = match unit {
                "ns" => 1,
                "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
                "ms" => 1_000_000,
                "s" => 1_000_000_000,
                "m" => 60_000_000_000,
                "h" => 3_600_000_000_000,
                _ => {
                    return Err(format!("time: unknown unit {unit:?} in duration {text:?}"));
                }
            };
            let whole: i128 = match whole {
                "" => 0,
                digits => i128::from(digits.parse::<u64>().map_err(|_| invalid())?),
            };
            // Digits beyond the 18th are far below a nanosecond.
            let fraction = &fraction[..fraction.len().min(18)];
            let part: i128 = match fraction {
                "" => 0,
                digits => {
                    let ten_to = 10_i128.pow(u32::try_from(digits.len()).unwrap_or(18));
                    i128::from(digits.parse::<u64>().map_err(|_| invalid())?) * scale / ten_to
                }
            };
            total += whole * scale + part;
            if total > i128::from(i64::MAX) + 1 {
                return Err(invalid());
            }
            rest = behind_unit;
        }
        i64::try_from(if negative { -total } else { total })
            .map(Self)
            .map_err(|_| invalid())
    }
}

impl From<Duration> for GoDuration {
    fn from(duration: Duration) -> Self {
        Self(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        if nanos == 0 {
            return f.write_str("0s");
        }
        if self.0 < 0 {
            f.write_str("-")?;
        }
        match nanos {
            0..1_000 => write!(f, "{nanos}ns"),
            1_000..1_000_000 => write!(f, "{}\u{b5}s", decimal(nanos, 1_000)),
            1_000_000..1_000_000_000 => write!(f, "{}ms", decimal(nanos, 1_000_000)),
            _ => {
                const MINUTE: u64 = 60_000_000_000;
                let (minutes, seconds) = (nanos / MINUTE, nanos % MINUTE);
                if minutes >= 60 {
                    write!(f, "{}h", minutes / 60)?;
                }
                if minutes > 0 {
                    write!(f, "{}m", minutes % 60)?;
                }
                write!(f, "{}s", decimal(seconds, 1_000_000_000))
            }
        }
    }
}

/// `value / unit` with as many decimals as it takes.
fn decimal(value: u64, unit: u64) -> String {
    let (whole, part) = (value / unit, value % unit);
    if part == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    let digits = format!("{part:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

/// Leading ASCII digits and what follows.
fn split_digits(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_base_0() {
        for (text, expected) in [
            ("10", Ok(10)),
            ("0", Ok(0)),
            ("0x10", Ok(16)),
            ("0X_1f", Ok(31)),
            ("0o17", Ok(15)),
            ("017", Ok(15)),
            ("0b101", Ok(5)),
            ("1_000", Ok(1000)),
            ("18446744073709551615", Ok(u64::MAX)),
            ("18446744073709551616", Err(OUT_OF_RANGE)),
            ("", Err(PARSE_ERROR)),
            ("_1", Err(PARSE_ERROR)),
            ("1_", Err(PARSE_ERROR)),
            ("1__0", Err(PARSE_ERROR)),
            ("0x", Err(PARSE_ERROR)),
            ("08", Err(PARSE_ERROR)),
            ("-1", Err(PARSE_ERROR)),
            ("+1", Err(PARSE_ERROR)),
            ("1.5", Err(PARSE_ERROR)),
            ("ten", Err(PARSE_ERROR)),
        ] {
            assert_eq!(parse_uint(text), expected, "{text:?}");
        }
        assert_eq!(parse_int("-0x10"), Ok(-16));
        assert_eq!(parse_int("+7"), Ok(7));
        assert_eq!(parse_int("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(parse_int("9223372036854775808"), Err(OUT_OF_RANGE));
        assert_eq!(parse_int("--1"), Err(PARSE_ERROR));
    }

    #[test]
    fn booleans_are_gos() {
        for text in ["1", "t", "T", "true", "TRUE", "True"] {
            assert_eq!(parse_bool(text), Some(true));
        }
        for text in ["0", "f", "F", "false", "FALSE", "False"] {
            assert_eq!(parse_bool(text), Some(false));
        }
        for text in ["", "yes", "on", "tRUE", "2"] {
            assert_eq!(parse_bool(text), None);
        }
    }

    #[test]
    fn durations_parse_and_print_as_in_go() {
        for (text, nanos, printed) in [
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("100ms", 100_000_000, "100ms"),
            ("1.5s", 1_500_000_000, "1.5s"),
            (".5s", 500_000_000, "500ms"),
            ("1.s", 1_000_000_000, "1s"),
            ("1h30m", 5_400_000_000_000, "1h30m0s"),
            ("90s", 90_000_000_000, "1m30s"),
            ("2h", 7_200_000_000_000, "2h0m0s"),
            ("-1s", -1_000_000_000, "-1s"),
            ("+3us", 3_000, "3\u{b5}s"),
            ("3\u{3bc}s", 3_000, "3\u{b5}s"),
            ("1500ns", 1_500, "1.5\u{b5}s"),
            ("999ns", 999, "999ns"),
            ("1m0.25s", 60_250_000_000, "1m0.25s"),
            (
                "9223372036854775807ns",
                i64::MAX,
                "2562047h47m16.854775807s",
            ),
        ] {
            let parsed = GoDuration::parse(text).unwrap();
            assert_eq!(parsed.nanos(), nanos, "{text}");
            assert_eq!(parsed.to_string(), printed, "{text}");
        }
        for (text, error) in [
            ("", "time: invalid duration \"\""),
            ("-", "time: invalid duration \"-\""),
            ("5", "time: missing unit in duration \"5\""),
            ("1d", "time: unknown unit \"d\" in duration \"1d\""),
            (".s", "time: invalid duration \".s\""),
            ("ms", "time: invalid duration \"ms\""),
            ("1h-3m", "time: unknown unit \"h-\" in duration \"1h-3m\""),
            (
                "9223372036854775808ns",
                "time: invalid duration \"9223372036854775808ns\"",
            ),
            (
                "99999999999999999999s",
                "time: invalid duration \"99999999999999999999s\"",
            ),
        ] {
            assert_eq!(GoDuration::parse(text).unwrap_err(), error);
        }
    }
}
