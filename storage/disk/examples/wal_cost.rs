//! What the write-ahead log costs on this machine: fdatasync into fresh and recycled segments, and the CPU of an append.
//!
//! `cargo run --release -p ferrite-disk --example wal_cost [DIR]`; the directory should be on the disk to measure.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a measurement, not part of the product"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ferrite_disk::wal::{Options, Record, Wal};
use ferrite_disk::{Disk, RealDisk};

const RECORD_BYTES: usize = 300;

fn main() {
    let base = std::env::args_os()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = base.join(format!("wal-cost-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    for segment_bytes in [64_000_000, 8_000_000] {
        syncs(&dir.join(format!("sync-{segment_bytes}")), segment_bytes);
    }
    growing_file(&dir.join("growing"));
    for batch in [1, 64] {
        appends(&dir.join(format!("append-{batch}")), batch);
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

fn records(batch: usize) -> Vec<Record> {
    let record = Record {
        kind: 1,
        payload: Bytes::from(vec![0xa5; RECORD_BYTES]),
    };
    vec![record; batch]
}

fn percentiles(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |p: usize| took.get(took.len() * p / 1000).copied().unwrap_or_default();
    let (p50, p99, max) = (at(500), at(990), at(999));
    let n = took.len();
    println!("{what:50} n {n:6}  p50 {p50:>9.1?}  p99 {p99:>9.1?}  p99.9 {max:>9.1?}");
}

/// One record and one sync at a time, first through fresh segments, then through recycled ones.
fn syncs(dir: &Path, segment_bytes: u64) {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let options = Options {
        segment_bytes,
        spare_segments: 2,
    };
    let began = Instant::now();
    let mut wal = Wal::create(disk.clone(), dir, options.clone(), &[]).unwrap();
    println!("create with {segment_bytes} bytes: {:.1?}", began.elapsed());
    let small = records(1);
    let filler = records(2048);
    let run = |wal: &mut Wal, what: &str| {
        let mut took = Vec::new();
        for _ in 0..4000 {
            wal.append(&small, &mut Vec::new).unwrap();
            let began = Instant::now();
            wal.sync().unwrap();
            took.push(began.elapsed());
        }
        percentiles(&format!("fdatasync, {what} {segment_bytes}"), took);
    };
    run(&mut wal, "fresh segment of");
    let mut cuts = Vec::new();
    while wal.segments().end < 8 {
        let newest = wal.segments().end;
        let began = Instant::now();
        wal.append(&filler, &mut Vec::new).unwrap();
        if wal.segments().end > newest {
            cuts.push(began.elapsed());
        }
        wal.sync().unwrap();
        wal.release_before(wal.segments().end - 1).unwrap();
    }
    println!("cuts with a batch of 700 kB, the first ones without a spare: {cuts:.1?}");
    run(&mut wal, "recycled segment of");
    drop(wal);
    let began = Instant::now();
    let (_, report) = Wal::open(disk, dir, options, &mut |_, _, _| Ok(())).unwrap();
    let took = began.elapsed();
    println!("open: {took:.1?} for {} records", report.records);
}

/// For comparison: the same writes at the end of a growing file.
fn growing_file(path: &Path) {
    let file = RealDisk.create(path).unwrap();
    let mut took = Vec::new();
    for i in 0..4000 {
        file.write_at(&[0xa5; RECORD_BYTES + 36], i * (RECORD_BYTES as u64 + 36))
            .unwrap();
        let began = Instant::now();
        file.sync_data().unwrap();
        took.push(began.elapsed());
    }
    percentiles("fdatasync, growing file", took);
}

/// CPU of appends alone, no sync between: encoding, checksum and the write into the page cache.
fn appends(dir: &Path, batch: usize) {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let mut wal = Wal::create(disk, dir, Options::default(), &[]).unwrap();
    let batch_of = records(batch);
    let rounds = 120_000 / batch;
    let began = Instant::now();
    for _ in 0..rounds {
        wal.append(&batch_of, &mut Vec::new).unwrap();
    }
    let per_record = began.elapsed() / (rounds * batch) as u32;
    let bytes = wal.bytes_written() / (rounds * batch) as u64;
    println!(
        "append of {RECORD_BYTES} bytes in batches of {batch}: {per_record:?} and {bytes} bytes a record"
    );
}
