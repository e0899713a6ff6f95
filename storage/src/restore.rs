//! A start: every row of the page file is read once, for the key index, the attachments of leases,
//! and to compare counters and digest with what the file says they are.
//!
//! The rows are divided between threads. First they are read leaf by leaf ([`PageFile::leaves`]),
//! which only ever confirms that all is well. When it does not, everything is read again through
//! the tree, which is several times slower, and *that* decides what is damaged, and names it.

use std::ops::ControlFlow;

use ferrite_api::types::{LeaseId, Revision};

use crate::courtesy::Courtesy;
use crate::error::Error;
use crate::leases::Leases;
use crate::mvcc::index::{Builder, KeyIndex, Row};
use crate::mvcc::record_head;
use crate::page::{self, Meta, PageFile, RowId, RowVisitor};

/// Rows above which they are divided between threads.
const SPLIT_ROWS: u64 = 1_000;

/// More threads than this wait for memory, not for each other.
const MAX_THREADS: usize = 4;

/// How many threads should restore a file with so many rows. One where little is to be gained: then
/// a start does the same operations on the disk in the same order every time.
pub fn threads(rows: u64) -> usize {
    if rows < SPLIT_ROWS {
        return 1;
    }
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MAX_THREADS))
}

/// Rebuilds the key index, and attaches the keys to `leases`, which are those of the file.
pub(crate) fn index(page: &PageFile, meta: &Meta, leases: &mut Leases) -> Result<KeyIndex, Error> {
    let threads = threads(meta.rows);
    let all = match by_leaves(page, threads).and_then(|all| all.compared(meta)) {
        Err(error @ (Error::Corrupt { .. } | Error::Page(page::Error::Corrupt { .. }))) => {
            tracing::warn!(%error, "cannot read the rows leaf by leaf, reading them through the tree");
            by_tree(page, meta, threads)?.compared(meta)?
        }
        all => all?,
    };
    let index = all.builder.finish(threads);
    attach(leases, &index, &all.leased);
    Ok(index)
}

/// A row that names a lease.
struct Leased {
    key: Box<[u8]>,
    revision: Revision,
    lease: LeaseId,
}

/// Attaches every key whose newest record names a lease that exists.
fn attach(leases: &mut Leases, index: &KeyIndex, leased: &[Leased]) {
    let newest = leased.iter().filter(|row| {
        let latest = index.latest(&row.key);
        latest.is_some_and(|latest| latest.modified == row.revision)
    });
    for row in newest {
        leases.attach(&row.key, row.lease);
    }
}

/// What was found in a part of the rows.
#[derive(Default)]
struct Part {
    builder: Builder,
    leased: Vec<Leased>,
    rows: u64,
    digest: u64,
    /// A received snapshot is restored while the member may serve, and others on its machine.
    courtesy: Courtesy,
}

impl Part {
    fn add(&mut self, id: RowId, digest: u64, record: &[u8]) -> Result<(), Error> {
        self.courtesy.worked();
        self.rows += 1;
        self.digest = self.digest.wrapping_add(digest);
        let head = record_head(id.revision, record)?;
        let row = match id.tombstone {
            true => Row::Tombstone,
            false => Row::Put {
                created: head.created,
                version: head.version,
                record_len: u32::try_from(record.len()).unwrap_or(u32::MAX),
            },
        };
        self.builder.push(&head.key, id.revision, row);
        if head.lease != 0 {
            self.leased.push(Leased {
                key: Box::from(&head.key[..]),
                revision: id.revision,
                lease: LeaseId::new(head.lease),
            });
        }
        Ok(())
    }

    /// Adds what was found behind this part.
    fn append(&mut self, part: Self) {
        self.rows += part.rows;
        self.digest = self.digest.wrapping_add(part.digest);
        self.builder.append(part.builder);
        self.leased.extend(part.leased);
    }

    /// Compares what was found in the whole file with the meta record.
    fn compared(self, meta: &Meta) -> Result<Self, Error> {
        if (self.rows, self.digest) == (meta.rows, meta.digest) {
            return Ok(self);
        }
        let what = format!(
            "table revisions holds {} rows of digest {:016x}, its meta record says {} of {:016x}",
            self.rows, self.digest, meta.rows, meta.digest
        );
        Err(Error::Corrupt { what })
    }
}

fn by_leaves(page: &PageFile, threads: usize) -> Result<Part, Error> {
    let leaves = page.leaves()?;
    in_parallel(leaves.sections(threads), |section| {
        gather(|visit| leaves.scan(section, visit))
    })
}

fn by_tree(page: &PageFile, meta: &Meta, threads: usize) -> Result<Part, Error> {
    let parts = i64::try_from(threads).expect("a handful of threads");
    let bound = |part: i64| match part == parts {
        // The last part goes to the end, wherever that is.
        true => i64::MAX,
        false => (meta.revision + 1) / parts * part,
    };
    let ranges = (0..parts).map(|part| (bound(part), bound(part + 1)));
    in_parallel(ranges, |(from, until)| {
        gather(|visit| {
            let reader = page.reader()?;
            reader.scan_with_digests(Revision::new(from, 0), &mut |id, digest, record| match id
                .revision
                .main
                < until
            {
                true => visit(id, digest, &record),
                false => ControlFlow::Break(()),
            })
        })
    })
}

/// Does `work` for each part of the rows in a thread of its own, and puts the findings together.
fn in_parallel<P: Send>(
    parts: impl Iterator<Item = P>,
    work: impl Fn(P) -> Result<Part, Error> + Sync,
) -> Result<Part, Error> {
    std::thread::scope(|scope| {
        let work = &work;
        let started: Vec<_> = parts.map(|part| scope.spawn(move || work(part))).collect();
        let mut all = Part::default();
        for part in started {
            match part.join() {
                Ok(part) => all.append(part?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(all)
    })
}

/// What `scan` finds.
fn gather(
    scan: impl FnOnce(&mut RowVisitor<'_>) -> Result<(), page::Error>,
) -> Result<Part, Error> {
    let mut part = Part::default();
    let mut failure = None;
    scan(
        &mut |id, digest, record| match part.add(id, digest, record) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        },
    )?;
    if let Some(error) = failure {
        return Err(error);
    }
    part.builder.seal();
    Ok(part)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use bytes::Bytes;
    use ferrite_api::pb::mvccpb::KeyValue;
    use ferrite_disk::Disk;
    use ferrite_disk::sim::SimDisk;
    use prost::Message;

    use super::*;
    use crate::page::{Batch, Initial, MetaUpdate, Options, RowWrite};

    const FILE: &str = "/data/db";

    /// A page file of `rows` puts of as many keys.
    fn page_file(disk: &SimDisk, rows: i64) -> PageFile {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        disk.create_dir(Path::new("/data")).unwrap();
        let initial = Initial {
            cluster_id: 1,
            member_id: 2,
            meta: MetaUpdate::default(),
            tables: Vec::new(),
        };
        let page = PageFile::create(&disk, Path::new(FILE), Options::default(), &initial).unwrap();
        let put = |main: i64| RowWrite {
            revision: Revision::new(main, 0),
            tombstone: false,
            record: KeyValue {
                key: format!("k{}", main * 7919 % rows).into(),
                create_revision: main,
                mod_revision: main,
                version: 1,
                value: Bytes::from(vec![b'v'; 200]),
                lease: main % 3,
            }
            .encode_to_vec()
            .into(),
        };
        let batch = Batch {
            rows: (2..2 + rows).map(put).collect(),
            meta: MetaUpdate {
                revision: Some(1 + rows),
                ..MetaUpdate::default()
            },
            ..Batch::default()
        };
        page.commit(&batch).unwrap();
        page
    }

    fn restored(page: &PageFile) -> Result<(KeyIndex, Leases), Error> {
        let mut leases = Leases::load(&[])?;
        let index = index(page, &page.meta(), &mut leases)?;
        index.check_invariants();
        Ok((index, leases))
    }

    /// Damages every page behind the first ones of the file.
    fn damage(disk: &SimDisk) {
        let len = disk.read(Path::new(FILE)).unwrap().len() as u64;
        for offset in (3 * 4096 + 100..len).step_by(4096) {
            disk.flip_bit(Path::new(FILE), offset, 1).unwrap();
        }
    }

    #[test]
    fn rows_are_found_by_one_thread_and_by_several() {
        for rows in [1, 30, 5_000] {
            let page = page_file(&SimDisk::new(1), rows);
            let (index, _) = restored(&page).unwrap();
            assert_eq!(index.len(), rows as u64);
            let all = by_leaves(&page, 3).unwrap().compared(&page.meta()).unwrap();
            let leased = all.leased.len();
            assert_eq!(leased, (2..2 + rows).filter(|main| main % 3 != 0).count());
            let through_tree = by_tree(&page, &page.meta(), 3).unwrap();
            assert_eq!(through_tree.leased.len(), leased);
            let through_tree = through_tree.compared(&page.meta()).unwrap();
            let through_tree = through_tree.builder.finish(2);
            through_tree.check_invariants();
            assert_eq!(through_tree.len(), rows as u64);
        }
    }

    #[test]
    fn what_the_leaves_do_not_give_comes_through_the_tree() {
        let disk = SimDisk::new(2);
        let page = page_file(&disk, 3_000);
        // All pages are in redb's cache, which the leaves do not come from.
        damage(&disk);
        assert!(by_leaves(&page, 2).is_err());
        let (index, _) = restored(&page).unwrap();
        assert_eq!(index.len(), 3_000);
    }

    #[test]
    fn damage_is_named_as_the_tree_names_it() {
        let disk = SimDisk::new(3);
        drop(page_file(&disk, 3_000));
        let reopened: Arc<dyn Disk> = Arc::new(disk.session());
        let options = Options {
            cache_bytes: 0,
            ..Options::default()
        };
        let page = PageFile::open(&reopened, Path::new(FILE), options).unwrap();
        let find = |text: &[u8]| {
            let file = disk.read(Path::new(FILE)).unwrap();
            file.windows(text.len()).position(|at| at == text).unwrap() as u64
        };
        disk.flip_bit(Path::new(FILE), find(b"k77"), 0).unwrap();
        let error = restored(&page).unwrap_err().to_string();
        let named = "page file: corrupt revisions: page at file offset ";
        assert!(error.starts_with(named), "{error}");
    }

    #[test]
    fn counters_are_compared_with_the_meta_record() {
        let page = page_file(&SimDisk::new(4), 100);
        let mut meta = page.meta();
        meta.digest ^= 1;
        let mut leases = Leases::load(&[]).unwrap();
        let error = index(&page, &meta, &mut leases).unwrap_err().to_string();
        assert!(error.contains("100 rows of digest"), "{error}");
    }
}
