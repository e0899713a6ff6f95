//! Defragmentation while others write.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use ferrite_api::pb::etcdserverpb::{
    CompactionRequest, DefragmentRequest, RangeRequest, StatusRequest,
};

use crate::load::{self, Plan, Summary, on_this_thread};
use crate::rpc::{Compact, Connection, Defragment, Range, Status};

/// What it was like.
#[derive(Clone, Debug)]
pub struct Defragmented {
    /// The writes meanwhile.
    pub writes: Summary,
    /// How long the call took.
    pub took: Duration,
    /// Size of the file before, bytes.
    pub before: i64,
    /// And after.
    pub after: i64,
}

/// Writes every key once more and compacts, so that about half of the file is unused.
///
/// # Errors
/// A request fails.
pub fn fragment(plan: &Plan) -> anyhow::Result<()> {
    load::fill(plan)?;
    let endpoint = plan.endpoints.first().context("no endpoint")?;
    on_this_thread(async {
        let mut connection = Connection::open(endpoint).await?;
        let newest = connection.call(Range, &key("x")).await?.header;
        let compact = CompactionRequest {
            revision: newest.context("no header")?.revision,
            physical: true,
        };
        connection.call(Compact, &compact).await?;
        Ok(())
    })
}

/// Defragments the first member while the clients of the plan write.
///
/// # Errors
/// A request fails.
pub fn defragment(plan: &Plan) -> anyhow::Result<Defragmented> {
    let endpoint = plan.endpoints.first().context("no endpoint")?;
    let call = || {
        on_this_thread(async {
            let mut connection = Connection::open(endpoint).await?;
            let before = connection.call(Status, &StatusRequest {}).await?.db_size;
            let begun = Instant::now();
            connection.call(Defragment, &DefragmentRequest {}).await?;
            let took = begun.elapsed();
            let after = connection.call(Status, &StatusRequest {}).await?.db_size;
            Ok((took, before, after))
        })
    };
    let (writes, (took, before, after)) = load::put_while(plan, call)?;
    Ok(Defragmented {
        writes,
        took,
        before,
        after,
    })
}

fn key(key: &'static str) -> RangeRequest {
    RangeRequest {
        key: key.into(),
        ..RangeRequest::default()
    }
}
