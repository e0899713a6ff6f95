//! Printing answers, one module per `--write-out` format.
//!
//! A format that cannot show an answer says so only when it is asked to, after the call was made:
//! etcdctl has always worked that way (`put -w table` writes, then exits with 4).

pub(crate) mod fields;
pub(crate) mod json;
pub(crate) mod protobuf;
pub(crate) mod rows;
pub(crate) mod simple;
pub(crate) mod table;

use ferrite_client::pb::etcdserverpb as pb;
use ferrite_client::{LeaseId, MemberId};

use crate::context::Context;
use crate::failure::{Exit, Failure};

type Printed = Result<(), Failure>;

/// The health of one endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    pub(crate) endpoint: String,
    pub(crate) healthy: bool,
    /// A Go duration; empty if the check could not begin.
    pub(crate) took: String,
    /// Empty if healthy.
    pub(crate) error: String,
}

/// What the member behind one endpoint answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer<T> {
    pub(crate) endpoint: String,
    pub(crate) response: T,
}

/// One output format.
#[expect(unused_variables, reason = "the defaults only refuse")]
pub(crate) trait Printer {
    /// The format's name, for saying what it cannot do.
    fn name(&self) -> &'static str;

    fn get(&self, context: &mut Context, response: &pb::RangeResponse) -> Printed {
        self.unsupported()
    }

    /// Only the values of a read; the simple format's speciality.
    fn values(&self, context: &mut Context, response: &pb::RangeResponse) -> Printed {
        let message = "print-value-only is only for `--write-out=simple`";
        Err(Failure::bad_args(message))
    }

    /// Only the count of a read; the fields format's speciality.
    fn count(&self, context: &mut Context, response: &pb::RangeResponse) -> Printed {
        let message = "--count-only is only for `--write-out=fields`";
        Err(Failure::bad_args(message))
    }

    fn put(&self, context: &mut Context, response: &pb::PutResponse) -> Printed {
        self.unsupported()
    }

    fn delete(&self, context: &mut Context, response: &pb::DeleteRangeResponse) -> Printed {
        self.unsupported()
    }

    fn txn(&self, context: &mut Context, response: &pb::TxnResponse) -> Printed {
        self.unsupported()
    }

    fn watch(&self, context: &mut Context, response: &pb::WatchResponse) -> Printed {
        self.unsupported()
    }

    fn lease_grant(&self, context: &mut Context, response: &pb::LeaseGrantResponse) -> Printed {
        self.unsupported()
    }

    fn lease_revoke(
        &self,
        context: &mut Context,
        lease: LeaseId,
        response: &pb::LeaseRevokeResponse,
    ) -> Printed {
        self.unsupported()
    }

    fn lease_keep_alive(
        &self,
        context: &mut Context,
        response: &pb::LeaseKeepAliveResponse,
    ) -> Printed {
        self.unsupported()
    }

    /// `keys`: whether the attached keys were asked for.
    fn lease_time_to_live(
        &self,
        context: &mut Context,
        response: &pb::LeaseTimeToLiveResponse,
        keys: bool,
    ) -> Printed {
        self.unsupported()
    }

    fn lease_list(&self, context: &mut Context, response: &pb::LeaseLeasesResponse) -> Printed {
        self.unsupported()
    }

    fn member_list(&self, context: &mut Context, response: &pb::MemberListResponse) -> Printed {
        self.unsupported()
    }

    fn member_add(&self, context: &mut Context, response: &pb::MemberAddResponse) -> Printed {
        self.unsupported()
    }

    fn member_remove(
        &self,
        context: &mut Context,
        member: MemberId,
        response: &pb::MemberRemoveResponse,
    ) -> Printed {
        self.unsupported()
    }

    fn member_update(
        &self,
        context: &mut Context,
        member: MemberId,
        response: &pb::MemberUpdateResponse,
    ) -> Printed {
        self.unsupported()
    }

    fn member_promote(
        &self,
        context: &mut Context,
        member: MemberId,
        response: &pb::MemberPromoteResponse,
    ) -> Printed {
        self.unsupported()
    }

    fn alarm(&self, context: &mut Context, response: &pb::AlarmResponse) -> Printed {
        self.unsupported()
    }

    fn move_leader(
        &self,
        context: &mut Context,
        from: MemberId,
        to: MemberId,
        response: &pb::MoveLeaderResponse,
    ) -> Printed {
        self.unsupported()
    }

    /// `action`: what was done, as the simple format names it.
    fn downgrade(
        &self,
        context: &mut Context,
        action: &str,
        response: &pb::DowngradeResponse,
    ) -> Printed {
        self.unsupported()
    }

    /// Something about users and roles has changed, or nothing. `line`: what the simple format says.
    fn auth(
        &self,
        context: &mut Context,
        line: &str,
        header: &Option<pb::ResponseHeader>,
    ) -> Printed {
        self.unsupported()
    }

    fn auth_status(&self, context: &mut Context, response: &pb::AuthStatusResponse) -> Printed {
        self.unsupported()
    }

    fn user_get(
        &self,
        context: &mut Context,
        user: &str,
        response: &pb::AuthUserGetResponse,
    ) -> Printed {
        self.unsupported()
    }

    fn user_list(&self, context: &mut Context, response: &pb::AuthUserListResponse) -> Printed {
        self.unsupported()
    }

    fn role_get(
        &self,
        context: &mut Context,
        role: &str,
        response: &pb::AuthRoleGetResponse,
    ) -> Printed {
        self.unsupported()
    }

    fn role_list(&self, context: &mut Context, response: &pb::AuthRoleListResponse) -> Printed {
        self.unsupported()
    }

    fn health(&self, context: &mut Context, list: &[Health]) -> Printed {
        self.unsupported()
    }

    fn status(&self, context: &mut Context, list: &[Answer<pb::StatusResponse>]) -> Printed {
        self.unsupported()
    }

    fn hash_kv(&self, context: &mut Context, list: &[Answer<pb::HashKvResponse>]) -> Printed {
        self.unsupported()
    }

    fn unsupported(&self) -> Printed {
        let message = format!("{} not supported as output format", self.name());
        Err(Failure::new(Exit::BadFeature, message))
    }
}

/// The printer of a format; `None` if there is no such format.
pub(crate) fn for_format(format: &str, hex: bool) -> Option<Box<dyn Printer>> {
    Some(match format {
        "simple" => Box::new(simple::Simple { hex }),
        "fields" => Box::new(fields::Fields { hex }),
        "json" => Box::new(json::Json { hex }),
        "protobuf" => Box::new(protobuf::Protobuf),
        "table" => Box::new(table::Table),
        _ => return None,
    })
}

/// The name of an alarm's kind; its number if there is no such kind.
fn alarm_name(alarm: &pb::AlarmMember) -> String {
    match pb::AlarmType::try_from(alarm.alarm) {
        Ok(kind) => kind.as_str_name().to_owned(),
        Err(_) => alarm.alarm.to_string(),
    }
}

#[cfg(test)]
mod tests;
