//! `migrate`: `--from-etcd` makes a member of a new cluster from the data directory of an etcd that does
//! not run; otherwise the storage schema of a member changes ([`migrate_schema`]).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferrite_disk::{Disk, OverlayDisk, RealDisk};
use ferrite_storage::etcd::{self, Database};
use ferrite_storage::page::Options;

use super::migrate_schema;
use super::progress::Progress;
use super::snapshot_restore::tell_members;
use crate::cli::Matches;
use crate::data_dir::{stat, unused};
use crate::failure::{Exit, Failure};
use crate::log;
use crate::new_cluster::NewCluster;
use crate::new_member::NewMember;
use crate::render::quote;

const PLACE: &str = "commands/migrate.rs";

pub(crate) fn run(matches: &Matches) -> Result<(), Failure> {
    let given = |flag: &&str| matches.path(flag).is_some();
    let Some(from) = matches.path("from-etcd") else {
        let required = ["data-dir", "target-version"].iter();
        let missing: Vec<String> = required
            .filter(|flag| !given(flag))
            .map(|flag| format!("\"{flag}\""))
            .collect();
        if !missing.is_empty() {
            let message = format!("required flag(s) {} not set", missing.join(", "));
            return Err(Failure::new(message));
        }
        return migrate_schema::run(matches);
    };
    if given(&"target-version") {
        let message = "--from-etcd and --target-version do not go together";
        return Err(Failure::with_code(Exit::BadArgs, message));
    }
    let cluster = NewCluster::of(matches)?;
    let (db, wal) = places(&from, matches);
    stat(&db)?;
    let _lock = unused(&db, matches)?;
    let file = RealDisk::open_read_only(&db)
        .map_err(|error| Failure::new(format!("open {}: {error}", db.display())))?;
    let database = Database::open(file).map_err(Failure::new)?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let member = NewMember::begin(&disk, &cluster)?;
    let quoted = |path: &Path| quote(path.as_os_str().as_encoded_bytes());
    let fields = format!(
        "{{\"from\": {}, \"data-dir\": {}}}",
        quoted(&from),
        quoted(&cluster.data_dir)
    );
    log::info(PLACE, "migrating from etcd", &fields);
    let read_only: Arc<dyn Disk> = Arc::new(OverlayDisk::new(Arc::clone(&disk)));
    let mut progress = Progress::new();
    let migrated = etcd::migrate(
        &database,
        (&read_only, &wal),
        &disk,
        &member.page_path(),
        Options::default(),
        &cluster.founding,
        &mut |done, all| progress.tell("migrating", done, all),
    );
    drop(progress);
    let migrated = migrated.map_err(Failure::new)?;
    tell_members(&cluster, matches);
    member.finish()?;
    let fields = format!(
        "{{\"from\": {}, \"data-dir\": {}, \"consistent-index\": {}, \"entries\": {}, \"term\": {}, \
         \"not-known-to-be-committed\": {}, \"revision\": {}}}",
        quoted(&from),
        quoted(&cluster.data_dir),
        migrated.consistent_index,
        migrated.entries,
        migrated.term,
        migrated.uncommitted,
        migrated.revision,
    );
    log::info(PLACE, "migrated from etcd", &fields);
    Ok(())
}

/// The database and the log of a data directory.
fn places(from: &Path, matches: &Matches) -> (PathBuf, PathBuf) {
    let member = from.join("member");
    let wal = matches.path("from-wal-dir");
    (
        member.join("snap").join("db"),
        wal.unwrap_or_else(|| member.join("wal")),
    )
}
