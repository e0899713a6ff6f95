//! Keeps a copy of a prefix for ever: lists, watches, and lists again when it was too slow.
//!
//! ```sh
//! cargo run -p ferrite-client --example list_then_watch -- 127.0.0.1:2379 jobs/
//! ```

use std::collections::BTreeMap;
use std::error::Error;

use bytes::Bytes;
use ferrite_client::pb::mvccpb::event::EventType;
use ferrite_client::{Client, Config, Error as ClientError, EtcdError, Mirror};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let endpoint = args.next().unwrap_or_else(|| "127.0.0.1:2379".to_owned());
    let prefix = args.next().unwrap_or_default();
    let client = Client::connect(Config::new([endpoint])).await?;
    loop {
        match copy(&client, &prefix).await {
            // What happened meanwhile is compacted: only the present is left.
            Err(ClientError::Etcd(EtcdError::Compacted)) => println!("too late, once more"),
            Err(error) => return Err(error.into()),
            Ok(never) => match never {},
        }
    }
}

async fn copy(client: &Client, prefix: &str) -> Result<std::convert::Infallible, ClientError> {
    let mut copied: BTreeMap<Bytes, Bytes> = BTreeMap::new();
    let mut mirror = Mirror::new(client, prefix.to_owned());
    while let Some(pairs) = mirror.next_base().await? {
        copied.extend(pairs.into_iter().map(|kv| (kv.key, kv.value)));
    }
    println!("{} keys at revision {}", copied.len(), mirror.revision());
    let mut updates = mirror.updates().await?;
    loop {
        for event in updates.next().await?.events {
            let kind = event.r#type();
            let kv = event.kv.unwrap_or_default();
            println!("{kind:?} {:?}", kv.key);
            match kind {
                EventType::Put => copied.insert(kv.key, kv.value),
                EventType::Delete => copied.remove(&kv.key),
            };
        }
    }
}
