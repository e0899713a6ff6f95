//! A rolling downgrade and the way back up under load, with kill -9 at each step. The members of the
//! version before are another program, which knows no newer storage schema.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use ferrite_client::DowngradeAction;
use ferrite_client::pb::etcdserverpb::StatusResponse;

use super::agree::{Agreement, agree};
use super::figures::{Times, describe};
use super::load::{self, Load};
use super::{Fleet, PATIENCE};

/// What the old program says of the new one's page files.
const REFUSAL: &str = "is not supported; this program is 3.6";

/// What the scenario does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Members.
    pub members: usize,
    /// Acknowledged writes between two events.
    pub writes_between: u64,
    /// The load.
    pub load: load::Plan,
}

/// What it found.
#[derive(Clone, Debug)]
pub struct Report {
    /// From the request until every page file is in the lower schema.
    pub lowered: Duration,
    /// From the start of the last old program until the downgrade was over.
    pub over: Duration,
    /// From the start of the last new program until every page file is in the higher schema.
    pub raised: Duration,
    /// From the start of a process after kill -9 until it served.
    pub restart: Times,
    /// The end.
    pub agreement: Agreement,
    /// The load.
    pub load: Vec<String>,
}

/// Runs it: from `new` down to `old` and up again.
///
/// # Errors
/// The first violation found.
pub async fn run(
    new: &Path,
    old: &Path,
    dir: &Path,
    plan: &Plan,
    report: &mut dyn FnMut(&str),
) -> anyhow::Result<Report> {
    let mut fleet = Fleet::start(new, dir, plan.members, &[]).await?;
    until(&fleet, "the new schema", |it| it.storage_version == "3.7.0").await?;
    let load = Load::start(fleet.endpoints(), &plan.load).await?;
    let mut restart = Times::default();

    load.more(plan.writes_between).await?;
    refused(&mut fleet, old).await?;
    report("the old program refuses the page file of a new one");
    kill(&mut fleet, 0, new, &mut restart).await?;

    let begun = Instant::now();
    let client = fleet.client().await?;
    let maintenance = client.maintenance();
    maintenance
        .downgrade(DowngradeAction::Enable, "3.6".to_owned())
        .await?;
    let (leader, _) = fleet.leader().await?;
    kill(&mut fleet, leader, new, &mut restart).await?;
    for at in 0..plan.members {
        load.more(plan.writes_between).await?;
        kill(&mut fleet, at, new, &mut restart).await?;
    }
    until(&fleet, "the old schema", |it| it.storage_version == "3.6.0").await?;
    let lowered = begun.elapsed();
    report("every page file is in the old schema");

    roll(&mut fleet, old, &load, plan, &mut restart).await?;
    let begun = Instant::now();
    until(&fleet, "the end of the downgrade", |it| {
        let downgrade = it.downgrade_info.clone().unwrap_or_default();
        it.version.starts_with("3.6.") && !downgrade.enabled && it.storage_version == "3.6.0"
    })
    .await?;
    let over = begun.elapsed();
    report("every member is of the version before, and the downgrade is over");

    roll(&mut fleet, new, &load, plan, &mut restart).await?;
    let begun = Instant::now();
    until(&fleet, "the new schema again", |it| {
        it.version.starts_with("3.7.") && it.storage_version == "3.7.0"
    })
    .await?;
    let raised = begun.elapsed();
    report("every member is new again, and its page file, too");

    load.more(plan.writes_between).await?;
    let mut outcome = load.finish().await?;
    let agreement = agree(&fleet, &mut outcome.ledger).await?;
    Ok(Report {
        lowered,
        over,
        raised,
        restart,
        agreement,
        load: describe(&outcome),
    })
}

/// Restarts every member as another program, the leader last, each after kill -9, and kills it once more.
async fn roll(
    fleet: &mut Fleet,
    binary: &Path,
    load: &Load,
    plan: &Plan,
    restart: &mut Times,
) -> anyhow::Result<()> {
    let (leader, _) = fleet.leader().await?;
    let others = (0..plan.members).filter(|at| *at != leader);
    for at in others.chain([leader]) {
        for _ in 0..2 {
            load.more(plan.writes_between).await?;
            kill(fleet, at, binary, restart).await?;
        }
    }
    load.more(plan.writes_between).await
}

/// Kills a member and starts it again, as `binary`.
async fn kill(
    fleet: &mut Fleet,
    at: usize,
    binary: &Path,
    restart: &mut Times,
) -> anyhow::Result<()> {
    let member = &mut fleet.members[at];
    member.kill()?;
    member.becomes(binary);
    let begun = Instant::now();
    member.start().await?;
    restart.add(begun.elapsed());
    Ok(())
}

/// A member cannot be started as `binary`; it is started again as what it was.
async fn refused(fleet: &mut Fleet, binary: &Path) -> anyhow::Result<()> {
    let at = fleet.members.len() - 1;
    let member = &mut fleet.members[at];
    member.kill()?;
    let before = member.becomes(binary);
    member.launch()?;
    let exit = member.ended().await?;
    ensure!(!exit.success(), "the old program took a new page file");
    ensure!(
        member.says(&[REFUSAL]) > 0,
        "the old program does not say why it ends"
    );
    member.becomes(&before);
    member.start().await
}

/// Waits until every member's status is as wanted.
async fn until(
    fleet: &Fleet,
    what: &str,
    wanted: impl Fn(&StatusResponse) -> bool,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    for at in 0..fleet.members.len() {
        loop {
            match fleet.status(at).await {
                Ok(status) if wanted(&status) => break,
                found if Instant::now() > deadline => {
                    bail!(
                        "{what} does not come to {}: {found:?}",
                        fleet.members[at].name()
                    )
                }
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
    Ok(())
}

impl Report {
    /// The final table.
    pub fn table(&self) -> Vec<String> {
        let mut lines = vec![
            format!(
                "downgrade enabled to old schema everywhere: {:?}",
                self.lowered
            ),
            format!(
                "last old program to the end of the downgrade: {:?}",
                self.over
            ),
            format!(
                "last new program to new schema everywhere: {:?}",
                self.raised
            ),
            format!("restart to serving: {}", self.restart),
        ];
        lines.extend(self.load.iter().cloned());
        lines.push(self.agreement.to_string());
        lines
    }
}
