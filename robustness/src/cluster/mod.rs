//! Simulation of a whole cluster: real members, each with its log and its page file on a simulated disk, and
//! clients, in one thread, in virtual time, under a seeded scheduler and network. Nothing here depends on real
//! time, threads, sockets or a global random generator: the same seed gives the same run, event for event.
//!
//! ```text
//!   Plan (seed) ─▶ World: queue of events ─▶ Shell: Member, Wal, page file ─▶ SimDisk
//!                    ▲    │  network, clients, nemesis                        (one per Node)
//!                    └────┘
//!   at every event: Oracle (consensus), Witness (rows, state)    at the end: history, hashes, liveness
//! ```
//!
//! * [`plan`]: what a seed means.
//! * `world`: all events. `node`: a machine. `shell`: a member's process, cut into steps; `process` plans
//!   them, `lives` starts and ends it.
//! * `network`, `traffic`: what passes between members. `clients`, `load`, `request`, `service`: what clients ask.
//!   `watchers`: what they watch. `leases`: what they renew.
//!   `nemesis`: what goes wrong. `operators`: members that come and go.
//! * `snapshots`: whole states from member to member.
//! * `log`, `oracle`, `model`, `witness`: what is checked all the time. `finish`: what is checked at the end.
//! * [`mutant`]: bugs put in on purpose, to see that they are found.
//!
//! # Use
//!
//! ```text
//! cargo run --release -p ferrite-robustness --bin sim -- --seeds 0..2000
//! cargo run --release -p ferrite-robustness --bin sim -- --seed 17 --trace
//! cargo run --release -p ferrite-robustness --bin sim -- --seeds 0..100 --mutant stale-read
//! ```
//!
//! A violation is printed with its seed, the reason and the end of the trace; the exit code is 1 then.

pub mod counts;
pub mod mutant;
pub mod plan;
pub mod trace;

mod clients;
mod finish;
mod leases;
mod lives;
mod load;
mod log;
mod model;
mod nemesis;
mod network;
mod node;
mod operators;
mod oracle;
mod process;
mod queue;
mod request;
mod service;
mod shell;
mod snapshots;
mod traffic;
mod watchers;
mod witness;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use counts::Counts;
use mutant::Mutant;
use plan::Plan;
pub use queue::Time;
use world::World;

/// A run that was as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Digest of everything that happened.
    pub digest: u64,
    /// How long it lasted.
    pub time: Time,
    /// What it has seen.
    pub counts: Counts,
}

/// A run that was not.
#[derive(Debug)]
pub struct Violation {
    /// The seed.
    pub seed: u64,
    /// What is wrong.
    pub reason: String,
    /// When it was seen.
    pub time: Time,
    /// What had happened before, as far as it was kept.
    pub trace: Vec<String>,
}

/// Runs a seed. `print`: every line of the trace goes to standard output.
///
/// # Errors
/// Something does not keep its promises.
pub fn run(seed: u64, mutant: Option<Mutant>, print: bool) -> Result<Report, Box<Violation>> {
    let plan = Plan::new(seed);
    let mut world = World::new(plan, mutant, print);
    let plan = format!("{:?}", world.plan);
    world.note(format_args!("{plan}"));
    let result = catch_unwind(AssertUnwindSafe(|| {
        world.run_until(world.plan.chaos)?;
        world.finish()
    }));
    let reason = match result {
        Ok(Ok(_summary)) => {
            return Ok(Report {
                digest: world.trace.digest(),
                time: world.now,
                counts: world.counts,
            });
        }
        Ok(Err(error)) => format!("{error:#}"),
        Err(panic) => format!("panic: {}", text_of(panic.as_ref())),
    };
    Err(Box::new(Violation {
        seed,
        reason,
        time: world.now,
        trace: world.trace.tail().map(str::to_owned).collect(),
    }))
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "of an unknown kind",
    }
}
