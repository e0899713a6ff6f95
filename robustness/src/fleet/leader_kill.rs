//! kill -9 of the leader under load, again and again.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::Fleet;
use super::agree::{Agreement, agree};
use super::figures::{Times, describe, ms};
use super::load::{self, Load};

/// What the scenario does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Members.
    pub members: usize,
    /// Kills.
    pub rounds: u32,
    /// Acknowledged writes between the return of a member and the next kill.
    pub writes_between: u64,
    /// The load.
    pub load: load::Plan,
}

/// What it found.
#[derive(Clone, Debug)]
pub struct Report {
    /// From a kill to the answer to the first write that was called after it.
    pub recovery: Times,
    /// From a restart until the member served again.
    pub restart: Times,
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
    let mut load = Load::start(fleet.endpoints(), &plan.load).await?;
    let (mut recovery, mut restart) = (Times::default(), Times::default());
    for round in 1..=plan.rounds {
        load.more(plan.writes_between).await?;
        let (leader, status) = fleet.leader().await?;
        let moment = load.now();
        fleet.members[leader].kill()?;
        let recovered = load
            .first_after(moment, fleet.endpoints())
            .await
            .with_context(|| format!("round {round}"))?;
        recovery.add(recovered);
        let begun = Instant::now();
        fleet.members[leader].start().await?;
        let restarted = begun.elapsed();
        restart.add(restarted);
        report(&format!(
            "round {round}: killed {} (leader of term {}); first write after {}; it serves again {} after \
             its restart",
            fleet.members[leader].name(),
            status.raft_term,
            ms(recovered),
            ms(restarted)
        ));
    }
    load.more(plan.writes_between).await?;
    let mut outcome = load.finish().await?;
    let agreement = agree(&fleet, &mut outcome.ledger).await?;
    Ok(Report {
        recovery,
        restart,
        agreement,
        load: describe(&outcome),
    })
}

impl Report {
    /// The final table. `limit` is what a recovery is compared with.
    pub fn table(&self, limit: Duration) -> Vec<String> {
        let mut lines = vec![
            format!("kill to first write: {}", self.recovery),
            format!("  longer than {}: {}", ms(limit), self.recovery.over(limit)),
            format!("restart to serving: {}", self.restart),
        ];
        lines.extend(self.load.iter().cloned());
        lines.push(self.agreement.to_string());
        lines
    }
}
