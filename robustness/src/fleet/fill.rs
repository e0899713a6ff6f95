//! Data that is there before a load begins.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use anyhow::{Context, ensure};
use bytes::Bytes;
use ferrite_client::{GetOptions, PutOptions, Txn, TxnOp};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;

use super::{Fleet, PATIENCE};

/// Keys of one transaction: below the limit of its operations.
const BATCH: u32 = 100;
/// Transactions at the same time.
const CLIENTS: u32 = 16;
/// Before all keys of a load, in the order of keys.
const PREFIX: &str = "fill/";

/// Puts `keys` keys with values of `value_bytes`. Returns the revision afterwards.
///
/// # Errors
/// The cluster does not take them.
pub async fn fill(fleet: &Fleet, keys: u32, value_bytes: usize) -> anyhow::Result<i64> {
    let next = Arc::new(AtomicU32::new(0));
    let mut tasks = JoinSet::new();
    for number in 0..CLIENTS {
        let (client, next) = (fleet.client().await?, Arc::clone(&next));
        let mut rng = StdRng::seed_from_u64(number.into());
        tasks.spawn(async move {
            loop {
                let first = next.fetch_add(BATCH, Ordering::Relaxed);
                if first >= keys {
                    return anyhow::Ok(());
                }
                let puts: Vec<_> = (first..keys.min(first + BATCH))
                    .map(|key| {
                        let mut value = vec![0u8; value_bytes];
                        rng.fill(&mut value[..]);
                        let key = format!("{PREFIX}{key:09}");
                        TxnOp::put(key, Bytes::from(value), PutOptions::new())
                    })
                    .collect();
                let deadline = Instant::now() + PATIENCE;
                // To do it twice does no harm.
                while let Err(error) = client.txn(Txn::new().and_then(puts.clone())).await {
                    ensure!(Instant::now() < deadline, "keys cannot be filled: {error}");
                }
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    let client = fleet.client().await?;
    let response = client.get("filled", GetOptions::new()).await?;
    Ok(response.header.context("no header")?.revision)
}

/// Checks that every running member has all keys that were filled.
///
/// # Errors
/// One has not.
pub async fn is_filled(fleet: &Fleet, keys: u32) -> anyhow::Result<()> {
    for at in fleet.running() {
        let options = GetOptions::new().prefix().count_only().serializable();
        let found = fleet.client_of(at).await?.get(PREFIX, options).await?.count;
        let name = fleet.members[at].name();
        ensure!(
            found == i64::from(keys),
            "{name} has {found} of {keys} filled keys"
        );
    }
    Ok(())
}
