//! The data directory of a new member, which is there as a whole or not at all.
//!
//! ```text
//!   <data-dir>/member.restoring/{lock,snap/db,wal}  ── rename ──▶ <data-dir>/member/...
//!   <wal-dir>.restoring                             ── rename ──▶ <wal-dir>, before
//! ```
//!
//! It is made within the data directory, which may be a mount point. What an attempt has left that was
//! cut off, the next one removes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferrite_disk::{Disk, DiskLock};
use ferrite_raft::{Mark, Metadata, log};
use ferrite_storage::page::{Options, PageFile};

use crate::failure::Failure;
use crate::new_cluster::NewCluster;

/// The directory of an attempt.
const ATTEMPT: &str = "member.restoring";

/// A member in the making. Nobody else makes one there as long as this lives.
pub(crate) struct NewMember {
    disk: Arc<dyn Disk>,
    data_dir: PathBuf,
    attempt: PathBuf,
    /// Where the log is made, and where it goes if that is not in the data directory.
    wal: PathBuf,
    wal_dir: Option<PathBuf>,
    log: log::Options,
    /// It is in its place.
    finished: bool,
    _lock: Box<dyn DiskLock>,
}

impl NewMember {
    /// Begins to make one.
    ///
    /// # Errors
    /// The data directory is not empty, or the log's exists, or somebody else is at it.
    pub(crate) fn begin(disk: &Arc<dyn Disk>, cluster: &NewCluster) -> Result<Self, Failure> {
        let NewCluster {
            data_dir, wal_dir, ..
        } = cluster;
        let exists = disk
            .exists(data_dir)
            .map_err(failed("look for", data_dir))?;
        let entries = match exists {
            true => disk.list(data_dir).ok(),
            false => Some(Vec::new()),
        };
        let is_free = entries.is_some_and(|entries| entries.iter().all(|at| at.name == ATTEMPT));
        if !is_free {
            return Err(Failure::new(format!(
                "data-dir \"{}\" not empty or could not be read",
                data_dir.display()
            )));
        }
        if let Some(wal_dir) = wal_dir
            && disk.exists(wal_dir).map_err(failed("look for", wal_dir))?
        {
            let wal_dir = wal_dir.display();
            return Err(Failure::new(format!("wal-dir \"{wal_dir}\" exists")));
        }
        let attempt = data_dir.join(ATTEMPT);
        let snap = attempt.join("snap");
        disk.create_dir(&snap).map_err(failed("create", &snap))?;
        let lock = disk
            .lock(&attempt.join("lock"))
            .map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => Failure::new(format!(
                    "data directory {} is in use by another process",
                    data_dir.display()
                )),
                _ => failed("lock", &attempt)(error),
            })?;
        let wal = match wal_dir {
            None => attempt.join("wal"),
            Some(wal_dir) => {
                let mut path = wal_dir.clone().into_os_string();
                path.push(".restoring");
                path.into()
            }
        };
        for dir in [&snap, &wal] {
            clear(disk, dir).map_err(failed("clear", dir))?;
        }
        Ok(Self {
            disk: Arc::clone(disk),
            data_dir: data_dir.clone(),
            attempt,
            wal,
            wal_dir: wal_dir.clone(),
            log: log::Options::default(),
            finished: false,
            _lock: lock,
        })
    }

    /// Where the page file is to be made.
    pub(crate) fn page_path(&self) -> PathBuf {
        self.attempt.join("snap").join("db")
    }

    /// The page file is there: makes the log, and puts everything in its place.
    ///
    /// # Errors
    /// The disk. There is no member then.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        let (disk, path) = (&self.disk, self.page_path());
        let page = PageFile::open(disk, &path, Options::default()).map_err(Failure::new)?;
        let meta = page.meta();
        drop(page);
        let metadata = Metadata {
            cluster_id: meta.cluster_id,
            member_id: meta.member_id,
        };
        let start = Mark {
            index: meta.consistent_index,
            term: meta.term,
        };
        log::create(
            Arc::clone(disk),
            &self.wal,
            &self.log,
            metadata,
            start,
            None,
        )
        .map_err(Failure::new)?;
        for dir in [&self.attempt.join("snap"), &self.attempt] {
            disk.sync_dir(dir).map_err(failed("sync", dir))?;
        }
        let rename = |from: &Path, to: &Path| {
            disk.rename(from, to).map_err(failed("rename", from))?;
            sync_path_to(disk, to).map_err(failed("sync", to))
        };
        if let Some(wal_dir) = &self.wal_dir {
            rename(&self.wal, wal_dir)?;
        }
        rename(&self.attempt, &self.data_dir.join("member"))?;
        self.finished = true;
        Ok(())
    }

    /// Removes what there is of the attempt, and the data directory if there is nothing else in it.
    fn remove(&self) -> io::Result<()> {
        let snap = self.attempt.join("snap");
        for dir in [&snap, &self.wal] {
            clear(&self.disk, dir)?;
            if self.disk.exists(dir)? {
                self.disk.remove(dir)?;
            }
        }
        self.disk.remove(&self.attempt.join("lock"))?;
        self.disk.remove(&self.attempt)?;
        self.disk.remove(&self.data_dir)
    }
}

impl Drop for NewMember {
    fn drop(&mut self) {
        if !self.finished {
            // What cannot be removed, the next attempt removes.
            let _left = self.remove();
        }
    }
}

fn failed(what: &str, path: &Path) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::new(format!("cannot {what} {}: {error}", path.display()))
}

/// Removes the files of a directory, if it is there.
fn clear(disk: &Arc<dyn Disk>, dir: &Path) -> io::Result<()> {
    if disk.exists(dir)? {
        for entry in disk.list(dir)? {
            disk.remove(&dir.join(entry.name))?;
        }
    }
    Ok(())
}

/// Makes the name of a directory durable, and those of all above it, which may be new, too.
fn sync_path_to(disk: &Arc<dyn Disk>, dir: &Path) -> io::Result<()> {
    for parent in dir.ancestors().skip(1) {
        match disk.sync_dir(parent) {
            Ok(()) => {}
            // Who may not even open it has not made it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ferrite_api::urls::UrlsMap;
    use ferrite_disk::sim::{PowerLoss, SimDisk};
    use ferrite_storage::founding::found;
    use ferrite_storage::state::State;

    use super::*;

    fn cluster(wal_dir: Option<&str>) -> NewCluster {
        let members = "default=http://localhost:2380";
        let urls = vec!["http://localhost:2380".to_owned()];
        let by_name = [("default".to_owned(), urls)].into();
        NewCluster {
            members: UrlsMap::parse(members).unwrap(),
            founding: found("default", &by_name, "token").unwrap(),
            data_dir: "/data".into(),
            wal_dir: wal_dir.map(PathBuf::from),
        }
    }

    fn make(disk: &SimDisk, cluster: &NewCluster) -> Result<(), Failure> {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let mut member = NewMember::begin(&disk, cluster)?;
        member.log.wal.segment_bytes = 1 << 16;
        let path = member.page_path();
        PageFile::create(&disk, &path, Options::default(), &cluster.founding)
            .map_err(Failure::new)?;
        member.finish()
    }

    /// Whether there is a member; if there is, it is whole.
    fn is_there(disk: &SimDisk, wal: &str) -> bool {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let path = Path::new("/data/member/snap/db");
        if !disk.exists(Path::new("/data/member")).unwrap() {
            return false;
        }
        let page = PageFile::open(&disk, path, Options::default()).unwrap();
        let state = State::restore(Arc::new(page)).unwrap();
        let recovered = log::recover(disk, Path::new(wal), &log::Options::default()).unwrap();
        assert_eq!(recovered.metadata.member_id, state.member_id().get());
        assert_eq!(recovered.log.mark().index, state.applied().get());
        true
    }

    #[test]
    fn a_power_loss_at_any_operation_leaves_a_whole_member_or_none() {
        for (wal_dir, wal) in [(None, "/data/member/wal"), (Some("/wal"), "/wal")] {
            let cluster = cluster(wal_dir);
            let disk = SimDisk::new(1);
            disk.start_recording();
            make(&disk, &cluster).unwrap();
            let mut history = disk.history();
            let (mut there, mut not_there) = (0, 0);
            for at in 0..=history.len() {
                for loss in [
                    PowerLoss::LoseAll,
                    PowerLoss::KeepAll,
                    PowerLoss::Random(at as u64),
                ] {
                    let disk = history.power_loss_at(at, loss);
                    if is_there(&disk, wal) {
                        there += 1;
                        continue;
                    }
                    not_there += 1;
                    // It can be made again; but a log in its place is not touched.
                    if !disk.exists(Path::new("/wal")).unwrap() {
                        make(&disk, &cluster).unwrap();
                        assert!(is_there(&disk, wal));
                    }
                }
            }
            assert!(there > 0 && not_there > 0);
            let end = history.power_loss_at(history.len(), PowerLoss::LoseAll);
            assert!(is_there(&end, wal));
        }
    }

    #[test]
    fn what_is_there_is_not_touched() {
        let disk = SimDisk::new(1);
        let cluster = cluster(Some("/wal"));
        let refusal = |disk: &SimDisk| match make(disk, &cluster) {
            Err(Failure::Exit { message, .. }) => message,
            other => panic!("{other:?}"),
        };
        disk.create_dir(Path::new("/wal")).unwrap();
        assert_eq!(refusal(&disk), "wal-dir \"/wal\" exists");
        disk.remove(Path::new("/wal")).unwrap();
        disk.create_dir(Path::new("/data")).unwrap();
        disk.create(Path::new("/data/file")).unwrap();
        let text = "data-dir \"/data\" not empty or could not be read";
        assert_eq!(refusal(&disk), text);
        disk.remove(Path::new("/data/file")).unwrap();

        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let other = NewMember::begin(&shared, &cluster).ok().unwrap();
        let text = "data directory /data is in use by another process";
        assert_eq!(refusal(&disk), text);
        drop(other);
        make(&disk, &cluster).unwrap();
    }
}
