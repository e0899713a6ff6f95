//! A damaged log: put aside, and had again from the other members.
//!
//! The page file holds the effect of everything up to its consistent index, the ballot what this
//! member has promised; what is missing are entries that it may have acknowledged. So the member
//! begins a new log after the page file and is *recovering* (`ferrite_raft::driver`): it counts for
//! nothing until a leader has brought it everything that may have been committed with its help. That
//! it is recovering is in the ballot, for as long as it takes.
//!
//! ```text
//! ballot: recovering ─▶ damaged log renamed ─▶ new log ─▶ ... ─▶ ballot: not recovering
//! ```
//!
//! A crash between any two steps leaves a log that is damaged or missing and a ballot that is there,
//! which is where this began.
//!
//! Nobody else can help a sole voter, nor anybody a member whose ballot is damaged as well: then the
//! damage is an error, and a backup or a replacement of the member is the way on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferrite_disk::Disk;
use ferrite_raft::{Ballot, BallotFile, Mark, Metadata, log};
use ferrite_storage::page::Meta;

use super::{Error, Options, dir_error, sync_path_to};

/// The damage, and what is there besides.
pub(super) struct Damage<'a> {
    pub(super) disk: &'a Arc<dyn Disk>,
    pub(super) options: &'a Options,
    pub(super) wal_dir: &'a Path,
    /// Of the page file.
    pub(super) meta: &'a Meta,
    pub(super) ballots: &'a mut BallotFile,
    /// What is wrong with the log; `None`: there is none any more.
    pub(super) error: Option<ferrite_raft::Error>,
}

impl Damage<'_> {
    /// Whether the other members can make up for it, knowing what this one has promised.
    pub(super) fn can_be_healed(&self) -> bool {
        self.promised().is_some() && self.error.as_ref().is_none_or(ferrite_raft::Error::is_loss)
    }

    fn promised(&self) -> Option<Ballot> {
        let Meta {
            member_id: own,
            conf_state,
            ..
        } = self.meta;
        // Without any configuration it has been added, and has nothing yet.
        let alone = conf_state.voters == [*own];
        self.ballots
            .known()
            .filter(|ballot| !alone && ballot.metadata == metadata(self.meta))
    }

    /// Begins a new log.
    ///
    /// # Errors
    /// The damage itself, if nobody can help; what the disk says.
    pub(super) fn heal(self) -> Result<log::Recovered, Error> {
        let promised = self.promised().filter(|_| self.can_be_healed());
        let log_error = |source| Error::Log {
            path: self.wal_dir.to_path_buf(),
            source,
        };
        let Some(promised) = promised else {
            return Err(match self.error {
                Some(error) => log_error(error),
                None => Error::LogMissing {
                    path: self.options.data_dir.clone(),
                    index: self.meta.consistent_index,
                },
            });
        };
        self.ballots
            .keep(Ballot {
                recovering: true,
                ..promised
            })
            .map_err(log_error)?;
        let aside = match &self.error {
            Some(_) => Some(put_aside(self.disk, self.wal_dir)?),
            None => None,
        };
        tracing::error!(
            damage = self
                .error
                .map_or("the log is missing".to_owned(), |error| error.to_string()),
            kept_as = aside.map(|path| path.display().to_string()),
            applied = self.meta.consistent_index,
            term = promised.term,
            "the log is damaged; it was put aside, and the other members are asked for what it held. \
             Look after this disk"
        );
        let start = Mark {
            index: self.meta.consistent_index,
            term: self.meta.term,
        };
        let created = log::create(
            Arc::clone(self.disk),
            self.wal_dir,
            &super::log_options(self.options),
            promised.metadata,
            start,
            Some((promised.term, promised.vote)),
        );
        let created = created.map_err(log_error)?;
        sync_path_to(self.disk, self.wal_dir)?;
        Ok(created)
    }
}

/// Whose page file it is.
pub(super) fn metadata(meta: &Meta) -> Metadata {
    Metadata {
        cluster_id: meta.cluster_id,
        member_id: meta.member_id,
    }
}

/// Renames the directory of a log: `wal` to `wal.damaged-1`, or the next number that is free.
fn put_aside(disk: &Arc<dyn Disk>, wal_dir: &Path) -> Result<PathBuf, Error> {
    for number in 1.. {
        let mut name = wal_dir.file_name().unwrap_or_default().to_owned();
        name.push(format!(".damaged-{number}"));
        let aside = wal_dir.with_file_name(name);
        if disk.exists(&aside).map_err(dir_error(&aside))? {
            continue;
        }
        disk.rename(wal_dir, &aside)
            .map_err(|source| Error::PutAside {
                path: wal_dir.to_path_buf(),
                source,
            })?;
        sync_path_to(disk, wal_dir)?;
        return Ok(aside);
    }
    unreachable!("there are more numbers than files")
}
