//! `sim`: runs seeds of the cluster simulation. See [`ferrite_robustness::cluster`].

use std::ops::Range;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};
use ferrite_robustness::cluster::counts::Counts;
use ferrite_robustness::cluster::mutant::Mutant;
use ferrite_robustness::cluster::{Time, Violation, run};

const USAGE: &str = "sim --seed N [--trace] | --seeds A..B  [--mutant NAME]";

struct Args {
    seeds: Range<u64>,
    trace: bool,
    mutant: Option<Mutant>,
}

fn args() -> anyhow::Result<Args> {
    let mut parsed = Args {
        seeds: 0..100,
        trace: false,
        mutant: None,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} wants a value"));
        match arg.as_str() {
            "--seed" => {
                let seed: u64 = value()?.parse().context("--seed")?;
                parsed.seeds = seed..seed + 1;
            }
            "--seeds" => {
                let text = value()?;
                let (from, to) = text.split_once("..").context("--seeds A..B")?;
                parsed.seeds = from.parse().context("--seeds")?..to.parse().context("--seeds")?;
            }
            "--trace" => parsed.trace = true,
            "--mutant" => parsed.mutant = Some(value()?.parse().map_err(anyhow::Error::msg)?),
            _ => bail!("{arg} is not known\n{USAGE}"),
        }
    }
    Ok(parsed)
}

fn main() -> ExitCode {
    let args = match args() {
        Ok(args) => args,
        Err(error) => {
            eprintln!("sim: {error:#}");
            return ExitCode::from(4);
        }
    };
    let (begun, mut counts, mut time) = (Instant::now(), Counts::default(), Time::ZERO);
    let (mut seeds, mut digest) = (0_u64, 0_u64);
    for seed in args.seeds {
        match run(seed, args.mutant, args.trace) {
            Ok(report) => {
                seeds += 1;
                time += report.time;
                digest = digest.rotate_left(1) ^ report.digest;
                counts.merge(&report.counts);
            }
            Err(violation) => {
                print_violation(&violation);
                return ExitCode::FAILURE;
            }
        }
    }
    let real = begun.elapsed().as_secs_f64();
    println!(
        "{seeds} seeds in {real:.1} s ({:.1} a second), {:.0} s of virtual time, digest {digest:016x}",
        seeds as f64 / real,
        time.as_secs_f64()
    );
    println!("{counts}");
    ExitCode::SUCCESS
}

fn print_violation(violation: &Violation) {
    for line in &violation.trace {
        println!("{line}");
    }
    println!(
        "seed {}, at {:.6} s: {}",
        violation.seed,
        violation.time.as_secs_f64(),
        violation.reason
    );
}
