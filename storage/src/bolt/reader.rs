//! Reading.

use std::fmt;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use ferrite_disk::DiskFile;

use super::Error;
use super::format::{
    BRANCH, BUCKET_BYTES, HEADER_BYTES, Header, LEAF, META, META_BYTES, Meta, branch_element,
    leaf_element,
};
use crate::page::MAX_RECORD_BYTES;

/// Page sizes that are taken for possible.
const PAGE_BYTES: std::ops::RangeInclusive<u32> = 512..=1 << 20;

/// A page with all that belongs to it has at most so many bytes: bbolt leaves up to four entries
/// together, however long they are.
const MAX_PAGE_BYTES: u64 = 4 * MAX_RECORD_BYTES as u64 + (1 << 20);

/// Levels of a tree. One of so many would have 2^64 entries.
const MAX_LEVELS: usize = 64;

/// An open bbolt file. Whatever follows its pages, such as a checksum, is not looked at.
#[derive(Clone)]
pub struct BoltFile {
    file: Arc<dyn DiskFile>,
    meta: Meta,
}

impl fmt::Debug for BoltFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoltFile")
            .field("meta", &self.meta)
            .finish_non_exhaustive()
    }
}

/// A bucket, which has the entries below a page or those of a page within its own entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bucket(Tree);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Tree {
    Page(u64),
    /// The page that holds it, and its leaf.
    Inline(u64, Bytes),
}

/// An entry. Both are slices of the page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry {
    /// A pair.
    Pair {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
    },
    /// A bucket.
    Bucket {
        /// Its name.
        name: Bytes,
        /// Its content.
        bucket: Bucket,
    },
}

impl Entry {
    /// The key of a pair, or the name of a bucket.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Pair { key, .. } => key,
            Self::Bucket { name, .. } => name,
        }
    }
}

impl BoltFile {
    /// Opens a file.
    ///
    /// # Errors
    /// It cannot be read, is no bbolt file or is shorter than its meta page says.
    pub fn open(file: Arc<dyn DiskFile>) -> Result<Self, Error> {
        let bytes = file.len()?;
        let meta = newest_meta(file.as_ref(), bytes)?;
        let expected = meta.pages.checked_mul(u64::from(meta.page_bytes));
        match expected {
            Some(expected) if expected <= bytes => Ok(Self { file, meta }),
            expected => Err(Error::Cut {
                bytes,
                expected: expected.unwrap_or(u64::MAX),
            }),
        }
    }

    /// Bytes of all its pages, free ones included.
    pub fn len(&self) -> u64 {
        self.meta.pages * u64::from(self.meta.page_bytes)
    }

    /// Never: there are always the meta pages.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The bucket that holds all others.
    pub fn root(&self) -> Bucket {
        Bucket(Tree::Page(self.meta.root))
    }

    /// The bucket of that name, if there is one.
    ///
    /// # Errors
    /// The file is damaged or cannot be read.
    pub fn bucket(&self, wanted: &[u8]) -> Result<Option<Bucket>, Error> {
        // There is a handful of them.
        for entry in self.entries(&self.root()) {
            if let Entry::Bucket { name, bucket } = entry?
                && name[..] == *wanted
            {
                return Ok(Some(bucket));
            }
        }
        Ok(None)
    }

    /// The entries of a bucket in the order of their keys.
    pub fn entries(&self, bucket: &Bucket) -> Entries {
        Entries {
            file: self.clone(),
            next: Some(bucket.0.clone()),
            open: Vec::new(),
            last: None,
            pages_left: self.meta.pages,
            visited: None,
        }
    }

    pub(super) fn meta(&self) -> &Meta {
        &self.meta
    }

    /// A page with all that belongs to it.
    pub(super) fn page(&self, id: u64) -> Result<(Header, Bytes), Error> {
        let wrong = |what: String| Err(Error::Page { page: id, what });
        let page_bytes = u64::from(self.meta.page_bytes);
        if id < 2 || id >= self.meta.pages {
            return wrong(format!("is none of 2..{}", self.meta.pages));
        }
        let mut head = [0; HEADER_BYTES];
        self.file.read_at(&mut head, id * page_bytes)?;
        let Some(header) = Header::read(&head) else {
            return wrong("has no header".to_owned());
        };
        if header.id != id {
            return wrong(format!("says that it is page {}", header.id));
        }
        let pages = 1 + u64::from(header.overflow);
        if pages > self.meta.pages - id {
            return wrong(format!("goes on over {pages} pages, beyond the last"));
        }
        let bytes = pages * page_bytes;
        if bytes > MAX_PAGE_BYTES {
            return wrong(format!("has {bytes} bytes"));
        }
        let mut page = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
        self.file.read_at(&mut page, id * page_bytes)?;
        Ok((header, page.into()))
    }
}

fn newest_meta(file: &dyn DiskFile, bytes: u64) -> Result<Meta, Error> {
    let read = |offset: u64| -> Result<Result<Meta, &'static str>, Error> {
        let mut page = [0; HEADER_BYTES + META_BYTES];
        if offset.saturating_add(page.len() as u64) > bytes {
            return Ok(Err("invalid database"));
        }
        file.read_at(&mut page, offset)?;
        let header = Header::read(&page).filter(|header| header.flags & META != 0);
        let meta = match header {
            Some(_) => Meta::read(&page[HEADER_BYTES..]),
            None => Err("invalid database"),
        };
        Ok(
            meta.and_then(|meta| match PAGE_BYTES.contains(&meta.page_bytes) {
                true => Ok(meta),
                false => Err("invalid database"),
            }),
        )
    };
    let first = read(0)?;
    // Where the second is, the first says; if that is damaged, it is at one of the usual places.
    let mut candidates = vec![first];
    match first {
        Ok(meta) => candidates.push(read(u64::from(meta.page_bytes))?),
        Err(_) => {
            for shift in 10..=16 {
                let offset = 1 << shift;
                let there = read(offset)?;
                if there.is_ok_and(|meta| u64::from(meta.page_bytes) == offset) {
                    candidates.push(there);
                }
            }
        }
    }
    let newest = candidates
        .iter()
        .flatten()
        .max_by_key(|meta| meta.transaction);
    newest
        .copied()
        .ok_or(Error::Invalid(first.err().unwrap_or("invalid database")))
}

/// Walks over the entries of a bucket. After an error there are none any more.
#[derive(Debug)]
pub struct Entries {
    file: BoltFile,
    /// What is to be opened next.
    next: Option<Tree>,
    /// The pages from the root down, and how far each was read.
    open: Vec<Open>,
    /// The key of the last entry.
    last: Option<Bytes>,
    /// Pages that may still be visited: in a tree each is met once.
    pages_left: u64,
    /// The pages that were visited, with the number of those that belong to each, if somebody asks.
    visited: Option<Vec<(u64, u32)>>,
}

#[derive(Debug)]
struct Open {
    id: u64,
    is_leaf: bool,
    count: usize,
    at: usize,
    bytes: Bytes,
}

impl Iterator for Entries {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step().transpose();
        if !matches!(step, Some(Ok(_))) {
            self.open.clear();
            self.next = None;
        }
        step
    }
}

impl Entries {
    /// Takes note of visited pages from now on.
    pub(super) fn note_visits(&mut self) {
        self.visited = Some(Vec::new());
    }

    /// The pages that were visited since the last call, with the number of those that belong to each.
    pub(super) fn visits(&mut self) -> Vec<(u64, u32)> {
        self.visited
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    fn step(&mut self) -> Result<Option<Entry>, Error> {
        loop {
            if let Some(tree) = self.next.take() {
                self.descend(tree)?;
            }
            let Some(open) = self.open.last_mut() else {
                return Ok(None);
            };
            if open.at == open.count {
                self.open.pop();
                continue;
            }
            let at = open.at;
            open.at += 1;
            let wrong = |what| Error::Page {
                page: open.id,
                what,
            };
            if !open.is_leaf {
                let (_, child) = branch_element(&open.bytes, at).map_err(wrong)?;
                self.next = Some(Tree::Page(child));
                continue;
            }
            let element = leaf_element(&open.bytes, at).map_err(wrong)?;
            let key = open.bytes.slice(element.key);
            if self.last.as_ref().is_some_and(|last| *last >= key) {
                return Err(wrong(format!("element {at} is out of order")));
            }
            self.last = Some(key.clone());
            let value = open.bytes.slice(element.value);
            return Ok(Some(match element.is_bucket {
                false => Entry::Pair { key, value },
                true => Entry::Bucket {
                    name: key,
                    bucket: bucket(open.id, value)?,
                },
            }));
        }
    }

    fn descend(&mut self, tree: Tree) -> Result<(), Error> {
        let (id, header, bytes) = match tree {
            Tree::Page(id) => {
                let (header, bytes) = self.file.page(id)?;
                if let Some(visited) = &mut self.visited {
                    visited.push((id, header.overflow));
                }
                (id, header, bytes)
            }
            Tree::Inline(id, bytes) => {
                let header = Header::read(&bytes).ok_or_else(|| Error::Page {
                    page: id,
                    what: "an inline bucket has no page".to_owned(),
                })?;
                (id, header, bytes)
            }
        };
        let wrong = |what| Err(Error::Page { page: id, what });
        if self.pages_left == 0 || self.open.len() == MAX_LEVELS {
            return wrong("the tree is no tree".to_owned());
        }
        self.pages_left -= 1;
        let is_leaf = match header.flags {
            LEAF => true,
            BRANCH => false,
            flags => return wrong(format!("is neither branch nor leaf: flags {flags:#x}")),
        };
        self.open.push(Open {
            id,
            is_leaf,
            count: usize::from(header.count),
            at: 0,
            bytes,
        });
        Ok(())
    }
}

fn bucket(page: u64, mut value: Bytes) -> Result<Bucket, Error> {
    if value.len() < BUCKET_BYTES {
        return Err(Error::Page {
            page,
            what: format!("a bucket of {} bytes", value.len()),
        });
    }
    let root = value.get_u64_le();
    let _sequence = value.get_u64_le();
    Ok(Bucket(match root {
        0 => Tree::Inline(page, value),
        root => Tree::Page(root),
    }))
}
