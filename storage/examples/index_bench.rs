//! Measures the key index: memory per key, puts, gets, counts, pruning, bulk build.
//!
//! `cargo run --release -p ferrite-storage --example index_bench [keys [leaf_slots children]]`
//!
//! Times are CPU times of the one thread, so that a busy machine disturbs little.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use ferrite_api::types::Revision;
use ferrite_storage::mvcc::index::{Builder, KeyIndex, KeyMeta, Limits, Row};
use ferrite_storage::mvcc::range::KeyRange;

const KEY_BYTES: usize = 20;
/// Views are published after each batch of applied entries; this many puts are a batch under load.
const BATCH: u64 = 64;

/// The server's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let numbers: Vec<usize> = std::env::args()
        .skip(1)
        .map(|arg| arg.parse().expect("a number"))
        .collect();
    let keys = numbers.first().map_or(1_000_000, |keys| *keys as u64);
    let mut limits = Limits::default();
    if let [_, leaf_slots, children] = numbers[..] {
        limits = Limits {
            leaf_slots,
            leaf_bytes: leaf_slots * 128,
            children,
            ..limits
        };
    }
    println!("{keys} keys of {KEY_BYTES} bytes");
    println!("-- keys at random");
    run(keys, limits, scattered);
    println!("-- keys in order");
    run(keys, limits, |n| n);
}

/// A permutation of the 64-bit numbers.
fn scattered(n: u64) -> u64 {
    let mut x = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 32;
    x = x.wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^ (x >> 32)
}

fn key(n: u64) -> [u8; KEY_BYTES] {
    let mut key = *b"key-0000000000000000";
    for (at, byte) in key[4..].iter_mut().enumerate() {
        *byte = b"0123456789abcdef"[(n >> (60 - 4 * at)) as usize & 15];
    }
    key
}

fn run(keys: u64, limits: Limits, order: fn(u64) -> u64) {
    let before = resident();
    let mut index = KeyIndex::with_limits(limits);
    let mut main = 1;
    timed("put, new key", keys, || {
        for n in 0..keys {
            put(&mut index, &key(order(n)), &mut main);
        }
    });
    memory("built by puts", &index, keys, before);

    let sample = keys.min(500_000);
    let update = |n: u64| key(order(scattered(n) % keys));
    timed("put, existing key", sample, || {
        for n in 0..sample {
            put(&mut index, &update(n), &mut main);
        }
    });
    memory("after updates", &index, keys, before);
    for batch in [BATCH, 1] {
        let mut pinned = index.clone();
        timed(
            &format!("put, root pinned every {batch} puts"),
            sample,
            || {
                for n in 0..sample {
                    if n % batch == 0 {
                        pinned = index.clone();
                    }
                    put(&mut index, &update(n + sample), &mut main);
                }
            },
        );
        drop(pinned);
    }
    timed("get", sample, || {
        for n in 0..sample {
            black_box(index.latest(&update(n)));
        }
    });
    timed("prune_step over all, per key", keys, || {
        let mut from = Some(Vec::new());
        while let Some(key) = from {
            from = index.prune_step(main, &key, 1000);
        }
    });
    memory("after pruning", &index, keys, before);

    let old = main;
    let pinned = index.clone();
    for n in 0..keys / 100 {
        put(&mut index, &update(n), &mut main);
    }
    let all = KeyRange::all();
    let tail = KeyRange::new(
        Bytes::copy_from_slice(&key(order(keys / 2))),
        &Bytes::from_static(&[0]),
    );
    let counts = [
        ("count of all, 1 % changed since", &index, &all, 20),
        ("count of a tail, 1 % changed since", &index, &tail, 20),
        (
            "count of a tail, nothing changed since",
            &pinned,
            &tail,
            20_000,
        ),
    ];
    for (what, index, range, times) in counts {
        timed(what, times, || {
            (0..times)
                .map(|_| black_box(index.count(range, old)))
                .sum::<u64>()
        });
    }
    timed("range over all, per key", keys, || {
        black_box(index.range(&all, old).count())
    });
    timed("changes of 1 %, per change", keys / 100, || {
        black_box(index.changes(&all, old, i64::MAX).count())
    });
    drop((index, pinned));

    let before = resident();
    let mut builder = Builder::with_limits(limits);
    timed("builder, push, per row", keys, || {
        for n in 0..keys {
            let row = Row::Put {
                created: n as i64 + 2,
                version: 1,
                record_len: 300,
            };
            builder.push(&key(order(n)), Revision::new(n as i64 + 2, 0), row);
        }
    });
    let mut built = KeyIndex::new();
    timed("builder, finish, per row", keys, || {
        built = builder.finish(1)
    });
    memory("built at once", &built, keys, before);
}

fn put(index: &mut KeyIndex, key: &[u8], main: &mut i64) {
    *main += 1;
    let (created, version) = index
        .latest(key)
        .map_or((*main, 1), |meta| (meta.created, meta.version + 1));
    let modified = Revision::new(*main, 0);
    index.put(
        key,
        KeyMeta {
            modified,
            created,
            version,
            record_len: 300,
        },
    );
}

fn timed<T>(what: &str, times: u64, work: impl FnOnce() -> T) {
    let start = cpu_time();
    work();
    let took = cpu_time() - start;
    println!(
        "{what:<42} {:>9.0} ns {took:>12.1?}",
        took.as_nanos() as f64 / times as f64
    );
}

/// What this thread has had of the processor.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells");
    let nanos = stat.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("the first number is the time on the processor"))
}

/// Resident memory means something only before anything has been freed: read the first figure.
fn memory(what: &str, index: &KeyIndex, keys: u64, before: u64) {
    let per_key = |bytes: u64| bytes as f64 / keys as f64 - KEY_BYTES as f64;
    println!(
        "{what:<42} {:>9.1} bytes a key beside the key (estimated), {:.1} resident",
        per_key(index.heap_bytes() as u64),
        per_key(resident().saturating_sub(before))
    );
}

/// Resident memory of this process (bytes); 0 where the system does not tell.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok())
        .unwrap_or(0)
        * 4096
}
