//! Answers to reads that are made in this process.

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::mvccpb::KeyValue;

/// Filters, counts and cuts, in the order in which servers do.
pub(crate) fn answer(
    mut kvs: Vec<KeyValue>,
    request: &pb::RangeRequest,
    header: Option<pb::ResponseHeader>,
) -> pb::RangeResponse {
    let count = i64::try_from(kvs.len()).unwrap_or(i64::MAX);
    let between =
        |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
    kvs.retain(|kv| {
        let (min, max) = (request.min_mod_revision, request.max_mod_revision);
        between(kv.mod_revision, min, max)
    });
    kvs.retain(|kv| {
        let (min, max) = (request.min_create_revision, request.max_create_revision);
        between(kv.create_revision, min, max)
    });
    if request.count_only {
        kvs.clear();
    }
    let limit = usize::try_from(request.limit).unwrap_or(0);
    let more = limit > 0 && kvs.len() > limit;
    if more {
        kvs.truncate(limit);
    }
    if request.keys_only {
        for kv in &mut kvs {
            kv.value = Bytes::new();
        }
    }
    pb::RangeResponse {
        header,
        kvs,
        more,
        count,
    }
}
