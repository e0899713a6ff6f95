//! Measures how far away a peer is, and whether its clock agrees with the one here.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http_body_util::Empty;
use serde::Deserialize;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::call::{CallError, Caller};
use super::link::Link;
use super::shared::Shared;
use super::via::Via;
use crate::logging;

pub(super) const PATH: &str = "/raft/probing";

/// Time between probes.
const INTERVAL: Duration = Duration::from_secs(4);

/// How long a probe may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Difference of clocks that is worth a warning.
const HIGH_DRIFT: Duration = Duration::from_secs(1);

/// Time between warnings.
const WARNINGS: Duration = Duration::from_secs(30);

/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 4096;

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Now")]
    now: String,
}

/// What a probe has found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) round_trip: Duration,
    /// How much the peer's clock is ahead or behind; `None` if it tells no time.
    pub(super) drift: Option<Duration>,
}

/// Probes a peer as long as it is one, while there is a stream to it.
pub(super) async fn keep_probing(shared: Arc<Shared>, link: Arc<Link>) {
    tokio::select! {
        () = link.end.cancelled() => {}
        () = shared.draining.cancelled() => {}
        () = run(&link, &shared.via) => {}
    }
}

async fn run(link: &Link, via: &Via) {
    let mut timer = interval(INTERVAL);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut probe, mut warned) = (Probe::new(via), None::<Instant>);
    loop {
        timer.tick().await;
        if link.since.lock().is_none() {
            probe = Probe::new(via);
            continue;
        }
        let found = timeout(PATIENCE, probe.probe(link)).await;
        match found.unwrap_or(Err(CallError::TimedOut)) {
            Ok(found) => report(link, &found, &mut warned),
            Err(error) => {
                probe = Probe::new(via);
                tracing::debug!(peer = %link.peer, %error, "a probe of a peer has failed");
            }
        }
    }
}

fn report(link: &Link, found: &Found, warned: &mut Option<Instant>) {
    let seconds = found.round_trip.as_secs_f64();
    link.metrics.round_trip_time.observe(seconds);
    let silent = warned.is_none_or(|warned| warned.elapsed() >= WARNINGS);
    if let Some(drift) = found.drift
        && drift > HIGH_DRIFT
        && silent
    {
        *warned = Some(Instant::now());
        tracing::warn!(
            "remote-peer-id" = %link.peer,
            "clock-drift" = ?drift,
            rtt = ?found.round_trip,
            "prober found high clock drift"
        );
    }
}

/// A connection that is kept from probe to probe.
pub(super) struct Probe {
    via: Via,
    caller: Option<Caller<Empty<Bytes>>>,
}

impl Probe {
    pub(super) fn new(via: &Via) -> Self {
        Self {
            via: via.clone(),
            caller: None,
        }
    }

    pub(super) async fn probe(&mut self, link: &Link) -> Result<Found, CallError> {
        let caller = match &mut self.caller {
            Some(caller) => caller,
            None => {
                let url = link.url.lock().clone();
                let url = url.ok_or_else(|| {
                    CallError::Connect(std::io::Error::other("there is no connection"))
                })?;
                self.caller.insert(Caller::connect(&url, &self.via).await?)
            }
        };
        let (begun, asked) = (Instant::now(), SystemTime::now());
        let (_, body) = caller.get(PATH, http::HeaderMap::new(), MAX_ANSWER).await?;
        let round_trip = begun.elapsed();
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|error| CallError::Nonsense(error.to_string()))?;
        // The peer has looked at its clock about in the middle.
        let drift = logging::parse_rfc3339(&answer.now)
            .map(|there| difference(there, asked + round_trip / 2));
        Ok(Found { round_trip, drift })
    }
}

fn difference(a: SystemTime, b: SystemTime) -> Duration {
    a.duration_since(b).unwrap_or_else(|error| error.duration())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_may_differ_in_either_direction() {
        let (now, second) = (SystemTime::now(), Duration::from_secs(1));
        assert_eq!(difference(now, now + second), second);
        assert_eq!(difference(now + second, now), second);
        assert_eq!(difference(now, now), Duration::ZERO);
    }
}
