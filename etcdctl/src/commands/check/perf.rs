//! `check perf`: writes for a minute at a rate, and judges what the writes took.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, interval_at};

use super::writers::{Pairs, Tickets, Writes, write};
use super::{Check, PATIENCE, progress_bar, report};
use crate::cli::Matches;
use crate::commands::signals::Signals;
use crate::context::Context;
use crate::failure::{Exit, Failure};

const SECONDS: u32 = 60;
const LASTING: Duration = Duration::from_secs(SECONDS as u64);
const KEY_BYTES: usize = 256;
const VALUE_BYTES: usize = 1024;

struct Load {
    clients: usize,
    /// Writes a second.
    rate: u32,
}

/// From small to very large.
const LOADS: [Load; 4] = [
    Load {
        clients: 50,
        rate: 150,
    },
    Load {
        clients: 200,
        rate: 1_000,
    },
    Load {
        clients: 500,
        rate: 8_000,
    },
    Load {
        clients: 1_000,
        rate: 15_000,
    },
];

pub(crate) fn run(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let load = &LOADS[super::load(&matches.flags)?];
    let check = Check::open(context, matches, load.clients)?;
    check.session.run(async {
        let client = check.client().with_timeout(LASTING);
        check.require_no_keys(&client, "'").await?;
        // From here on there are keys, so a signal only ends the check before its time. Another
        // one leaves them.
        let mut signals = Signals::catch()?;
        let writes = written(&check, load.rate, &mut signals).await?;
        tokio::select! {
            tidied = tidy(context, &check) => tidied?,
            () = signals.next() => return Err(interrupted()),
        }
        match report::judge(context, &writes, load.rate)? {
            true => Ok(()),
            false => Err(Failure::silent(Exit::Error)),
        }
    })
}

/// Writes until the time is up, or a signal comes.
async fn written(check: &Check, rate: u32, signals: &mut Signals) -> Result<Writes, Failure> {
    let pairs = Pairs::new(&check.prefix, KEY_BYTES, VALUE_BYTES);
    let tickets = Tickets::rate(rate, LASTING);
    let stop = tickets.stop();
    let bar = progress_bar(u64::from(SECONDS));
    let second = Duration::from_secs(1);
    let mut seconds = interval_at(Instant::now() + second, second);
    let mut writing = pin!(write(&check.clients, &pairs, tickets, || ()));
    loop {
        tokio::select! {
            writes = &mut writing => {
                bar.finish();
                return Ok(writes);
            }
            _ = seconds.tick() => bar.inc(1),
            () = signals.next() => {
                // What is under way is waited for.
                if stop.swap(true, Ordering::Relaxed) {
                    return Err(interrupted());
                }
            }
        }
    }
}

fn interrupted() -> Failure {
    Failure::new(Exit::Error, "interrupted; keys of the check may be left")
}

/// Deletes the keys. That this fails is told, and no reason not to judge the writes.
async fn tidy(context: &mut Context, check: &Check) -> Result<(), Failure> {
    let client = check.client().with_timeout(PATIENCE);
    match check.delete(&client).await {
        Ok(revision) => check.compact(context, revision).await?,
        Err(error) => writeln!(
            context.out(),
            "FAIL: Cleanup failed during key deletion: ERROR({error})"
        )?,
    }
    check.defragment(context).await
}
