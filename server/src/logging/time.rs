//! Timestamps in UTC, without a calendar library.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `2006-01-02T15:04:05.000000Z`. Times before 1970 print as its beginning.
pub(super) fn format(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:06}Z", to_the_second(since), since.subsec_micros())
}

/// Go's RFC3339Nano: like [`format`], with nanoseconds less trailing zeros.
pub(crate) fn rfc3339_nanos(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = format!("{}.{:09}", to_the_second(since), since.subsec_nanos());
    format!("{}Z", nanos.trim_end_matches('0').trim_end_matches('.'))
}

/// The same to the millisecond, always with three digits.
pub(super) fn rfc3339_millis(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:03}Z", to_the_second(since), since.subsec_millis())
}

/// The time that [`rfc3339_nanos`] or another program has printed, with any offset; `None` if it is
/// none, or before 1970.
pub(crate) fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    let number = |from: usize, to: usize| -> Option<u64> {
        let digits = text.get(from..to)?;
        let digits = Some(digits).filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        digits?.parse().ok()
    };
    let separators = [(4, "-"), (7, "-"), (10, "T"), (13, ":"), (16, ":")];
    if separators
        .iter()
        .any(|(at, mark)| text.get(*at..at + 1) != Some(mark))
    {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let in_range = (1..=12).contains(&month) && (1..=31).contains(&day);
    if !in_range || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let rest = text.get(19..)?;
    let digits = rest.strip_prefix('.').map_or(0, |fraction| {
        fraction.bytes().take_while(u8::is_ascii_digit).count()
    });
    let zone_at = 19 + if digits > 0 { 1 + digits } else { 0 };
    let nanos = match digits.min(9) {
        0 => 0,
        kept => number(20, 20 + kept)? * 10_u64.pow(9 - u32::try_from(kept).ok()?),
    };
    let ahead = match text.get(zone_at..)? {
        "Z" => 0,
        zone if zone.len() == 6 && zone.get(3..4) == Some(":") => {
            let hours = number(zone_at + 1, zone_at + 3)?;
            let minutes = number(zone_at + 4, zone_at + 6)?;
            let seconds = i64::try_from(hours * 3600 + minutes * 60).ok()?;
            match zone.get(..1)? {
                "+" => seconds,
                "-" => -seconds,
                _ => return None,
            }
        }
        _ => return None,
    };
    let of_day = hour * 3600 + minute * 60 + second;
    let seconds = days(year, month, day)?.checked_mul(86_400)? + of_day;
    let seconds = seconds.checked_add_signed(-ahead)?;
    let nanos = u32::try_from(nanos).ok()?;
    UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
}

/// The opposite of [`civil`].
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = year.checked_sub(u64::from(month <= 2))?;
    let (era, year_of_era) = (year / 400, year % 400);
    let shifted_month = (month + 9) % 12; // 0 is March
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + of_era).checked_sub(719_468)
}

fn to_the_second(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    let of_day = seconds % 86_400;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}

/// Year, month and day of a day since 1970-01-01, in the Gregorian calendar. Years begin in March
/// here, so that the leap day is the last day of a year: see Howard Hinnant's `civil_from_days`.
fn civil(day: u64) -> (u64, u64, u64) {
    let day = day + 719_468; // since 0000-03-01
    let era = day / 146_097; // of 400 years
    let of_era = day % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153; // 0 is March
    let day_of_month = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_can_be_read() {
        for days in (0..80_000).step_by(13) {
            for nanos in [0, 1, 999_999_999, 120_000_000] {
                let at = UNIX_EPOCH + Duration::new(days * 86_400 + days % 86_400, nanos);
                assert_eq!(parse_rfc3339(&rfc3339_nanos(at)), Some(at));
            }
        }
    }

    #[test]
    fn times_of_others() {
        let at = |seconds, nanos| Some(UNIX_EPOCH + Duration::new(seconds, nanos));
        for (text, expected) in [
            ("2023-11-14T22:13:20Z", at(1_700_000_000, 0)),
            (
                "2023-11-15T00:13:20.5+02:00",
                at(1_700_000_000, 500_000_000),
            ),
            ("2023-11-14T16:43:20-05:30", at(1_700_000_000, 0)),
            (
                "2023-11-14T22:13:20.1234567891Z",
                at(1_700_000_000, 123_456_789),
            ),
            ("1969-12-31T23:59:59Z", None),
            ("2023-11-14T22:13:20", None),
            ("2023-13-14T22:13:20Z", None),
            ("2023-11-14T24:13:20Z", None),
            ("2023-11-14 22:13:20Z", None),
            ("2023-11-14T22:13:20.Z", None),
            ("2023-11-14T22:13:20+2:00", None),
            ("+023-11-14T22:13:20Z", None),
            ("2023-11-14T22:13:2ü", None),
            ("", None),
        ] {
            assert_eq!(parse_rfc3339(text), expected, "{text}");
        }
    }

    #[test]
    fn nanoseconds_as_go_prints_them() {
        for (nanos, expected) in [
            (0, "2023-11-14T22:13:20Z"),
            (1, "2023-11-14T22:13:20.000000001Z"),
            (120_000_000, "2023-11-14T22:13:20.12Z"),
        ] {
            let at = UNIX_EPOCH + Duration::new(1_700_000_000, nanos);
            assert_eq!(rfc3339_nanos(at), expected);
        }
    }

    #[test]
    fn known_times() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (951_868_799, "2000-02-29T23:59:59.000000Z"),
            (1_136_214_245, "2006-01-02T15:04:05.000000Z"),
            (1_709_164_800, "2024-02-29T00:00:00.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
            (1_767_225_599, "2025-12-31T23:59:59.000000Z"),
        ] {
            let at = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(format(at), expected);
        }
        let at = UNIX_EPOCH + Duration::from_nanos(1_500_000_123_456_789_000 / 1_000);
        assert!(format(at).ends_with(".123456Z"), "{}", format(at));
    }
}
