//! Reads from a cache and from owned keys, and what they cost beside reads from the server.
//!
//! ```sh
//! cargo run -p ferrite-client --example cache -- 127.0.0.1:2379 1000
//! ```

use std::error::Error;
use std::time::Instant;

use ferrite_client::concurrency::SessionOptions;
use ferrite_client::{Cache, CacheOptions, Client, Config, GetOptions, Leasing, PutOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let endpoint = args.next().unwrap_or_else(|| "127.0.0.1:2379".to_owned());
    let reads: u32 = args.next().map_or(Ok(1000), |text| text.parse())?;
    let client = Client::connect(Config::new([endpoint]))
        .await?
        .with_namespace("cache-example/");
    let written = client.put("k/a", "1", PutOptions::new()).await?;

    let cache = Cache::start(&client, "k/", CacheOptions::new());
    let revision = written.header.unwrap_or_default().revision;
    cache.wait_for_revision(revision).await?;
    let leasing = Leasing::start(&client, "owners/", SessionOptions::new().ttl(10));
    leasing.ready().await;

    let begun = Instant::now();
    for _ in 0..reads {
        client.get("k/a", GetOptions::new()).await?;
    }
    println!(
        "server, linearizable:      {:?} a read",
        begun.elapsed() / reads
    );
    let begun = Instant::now();
    for _ in 0..reads {
        cache.get("k/a", GetOptions::new()).await?;
    }
    println!(
        "cache, linearizable:       {:?} a read",
        begun.elapsed() / reads
    );
    let begun = Instant::now();
    for _ in 0..reads {
        cache.get("k/a", GetOptions::new().serializable()).await?;
    }
    println!(
        "cache, serializable:       {:?} a read",
        begun.elapsed() / reads
    );
    let begun = Instant::now();
    for _ in 0..reads {
        leasing.get("k/a", GetOptions::new()).await?;
    }
    println!(
        "owned key, linearizable:   {:?} a read",
        begun.elapsed() / reads
    );
    leasing.close().await?;
    Ok(())
}
