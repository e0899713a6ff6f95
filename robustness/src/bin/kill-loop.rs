//! `kill-loop [ROUNDS] [ETCD]`: kills a server under load ROUNDS times (default 50) and checks what
//! is there after each restart. ETCD is the server binary, by default the one beside this program.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use ferrite_robustness::kill_loop::{Plan, run};

#[tokio::main]
async fn main() -> ExitCode {
    match main_result().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kill-loop: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn main_result() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let rounds = match args.next() {
        Some(text) => text
            .parse()
            .with_context(|| format!("{text} is not a number of rounds"))?,
        None => 50,
    };
    let binary = match args.next() {
        Some(path) => PathBuf::from(path),
        None => std::env::current_exe()?.with_file_name("etcd"),
    };
    let dir = tempfile::tempdir()?;
    let plan = Plan {
        rounds,
        clients: 16,
        writes: 3_000,
        seed: 1,
    };
    run(&binary, dir.path(), plan, &mut |line| println!("{line}")).await?;
    println!("{rounds} kills, nothing lost");
    Ok(())
}
