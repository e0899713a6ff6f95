//! Writing: a file in one pass; see the [module](super).

use bytes::{BufMut, Bytes, BytesMut};

use super::Error;
use super::format::{
    BRANCH, BUCKET_BYTES, ELEMENT_BYTES, HEADER_BYTES, Header, IS_BUCKET, LEAF, META, META_BYTES,
    Meta, NO_FREELIST,
};

/// The size of a page: what bbolt takes on most systems. It reads any.
const PAGE_BYTES: usize = 4096;

/// A node is complete with so many bytes: 16 pages, so that what the last of them leaves free is little.
const NODE_BYTES: usize = 16 * PAGE_BYTES - HEADER_BYTES;

/// The longest key; the number is bbolt's.
const MAX_KEY_BYTES: usize = 32_768;

/// What a bucket will hold, at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Contents {
    /// Entries.
    pub entries: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Bytes of the longest key.
    pub longest_key: u64,
}

impl Contents {
    /// The same and one entry more.
    pub fn add(&mut self, key: usize, value: usize) {
        self.entries += 1;
        self.bytes += (key + value) as u64;
        self.longest_key = self.longest_key.max(key as u64);
    }

    /// Pages that are enough for a bucket of these contents.
    fn pages(&self) -> u64 {
        let (node, page) = (NODE_BYTES as u64, PAGE_BYTES as u64);
        let element = ELEMENT_BYTES as u64;
        let mut pages: u64 = 0;
        let mut bytes = self
            .bytes
            .saturating_add(self.entries.saturating_mul(element));
        loop {
            // All nodes but the last have at least `node` bytes, and each leaves a part of a page free.
            let nodes = bytes / node + 1;
            let full = bytes.saturating_add(nodes.saturating_mul(HEADER_BYTES as u64));
            pages = pages.saturating_add(full / page).saturating_add(nodes);
            if nodes == 1 {
                return pages;
            }
            bytes = nodes.saturating_mul(element + self.longest_key);
        }
    }
}

/// Writes a file; see the [module](super). Buckets come one after another, and entries within them,
/// in ascending order.
#[derive(Debug)]
pub struct Writer {
    /// Bytes that nobody has taken yet.
    out: BytesMut,
    /// Pages of the whole file.
    pages: u64,
    /// The next page.
    next: u64,
    /// The bucket that is being written: its name, and its nodes that are not complete, from the
    /// leaves up.
    bucket: Option<(Bytes, Vec<Level>)>,
    /// The leaf of all buckets.
    root: Node,
}

/// The nodes of a level of a tree.
#[derive(Debug, Default)]
struct Level {
    node: Node,
    /// The first key of the node.
    first: Bytes,
}

/// A node in the making.
#[derive(Debug, Default)]
struct Node {
    elements: Vec<Element>,
    /// Keys and values.
    data: BytesMut,
}

#[derive(Debug)]
struct Element {
    key: u32,
    what: What,
}

#[derive(Debug)]
enum What {
    Value { len: u32, flags: u32 },
    Child(u64),
}

impl Node {
    fn bytes(&self) -> usize {
        self.elements.len() * ELEMENT_BYTES + self.data.len()
    }

    fn value(&mut self, key: &[u8], value: &[u8], flags: u32) -> Result<(), Error> {
        let len = u32::try_from(value.len())
            .map_err(|_| Error::Write(format!("a value of {} bytes", value.len())))?;
        self.element(key, What::Value { len, flags })?;
        self.data.put_slice(value);
        Ok(())
    }

    fn element(&mut self, key: &[u8], what: What) -> Result<(), Error> {
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            return Err(Error::Write(format!("a key of {} bytes", key.len())));
        }
        self.elements.push(Element {
            key: key.len() as u32,
            what,
        });
        self.data.put_slice(key);
        Ok(())
    }

    /// Appends the node as pages, and empties it. Returns how many pages.
    fn write(&mut self, id: u64, flags: u16, out: &mut BytesMut) -> Result<u64, Error> {
        let pages = (HEADER_BYTES + self.bytes()).div_ceil(PAGE_BYTES);
        let (Ok(count), Ok(overflow)) =
            (u16::try_from(self.elements.len()), u32::try_from(pages - 1))
        else {
            return Err(Error::Write(format!("a node of {pages} pages")));
        };
        let end = out.len() + pages * PAGE_BYTES;
        out.reserve(pages * PAGE_BYTES);
        let header = Header {
            id,
            flags,
            count,
            overflow,
        };
        header.write(out);
        let (mut before, mut at) = (self.elements.len() * ELEMENT_BYTES, 0);
        for element in self.elements.drain(..) {
            // From this element to its key: the elements from here on, and the data before it.
            let pos = u32::try_from(before + at)
                .map_err(|_| Error::Write("a node of 4 GiB".to_owned()))?;
            before -= ELEMENT_BYTES;
            at += element.key as usize;
            match element.what {
                What::Value { len, flags } => {
                    at += len as usize;
                    for field in [flags, pos, element.key, len] {
                        out.put_u32_le(field);
                    }
                }
                What::Child(page) => {
                    out.put_u32_le(pos);
                    out.put_u32_le(element.key);
                    out.put_u64_le(page);
                }
            }
        }
        out.put_slice(&self.data);
        self.data.clear();
        out.resize(end, 0);
        Ok(pages as u64)
    }
}

impl Writer {
    /// Begins a file of buckets with these contents at most.
    pub fn new(buckets: impl IntoIterator<Item = (Bytes, Contents)>) -> Self {
        let mut root = Contents::default();
        let mut pages = 2_u64;
        for (name, contents) in buckets {
            root.add(name.len(), BUCKET_BYTES);
            pages = pages.saturating_add(contents.pages());
        }
        // The root is one node, however many buckets there are.
        let root_bytes = HEADER_BYTES as u64 + root.bytes + root.entries * ELEMENT_BYTES as u64;
        let root_pages = root_bytes.div_ceil(PAGE_BYTES as u64);
        pages = pages.saturating_add(root_pages);
        let mut writer = Self {
            out: BytesMut::new(),
            pages,
            next: 2,
            bucket: None,
            root: Node::default(),
        };
        writer.metas(pages - root_pages);
        writer
    }

    /// The length of the file in bytes.
    pub fn len(&self) -> u64 {
        self.pages.saturating_mul(PAGE_BYTES as u64)
    }

    /// Never: there are always the meta pages.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Begins the next bucket. Their names ascend.
    ///
    /// # Errors
    /// The buckets so far are larger than announced.
    pub fn bucket(&mut self, name: Bytes) -> Result<(), Error> {
        self.end_bucket()?;
        self.bucket = Some((name, vec![Level::default()]));
        Ok(())
    }

    /// Adds an entry to the bucket that was begun last. Keys ascend.
    ///
    /// # Errors
    /// The entry is too long, or there are more than announced.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let Some((_, levels)) = &mut self.bucket else {
            return Err(Error::Write("an entry without a bucket".to_owned()));
        };
        let leaves = &mut levels[0];
        if leaves.node.elements.is_empty() {
            leaves.first = Bytes::copy_from_slice(key);
        }
        leaves.node.value(key, value, 0)?;
        let mut at = 0;
        while let Some((_, levels)) = &self.bucket
            && levels[at].node.bytes() >= NODE_BYTES
        {
            self.complete(at)?;
            at += 1;
        }
        Ok(())
    }

    /// The bytes that are there, and were not taken before.
    pub fn take(&mut self) -> Bytes {
        self.out.split().freeze()
    }

    /// Bytes that [`Writer::take`] would give.
    pub fn ready(&self) -> usize {
        self.out.len()
    }

    /// Ends the last bucket. The file ends with what this returns.
    ///
    /// # Errors
    /// The buckets are larger than announced.
    pub fn finish(mut self) -> Result<Tail, Error> {
        self.end_bucket()?;
        let root = (HEADER_BYTES + self.root.bytes()).div_ceil(PAGE_BYTES) as u64;
        let id = self.pages.saturating_sub(root);
        let free = id.checked_sub(self.next).ok_or_else(|| self.overrun())?;
        let mut last = BytesMut::new();
        self.root.write(id, LEAF, &mut last)?;
        Ok(Tail {
            free: free.saturating_mul(PAGE_BYTES as u64),
            parts: [self.out.freeze(), last.freeze()],
        })
    }

    fn metas(&mut self, root: u64) {
        for transaction in 0..2 {
            let header = Header {
                id: transaction,
                flags: META,
                count: 0,
                overflow: 0,
            };
            let meta = Meta {
                page_bytes: PAGE_BYTES as u32,
                root,
                freelist: NO_FREELIST,
                pages: self.pages,
                transaction,
            };
            let mut content = Vec::with_capacity(META_BYTES);
            meta.write(&mut content);
            header.write(&mut self.out);
            self.out.put_slice(&content);
            let end = PAGE_BYTES * (1 + usize::from(transaction == 1));
            self.out.resize(end, 0);
        }
    }

    /// Writes the node of a level, and enters it into the level above.
    fn complete(&mut self, at: usize) -> Result<(), Error> {
        let id = self.write(at)?;
        let Some((_, levels)) = &mut self.bucket else {
            return Ok(());
        };
        let first = std::mem::take(&mut levels[at].first);
        if levels.len() == at + 1 {
            levels.push(Level::default());
        }
        let above = &mut levels[at + 1];
        above.node.element(&first, What::Child(id))?;
        if above.node.elements.len() == 1 {
            above.first = first;
        }
        Ok(())
    }

    /// Writes the node of a level. Returns its page.
    fn write(&mut self, at: usize) -> Result<u64, Error> {
        let id = self.next;
        if let Some((_, levels)) = &mut self.bucket {
            let flags = if at == 0 { LEAF } else { BRANCH };
            self.next += levels[at].node.write(id, flags, &mut self.out)?;
        }
        match self.next <= self.pages {
            true => Ok(id),
            false => Err(self.overrun()),
        }
    }

    fn end_bucket(&mut self) -> Result<(), Error> {
        let mut at = 0;
        while let Some((_, levels)) = &self.bucket {
            let node = &levels[at].node;
            if at + 1 < levels.len() {
                if !node.elements.is_empty() {
                    self.complete(at)?;
                }
                at += 1;
                continue;
            }
            let root = match node.elements[..] {
                // A node with one child is not needed: the child is the root.
                [
                    Element {
                        what: What::Child(child),
                        ..
                    },
                ] => child,
                _ => self.write(at)?,
            };
            self.enter_bucket(root)?;
        }
        Ok(())
    }

    fn enter_bucket(&mut self, root: u64) -> Result<(), Error> {
        if let Some((name, _)) = self.bucket.take() {
            let mut value = Vec::with_capacity(BUCKET_BYTES);
            value.put_u64_le(root);
            value.put_u64_le(0);
            self.root.value(&name, &value, IS_BUCKET)?;
        }
        Ok(())
    }

    fn overrun(&self) -> Error {
        Error::Write(format!(
            "more entries or bytes than were announced for {} pages",
            self.pages
        ))
    }
}

/// The end of a file.
#[derive(Debug)]
pub struct Tail {
    /// Bytes of free pages between the parts.
    free: u64,
    parts: [Bytes; 2],
}

impl Tail {
    /// The next bytes, `most` at most; empty at the end.
    pub fn take(&mut self, most: usize) -> Bytes {
        let [first, last] = &mut self.parts;
        if !first.is_empty() {
            return first.split_to(first.len().min(most));
        }
        if self.free > 0 {
            let zeros = self.free.min(most as u64);
            self.free -= zeros;
            return Bytes::from(vec![0; usize::try_from(zeros).unwrap_or(most)]);
        }
        last.split_to(last.len().min(most))
    }
}
