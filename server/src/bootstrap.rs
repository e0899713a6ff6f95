//! From a data directory to a member ready to run: a new one is laid out, an existing one is
//! restored.
//!
//! ```text
//! <data-dir>/member/lock        held while a process uses the directory
//! <data-dir>/member/ballot      term and vote, a second time
//! <data-dir>/member/snap/db     the page file
//! <wal-dir or <data-dir>/member/wal>/   the log
//! ```
//!
//! A new member writes its page file first, as if a snapshot at index 1 of term 1 had been
//! installed, and its log last: a crash in between leaves a page file at index 1 without a log,
//! which is laid out again. All members of a static bootstrap derive the same ids and the same
//! first state from the initial cluster.

mod alone;
mod heal;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferrite_api::Version;
use ferrite_api::pb::membershippb::Member;
use ferrite_api::types::{ClusterId, MemberId};
use ferrite_disk::wal::{self, Wal};
use ferrite_disk::{Disk, DiskLock};
use ferrite_raft::{Ballot, BallotFile, Driver, Mark, log};
use ferrite_storage::cluster_version::ClusterVersion;
use ferrite_storage::founding::{FIRST, found};
use ferrite_storage::members;
use ferrite_storage::page::{self, Initial, PageFile, Table};
use ferrite_storage::restore;
use ferrite_storage::schema;
use ferrite_storage::snapshot;
use ferrite_storage::state::State;

use crate::release::InvalidDowngrade;
pub use alone::Error as AloneError;
pub use ferrite_storage::founding::{cluster_id, member_id};
use heal::{Damage, metadata};

/// What a member is made from.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The log's directory, if it is not in the data directory.
    pub wal_dir: Option<PathBuf>,
    /// What the member starts from if the data directory is empty.
    pub origin: Origin,
    /// Ticks without a leader before this member campaigns.
    pub election_ticks: usize,
    /// Whether a campaign asks first whether it could win.
    pub pre_vote: bool,
    /// Seed of the election timeouts.
    pub seed: u64,
    /// The page file's knobs.
    pub page: page::Options,
    /// The log's knobs.
    pub wal: wal::Options,
    /// Bytes of raft entries kept in memory.
    pub entry_cache_bytes: usize,
    /// Whether the other members are lost, and this one is to go on alone with its data.
    pub force_new_cluster: bool,
    /// Bytes that a defragmentation has to free, or it is not done; 0 for never.
    pub defrag_threshold: u64,
    /// The version of the program. Its level is the newest storage schema that it knows, and what it lays
    /// a new member out in.
    pub release: Version,
}

/// What a member without data starts from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A new cluster. All its members derive the same ids and the same first state from this.
    New {
        /// This member's name.
        name: String,
        /// All members by name, with their peer URLs.
        members: BTreeMap<String, Vec<String>>,
        /// Salt of the ids.
        token: String,
    },
    /// A cluster that has added this member. Its state comes with the first snapshot.
    Join {
        /// The cluster.
        cluster_id: ClusterId,
        /// This member, as the cluster has named it.
        member_id: MemberId,
        /// All members, as far as they are known: where to be reached.
        members: Vec<Member>,
    },
}

/// A member's parts, restored.
#[derive(Debug)]
pub struct Restored {
    /// Consensus, at the last index of the log.
    pub driver: Driver,
    /// The state, as of the consistent index.
    pub state: State,
    /// The log, ready to be appended to.
    pub wal: Wal,
    /// Where its promises are kept beside it.
    pub ballots: BallotFile,
    /// Held as long as the member lives.
    pub lock: Box<dyn DiskLock>,
}

/// Why a member could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory cannot be used.
    #[error("cannot use {}: {source}", path.display())]
    Dir {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process uses the data directory.
    #[error("data directory {} is in use by another process", path.display())]
    Held {
        /// The data directory.
        path: PathBuf,
    },
    /// The directory holds something that is not this program's.
    #[error("{}: {what}", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// What was found and what to do.
        what: String,
    },
    /// There is a page file and no log, and nobody else who has what was in it.
    #[error(
        "{}: the page file is at raft index {index} but the log is missing; put the log back \
         (--wal-dir?) or restore from a backup", path.display()
    )]
    LogMissing {
        /// The data directory.
        path: PathBuf,
        /// Consistent index of the page file.
        index: u64,
    },
    /// A damaged log cannot be put aside.
    #[error(
        "the log is damaged; cannot rename {} so that the other members can make up for it: {source}; \
         move its files away, and start again", path.display()
    )]
    PutAside {
        /// The directory of the log.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The initial cluster does not name this member.
    #[error("couldn't find local name \"{name}\" in the initial cluster configuration")]
    NoSuchMember {
        /// This member's name.
        name: String,
    },
    /// The page file.
    #[error("page file {}: {source}", path.display())]
    Storage {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ferrite_storage::Error,
    },
    /// The page file is in a schema that this program does not know.
    #[error("page file {}: storage {source}; this program is {release}", path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// The program's version.
        release: Version,
        /// Why.
        source: schema::Error,
    },
    /// The cluster's version is above the program's.
    #[error(transparent)]
    InvalidDowngrade(#[from] InvalidDowngrade),
    /// The member cannot go on alone.
    #[error(transparent)]
    Alone(#[from] AloneError),
    /// A received snapshot.
    #[error("snapshot beside {}: {source}", path.display())]
    Snapshot {
        /// The page file in use.
        path: PathBuf,
        /// Why.
        source: snapshot::Error,
    },
    /// The log.
    #[error("log {}: {source}", path.display())]
    Log {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: ferrite_raft::Error,
    },
}

/// Where the page file is.
pub fn page_path(options: &Options) -> PathBuf {
    options.data_dir.join("member").join("snap").join("db")
}

/// Rebuilds the page file if that frees enough.
fn defragmented(
    page: PageFile,
    path: &Path,
    threshold: u64,
) -> Result<PageFile, ferrite_storage::Error> {
    if threshold == 0 {
        return Ok(page);
    }
    let sizes = page.sizes();
    if sizes.allocated.saturating_sub(sizes.in_use) < threshold {
        tracing::info!(
            "current-db-size-bytes" = sizes.allocated,
            "current-db-size-in-use-bytes" = sizes.in_use,
            "bootstrap-defrag-threshold-bytes" = threshold,
            "Skipping defragmentation"
        );
        return Ok(page);
    }
    match page::rebuild_in_use(&page, path, &mut |_, _| {}) {
        page::RebuildOutcome::Replaced(fresh, rebuilt) => {
            tracing::info!(
                "current-db-size-bytes-before" = rebuilt.before.allocated,
                "current-db-size-bytes" = rebuilt.after.allocated,
                "current-db-size-in-use-bytes" = rebuilt.after.in_use,
                "finished defragmenting"
            );
            Ok(fresh)
        }
        page::RebuildOutcome::Kept(error) => {
            // Room is missing, or whatever the next read will say: no reason not to serve.
            tracing::error!(%error, "failed to defragment at start; the file is as it was");
            Ok(page)
        }
        page::RebuildOutcome::Unknown(error) => Err(error.into()),
    }
}

/// Restores the member of a data directory, or lays a new one out.
///
/// # Errors
/// See [`Error`]: nothing in the directory was changed that a later start could not do again.
pub fn restore(disk: &Arc<dyn Disk>, options: &Options) -> Result<Restored, Error> {
    let member_dir = options.data_dir.join("member");
    let snap_dir = member_dir.join("snap");
    let wal_dir = options
        .wal_dir
        .clone()
        .unwrap_or_else(|| member_dir.join("wal"));
    refuse_half_restored(disk, options, &member_dir)?;
    disk.create_dir(&snap_dir).map_err(dir_error(&snap_dir))?;
    let lock = lock(disk, &options.data_dir, &member_dir.join("lock"))?;
    refuse_foreign(disk, &wal_dir)?;
    for dir in [&snap_dir, &wal_dir] {
        check_writable(disk, dir)?;
    }

    let page_path = page_path(options);
    let storage = |source: ferrite_storage::Error| Error::Storage {
        path: page_path.clone(),
        source,
    };
    let log_error = |source: ferrite_raft::Error| Error::Log {
        path: wal_dir.clone(),
        source,
    };

    let has_log = Wal::exists(disk.as_ref(), &wal_dir).map_err(dir_error(&wal_dir))?;
    let mut ballots =
        BallotFile::open(disk.as_ref(), &member_dir.join("ballot")).map_err(log_error)?;
    page::remove_remains(disk, &page_path).map_err(|e| storage(e.into()))?;
    settle_snapshot(disk, options, &wal_dir, has_log, &ballots)?;
    let has_page = disk.exists(&page_path).map_err(dir_error(&page_path))?;
    let open = || {
        let page = PageFile::open(disk, &page_path, options.page.clone());
        let page = page.map_err(|e| storage(e.into()))?;
        check_versions(&page, options)?;
        Ok::<_, Error>(page)
    };
    let page = match (has_log, has_page) {
        (true, true) => {
            let page = open()?;
            if options.force_new_cluster {
                alone::go_on_alone(disk, options, &wal_dir, &page)?;
            }
            defragmented(page, &page_path, options.defrag_threshold).map_err(storage)?
        }
        // It had a log, for that comes before the first ballot.
        (false, true) if ballots.known().is_some() => open()?,
        (true, false) => {
            let what = format!(
                "the log is there but the page file {} is missing; restore it from a backup",
                page_path.display()
            );
            return Err(Error::Foreign {
                path: options.data_dir.clone(),
                what,
            });
        }
        (false, _) => {
            sync_path_to(disk, &snap_dir)?;
            let page = lay_out(disk, options, &page_path, has_page)?;
            create_log(disk, options, &wal_dir, &page).map_err(log_error)?;
            sync_path_to(disk, &wal_dir)?;
            tracing::info!(
                member_id = %MemberId::new(page.meta().member_id),
                cluster_id = %ClusterId::new(page.meta().cluster_id),
                data_dir = %options.data_dir.display(),
                "laid out a new member"
            );
            page
        }
    };

    let meta = page.meta();
    let (recovered, state) = recover(disk, options, &wal_dir, page);
    let recovered = recovered.and_then(|log| check_complete(log, &meta, &ballots));
    let recovered = match recovered {
        Ok(recovered) => recovered,
        Err(error) => {
            let missing = matches!(error, ferrite_raft::Error::Wal(wal::Error::Missing { .. }));
            let damage = Damage {
                disk,
                options,
                wal_dir: &wal_dir,
                meta: &meta,
                ballots: &mut ballots,
                error: (!missing).then_some(error),
            };
            damage.heal()?
        }
    };
    let of_log = (recovered.metadata.cluster_id, recovered.metadata.member_id);
    if of_log != (meta.cluster_id, meta.member_id) {
        let what = format!(
            "the log belongs to member {:x} of cluster {:x}, the page file to member {:x} of cluster {:x}",
            of_log.1, of_log.0, meta.member_id, meta.cluster_id
        );
        return Err(Error::Foreign {
            path: options.data_dir.clone(),
            what,
        });
    }
    let state = state.map_err(storage)?;
    tracing::info!(
        member_id = %state.member_id(),
        cluster_id = %state.cluster_id(),
        revision = state.store().revision(),
        compacted = state.store().compacted(),
        keys = state.store().index().len(),
        digest = format!("{:016x}", state.digest()),
        consistent_index = meta.consistent_index,
        "restored the page file"
    );
    let recovering = ballots.known().is_some_and(|ballot| ballot.recovering);
    let ballot = Ballot {
        metadata: metadata(&meta),
        term: recovered.hard_state.term,
        vote: recovered.hard_state.vote,
        recovering,
    };
    ballots.keep(ballot).map_err(log_error)?;
    let conf_state = ferrite_raft::ConfState {
        voters: meta.conf_state.voters,
        learners: meta.conf_state.learners,
        voters_outgoing: meta.conf_state.voters_outgoing,
        learners_next: meta.conf_state.learners_next,
        auto_leave: meta.conf_state.auto_leave,
    };
    let config = ferrite_raft::Config {
        election_ticks: options.election_ticks,
        pre_vote: options.pre_vote,
        recovering,
        ..ferrite_raft::Config::new(
            meta.member_id,
            meta.consistent_index,
            conf_state,
            options.seed,
        )
    };
    let driver = Driver::new(config, recovered.log).map_err(log_error)?;
    Ok(Restored {
        driver,
        state,
        wal: recovered.wal,
        ballots,
        lock,
    })
}

/// Refuses what a later program has written, before anything is changed that it may want to find.
fn check_versions(page: &PageFile, options: &Options) -> Result<(), Error> {
    let path = page_path(options);
    let release = options.release;
    schema::check(&page.meta(), release).map_err(|source| Error::Schema {
        path: path.clone(),
        release,
        source,
    })?;
    let rows = page
        .reader()
        .and_then(|reader| reader.table(Table::Cluster));
    let rows = rows.map_err(ferrite_storage::Error::from);
    let agreed = rows.and_then(|rows| ClusterVersion::load(&rows));
    let agreed = agreed.map_err(|source| Error::Storage { path, source })?;
    if let Some(target) = agreed.downgrade {
        tracing::info!(
            "target-cluster-version" = %target,
            "current-server-version" = %release,
            "cluster is downgrading to target version"
        );
    }
    InvalidDowngrade::check(release, agreed.version)?;
    if let Some(version) = agreed.version {
        tracing::info!(
            "cluster-version" = version.short(),
            "set cluster version from store"
        );
    }
    Ok(())
}

/// Refuses a log that has lost its end, and does not look damaged.
fn check_complete(
    recovered: log::Recovered,
    meta: &page::Meta,
    ballots: &BallotFile,
) -> Result<log::Recovered, ferrite_raft::Error> {
    let (applied, last) = (meta.consistent_index, recovered.log.last());
    let of_page_file = recovered.metadata == metadata(meta);
    if of_page_file && applied > last {
        return Err(ferrite_raft::Error::AppliedBeyondLog { applied, last });
    }
    let found = recovered.hard_state;
    let own = ballots.known();
    match own.filter(|ballot| ballot.metadata == recovered.metadata) {
        Some(promised) if promised.is_ahead_of(&found) => {
            Err(ferrite_raft::Error::BehindBallot { found, promised })
        }
        _ => Ok(recovered),
    }
}

/// Completes, or gives up, the installation of a snapshot that a crash has cut off.
fn settle_snapshot(
    disk: &Arc<dyn Disk>,
    options: &Options,
    wal_dir: &Path,
    has_log: bool,
    ballots: &BallotFile,
) -> Result<(), Error> {
    let path = page_path(options);
    let failed = |error: snapshot::Error| Error::Snapshot {
        path: path.clone(),
        source: error,
    };
    let undecided = snapshot::awaits_decision(disk, &path).map_err(failed)?;
    let log = || log::recover(Arc::clone(disk), wal_dir, &log_options(options));
    let mark = match (undecided && has_log).then(log) {
        Some(Ok(recovered)) => recovered.log.mark().index,
        // What the damaged log may have decided is lost with it, and had again with the rest.
        Some(Err(error)) if error.is_loss() && ballots.known().is_some() => 0,
        Some(Err(source)) => {
            return Err(Error::Log {
                path: wal_dir.to_path_buf(),
                source,
            });
        }
        None => 0,
    };
    snapshot::settle(disk, &path, mark, &options.page)
        .map(drop)
        .map_err(failed)
}

/// Recovers the log, and the state from the page file: at the same time if the file has many rows.
fn recover(
    disk: &Arc<dyn Disk>,
    options: &Options,
    wal_dir: &Path,
    page: PageFile,
) -> (
    Result<log::Recovered, ferrite_raft::Error>,
    Result<State, ferrite_storage::Error>,
) {
    let threads = restore::threads(page.meta().rows);
    let log = || log::recover(Arc::clone(disk), wal_dir, &log_options(options));
    let state = || State::restore(Arc::new(page));
    if threads == 1 {
        return (log(), state());
    }
    std::thread::scope(|scope| {
        let log = scope.spawn(log);
        let state = state();
        match log.join() {
            Ok(log) => (log, state),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn log_options(options: &Options) -> log::Options {
    log::Options {
        cache_bytes: options.entry_cache_bytes,
        wal: options.wal.clone(),
    }
}

/// Makes a directory's whole path durable: any part of it may be new, also from a start that was
/// cut off before it came here.
fn sync_path_to(disk: &Arc<dyn Disk>, dir: &Path) -> Result<(), Error> {
    for parent in dir.ancestors().skip(1) {
        let parent = if parent.as_os_str().is_empty() {
            Path::new(".")
        } else {
            parent
        };
        match disk.sync_dir(parent) {
            Ok(()) => {}
            // A directory above that this user may not even open was not made by this program.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return Ok(()),
            Err(error) => return Err(dir_error(parent)(error)),
        }
    }
    Ok(())
}

fn lock(disk: &Arc<dyn Disk>, data_dir: &Path, path: &Path) -> Result<Box<dyn DiskLock>, Error> {
    disk.lock(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::WouldBlock => Error::Held {
            path: data_dir.to_path_buf(),
        },
        _ => Error::Dir {
            path: path.to_path_buf(),
            source,
        },
    })
}

/// Where `etcdutl` makes a member, until that is complete (`etcdutl/src/new_member.rs`, which does not know
/// this crate; a test there holds both to one name).
const RESTORING: &str = "member.restoring";

/// Refuses to begin anew where a backup was about to be restored: its content would be missed.
fn refuse_half_restored(
    disk: &Arc<dyn Disk>,
    options: &Options,
    member_dir: &Path,
) -> Result<(), Error> {
    let attempt = options.data_dir.join(RESTORING);
    let there = |path: &Path| disk.exists(path).map_err(dir_error(path));
    if there(member_dir)? || !there(&attempt)? {
        return Ok(());
    }
    Err(Error::Foreign {
        path: options.data_dir.clone(),
        what: format!(
            "a restore was cut off here ({RESTORING} is left of it); restore the snapshot again, or remove \
             the directory to begin without it"
        ),
    })
}

/// Makes and removes a file, as etcd does: a directory that takes none is better noticed now than when
/// the log needs its next segment. One that has no room is another matter: compaction may make some.
fn check_writable(disk: &Arc<dyn Disk>, dir: &Path) -> Result<(), Error> {
    use std::io::ErrorKind::{AlreadyExists, PermissionDenied, ReadOnlyFilesystem};
    let touch = dir.join(".touch");
    match disk.create(&touch).map_err(|error| (error.kind(), error)) {
        // One that is there already was left by a start that ended in between.
        Ok(_) | Err((AlreadyExists, _)) => disk.remove(&touch).map_err(dir_error(dir)),
        Err((PermissionDenied | ReadOnlyFilesystem, error)) => Err(dir_error(dir)(error)),
        Err(_) => Ok(()),
    }
}

/// Refuses a directory that etcd itself has written: the files have the same places and other
/// contents.
fn refuse_foreign(disk: &Arc<dyn Disk>, wal_dir: &Path) -> Result<(), Error> {
    if !disk.exists(wal_dir).map_err(dir_error(wal_dir))? {
        return Ok(());
    }
    let files = disk.list(wal_dir).map_err(dir_error(wal_dir))?;
    // etcd names a segment <sequence>-<index>.wal.
    if let Some(file) = files
        .iter()
        .find(|file| file.name.ends_with(".wal") && file.name.contains('-'))
    {
        let what = format!(
            "{} was written by etcd, not by Ferrite; start with an empty data directory and move the \
             data with a client (etcdctl make-mirror), or import it (etcdutl migrate --from-etcd)",
            file.name
        );
        return Err(Error::Foreign {
            path: wal_dir.to_path_buf(),
            what,
        });
    }
    Ok(())
}

/// Writes the page file of a new member. One that is there already is left from a start that did
/// not get as far as the log, if it is at the first index.
fn lay_out(
    disk: &Arc<dyn Disk>,
    options: &Options,
    path: &Path,
    exists: bool,
) -> Result<PageFile, Error> {
    let storage = |source: page::Error| Error::Storage {
        path: path.to_path_buf(),
        source: source.into(),
    };
    if exists {
        let page = PageFile::open(disk, path, options.page.clone()).map_err(storage)?;
        if page.meta().consistent_index > FIRST {
            return Err(Error::LogMissing {
                path: options.data_dir.clone(),
                index: page.meta().consistent_index,
            });
        }
        drop(page);
        disk.remove(path).map_err(dir_error(path))?;
    }
    let mut initial = match &options.origin {
        Origin::New {
            name,
            members,
            token,
        } => {
            found(name, members, token).ok_or_else(|| Error::NoSuchMember { name: name.clone() })?
        }
        Origin::Join {
            cluster_id,
            member_id,
            members,
        } => Initial {
            cluster_id: cluster_id.get(),
            member_id: member_id.get(),
            tables: members.iter().map(members::row).collect(),
            ..Initial::default()
        },
    };
    initial.meta.storage_version = Some(options.release.level().to_string());
    PageFile::create(disk, path, options.page.clone(), &initial).map_err(storage)
}

fn create_log(
    disk: &Arc<dyn Disk>,
    options: &Options,
    dir: &Path,
    page: &PageFile,
) -> Result<(), ferrite_raft::Error> {
    let meta = page.meta();
    // A member that joins has nothing: it begins with the first snapshot.
    let start = Mark {
        index: meta.consistent_index,
        term: meta.term,
    };
    log::create(
        Arc::clone(disk),
        dir,
        &log_options(options),
        metadata(&meta),
        start,
        None,
    )
    .map(drop)
}

fn dir_error(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Dir {
        path: path.to_path_buf(),
        source,
    }
}
