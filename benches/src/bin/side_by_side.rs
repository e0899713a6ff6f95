//! `side-by-side`: our server and a real etcd under the same loads. See benches/README.md.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use ferrite_benches::compare::{self, Comparison};
use ferrite_benches::flags::Flags;
use ferrite_benches::keys::{DEFAULT_KEY_SIZE, KeySpace};
use ferrite_benches::server::{Children, Program};
use serde_json::json;

const USAGE: &str = "\
usage: side-by-side --ours PATH --etcd PATH [flags]

flags (default)
  --ours PATH            the server under test
  --etcd PATH            an etcd binary; without it only ours is measured
  --scenario LIST        all, or names separated by commas: start, fill, put (put-1, put-64,
                         put-1000), get (get-1, get-64, get-1000), serializable-64, mixed, page,
                         lease (lease-expire, lease-keepalive), list (list-3, list-10,
                         list-stream-3, list-stream-10), defragment, crash,
                         watch (watch-idle, watch-1, watch-100, watch-10000, watch-busy-1,
                         watch-busy-100, watch-keys, watch-prefix, watch-catch-up, watch-stuck) (all)
  --rounds N             (5)
  --members N            members of each cluster, all on this machine (1)
  --keys N               (1000000)
  --key-size BYTES       (24)
  --value-size BYTES     (256)
  --seconds S            length of each timed load (5)
  --every-page N         fetch every Nth page only; the total is extrapolated (20)
  --max-minutes M        begin no further round after this (60)
  --server-flag FLAG     a further flag for both servers, such as --server-flag=--snapshot-count=5000;
                         repeatable
  --work-dir DIR         where data directories are made (the system's temporary directory)
  --json FILE            write all values of all rounds there (standard output)
";

const FLAGS: &[&str] = &[
    "ours",
    "etcd",
    "scenario",
    "rounds",
    "members",
    "keys",
    "key-size",
    "value-size",
    "seconds",
    "every-page",
    "max-minutes",
    "server-flag",
    "work-dir",
    "json",
];

/// Room for several versions of a million keys: neither side may stop at its quota.
const QUOTA_FLAG: &str = "--quota-backend-bytes=8589934592";

/// How long the measuring thread may take to clean up after a signal.
const GRACE: Duration = Duration::from_secs(10);

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
    let children = Children::default();
    let result =
        kill_children_on_signals(children.clone()).and_then(|()| run(arguments, &children));
    children.close();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("side-by-side: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Vec<String>, children: &Children) -> anyhow::Result<()> {
    let flags = Flags::parse(arguments, FLAGS)?;
    anyhow::ensure!(
        flags.words.is_empty(),
        "unexpected argument `{}`",
        flags.words.join(" ")
    );
    let work_dir = flags.get_or("work-dir", std::env::temp_dir())?;
    let mut server_flags = vec![QUOTA_FLAG.to_owned()];
    server_flags.extend_from_slice(flags.all("server-flag"));
    let program = |path: PathBuf| Program {
        path,
        flags: server_flags.clone(),
        work_dir: work_dir.clone(),
    };
    let seconds = flags.get_or("seconds", 5.0)?;
    let minutes = flags.get_or("max-minutes", 60.0)?;
    let comparison = Comparison {
        ours: program(
            flags
                .get("ours")?
                .context("--ours is needed: the server under test")?,
        ),
        etcd: flags.get("etcd")?.map(program),
        scenarios: flags.get_or("scenario", "all".to_owned())?.parse()?,
        rounds: flags.get_or("rounds", 5)?,
        members: flags.get_or("members", 1)?,
        keys: KeySpace::new(
            flags.get_or("keys", 1_000_000)?,
            flags.get_or("key-size", DEFAULT_KEY_SIZE)?,
        )?,
        value_size: flags.get_or("value-size", 256)?,
        time: Duration::try_from_secs_f64(seconds).context("--seconds")?,
        every_page: flags.get_or("every-page", 20)?,
        at_most: Duration::try_from_secs_f64(minutes * 60.0).context("--max-minutes")?,
    };
    let mut about = compare::describe(&comparison);
    about["ours"] = json!(comparison.ours.check().context("--ours")?);
    if let Some(etcd) = &comparison.etcd {
        about["etcd"] = json!(etcd.check().context("--etcd")?);
    }
    let report = compare::run(&comparison, children, &mut |line| eprintln!("{line}"))?;
    about["figures"] = report.json();
    print!("{}", report.markdown());
    match flags.get::<PathBuf>("json")? {
        Some(path) => fs::write(&path, format!("{about:#}\n"))
            .with_context(|| format!("cannot write {}", path.display())),
        None => {
            println!("{about}");
            Ok(())
        }
    }
}

/// Ends the children when this process is told to end: an orphaned server would go on using
/// the cores that the next measurement needs.
fn kill_children_on_signals(children: Children) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (mut interrupt, mut terminate) = {
        let _guard = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        )
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            });
            children.close();
            // The measuring thread now fails and removes its data directories. Not for ever, though.
            std::thread::sleep(GRACE);
            std::process::exit(130);
        })?;
    Ok(())
}
