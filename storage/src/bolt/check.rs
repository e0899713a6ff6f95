//! Whether a file is what bbolt would have written: the check of `bbolt check`, and of etcd's
//! `snapshot status`.

use bytes::Buf;

use super::Error;
use super::format::{FREELIST, HEADER_BYTES, NO_FREELIST};
use super::reader::{BoltFile, Bucket, Entry};

/// More are not looked for.
const MAX_FAULTS: usize = 100;

/// Buckets within buckets; etcd has none.
const MAX_DEPTH: usize = 8;

/// Something that is wrong with a file.
pub type Fault = String;

/// Looks at every page that is in use: each must be reached once, be what its header says and have its
/// keys in order; if there is a list of free pages, it must name all others. Reads the whole file, in
/// memory of one bit a page.
///
/// # Errors
/// The disk.
pub fn check(file: &BoltFile) -> Result<Vec<Fault>, Error> {
    let pages = file.meta().pages;
    let mut check = Check {
        file,
        used: vec![0; usize::try_from(pages.div_ceil(64)).unwrap_or(usize::MAX)],
        faults: Vec::new(),
    };
    check.bucket(&file.root(), 0)?;
    if file.meta().freelist != NO_FREELIST {
        check.freelist()?;
    }
    Ok(check.faults)
}

struct Check<'f> {
    file: &'f BoltFile,
    /// A bit for each page that was met.
    used: Vec<u64>,
    faults: Vec<Fault>,
}

impl Check<'_> {
    fn bucket(&mut self, bucket: &Bucket, depth: usize) -> Result<(), Error> {
        let mut entries = self.file.entries(bucket);
        entries.note_visits();
        let mut within = Vec::new();
        while self.faults.len() < MAX_FAULTS {
            let entry = entries.next();
            for (id, overflow) in entries.visits() {
                self.meet(id, overflow.into());
            }
            match entry {
                None => break,
                Some(Err(Error::Io(error))) => return Err(error.into()),
                Some(Err(error)) => {
                    self.faults.push(error.to_string());
                    break;
                }
                Some(Ok(Entry::Bucket { bucket, .. })) => within.push(bucket),
                Some(Ok(Entry::Pair { .. })) => {}
            }
        }
        if !within.is_empty() && depth == MAX_DEPTH {
            self.faults
                .push("buckets within buckets without end".to_owned());
            return Ok(());
        }
        for bucket in within {
            self.bucket(&bucket, depth + 1)?;
        }
        Ok(())
    }

    fn meet(&mut self, id: u64, overflow: u64) {
        for page in id..=id.saturating_add(overflow) {
            let Some(word) = self
                .used
                .get_mut(usize::try_from(page / 64).unwrap_or(usize::MAX))
            else {
                return;
            };
            let bit = 1 << (page % 64);
            if *word & bit != 0 {
                self.faults
                    .push(format!("page {page}: multiple references"));
                return;
            }
            *word |= bit;
        }
    }

    fn is_used(&self, page: u64) -> bool {
        let word = self
            .used
            .get(usize::try_from(page / 64).unwrap_or(usize::MAX));
        word.is_some_and(|word| word & (1 << (page % 64)) != 0)
    }

    fn freelist(&mut self) -> Result<(), Error> {
        let id = self.file.meta().freelist;
        let (header, bytes) = match self.file.page(id) {
            Ok(page) => page,
            Err(Error::Io(error)) => return Err(error.into()),
            Err(error) => {
                self.faults.push(error.to_string());
                return Ok(());
            }
        };
        if header.flags != FREELIST {
            self.faults.push(format!("page {id}: is no freelist"));
            return Ok(());
        }
        self.meet(id, header.overflow.into());
        let mut list = bytes.slice(HEADER_BYTES..);
        // A number that is too large for the header comes first in the list.
        let count = match header.count {
            u16::MAX if list.len() >= 8 => list.get_u64_le(),
            count => count.into(),
        };
        if count > list.len() as u64 / 8 {
            self.faults.push(format!(
                "page {id}: {count} free pages are listed, and not there"
            ));
            return Ok(());
        }
        for _ in 0..count {
            let free = list.get_u64_le();
            match self.is_used(free) {
                true => self.faults.push(format!("page {free}: reachable freed")),
                false if free >= self.file.meta().pages => {
                    self.faults.push(format!("page {free}: free, and outside"));
                }
                false => self.meet(free, 0),
            }
            if self.faults.len() >= MAX_FAULTS {
                return Ok(());
            }
        }
        for page in 2..self.file.meta().pages {
            if !self.is_used(page) && self.faults.len() < MAX_FAULTS {
                self.faults
                    .push(format!("page {page}: unreachable unfreed"));
            }
        }
        Ok(())
    }
}
