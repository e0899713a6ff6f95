//! Tests of the page file as a whole, over the simulated disk.

mod crash;
mod damage;
mod model;
mod rebuild;
mod round_trip;
mod space;
mod unreservable;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ferrite_api::types::Revision;
use ferrite_disk::Disk;
use ferrite_disk::sim::SimDisk;

use super::*;

const FILE: &str = "/data/db";

/// A small cache, so that pages come from the disk again and again.
fn options() -> Options {
    Options {
        cache_bytes: 256 << 10,
        headroom_bytes: 1 << 20,
        ..Options::default()
    }
}

fn disk_with_directory(disk: SimDisk) -> SimDisk {
    disk.create_dir(Path::new("/data")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

fn as_disk(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

fn create(disk: &SimDisk) -> PageFile {
    PageFile::create(&as_disk(disk), Path::new(FILE), options(), &initial()).unwrap()
}

fn open(disk: &SimDisk) -> Result<PageFile, Error> {
    PageFile::open(&as_disk(disk), Path::new(FILE), options())
}

fn initial() -> Initial {
    Initial {
        cluster_id: 0xc1,
        member_id: 0x3e,
        meta: MetaUpdate {
            conf_state: Some(ConfState {
                voters: vec![0x3e],
                ..ConfState::default()
            }),
            ..MetaUpdate::default()
        },
        tables: vec![put_small(Table::Members, b"3e", b"a member")],
    }
}

fn put_small(table: Table, key: &'static [u8], value: &'static [u8]) -> TableWrite {
    TableWrite::put(table, Bytes::from_static(key), Bytes::from_static(value))
}

fn id(main: i64, sub: i64, tombstone: bool) -> RowId {
    RowId {
        revision: Revision::new(main, sub),
        tombstone,
    }
}

/// A record of `len` bytes that differs from those of other rows.
fn record(id: RowId, len: usize) -> Bytes {
    let Revision { main, sub } = id.revision;
    let seed = (main.wrapping_mul(31) ^ sub.wrapping_mul(7) ^ i64::from(id.tombstone)) as u64;
    (0..len as u64)
        .map(|at| (seed.wrapping_mul(at + 1) >> 3) as u8)
        .collect()
}

fn row(id: RowId, len: usize) -> RowWrite {
    RowWrite {
        revision: id.revision,
        tombstone: id.tombstone,
        record: record(id, len),
    }
}

/// Puts of the main revisions `mains`, each of `len` bytes.
fn puts(mains: std::ops::RangeInclusive<i64>, len: usize) -> Batch {
    let meta = MetaUpdate {
        consistent_index: Some(*mains.end() as u64 + 100),
        revision: Some(*mains.end()),
        ..MetaUpdate::default()
    };
    let rows = mains.map(|main| row(id(main, 0, false), len)).collect();
    Batch {
        rows,
        meta,
        ..Batch::default()
    }
}

fn all_rows(reader: &Reader) -> Result<Vec<(RowId, Bytes)>, Error> {
    let mut rows = Vec::new();
    reader.scan(Revision::default(), &mut |revision, tombstone, record| {
        rows.push((
            RowId {
                revision,
                tombstone,
            },
            record,
        ));
        ControlFlow::Continue(())
    })?;
    Ok(rows)
}

/// The same, leaf by leaf and in so many sections.
fn all_rows_of_leaves(file: &PageFile, sections: usize) -> Result<Vec<(RowId, Bytes)>, Error> {
    let leaves = file.leaves()?;
    let mut rows = Vec::new();
    for section in leaves.sections(sections) {
        leaves.scan(section, &mut |id, digest, record| {
            assert_eq!(record_digest(id, record).unwrap(), digest);
            rows.push((id, Bytes::copy_from_slice(record)));
            ControlFlow::Continue(())
        })?;
    }
    Ok(rows)
}

fn verify(file: &PageFile) -> VerifyReport {
    file.verify(&mut |_| ControlFlow::Continue(())).unwrap()
}

/// The file is intact, as far as it can tell.
fn assert_intact(file: &PageFile) {
    let report = verify(file);
    assert_eq!(report.damage, []);
    assert!(report.complete);
    assert_eq!(report.rows, file.meta().rows);
    assert_eq!(
        file.shared().late_reservations(),
        0,
        "redb grew beyond what was reserved"
    );
}
