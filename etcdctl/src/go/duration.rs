//! Durations as Go writes and reads them (`1m30s`, `903.138µs`), in nanoseconds.

use std::time::Duration;

use super::quote::quote;

const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a signed sequence of decimal numbers with units.
///
/// # Errors
///
/// The text of Go's `time.ParseDuration`.
pub(crate) fn parse(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", quote(text.as_bytes()));
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let (whole, after) = rest.split_at(digits(rest));
        let (fraction, after) = match after.strip_prefix('.') {
            Some(tail) => tail.split_at(digits(tail)),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let unit_end = after
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, tail) = after.split_at(unit_end);
        if unit.is_empty() {
            let text = quote(text.as_bytes());
            return Err(format!("time: missing unit in duration {text}"));
        }
        let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            let (unit, text) = (quote(unit.as_bytes()), quote(text.as_bytes()));
            return Err(format!("time: unknown unit {unit} in duration {text}"));
        };
        let scale = u128::from(*scale);
        let mut nanos = match whole {
            "" => 0,
            // More digits than any duration has.
            _ => whole.parse::<u128>().map_err(|_| invalid())?,
        }
        .checked_mul(scale)
        .ok_or_else(invalid)?;
        let mut unit_part = scale;
        for digit in fraction.bytes() {
            unit_part /= 10;
            nanos += u128::from(digit - b'0') * unit_part;
        }
        total = total.checked_add(nanos).ok_or_else(invalid)?;
        rest = tail;
    }
    let limit = i64::MAX as u128 + u128::from(negative);
    if total > limit {
        return Err(invalid());
    }
    let signed = if negative {
        -(total as i128)
    } else {
        total as i128
    };
    i64::try_from(signed).map_err(|_| invalid())
}

/// The shortest exact spelling: `0s`, `1.5µs`, `2m0s`.
pub(crate) fn format(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < 1_000_000_000 {
        let (unit, digits) = match nanos {
            ..1_000 => ("ns", 0),
            1_000..1_000_000 => ("µs", 3),
            _ => ("ms", 6),
        };
        return format!("{sign}{}{unit}", decimal(nanos, digits));
    }
    let seconds = nanos / 1_000_000_000;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let in_minute = decimal(nanos % 60_000_000_000, 9);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{in_minute}s"),
        (0, _) => format!("{sign}{minutes}m{in_minute}s"),
        _ => format!("{sign}{hours}h{minutes}m{in_minute}s"),
    }
}

/// A measured time, as [`format()`] spells it.
pub(crate) fn format_elapsed(elapsed: Duration) -> String {
    format(i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX))
}

/// `value` / 10^`digits`, without trailing zeros.
fn decimal(value: u64, digits: u32) -> String {
    let unit = 10u64.pow(digits);
    let (whole, fraction) = (value / unit, value % unit);
    if fraction == 0 {
        return whole.to_string();
    }
    let fraction = format!("{fraction:0width$}", width = digits as usize);
    format!("{whole}.{}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_reads() {
        for (text, nanos) in [
            ("0", 0),
            ("5s", 5_000_000_000),
            ("1m30s", 90_000_000_000),
            ("-1.5h", -5_400_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("1h1m1s1ms1us1ns", 3_661_001_001_001),
            ("2µs", 2_000),
            ("-9223372036854775808ns", i64::MIN),
        ] {
            assert_eq!(parse(text), Ok(nanos), "{text}");
        }
    }

    #[test]
    fn refuses_in_the_words_of_go() {
        for (text, error) in [
            ("5", "time: missing unit in duration \"5\""),
            ("", "time: invalid duration \"\""),
            ("x", "time: invalid duration \"x\""),
            (".s", "time: invalid duration \".s\""),
            ("5x", "time: unknown unit \"x\" in duration \"5x\""),
            (
                "9223372036854775808ns",
                "time: invalid duration \"9223372036854775808ns\"",
            ),
        ] {
            assert_eq!(parse(text), Err(error.to_owned()), "{text}");
        }
    }

    #[test]
    fn prints_what_go_prints() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (903_138, "903.138µs"),
            (1_061_334, "1.061334ms"),
            (2_000_000_000, "2s"),
            (5_000_100_000, "5.0001s"),
            (60_000_000_000, "1m0s"),
            (3_661_500_000_000, "1h1m1.5s"),
            (-1_500, "-1.5µs"),
        ] {
            assert_eq!(format(nanos), text);
        }
    }
}
