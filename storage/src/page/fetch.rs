//! Single rows straight from their leaves.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ferrite_api::types::Revision;

use super::backend::Pages;
use super::batch::RowId;
use super::error::Error;
use super::file::{PageFile, Shared};
use super::places::{Places, Spot};
use super::reader::{ChunkVisitor, Reader, record_into};
use super::row::{self, Joiner, Key};
use super::tree::{Leaf, Place};

/// Bytes of a long record that are read at once, where its leaves lie next to each other.
const READ_BYTES: usize = 64 << 10;

/// Fetches rows, each by one read of the file: where its leaf is, is known
/// ([`Places`]). A third of the cost of a [`Reader`], whose way leads through redb's cache, and no
/// lock is shared with other readers.
///
/// A row never changes, and its checksum covers its key: so what is found under the key with a good
/// checksum *is* the row, wherever it was found, even in a page that has been freed. That is why
/// neither a transaction nor page checksums are needed here. Whatever else is found proves nothing:
/// then the tree is asked, which also says what is damaged.
///
/// It does not see the file at one moment, as a [`Reader`] does: a row that is removed meanwhile may
/// still be found, or be [`Error::Missing`].
pub struct Fetcher {
    shared: Arc<Shared>,
    places: Option<Arc<Places>>,
    held: Held,
    tree: Option<Reader>,
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").finish_non_exhaustive()
    }
}

impl PageFile {
    /// Starts fetching rows. For short work: what it knows of the places grows old, and it may
    /// keep a [`Reader`].
    ///
    /// # Errors
    /// [`Error::Poisoned`].
    pub fn fetcher(&self) -> Result<Fetcher, Error> {
        let shared = self.shared();
        shared.usable()?;
        Ok(Fetcher {
            shared: shared.clone(),
            places: shared.places.read().clone(),
            held: Held::default(),
            tree: None,
        })
    }
}

impl Fetcher {
    /// The record of the put at `revision`.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is none; otherwise as [`Reader`].
    pub fn row(&mut self, revision: Revision) -> Result<Bytes, Error> {
        let (mut joiner, mut record) = (Joiner::default(), None);
        let found = self.seek(revision).and_then(|sought| {
            self.search_leaves(sought, 0, &mut |chunk, last| {
                record = joiner.push(chunk, last);
                Ok(())
            })
        });
        match (found, record) {
            (Some(()), Some(record)) => Ok(record),
            _ => self.tree()?.row(revision, false),
        }
    }

    /// Puts the record of the put at `revision` into `out`, which is as long as the caller knows
    /// the record to be.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is none; [`Error::Corrupt`] also when the record has another
    /// length; otherwise as [`Reader`]. `out` may be filled in part then.
    pub fn row_into(&mut self, revision: Revision, out: &mut [u8]) -> Result<(), Error> {
        let sought = self.seek(revision);
        self.sought_into(revision, sought, out)
    }

    /// As [`Fetcher::row_into`] for many rows, each with its place in `out`. Rows in the order of
    /// revisions are in the order of the file.
    ///
    /// # Errors
    /// As [`Fetcher::row_into`], for the first row that has one.
    pub fn rows_into(
        &mut self,
        rows: &[(Revision, Range<usize>)],
        out: &mut [u8],
    ) -> Result<(), Error> {
        let keys: Vec<_> = rows.iter().map(|(revision, _)| key(*revision)).collect();
        let spots = match &self.places {
            Some(places) => places.spots(&keys),
            None => vec![None; rows.len()],
        };
        let sought = keys.into_iter().zip(spots);
        let sought = sought.map(|(key, spot)| {
            Some(Sought {
                key: key?,
                spot: spot?,
            })
        });
        for ((revision, place), sought) in rows.iter().zip(sought) {
            self.sought_into(*revision, sought, &mut out[place.clone()])?;
        }
        Ok(())
    }

    fn sought_into(
        &mut self,
        revision: Revision,
        sought: Option<Sought>,
        out: &mut [u8],
    ) -> Result<(), Error> {
        let found =
            sought.and_then(|sought| self.search_leaves(sought, out.len(), &mut record_into(out)));
        match found {
            Some(()) => Ok(()),
            None => self.tree()?.row_into(revision, out),
        }
    }

    /// Whether a row was not found where it is said to be.
    #[cfg(test)]
    pub(super) fn asked_tree(&self) -> bool {
        self.tree.is_some()
    }

    fn tree(&mut self) -> Result<&Reader, Error> {
        match &mut self.tree {
            Some(tree) => Ok(tree),
            tree => Ok(tree.insert(Reader::new(&self.shared)?)),
        }
    }

    /// Where the record of the put at `revision` begins, if there is one.
    fn seek(&self, revision: Revision) -> Option<Sought> {
        let key = key(revision)?;
        let spot = self.places.as_ref()?.spot(&key);
        Some(Sought { key, spot })
    }

    /// Gives the chunks of a record of about `len` bytes to `take`. `None`: not found, or something
    /// about it is odd; some chunks may have been taken then.
    fn search_leaves(
        &mut self,
        Sought { mut key, spot }: Sought,
        len: usize,
        take: &mut ChunkVisitor<'_>,
    ) -> Option<()> {
        let mut leaves = self.places.as_ref()?.leaves_from(spot);
        let (mut part, mut left) = (0, len);
        loop {
            let ahead = leaves.clone();
            let place = leaves.next()?;
            if !self.held.has(place) {
                self.held.read(self.shared.pages(), ahead, left)?;
            }
            let leaf = Leaf::parse(self.held.leaf(place)?).ok()?;
            for entry in leaf.entries_from(&key)? {
                let (found, value) = entry.ok()?;
                if *found != key {
                    return None;
                }
                let (_, chunk) = row::decode_value(found, value).ok()?;
                let last = row::is_last(chunk).ok()?;
                take(chunk, last).ok()?;
                if last {
                    return Some(());
                }
                left = left.saturating_sub(chunk.len());
                part += 1;
                key = row::with_part(key, part);
            }
        }
    }
}

/// The key of the first part of the put at `revision`, if there can be one.
fn key(revision: Revision) -> Option<Key> {
    let id = RowId {
        revision,
        tombstone: false,
    };
    row::key(id, 0).ok()
}

/// The first part of a row that is looked for.
struct Sought {
    key: Key,
    /// Among the places of the same [`Fetcher`].
    spot: Spot,
}

/// The leaves that were read last, adjacent in the file.
#[derive(Default)]
struct Held {
    places: Vec<Place>,
    bytes: Vec<u8>,
}

impl Held {
    fn has(&self, place: Place) -> bool {
        self.places.contains(&place)
    }

    fn leaf(&self, place: Place) -> Option<&[u8]> {
        let before = self.places.iter().take_while(|held| **held != place);
        let start = before.map(|held| held.bytes()).sum();
        self.bytes.get(start..start + place.bytes())
    }

    /// Reads the first of `leaves`, and those after it that follow it in the file while a record
    /// of `len` bytes may go on in them.
    fn read(
        &mut self,
        pages: &Pages,
        leaves: impl Iterator<Item = Place>,
        len: usize,
    ) -> Option<()> {
        self.places.clear();
        let mut bytes = 0;
        for place in leaves {
            let follows = |last: &Place| last.first + last.pages() == place.first;
            if !self.places.last().is_none_or(follows) {
                break;
            }
            self.places.push(place);
            bytes += place.bytes();
            if bytes >= len.min(READ_BYTES) {
                break;
            }
        }
        let first = self.places.first()?.first;
        self.bytes.resize(bytes, 0);
        let read = pages.read_unchecked(first, &mut self.bytes);
        if read.is_none() {
            self.places.clear();
        }
        read
    }
}
