//! The Cluster service, but for MemberList, and Maintenance.MoveLeader.

use std::future::Future;

use ferrite_api::pb::etcdserverpb as pb;

use super::Kv;
use super::unary::Unary;
use crate::error::Error;
use crate::handle::Handle;
use crate::metrics::Method;

/// Declares the trait, its production implementation, and a [`Unary`] for each method.
macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident, $function:ident: $request:ident => $reply:ident, $method:ident;)*) => {
        /// What changes of the membership and the leadership ask of a member; [`Handle`] in
        /// production.
        pub trait Clusters {
            $($(#[$doc])*
            fn $function(
                &self,
                request: pb::$request,
            ) -> impl Future<Output = Result<pb::$reply, Error>> + Send;)*
        }

        impl Clusters for Handle {
            $(fn $function(
                &self,
                request: pb::$request,
            ) -> impl Future<Output = Result<pb::$reply, Error>> + Send {
                Handle::$function(self, request)
            })*
        }

        $($(#[$doc])*
        pub(super) struct $name;

        impl Unary for $name {
            const METHOD: Method = Method::$method;
            type Request = pb::$request;
            type Reply = pb::$reply;

            fn call<K: Kv>(
                kv: &K,
                request: pb::$request,
            ) -> impl Future<Output = Result<pb::$reply, Error>> + Send {
                kv.$function(request)
            }
        })*
    };
}

methods! {
    /// Cluster.MemberAdd.
    MemberAdd, member_add: MemberAddRequest => MemberAddResponse, ClusterMemberAdd;
    /// Cluster.MemberRemove.
    MemberRemove, member_remove: MemberRemoveRequest => MemberRemoveResponse, ClusterMemberRemove;
    /// Cluster.MemberUpdate.
    MemberUpdate, member_update: MemberUpdateRequest => MemberUpdateResponse, ClusterMemberUpdate;
    /// Cluster.MemberPromote.
    MemberPromote, member_promote: MemberPromoteRequest => MemberPromoteResponse, ClusterMemberPromote;
    /// Maintenance.MoveLeader.
    MoveLeader, move_leader: MoveLeaderRequest => MoveLeaderResponse, MaintenanceMoveLeader;
}
