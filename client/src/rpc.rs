//! The calls of the API that the client makes: path and retry class of each, in one table.

use std::marker::PhantomData;

use ferrite_api::pb::etcdserverpb as pb;

use crate::Policy;
use crate::Policy::{Never, NonRepeatable, Repeatable};

/// One call: where it goes, what travels, how safe it is to repeat.
pub(crate) struct Rpc<Request, Response> {
    pub(crate) path: &'static str,
    pub(crate) policy: Policy,
    types: PhantomData<fn(Request) -> Response>,
}

impl<Request, Response> Rpc<Request, Response> {
    const fn new(path: &'static str, policy: Policy) -> Self {
        Self {
            path,
            policy,
            types: PhantomData,
        }
    }
}

macro_rules! rpcs {
    ($($name:ident: $path:literal, $request:ident => $response:ident, $policy:ident;)*) => {
        $(pub(crate) const $name: Rpc<pb::$request, pb::$response> = Rpc::new($path, $policy);)*

        #[cfg(test)]
        pub(crate) const ALL: &[(&str, Policy)] = &[$(($path, $policy),)*];
    };
}

rpcs! {
    RANGE: "/etcdserverpb.KV/Range", RangeRequest => RangeResponse, Repeatable;
    RANGE_STREAM: "/etcdserverpb.KV/RangeStream", RangeRequest => RangeStreamResponse, Never;
    PUT: "/etcdserverpb.KV/Put", PutRequest => PutResponse, NonRepeatable;
    DELETE_RANGE: "/etcdserverpb.KV/DeleteRange", DeleteRangeRequest => DeleteRangeResponse, NonRepeatable;
    // A read-only transaction too: nobody looks inside.
    TXN: "/etcdserverpb.KV/Txn", TxnRequest => TxnResponse, NonRepeatable;
    COMPACT: "/etcdserverpb.KV/Compact", CompactionRequest => CompactionResponse, NonRepeatable;
    MEMBER_LIST: "/etcdserverpb.Cluster/MemberList", MemberListRequest => MemberListResponse, Repeatable;
    // Also the disarming kind, which is idempotent.
    ALARM: "/etcdserverpb.Maintenance/Alarm", AlarmRequest => AlarmResponse, Repeatable;
    STATUS: "/etcdserverpb.Maintenance/Status", StatusRequest => StatusResponse, Repeatable;
    HASH_KV: "/etcdserverpb.Maintenance/HashKV", HashKvRequest => HashKvResponse, Repeatable;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_not_repeatable() {
        let of = |policy: Policy| -> Vec<&str> {
            ALL.iter()
                .filter(|(_, class)| *class == policy)
                .map(|(path, _)| path.rsplit('/').next().unwrap_or_default())
                .collect()
        };
        assert_eq!(of(NonRepeatable), ["Put", "DeleteRange", "Txn", "Compact"]);
        assert_eq!(
            of(Repeatable),
            ["Range", "MemberList", "Alarm", "Status", "HashKV"]
        );
        assert_eq!(of(Never), ["RangeStream"]);
    }
}
