//! The files of a member that does not run, and the lock that keeps it from running meanwhile.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ferrite_disk::{Disk, DiskLock, OverlayDisk, RealDisk};

use crate::cli::Matches;
use crate::failure::Failure;
use crate::tree::TIMEOUT;

/// Pause between two attempts to get the lock.
const RETRY: Duration = Duration::from_millis(50);

/// Where the marker of a bbolt file is, and what it is: etcd's page file begins so.
const BBOLT_AT: usize = 16;
const BBOLT: [u8; 4] = 0xed0c_daed_u32.to_le_bytes();

/// A data directory that no member uses as long as this lives.
pub(crate) struct DataDir {
    pub(crate) path: PathBuf,
    /// The page file.
    pub(crate) db: PathBuf,
    /// The directory of the log.
    pub(crate) wal: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    _lock: Box<dyn DiskLock>,
}

impl DataDir {
    /// The directory that `--data-dir` names.
    pub(crate) fn open(matches: &Matches) -> Result<Self, Failure> {
        let path = matches.path("data-dir").unwrap_or_default();
        let member = path.join("member");
        let db = member.join("snap").join("db");
        stat(&db)?;
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let lock = lock(&disk, &path, &member.join("lock"), matches)?;
        refuse_bbolt(&db)?;
        Ok(Self {
            wal: matches.path("wal-dir").unwrap_or(member.join("wal")),
            path,
            db,
            disk,
            _lock: lock,
        })
    }

    /// The same files, of which nothing can be changed.
    pub(crate) fn read_only(&self) -> Arc<dyn Disk> {
        Arc::new(OverlayDisk::new(Arc::clone(&self.disk)))
    }
}

/// A page file by its name, of which nothing can be changed. If it is in a data directory, no member
/// uses that as long as this lives.
pub(crate) struct LoneFile {
    pub(crate) disk: Arc<dyn Disk>,
    _lock: Option<Box<dyn DiskLock>>,
}

impl LoneFile {
    pub(crate) fn open(path: &Path, matches: &Matches) -> Result<Self, Failure> {
        stat(path)?;
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let member = path.parent().and_then(Path::parent);
        let lock_path = member.map(|member| member.join("lock"));
        let lock = match lock_path.filter(|path| path.exists()) {
            Some(path) => {
                let data_dir = member.and_then(Path::parent).unwrap_or(Path::new("."));
                Some(lock(&disk, data_dir, &path, matches)?)
            }
            None => None,
        };
        refuse_bbolt(path)?;
        Ok(Self {
            disk: Arc::new(OverlayDisk::new(disk)),
            _lock: lock,
        })
    }
}

pub(crate) fn stat(path: &Path) -> Result<(), Failure> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(error) => {
            let why = match error.kind() {
                std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
                std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
                _ => error.to_string(),
            };
            Err(Failure::new(format!("stat {}: {why}", path.display())))
        }
    }
}

/// Keeps an etcd from using its database file, if that can be done: an etcd has it locked. Others may
/// not be writable, and are not in use then.
pub(crate) fn unused(db: &Path, matches: &Matches) -> Result<Option<Box<dyn DiskLock>>, Failure> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    match disk.lock(db) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            let member = db.parent().and_then(Path::parent);
            let data_dir = member.and_then(Path::parent).unwrap_or(db);
            lock(&disk, data_dir, db, matches).map(Some)
        }
        lock => Ok(lock.ok()),
    }
}

/// Waits as long as `--timeout` says.
fn lock(
    disk: &Arc<dyn Disk>,
    data_dir: &Path,
    path: &Path,
    matches: &Matches,
) -> Result<Box<dyn DiskLock>, Failure> {
    let timeout = matches.time("timeout", TIMEOUT);
    let began = Instant::now();
    loop {
        match disk.lock(path) {
            Ok(lock) => return Ok(lock),
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => {
                return Err(Failure::new(format!("lock {}: {error}", path.display())));
            }
            Err(_) if timeout > Duration::ZERO && began.elapsed() >= timeout => {
                return Err(Failure::new(format!(
                    "data directory {} is in use by another process",
                    data_dir.display()
                )));
            }
            Err(_) => std::thread::sleep(RETRY),
        }
    }
}

/// Refuses a page file that etcd has written.
fn refuse_bbolt(path: &Path) -> Result<(), Failure> {
    match is_bbolt(path) {
        true => Err(Failure::new(format!(
            "{} was written by etcd, not by Ferrite",
            path.display()
        ))),
        false => Ok(()),
    }
}

/// Whether a file is a snapshot, or a database of etcd's.
pub(crate) fn is_bbolt(path: &Path) -> bool {
    let mut head = [0; BBOLT_AT + BBOLT.len()];
    let read = RealDisk::open_read_only(path).and_then(|file| file.read_at(&mut head, 0));
    read.is_ok() && head.ends_with(&BBOLT)
}
