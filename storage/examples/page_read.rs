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
use std::time::Duration;

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
    let adjacent = |round: u64, n: u64| mix(round) % (rows - BATCH) + n;
    measure("scattered", &page, &scattered, bytes);
    measure("adjacent", &page, &adjacent, bytes);
}

fn build(dir: &Path, rows: u64, bytes: usize) -> PageFile {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let options = Options {
        cache_bytes: 16 << 20,
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

fn measure(name: &str, page: &PageFile, row: &dyn Fn(u64, u64) -> u64, bytes: usize) {
    let tree = timed(row, &mut |rows| {
        let reader = page.reader().expect("a reader");
        for row in rows {
            black_box(reader.row(*row, false).expect("a row"));
        }
    });
    // As listings do it: in the order of the file, each to its place.
    let mut out = vec![0; bytes * BATCH as usize];
    let leaves = timed(row, &mut |rows| {
        let mut fetcher = page.fetcher().expect("a fetcher");
        let mut places: Vec<_> = rows.iter().zip(out.chunks_exact_mut(bytes)).collect();
        places.sort_unstable_by_key(|(row, _)| **row);
        for (row, place) in places {
            fetcher.row_into(*row, place).expect("a row");
        }
        black_box(&mut out);
    });
    println!(
        "{name:<10} {tree:>6.2} us a row through the tree one by one, {leaves:>5.2} from the leaves in their order"
    );
}

/// CPU time of a row, microseconds.
fn timed(row: &dyn Fn(u64, u64) -> u64, read: &mut dyn FnMut(&[Revision])) -> f64 {
    let begin = cpu_time();
    for round in 0..ROUNDS {
        let rows: Vec<Revision> = (0..BATCH).map(|n| revision(row(round, n))).collect();
        read(&rows);
    }
    (cpu_time() - begin).as_secs_f64() * 1e6 / (ROUNDS * BATCH) as f64
}

/// What this thread has had of the processor.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells");
    let nanos = stat.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("the first number is the time on the processor"))
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
