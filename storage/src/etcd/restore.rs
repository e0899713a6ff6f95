//! A page file from a database of etcd's, for a member of a new cluster.
//!
//! Kept are the rows of the key space with their revisions, the compactions, the leases, users, roles
//! and alarms. The members are those of the new cluster, which also decides its version anew.

use std::path::Path;
use std::sync::Arc;

use ferrite_api::Version;
use ferrite_disk::Disk;

use super::Error;
use super::database::{Database, Progress, Row};
use super::layout;
use crate::mvcc::decode_record;
use crate::page::{Filling, Initial, MetaUpdate, Options, PageFile, RowWrite, Table, TableWrite};

/// The tables that are taken over.
const KEPT: [Table; 5] = [
    Table::Leases,
    Table::Auth,
    Table::AuthUsers,
    Table::AuthRoles,
    Table::Alarms,
];

/// How the revision of the new store is to be above the old one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bump {
    /// So much is added to the revision of the last row, and everything before that is compacted; 0
    /// for none of it.
    pub revisions: u64,
}

/// Fills a new page file at `path`, which is durable then.
///
/// # Errors
/// The database is damaged or from a newer etcd, or the page file cannot be written; an unfinished
/// one may be left.
pub fn restore(
    database: &Database,
    disk: &Arc<dyn Disk>,
    path: &Path,
    options: Options,
    founding: &Initial,
    bump: Bump,
    progress: &mut Progress<'_>,
) -> Result<PageFile, Error> {
    let meta = database.meta()?;
    check_version(&meta.storage_version)?;
    let mut filling =
        Filling::create(disk, path, options, founding.cluster_id, founding.member_id)?;
    for write in &founding.tables {
        if let TableWrite::Put { table, key, value } = write {
            filling.small_row(*table, key.clone(), value.clone())?;
        }
    }
    let (mut done, all) = (0, database.len());
    for table in KEPT {
        for pair in database.pairs(layout::bucket(table))? {
            let (key, value) = pair?;
            done += (key.len() + value.len()) as u64;
            progress(done, all);
            // They are slices of a page that is not to stay in memory.
            filling.small_row(table, copied(&key), copied(&value))?;
        }
    }
    // A new store is at 1.
    let mut newest = 1.max(meta.scheduled_compact).max(meta.finished_compact);
    for row in database.rows()? {
        let row = row?;
        check(&row)?;
        newest = newest.max(row.revision.main);
        done += row.record.len() as u64;
        progress(done, all);
        filling.row(RowWrite {
            revision: row.revision,
            tombstone: row.tombstone,
            record: copied(&row.record),
        })?;
    }
    let mut scheduled = meta.scheduled_compact.max(meta.finished_compact);
    if bump.revisions > 0 {
        newest = i64::try_from(bump.revisions)
            .ok()
            .and_then(|bump| newest.checked_add(bump))
            .ok_or_else(|| {
                let what = format!("revision {newest} cannot be raised by {}", bump.revisions);
                Error::bucket(layout::KEY, what)
            })?;
        scheduled = newest;
    }
    let page = filling.finish(MetaUpdate {
        revision: Some(newest),
        scheduled_compact: Some(scheduled),
        finished_compact: Some(meta.finished_compact),
        ..founding.meta.clone()
    })?;
    Ok(page)
}

fn copied(bytes: &[u8]) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(bytes)
}

/// There is no checksum over rows in etcd's file. What is in one must at least fit its key.
fn check(row: &Row) -> Result<(), Error> {
    let pair = decode_record(row.revision, &row.record)?;
    // `etcdutl snapshot restore --bump-revision` of etcd's leaves an empty record.
    if row.tombstone || row.record.is_empty() || pair.mod_revision == row.revision.main {
        return Ok(());
    }
    let what = format!(
        "the row of revision {} holds one of revision {}",
        row.revision, pair.mod_revision
    );
    Err(Error::bucket(layout::KEY, what))
}

/// Refuses what was written by a later etcd, which may mean what this program does not know.
fn check_version(version: &str) -> Result<(), Error> {
    let level = Version::parse(version).map(Version::level);
    // 3.4 and 3.5 do not say what they are.
    match version.is_empty() || level.is_some_and(|level| level <= Version::RELEASE.level()) {
        true => Ok(()),
        false => Err(Error::Newer(version.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_versions_are_refused() {
        for version in ["", "3.6.0", "3.7.0", "3.7.9", "2.9.0"] {
            check_version(version).unwrap();
        }
        for version in ["3.8.0", "4.0.0", "3.10.0", "next"] {
            assert!(check_version(version).is_err(), "{version}");
        }
    }
}
