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
