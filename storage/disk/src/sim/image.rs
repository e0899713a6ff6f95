//! The content of one file: pages shared between all images that hold the same bytes.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

/// Pages are the unit of sharing, of allocation, and of what a full disk can still take.
pub(super) const PAGE_BYTES: u64 = 4096;
/// Pages per chunk. A write copies one chunk's pointers and one page where they are shared.
const CHUNK_PAGES: u64 = 64;
/// No file grows beyond this, as on a real file system.
const MAX_FILE_BYTES: u64 = 1 << 44;

type Page = [u8; PAGE_BYTES as usize];
type Chunk = [Option<Arc<Page>>; CHUNK_PAGES as usize];

/// Zeros are written a lot (segments are, before their first use), so all pages of them are one.
static ZERO_PAGE: LazyLock<Arc<Page>> = LazyLock::new(|| Arc::new([0; PAGE_BYTES as usize]));

/// A file's bytes at one moment. Cloning is O(1); clones share what neither has changed since.
///
/// A page that is absent reads as zeros; it takes no space unless it is reserved.
#[derive(Debug, Clone, Default)]
pub(super) struct Image {
    len: u64,
    /// Pages below this are allocated even if absent.
    reserved_pages: u64,
    /// Pages that are present or reserved.
    allocated_pages: u64,
    chunks: Arc<BTreeMap<u64, Arc<Chunk>>>,
}

impl Image {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn allocated_bytes(&self) -> u64 {
        self.allocated_pages * PAGE_BYTES
    }

    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (page, within, part) in pieces(offset, buf.len()) {
            match self.page(page) {
                Some(bytes) => buf[part].copy_from_slice(&bytes[within]),
                None => buf[part].fill(0),
            }
        }
        Ok(())
    }

    pub(super) fn write(&mut self, data: &[u8], offset: u64) {
        for (page, within, part) in pieces(offset, data.len()) {
            self.write_page(page, within, &data[part]);
        }
        self.len = self.len.max(offset + data.len() as u64);
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let keep = len.div_ceil(PAGE_BYTES);
            self.drop_pages(keep);
            self.reserved_pages = self.reserved_pages.min(keep);
            let within = (len % PAGE_BYTES) as usize;
            if within != 0 && self.page(len / PAGE_BYTES).is_some() {
                let zeros = [0; PAGE_BYTES as usize];
                self.write_page(
                    len / PAGE_BYTES,
                    within..PAGE_BYTES as usize,
                    &zeros[within..],
                );
            }
        }
        self.len = len;
        self.count();
    }

    /// Makes the bytes `[0, len)` take space.
    pub(super) fn reserve(&mut self, len: u64) {
        self.reserved_pages = self.reserved_pages.max(len.div_ceil(PAGE_BYTES));
        self.count();
    }

    /// Pages that a reservation of `[0, len)` would add.
    pub(super) fn missing_for_reserve(&self, len: u64) -> u64 {
        let mut after = self.clone();
        after.reserve(len);
        after.allocated_pages - self.allocated_pages
    }

    /// How many of the bytes of a write can be stored if only `free_pages` more pages can be allocated.
    pub(super) fn writable(&self, offset: u64, len: usize, free_pages: u64) -> usize {
        let mut free = free_pages;
        for (page, _, part) in pieces(offset, len) {
            if page >= self.reserved_pages && self.page(page).is_none() {
                if free == 0 {
                    return part.start;
                }
                free -= 1;
            }
        }
        len
    }

    fn page(&self, page: u64) -> Option<&Page> {
        let chunk = self.chunks.get(&(page / CHUNK_PAGES))?;
        chunk[(page % CHUNK_PAGES) as usize].as_deref()
    }

    fn write_page(&mut self, page: u64, within: Range<usize>, data: &[u8]) {
        let chunks = Arc::make_mut(&mut self.chunks);
        let chunk = chunks
            .entry(page / CHUNK_PAGES)
            .or_insert_with(|| Arc::new([const { None }; CHUNK_PAGES as usize]));
        let slot = &mut Arc::make_mut(chunk)[(page % CHUNK_PAGES) as usize];
        if slot.is_none() && page >= self.reserved_pages {
            self.allocated_pages += 1;
        }
        if data.len() as u64 == PAGE_BYTES && data.iter().all(|&byte| byte == 0) {
            *slot = Some(ZERO_PAGE.clone());
            return;
        }
        let bytes = slot.get_or_insert_with(|| ZERO_PAGE.clone());
        Arc::make_mut(bytes)[within].copy_from_slice(data);
    }

    fn drop_pages(&mut self, from: u64) {
        let chunks = Arc::make_mut(&mut self.chunks);
        chunks.split_off(&from.div_ceil(CHUNK_PAGES));
        if let Some(chunk) = chunks.get_mut(&(from / CHUNK_PAGES)) {
            let chunk = Arc::make_mut(chunk);
            chunk[(from % CHUNK_PAGES) as usize..].fill(None);
        }
    }

    /// Counts the allocated pages anew: for the rare operations that change many at once.
    fn count(&mut self) {
        let beyond =
            |chunk: u64, slot: usize| chunk * CHUNK_PAGES + slot as u64 >= self.reserved_pages;
        let present: usize = self
            .chunks
            .iter()
            .map(|(&number, chunk)| {
                let slots = chunk.iter().enumerate();
                slots
                    .filter(|(slot, page)| page.is_some() && beyond(number, *slot))
                    .count()
            })
            .sum();
        self.allocated_pages = self.reserved_pages + present as u64;
    }
}

/// Whether a file may reach this far.
pub(super) fn check_bounds(offset: u64, len: u64) -> io::Result<()> {
    match offset.checked_add(len) {
        Some(end) if end <= MAX_FILE_BYTES => Ok(()),
        _ => Err(io::ErrorKind::FileTooLarge.into()),
    }
}

/// The pages that `[offset, offset + len)` touches: page number, range within the page, range within the buffer.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, Range<usize>, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let start = (at % PAGE_BYTES) as usize;
        let n = (len - done).min(PAGE_BYTES as usize - start);
        let part = done..done + n;
        done += n;
        Some((at / PAGE_BYTES, start..start + n, part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(image: &Image) -> Vec<u8> {
        let mut bytes = vec![0xff; image.len() as usize];
        image.read(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn writes_across_pages_and_holes_read_back() {
        let mut image = Image::default();
        image.write(b"end", PAGE_BYTES * 70 - 1);
        image.write(b"begin", 3);
        let mut expected = vec![0; PAGE_BYTES as usize * 70 + 2];
        expected[3..8].copy_from_slice(b"begin");
        expected[PAGE_BYTES as usize * 70 - 1..].copy_from_slice(b"end");
        assert_eq!(content(&image), expected);
        assert_eq!(image.allocated_bytes(), 3 * PAGE_BYTES);
    }

    #[test]
    fn reading_past_the_end_is_an_error() {
        let mut image = Image::default();
        image.write(b"12345", 0);
        let mut buf = [0; 2];
        assert!(image.read(&mut buf, 3).is_ok());
        let error = image.read(&mut buf, 4).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(image.read(&mut buf, u64::MAX).is_err());
    }

    #[test]
    fn clones_do_not_see_later_writes() {
        let mut image = Image::default();
        image.write(&[1; 9000], 0);
        let before = image.clone();
        image.write(&[2; 10], 4090);
        assert_eq!(content(&before), vec![1; 9000]);
        assert_eq!(content(&image)[4090..4100], [2; 10]);
    }

    #[test]
    fn cutting_and_extending_leaves_zeros() {
        let mut image = Image::default();
        image.write(&[7; 3 * PAGE_BYTES as usize], 0);
        image.set_len(10);
        assert_eq!(image.allocated_bytes(), PAGE_BYTES);
        image.set_len(5000);
        let mut expected = vec![0; 5000];
        expected[..10].fill(7);
        assert_eq!(content(&image), expected);
        assert_eq!(image.allocated_bytes(), PAGE_BYTES);
    }

    #[test]
    fn reservation_counts_once() {
        let mut image = Image::default();
        image.write(&[1; 10], 5 * PAGE_BYTES);
        assert_eq!(image.missing_for_reserve(3 * PAGE_BYTES), 3);
        assert_eq!(image.missing_for_reserve(6 * PAGE_BYTES), 5);
        image.reserve(3 * PAGE_BYTES);
        assert_eq!(image.allocated_bytes(), 4 * PAGE_BYTES);
        image.write(&[1; 10], PAGE_BYTES);
        assert_eq!(image.allocated_bytes(), 4 * PAGE_BYTES);
        assert_eq!(image.writable(2 * PAGE_BYTES, 8192, 0), 4096);
        assert_eq!(image.writable(2 * PAGE_BYTES, 8192, 1), 8192);
        assert_eq!(image.writable(0, 100, 0), 100);
    }
}
