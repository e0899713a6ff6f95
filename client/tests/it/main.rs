//! The client against fake servers on loopback: what it sends, where, and how often.

mod cache;
mod calls;
mod concurrency;
mod endpoints;
mod failover;
mod lease;
mod leasing;
mod mirror;
mod namespace;
mod ordering;
mod range_stream;
mod retry;
mod snapshot;
mod unprocessed;
mod watch;

use ferrite_client::{Client, Config};
use ferrite_fake::Fake;

/// A client of these servers that does not wait long before it connects again.
async fn client_of(fakes: &[&Fake]) -> Client {
    let pause = std::time::Duration::from_millis(10);
    let config = Config::new(fakes.iter().map(|fake| fake.endpoint()));
    Client::connect(config.reconnect_backoff(pause, pause))
        .await
        .expect("a valid configuration")
}
