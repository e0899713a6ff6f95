//! A snapshot of a cluster that is being written to.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, ensure};
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::etcdserverpb::kv_client::KvClient;
use ferrite_disk::RealDisk;
use ferrite_storage::etcd::Database;

use super::seen::look;
use super::{Programs, channel, restored, save};
use crate::fleet::Fleet;
use crate::process::Process;

/// Keys that are written over and over.
const KEYS: u64 = 20_000;

/// Writes a while before the snapshot begins.
const BEFORE: u64 = 30_000;

/// Runs the scenario with so many clients; `tell` is told what was found.
///
/// # Errors
/// Something differs, or a program fails.
pub async fn run_through(
    ours: &Programs,
    dir: &Path,
    clients: u64,
    tell: &mut dyn FnMut(&str),
) -> anyhow::Result<()> {
    let fleet = Fleet::start(&ours.etcd, &dir.join("cluster"), 3, &[]).await?;
    let (stop, written) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let mut writers = Vec::new();
    for client in 0..clients {
        let member = &fleet.members[usize::try_from(client % 3)?];
        let kv = KvClient::new(channel(member).await?);
        let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
        writers.push(tokio::spawn(write(kv, client, stop, written)));
    }
    while written.load(Ordering::Relaxed) < BEFORE {
        tokio::task::yield_now().await;
    }
    let snapshot = dir.join("snapshot.db");
    let (begun, before) = (Instant::now(), written.load(Ordering::Relaxed));
    let bytes = save(&fleet.members[1], &snapshot).await?;
    let (took, during) = (begun.elapsed(), written.load(Ordering::Relaxed) - before);
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await??;
    }
    ensure!(during > 0, "writes go on meanwhile");
    let database = Database::open(RealDisk::open_read_only(&snapshot)?)?;
    let revision = database.status(&mut |_, _| {})?.revision;
    tell(&format!(
        "a snapshot of {bytes} bytes at revision {revision} in {took:?}, {during} writes meanwhile"
    ));
    let expected = look(&fleet.members[0], &[revision]).await?.keys;
    drop(fleet);
    let source = [
        OsStr::new("snapshot"),
        OsStr::new("restore"),
        snapshot.as_os_str(),
    ];
    for members in [1, 3] {
        let dir = dir.join(format!("restored-{members}"));
        let restored = restored(&ours.etcdutl, &ours.etcd, &dir, members, &source).await?;
        for member in &restored {
            let found = look(member, &[revision]).await?;
            ensure!(
                found.keys == expected,
                "{found:?} is found, {expected:?} was there"
            );
            ensure!(found.revision == revision, "it is at {}", found.revision);
        }
        put_one(restored.last().context("there is one")?).await?;
        tell(&format!(
            "restored as {members}: all equal, and writes go on"
        ));
    }
    Ok(())
}

async fn write(
    mut kv: KvClient<tonic::transport::Channel>,
    client: u64,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
) -> anyhow::Result<()> {
    let mut number = client;
    while !stop.load(Ordering::Relaxed) {
        number = number
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(client + 1);
        let put = pb::PutRequest {
            key: format!("key{}", (number >> 33) % KEYS).into(),
            value: number.to_string().repeat(10).into(),
            ..Default::default()
        };
        kv.put(put).await?;
        written.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

async fn put_one(member: &Process) -> anyhow::Result<()> {
    let mut kv = KvClient::new(channel(member).await?);
    let put = pb::PutRequest {
        key: "new".into(),
        ..Default::default()
    };
    kv.put(put).await?;
    Ok(())
}
