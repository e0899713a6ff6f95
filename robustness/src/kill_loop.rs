//! kill -9 under load, again and again: every acknowledged write is there after the restart, the
//! revision and the digest are the model's, leases are neither lost nor back again, and nothing is
//! half applied.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use ferrite_client::{Client, GetOptions};
use ferrite_disk::{Disk, RealDisk};
use ferrite_storage::page::{self, PageFile};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::leases::Leases;
use crate::ledger::{self, Fate, Ledger, Verdict, Write};
use crate::process::Process;

/// What a loop does.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Kills.
    pub rounds: u32,
    /// Clients that write at the same time.
    pub clients: u32,
    /// Acknowledged writes of a round before the kill, at most.
    pub writes: u64,
    /// Decides keys, values and the moment of each kill.
    pub seed: u64,
}

/// Runs the loop. `report` gets a line per round.
///
/// # Errors
/// The first violation found.
pub async fn run(
    binary: &Path,
    dir: &Path,
    plan: Plan,
    report: &mut dyn FnMut(&str),
) -> anyhow::Result<()> {
    let mut server = Process::new(binary, dir, &["--snapshot-count", "500"])?;
    let (mut ledger, mut leases) = (Ledger::default(), Leases::default());
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let numbers = Arc::new(AtomicU64::new(0));
    server.start().await?;
    for round in 1..=plan.rounds {
        let kill_after = rng.random_range(1..=plan.writes);
        load(
            &mut server,
            &plan,
            kill_after,
            rng.random(),
            &numbers,
            &mut ledger,
            &mut leases,
        )
        .await?;

        server
            .start()
            .await
            .with_context(|| format!("round {round}: restart after kill -9"))?;
        let verdict = check(&server, &mut ledger, &mut leases)
            .await
            .with_context(|| format!("round {round}"))?;
        server.stop()?;
        let digest = stored_digest(&server.data_dir())?;
        ensure!(
            digest == verdict.digest,
            "round {round}: digest {digest:016x} stored, the writes make {:016x}",
            verdict.digest
        );
        report(&format!(
            "round {round}: killed after {kill_after} acknowledged; {} acknowledged in all, {} applied \
             without an answer; {} leases; revision {} digest {digest:016x} as modelled",
            ledger.acknowledged(),
            verdict.unacknowledged,
            leases.len(),
            verdict.revision,
        ));
        server.start().await?;
    }
    Ok(())
}

/// Writes from many clients until `kill_after` writes are acknowledged, then kills the server.
async fn load(
    server: &mut Process,
    plan: &Plan,
    kill_after: u64,
    seed: u64,
    numbers: &Arc<AtomicU64>,
    ledger: &mut Ledger,
    leases: &mut Leases,
) -> anyhow::Result<()> {
    let lease = leases.grant(&server.endpoint()).await?;
    let acknowledged = Arc::new(AtomicU64::new(0));
    let enough = Arc::new(tokio::sync::Notify::new());
    let killed = Arc::new(AtomicBool::new(false));
    let churn = std::mem::take(leases).churn(server.endpoint(), Arc::clone(&killed));
    let churn = tokio::spawn(churn);
    let mut tasks = Vec::new();
    for client in 0..plan.clients {
        let config = ferrite_client::Config::new([server.endpoint()]).max_attempts(1);
        let connection = Client::connect(config)
            .await?
            .with_timeout(Duration::from_secs(10));
        let mut rng = StdRng::seed_from_u64(seed ^ u64::from(client));
        let (numbers, acknowledged) = (Arc::clone(numbers), Arc::clone(&acknowledged));
        let (enough, killed) = (Arc::clone(&enough), Arc::clone(&killed));
        tasks.push(tokio::spawn(async move {
            let mut entries = Vec::new();
            while !killed.load(Ordering::Acquire) {
                let number = numbers.fetch_add(1, Ordering::Relaxed);
                let write = Write::random(&mut rng, number, lease);
                let result = connection.txn(write.txn()).await;
                let fate = match result {
                    Ok(response) => {
                        if acknowledged.fetch_add(1, Ordering::AcqRel) + 1 == kill_after {
                            enough.notify_one();
                        }
                        Fate::Acknowledged(response.header.map_or(0, |header| header.revision))
                    }
                    Err(_) => Fate::Unknown,
                };
                entries.push((write, fate));
                if fate == Fate::Unknown {
                    break;
                }
            }
            entries
        }));
    }
    enough.notified().await;
    server.kill()?;
    killed.store(true, Ordering::Release);
    for task in tasks {
        for (write, fate) in task.await? {
            ledger.enter(write, fate);
        }
    }
    *leases = churn.await??;
    Ok(())
}

async fn check(
    server: &Process,
    ledger: &mut Ledger,
    leases: &mut Leases,
) -> anyhow::Result<Verdict> {
    let config = ferrite_client::Config::new([server.endpoint()]);
    let client = Client::connect(config)
        .await?
        .with_timeout(Duration::from_secs(60));
    let (pairs, revision) =
        ledger::everything(&client, ledger.first_key(), GetOptions::new()).await?;
    let verdict = ledger.check(&pairs, revision)?;
    leases.check(&server.endpoint(), &pairs).await?;
    Ok(verdict)
}

/// The digest in the page file of a server that was stopped in order.
fn stored_digest(data_dir: &Path) -> anyhow::Result<u64> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let path = data_dir.join("member/snap/db");
    let page = PageFile::open(&disk, &path, page::Options::default())?;
    Ok(page.meta().digest)
}
