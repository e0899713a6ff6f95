//! Measures what reading rows from the page file costs: batches of rows far apart, as a page of
//! neighbouring keys that were written in any order, and of adjacent rows, as after a load in key
//! order.
//!
//! `cargo run --release -p ferrite-storage --example page_read [rows [bytes of a record]]`
//!
//! The file is a few hundred megabytes in the system's temporary directory and in the system's
//! cache; redb's own cache is the server's.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ferrite_api::types::Revision;
use ferrite_disk::{Disk, RealDisk};
use ferrite_storage::page::{Batch, Initial, MetaUpdate, Options, PageFile, RowWrite};

/// Rows of a page as Kubernetes asks for them.
const BATCH: u64 = 500;
/// Rows of one commit.
const COMMIT: u64 = 50_000;
/// Batches that are read.
const ROUNDS: u64 = 400;

/// The server's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let numbers: Vec<u64> = std::env::args()
        .skip(1)
        .map(|arg| arg.parse().expect("a number"))
        .collect();
    let rows = numbers.first().copied().unwrap_or(1_000_000);
    let bytes = numbers.get(1).copied().unwrap_or(300) as usize;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let page = build(dir.path(), rows, bytes);
    let scattered = |round: u64, n: u64| mix(round * BATCH + n) % rows;
    let sorted = |round: u64, n: u64| rows / BATCH * n + mix(round) % (rows / BATCH);
    let adjacent = |round: u64, n: u64| mix(round) % (rows - BATCH) + n;
    measure("scattered", &page, &scattered);
    measure("far apart, ascending", &page, &sorted);
    measure("adjacent", &page, &adjacent);
}

fn build(dir: &Path, rows: u64, bytes: usize) -> PageFile {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let options = Options {
        cache_bytes: 24 << 20,
        ..Options::default()
    };
    let page = PageFile::create(&disk, &dir.join("db"), options, &Initial::default())
        .expect("a new page file");
    for first in (0..rows).step_by(COMMIT as usize) {
        let rows = (first..rows.min(first + COMMIT))
            .map(|n| RowWrite {
                revision: revision(n),
                tombstone: false,
                record: Bytes::from(vec![n as u8; bytes]),
            })
            .collect();
        let batch = Batch {
            rows,
            meta: MetaUpdate::default(),
            ..Batch::default()
        };
        page.commit(&batch).expect("a commit");
    }
    page
}

fn measure(name: &str, page: &PageFile, row: &dyn Fn(u64, u64) -> u64) {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|round| {
            let rows: Vec<Revision> = (0..BATCH).map(|n| revision(row(round, n))).collect();
            let begin = Instant::now();
            let reader = page.reader().expect("a reader");
            for row in &rows {
                black_box(reader.row(*row, false).expect("a row"));
            }
            begin.elapsed()
        })
        .collect();
    times.sort_unstable();
    let us = |at: usize| times[at].as_secs_f64() * 1e6 / BATCH as f64;
    println!(
        "{name}: {:.2} us a row at the median, {:.2} at best",
        us(times.len() / 2),
        us(0)
    );
}

fn revision(n: u64) -> Revision {
    Revision::new(n as i64 + 2, 0)
}

/// A permutation of the 64-bit numbers.
fn mix(n: u64) -> u64 {
    let mut x = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 32;
    x = x.wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^ (x >> 32)
}
