//! The Election service.

use std::future::Future;

use ferrite_api::pb::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};

use super::Kv;
use super::stream::{Requests, Responses, Streaming};
use super::unary::Unary;
use crate::concurrency::election::{self, Observer};
use crate::error::Error;
use crate::metrics::Method;

/// Election.Campaign.
pub(super) struct Campaign;

impl Unary for Campaign {
    const METHOD: Method = Method::ElectionCampaign;
    type Request = CampaignRequest;
    type Reply = CampaignResponse;

    fn call<K: Kv>(
        kv: &K,
        request: CampaignRequest,
    ) -> impl Future<Output = Result<CampaignResponse, Error>> + Send {
        election::campaign(kv, request)
    }
}

/// Election.Proclaim.
pub(super) struct Proclaim;

impl Unary for Proclaim {
    const METHOD: Method = Method::ElectionProclaim;
    type Request = ProclaimRequest;
    type Reply = ProclaimResponse;

    fn call<K: Kv>(
        kv: &K,
        request: ProclaimRequest,
    ) -> impl Future<Output = Result<ProclaimResponse, Error>> + Send {
        election::proclaim(kv, request)
    }
}

/// Election.Leader.
pub(super) struct Leader;

impl Unary for Leader {
    const METHOD: Method = Method::ElectionLeader;
    type Request = LeaderRequest;
    type Reply = LeaderResponse;

    fn call<K: Kv>(
        kv: &K,
        request: LeaderRequest,
    ) -> impl Future<Output = Result<LeaderResponse, Error>> + Send {
        election::leader(kv, request)
    }
}

/// Election.Resign.
pub(super) struct Resign;

impl Unary for Resign {
    const METHOD: Method = Method::ElectionResign;
    type Request = ResignRequest;
    type Reply = ResignResponse;

    fn call<K: Kv>(
        kv: &K,
        request: ResignRequest,
    ) -> impl Future<Output = Result<ResignResponse, Error>> + Send {
        election::resign(kv, request)
    }
}

/// Election.Observe.
pub(super) struct Observe;

impl Streaming for Observe {
    const METHOD: Method = Method::ElectionObserve;
    type Request = LeaderRequest;
    type Response = LeaderResponse;

    async fn serve<K: Kv>(
        kv: K,
        requests: Requests<LeaderRequest>,
        responses: Responses<LeaderResponse>,
    ) -> Result<(), Error> {
        let mut observer = Observer::new(kv, &requests.only().await?);
        loop {
            match observer.next().await {
                Ok(response) => responses.send(&response).await?,
                Err(error) => {
                    // etcd says no more than that the stream is over.
                    tracing::debug!(%error, "observing an election ended");
                    return Ok(());
                }
            }
        }
    }
}
