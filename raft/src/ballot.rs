//! The ballot: term and vote, kept a second time beside the log.
//!
//! A log that was damaged can be had again from the other members, but not what this member has
//! promised: whoever has forgotten a vote may help to elect two leaders of one term. So each promise
//! is durable here, too, before anybody hears of it, and a damaged log does not take it along. It
//! also tells on a log that has lost its end, or was replaced by an older one: it can never be behind
//! the ballot, because it is written first.
//!
//! The file has two slots of 4096 bytes, written alternately and synced each time: a power loss tears
//! one at most, and that one nobody has heard of. All integers are little-endian.
//!
//! | Bytes | |
//! |---|---|
//! | 0..8 | `FERBALOT` |
//! | 8..16 | number of the write, from 1; the greater one counts |
//! | 16..24, 24..32 | cluster id, member id |
//! | 32..40, 40..48 | term, vote (0: none) |
//! | 48 | 1 while the member is [recovering](crate::Config::recovering) |
//! | 49..60 | zeros |
//! | 60..64 | CRC-32 (IEEE) of the bytes before |

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferrite_disk::{Disk, DiskFile};

use crate::error::Error;
use crate::log::{HardState, Metadata};

const MAGIC: &[u8; 8] = b"FERBALOT";

/// Bytes from one slot to the other: no disk tears both with one write.
const SLOT: u64 = 4096;

/// Bytes of a slot that are used.
const USED: usize = 64;

/// Term and vote of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ballot {
    /// Whose it is.
    pub metadata: Metadata,
    /// The greatest term seen.
    pub term: u64,
    /// Whom this member voted for in that term; 0: nobody.
    pub vote: u64,
    /// Whether it may lack entries that it has acknowledged.
    pub recovering: bool,
}

impl Ballot {
    /// Whether a log with this hard state has lost something that was promised.
    pub fn is_ahead_of(&self, state: &HardState) -> bool {
        let forgotten = self.term == state.term && self.vote != 0 && self.vote != state.vote;
        self.term > state.term || forgotten
    }
}

/// The file.
#[derive(Debug)]
pub struct BallotFile {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    /// Number of the last write.
    number: u64,
    newest: Option<Ballot>,
    /// A slot is damaged: the newest of the readable ones need not be the newest.
    damaged: bool,
}

/// What a slot holds.
enum Slot {
    Empty,
    Damaged,
    Ballot(u64, Ballot),
}

impl BallotFile {
    /// Opens the file, or makes an empty one.
    ///
    /// # Errors
    /// [`Error::Ballot`]: the disk does not let it.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<BallotFile, Error> {
        let failed = io_error(path);
        let file = match disk.exists(path).map_err(&failed)? {
            true => disk.open(path).map_err(&failed)?,
            false => {
                let file = disk.create(path).map_err(&failed)?;
                let dir = path.parent().unwrap_or(Path::new(""));
                disk.sync_dir(dir).map_err(&failed)?;
                file
            }
        };
        let mut ballots = BallotFile {
            path: path.to_path_buf(),
            file,
            number: 0,
            newest: None,
            damaged: false,
        };
        for slot in 0..2 {
            match read(ballots.file.as_ref(), slot).map_err(&failed)? {
                Slot::Empty => {}
                Slot::Damaged => ballots.damaged = true,
                Slot::Ballot(number, ballot) if number > ballots.number => {
                    (ballots.number, ballots.newest) = (number, Some(ballot));
                }
                Slot::Ballot(..) => {}
            }
        }
        Ok(ballots)
    }

    /// The newest ballot, if there is one, and certainly nothing newer.
    pub fn known(&self) -> Option<Ballot> {
        self.newest.filter(|_| !self.damaged)
    }

    /// Makes a ballot the newest, durably. Does nothing if it is.
    ///
    /// # Errors
    /// [`Error::Ballot`]: the member must not go on.
    pub fn keep(&mut self, ballot: Ballot) -> Result<(), Error> {
        if self.known() == Some(ballot) {
            return Ok(());
        }
        let failed = io_error(&self.path);
        let number = self.number + 1;
        self.file
            .write_at(&encode(number, &ballot), number % 2 * SLOT)
            .map_err(&failed)?;
        if self.damaged {
            // One slot after the other, so that nothing damaged stays.
            self.file.sync_data().map_err(&failed)?;
            self.file
                .write_at(&encode(number + 1, &ballot), (number + 1) % 2 * SLOT)
                .map_err(&failed)?;
        }
        self.file.sync_data().map_err(&failed)?;
        self.number = number + u64::from(self.damaged);
        (self.newest, self.damaged) = (Some(ballot), false);
        Ok(())
    }

    /// Keeps a promise of the member whose ballot this is: a term, and a vote in it.
    ///
    /// # Errors
    /// As [`BallotFile::keep`].
    ///
    /// # Panics
    /// If no ballot was ever kept.
    pub fn promise(&mut self, (term, vote): (u64, u64)) -> Result<(), Error> {
        let ballot = self.newest.expect("a member starts by keeping its ballot");
        self.keep(Ballot {
            term,
            vote,
            ..ballot
        })
    }

    /// The member has recovered.
    ///
    /// # Errors
    /// As [`BallotFile::keep`].
    ///
    /// # Panics
    /// If no ballot was ever kept.
    pub fn recovered(&mut self) -> Result<(), Error> {
        let ballot = self.newest.expect("a member starts by keeping its ballot");
        self.keep(Ballot {
            recovering: false,
            ..ballot
        })
    }
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> Error + use<> {
    let path = path.to_path_buf();
    move |source| Error::Ballot {
        path: path.clone(),
        source,
    }
}

fn read(file: &dyn DiskFile, slot: u64) -> io::Result<Slot> {
    let mut bytes = [0; USED];
    let end = file.len()?;
    let at = slot * SLOT;
    if end < at + USED as u64 {
        // Never written, or torn when the file grew.
        return Ok(Slot::Empty);
    }
    file.read_at(&mut bytes, at)?;
    Ok(match decode(&bytes) {
        Some((number, ballot)) => Slot::Ballot(number, ballot),
        None if bytes == [0; USED] => Slot::Empty,
        None => Slot::Damaged,
    })
}

fn encode(number: u64, ballot: &Ballot) -> [u8; USED] {
    let Ballot {
        metadata,
        term,
        vote,
        recovering,
    } = *ballot;
    let mut bytes = [0; USED];
    bytes[..8].copy_from_slice(MAGIC);
    let fields = [number, metadata.cluster_id, metadata.member_id, term, vote];
    for (field, place) in fields.iter().zip(bytes[8..48].chunks_exact_mut(8)) {
        place.copy_from_slice(&field.to_le_bytes());
    }
    bytes[48] = u8::from(recovering);
    let crc = crc32fast::hash(&bytes[..60]);
    bytes[60..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8; USED]) -> Option<(u64, Ballot)> {
    let intact =
        bytes.starts_with(MAGIC) && bytes[60..] == crc32fast::hash(&bytes[..60]).to_le_bytes();
    let mut fields = bytes[8..48].chunks_exact(8).map(|field| {
        field
            .iter()
            .rev()
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    });
    let mut next = || fields.next().filter(|_| intact);
    let number = next()?;
    let metadata = Metadata {
        cluster_id: next()?,
        member_id: next()?,
    };
    let ballot = Ballot {
        metadata,
        term: next()?,
        vote: next()?,
        recovering: bytes[48] == 1,
    };
    Some((number, ballot))
}
