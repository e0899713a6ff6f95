//! A member is down until the others have dropped the entries that it lacks, and comes back by a
//! snapshot. In some rounds the sender is killed during the transfer, in others the receiver.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use ferrite_client::GetOptions;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::agree::{Agreement, agree, converged, same_hash};
use super::figures::{Times, acknowledged, describe, longest_silence, ms};
use super::fill::{fill, is_filled};
use super::load::{self, Attempt, Load};
use super::{Fleet, PATIENCE};

/// The log goes back this little.
const ARGS: [&str; 4] = [
    "--snapshot-count",
    "200",
    "--snapshot-catchup-entries",
    "100",
];
/// Writes of a quiet time.
const QUIET: u64 = 2_000;
/// Writes that a member misses: more than any log keeps, and in more than the 5 seconds after which a
/// log is looked at.
const MISSED: u64 = 6_000;
/// What a receiver says when a transfer begins: Ferrite, etcd.
const RECEIVING: [&str; 2] = ["receiving a snapshot", "receiving database snapshot"];
/// Kills of a receiver in one round.
const KILLS: u32 = 3;

/// What the scenario does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Members.
    pub members: usize,
    /// Keys that are there at the beginning.
    pub keys: u32,
    /// Size of their values.
    pub value_bytes: usize,
    /// Rounds: an undisturbed one, one in which the sender is killed, one in which the receiver is
    /// killed some times, and so on.
    pub rounds: u32,
    /// Whether harm is done at all; else every round is an undisturbed one.
    pub harm: bool,
    /// The load.
    pub load: load::Plan,
}

/// What it found.
#[derive(Clone, Debug)]
pub struct Report {
    /// From the start of the member until it served, undisturbed.
    pub undisturbed: Times,
    /// The same, when the sender was killed.
    pub sender_killed: Times,
    /// From the last start of the member until it served, when it was killed during transfers.
    pub receiver_killed: Times,
    /// Transfers that began.
    pub transfers: usize,
    /// Writes before and during undisturbed transfers, and how many times slower the slow ones are.
    pub writes: Vec<String>,
    /// The end.
    pub agreement: Agreement,
    /// The load.
    pub load: Vec<String>,
}

/// What is done to a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    None,
    Sender,
    Receiver,
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
    let mut fleet = Fleet::start(binary, dir, plan.members, &ARGS).await?;
    let begun = Instant::now();
    let base = fill(&fleet, plan.keys, plan.value_bytes).await?;
    report(&format!("{} keys in {:?}", plan.keys, begun.elapsed()));
    // Clients of the member that lags wait for it; what the others see is the question.
    let plan_of_load = load::Plan {
        base,
        pinned: true,
        ..plan.load.clone()
    };
    let load = Load::start(fleet.endpoints(), &plan_of_load).await?;
    let mut rng = StdRng::seed_from_u64(plan.load.seed);
    let mut found = [vec![], vec![], vec![]];
    let (mut quiet, mut busy, mut transfers) = (vec![], vec![], 0);
    let mut usual = Duration::from_millis(500);
    for round in 1..=plan.rounds {
        let (leader, _) = fleet.leader().await?;
        let victim = (leader + 1) % plan.members;
        let endpoint = fleet.members[victim].endpoint();
        let from = load.now();
        load.more(QUIET).await?;
        let before_it = Window::new(&endpoint, from, load.now());
        fleet.members[victim].kill()?;
        load.more(MISSED).await?;
        let before = fleet.members[victim].says(&RECEIVING);
        let harm = match round % 3 {
            2 if plan.harm => Harm::Sender,
            0 if plan.harm => Harm::Receiver,
            _ => Harm::None,
        };
        let took = if harm == Harm::None {
            let begun = Instant::now();
            fleet.members[victim].launch()?;
            // A log that was not shortened in time brings the member back without.
            let transfer = receives(&fleet, victim, before).await?;
            let from = load.now();
            fleet.members[victim].serves().await?;
            let took = begun.elapsed();
            if transfer {
                usual = took;
                busy.push(Window::new(&endpoint, from, load.now()));
                quiet.push(before_it);
            }
            took
        } else {
            comes_back(&mut fleet, leader, victim, harm, usual, &mut rng).await?
        };
        let began = fleet.members[victim].says(&RECEIVING) - before;
        transfers += began;
        found[harm as usize].push(took);
        let running = fleet.running();
        let revision = converged(&fleet, &running).await?;
        same_hash(&fleet, &running, revision).await?;
        report(&format!(
            "round {round}: {} served {} after its start; harm: {harm:?}; {began} transfers began; all agree",
            fleet.members[victim].name(),
            ms(took)
        ));
    }
    ensure!(transfers > 0, "no snapshot was sent in any round");
    let mut outcome = load.finish().await?;
    let agreement = agree(&fleet, &mut outcome.ledger).await?;
    is_filled(&fleet, plan.keys).await?;
    let [undisturbed, sender_killed, receiver_killed] = found.map(|it| it.into_iter().collect());
    Ok(Report {
        undisturbed,
        sender_killed,
        receiver_killed,
        transfers,
        writes: vec![
            writes("before", &outcome.attempts, &quiet),
            writes("during a transfer", &outcome.attempts, &busy),
            times_slower(&outcome.attempts, &quiet, &busy),
        ],
        agreement,
        load: describe(&outcome),
    })
}

/// Starts the member that has missed too much, does harm to the transfer, and waits until it serves.
/// Returns how long that took from its last start. `usual` is how long it takes undisturbed.
async fn comes_back(
    fleet: &mut Fleet,
    leader: usize,
    victim: usize,
    harm: Harm,
    usual: Duration,
    rng: &mut StdRng,
) -> anyhow::Result<Duration> {
    let mut began = fleet.members[victim].says(&RECEIVING);
    let mut begun = Instant::now();
    fleet.members[victim].launch()?;
    let kills = if harm == Harm::Receiver { KILLS } else { 1 };
    for _ in 0..kills {
        if !receives(fleet, victim, began).await? {
            break;
        }
        tokio::time::sleep(usual.mul_f64(rng.random_range(0.0..1.0))).await;
        if harm == Harm::Sender {
            fleet.members[leader].kill()?;
            fleet.members[leader].launch()?;
        } else {
            fleet.members[victim].kill()?;
            began = fleet.members[victim].says(&RECEIVING);
            begun = Instant::now();
            fleet.members[victim].launch()?;
        }
    }
    if harm == Harm::Sender {
        fleet.members[leader].serves().await?;
    }
    fleet.members[victim].serves().await?;
    Ok(begun.elapsed())
}

/// Waits until another transfer to the member has begun. Returns whether it has: a member that had
/// received all of it serves without.
async fn receives(fleet: &Fleet, victim: usize, before: usize) -> anyhow::Result<bool> {
    let client = fleet.client_of(victim).await?;
    let serves = async {
        while client.get("serves", GetOptions::new()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    let begins = async {
        while fleet.members[victim].says(&RECEIVING) <= before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = serves => Ok(false),
        () = begins => Ok(true),
        () = tokio::time::sleep(PATIENCE) => bail!("no snapshot is sent"),
    }
}

/// A time in which somebody writes at members other than one.
struct Window {
    not_at: String,
    from: Duration,
    to: Duration,
}

impl Window {
    fn new(not_at: &str, from: Duration, to: Duration) -> Self {
        let not_at = not_at.to_owned();
        Self { not_at, from, to }
    }

    /// How long those writes took, and the longest time without one.
    fn writes(&self, attempts: &[Attempt]) -> (Times, Duration) {
        let others = attempts
            .iter()
            .filter(|it| it.endpoint.as_deref() != Some(&*self.not_at))
            .cloned();
        let others: Vec<_> = others.collect();
        (
            acknowledged(&others, self.from, self.to),
            longest_silence(&others, self.from, self.to),
        )
    }
}

/// Those of all windows together.
fn writes(what: &str, attempts: &[Attempt], windows: &[Window]) -> String {
    let mut times = Times::default();
    let mut silence = Duration::ZERO;
    for window in windows {
        let (found, silent) = window.writes(attempts);
        times.extend(found);
        silence = silence.max(silent);
    }
    let (p50, p99) = (ms(times.at(50)), ms(times.at(99)));
    format!(
        "writes at other members, {what}: p50 {p50}, p99 {p99}; no write for at most {}",
        ms(silence)
    )
}

/// The p99 of writes during each transfer by that before it, and the median of those.
fn times_slower(attempts: &[Attempt], before: &[Window], during: &[Window]) -> String {
    let p99 = |window: &Window| window.writes(attempts).0.at(99).as_secs_f64();
    let pairs = before.iter().zip(during);
    let mut times: Vec<f64> = pairs.map(|(it, then)| p99(then) / p99(it)).collect();
    let each: Vec<_> = times.iter().map(|it| format!("{it:.2}")).collect();
    times.sort_unstable_by(f64::total_cmp);
    format!(
        "p99 during a transfer, by that before: {}; median {:.2}",
        each.join(", "),
        times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
    )
}

impl Report {
    /// The final table.
    pub fn table(&self) -> Vec<String> {
        let mut lines = vec![
            format!("start to serving: {}", self.undisturbed),
            format!("  sender killed: {}", self.sender_killed),
            format!("  receiver killed: {}", self.receiver_killed),
            format!("transfers: {}", self.transfers),
        ];
        lines.extend(self.writes.iter().chain(&self.load).cloned());
        lines.push(self.agreement.to_string());
        lines
    }
}
