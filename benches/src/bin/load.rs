//! `load`: requests against one running server, timed. See benches/README.md.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use ferrite_benches::flags::Flags;
use ferrite_benches::keys::{DEFAULT_KEY_SIZE, KeySpace};
use ferrite_benches::load::{self, Plan, Until};
use ferrite_benches::page;
use serde_json::json;

const USAGE: &str = "\
usage: load COMMAND [flags]

commands
  put     write keys in random order, each once before any comes again
  get     read random keys
  mixed   read random keys while the clients write
  page    list all keys in pages at one revision, checking keys and counts
  fill    write every key exactly once

flags (default)
  --endpoint HOST:PORT   server; repeatable or separated by commas (127.0.0.1:2379)
  --clients N            requests in flight (64)
  --conns N              connections (a tenth of the clients, at least 1)
  --keys N               different keys (1000000)
  --key-size BYTES       (24)
  --value-size BYTES     (256)
  --total N              stop after so many requests
  --seconds S            stop after this time (10, unless --total is given)
  --seed N               order of keys, values (1)
  --readers N            mixed: clients that read (1)
  --consistency l|s      get: linearizable or serializable (l)
  --page-size N          page: keys in a page (500)
  --every N              page: fetch every Nth page only (1)
";

const FLAGS: &[&str] = &[
    "endpoint",
    "clients",
    "conns",
    "keys",
    "key-size",
    "value-size",
    "total",
    "seconds",
    "seed",
    "readers",
    "consistency",
    "page-size",
    "every",
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.is_empty()
        || arguments
            .iter()
            .any(|a| a == "--help" || a == "-h" || a == "help")
    {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match run(arguments) {
        Ok(failed) if failed > 0 => ExitCode::FAILURE,
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the command; how many requests failed.
fn run(arguments: Vec<String>) -> anyhow::Result<u64> {
    let flags = Flags::parse(arguments, FLAGS)?;
    let [command] = &flags.words[..] else {
        bail!("one command is needed: put, get, mixed, page or fill");
    };
    let plan = plan(&flags)?;
    let (lines, document, failed) = match command.as_str() {
        "put" | "get" | "fill" => {
            let summary = match command.as_str() {
                "put" => load::put(&plan)?,
                "fill" => load::fill(&plan)?,
                _ => load::get(&plan, serializable(&flags)?)?,
            };
            (
                summary.line(command),
                json!({ (command): summary.json() }),
                summary.failed(),
            )
        }
        "mixed" => {
            let (reads, writes) = load::mixed(&plan, flags.get_or("readers", 1)?)?;
            (
                format!("{}\n{}", reads.line("get"), writes.line("put")),
                json!({ "get": reads.json(), "put": writes.json() }),
                reads.failed() + writes.failed(),
            )
        }
        "page" => {
            let endpoint = plan.endpoints.first().context("no endpoint")?;
            let size = flags.get_or("page-size", 500)?;
            let pages = page::page(endpoint, &plan.keys, size, flags.get_or("every", 1)?)?;
            (pages.line(), json!({ "page": pages.json() }), 0)
        }
        other => bail!("unknown command `{other}`"),
    };
    println!("{lines}");
    println!("{document}");
    Ok(failed)
}

fn plan(flags: &Flags) -> anyhow::Result<Plan> {
    let given = flags
        .all("endpoint")
        .iter()
        .flat_map(|list| list.split(','));
    let mut endpoints: Vec<String> = given.map(str::to_owned).collect();
    if endpoints.is_empty() {
        endpoints.push("127.0.0.1:2379".into());
    }
    let clients = flags.get_or("clients", 64)?;
    let total: Option<u64> = flags.get("total")?;
    let seconds: Option<f64> = flags.get("seconds")?;
    let until = match (total, seconds) {
        (Some(_), Some(_)) => bail!("--total and --seconds exclude each other"),
        (Some(total), None) => Until::Requests(total),
        (None, seconds) => {
            let time = Duration::try_from_secs_f64(seconds.unwrap_or(10.0));
            Until::Elapsed(time.context("--seconds")?)
        }
    };
    Ok(Plan {
        endpoints,
        clients,
        connections: flags.get_or("conns", (clients / 10).max(1))?,
        keys: KeySpace::new(
            flags.get_or("keys", 1_000_000)?,
            flags.get_or("key-size", DEFAULT_KEY_SIZE)?,
        )?,
        value_size: flags.get_or("value-size", 256)?,
        until,
        seed: flags.get_or("seed", 1)?,
    })
}

fn serializable(flags: &Flags) -> anyhow::Result<bool> {
    match flags.get_or("consistency", "l".to_owned())?.as_str() {
        "l" => Ok(false),
        "s" => Ok(true),
        other => bail!("--consistency: `{other}` is neither l nor s"),
    }
}
