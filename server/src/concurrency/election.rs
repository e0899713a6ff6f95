//! `v3electionpb.Election`.

use std::collections::VecDeque;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::etcdserverpb::request_op::Request;
use ferrite_api::pb::mvccpb::KeyValue;
use ferrite_api::pb::mvccpb::event::EventType;
use ferrite_api::pb::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use ferrite_api::types::LeaseId;

use super::queue::{self, Queue};
use super::wait::{self, goes_on};
use super::{bare, first, session, unknown};
use crate::error::Error;
use crate::grpc::Kv;
use crate::handle::WatchStream;

/// Election.Campaign: returns when the caller is the leader.
///
/// Cancel safety: a key that waits is taken back.
///
/// # Errors
/// All of them `UNKNOWN` with the text of what went wrong, as etcd's.
pub(crate) async fn campaign<K: Kv>(
    kv: &K,
    request: CampaignRequest,
) -> Result<CampaignResponse, Error> {
    let lease = session(kv, request.lease).await.map_err(bare)?;
    let queue = Queue::new(&request.name);
    let key = queue.key(lease);
    let join = queue.join(&key, request.value.clone(), lease, false);
    let (joined, place, mut waiter) = wait::join(kv, &key, join).await.map_err(bare)?;
    let revision = place.revision;
    waiter.begin();
    if place.before.is_some_and(|own| own.value != request.value)
        && let Err(error) = put(kv, &key, revision, request.value, lease).await
    {
        waiter.leave().await;
        return Err(bare(error));
    }
    let won = elected(kv, &queue, &key, revision).await;
    // Whatever has failed, the candidate stays one; only who gives up resigns.
    waiter.stay();
    won.map_err(bare)?;
    let leader = LeaderKey {
        name: request.name,
        key,
        rev: revision,
        lease: lease.get(),
    };
    Ok(CampaignResponse {
        header: joined.header,
        leader: Some(leader),
    })
}

/// Waits for its turn. After a wait the key may have gone.
async fn elected<K: Kv>(kv: &K, queue: &Queue, key: &Bytes, revision: i64) -> Result<(), Error> {
    if !wait::turn(kv, queue, revision).await? {
        return Ok(());
    }
    let (_, own) = first(kv, queue::get(key)).await?;
    match own {
        Some(own) if own.create_revision == revision => Ok(()),
        _ => Err(not_leader()),
    }
}

/// Election.Proclaim: a new value for the key that was created at the revision given. That it is the
/// first in the queue is not looked at, as in etcd.
///
/// # Errors
/// As [`campaign`].
pub(crate) async fn proclaim<K: Kv>(
    kv: &K,
    request: ProclaimRequest,
) -> Result<ProclaimResponse, Error> {
    let leader = request.leader.ok_or_else(missing_leader)?;
    let lease = session(kv, leader.lease).await.map_err(bare)?;
    let header = put(kv, &leader.key, leader.rev, request.value, lease).await;
    Ok(ProclaimResponse {
        header: header.map_err(bare)?,
    })
}

async fn put<K: Kv>(
    kv: &K,
    key: &Bytes,
    revision: i64,
    value: Bytes,
    lease: LeaseId,
) -> Result<Option<pb::ResponseHeader>, Error> {
    let put = Request::RequestPut(queue::put(key, value, lease));
    let response = kv.txn(queue::if_created_at(key, revision, put)).await?;
    if response.succeeded {
        Ok(response.header)
    } else {
        Err(not_leader())
    }
}

/// Election.Resign: deletes the key, if it is the one that was created at the revision given.
///
/// # Errors
/// As [`campaign`].
pub(crate) async fn resign<K: Kv>(kv: &K, request: ResignRequest) -> Result<ResignResponse, Error> {
    let leader = request.leader.ok_or_else(missing_leader)?;
    let delete = Request::RequestDeleteRange(queue::delete(&leader.key));
    let txn = queue::if_created_at(&leader.key, leader.rev, delete);
    let header = kv.txn(txn).await.map_err(bare)?.header;
    Ok(ResignResponse { header })
}

/// Election.Leader.
///
/// # Errors
/// As [`campaign`].
pub(crate) async fn leader<K: Kv>(kv: &K, request: LeaderRequest) -> Result<LeaderResponse, Error> {
    let queue = Queue::new(&request.name);
    let (header, oldest) = first(kv, queue.oldest()).await.map_err(bare)?;
    let oldest = oldest.ok_or_else(|| unknown("election: no leader"))?;
    Ok(answer(header, oldest))
}

/// Election.Observe: the leader, each new value of it that is seen, then the next leader. Waits while
/// there is none.
pub(crate) struct Observer<K> {
    kv: K,
    queue: Queue,
    /// The changes of the leader's key; `None` while there is no leader.
    watch: Option<WatchStream>,
    /// Seen, and not yet told.
    seen: VecDeque<LeaderResponse>,
}

impl<K: Kv> Observer<K> {
    pub(crate) fn new(kv: K, request: &LeaderRequest) -> Self {
        Self {
            kv,
            queue: Queue::new(&request.name),
            watch: None,
            seen: VecDeque::new(),
        }
    }

    /// What is seen next.
    ///
    /// # Errors
    /// Nothing more can be seen.
    pub(crate) async fn next(&mut self) -> Result<LeaderResponse, Error> {
        loop {
            if let Some(response) = self.seen.pop_front() {
                return Ok(response);
            }
            let Some(watch) = &mut self.watch else {
                let (header, leader) = next_leader(&self.kv, &self.queue).await?;
                let mut watch = self.kv.watch()?;
                let create = pb::WatchCreateRequest {
                    key: leader.key.clone(),
                    start_revision: header.revision + 1,
                    ..Default::default()
                };
                watch.create(create).await;
                self.watch = Some(watch);
                return Ok(answer(header, leader));
            };
            let response = watch.next().await?;
            let header = response.header;
            let response = response.to_message();
            goes_on(&response)?;
            for event in response.events {
                if event.r#type() == EventType::Delete {
                    self.watch = None;
                    break;
                }
                let changed = event.kv.map(|pair| answer(header, pair));
                self.seen.extend(changed);
            }
        }
    }
}

/// The leader, or the first who becomes it. The revision of the header is that of the pair then.
async fn next_leader<K: Kv>(
    kv: &K,
    queue: &Queue,
) -> Result<(pb::ResponseHeader, KeyValue), Error> {
    let (header, oldest) = first(kv, queue.oldest()).await?;
    if let Some(oldest) = oldest {
        return Ok((header, oldest));
    }
    let mut watch = kv.watch()?;
    watch.create(queue.watch(header.revision)).await;
    loop {
        let response = watch.next().await?;
        let mut header = response.header;
        let response = response.to_message();
        goes_on(&response)?;
        let mut events = response.events.into_iter();
        let put = events.find(|event| event.r#type() == EventType::Put);
        if let Some(pair) = put.and_then(|event| event.kv) {
            header.revision = pair.mod_revision;
            return Ok((header, pair));
        }
    }
}

fn answer(header: pb::ResponseHeader, pair: KeyValue) -> LeaderResponse {
    LeaderResponse {
        header: Some(header),
        kv: Some(pair),
    }
}

fn not_leader() -> Error {
    unknown("election: not leader")
}

fn missing_leader() -> Error {
    unknown("\"leader\" field must be provided")
}
