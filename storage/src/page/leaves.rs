//! The rows straight from the leaves of their tree, for a start, which reads all of them.
//!
//! redb's cursor fetches page after page through its cache and costs more than everything else that
//! a start does with a row. [`Leaves`] takes the places of the leaves from the branches above them
//! and reads neighbours in the file together. Page checksums, row checksums and the sequence of
//! parts are checked as always.
//!
//! What is known of redb's file format 3 (its `docs/design.md`) is in this module: header, table
//! definition, branch, leaf. Nothing is taken for granted. Whatever is not as expected is
//! [`Error::Corrupt`], and the caller then reads through the cursor, which decides what is damaged.
//! Likewise the caller compares counters and digest with the meta record, which redb has read.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use super::backend::Pages;
use super::batch::RowId;
use super::error::Error;
use super::file::PageFile;
use super::layout::{PAGE, REGION_PAGES};
use super::reader::Reader;
use super::row::{self, KEY_BYTES, Key, REVISIONS, Sequence};

/// Bytes that are read at once, where leaves lie next to each other: they stay in the processor's
/// cache until their rows are read.
const READ_BYTES: usize = 256 << 10;

/// A tree of rows is far lower than this.
const MAX_DEPTH: usize = 16;

/// First bytes of redb's header.
const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";

/// The version of redb's file format.
const FORMAT: u8 = 3;

const LEAF: u8 = 1;
const BRANCH: u8 = 2;

/// Is shown rows: position, what the row adds to [`Meta::digest`](super::Meta::digest), record.
pub type RowVisitor<'v> = dyn FnMut(RowId, u64, &[u8]) -> ControlFlow<()> + 'v;

/// The places of all leaves of the tree of rows, in the order of their keys.
pub struct Leaves {
    places: Vec<Place>,
    pages: Arc<Pages>,
    /// While it lives, no page of the tree is written again.
    _reader: Reader,
}

/// Where a page of the tree is: 2^order pages of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    first: u64,
    order: u32,
}

impl Place {
    /// From a page number as branches hold it: index in the region, in units of the page's own size
    /// (20 bits), region (20 bits), order (the upper 5 bits).
    fn parse(number: u64) -> Self {
        let order = (number >> 59) as u32;
        let index = number & (0xf_ffff >> order.min(20));
        let region = number >> 20 & 0xf_ffff;
        Self {
            first: 1 + region * u64::from(REGION_PAGES) + (index << order.min(20)),
            order,
        }
    }

    fn pages(self) -> u64 {
        1 << self.order
    }

    /// Fails if it lies outside the file.
    fn check(self, pages: &Pages) -> Result<(), Error> {
        if self.order > 20 || self.first + self.pages() > pages.pages() {
            return Err(odd("a page outside the file is referred to"));
        }
        Ok(())
    }

    fn bytes(self) -> usize {
        (self.pages() * PAGE) as usize
    }
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
        let pages = self.shared().pages();
        let mut places = Vec::new();
        if let Some(root) = root(pages)? {
            places.push(root);
        }
        let mut buffer = Vec::new();
        for _ in 0..MAX_DEPTH {
            let Some(first) = places.first() else { break };
            let page = read(pages, *first, &mut buffer)?;
            if page.first() == Some(&LEAF) {
                break;
            }
            // All leaves are equally deep, so this is a level of branches.
            let mut below = Vec::new();
            for place in &places {
                children(read(pages, *place, &mut buffer)?, &mut below)?;
                if below.len() as u64 > pages.pages() {
                    return Err(odd("more pages than there are in the file"));
                }
            }
            places = below;
        }
        places.iter().try_for_each(|place| place.check(pages))?;
        Ok(Leaves {
            places,
            pages: pages.clone(),
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
            checked(&self.pages, first.first, &mut buffer)?;
            let mut rest = &buffer[..];
            for place in batch {
                let (page, after) = rest.split_at(place.bytes());
                rest = after;
                for entry in Entries::new(page)? {
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

/// The root of the tree of rows; `None` if there are no rows.
fn root(pages: &Pages) -> Result<Option<Place>, Error> {
    const SLOT_BYTES: usize = 128;
    let header = pages
        .checked_header()
        .map_err(Error::io("read the header"))?
        .map_err(odd)?;
    let known = header.starts_with(&MAGIC)
        && number(&header, 12)? == PAGE as u32
        && number(&header, 16)? == 0
        && number(&header, 20)? == REGION_PAGES;
    if !known {
        return Err(odd("the header is not as expected"));
    }
    // The lowest bit of the byte behind the magic says which commit slot is the newest.
    let slot = &header[64 + usize::from(header[MAGIC.len()] & 1) * SLOT_BYTES..][..SLOT_BYTES];
    if slot[0] != FORMAT || slot[1] != 1 {
        return Err(odd("the commit slot is not as expected"));
    }
    let (mut buffer, mut level) = (Vec::new(), vec![Place::parse(long(slot, 8)?)]);
    for _ in 0..MAX_DEPTH {
        let mut below = Vec::new();
        for place in level {
            let page = read(pages, place, &mut buffer)?;
            match page.first() {
                Some(&LEAF) => {
                    if let Some(definition) = definition(page)? {
                        return root_of(definition);
                    }
                }
                _ => children(page, &mut below)?,
            }
        }
        level = below;
    }
    Err(odd("there is no table of rows"))
}

/// The definition of the table of rows in a leaf of the tree of tables: as many ends of keys as
/// there are entries, as many ends of values, keys, values.
fn definition(page: &[u8]) -> Result<Option<&[u8]>, Error> {
    let count = entry_count(page)?;
    let (mut key, mut value) = (4 + 8 * count, None);
    for entry in 0..count {
        let end = number(page, 4 + 4 * entry)? as usize;
        if page.get(key..end) == Some(REVISIONS.as_bytes()) {
            value = Some(entry);
        }
        key = end;
    }
    let Some(entry) = value else { return Ok(None) };
    let end = |entry: usize| number(page, 4 + 4 * (count + entry)).map(|end| end as usize);
    let start = match entry.checked_sub(1) {
        Some(before) => end(before)?,
        None => key,
    };
    page.get(start..end(entry)?)
        .map(Some)
        .ok_or_else(|| odd("a table definition lies outside its page"))
}

/// The root in the definition of a table, whose other fields must be those of the table of rows:
/// kind 3, keys of 15 bytes, values of any length, no alignment.
fn root_of(definition: &[u8]) -> Result<Option<Place>, Error> {
    let shape = definition.get(42..60).map(|shape| shape.split_at(6));
    let expected: (&[u8], &[u8]) = (
        &[1, KEY_BYTES as u8, 0, 0, 0, 0],
        &[0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0],
    );
    if definition.first() != Some(&3) || shape != Some(expected) {
        return Err(odd("the table of rows is not defined as expected"));
    }
    let root = Place::parse(long(definition, 10)?);
    Ok((definition[9] != 0).then_some(root))
}

/// Adds the children of a branch: their number is one more than the count in front, after a
/// checksum of 16 bytes for each comes the page number of each.
fn children(page: &[u8], out: &mut Vec<Place>) -> Result<(), Error> {
    if page.first() != Some(&BRANCH) {
        return Err(odd("a page that is no branch among branches"));
    }
    let count = entry_count(page)? + 1;
    for child in 0..count {
        out.push(Place::parse(long(page, 8 + 16 * count + 8 * child)?));
    }
    Ok(())
}

/// The entries of a leaf of rows: the ends of the values, the keys, the values.
struct Entries<'p> {
    page: &'p [u8],
    count: usize,
    next: usize,
    /// Where the next value starts.
    value: usize,
}

impl<'p> Entries<'p> {
    fn new(page: &'p [u8]) -> Result<Self, Error> {
        if page.first() != Some(&LEAF) {
            return Err(odd("a page that is no leaf among leaves"));
        }
        let count = entry_count(page)?;
        Ok(Self {
            page,
            count,
            next: 0,
            value: 4 + (4 + KEY_BYTES) * count,
        })
    }
}

impl<'p> Iterator for Entries<'p> {
    type Item = Result<(&'p Key, &'p [u8]), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.next;
        if entry == self.count {
            return None;
        }
        self.next += 1;
        let key = self.page.get(4 + 4 * self.count + KEY_BYTES * entry..);
        let end = number(self.page, 4 + 4 * entry).unwrap_or(0) as usize;
        let value = self.page.get(self.value..end);
        self.value = end;
        Some(match (key.and_then(|key| key.first_chunk()), value) {
            (Some(key), Some(value)) => Ok((key, value)),
            _ => Err(odd("an entry lies outside its leaf")),
        })
    }
}

/// How many keys a page has.
fn entry_count(page: &[u8]) -> Result<usize, Error> {
    let count = page.get(2..).and_then(|rest| rest.first_chunk());
    count
        .map(|count| usize::from(u16::from_le_bytes(*count)))
        .ok_or_else(|| odd("a page ends early"))
}

fn number(bytes: &[u8], at: usize) -> Result<u32, Error> {
    let number = bytes.get(at..).and_then(|rest| rest.first_chunk());
    number
        .map(|number| u32::from_le_bytes(*number))
        .ok_or_else(|| odd("a page ends early"))
}

fn long(bytes: &[u8], at: usize) -> Result<u64, Error> {
    let number = bytes.get(at..).and_then(|rest| rest.first_chunk());
    number
        .map(|number| u64::from_le_bytes(*number))
        .ok_or_else(|| odd("a page ends early"))
}

/// A page of the tree.
fn read<'b>(pages: &Pages, place: Place, buffer: &'b mut Vec<u8>) -> Result<&'b [u8], Error> {
    // Before any memory is taken for it.
    place.check(pages)?;
    buffer.resize(place.bytes(), 0);
    checked(pages, place.first, buffer)?;
    Ok(buffer)
}

fn checked(pages: &Pages, first: u64, buffer: &mut [u8]) -> Result<(), Error> {
    pages
        .read_checked(first, buffer)
        .map_err(Error::io("read pages"))?
        .map_err(odd)
}

fn odd(what: impl Into<String>) -> Error {
    Error::corrupt(REVISIONS, what)
}
