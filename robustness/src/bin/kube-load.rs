//! `kube-load [MINUTES] [ETCD] [NAME=NUMBER ...]`: runs a control plane's load for MINUTES (default 30)
//! on a server, kills it now and then, and checks the history of all clients and watchers. ETCD is the
//! server binary, by default the one beside this program. Numbers: `kill-seconds` (180; 0 for never),
//! `writes` (1000 a second), `objects` (20000), `compact-seconds` (60), `seed` (1).

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use ferrite_robustness::kube::{Plan, run};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match main_result().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kube-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn main_result() -> anyhow::Result<()> {
    let mut plan = Plan {
        duration: Duration::from_secs(30 * 60),
        kill_every: Duration::from_secs(180),
        compact_every: Duration::from_secs(60),
        writes_per_second: 1_000,
        objects: 20_000,
        seed: 1,
    };
    let mut binary = std::env::current_exe()?.with_file_name("etcd");
    for (at, arg) in std::env::args().skip(1).enumerate() {
        let number = |text: &str| {
            text.parse::<u32>()
                .with_context(|| format!("{text} is not a number"))
        };
        match arg.split_once('=') {
            Some(("kill-seconds", text)) => {
                plan.kill_every = Duration::from_secs(number(text)?.into())
            }
            Some(("compact-seconds", text)) => {
                plan.compact_every = Duration::from_secs(number(text)?.into())
            }
            Some(("writes", text)) => plan.writes_per_second = number(text)?,
            Some(("objects", text)) => plan.objects = number(text)?,
            Some(("seed", text)) => plan.seed = number(text)?.into(),
            None if at == 0 => {
                let minutes: f64 = arg
                    .parse()
                    .with_context(|| format!("{arg} is not a number of minutes"))?;
                plan.duration = Duration::from_secs_f64(minutes * 60.0);
            }
            None if at == 1 => binary = PathBuf::from(arg),
            _ => bail!("what is {arg}?"),
        }
    }
    let dir = tempfile::tempdir()?;
    let report = run(&binary, dir.path(), plan, &mut |line| println!("{line}")).await?;
    for (name, rate, p50, p99) in &report.totals.kinds {
        println!("{name}: {rate:.0}/s, p50 {p50} us, p99 {p99} us");
    }
    println!(
        "{} kills; nothing lost, nothing contradicted: {:?}",
        report.kills, report.history
    );
    Ok(())
}
