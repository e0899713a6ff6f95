//! Every member is replaced by another, under load: a learner comes, is promoted, the old one is
//! removed. The leader goes first.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use ferrite_client::{EtcdError, GetOptions, MemberId};

use super::agree::{Agreement, agree};
use super::figures::{Times, describe, longest_silence, ms};
use super::fill::{fill, is_filled};
use super::load::{self, Load};
use super::{Fleet, PATIENCE, member};

/// Time between two requests that were refused for now.
const AGAIN: Duration = Duration::from_millis(50);
const VALUE_BYTES: usize = 64;

/// What the scenario does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Members.
    pub members: usize,
    /// Keys that are there at the beginning.
    pub keys: u32,
    /// The load.
    pub load: load::Plan,
}

/// What it found.
#[derive(Clone, Debug)]
pub struct Report {
    /// From the request to add a member until it was granted: members must have been connected for
    /// a while.
    pub add: Times,
    /// From the start of a learner until it had a vote.
    pub promote: Times,
    /// From the removal of a member until its process had ended.
    pub remove: Times,
    /// Longest time without an acknowledged write until a learner was a voter.
    pub silence_joining: Times,
    /// Longest time without an acknowledged write while a member was removed.
    pub silence_leaving: Times,
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
    let begun = Instant::now();
    let base = fill(&fleet, plan.keys, VALUE_BYTES).await?;
    report(&format!("{} keys in {:?}", plan.keys, begun.elapsed()));
    // Clients know those to come, too.
    for at in plan.members..2 * plan.members {
        fleet.members.push(member(binary, dir, at, &[])?);
    }
    let plan_of_load = load::Plan {
        base,
        ..plan.load.clone()
    };
    let load = Load::start(fleet.endpoints(), &plan_of_load).await?;
    let (mut add, mut promote, mut remove) = (vec![], vec![], vec![]);
    let mut windows = Vec::new();
    for new in plan.members..2 * plan.members {
        load.more(200).await?;
        let (leader, _) = fleet.leader().await?;
        let old = if leader < plan.members {
            leader
        } else {
            let left = fleet.running().into_iter().find(|at| *at < plan.members);
            left.context("somebody is left to be replaced")?
        };
        let from = load.now();
        let (added, promoted) = joins(&mut fleet, new).await?;
        let between = load.now();
        let removed = leaves(&mut fleet, old).await?;
        windows.push((from, between, load.now()));
        report(&format!(
            "{} for {}{}: added after {}, a voter {} after its start, the old one ended {} after its removal",
            fleet.members[new].name(),
            fleet.members[old].name(),
            if old == leader { " (the leader)" } else { "" },
            ms(added),
            ms(promoted),
            ms(removed)
        ));
        add.push(added);
        promote.push(promoted);
        remove.push(removed);
    }
    load.more(200).await?;
    let mut outcome = load.finish().await?;
    let agreement = agree(&fleet, &mut outcome.ledger).await?;
    is_filled(&fleet, plan.keys).await?;
    let silence = |from, to| longest_silence(&outcome.attempts, from, to);
    let joining = windows
        .iter()
        .map(|(from, between, _)| silence(*from, *between));
    let leaving = windows
        .iter()
        .map(|(_, between, to)| silence(*between, *to));
    Ok(Report {
        add: add.into_iter().collect(),
        promote: promote.into_iter().collect(),
        remove: remove.into_iter().collect(),
        silence_joining: joining.collect(),
        silence_leaving: leaving.collect(),
        agreement,
        load: describe(&outcome),
    })
}

/// Adds a member as a learner, starts it, makes it a voter. Returns how long it took until it was
/// added, and from its start until it was a voter.
async fn joins(fleet: &mut Fleet, new: usize) -> anyhow::Result<(Duration, Duration)> {
    let client = fleet.client().await?;
    let url = fleet.members[new].peer_url();
    let (begun, deadline) = (Instant::now(), Instant::now() + PATIENCE);
    let id = loop {
        match client.cluster().member_add_learner([url.clone()]).await {
            Ok(response) => break response.member.context("no member")?.id,
            // Until all have been connected for five seconds.
            Err(error) if error.etcd() == Some(EtcdError::Unhealthy) => {}
            Err(error) => bail!("add {url}: {error}"),
        }
        ensure!(Instant::now() < deadline, "the cluster stays unhealthy");
        tokio::time::sleep(AGAIN).await;
    };
    let added = begun.elapsed();
    let mut introductions: Vec<_> = fleet.running();
    introductions.push(new);
    let introductions = introductions.iter();
    let introductions: Vec<_> = introductions
        .map(|at| fleet.members[*at].introduction())
        .collect();
    fleet.members[new].joins(&introductions.join(","));
    fleet.members[new].launch()?;
    let (begun, deadline) = (Instant::now(), Instant::now() + PATIENCE);
    loop {
        match client.cluster().member_promote(MemberId::new(id)).await {
            Ok(_) => break,
            Err(error) if error.etcd() == Some(EtcdError::LearnerNotReady) => {}
            Err(error) if error.etcd() == Some(EtcdError::Unhealthy) => {}
            Err(error) => bail!("promote {url}: {error}"),
        }
        ensure!(Instant::now() < deadline, "the learner does not catch up");
        tokio::time::sleep(AGAIN).await;
    }
    let promoted = begun.elapsed();
    fleet.members[new].serves().await?;
    Ok((added, promoted))
}

/// Removes a member, and waits until its process has ended by itself. Returns how long it took.
async fn leaves(fleet: &mut Fleet, old: usize) -> anyhow::Result<Duration> {
    let id = fleet.status(old).await?.header.context("no header")?;
    let rest = fleet.running().into_iter().filter(|at| *at != old);
    let rest: Vec<_> = rest.map(|at| fleet.members[at].endpoint()).collect();
    let client = super::client(rest).await?;
    let (begun, deadline) = (Instant::now(), Instant::now() + PATIENCE);
    loop {
        let id = MemberId::new(id.member_id);
        match client.cluster().member_remove(id).await {
            Ok(_) => break,
            Err(error) if error.etcd() == Some(EtcdError::Unhealthy) => {}
            // A removal whose answer was lost.
            Err(error) if error.etcd() == Some(EtcdError::MemberNotFound) => break,
            Err(error) if error.may_have_been_applied() => {}
            Err(error) => bail!("remove {}: {error}", fleet.members[old].name()),
        }
        ensure!(Instant::now() < deadline, "the member cannot be removed");
        tokio::time::sleep(AGAIN).await;
    }
    fleet.members[old].ended().await?;
    // Those who stay go on.
    client.get("goes on", GetOptions::new()).await?;
    Ok(begun.elapsed())
}

impl Report {
    /// The final table.
    pub fn table(&self) -> Vec<String> {
        let mut lines = vec![
            format!("request to learner: {}", self.add),
            format!("start to voter: {}", self.promote),
            format!("removal to end: {}", self.remove),
            format!("no write while one joins: {}", self.silence_joining),
            format!("no write while one leaves: {}", self.silence_leaving),
        ];
        lines.extend(self.load.iter().cloned());
        lines.push(self.agreement.to_string());
        lines
    }
}
