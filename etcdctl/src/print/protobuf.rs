//! `-w protobuf`: the encoded answer and nothing else, not even a newline.

use ferrite_client::pb::etcdserverpb as pb;
use ferrite_client::{LeaseId, MemberId};
use prost::Message;

use super::{Printed, Printer};
use crate::context::Context;
use crate::failure::{Exit, Failure};

pub(crate) struct Protobuf;

impl Printer for Protobuf {
    fn name(&self) -> &'static str {
        "protobuf"
    }

    fn get(&self, context: &mut Context, response: &pb::RangeResponse) -> Printed {
        raw(context, response)
    }

    fn put(&self, context: &mut Context, response: &pb::PutResponse) -> Printed {
        raw(context, response)
    }

    fn delete(&self, context: &mut Context, response: &pb::DeleteRangeResponse) -> Printed {
        raw(context, response)
    }

    fn txn(&self, context: &mut Context, response: &pb::TxnResponse) -> Printed {
        raw(context, response)
    }

    fn watch(&self, context: &mut Context, response: &pb::WatchResponse) -> Printed {
        let shown = pb::WatchResponse {
            watch_id: 0,
            cancel_reason: String::new(),
            ..response.clone()
        };
        raw(context, &shown)
    }

    // Of answers about leases etcd's tool encodes nothing but the header.

    fn lease_grant(&self, context: &mut Context, response: &pb::LeaseGrantResponse) -> Printed {
        raw(context, &response.header.unwrap_or_default())
    }

    fn lease_keep_alive(
        &self,
        context: &mut Context,
        response: &pb::LeaseKeepAliveResponse,
    ) -> Printed {
        raw(context, &response.header.unwrap_or_default())
    }

    fn lease_time_to_live(
        &self,
        context: &mut Context,
        response: &pb::LeaseTimeToLiveResponse,
        _: bool,
    ) -> Printed {
        raw(context, &response.header.unwrap_or_default())
    }

    fn lease_list(&self, context: &mut Context, response: &pb::LeaseLeasesResponse) -> Printed {
        raw(context, &response.header.unwrap_or_default())
    }

    fn lease_revoke(
        &self,
        _: &mut Context,
        _: LeaseId,
        response: &pb::LeaseRevokeResponse,
    ) -> Printed {
        // Kept from etcd: this one it cannot encode at all.
        let header = response.header.unwrap_or_default();
        let message = format!(
            "marshal unsupported for type *clientv3.LeaseRevokeResponse (&{{header:{{cluster_id:{} member_id:{} revision:{} raft_term:{}}}}})",
            header.cluster_id, header.member_id, header.revision, header.raft_term
        );
        Err(Failure::new(Exit::BadFeature, message))
    }

    fn auth(&self, context: &mut Context, _: &str, header: &Option<pb::ResponseHeader>) -> Printed {
        // All of these answers are a header, in the same place.
        raw(context, &pb::AuthRoleAddResponse { header: *header })
    }

    fn auth_status(&self, context: &mut Context, response: &pb::AuthStatusResponse) -> Printed {
        raw(context, response)
    }

    fn user_get(
        &self,
        context: &mut Context,
        _: &str,
        response: &pb::AuthUserGetResponse,
    ) -> Printed {
        raw(context, response)
    }

    fn user_list(&self, context: &mut Context, response: &pb::AuthUserListResponse) -> Printed {
        raw(context, response)
    }

    fn role_get(
        &self,
        context: &mut Context,
        _: &str,
        response: &pb::AuthRoleGetResponse,
    ) -> Printed {
        raw(context, response)
    }

    fn role_list(&self, context: &mut Context, response: &pb::AuthRoleListResponse) -> Printed {
        raw(context, response)
    }

    fn member_add(&self, context: &mut Context, response: &pb::MemberAddResponse) -> Printed {
        raw(context, response)
    }

    fn member_remove(
        &self,
        context: &mut Context,
        _: MemberId,
        response: &pb::MemberRemoveResponse,
    ) -> Printed {
        raw(context, response)
    }

    fn member_update(
        &self,
        context: &mut Context,
        _: MemberId,
        response: &pb::MemberUpdateResponse,
    ) -> Printed {
        raw(context, response)
    }

    fn member_promote(
        &self,
        context: &mut Context,
        _: MemberId,
        response: &pb::MemberPromoteResponse,
    ) -> Printed {
        raw(context, response)
    }

    fn alarm(&self, context: &mut Context, response: &pb::AlarmResponse) -> Printed {
        raw(context, response)
    }

    fn move_leader(
        &self,
        context: &mut Context,
        _: MemberId,
        _: MemberId,
        response: &pb::MoveLeaderResponse,
    ) -> Printed {
        raw(context, response)
    }

    fn downgrade(
        &self,
        context: &mut Context,
        _: &str,
        response: &pb::DowngradeResponse,
    ) -> Printed {
        raw(context, response)
    }

    fn member_list(&self, context: &mut Context, response: &pb::MemberListResponse) -> Printed {
        raw(context, response)
    }
}

fn raw(context: &mut Context, message: &impl Message) -> Printed {
    context.out().write_all(&message.encode_to_vec())?;
    Ok(())
}
