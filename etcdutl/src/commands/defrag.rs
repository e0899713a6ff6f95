//! `defrag`: the page file rebuilt from its rows, in less space.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ferrite_storage::page::{self, Options, Sizes};

use super::progress::Progress;
use crate::cli::Matches;
use crate::data_dir::DataDir;
use crate::failure::{Failure, to_stderr};
use crate::render::{bytes, quote};

pub(crate) fn run(matches: &Matches) -> Result<(), Failure> {
    let data_dir = matches.path("data-dir").unwrap_or_default();
    let failed = |why: String| {
        Failure::new(format!(
            "Failed to defragment etcd data[{}] ({why})",
            data_dir.display()
        ))
    };
    let dir = DataDir::open(matches).map_err(|failure| match failure {
        Failure::Exit { message, .. } => failed(message),
        other => other,
    })?;
    let path = quote(dir.db.as_os_str().as_encoded_bytes());
    let before = page::PageFile::open(&dir.read_only(), &dir.db, Options::default())
        .map_err(|error| failed(error.to_string()))?
        .sizes();
    log(
        "defragmenting",
        &format!("{{\"path\": {path}, {}}}", sizes(&before)),
    );
    let began = Instant::now();
    let mut progress = Progress::new();
    let rebuilt = page::rebuild(&dir.disk, &dir.db, &Options::default(), &mut |done, all| {
        progress.tell("defragmenting", done, all);
    });
    drop(progress);
    let after = rebuilt.map_err(|error| failed(error.to_string()))?.after;
    let diff = |now: u64, then: u64| now.cast_signed().wrapping_sub(then.cast_signed());
    log(
        "finished defragmenting directory",
        &format!(
            "{{\"path\": {path}, \"current-db-size-bytes-diff\": {}, {}, \
             \"current-db-size-in-use-bytes-diff\": {}, \"took\": \"{:?}\"}}",
            diff(after.allocated, before.allocated),
            sizes(&after),
            diff(after.in_use, before.in_use),
            began.elapsed()
        ),
    );
    Ok(())
}

fn sizes(sizes: &Sizes) -> String {
    format!(
        "\"current-db-size-bytes\": {}, \"current-db-size\": \"{}\", \
         \"current-db-size-in-use-bytes\": {}, \"current-db-size-in-use\": \"{}\"",
        sizes.allocated,
        bytes(sizes.allocated),
        sizes.in_use,
        bytes(sizes.in_use)
    )
}

/// A line on stderr in the form of etcd's tools: time, level, place, message, fields.
fn log(message: &str, fields: &str) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let now = timestamp(now);
    to_stderr(&format!(
        "{now}\tinfo\tcommands/defrag.rs\t{message}\t{fields}\n"
    ));
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
