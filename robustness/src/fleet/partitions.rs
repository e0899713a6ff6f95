//! Members that are cut off from each other, in both directions or in one.
//!
//! The cluster has to go on wherever a majority can talk in both directions. Who has no majority
//! refuses, in time, whatever needs one. No cut may make the members elect in circles, and after
//! each all are the same again.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ferrite_client::GetOptions;

use super::agree::{Agreement, agree, converged, same_hash};
use super::figures::{by_error, describe, longest_silence, ms};
use super::load::{self, Attempt, Load, words};
use super::network::Network;
use super::{CALL_LIMIT, Fleet, impatient_client, member};

/// More elections than this during one cut are a circle.
const ELECTIONS: u64 = 3;

/// What the scenario does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Members.
    pub members: usize,
    /// How long each cut lasts.
    pub hold: Duration,
    /// The load; each client knows one member.
    pub load: load::Plan,
}

/// What it found.
#[derive(Clone, Debug)]
pub struct Report {
    /// What each cut did to the clients of each member.
    pub episodes: Vec<String>,
    /// What must not be.
    pub violations: Vec<String>,
    /// The end.
    pub agreement: Agreement,
    /// The load.
    pub load: Vec<String>,
}

/// One cut.
#[derive(Clone, Debug)]
struct Episode {
    name: &'static str,
    /// Pairs: what the first sends to the second is lost.
    cuts: Vec<(usize, usize)>,
    /// Members that reach no majority.
    minority: Vec<usize>,
}

impl Episode {
    /// The cuts for a cluster in which `leader` leads.
    fn all(size: usize, leader: usize) -> Vec<Episode> {
        let others: Vec<usize> = (0..size).filter(|at| *at != leader).collect();
        let (follower, other) = (others[0], others[1]);
        let split = |minority: &[usize]| {
            let mut cuts = Vec::new();
            for from in 0..size {
                for to in 0..size {
                    if minority.contains(&from) != minority.contains(&to) {
                        cuts.push((from, to));
                    }
                }
            }
            cuts
        };
        let both = |a: usize, b: usize| vec![(a, b), (b, a)];
        let episode = |name, cuts, minority: &[usize]| Episode {
            name,
            cuts,
            minority: minority.to_vec(),
        };
        let few: Vec<usize> = others[..(size - 1) / 2 - 1].to_vec();
        let with_leader = [&[leader][..], &few].concat();
        vec![
            episode("leader alone", split(&[leader]), &[leader]),
            episode("follower alone", split(&[follower]), &[follower]),
            episode("leader in the minority", split(&with_leader), &with_leader),
            episode("leader to one follower", vec![(leader, follower)], &[]),
            episode("one follower to leader", vec![(follower, leader)], &[]),
            episode(
                "leader to all followers",
                others.iter().map(|to| (leader, *to)).collect(),
                &[leader],
            ),
            episode(
                "all followers to leader",
                others.iter().map(|from| (*from, leader)).collect(),
                &[leader],
            ),
            episode("leader and one follower", both(leader, follower), &[]),
            episode("two followers", both(follower, other), &[]),
        ]
    }

    const COUNT: usize = 9;
}

/// Runs it.
///
/// # Errors
/// The first violation found after which it makes no sense to go on.
pub async fn run(
    binary: &Path,
    dir: &Path,
    plan: &Plan,
    report: &mut dyn FnMut(&str),
) -> anyhow::Result<Report> {
    ensure!(plan.members >= 3, "fewer than three members are no cluster");
    let network = Network::new(plan.members)?;
    let members = (0..plan.members).map(|at| {
        Ok(member(binary, dir, at, &[])?.placed(&network.host(at), &network.namespace(at)))
    });
    let fleet = Fleet::begin(members.collect::<anyhow::Result<_>>()?).await?;
    let pinned = load::Plan {
        pinned: true,
        ..plan.load.clone()
    };
    let mut load = Load::start(fleet.endpoints(), &pinned).await?;
    let (mut windows, mut violations) = (Vec::new(), Vec::new());
    for nth in 0..Episode::COUNT {
        load.more(100).await?;
        let (leader, _) = fleet.leader().await?;
        let episode = &Episode::all(plan.members, leader)[nth];
        let run = Run {
            fleet: &fleet,
            network: &network,
            hold: plan.hold,
            episode,
        };
        let window = run
            .run(&mut load, &mut violations, report)
            .await
            .with_context(|| episode.name)?;
        windows.push((episode.name, window));
    }
    load.more(100).await?;
    let mut outcome = load.finish().await?;
    let agreement = agree(&fleet, &mut outcome.ledger).await?;
    let mut episodes = Vec::new();
    for (name, (from, to)) in windows {
        episodes.extend(clients_of_members(
            name,
            from,
            to,
            &fleet,
            &outcome.attempts,
        ));
    }
    Ok(Report {
        episodes,
        violations,
        agreement,
        load: describe(&outcome),
    })
}

/// One episode on its way.
struct Run<'a> {
    fleet: &'a Fleet,
    network: &'a Network,
    hold: Duration,
    episode: &'a Episode,
}

impl Run<'_> {
    /// Cuts, looks, heals. Returns when the cut began and ended.
    async fn run(
        &self,
        load: &mut Load,
        violations: &mut Vec<String>,
        report: &mut dyn FnMut(&str),
    ) -> anyhow::Result<(Duration, Duration)> {
        let (fleet, name) = (self.fleet, self.episode.name);
        let all = fleet.running();
        let term = self.term().await?;
        let from = load.now();
        for (sender, receiver) in &self.episode.cuts {
            self.network.cut(*sender, *receiver)?;
        }
        let whole = all.iter().filter(|at| !self.episode.minority.contains(at));
        let whole: Vec<_> = whole.map(|at| fleet.members[*at].endpoint()).collect();
        // What was called before the last of the cuts proves nothing.
        let first = load.first_after(load.now(), whole.clone()).await?;
        report(&format!("{name}: first write after {}", ms(first)));
        for at in &self.episode.minority {
            self.refuses(*at, load, violations, report).await?;
        }
        let rest = self.hold.saturating_sub(load.now() - from);
        tokio::time::sleep(rest).await;
        // Still, or again.
        load.first_after(load.now(), whole).await?;
        let elections = self.term().await? - term;
        let to = load.now();

        let healed = Instant::now();
        for (sender, receiver) in &self.episode.cuts {
            self.network.heal(*sender, *receiver)?;
        }
        let revision = converged(fleet, &all).await?;
        same_hash(fleet, &all, revision).await?;
        report(&format!(
            "{name}: {elections} elections in {:.0} s; healed, all agree after {}; {} more elections",
            (to - from).as_secs_f64(),
            ms(healed.elapsed()),
            self.term().await? - term - elections,
        ));
        if elections > ELECTIONS {
            violations.push(format!("{name}: {elections} elections"));
        }
        Ok((from, to))
    }

    /// What a member without a majority has to answer.
    async fn refuses(
        &self,
        at: usize,
        load: &mut Load,
        violations: &mut Vec<String>,
        report: &mut dyn FnMut(&str),
    ) -> anyhow::Result<()> {
        let endpoint = self.fleet.members[at].endpoint();
        let client = impatient_client(endpoint.clone()).await?;
        let local = Instant::now();
        client
            .get("local", GetOptions::new().serializable())
            .await
            .context("a serializable read of the minority")?;
        let local = local.elapsed();
        let begun = Instant::now();
        let read = client.get("quorum", GetOptions::new()).await;
        let read = (begun.elapsed(), read.err().map(|error| words(&error)));
        let write = load.once(endpoint).await?;
        let member = self.fleet.members[at].name();
        let mut line = format!(
            "{}: {member} reads serializably in {}",
            self.episode.name,
            ms(local)
        );
        for (what, (took, error)) in [("a linearizable read", read), ("a write", write)] {
            match error {
                Some(error) => {
                    line += &format!("; refuses {what} after {}: {error}", ms(took));
                    // Our own limit, not the member's.
                    if took >= CALL_LIMIT {
                        violations.push(format!("{member} does not answer {what}"));
                    }
                }
                None => violations.push(format!("{member} alone answers {what}")),
            }
        }
        report(&line);
        Ok(())
    }

    async fn term(&self) -> anyhow::Result<u64> {
        let mut term = 0;
        for at in self.fleet.running() {
            term = term.max(self.fleet.status(at).await?.raft_term);
        }
        Ok(term)
    }
}

/// What the clients of each member saw during a cut.
fn clients_of_members(
    name: &str,
    from: Duration,
    to: Duration,
    fleet: &Fleet,
    attempts: &[Attempt],
) -> Vec<String> {
    let silence = longest_silence(attempts, from, to);
    let mut lines = vec![format!("{name}: no write for at most {}", ms(silence))];
    for member in &fleet.members {
        let endpoint = member.endpoint();
        let of_member = || {
            let within = |it: &&Attempt| it.called >= from && it.called < to;
            let its = |it: &&Attempt| it.endpoint.as_deref() == Some(&endpoint);
            attempts.iter().filter(within).filter(its)
        };
        let answered = of_member().filter(|it| it.error.is_none()).count();
        let mut line = format!("  {}: {answered} writes", member.name());
        for (error, times) in by_error(of_member()) {
            line += &format!("; {error}: {times}");
        }
        lines.push(line);
    }
    lines
}

impl Report {
    /// The final table.
    pub fn table(&self) -> Vec<String> {
        let mut lines = self.episodes.clone();
        lines.extend(self.load.iter().cloned());
        lines.push(self.agreement.to_string());
        lines
    }
}
