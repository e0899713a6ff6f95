//! `-w fields`: one `"Name" : value` per line.

use std::io::{self, Write};

use ferrite_client::LeaseId;
use ferrite_client::pb::authpb::permission::Type;
use ferrite_client::pb::etcdserverpb as pb;
use ferrite_client::pb::mvccpb::KeyValue;
use pb::response_op::Response;

use super::{Answer, Health, Printed, Printer, alarm_name};
use crate::context::Context;
use crate::go::quote::quote;

pub(crate) struct Fields {
    /// Ids in hexadecimal; keys and values stay quoted strings.
    pub(crate) hex: bool,
}

impl Fields {
    fn id(&self, out: &mut dyn Write, name: &str, id: u64) -> io::Result<()> {
        if self.hex {
            writeln!(out, "\"{name}\" : {id:x}")
        } else {
            writeln!(out, "\"{name}\" : {id}")
        }
    }

    fn lease(&self, out: &mut dyn Write, id: i64) -> io::Result<()> {
        if self.hex {
            writeln!(out, "\"ID\" : {id:016x}")
        } else {
            writeln!(out, "\"ID\" : {id}")
        }
    }

    fn header(&self, out: &mut dyn Write, header: &Option<pb::ResponseHeader>) -> io::Result<()> {
        let header = header.unwrap_or_default();
        self.id(out, "ClusterID", header.cluster_id)?;
        self.id(out, "MemberID", header.member_id)?;
        // Calls that do not touch the store leave it out.
        if header.revision > 0 {
            writeln!(out, "\"Revision\" : {}", header.revision)?;
        }
        writeln!(out, "\"RaftTerm\" : {}", header.raft_term)
    }

    fn pair(&self, out: &mut dyn Write, prefix: &str, kv: &KeyValue) -> io::Result<()> {
        writeln!(out, "\"{prefix}Key\" : {}", quote(&kv.key))?;
        writeln!(out, "\"{prefix}CreateRevision\" : {}", kv.create_revision)?;
        writeln!(out, "\"{prefix}ModRevision\" : {}", kv.mod_revision)?;
        writeln!(out, "\"{prefix}Version\" : {}", kv.version)?;
        writeln!(out, "\"{prefix}Value\" : {}", quote(&kv.value))?;
        if self.hex {
            writeln!(out, "\"{prefix}Lease\" : {:016x}", kv.lease)
        } else {
            writeln!(out, "\"{prefix}Lease\" : {}", kv.lease)
        }
    }
}

impl Printer for Fields {
    fn name(&self) -> &'static str {
        "fields"
    }

    fn get(&self, context: &mut Context, response: &pb::RangeResponse) -> Printed {
        let out = context.out();
        self.header(out, &response.header)?;
        for kv in &response.kvs {
            self.pair(out, "", kv)?;
        }
        writeln!(out, "\"More\" : {}", response.more)?;
        writeln!(out, "\"Count\" : {}", response.count)?;
        Ok(())
    }

    fn count(&self, context: &mut Context, response: &pb::RangeResponse) -> Printed {
        self.get(context, response)
    }

    fn auth(&self, context: &mut Context, _: &str, header: &Option<pb::ResponseHeader>) -> Printed {
        self.header(context.out(), header)?;
        Ok(())
    }

    fn role_get(
        &self,
        context: &mut Context,
        _: &str,
        response: &pb::AuthRoleGetResponse,
    ) -> Printed {
        let out = context.out();
        self.header(out, &response.header)?;
        for perm in &response.perm {
            let kind = match Type::try_from(perm.perm_type) {
                Ok(kind) => kind.as_str_name().to_owned(),
                Err(_) => perm.perm_type.to_string(),
            };
            // Two blanks, as etcd's.
            writeln!(out, "\"PermType\" :  {kind}")?;
            writeln!(out, "\"Key\" : {}", quote(&perm.key))?;
            writeln!(out, "\"RangeEnd\" : {}", quote(&perm.range_end))?;
        }
        Ok(())
    }

    fn role_list(&self, context: &mut Context, response: &pb::AuthRoleListResponse) -> Printed {
        let out = context.out();
        self.header(out, &response.header)?;
        write!(out, "\"Roles\" :")?;
        for role in &response.roles {
            write!(out, " {}", quote(role))?;
        }
        writeln!(out)?;
        Ok(())
    }

    fn put(&self, context: &mut Context, response: &pb::PutResponse) -> Printed {
        let out = context.out();
        self.header(out, &response.header)?;
        if let Some(kv) = &response.prev_kv {
            self.pair(out, "Prev", kv)?;
        }
        Ok(())
    }

    fn delete(&self, context: &mut Context, response: &pb::DeleteRangeResponse) -> Printed {
        let out = context.out();
        self.header(out, &response.header)?;
        writeln!(out, "\"Deleted\" : {}", response.deleted)?;
        for kv in &response.prev_kvs {
            self.pair(out, "Prev", kv)?;
        }
        Ok(())
    }

    fn txn(&self, context: &mut Context, response: &pb::TxnResponse) -> Printed {
        self.header(context.out(), &response.header)?;
        writeln!(context.out(), "\"Succeeded\" : {}", response.succeeded)?;
        for op in &response.responses {
            match &op.response {
                Some(Response::ResponseRange(response)) => self.get(context, response)?,
                Some(Response::ResponsePut(response)) => self.put(context, response)?,
                Some(Response::ResponseDeleteRange(response)) => self.delete(context, response)?,
                // Neither can be asked for on the command line.
                Some(Response::ResponseTxn(_)) | None => {
                    let text = quote(format!("{op:?}"));
                    writeln!(context.out(), "\"Unknown\" : {text}")?;
                }
            }
        }
        Ok(())
    }

    fn watch(&self, context: &mut Context, response: &pb::WatchResponse) -> Printed {
        let out = context.out();
        self.header(out, &response.header)?;
        for event in &response.events {
            writeln!(out, "\"Type\" : {}", event.r#type().as_str_name())?;
            if let Some(kv) = &event.prev_kv {
                self.pair(out, "Prev", kv)?;
            }
            let none = KeyValue::default();
            self.pair(out, "", event.kv.as_ref().unwrap_or(&none))?;
        }
        Ok(())
    }

    fn lease_grant(&self, context: &mut Context, response: &pb::LeaseGrantResponse) -> Printed {
        let out = context.out();
        self.header(out, &response.header)?;
        self.lease(out, response.id)?;
        writeln!(out, "\"TTL\" : {}", response.ttl)?;
        Ok(())
    }

    fn lease_revoke(
        &self,
        context: &mut Context,
        _: LeaseId,
        response: &pb::LeaseRevokeResponse,
    ) -> Printed {
        self.header(context.out(), &response.header)?;
        Ok(())
    }

    fn lease_keep_alive(
        &self,
        context: &mut Context,
        response: &pb::LeaseKeepAliveResponse,
    ) -> Printed {
        let out = context.out();
        self.header(out, &response.header)?;
        self.lease(out, response.id)?;
        writeln!(out, "\"TTL\" : {}", response.ttl)?;
        Ok(())
    }

    fn lease_time_to_live(
        &self,
        context: &mut Context,
        response: &pb::LeaseTimeToLiveResponse,
        _: bool,
    ) -> Printed {
        let out = context.out();
        self.header(out, &response.header)?;
        self.lease(out, response.id)?;
        writeln!(out, "\"TTL\" : {}", response.ttl)?;
        writeln!(out, "\"GrantedTTL\" : {}", response.granted_ttl)?;
        for key in &response.keys {
            writeln!(out, "\"Key\" : {}", quote(key))?;
        }
        Ok(())
    }

    fn lease_list(&self, context: &mut Context, response: &pb::LeaseLeasesResponse) -> Printed {
        let out = context.out();
        self.header(out, &response.header)?;
        for lease in &response.leases {
            self.lease(out, lease.id)?;
        }
        Ok(())
    }

    fn alarm(&self, context: &mut Context, response: &pb::AlarmResponse) -> Printed {
        let out = context.out();
        self.header(out, &response.header)?;
        for alarm in &response.alarms {
            self.id(out, "MemberID", alarm.member_id)?;
            writeln!(out, "\"AlarmType\" : {}\n", alarm_name(alarm))?;
        }
        Ok(())
    }

    fn member_list(&self, context: &mut Context, response: &pb::MemberListResponse) -> Printed {
        let out = context.out();
        self.header(out, &response.header)?;
        for member in &response.members {
            self.id(out, "ID", member.id)?;
            writeln!(out, "\"Name\" : {}", quote(&member.name))?;
            for url in &member.peer_ur_ls {
                writeln!(out, "\"PeerURL\" : {}", quote(url))?;
            }
            for url in &member.client_ur_ls {
                writeln!(out, "\"ClientURL\" : {}", quote(url))?;
            }
            writeln!(out, "\"IsLearner\" : {}\n", member.is_learner)?;
        }
        Ok(())
    }

    fn health(&self, context: &mut Context, list: &[Health]) -> Printed {
        let out = context.out();
        for health in list {
            writeln!(out, "\"Endpoint\" : {}", quote(&health.endpoint))?;
            writeln!(out, "\"Health\" : {}", health.healthy)?;
            writeln!(out, "\"Took\" : {}", health.took)?;
            writeln!(out, "\"Error\" : {}\n", health.error)?;
        }
        Ok(())
    }

    fn status(&self, context: &mut Context, list: &[Answer<pb::StatusResponse>]) -> Printed {
        let out = context.out();
        for answer in list {
            let status = &answer.response;
            let downgrade = status.downgrade_info.clone().unwrap_or_default();
            self.header(out, &status.header)?;
            writeln!(out, "\"Version\" : {}", quote(&status.version))?;
            writeln!(
                out,
                "\"StorageVersion\" : {}",
                quote(&status.storage_version)
            )?;
            writeln!(out, "\"DBSize\" : {}", status.db_size)?;
            writeln!(out, "\"DBSizeInUse\" : {}", status.db_size_in_use)?;
            writeln!(out, "\"DBSizeQuota\" : {}", status.db_size_quota)?;
            // In decimal even with --hex.
            writeln!(out, "\"Leader\" : {}", status.leader)?;
            writeln!(out, "\"IsLearner\" : {}", status.is_learner)?;
            writeln!(out, "\"RaftIndex\" : {}", status.raft_index)?;
            writeln!(out, "\"RaftTerm\" : {}", status.raft_term)?;
            writeln!(out, "\"RaftAppliedIndex\" : {}", status.raft_applied_index)?;
            writeln!(out, "\"Errors\" : [{}]", status.errors.join(" "))?;
            writeln!(out, "\"Endpoint\" : {}", quote(&answer.endpoint))?;
            let target = quote(&downgrade.target_version);
            writeln!(out, "\"DowngradeTargetVersion\" : {target}")?;
            writeln!(out, "\"DowngradeEnabled\" : {}\n", downgrade.enabled)?;
        }
        Ok(())
    }

    fn hash_kv(&self, context: &mut Context, list: &[Answer<pb::HashKvResponse>]) -> Printed {
        let out = context.out();
        for answer in list {
            self.header(out, &answer.response.header)?;
            writeln!(out, "\"Endpoint\" : {}", quote(&answer.endpoint))?;
            writeln!(out, "\"Hash\" : {}", answer.response.hash)?;
            writeln!(
                out,
                "\"HashRevision\" : {}\n",
                answer.response.hash_revision
            )?;
        }
        Ok(())
    }
}
