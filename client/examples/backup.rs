//! Saves a snapshot of each endpoint's database.
//!
//! ```sh
//! cargo run -p ferrite-client --example backup -- /backups 10.0.0.1:2379 10.0.0.2:2379
//! ```

use std::error::Error;
use std::path::PathBuf;

use ferrite_client::{Client, Config};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let directory = PathBuf::from(args.next().unwrap_or_else(|| ".".to_owned()));
    let mut endpoints: Vec<String> = args.collect();
    if endpoints.is_empty() {
        endpoints.push("127.0.0.1:2379".to_owned());
    }
    for endpoint in endpoints {
        // One endpoint: the snapshot is this member's.
        let client = Client::connect(Config::new([endpoint.clone()])).await?;
        let status = client.maintenance().status(&endpoint).await?;
        let member = status.header.unwrap_or_default().member_id;
        let path = directory.join(format!("{member:x}.db"));
        let bytes = client.maintenance().snapshot().await?.save(&path).await?;
        println!("{endpoint}: {} bytes in {}", bytes, path.display());
    }
    Ok(())
}
