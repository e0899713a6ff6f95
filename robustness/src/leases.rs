//! Leases in the kill loop: a client that grants and revokes, and the check that after a kill none
//! is lost and none comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::ensure;
use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::etcdserverpb::lease_client::LeaseClient;
use ferrite_api::pb::mvccpb::KeyValue;
use tonic::transport::Channel;

/// No lease of the loop may end by itself.
const TTL: i64 = 1_000_000;

/// What became of a lease, as far as its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is there.
    Granted,
    /// The last request about it had no answer.
    Unknown,
    /// It is not there, and never will be again.
    Gone,
}

/// All leases of a loop.
#[derive(Debug, Default)]
pub struct Leases {
    fates: BTreeMap<i64, Fate>,
}

impl Leases {
    /// Grants a lease for writers to attach keys to. It is never revoked.
    ///
    /// # Errors
    /// The server refuses it.
    pub async fn grant(&mut self, endpoint: &str) -> anyhow::Result<i64> {
        let id = self.next_id();
        let request = pb::LeaseGrantRequest { id, ttl: TTL };
        connect(endpoint).await?.lease_grant(request).await?;
        self.fates.insert(id, Fate::Granted);
        Ok(id)
    }

    fn next_id(&self) -> i64 {
        self.fates.last_key_value().map_or(1, |(last, _)| last + 1)
    }

    /// Grants and revokes until `killed`: every other lease stays.
    ///
    /// # Errors
    /// The server cannot be reached at the start.
    pub async fn churn(
        mut self,
        endpoint: String,
        killed: Arc<AtomicBool>,
    ) -> anyhow::Result<Self> {
        let mut client = connect(&endpoint).await?;
        while !killed.load(Ordering::Acquire) {
            let id = self.next_id();
            let request = pb::LeaseGrantRequest { id, ttl: TTL };
            let granted = client.lease_grant(request).await.is_ok();
            let mut fate = if granted {
                Fate::Granted
            } else {
                Fate::Unknown
            };
            if granted && id % 2 == 0 {
                let revoked = client.lease_revoke(pb::LeaseRevokeRequest { id }).await;
                fate = if revoked.is_ok() {
                    Fate::Gone
                } else {
                    Fate::Unknown
                };
            }
            self.fates.insert(id, fate);
            if fate == Fate::Unknown {
                break;
            }
        }
        Ok(self)
    }

    /// Checks the leases of a server that has restarted, and that each has exactly the keys that
    /// name it.
    ///
    /// # Errors
    /// The first contradiction found.
    pub async fn check(&mut self, endpoint: &str, pairs: &[KeyValue]) -> anyhow::Result<()> {
        let mut client = connect(endpoint).await?;
        let list = client.lease_leases(pb::LeaseLeasesRequest {}).await?;
        let found = list.into_inner().leases.into_iter();
        self.settle(&found.map(|lease| lease.id).collect())?;
        let mut keys: BTreeMap<i64, Vec<Bytes>> = BTreeMap::new();
        for kv in pairs.iter().filter(|kv| kv.lease != 0) {
            keys.entry(kv.lease).or_default().push(kv.key.clone());
        }
        for (id, keys) in keys {
            let request = pb::LeaseTimeToLiveRequest { id, keys: true };
            let lease = client.lease_time_to_live(request).await?.into_inner();
            ensure!(lease.granted_ttl == TTL, "lease {id} is {lease:?}");
            ensure!(
                lease.keys == keys,
                "lease {id} has {} keys, {} name it",
                lease.keys.len(),
                keys.len()
            );
        }
        Ok(())
    }

    /// Compares with what is there, which from now on has to stay as it is.
    fn settle(&mut self, found: &BTreeSet<i64>) -> anyhow::Result<()> {
        for (id, fate) in &mut self.fates {
            let is = if found.contains(id) {
                Fate::Granted
            } else {
                Fate::Gone
            };
            ensure!(
                *fate == is || *fate == Fate::Unknown,
                "lease {id} is {is:?}, its client was told {fate:?}"
            );
            *fate = is;
        }
        let stray = found.iter().find(|id| !self.fates.contains_key(*id));
        ensure!(stray.is_none(), "nobody granted lease {stray:?}");
        Ok(())
    }

    /// How many there were.
    pub fn len(&self) -> usize {
        self.fates.len()
    }

    /// Whether there was none.
    pub fn is_empty(&self) -> bool {
        self.fates.is_empty()
    }
}

async fn connect(endpoint: &str) -> anyhow::Result<LeaseClient<Channel>> {
    let channel = Channel::from_shared(format!("http://{endpoint}"))?;
    Ok(LeaseClient::new(channel.connect().await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_may_be_lost_and_none_may_come_back() {
        let fates = [Fate::Granted, Fate::Gone, Fate::Unknown, Fate::Unknown];
        let leases = || Leases {
            fates: (1..).zip(fates).collect(),
        };
        let set = |ids: &[i64]| ids.iter().copied().collect::<BTreeSet<_>>();
        let mut settled = leases();
        settled.settle(&set(&[1, 3])).unwrap();
        for (found, why) in [
            (&[3][..], "lost"),
            (&[1, 2, 3], "came back"),
            (&[1], "was there before"),
            (&[1, 3, 4], "was not there before"),
            (&[1, 3, 9], "granted by nobody"),
        ] {
            assert!(settled.settle(&set(found)).is_err(), "{why}");
        }
        assert!(leases().settle(&set(&[1])).is_ok());
    }
}
