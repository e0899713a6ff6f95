//! Writes, reads, a transaction, a lease that is kept alive, a watch.
//!
//! ```sh
//! cargo run -p ferrite-client --example quickstart -- 127.0.0.1:2379
//! ```

use std::error::Error;
use std::time::Duration;

use ferrite_client::{
    Client, Compare, CompareOp, Config, DeleteOptions, GetOptions, LeaseId, PutOptions, Txn, TxnOp,
    WatchOptions,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut endpoints: Vec<String> = std::env::args().skip(1).collect();
    if endpoints.is_empty() {
        endpoints.push("127.0.0.1:2379".to_owned());
    }
    let client = Client::connect(Config::new(endpoints))
        .await?
        .with_timeout(Duration::from_secs(5))
        .with_namespace("quickstart/");

    // Accepted before the writes, so it sees them.
    let mut watcher = client.watch("", WatchOptions::new().prefix()).await?;

    let written = client.put("color", "red", PutOptions::new()).await?;
    let revision = written.header.unwrap_or_default().revision;
    println!("written at revision {revision}");

    let swap = Txn::new()
        .when([Compare::mod_revision("color", CompareOp::Equal, revision)])
        .and_then([TxnOp::put("color", "blue", PutOptions::new())]);
    println!("swapped: {}", client.txn(swap).await?.succeeded);

    let lease = LeaseId::new(client.leases().grant(10).await?.id);
    let mut renewals = client.leases().keep_alive(lease);
    println!("renewed for {} s", renewals.next().await?.ttl);
    client
        .put("worker", "up", PutOptions::new().lease(lease))
        .await?;

    let found = client.get("", GetOptions::new().prefix()).await?;
    for kv in &found.kvs {
        println!("{:?} = {:?}", kv.key, kv.value);
    }
    client.leases().revoke(lease).await?;
    client.delete("color", DeleteOptions::new()).await?;

    // red, blue, the worker, and the end of both.
    let mut changes = 0;
    while changes < 5 {
        changes += watcher.next().await?.events.len();
    }
    println!("{changes} changes seen");
    Ok(())
}
