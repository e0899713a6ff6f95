//! The differential test: the same random requests, valid and not, one after another to Ferrite and to a
//! real etcd; the answers must be equal, to the field and to the text of an error.
//!
//! ```text
//!   seed ─▶ Generator ─▶ Step ─▶ both servers ─▶ answers, without ids, terms and times ─▶ equal?
//!              ▲                                    │                                      │ no
//!              └── revision ◀───────────────────────┘                 fewest steps that still differ
//! ```
//!
//! * [`accounts`]: who asks, with users and roles.
//! * [`generate`]: requests from the descriptors of the API, with values that meet each other.
//! * [`step`]: what is done: a call, a stream of watches, an HTTP request; and what came of it.
//! * [`call`]: how a server is asked.
//! * [`scrub`]: what may differ, by name.
//! * [`shrink`]: fewer steps.
//! * [`commands`]: the same for the command lines of `etcdctl`, etcd's own or ours.
//!
//! No etcd comes with this repository: the binary is given by its path (`differential --help`).

mod accounts;
pub mod call;
pub mod commands;
pub mod generate;
pub mod scrub;
pub mod shrink;
pub mod step;

use std::path::{Path, PathBuf};

use anyhow::Context;
use prost_reflect::DynamicMessage;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::process::Process;
use call::{Caller, QUIET};
use generate::Generator;
pub use generate::Theme;
use step::{Answer, Step};

/// The two servers.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// Ferrite's.
    pub ours: PathBuf,
    /// etcd's.
    pub etcd: PathBuf,
}

/// Both have been asked the same, and have not answered the same.
#[derive(Clone, Debug)]
pub struct Difference {
    /// What was done, the last step being the one that shows it.
    pub steps: Vec<Step>,
    /// What Ferrite answers.
    pub ours: Answer,
    /// What etcd answers.
    pub etcd: Answer,
}

/// Two servers with nothing in them.
struct Pair {
    ours: Caller,
    etcd: Caller,
    // Killed before the directory goes.
    processes: [Process; 2],
    _dir: tempfile::TempDir,
}

impl Pair {
    async fn start(binaries: &Binaries) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let dirs = [dir.path().join("ours"), dir.path().join("etcd")];
        let (ours, etcd) = tokio::try_join!(
            start(&binaries.ours, &dirs[0]),
            start(&binaries.etcd, &dirs[1])
        )?;
        Ok(Self {
            ours: Caller::new(&ours.endpoint()).context("ours")?,
            etcd: Caller::new(&etcd.endpoint()).context("etcd")?,
            processes: [ours, etcd],
            _dir: dir,
        })
    }

    /// Asks both at once.
    async fn ask(&mut self, step: &Step) -> anyhow::Result<(Answer, Answer)> {
        if let (user, Step::Watch { requests, calls }) = step.by() {
            return self.watch(step, user, requests, calls).await;
        }
        let (ours, etcd) = tokio::join!(self.ours.ask(step), self.etcd.ask(step));
        let ours = ours.with_context(|| format!("ours: {}", last_words(&self.processes[0])))?;
        let etcd = etcd.with_context(|| format!("etcd: {}", last_words(&self.processes[1])))?;
        Ok((scrub::answer(step, ours), scrub::answer(step, etcd)))
    }

    /// Nobody says that a watcher has everything: they are given more time if they differ.
    async fn watch(
        &mut self,
        step: &Step,
        user: Option<&'static str>,
        requests: &[DynamicMessage],
        calls: &[Step],
    ) -> anyhow::Result<(Answer, Answer)> {
        let (ours, etcd) = tokio::join!(
            self.ours.watch(user, requests),
            self.etcd.watch(user, requests)
        );
        let (mut ours, mut etcd) = (ours.context("ours")?, etcd.context("etcd")?);
        let created = tokio::join!(ours.created(), etcd.created());
        created.0.context("ours")?;
        created.1.context("etcd")?;
        for call in calls {
            let answers = tokio::join!(self.ours.ask(call), self.etcd.ask(call));
            let (mine, theirs) = (answers.0.context("ours")?, answers.1.context("etcd")?);
            let (mine, theirs) = (scrub::answer(call, mine), scrub::answer(call, theirs));
            if mine != theirs {
                return Ok((mine, theirs));
            }
        }
        let mut quiet = QUIET;
        loop {
            let (mine, theirs) = tokio::join!(ours.gather(quiet), etcd.gather(quiet));
            let mine = scrub::answer(step, mine.context("ours")?);
            let theirs = scrub::answer(step, theirs.context("etcd")?);
            quiet *= 4;
            if mine == theirs || quiet > 64 * QUIET {
                return Ok((mine, theirs));
            }
        }
    }
}

async fn start(binary: &Path, dir: &Path) -> anyhow::Result<Process> {
    std::fs::create_dir_all(dir)?;
    // What is on the disk is compared elsewhere.
    let flags = ["--unsafe-no-fsync", "--bcrypt-cost", "4"];
    let mut process = Process::new(binary, dir, &flags)?;
    process.start().await?;
    Ok(process)
}

/// Why a server does not answer: the last lines of its log say.
fn last_words(process: &Process) -> String {
    const LINES: usize = 12;
    let log = std::fs::read_to_string(process.log_path()).unwrap_or_default();
    let mut lines: Vec<&str> = log.lines().rev().take(LINES).collect();
    lines.reverse();
    lines.join("\n")
}

/// Carries out `count` random steps on two new servers.
///
/// # Errors
/// A server does not start, or does not answer at all. A difference is no error.
pub async fn run(
    binaries: &Binaries,
    seed: u64,
    count: usize,
    theme: Theme,
) -> anyhow::Result<Result<Generator, Difference>> {
    let mut pair = Pair::start(binaries).await?;
    let mut generator = Generator::new(StdRng::seed_from_u64(seed), theme);
    let mut steps = Vec::new();
    for _ in 0..count {
        let step = generator.step();
        steps.push(step.clone());
        let (ours, etcd) = pair
            .ask(&step)
            .await
            .with_context(|| format!("step {}: {step}", steps.len()))?;
        if ours != etcd {
            return Ok(Err(Difference { steps, ours, etcd }));
        }
        generator.learn(&etcd);
    }
    Ok(Ok(generator))
}

/// Carries out these steps on two new servers. The first difference, if there is one.
///
/// # Errors
/// As [`run`].
pub async fn replay(binaries: &Binaries, steps: &[Step]) -> anyhow::Result<Option<Difference>> {
    let mut pair = Pair::start(binaries).await?;
    for (at, step) in steps.iter().enumerate() {
        let (ours, etcd) = pair.ask(step).await?;
        if ours != etcd {
            return Ok(Some(Difference {
                steps: steps[..=at].to_vec(),
                ours,
                etcd,
            }));
        }
    }
    Ok(None)
}
