//! A stream for a peer that cannot connect to this member, opened from here.
//!
//! A peer may know no URL of this member that works: it has moved, a `member update` had a typing error,
//! a firewall lets through one direction only. etcd's members receive over streams that they open, so
//! they hear each other all the same, and operators count on it. Here a member writes to streams that it
//! opens; a member that can reach a peer but hears nothing from it offers one more, which the peer
//! writes to as to its own.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};

use super::OFFER_PATH;
use super::call::CallError;
use super::dial::{self, Opened};
use super::link::Link;
use super::receive::Stream;
use super::shared::Shared;

/// Time between looks at whether the peer has connected.
const INTERVAL: Duration = Duration::from_secs(1);

/// So many looks in a row have to find that it has not: one that restarts connects by itself.
const LOOKS: u32 = 2;

/// Offers a peer streams as long as it is one, whenever it needs them.
pub(super) async fn keep_offering(shared: Arc<Shared>, link: Arc<Link>) {
    tokio::select! {
        () = link.end.cancelled() => {}
        () = run(&shared, &link) => {}
    }
}

async fn run(shared: &Arc<Shared>, link: &Arc<Link>) {
    let mut timer = interval(INTERVAL);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = 0;
    loop {
        timer.tick().await;
        // A peer that cannot be reached cannot be offered anything.
        let needed = link.since.lock().is_some() && !link.sessions.is_connected();
        looks = if needed { looks + 1 } else { 0 };
        if looks < LOOKS || shared.draining.is_cancelled() {
            continue;
        }
        let offering = timeout(shared.dial_timeout, offer(shared, link));
        match offering.await.unwrap_or(Err(CallError::TimedOut)) {
            Ok((stream, Opened { socket, early, .. })) => stream.receive(socket, early).await,
            Err(error) => {
                tracing::debug!(peer = %link.peer, %error, "a peer does not take a stream to write to");
            }
        }
    }
}

async fn offer(shared: &Arc<Shared>, link: &Arc<Link>) -> Result<(Stream, Opened), CallError> {
    let url = link.url.lock().clone();
    let url = url.ok_or_else(|| CallError::Nonsense("no URL has worked yet".to_owned()))?;
    // The peer numbers the session, which has to be newer than those seen.
    let newest = link.sessions.newest();
    let opened = dial::open(shared, link, &url, OFFER_PATH, newest).await?;
    let session = opened
        .session
        .ok_or_else(|| CallError::Nonsense("the stream has no number".to_owned()))?;
    let end = link.sessions.begin(session).map_err(|newest| {
        CallError::Nonsense(format!("session {session} is not newer than {newest}"))
    })?;
    let stream = Stream::begin(Arc::clone(shared), Arc::clone(link), session, end);
    Ok((stream, opened))
}
