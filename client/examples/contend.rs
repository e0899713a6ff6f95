//! Contends for a lock, an election, a counter and an owned key, and finds out whether anything else was let in
//! at the same time. Run several at once, beside other etcd clients if you like:
//!
//! ```sh
//! cargo run -p ferrite-client --example contend -- 127.0.0.1:2379 4 50
//! ```

use std::error::Error;

use ferrite_client::concurrency::{Election, Isolation, Mutex, Session, SessionOptions};
use ferrite_client::{
    Client, Compare, Config, DeleteOptions, Error as ClientError, GetOptions, Leasing, PutOptions,
    Txn, TxnOp,
};

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let endpoint = args.next().unwrap_or_else(|| "127.0.0.1:2379".to_owned());
    let mut number = |default| args.next().map_or(Ok(default), |text| text.parse());
    let (workers, rounds): (usize, usize) = (number(4)?, number(50)?);
    let tasks: Vec<_> = (0..workers)
        .map(|index| tokio::spawn(work(endpoint.clone(), format!("rust-{index}"), rounds)))
        .collect();
    for task in tasks {
        task.await??;
    }
    let client = Client::connect(Config::new([endpoint])).await?;
    for count in ["lock-count", "election-count", "stm-count"] {
        let found = client.get(key(count), GetOptions::new()).await?;
        let value = found.kvs.first().map(|kv| kv.value.clone());
        println!(
            "{count}: {}",
            String::from_utf8_lossy(&value.unwrap_or_default())
        );
    }
    Ok(())
}

fn key(name: &str) -> String {
    format!("interop/{name}")
}

async fn work(endpoint: String, me: String, rounds: usize) -> Result<(), Failure> {
    let client = Client::connect(Config::new([endpoint])).await?;
    let session = Session::open(&client, SessionOptions::new().ttl(10)).await?;
    let mut mutex = Mutex::new(&session, key("lock"));
    for _ in 0..rounds {
        mutex.lock().await?;
        alone(&client, "lock", &me).await?;
        mutex.unlock().await?;
    }
    let mut election = Election::new(&session, key("election"));
    for _ in 0..rounds {
        election.campaign(me.clone()).await?;
        alone(&client, "election", &me).await?;
        election.proclaim(format!("{me}!")).await?;
        let leader = election.leader().await?.kv.unwrap_or_default();
        if leader.value != format!("{me}!") {
            return Err(format!("{:?} leads, not {me}", leader.value).into());
        }
        election.resign().await?;
    }
    for _ in 0..rounds {
        let count = client.stm(Isolation::SerializableSnapshot, async |stm| {
            let count = stm.get(key("stm-count")).await?;
            let next = number(count.unwrap_or_default().as_ref()) + 1;
            stm.put(key("stm-count"), next.to_string());
            Ok::<_, ClientError>(())
        });
        count.await?;
    }
    let leasing = Leasing::start(&client, key("owners/"), SessionOptions::new().ttl(10));
    leasing.ready().await;
    for round in 0..rounds {
        let value = format!("{me} {round}");
        let written = leasing.put(key("owned"), value, PutOptions::new()).await?;
        let written = written.header.unwrap_or_default().revision;
        for _ in 0..3 {
            let found = leasing.get(key("owned"), GetOptions::new()).await?;
            let read = found.kvs.first().map_or(0, |kv| kv.mod_revision);
            if read < written {
                return Err(format!("{me} wrote at {written} and read what was at {read}").into());
            }
        }
    }
    leasing.close().await?;
    session.close().await?;
    Ok(())
}

/// Does what goes wrong if anyone else does it at the same time: creates a key that must not be
/// there, counts by reading and writing, removes the key.
async fn alone(client: &Client, what: &str, me: &str) -> Result<(), Failure> {
    let (guard, count) = (key(&format!("{what}-guard")), key(&format!("{what}-count")));
    let enter = Txn::new()
        .when([Compare::key_missing(guard.clone())])
        .and_then([TxnOp::put(guard.clone(), me.to_owned(), PutOptions::new())]);
    if !client.txn(enter).await?.succeeded {
        return Err(format!("{me} is not alone in the {what}").into());
    }
    let found = client.get(count.clone(), GetOptions::new()).await?;
    let next = number(found.kvs.first().map_or(b"", |kv| kv.value.as_ref())) + 1;
    client
        .put(count, next.to_string(), PutOptions::new())
        .await?;
    client.delete(guard, DeleteOptions::new()).await?;
    Ok(())
}

fn number(text: &[u8]) -> u64 {
    String::from_utf8_lossy(text).parse().unwrap_or(0)
}
