//! What raft and the WAL cost per put, in time of the one thread that does both; without syncs, which depend on the disk.
//!
//! `cargo run --release -p ferrite-raft --example cost [DIR]`

#![allow(clippy::print_stdout, reason = "its output is its purpose")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ferrite_disk::{Disk, RealDisk};
use ferrite_raft::log::{Options, create};
use ferrite_raft::{ConfState, Config, Driver, Mark, Metadata};

const PAYLOAD_BYTES: usize = 256;
const PUTS: usize = 400_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    println!("{PUTS} puts of {PAYLOAD_BYTES} bytes, ns per put");
    println!(
        "{:>8} {:>8} {:>8} {:>8} {:>8}",
        "batch", "propose", "effects", "wal", "persisted"
    );
    for batch in [1, 8, 64, 512] {
        let dir = dir.join(format!("ferrite-raft-cost-{}-{batch}", std::process::id()));
        let measured = measure(&dir, batch);
        std::fs::remove_dir_all(&dir)?;
        let [propose, effects, wal, persisted] =
            measured?.map(|spent| spent.as_nanos() / PUTS as u128);
        println!("{batch:>8} {propose:>8} {effects:>8} {wal:>8} {persisted:>8}");
    }
    Ok(())
}

fn measure(dir: &Path, batch: usize) -> Result<[Duration; 4], Box<dyn std::error::Error>> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let metadata = Metadata {
        cluster_id: 1,
        member_id: 1,
    };
    let created = create(
        disk,
        &dir.join("wal"),
        &Options::default(),
        metadata,
        Mark::default(),
        None,
    )?;
    let mut wal = created.wal;
    let config = Config::new(1, 0, ConfState::new(vec![1], Vec::new()), 1);
    let mut driver = Driver::new(config, created.log)?;
    driver.campaign();
    while !wal.prepare_spare(u64::MAX)? {}

    let payload = Bytes::from(vec![b'x'; PAYLOAD_BYTES]);
    let mut proposed = 0;
    let mut clock = Clock {
        spent: [Duration::ZERO; 4],
        last: Instant::now(),
    };
    while proposed < PUTS || driver.has_effects() {
        if driver.status().leader == 1 && proposed < PUTS {
            for _ in 0..batch {
                driver.propose(payload.clone())?;
            }
            proposed += batch;
        }
        clock.lap(0);
        let effects = driver.effects();
        if let Some(last) = effects.committed.last() {
            driver.applied(last.index);
        }
        clock.lap(1);
        if let Some(append) = effects.append {
            let positions = wal.append(&append.records, &mut || append.head())?;
            clock.lap(2);
            driver.persisted(append.ticket, &positions);
            clock.lap(3);
        }
        if driver.status().applied - driver.log().mark().index > 200_000 {
            driver.compact(driver.status().applied);
            wal.release_before(driver.releasable_before())?;
        }
        clock.last = Instant::now();
    }
    Ok(clock.spent)
}

struct Clock {
    spent: [Duration; 4],
    last: Instant,
}

impl Clock {
    fn lap(&mut self, at: usize) {
        let now = Instant::now();
        self.spent[at] += now - self.last;
        self.last = now;
    }
}
