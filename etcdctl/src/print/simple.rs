//! `-w simple`: for people and shell scripts.

use std::io::{self, Write};

use ferrite_client::pb::etcdserverpb as pb;
use ferrite_client::pb::mvccpb::KeyValue;
use ferrite_client::{LeaseId, MemberId};
use pb::response_op::Response;

use ferrite_client::pb::authpb::Permission;
use ferrite_client::pb::authpb::permission::Type;
use ferrite_client::prefix_end;

use super::{Answer, Health, Printed, Printer, alarm_name, rows};
use crate::context::Context;

pub(crate) struct Simple {
    /// Keys and values as `\x66\x6f\x6f`.
    pub(crate) hex: bool,
}

impl Simple {
    fn pair(&self, out: &mut dyn Write, kv: &KeyValue) -> io::Result<()> {
        self.bytes(out, &kv.key)?;
        self.bytes(out, &kv.value)
    }

    /// One line; bytes go out as they are.
    fn bytes(&self, out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
        if self.hex {
            for byte in bytes {
                write!(out, "\\x{byte:02x}")?;
            }
        } else {
            out.write_all(bytes)?;
        }
        out.write_all(b"\n")
    }
}

/// The keys of a permission, in a line.
fn permission(out: &mut dyn Write, perm: &Permission) -> io::Result<()> {
    out.write_all(b"\t")?;
    if perm.range_end.is_empty() {
        out.write_all(&perm.key)?;
        return writeln!(out);
    }
    out.write_all(b"[")?;
    out.write_all(&perm.key)?;
    out.write_all(b", ")?;
    if perm.range_end == [0][..] {
        out.write_all(b"<open ended>")?;
    } else {
        out.write_all(&perm.range_end)?;
        out.write_all(b")")?;
    }
    if !perm.key.is_empty() && prefix_end(&perm.key) == perm.range_end {
        out.write_all(b" (prefix ")?;
        out.write_all(&perm.key)?;
        out.write_all(b")")?;
    }
    writeln!(out)
}

impl Printer for Simple {
    fn name(&self) -> &'static str {
        "simple"
    }

    fn get(&self, context: &mut Context, response: &pb::RangeResponse) -> Printed {
        for kv in &response.kvs {
            self.pair(context.out(), kv)?;
        }
        Ok(())
    }

    fn values(&self, context: &mut Context, response: &pb::RangeResponse) -> Printed {
        for kv in &response.kvs {
            self.bytes(context.out(), &kv.value)?;
        }
        Ok(())
    }

    fn put(&self, context: &mut Context, response: &pb::PutResponse) -> Printed {
        writeln!(context.out(), "OK")?;
        if let Some(kv) = &response.prev_kv {
            self.pair(context.out(), kv)?;
        }
        Ok(())
    }

    fn delete(&self, context: &mut Context, response: &pb::DeleteRangeResponse) -> Printed {
        writeln!(context.out(), "{}", response.deleted)?;
        for kv in &response.prev_kvs {
            self.pair(context.out(), kv)?;
        }
        Ok(())
    }

    fn txn(&self, context: &mut Context, response: &pb::TxnResponse) -> Printed {
        let outcome = if response.succeeded {
            "SUCCESS"
        } else {
            "FAILURE"
        };
        writeln!(context.out(), "{outcome}")?;
        for op in &response.responses {
            writeln!(context.out())?;
            match &op.response {
                Some(Response::ResponseRange(response)) => self.get(context, response)?,
                Some(Response::ResponsePut(response)) => self.put(context, response)?,
                Some(Response::ResponseDeleteRange(response)) => self.delete(context, response)?,
                // Neither can be asked for on the command line.
                Some(Response::ResponseTxn(_)) | None => {
                    writeln!(context.out(), "unexpected response {op:?}")?;
                }
            }
        }
        Ok(())
    }

    fn watch(&self, context: &mut Context, response: &pb::WatchResponse) -> Printed {
        for event in &response.events {
            writeln!(context.out(), "{}", event.r#type().as_str_name())?;
            if let Some(kv) = &event.prev_kv {
                self.pair(context.out(), kv)?;
            }
            let none = KeyValue::default();
            self.pair(context.out(), event.kv.as_ref().unwrap_or(&none))?;
        }
        Ok(())
    }

    fn lease_grant(&self, context: &mut Context, response: &pb::LeaseGrantResponse) -> Printed {
        let (lease, ttl) = (LeaseId::new(response.id), response.ttl);
        writeln!(context.out(), "lease {lease} granted with TTL({ttl}s)")?;
        Ok(())
    }

    fn lease_revoke(
        &self,
        context: &mut Context,
        lease: LeaseId,
        _: &pb::LeaseRevokeResponse,
    ) -> Printed {
        writeln!(context.out(), "lease {lease} revoked")?;
        Ok(())
    }

    fn lease_keep_alive(
        &self,
        context: &mut Context,
        response: &pb::LeaseKeepAliveResponse,
    ) -> Printed {
        let (lease, ttl) = (LeaseId::new(response.id), response.ttl);
        writeln!(context.out(), "lease {lease} keepalived with TTL({ttl})")?;
        Ok(())
    }

    fn lease_time_to_live(
        &self,
        context: &mut Context,
        response: &pb::LeaseTimeToLiveResponse,
        keys: bool,
    ) -> Printed {
        let lease = LeaseId::new(response.id);
        if response.granted_ttl == 0 && response.ttl == -1 {
            writeln!(context.out(), "lease {lease} already expired")?;
            return Ok(());
        }
        let (granted, left) = (response.granted_ttl, response.ttl);
        let out = context.out();
        write!(
            out,
            "lease {lease} granted with TTL({granted}s), remaining({left}s)"
        )?;
        if keys {
            out.write_all(b", attached keys([")?;
            out.write_all(&response.keys.join(&b' '))?;
            out.write_all(b"])")?;
        }
        writeln!(out)?;
        Ok(())
    }

    fn lease_list(&self, context: &mut Context, response: &pb::LeaseLeasesResponse) -> Printed {
        writeln!(context.out(), "found {} leases", response.leases.len())?;
        for lease in &response.leases {
            writeln!(context.out(), "{}", LeaseId::new(lease.id))?;
        }
        Ok(())
    }

    fn auth(&self, context: &mut Context, line: &str, _: &Option<pb::ResponseHeader>) -> Printed {
        writeln!(context.out(), "{line}")?;
        Ok(())
    }

    fn auth_status(&self, context: &mut Context, response: &pb::AuthStatusResponse) -> Printed {
        let out = context.out();
        writeln!(out, "Authentication Status: {}", response.enabled)?;
        writeln!(out, "AuthRevision: {}", response.auth_revision)?;
        Ok(())
    }

    fn user_get(
        &self,
        context: &mut Context,
        user: &str,
        response: &pb::AuthUserGetResponse,
    ) -> Printed {
        let out = context.out();
        writeln!(out, "User: {user}")?;
        write!(out, "Roles:")?;
        for role in &response.roles {
            write!(out, " {role}")?;
        }
        writeln!(out)?;
        Ok(())
    }

    fn user_list(&self, context: &mut Context, response: &pb::AuthUserListResponse) -> Printed {
        for user in &response.users {
            writeln!(context.out(), "{user}")?;
        }
        Ok(())
    }

    fn role_get(
        &self,
        context: &mut Context,
        role: &str,
        response: &pb::AuthRoleGetResponse,
    ) -> Printed {
        let out = context.out();
        writeln!(out, "Role {role}")?;
        for (title, kind) in [("KV Read:", Type::Read), ("KV Write:", Type::Write)] {
            writeln!(out, "{title}")?;
            // A server that knows no permissions of this role means all.
            if role == "root" && response.perm.is_empty() {
                writeln!(out, "\t[, <open ended>")?;
            }
            let both = Type::Readwrite as i32;
            let permits = |perm: &&Permission| [kind as i32, both].contains(&perm.perm_type);
            for perm in response.perm.iter().filter(permits) {
                permission(out, perm)?;
            }
        }
        Ok(())
    }

    fn role_list(&self, context: &mut Context, response: &pb::AuthRoleListResponse) -> Printed {
        for role in &response.roles {
            writeln!(context.out(), "{role}")?;
        }
        Ok(())
    }

    fn member_add(&self, context: &mut Context, response: &pb::MemberAddResponse) -> Printed {
        let member = response.member.clone().unwrap_or_default();
        let as_learner = if member.is_learner { "as learner " } else { "" };
        let (id, cluster) = (member.id, cluster(&response.header));
        writeln!(
            context.out(),
            "Member {id:16x} added {as_learner}to cluster {cluster:16x}"
        )?;
        Ok(())
    }

    fn member_remove(
        &self,
        context: &mut Context,
        member: MemberId,
        response: &pb::MemberRemoveResponse,
    ) -> Printed {
        let (id, cluster) = (member.get(), cluster(&response.header));
        writeln!(
            context.out(),
            "Member {id:16x} removed from cluster {cluster:16x}"
        )?;
        Ok(())
    }

    fn member_update(
        &self,
        context: &mut Context,
        member: MemberId,
        response: &pb::MemberUpdateResponse,
    ) -> Printed {
        let (id, cluster) = (member.get(), cluster(&response.header));
        writeln!(
            context.out(),
            "Member {id:16x} updated in cluster {cluster:16x}"
        )?;
        Ok(())
    }

    fn member_promote(
        &self,
        context: &mut Context,
        member: MemberId,
        response: &pb::MemberPromoteResponse,
    ) -> Printed {
        let (id, cluster) = (member.get(), cluster(&response.header));
        writeln!(
            context.out(),
            "Member {id:16x} promoted in cluster {cluster:16x}"
        )?;
        Ok(())
    }

    fn alarm(&self, context: &mut Context, response: &pb::AlarmResponse) -> Printed {
        for alarm in &response.alarms {
            // The text form of protobuf, which leaves out zeros.
            let mut fields = Vec::new();
            if alarm.member_id != 0 {
                fields.push(format!("memberID:{}", alarm.member_id));
            }
            if alarm.alarm != 0 {
                fields.push(format!("alarm:{}", alarm_name(alarm)));
            }
            writeln!(context.out(), "{}", fields.join(" "))?;
        }
        Ok(())
    }

    fn move_leader(
        &self,
        context: &mut Context,
        from: MemberId,
        to: MemberId,
        _: &pb::MoveLeaderResponse,
    ) -> Printed {
        writeln!(context.out(), "Leadership transferred from {from} to {to}")?;
        Ok(())
    }

    fn downgrade(
        &self,
        context: &mut Context,
        action: &str,
        response: &pb::DowngradeResponse,
    ) -> Printed {
        let version = &response.version;
        writeln!(
            context.out(),
            "Downgrade {action} success, cluster version {version}"
        )?;
        Ok(())
    }

    fn member_list(&self, context: &mut Context, response: &pb::MemberListResponse) -> Printed {
        joined(context, &rows::members(response))
    }

    fn health(&self, context: &mut Context, list: &[Health]) -> Printed {
        for health in list {
            let Health {
                endpoint,
                took,
                error,
                ..
            } = health;
            if error.is_empty() {
                writeln!(
                    context.out(),
                    "{endpoint} is healthy: successfully committed proposal: took = {took}"
                )?;
            } else {
                context.error_line(format!(
                    "{endpoint} is unhealthy: failed to commit proposal: {error}"
                ))?;
            }
        }
        Ok(())
    }

    fn status(&self, context: &mut Context, list: &[Answer<pb::StatusResponse>]) -> Printed {
        joined(context, &rows::status(list))
    }

    fn hash_kv(&self, context: &mut Context, list: &[Answer<pb::HashKvResponse>]) -> Printed {
        joined(context, &rows::hash_kv(list))
    }
}

fn cluster(header: &Option<pb::ResponseHeader>) -> u64 {
    header.unwrap_or_default().cluster_id
}

fn joined(context: &mut Context, rows: &[Vec<String>]) -> Printed {
    for row in rows {
        writeln!(context.out(), "{}", row.join(", "))?;
    }
    Ok(())
}
