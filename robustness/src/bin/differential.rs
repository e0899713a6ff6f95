//! `differential`: random requests to Ferrite and to a real etcd, whose answers must be equal. See
//! [`ferrite_robustness::differential`].

use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};
use ferrite_robustness::differential::commands::{self, Outcome, Side, Unequal};
use ferrite_robustness::differential::{Binaries, Difference, Theme, run, shrink};

const USAGE: &str = "differential --ours PATH --etcd PATH [--seed N | --seeds A..B] [--steps N] [--no-shrink] [--accounts] | --etcdctl PATH [--our-etcdctl PATH]";

struct Args {
    binaries: Binaries,
    seeds: Range<u64>,
    steps: usize,
    shrink: bool,
    theme: Theme,
    /// etcd's `etcdctl`, whose commands are compared instead.
    etcdctl: Option<PathBuf>,
    /// Ferrite's, to be compared with that on etcd's server.
    our_etcdctl: Option<PathBuf>,
}

fn args() -> anyhow::Result<Args> {
    let (mut ours, mut etcd, mut etcdctl, mut our_etcdctl) = (None, None, None, None);
    let (mut seeds, mut steps, mut shrink) = (0..10, 1000, true);
    let mut theme = Theme::Data;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} wants a value"));
        match arg.as_str() {
            "--ours" => ours = Some(PathBuf::from(value()?)),
            "--etcd" => etcd = Some(PathBuf::from(value()?)),
            "--etcdctl" => etcdctl = Some(PathBuf::from(value()?)),
            "--our-etcdctl" => our_etcdctl = Some(PathBuf::from(value()?)),
            "--seed" => {
                let seed: u64 = value()?.parse().context("--seed")?;
                seeds = seed..seed + 1;
            }
            "--seeds" => {
                let text = value()?;
                let (from, to) = text.split_once("..").context("--seeds A..B")?;
                seeds = from.parse().context("--seeds")?..to.parse().context("--seeds")?;
            }
            "--steps" => steps = value()?.parse().context("--steps")?,
            "--no-shrink" => shrink = false,
            "--accounts" => theme = Theme::Accounts,
            _ => bail!("{arg} is not known\n{USAGE}"),
        }
    }
    let (Some(ours), Some(etcd)) = (ours, etcd) else {
        bail!("both binaries are needed\n{USAGE}");
    };
    Ok(Args {
        binaries: Binaries { ours, etcd },
        seeds,
        steps,
        shrink,
        theme,
        etcdctl,
        our_etcdctl,
    })
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = match args() {
        Ok(args) => args,
        Err(error) => {
            eprintln!("differential: {error:#}");
            return ExitCode::from(4);
        }
    };
    let Binaries { ours, etcd } = &args.binaries;
    let equal = match (&args.etcdctl, &args.our_etcdctl) {
        (Some(etcdctl), our_etcdctl) => {
            let program = our_etcdctl.as_ref().unwrap_or(etcdctl);
            let server = if our_etcdctl.is_some() { etcd } else { ours };
            let other = Side {
                program: etcdctl,
                server: etcd,
            };
            compare_commands([Side { program, server }, other]).await
        }
        (None, _) => compare(&args).await,
    };
    match equal {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("differential: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether no seed shows a difference.
async fn compare(args: &Args) -> anyhow::Result<bool> {
    let begun = Instant::now();
    let mut done = 0;
    for seed in args.seeds.clone() {
        let outcome = run(&args.binaries, seed, args.steps, args.theme).await;
        if let Err(difference) = outcome.with_context(|| format!("seed {seed}"))? {
            print(seed, &difference);
            if args.shrink {
                let mut report = |steps| eprintln!("{steps} steps");
                let smallest = shrink::shrink(&args.binaries, difference, &mut report).await?;
                print(seed, &smallest);
            }
            return Ok(false);
        }
        done += args.steps;
        let rate = done as f64 / begun.elapsed().as_secs_f64();
        eprintln!("seed {seed}: {done} steps, {rate:.0} a second");
    }
    println!(
        "{done} steps over {} seeds without a difference, {:.0} s",
        args.seeds.end - args.seeds.start,
        begun.elapsed().as_secs_f64()
    );
    Ok(true)
}

/// Whether every command ends alike.
async fn compare_commands(sides: [Side<'_>; 2]) -> anyhow::Result<bool> {
    let Outcome { count, unequal } = commands::compare(sides).await?;
    for Unequal {
        command,
        one,
        other,
    } in &unequal
    {
        println!("etcdctl {command}\n--- ours\n{one}\n--- etcd\n{other}\n");
    }
    println!("{count} commands, {} end otherwise", unequal.len());
    Ok(unequal.is_empty())
}

fn print(seed: u64, difference: &Difference) {
    let Difference { steps, ours, etcd } = difference;
    println!(
        "seed {seed} differs after {} steps, the last of which are:",
        steps.len()
    );
    let from = steps.len().saturating_sub(20);
    for (at, step) in steps.iter().enumerate().skip(from) {
        println!("{:5} {}", at + 1, shortened(&step.to_string()));
    }
    println!("ours: {}", shortened(&ours.to_string()));
    println!("etcd: {}", shortened(&etcd.to_string()));
}

fn shortened(text: &str) -> String {
    const MOST: usize = 4000;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text.to_owned(),
    }
}
