//! Making a log, and bringing one back from the WAL.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ferrite_disk::Disk;
use ferrite_disk::wal::{self, Position, Report, Wal};
use raft::eraftpb::{Entry, EntryType};

use super::entries::Entries;
use super::record::{self, Decoded, HardState, Mark, Metadata};
use super::{Head, RaftLog};
use crate::conf::ConfChange;
use crate::effects::EntryKind;
use crate::error::Error;

/// How a log is kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// Memory for the content of entries, in bytes; the newest are kept. What is not synced yet
    /// stays in memory beyond it. Default 32 MiB.
    pub cache_bytes: usize,
    /// The WAL's own options.
    pub wal: wal::Options,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            cache_bytes: 32 << 20,
            wal: wal::Options::default(),
        }
    }
}

/// A log and the WAL it lives in: the log for the [`Driver`](crate::Driver), the WAL for the one
/// who writes.
#[derive(Debug)]
pub struct Recovered {
    /// The log.
    pub log: RaftLog,
    /// The WAL, ready to append.
    pub wal: Wal,
    /// Whose log it is.
    pub metadata: Metadata,
    /// The hard state as found.
    pub hard_state: HardState,
    /// What the WAL found.
    pub report: Report,
}

/// Whether there is a log in `dir`.
pub fn exists(disk: &dyn Disk, dir: &Path) -> io::Result<bool> {
    Wal::exists(disk, dir)
}

/// Creates a log, durably: after a power loss there is either none or this one. A new cluster
/// starts at `Mark::default()`; data that was restored from elsewhere at the index and term it is
/// as of. `promised`: term and vote of the member, if it had a log before.
///
/// # Errors
/// [`Error::Wal`], among others if there is a log already.
pub fn create(
    disk: Arc<dyn Disk>,
    dir: &Path,
    options: &Options,
    metadata: Metadata,
    start: Mark,
    promised: Option<(u64, u64)>,
) -> Result<Recovered, Error> {
    let (term, vote) = promised.unwrap_or((start.term, 0));
    let hard_state = HardState {
        term,
        vote,
        commit: start.index,
    };
    let head = Head {
        metadata,
        hard_state,
        mark: start,
    };
    let wal = Wal::create(disk, dir, options.wal.clone(), &head.records())?;
    let entries = Entries::new(start);
    let log = RaftLog::new(
        metadata,
        hard_state,
        entries,
        options.cache_bytes,
        wal.reader(),
    );
    Ok(Recovered {
        log,
        wal,
        metadata,
        hard_state,
        report: Report::default(),
    })
}

/// A record of a log, for somebody who looks at it from outside.
#[derive(Debug, Clone, PartialEq)]
pub enum Logged {
    /// Whose log it is.
    Metadata(Metadata),
    /// What raft must not forget.
    HardState(HardState),
    /// Entries up to here were dropped.
    Truncated(Mark),
    /// A snapshot was installed: all entries before were dropped, the log goes on after it.
    Snapshot(Mark),
    /// An entry; a later one with the same index replaces it.
    Entry {
        /// Its index.
        index: u64,
        /// Its term.
        term: u64,
        /// What kind it is.
        kind: EntryKind,
        /// Its data; that of a change of the configuration is in `kind`.
        data: Bytes,
    },
}

impl Logged {
    fn of(decoded: &Decoded) -> Result<Logged, String> {
        Ok(match decoded {
            Decoded::Metadata(metadata) => Logged::Metadata(*metadata),
            Decoded::HardState(state) => Logged::HardState(*state),
            Decoded::Truncated(mark) => Logged::Truncated(*mark),
            Decoded::Snapshot(mark) => Logged::Snapshot(*mark),
            Decoded::Entry(entry) => Logged::Entry {
                index: entry.index,
                term: entry.term,
                kind: match entry.entry_type {
                    EntryType::EntryNormal => EntryKind::Normal,
                    _ => EntryKind::ConfChange(ConfChange::decode(entry)?),
                },
                data: entry.data.clone(),
            },
        })
    }
}

/// As [`recover`], showing each record to `watch` once it was found to fit the ones before it.
///
/// # Errors
/// As [`recover`]; what came before the record that is wrong was shown.
pub fn recover_watched(
    disk: Arc<dyn Disk>,
    dir: &Path,
    options: &Options,
    watch: &mut dyn FnMut(Position, Logged),
) -> Result<Recovered, Error> {
    recover_with(disk, dir, options, Some(watch))
}

/// Opens a log and replays it, in memory bounded by `cache_bytes` and 32 bytes an entry. Everything
/// replayed is durable afterwards.
///
/// # Errors
/// [`Error::Wal`] if the WAL cannot be opened or is corrupt; the others if intact records
/// contradict each other.
pub fn recover(disk: Arc<dyn Disk>, dir: &Path, options: &Options) -> Result<Recovered, Error> {
    recover_with(disk, dir, options, None)
}

type Watch<'w> = dyn FnMut(Position, Logged) + 'w;

fn recover_with(
    disk: Arc<dyn Disk>,
    dir: &Path,
    options: &Options,
    mut watch: Option<&mut Watch<'_>>,
) -> Result<Recovered, Error> {
    let mut replay = Replay::new(options.cache_bytes);
    let mut refusal = None;
    let mut visit = |position: Position, kind: u8, payload: Bytes| {
        replay
            .visit(position, kind, payload, &mut watch)
            .map_err(|error| {
                let text = error.to_string();
                refusal = Some(error);
                text
            })
    };
    let opened = Wal::open(disk, dir, options.wal.clone(), &mut visit);
    if let Some(error) = refusal {
        return Err(error);
    }
    let (wal, report) = opened?;
    let Head {
        metadata,
        hard_state,
        ..
    } = replay.finish()?;
    let log = RaftLog::new(
        metadata,
        hard_state,
        replay.entries,
        options.cache_bytes,
        wal.reader(),
    );
    Ok(Recovered {
        log,
        wal,
        metadata,
        hard_state,
        report,
    })
}

/// What the records so far amount to.
struct Replay {
    metadata: Option<Metadata>,
    hard_state: HardState,
    entries: Entries,
    cache_bytes: usize,
}

impl Replay {
    fn new(cache_bytes: usize) -> Replay {
        Replay {
            metadata: None,
            hard_state: HardState::default(),
            entries: Entries::new(Mark::default()),
            cache_bytes,
        }
    }

    fn visit(
        &mut self,
        position: Position,
        kind: u8,
        payload: Bytes,
        watch: &mut Option<&mut Watch<'_>>,
    ) -> Result<(), Error> {
        let Position { segment, offset } = position;
        let bad = |source| Error::Record {
            segment,
            offset,
            source,
        };
        let decoded = record::decode(kind, payload).map_err(bad)?;
        let shown = watch.is_some().then(|| Logged::of(&decoded));
        match decoded {
            Decoded::Metadata(metadata) => self.metadata(metadata, segment),
            Decoded::HardState(state) => self.hard_state(state),
            Decoded::Truncated(mark) => self.truncated(mark),
            Decoded::Snapshot(mark) => self.snapshot(mark, position),
            Decoded::Entry(entry) => self.entry(entry, position),
        }?;
        // A change of the configuration that does not decode was refused above.
        if let (Some(watch), Some(Ok(shown))) = (watch, shown) {
            watch(position, shown);
        }
        Ok(())
    }

    fn metadata(&mut self, found: Metadata, segment: u64) -> Result<(), Error> {
        match self.metadata {
            Some(before) if before != found => Err(Error::MetadataConflict {
                before,
                found,
                segment,
            }),
            _ => {
                self.metadata = Some(found);
                Ok(())
            }
        }
    }

    fn hard_state(&mut self, found: HardState) -> Result<(), Error> {
        let before = self.hard_state;
        let vote_taken_back =
            found.term == before.term && before.vote != 0 && found.vote != before.vote;
        if found.term < before.term || found.commit < before.commit || vote_taken_back {
            return Err(Error::HardStateRegressed { before, found });
        }
        self.hard_state = found;
        Ok(())
    }

    fn truncated(&mut self, found: Mark) -> Result<(), Error> {
        let before = self.entries.mark;
        let last = self.entries.last();
        let beyond = found.index > last && !self.entries.is_empty();
        // Of an entry that is there, and of the old mark, the term is known.
        let other_term = self
            .entries
            .term(found.index)
            .is_some_and(|term| term != found.term);
        if found.index < before.index || beyond || other_term {
            return Err(Error::BadMark {
                before,
                found,
                last,
            });
        }
        self.entries.compact(found);
        Ok(())
    }

    fn snapshot(&mut self, found: Mark, position: Position) -> Result<(), Error> {
        let HardState { term, commit, .. } = self.hard_state;
        let before = self.entries.mark;
        // Against the mark too: the hard state with its commit may be what a power loss took.
        let backwards = found.index <= commit || found.index <= before.index;
        if backwards || found.term > term || found.term < before.term {
            return Err(Error::BadSnapshot {
                found,
                term,
                commit: commit.max(before.index),
            });
        }
        self.hard_state.commit = found.index;
        self.entries.restart(found);
        self.entries.locate_restart(position);
        Ok(())
    }

    fn entry(&mut self, entry: Entry, position: Position) -> Result<(), Error> {
        let (index, term) = (entry.index, entry.term);
        let last = self.entries.last();
        let committed = self.hard_state.commit.max(self.entries.mark.index);
        if index <= committed {
            return Err(Error::OverwritesCommitted { index, committed });
        }
        if !self.entries.is_empty() && index > last + 1 {
            return Err(Error::Gap {
                last,
                index,
                segment: position.segment,
            });
        }
        if term > self.hard_state.term {
            return Err(Error::TermUnknown {
                index,
                term,
                known: self.hard_state.term,
            });
        }
        match self.entries.term(index - 1) {
            Some(before) if before > term => {
                return Err(Error::TermBackwards {
                    index,
                    term,
                    before,
                });
            }
            _ => {}
        }
        if entry.entry_type != EntryType::EntryNormal {
            // Applying it is not the time to find out.
            ConfChange::decode(&entry)
                .map_err(|why| Error::Config(format!("entry {index}: {why}")))?;
        }
        self.entries.push_found(entry, position);
        self.entries.evict(self.cache_bytes, 0, usize::MAX);
        Ok(())
    }

    fn finish(&mut self) -> Result<Head, Error> {
        let Some(metadata) = self.metadata else {
            return Err(Error::NoMetadata);
        };
        let mark = self.entries.mark;
        if self.entries.first != mark.index + 1 {
            return Err(Error::MissingEntries {
                truncated: mark.index,
                first: self.entries.first,
            });
        }
        let (commit, last) = (self.hard_state.commit, self.entries.last());
        if commit > last {
            return Err(Error::CommitBeyondLog { commit, last });
        }
        Ok(Head {
            metadata,
            hard_state: self.hard_state,
            mark,
        })
    }
}
