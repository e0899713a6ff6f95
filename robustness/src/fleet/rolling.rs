//! A rolling restart under load: each member in turn is asked to end, and started again.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Instant;

use anyhow::ensure;

use super::agree::{Agreement, agree};
use super::figures::{Times, by_error, describe, longest_silence, ms};
use super::load::{self, Load};
use super::{Fleet, is_leader};

const SIGTERM: i32 = rustix::process::Signal::TERM.as_raw();

/// What the scenario does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Members.
    pub members: usize,
    /// How often each member is restarted.
    pub rounds: u32,
    /// Acknowledged writes before each restart.
    pub writes_between: u64,
    /// The load; each client tries once more when a write fails.
    pub load: load::Plan,
}

/// What it found.
#[derive(Clone, Debug)]
pub struct Report {
    /// From the signal to the end of a process.
    pub stop: Times,
    /// From the start of a process until it served.
    pub restart: Times,
    /// Longest time without an acknowledged write, while a follower was restarted.
    pub silence_follower: Times,
    /// Longest time without an acknowledged write, while the leader was restarted.
    pub silence_leader: Times,
    /// Leaders that had ended before another member led.
    pub not_handed_over: u32,
    /// Writes that failed twice.
    pub failed_twice: Vec<String>,
    /// The end.
    pub agreement: Agreement,
    /// The load.
    pub load: Vec<String>,
}

/// Runs it.
///
/// # Errors
/// The first violation found.
pub async fn run(
    binary: &Path,
    dir: &Path,
    plan: &Plan,
    report: &mut dyn FnMut(&str),
) -> anyhow::Result<Report> {
    let mut fleet = Fleet::start(binary, dir, plan.members, &[]).await?;
    let again = load::Plan {
        again: true,
        ..plan.load.clone()
    };
    let load = Load::start(fleet.endpoints(), &again).await?;
    let (mut stop, mut restart, mut not_handed_over) = (Times::default(), Times::default(), 0);
    let mut windows = Vec::new();
    for round in 1..=plan.rounds {
        for at in 0..plan.members {
            load.more(plan.writes_between).await?;
            let status = fleet.status(at).await?;
            let (led, from) = (is_leader(&status), load.now());
            let begun = Instant::now();
            let exit = fleet.members[at].stopped().await?;
            let stopped = begun.elapsed();
            let name = fleet.members[at].name().to_owned();
            // As etcd does: when all is done it lets the signal have its way.
            let in_order = exit.success() || exit.signal() == Some(SIGTERM);
            ensure!(in_order, "{name} ended with {exit}");
            let mut role = "a follower";
            if led {
                // Asked at once: an election would take a second at least.
                let other = fleet.status((at + 1) % plan.members).await?;
                role = "the leader, another led when it ended";
                if other.leader == 0 || other.leader == status.leader {
                    role = "the leader, nobody led when it ended";
                    not_handed_over += 1;
                }
            }
            let begun = Instant::now();
            fleet.members[at].start().await?;
            let restarted = begun.elapsed();
            stop.add(stopped);
            restart.add(restarted);
            windows.push((led, from, load.now()));
            report(&format!(
                "round {round}: {name} ({role}) ended within {}, served again {} after its restart",
                ms(stopped),
                ms(restarted)
            ));
        }
    }
    load.more(plan.writes_between).await?;
    let mut outcome = load.finish().await?;
    let agreement = agree(&fleet, &mut outcome.ledger).await?;
    let silence = |leader: bool| {
        let windows = windows.iter().filter(|(led, _, _)| *led == leader);
        windows
            .map(|(_, from, to)| longest_silence(&outcome.attempts, *from, *to))
            .collect()
    };
    let again = outcome.attempts.iter().filter(|it| it.again);
    Ok(Report {
        stop,
        restart,
        silence_follower: silence(false),
        silence_leader: silence(true),
        not_handed_over,
        failed_twice: by_error(again).into_keys().map(str::to_owned).collect(),
        agreement,
        load: describe(&outcome),
    })
}

impl Report {
    /// The final table.
    pub fn table(&self) -> Vec<String> {
        let mut lines = vec![
            format!("SIGTERM to end: {}", self.stop),
            format!("restart to serving: {}", self.restart),
            format!("no write, follower restarted: {}", self.silence_follower),
            format!("no write, leader restarted: {}", self.silence_leader),
            format!("leaders that ended as leaders: {}", self.not_handed_over),
        ];
        lines.extend(self.load.iter().cloned());
        lines.push(self.agreement.to_string());
        lines
    }
}
