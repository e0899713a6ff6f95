//! `interchange from-etcd ETCD [ETCDUTL] [keys=N]`: data from the real etcd ETCD to Ferrite, and back
//! through its ETCDUTL. `interchange under-load [clients=N]`: a snapshot of a cluster under load. Ferrite's
//! programs are those beside this one.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use ferrite_robustness::interchange::from_etcd::{self, Reference};
use ferrite_robustness::interchange::{Programs, under_load};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    match main_result().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("interchange: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn main_result() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let scenario = args.next().context("which scenario?")?;
    let (mut keys, mut clients, mut paths) = (100_000, 16, Vec::new());
    for arg in args {
        match arg.split_once('=') {
            Some(("keys", number)) => keys = number.parse()?,
            Some(("clients", number)) => clients = number.parse()?,
            _ => paths.push(PathBuf::from(arg)),
        }
    }
    let own = std::env::current_exe()?;
    let ours = Programs::within(own.parent().context("a program is in a folder")?)?;
    let dir = tempfile::tempdir()?;
    let tell = &mut |line: &str| println!("{line}");
    let mut paths = paths.into_iter();
    let result = match scenario.as_str() {
        "from-etcd" => {
            let theirs = Reference {
                etcd: paths.next().context("which etcd?")?,
                etcdutl: paths.next(),
            };
            from_etcd::run_through(&ours, &theirs, dir.path(), keys, tell).await
        }
        "under-load" => under_load::run_through(&ours, dir.path(), clients, tell).await,
        other => bail!("what is {other}?"),
    };
    if result.is_err() {
        eprintln!("interchange: the data is in {}", dir.keep().display());
    }
    result
}
