//! The pages of redb's trees, read without redb.
//!
//! redb's cursor fetches page after page through its cache, which costs several times as much as
//! what is read. Where rows are read by the thousand, their leaves are therefore found and read here.
//!
//! What is known of redb's file format 3 (its `docs/design.md`) is in this module: header, table
//! definition, branch, leaf. Nothing is taken for granted: whatever is not as expected is
//! [`Error::Corrupt`], and the caller then asks redb, which decides what is damaged.

use super::backend::Pages;
use super::error::Error;
use super::layout::{PAGE, REGION_PAGES};
use super::row::{KEY_BYTES, Key, REVISIONS};

/// A tree of rows is far lower than this.
pub(super) const MAX_DEPTH: usize = 16;

/// First bytes of redb's header.
const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";

/// The version of redb's file format.
const FORMAT: u8 = 3;

const LEAF: u8 = 1;
const BRANCH: u8 = 2;

/// Where a page of a tree is: 2^order pages of the file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Place {
    pub(super) first: u64,
    pub(super) order: u32,
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

    pub(super) fn pages(self) -> u64 {
        1 << self.order
    }

    pub(super) fn bytes(self) -> usize {
        (self.pages() * PAGE) as usize
    }

    /// Fails if it lies outside the file.
    pub(super) fn check(self, pages: &Pages) -> Result<(), Error> {
        if self.order > 20 || self.first + self.pages() > pages.pages() {
            return Err(odd("a page outside the file is referred to"));
        }
        Ok(())
    }
}

/// Reads a page of a tree, checksum included.
pub(super) fn read<'b>(
    pages: &Pages,
    place: Place,
    buffer: &'b mut Vec<u8>,
) -> Result<&'b [u8], Error> {
    // Before any memory is taken for it.
    place.check(pages)?;
    buffer.resize(place.bytes(), 0);
    checked(pages, place.first, buffer)?;
    Ok(buffer)
}

/// Reads adjacent pages, checksums included.
pub(super) fn checked(pages: &Pages, first: u64, buffer: &mut [u8]) -> Result<(), Error> {
    pages
        .read_checked(first, buffer)
        .map_err(Error::io("read pages"))?
        .map_err(odd)
}

/// The root of the tree of rows as of the last commit; `None` if there are no rows.
pub(super) fn root(pages: &Pages) -> Result<Option<Place>, Error> {
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
            if is_leaf(page) {
                if let Some(definition) = definition(page)? {
                    return root_of(definition);
                }
            } else {
                below.extend(children(page)?);
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

pub(super) fn is_leaf(page: &[u8]) -> bool {
    page.first() == Some(&LEAF)
}

/// A branch of the tree of rows: after a checksum of 16 bytes for each child comes the page number
/// of each, then the keys, one fewer than children. A child holds keys up to the key of its number,
/// inclusive; the last one all that follow.
pub(super) struct Branch<'p> {
    page: &'p [u8],
    children: usize,
}

impl<'p> Branch<'p> {
    pub(super) fn parse(page: &'p [u8]) -> Result<Self, Error> {
        if page.first() != Some(&BRANCH) {
            return Err(odd("a page that is no branch among branches"));
        }
        let children = entry_count(page)? + 1;
        if page.len() < 8 + 24 * children {
            return Err(odd("a branch lies outside its page"));
        }
        Ok(Self { page, children })
    }

    /// The children and the greatest key that each can hold, `None` for the last.
    pub(super) fn bounded(&self) -> Result<Vec<(Place, Option<&'p Key>)>, Error> {
        let keys = 8 + 24 * self.children;
        (0..self.children)
            .map(|child| {
                let key = match child + 1 < self.children {
                    true => {
                        let key = self.page.get(keys + KEY_BYTES * child..);
                        let key = key.and_then(|key| key.first_chunk());
                        Some(key.ok_or_else(|| odd("a key lies outside its branch"))?)
                    }
                    false => None,
                };
                Ok((self.child(child)?, key))
            })
            .collect()
    }

    fn child(&self, child: usize) -> Result<Place, Error> {
        Ok(Place::parse(long(
            self.page,
            8 + 16 * self.children + 8 * child,
        )?))
    }
}

/// The children of a branch of any tree.
fn children(page: &[u8]) -> Result<Vec<Place>, Error> {
    let branch = Branch::parse(page)?;
    (0..branch.children)
        .map(|child| branch.child(child))
        .collect()
}

/// A leaf of the tree of rows: the ends of the values, the keys, the values.
#[derive(Clone, Copy)]
pub(super) struct Leaf<'p> {
    page: &'p [u8],
    entries: usize,
}

impl<'p> Leaf<'p> {
    pub(super) fn parse(page: &'p [u8]) -> Result<Self, Error> {
        if !is_leaf(page) {
            return Err(odd("a page that is no leaf among leaves"));
        }
        let entries = entry_count(page)?;
        if page.len() < 4 + (4 + KEY_BYTES) * entries {
            return Err(odd("a leaf lies outside its page"));
        }
        Ok(Self { page, entries })
    }

    /// Keys and values in order.
    pub(super) fn iter(self) -> impl Iterator<Item = Result<(&'p Key, &'p [u8]), Error>> {
        (0..self.entries).map(move |entry| Ok((self.key(entry), self.value(entry)?)))
    }

    /// The entries from `key` on, which must be there; `None` if it is not.
    pub(super) fn entries_from(
        self,
        key: &Key,
    ) -> Option<impl Iterator<Item = Result<(&'p Key, &'p [u8]), Error>> + use<'p>> {
        let (mut low, mut high) = (0, self.entries);
        while low < high {
            let middle = low.midpoint(high);
            match self.key(middle).cmp(key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(self.iter().skip(middle)),
            }
        }
        None
    }

    fn key(&self, entry: usize) -> &'p Key {
        let key = &self.page[4 + 4 * self.entries + KEY_BYTES * entry..];
        key.first_chunk().expect("the length was checked")
    }

    fn value(&self, entry: usize) -> Result<&'p [u8], Error> {
        let start = match entry.checked_sub(1) {
            Some(before) => number(self.page, 4 + 4 * before)? as usize,
            None => 4 + (4 + KEY_BYTES) * self.entries,
        };
        let end = number(self.page, 4 + 4 * entry)? as usize;
        let value = self.page.get(start..end);
        value.ok_or_else(|| odd("an entry lies outside its leaf"))
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

pub(super) fn odd(what: impl Into<String>) -> Error {
    Error::corrupt(REVISIONS, what)
}
