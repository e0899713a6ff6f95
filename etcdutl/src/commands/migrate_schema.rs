//! `migrate --target-version`: the storage schema of a member that does not run, a step at a time, each
//! of which is one transaction of its page file.

use bytes::Bytes;
use ferrite_api::Version;
use ferrite_raft::EntryKind;
use ferrite_raft::log::{self as raft_log, Logged};
use ferrite_storage::page::{Meta, Options, PageFile};
use ferrite_storage::schema;

use crate::cli::Matches;
use crate::data_dir::DataDir;
use crate::failure::{Exit, Failure};
use crate::log;
use crate::render::quote;

const PLACE: &str = "commands/migrate_schema.rs";

pub(super) fn run(matches: &Matches) -> Result<(), Failure> {
    let target = target(&matches.text("target-version", ""))
        .map_err(|message| Failure::with_code(Exit::BadArgs, message))?;
    let dir = DataDir::open(matches)?;
    let meta = PageFile::open(&dir.read_only(), &dir.db, Options::default())
        .map_err(Failure::new)?
        .meta();
    let current = schema::detect(&meta).map_err(|error| {
        log::error(
            PLACE,
            "failed to detect storage version. Please make sure you are using data dir from etcd v3.5 \
             and older",
            "{}",
        );
        Failure::new(error)
    })?;
    if current == target {
        log::info(PLACE, "storage version up-to-date", &version(target));
        return Ok(());
    }
    let needed = log_version(&dir, &meta).map_err(|error| {
        let error = format!("failed to read wal: {error}");
        let fields = format!("{{\"error\": {}}}", quote(error.as_bytes()));
        log::error(PLACE, "Failed to finalize config", &fields);
        Failure::new(error)
    })?;
    let page = PageFile::open(&dir.disk, &dir.db, Options::default()).map_err(Failure::new)?;
    let newest = Version::RELEASE.level();
    match schema::plan_for(&meta, target, newest, needed) {
        Ok(steps) => {
            for step in &steps {
                schema::migrate(&page, step).map_err(Failure::new)?;
                let fields = format!("{{\"new-storage-version\": \"{}\"}}", step.target());
                log::info(PLACE, "updated storage version", &fields);
            }
            Ok(())
        }
        Err(error) => {
            let error = error.explained();
            if !matches.switch("force") {
                return Err(Failure::new(error));
            }
            let fields = format!("{{\"error\": {}}}", quote(error.as_bytes()));
            log::info(PLACE, "normal migrate failed, trying with force", &fields);
            schema::force(&page, target).map_err(Failure::new)?;
            match target >= schema::SAYS_ITSELF {
                true => log::warn(PLACE, "forcefully set storage version", &version(target)),
                false => log::warn(PLACE, "forcefully cleared storage version", "{}"),
            }
            Ok(())
        }
    }
}

fn version(version: Version) -> String {
    format!("{{\"storage-version\": \"{}\"}}", version.short())
}

/// The version that `X.Y` is; otherwise etcd's message.
fn target(text: &str) -> Result<Version, String> {
    let parts: Vec<&str> = text.split('.').collect();
    if parts.len() != 2 {
        let given = quote(text.as_bytes());
        return Err(format!(
            "wrong target version format, expected \"X.Y\", got {given}"
        ));
    }
    let Some(version) = Version::parse(&format!("{text}.0")) else {
        let is_number = |part: &&&str| Version::parse(&format!("{part}.0.0")).is_some();
        let wrong = parts.iter().find(|part| !is_number(part));
        let wrong = quote(wrong.unwrap_or(&text).as_bytes());
        return Err(format!(
            "failed to parse target version: strconv.ParseInt: parsing {wrong}: invalid syntax"
        ));
    };
    match version < schema::OLDEST {
        true => Err(format!(
            "target version {} not supported. Minimal {}",
            quote(version.short().as_bytes()),
            quote(schema::OLDEST.short().as_bytes())
        )),
        false => Ok(version),
    }
}

/// What is needed to apply what the log has and the page file has not.
fn log_version(dir: &DataDir, meta: &Meta) -> Result<Option<Version>, ferrite_raft::Error> {
    // A later entry takes the place of those from its index on.
    let mut needed: Vec<(u64, Option<Version>)> = Vec::new();
    raft_log::recover_watched(
        dir.read_only(),
        &dir.wal,
        &raft_log::Options::default(),
        &mut |_, logged| match logged {
            Logged::Entry {
                index, kind, data, ..
            } => {
                let behind = needed.partition_point(|(before, _)| *before < index);
                needed.truncate(behind);
                if index > meta.consistent_index {
                    needed.push((index, entry_version(&kind, data)));
                }
            }
            Logged::Snapshot(_) => needed.clear(),
            Logged::Metadata(_) | Logged::HardState(_) | Logged::Truncated(_) => {}
        },
    )?;
    Ok(needed.into_iter().filter_map(|(_, version)| version).max())
}

fn entry_version(kind: &EntryKind, data: Bytes) -> Option<Version> {
    let request = match kind {
        EntryKind::Normal => Some(data),
        EntryKind::ConfChange(_) => None,
    };
    schema::log::version_of([request].into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        assert_eq!(target("3.6"), Ok(Version::new(3, 6, 0)));
        assert_eq!(target("3.10"), Ok(Version::new(3, 10, 0)));
        for (text, message) in [
            (
                "",
                "wrong target version format, expected \"X.Y\", got \"\"",
            ),
            (
                "3.6.0",
                "wrong target version format, expected \"X.Y\", got \"3.6.0\"",
            ),
            (
                "a.6",
                "failed to parse target version: strconv.ParseInt: parsing \"a\": invalid syntax",
            ),
            (
                "3.",
                "failed to parse target version: strconv.ParseInt: parsing \"\": invalid syntax",
            ),
            (
                "3.4",
                "target version \"3.4\" not supported. Minimal \"3.5\"",
            ),
        ] {
            assert_eq!(target(text), Err(message.to_owned()), "{text}");
        }
    }
}
