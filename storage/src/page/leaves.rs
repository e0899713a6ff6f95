//! The rows straight from the leaves of their tree, for a start, which reads all of them.
//!
//! redb's cursor fetches page after page through its cache and costs more than everything else that
//! a start does with a row. [`Leaves`] takes the places of the leaves from the branches above them
//! ([`Places`](super::places::Places)) and reads neighbours in the file together. Page checksums, row checksums and the sequence of
//! parts are checked as always.
//!
//! Whatever is not as expected is [`Error::Corrupt`], and the caller then reads through the cursor,
//! which decides what is damaged. Likewise the caller compares counters and digest with the meta
//! record, which redb has read.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use super::backend::Pages;
use super::batch::RowId;
use super::error::Error;
use super::file::PageFile;
use super::reader::Reader;
use super::row::{self, Sequence};
use super::tree::{self, Leaf, Place, odd};

/// Bytes that are read at once, where leaves lie next to each other: they stay in the processor's
/// cache until their rows are read.
const READ_BYTES: usize = 256 << 10;

/// Is shown rows: position, what the row adds to [`Meta::digest`](super::Meta::digest), record.
pub type RowVisitor<'v> = dyn FnMut(RowId, u64, &[u8]) -> ControlFlow<()> + 'v;

/// The places of all leaves of the tree of rows, in the order of their keys.
pub struct Leaves {
    places: Vec<Place>,
    pages: Arc<Pages>,
    /// While it lives, no page of the tree is written again.
    _reader: Reader,
}

impl std::fmt::Debug for Leaves {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leaves")
            .field("leaves", &self.places.len())
            .finish_non_exhaustive()
    }
}

impl PageFile {
    /// Finds the leaves of the tree of rows as of the last commit.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Corrupt`] when something is damaged or not as this build knows it:
    /// [`Reader`] tells which.
    pub fn leaves(&self) -> Result<Leaves, Error> {
        let reader = self.reader()?;
        let shared = self.shared();
        // Under the lock, so that no commit comes between.
        let _no_commit = shared.commit.lock();
        let places = shared.update_places()?;
        Ok(Leaves {
            places: places.all().collect(),
            pages: shared.pages().clone(),
            _reader: reader,
        })
    }
}

impl Leaves {
    /// Divides the leaves into so many sections of about one size.
    pub fn sections(&self, sections: usize) -> impl Iterator<Item = Range<usize>> {
        let (leaves, sections) = (self.places.len(), sections.max(1));
        (0..sections).map(move |n| leaves * n / sections..leaves * (n + 1) / sections)
    }

    /// Visits the rows that begin in a section, in ascending order, until `visit` breaks.
    ///
    /// # Errors
    /// As for [`PageFile::leaves`]. Rows before the damage were visited.
    pub fn scan(&self, section: Range<usize>, visit: &mut RowVisitor<'_>) -> Result<(), Error> {
        let mut buffer = Vec::new();
        let (mut sequence, mut joined) = (Sequence::default(), Vec::new());
        // What a section begins with may belong to a row that began in the one before it.
        let mut begun = section.start == 0;
        let mut at = section.start;
        while at < section.end || sequence.is_open() {
            let batch = self.batch(at, section.end.max(at + 1));
            let [first, ..] = *batch else {
                return sequence.end().map_err(odd);
            };
            let bytes = batch.iter().map(|place| place.bytes()).sum();
            buffer.resize(bytes, 0);
            tree::checked(&self.pages, first.first, &mut buffer)?;
            let mut rest = &buffer[..];
            for place in batch {
                let (page, after) = rest.split_at(place.bytes());
                rest = after;
                for entry in Leaf::parse(page)?.iter() {
                    let (key, value) = entry?;
                    let corrupt = |what: String| odd(format!("{}: {what}", row::describe(key)));
                    let part = row::parse(key).ok_or_else(|| corrupt("not a row".to_owned()))?;
                    if !begun && part.part != 0 {
                        continue;
                    }
                    begun = true;
                    if at >= section.end && !sequence.is_open() {
                        return Ok(());
                    }
                    let (_, chunk) = row::decode_value(key, value).map_err(corrupt)?;
                    let summary = sequence.step(part, chunk).map_err(corrupt)?;
                    let record = match summary {
                        Some(_) if joined.is_empty() => chunk,
                        _ => {
                            joined.extend_from_slice(chunk);
                            &joined[..]
                        }
                    };
                    let Some(row) = summary else { continue };
                    if visit(row.id, row.digest, record).is_break() {
                        return Ok(());
                    }
                    joined.clear();
                }
                at += 1;
            }
        }
        Ok(())
    }

    /// The leaves from `at` on and before `end` that lie next to each other in the file and are
    /// read together; none only at the end of all.
    fn batch(&self, at: usize, end: usize) -> &[Place] {
        let places = &self.places[at..end.min(self.places.len())];
        let adjacent = |a: &Place, b: &Place| a.first + a.pages() == b.first;
        let run = places.chunk_by(adjacent).next().unwrap_or_default();
        let mut bytes = 0;
        let fitting = run.iter().take_while(|place| {
            bytes += place.bytes();
            bytes <= READ_BYTES
        });
        &run[..fitting.count().max(1).min(run.len())]
    }
}
