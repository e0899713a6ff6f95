//! What clients see of a member.

use std::collections::BTreeMap;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::etcdserverpb::kv_client::KvClient;
use ferrite_api::pb::etcdserverpb::lease_client::LeaseClient;
use ferrite_api::pb::etcdserverpb::maintenance_client::MaintenanceClient;
use prost::Message;

use super::{MAX_MESSAGE, channel};
use crate::process::Process;

/// Pairs of a page.
const PAGE: i64 = 5000;

/// What was seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// The store revision.
    pub revision: i64,
    /// By revision: HashKV, how many pairs there are, and a checksum of them.
    pub keys: BTreeMap<i64, (u32, u64, u32)>,
    /// By lease: the time that was granted, and the keys.
    pub leases: BTreeMap<i64, (i64, Vec<Bytes>)>,
    /// Types of active alarms.
    pub alarms: Vec<i32>,
}

/// Looks at a member at some revisions.
///
/// # Errors
/// It does not answer.
pub async fn look(member: &Process, revisions: &[i64]) -> anyhow::Result<Seen> {
    let channel = channel(member).await?;
    let mut kv = KvClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE);
    let mut maintenance = MaintenanceClient::new(channel.clone());
    let mut keys = BTreeMap::new();
    for revision in revisions {
        let request = pb::HashKvRequest {
            revision: *revision,
        };
        let hash = maintenance.hash_kv(request).await?.into_inner().hash;
        let (count, sum) = pairs(&mut kv, *revision).await?;
        keys.insert(*revision, (hash, count, sum));
    }
    let mut lease = LeaseClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
    let all = lease.lease_leases(pb::LeaseLeasesRequest {}).await?;
    let mut leases = BTreeMap::new();
    for pb::LeaseStatus { id } in all.into_inner().leases {
        let request = pb::LeaseTimeToLiveRequest { id, keys: true };
        let mut answer = lease.lease_time_to_live(request).await?.into_inner();
        answer.keys.sort();
        leases.insert(id, (answer.granted_ttl, answer.keys));
    }
    let alarms = maintenance.alarm(pb::AlarmRequest::default()).await?;
    let revision = kv.range(everything(0, Bytes::new())).await?.into_inner();
    Ok(Seen {
        revision: revision.header.unwrap_or_default().revision,
        keys,
        leases,
        alarms: alarms
            .into_inner()
            .alarms
            .iter()
            .map(|alarm| alarm.alarm)
            .collect(),
    })
}

/// Every pair of a revision.
async fn pairs(
    kv: &mut KvClient<tonic::transport::Channel>,
    revision: i64,
) -> anyhow::Result<(u64, u32)> {
    let (mut count, mut sum, mut from) = (0, 0, Bytes::from_static(b"\0"));
    loop {
        let mut answer = kv.range(everything(revision, from)).await?.into_inner();
        for pair in &answer.kvs {
            count += 1;
            sum = crc32c::crc32c_append(sum, &pair.encode_to_vec());
        }
        let Some(last) = answer.kvs.pop().filter(|_| answer.more) else {
            return Ok((count, sum));
        };
        from = [&last.key[..], b"\0"].concat().into();
    }
}

fn everything(revision: i64, from: Bytes) -> pb::RangeRequest {
    let from = if from.is_empty() {
        Bytes::from_static(b"\0")
    } else {
        from
    };
    pb::RangeRequest {
        key: from,
        range_end: Bytes::from_static(b"\0"),
        revision,
        limit: PAGE,
        ..Default::default()
    }
}
