//! `fleet SCENARIO [NAME=NUMBER ...] [ETCD]`: runs a cluster of real processes through a scenario, and
//! prints what it took. ETCD is the server binary, by default the one beside this program.
//!
//! | Scenario | Numbers |
//! |---|---|
//! | `leader-kill`: kill -9 of the leader | `members` (3), `rounds` (10), `between` (1500) |
//! | `rolling-restart`: SIGTERM of one member after the other | `members` (3), `rounds` (3), `between` (500) |
//! | `partitions`: members cut off from each other, in a network of their own (needs root and iproute2) | `members` (3), `hold` (30 s) |
//! | `replace`: a learner is added and promoted and a member removed, until all are others | `members` (3), `keys` (1000000) |
//! | `lagging`: a member comes back by snapshot; sender and receiver killed meanwhile, unless `harm` is 0 | `members` (3), `keys` (200000), `rounds` (6), `value` (1000 bytes), `harm` (1) |
//! | `downgrade`: to the version before and up again, kill -9 at each step (`previous=PATH`, by default the `etcd-previous` beside this program) | `members` (3), `between` (100) |
//!
//! `between`: acknowledged writes between two events. Of every load: `clients` (8), `pace-ms` (10),
//! `seed` (1). The data of a run that found a violation is kept.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use ferrite_robustness::fleet::{
    downgrade, lagging, leader_kill, load, partitions, replace, rolling,
};
use tokio::signal::unix::{SignalKind, signal};

/// Two election timeouts, as long as nobody sets another: a new leader is there in this time, mostly.
const LIMIT: Duration = Duration::from_secs(2);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    match main_result().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fleet: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The numbers of the command line.
struct Numbers(BTreeMap<String, u64>);

impl Numbers {
    fn take(&mut self, name: &str, default: u64) -> u64 {
        self.0.remove(name).unwrap_or(default)
    }

    fn size(&mut self, name: &str, default: u64) -> anyhow::Result<usize> {
        Ok(usize::try_from(self.take(name, default))?)
    }

    fn count(&mut self, name: &str, default: u64) -> anyhow::Result<u32> {
        Ok(u32::try_from(self.take(name, default))?)
    }

    fn load(&mut self) -> anyhow::Result<load::Plan> {
        Ok(load::Plan {
            clients: self.count("clients", 8)?,
            pace: Duration::from_millis(self.take("pace-ms", 10)),
            again: false,
            pinned: self.take("pinned", 0) != 0,
            base: 1,
            seed: self.take("seed", 1),
        })
    }

    /// Nothing may be left that no scenario asked for.
    fn finish(self) -> anyhow::Result<()> {
        let left = self.0.into_keys().next();
        ensure!(left.is_none(), "what is {}?", left.unwrap_or_default());
        Ok(())
    }
}

async fn main_result() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let scenario = args.next().context("which scenario?")?;
    let mut numbers = BTreeMap::new();
    let mut binary = std::env::current_exe()?.with_file_name("etcd");
    let mut previous = binary.with_file_name("etcd-previous");
    for arg in args {
        match arg.split_once('=') {
            Some(("previous", path)) => previous = PathBuf::from(path),
            Some((name, text)) => {
                let number = text
                    .parse()
                    .with_context(|| format!("{text} is not a number"))?;
                numbers.insert(name.to_owned(), number);
            }
            None => binary = PathBuf::from(arg),
        }
    }
    ensure!(binary.exists(), "{} is not there", binary.display());
    let dir = tempfile::tempdir()?;
    // Processes and networks are to go when this process is asked to.
    let mut terminate = signal(SignalKind::terminate())?;
    let result = tokio::select! {
        result = scenario_result(&scenario, Numbers(numbers), (binary, previous), dir.path()) => result,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("terminated")),
    };
    if result.is_err() {
        eprintln!("fleet: the data is in {}", dir.keep().display());
    }
    result
}

async fn scenario_result(
    scenario: &str,
    mut numbers: Numbers,
    (binary, previous): (PathBuf, PathBuf),
    dir: &std::path::Path,
) -> anyhow::Result<()> {
    let print = &mut |line: &str| println!("{line}");
    let load = numbers.load()?;
    match scenario {
        "leader-kill" => {
            let plan = leader_kill::Plan {
                members: numbers.size("members", 3)?,
                rounds: numbers.count("rounds", 10)?,
                writes_between: numbers.take("between", 1500),
                load,
            };
            numbers.finish()?;
            let report = leader_kill::run(&binary, dir, &plan, print).await?;
            table(&report.table(LIMIT));
            ensure!(
                report.recovery.at(50) <= LIMIT,
                "most recoveries took longer than {LIMIT:?}"
            );
        }
        "rolling-restart" => {
            let plan = rolling::Plan {
                members: numbers.size("members", 3)?,
                rounds: numbers.count("rounds", 3)?,
                writes_between: numbers.take("between", 500),
                load,
            };
            numbers.finish()?;
            let report = rolling::run(&binary, dir, &plan, print).await?;
            table(&report.table());
            ensure!(
                report.failed_twice.is_empty(),
                "writes failed on a second endpoint, too: {:?}",
                report.failed_twice
            );
            ensure!(
                report.not_handed_over == 0,
                "{} leaders ended before another led",
                report.not_handed_over
            );
        }
        "partitions" => {
            let plan = partitions::Plan {
                members: numbers.size("members", 3)?,
                hold: Duration::from_secs(numbers.take("hold", 30)),
                load,
            };
            numbers.finish()?;
            let report = partitions::run(&binary, dir, &plan, print).await?;
            table(&report.table());
            ensure!(report.violations.is_empty(), "{:#?}", report.violations);
        }
        "replace" => {
            let plan = replace::Plan {
                members: numbers.size("members", 3)?,
                keys: numbers.count("keys", 1_000_000)?,
                load,
            };
            numbers.finish()?;
            let report = replace::run(&binary, dir, &plan, print).await?;
            table(&report.table());
        }
        "lagging" => {
            let plan = lagging::Plan {
                members: numbers.size("members", 3)?,
                keys: numbers.count("keys", 200_000)?,
                value_bytes: numbers.size("value", 1_000)?,
                rounds: numbers.count("rounds", 6)?,
                harm: numbers.take("harm", 1) != 0,
                load,
            };
            numbers.finish()?;
            let report = lagging::run(&binary, dir, &plan, print).await?;
            table(&report.table());
        }
        "downgrade" => {
            let plan = downgrade::Plan {
                members: numbers.size("members", 3)?,
                writes_between: numbers.take("between", 100),
                load,
            };
            numbers.finish()?;
            let report = downgrade::run(&binary, &previous, dir, &plan, print).await?;
            table(&report.table());
        }
        _ => bail!("no scenario is called {scenario}"),
    }
    Ok(())
}

fn table(lines: &[String]) {
    println!();
    for line in lines {
        println!("{line}");
    }
}
