//! A page file from the data directory of an etcd that does not run: its database, and the entries of
//! its log that the database does not have yet.
//!
//! Every entry of the log counts. Those at its end may not be known to be committed here; but with a
//! commit index that is written now and then, the last that clients were told are safe may be among
//! them. (As with `--force-new-cluster`.)

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb::InternalRaftRequest;
use ferrite_disk::Disk;
use prost::Message;

use super::Error;
use super::database::{Database, Progress};
use super::restore::{Bump, restore};
use super::wal::{Entry, Log};
use crate::checkpoint::{Policy, Reason};
use crate::founding::FIRST;
use crate::page::{Initial, Options};
use crate::state::State;

/// What was found in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Migrated {
    /// The last entry that the database has.
    pub consistent_index: u64,
    /// Entries after that.
    pub entries: u64,
    /// The term of the last of them; that of the database if there is none.
    pub term: u64,
    /// How many of them are not known to be committed.
    pub uncommitted: u64,
    /// The revision of the new store.
    pub revision: i64,
}

/// Fills a new page file at `path`, which is durable then.
///
/// # Errors
/// As [`restore`]; also when the log is damaged, when it has a gap after the database, and when it has
/// a password that is not hashed, as the logs of etcd 3.4 have them.
pub fn migrate(
    database: &Database,
    log: (&Arc<dyn Disk>, &Path),
    disk: &Arc<dyn Disk>,
    path: &Path,
    options: Options,
    founding: &Initial,
    progress: &mut Progress<'_>,
) -> Result<Migrated, Error> {
    let meta = database.meta()?;
    let log = Log::open(log.0, log.1, meta.consistent_index)?;
    let bump = Bump::default();
    let page = restore(database, disk, path, options, founding, bump, progress)?;
    let mut migrated = Migrated {
        consistent_index: meta.consistent_index,
        entries: log.len(),
        term: meta.term,
        uncommitted: (meta.consistent_index + log.len())
            .saturating_sub(log.committed.max(meta.consistent_index)),
        revision: page.meta().revision,
    };
    if log.len() == 0 {
        return Ok(migrated);
    }
    let mut state = State::restore(Arc::new(page))?;
    for entry in log.entries() {
        let entry = entry?;
        migrated.term = entry.term;
        let index = state.applied().get() + 1;
        state.apply(index, FIRST, &request(&entry)?)?;
        checkpoint(&mut state, Reason::Changed)?;
    }
    while checkpoint(&mut state, Reason::Aged)? {}
    migrated.revision = state.store().revision();
    Ok(migrated)
}

/// Runs what is due.
fn checkpoint(state: &mut State, reason: Reason) -> Result<bool, Error> {
    if let Some(hash) = state.next_hash() {
        state.finish_hash(hash.run())?;
    }
    let Some(job) = state.next_job(&Policy::default(), reason) else {
        return Ok(false);
    };
    state.finish_job(job.run())?;
    state.prune_step(usize::MAX);
    Ok(true)
}

/// What of an entry is to be applied; nothing if it is about the members, or for etcd's second version.
fn request(entry: &Entry) -> Result<Bytes, Error> {
    let nothing = Ok(Bytes::new());
    if !entry.is_request || entry.data.is_empty() {
        return nothing;
    }
    let Ok(request) = InternalRaftRequest::decode(entry.data.clone()) else {
        return match is_v2(&entry.data) {
            true => nothing,
            false => Err(Error::Wal {
                what: format!("entry {} does not decode", entry.index),
            }),
        };
    };
    match request.changes_data() || request.changes_auth() {
        true => Ok(entry.data.clone()),
        false => nothing,
    }
}

/// What an entry asks for.
trait Asks {
    /// Keys, leases, alarms.
    fn changes_data(&self) -> bool;
    /// Users, roles.
    fn changes_auth(&self) -> bool;
}

impl Asks for InternalRaftRequest {
    fn changes_data(&self) -> bool {
        self.put.is_some()
            || self.delete_range.is_some()
            || self.txn.is_some()
            || self.compaction.is_some()
            || self.lease_grant.is_some()
            || self.lease_revoke.is_some()
            || self.lease_checkpoint.is_some()
            || self.alarm.is_some()
    }

    fn changes_auth(&self) -> bool {
        self.auth_enable.is_some()
            || self.auth_disable.is_some()
            || self.auth_user_add.is_some()
            || self.auth_user_delete.is_some()
            || self.auth_user_change_password.is_some()
            || self.auth_user_grant_role.is_some()
            || self.auth_user_revoke_role.is_some()
            || self.auth_role_add.is_some()
            || self.auth_role_delete.is_some()
            || self.auth_role_grant_permission.is_some()
            || self.auth_role_revoke_permission.is_some()
    }
}

/// A request of etcd's second version. Servers up to 3.4 publish their names so.
#[derive(Clone, PartialEq, prost::Message)]
struct V2Request {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    method: String,
    #[prost(string, tag = "3")]
    path: String,
}

fn is_v2(data: &Bytes) -> bool {
    const METHODS: [&str; 5] = ["PUT", "POST", "DELETE", "QGET", "SYNC"];
    let request = V2Request::decode(data.clone());
    request.is_ok_and(|request| METHODS.contains(&request.method.as_str()))
}

#[cfg(test)]
mod tests {
    use super::super::wal::made::{DIR, Maker};
    use super::*;
    use crate::page::PageFile;

    fn entry(data: impl Into<Bytes>) -> Entry {
        Entry {
            index: 7,
            term: 2,
            is_request: true,
            data: data.into(),
        }
    }

    #[test]
    fn what_is_applied_is_about_data() {
        let alarm = InternalRaftRequest {
            alarm: Some(Default::default()),
            ..Default::default()
        };
        let alarm = entry(alarm.encode_to_vec());
        assert_eq!(request(&alarm).unwrap(), alarm.data);
        let change = Entry {
            is_request: false,
            ..alarm
        };
        let attributes = InternalRaftRequest {
            cluster_member_attr_set: Some(Default::default()),
            authenticate: Some(Default::default()),
            ..Default::default()
        };
        let v2 = V2Request {
            id: 5,
            method: "PUT".to_owned(),
            path: "/0/members/8e9e05c52164694d/attributes".to_owned(),
        };
        for nothing in [
            change,
            entry(Bytes::new()),
            entry(attributes.encode_to_vec()),
            entry(v2.encode_to_vec()),
        ] {
            assert_eq!(request(&nothing).unwrap(), Bytes::new());
        }
        let user = InternalRaftRequest {
            auth_user_add: Some(Default::default()),
            ..Default::default()
        };
        let user = entry(user.encode_to_vec());
        assert_eq!(request(&user).unwrap(), user.data);
        assert!(request(&entry(Bytes::from_static(b"\xff"))).is_err());
    }

    const FILE: &str = "/data/db";

    fn put(key: &str, value: &str) -> Bytes {
        let put = ferrite_api::pb::etcdserverpb::PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..Default::default()
        };
        let request = InternalRaftRequest {
            put: Some(put),
            ..Default::default()
        };
        request.encode_to_vec().into()
    }

    fn disk() -> Arc<dyn Disk> {
        let disk = ferrite_disk::sim::SimDisk::new(1);
        disk.create_dir(Path::new("/data")).unwrap();
        Arc::new(disk)
    }

    fn founding(name: &str) -> Initial {
        let urls = vec![format!("http://{name}")];
        crate::founding::found(name, &[(name.to_owned(), urls)].into(), "").unwrap()
    }

    /// A database that has the entries up to 4 of a log of 9.
    #[test]
    fn what_the_log_has_beyond_the_database_is_applied() {
        let disk = disk();
        let (path, old) = (Path::new(FILE), founding("old"));
        let page = PageFile::create(&disk, path, Options::default(), &old).unwrap();
        let mut state = State::restore(Arc::new(page)).unwrap();
        let mut log = Maker::default();
        log.segment(0);
        log.entry(1, 1, b"");
        let (mut database, mut revision) = (None, 0);
        for index in 2..=9 {
            let data = match index {
                6 => Bytes::new(),
                _ => put(&format!("k{}", index % 3), &index.to_string()),
            };
            log.entry(index, 1, &data);
            state.apply(index, 1, &data).unwrap();
            if index == 4 {
                let (mut backup, mut at) = (state.backup(), 0);
                let file = disk.create(Path::new("/data/etcd")).unwrap();
                while let Some(piece) = backup.next_piece().unwrap() {
                    file.write_at(&piece, at).unwrap();
                    at += piece.len() as u64;
                }
                database = Some(Database::open(file).unwrap());
                revision = backup.revision();
            }
        }
        log.record(3, b"\x08\x01\x10\x00\x18\x07");
        let (to, new) = (Path::new("/data/new"), founding("new"));
        let migrated = migrate(
            &database.unwrap(),
            (&log.disk(), Path::new(DIR)),
            &disk,
            to,
            Options::default(),
            &new,
            &mut |_, _| {},
        )
        .unwrap();
        let expected = Migrated {
            consistent_index: 4,
            entries: 5,
            term: 1,
            uncommitted: 2,
            revision: revision + 4,
        };
        assert_eq!(migrated, expected);
        // From the disk: nothing of it is in memory only.
        let page = PageFile::open(&disk, to, Options::default()).unwrap();
        let found = State::restore(Arc::new(page)).unwrap();
        assert_eq!(found.digest(), {
            let mut state = state;
            while checkpoint(&mut state, Reason::Aged).unwrap() {}
            state.digest()
        });
        assert_eq!(
            (found.applied().get(), found.cluster_id().get()),
            (6, new.cluster_id)
        );
    }
}
