//! `-w json`: one line, in the shape of Go's `encoding/json` over its generated structs.
//!
//! Not the JSON of protobuf: 64-bit numbers are bare, bytes are base64, enumerations numbers, zero
//! values left out, and a transaction's answers wrapped once more.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ferrite_client::pb::etcdserverpb as pb;
use ferrite_client::pb::mvccpb::KeyValue;
use ferrite_client::{LeaseId, MemberId};
use pb::response_op::Response;

use super::{Answer, Health, Printed, Printer};
use crate::context::Context;

pub(crate) struct Json {
    /// Ids of clusters and members as hexadecimal strings; only in answers about members.
    pub(crate) hex: bool,
}

impl Printer for Json {
    fn name(&self) -> &'static str {
        "json"
    }

    fn get(&self, context: &mut Context, response: &pb::RangeResponse) -> Printed {
        line(context, range(response))
    }

    fn put(&self, context: &mut Context, response: &pb::PutResponse) -> Printed {
        line(context, put(response))
    }

    fn delete(&self, context: &mut Context, response: &pb::DeleteRangeResponse) -> Printed {
        line(context, delete(response))
    }

    fn txn(&self, context: &mut Context, response: &pb::TxnResponse) -> Printed {
        line(context, txn(response))
    }

    fn watch(&self, context: &mut Context, response: &pb::WatchResponse) -> Printed {
        let events = response.events.iter().map(|event| {
            Object::new()
                .number("type", event.r#type)
                .optional("kv", event.kv.as_ref().map(pair))
                .optional("prev_kv", event.prev_kv.as_ref().map(pair))
                .end()
        });
        let json = Object::new()
            .always("Header", header(&response.header.unwrap_or_default()))
            .always("Events", nullable(response.events.is_empty(), events))
            .always("CompactRevision", response.compact_revision.to_string())
            .always("Canceled", response.canceled.to_string())
            .always("Created", response.created.to_string())
            .always("CancelReason", string(&response.cancel_reason));
        line(context, json.end())
    }

    fn lease_grant(&self, context: &mut Context, response: &pb::LeaseGrantResponse) -> Printed {
        let json = flat(&response.header)
            .always("ID", response.id.to_string())
            .always("TTL", response.ttl.to_string())
            .always("Error", string(&response.error));
        line(context, json.end())
    }

    fn lease_revoke(
        &self,
        context: &mut Context,
        _: LeaseId,
        response: &pb::LeaseRevokeResponse,
    ) -> Printed {
        line(context, Object::new().header(&response.header).end())
    }

    fn lease_keep_alive(
        &self,
        context: &mut Context,
        response: &pb::LeaseKeepAliveResponse,
    ) -> Printed {
        let json = flat(&response.header)
            .always("ID", response.id.to_string())
            .always("TTL", response.ttl.to_string());
        line(context, json.end())
    }

    fn lease_time_to_live(
        &self,
        context: &mut Context,
        response: &pb::LeaseTimeToLiveResponse,
        _: bool,
    ) -> Printed {
        let keys = response.keys.iter();
        let keys = keys.map(|key| format!("\"{}\"", STANDARD.encode(key)));
        let json = flat(&response.header)
            .always("id", response.id.to_string())
            .always("ttl", response.ttl.to_string())
            .always("granted-ttl", response.granted_ttl.to_string())
            .always("keys", nullable(response.keys.is_empty(), keys));
        line(context, json.end())
    }

    fn lease_list(&self, context: &mut Context, response: &pb::LeaseLeasesResponse) -> Printed {
        let leases = response.leases.iter();
        let leases = leases.map(|lease| Object::new().always("id", lease.id.to_string()).end());
        line(
            context,
            flat(&response.header).always("leases", array(leases)).end(),
        )
    }

    fn auth(&self, context: &mut Context, _: &str, header: &Option<pb::ResponseHeader>) -> Printed {
        line(context, Object::new().header(header).end())
    }

    fn auth_status(&self, context: &mut Context, response: &pb::AuthStatusResponse) -> Printed {
        let json = Object::new()
            .header(&response.header)
            .flag("enabled", response.enabled)
            .number("authRevision", response.auth_revision);
        line(context, json.end())
    }

    fn user_get(
        &self,
        context: &mut Context,
        _: &str,
        response: &pb::AuthUserGetResponse,
    ) -> Printed {
        let roles = response.roles.iter().map(|role| string(role));
        line(
            context,
            Object::new()
                .header(&response.header)
                .list("roles", roles)
                .end(),
        )
    }

    fn user_list(&self, context: &mut Context, response: &pb::AuthUserListResponse) -> Printed {
        let users = response.users.iter().map(|user| string(user));
        line(
            context,
            Object::new()
                .header(&response.header)
                .list("users", users)
                .end(),
        )
    }

    fn role_get(
        &self,
        context: &mut Context,
        _: &str,
        response: &pb::AuthRoleGetResponse,
    ) -> Printed {
        let permissions = response.perm.iter().map(|perm| {
            Object::new()
                .number("permType", perm.perm_type)
                .bytes("key", &perm.key)
                .bytes("range_end", &perm.range_end)
                .end()
        });
        let json = Object::new().header(&response.header);
        line(context, json.list("perm", permissions).end())
    }

    fn role_list(&self, context: &mut Context, response: &pb::AuthRoleListResponse) -> Printed {
        let roles = response.roles.iter().map(|role| string(role));
        line(
            context,
            Object::new()
                .header(&response.header)
                .list("roles", roles)
                .end(),
        )
    }

    fn member_add(&self, context: &mut Context, response: &pb::MemberAddResponse) -> Printed {
        self.members(
            context,
            &response.header,
            response.member.as_ref(),
            &response.members,
        )
    }

    fn member_remove(
        &self,
        context: &mut Context,
        _: MemberId,
        response: &pb::MemberRemoveResponse,
    ) -> Printed {
        self.members(context, &response.header, None, &response.members)
    }

    fn member_update(
        &self,
        context: &mut Context,
        _: MemberId,
        response: &pb::MemberUpdateResponse,
    ) -> Printed {
        self.members(context, &response.header, None, &response.members)
    }

    fn member_promote(
        &self,
        context: &mut Context,
        _: MemberId,
        response: &pb::MemberPromoteResponse,
    ) -> Printed {
        self.members(context, &response.header, None, &response.members)
    }

    fn alarm(&self, context: &mut Context, response: &pb::AlarmResponse) -> Printed {
        let alarms = response.alarms.iter().map(|alarm| {
            Object::new()
                .number("memberID", alarm.member_id)
                .number("alarm", alarm.alarm)
                .end()
        });
        let json = Object::new()
            .header(&response.header)
            .list("alarms", alarms);
        line(context, json.end())
    }

    fn move_leader(
        &self,
        context: &mut Context,
        _: MemberId,
        _: MemberId,
        response: &pb::MoveLeaderResponse,
    ) -> Printed {
        line(context, Object::new().header(&response.header).end())
    }

    fn downgrade(
        &self,
        context: &mut Context,
        _: &str,
        response: &pb::DowngradeResponse,
    ) -> Printed {
        let json = Object::new().header(&response.header);
        line(context, json.text("version", &response.version).end())
    }

    fn member_list(&self, context: &mut Context, response: &pb::MemberListResponse) -> Printed {
        self.members(context, &response.header, None, &response.members)
    }

    fn health(&self, context: &mut Context, list: &[Health]) -> Printed {
        let rows = list.iter().map(|health| {
            Object::new()
                .always("endpoint", string(&health.endpoint))
                .always("health", health.healthy.to_string())
                .always("took", string(&health.took))
                .text("error", &health.error)
                .end()
        });
        line(context, nullable(list.is_empty(), rows))
    }

    fn status(&self, context: &mut Context, list: &[Answer<pb::StatusResponse>]) -> Printed {
        let rows = list.iter().map(|answer| {
            Object::new()
                .always("Endpoint", string(&answer.endpoint))
                .always("Status", status(&answer.response))
                .end()
        });
        line(context, nullable(list.is_empty(), rows))
    }

    fn hash_kv(&self, context: &mut Context, list: &[Answer<pb::HashKvResponse>]) -> Printed {
        let rows = list.iter().map(|answer| {
            let response = &answer.response;
            let hash = Object::new()
                .header(&response.header)
                .number("hash", response.hash)
                .number("compact_revision", response.compact_revision)
                .number("hash_revision", response.hash_revision)
                .end();
            Object::new()
                .always("Endpoint", string(&answer.endpoint))
                .always("HashKV", hash)
                .end()
        });
        line(context, nullable(list.is_empty(), rows))
    }
}

impl Json {
    /// An answer about members; `added` is the one it is about.
    fn members(
        &self,
        context: &mut Context,
        header: &Option<pb::ResponseHeader>,
        added: Option<&pb::Member>,
        members: &[pb::Member],
    ) -> Printed {
        let json = if self.hex {
            let hex = |member: &pb::Member| self::member(member, format!("\"{:x}\"", member.id));
            Object::new()
                .always(
                    "header",
                    header.as_ref().map_or("null".to_owned(), hex_header),
                )
                .optional("member", added.map(hex))
                .always("members", array(members.iter().map(hex)))
        } else {
            let plain = |member: &pb::Member| self::member(member, member.id.to_string());
            Object::new()
                .header(header)
                .optional("member", added.map(plain))
                .list("members", members.iter().map(plain))
        };
        line(context, json.end())
    }
}

/// An object that begins with the fields of the header.
fn flat(header: &Option<pb::ResponseHeader>) -> Object {
    Object::new().header_fields(&header.unwrap_or_default())
}

fn header(header: &pb::ResponseHeader) -> String {
    Object::new().header_fields(header).end()
}

fn line(context: &mut Context, json: String) -> Printed {
    writeln!(context.out(), "{json}")?;
    Ok(())
}

fn range(response: &pb::RangeResponse) -> String {
    Object::new()
        .header(&response.header)
        .list("kvs", response.kvs.iter().map(pair))
        .flag("more", response.more)
        .number("count", response.count)
        .end()
}

fn put(response: &pb::PutResponse) -> String {
    Object::new()
        .header(&response.header)
        .optional("prev_kv", response.prev_kv.as_ref().map(pair))
        .end()
}

fn delete(response: &pb::DeleteRangeResponse) -> String {
    Object::new()
        .header(&response.header)
        .number("deleted", response.deleted)
        .list("prev_kvs", response.prev_kvs.iter().map(pair))
        .end()
}

fn txn(response: &pb::TxnResponse) -> String {
    let responses = response.responses.iter().map(|op| {
        let inner = match &op.response {
            Some(Response::ResponseRange(response)) => Some(("response_range", range(response))),
            Some(Response::ResponsePut(response)) => Some(("response_put", put(response))),
            Some(Response::ResponseDeleteRange(response)) => {
                Some(("response_delete_range", delete(response)))
            }
            Some(Response::ResponseTxn(response)) => Some(("response_txn", txn(response))),
            None => None,
        };
        let wrapped = match inner {
            Some((name, json)) => Object::new().always(name, json),
            None => Object::new(),
        };
        Object::new().always("Response", wrapped.end()).end()
    });
    Object::new()
        .header(&response.header)
        .flag("succeeded", response.succeeded)
        .list("responses", responses)
        .end()
}

fn pair(kv: &KeyValue) -> String {
    Object::new()
        .bytes("key", &kv.key)
        .number("create_revision", kv.create_revision)
        .number("mod_revision", kv.mod_revision)
        .number("version", kv.version)
        .bytes("value", &kv.value)
        .number("lease", kv.lease)
        .end()
}

fn status(response: &pb::StatusResponse) -> String {
    let downgrade = response.downgrade_info.as_ref().map(|info| {
        Object::new()
            .flag("enabled", info.enabled)
            .text("targetVersion", &info.target_version)
            .end()
    });
    Object::new()
        .header(&response.header)
        .text("version", &response.version)
        .number("dbSize", response.db_size)
        .number("leader", response.leader)
        .number("raftIndex", response.raft_index)
        .number("raftTerm", response.raft_term)
        .number("raftAppliedIndex", response.raft_applied_index)
        .list("errors", response.errors.iter().map(|error| string(error)))
        .number("dbSizeInUse", response.db_size_in_use)
        .flag("isLearner", response.is_learner)
        .text("storageVersion", &response.storage_version)
        .number("dbSizeQuota", response.db_size_quota)
        .optional("downgradeInfo", downgrade)
        .end()
}

fn member(member: &pb::Member, id: String) -> String {
    let object = match member.id {
        0 if !id.starts_with('"') => Object::new(),
        _ => Object::new().always("ID", id),
    };
    object
        .text("name", &member.name)
        .list("peerURLs", member.peer_ur_ls.iter().map(|url| string(url)))
        .list(
            "clientURLs",
            member.client_ur_ls.iter().map(|url| string(url)),
        )
        .flag("isLearner", member.is_learner)
        .end()
}

fn hex_header(header: &pb::ResponseHeader) -> String {
    Object::new()
        .always("cluster_id", format!("\"{:x}\"", header.cluster_id))
        .always("member_id", format!("\"{:x}\"", header.member_id))
        .number("revision", header.revision)
        .number("raft_term", header.raft_term)
        .end()
}

/// A list that Go declared but never filled prints as `null`.
fn nullable(empty: bool, items: impl Iterator<Item = String>) -> String {
    if empty {
        "null".to_owned()
    } else {
        array(items)
    }
}

fn array(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

fn string(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    push_string(&mut json, text);
    json
}

/// Appends a string as Go's encoder writes it: safe inside HTML.
pub(crate) fn push_string(json: &mut String, text: &str) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\x08' => json.push_str("\\b"),
            '\x0c' => json.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..' ' => {
                json.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => json.push(c),
        }
    }
    json.push('"');
}

/// An object being written; fields with zero values are left out unless `always`.
struct Object(String);

impl Object {
    fn new() -> Self {
        Object(String::from("{"))
    }

    fn always(mut self, name: &str, json: String) -> Self {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        push_string(&mut self.0, name);
        self.0.push(':');
        self.0.push_str(&json);
        self
    }

    fn optional(self, name: &str, json: Option<String>) -> Self {
        match json {
            Some(json) => self.always(name, json),
            None => self,
        }
    }

    fn number<N: Default + PartialEq + ToString>(self, name: &str, number: N) -> Self {
        self.optional(name, (number != N::default()).then(|| number.to_string()))
    }

    fn flag(self, name: &str, flag: bool) -> Self {
        self.optional(name, flag.then(|| "true".to_owned()))
    }

    fn text(self, name: &str, text: &str) -> Self {
        self.optional(name, (!text.is_empty()).then(|| string(text)))
    }

    fn bytes(self, name: &str, bytes: &[u8]) -> Self {
        let json = (!bytes.is_empty()).then(|| format!("\"{}\"", STANDARD.encode(bytes)));
        self.optional(name, json)
    }

    fn list(self, name: &str, items: impl Iterator<Item = String>) -> Self {
        let items: Vec<String> = items.collect();
        let json = (!items.is_empty()).then(|| array(items.into_iter()));
        self.optional(name, json)
    }

    fn header(self, header: &Option<pb::ResponseHeader>) -> Self {
        self.optional("header", header.as_ref().map(self::header))
    }

    fn header_fields(self, header: &pb::ResponseHeader) -> Self {
        self.number("cluster_id", header.cluster_id)
            .number("member_id", header.member_id)
            .number("revision", header.revision)
            .number("raft_term", header.raft_term)
    }

    fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}
