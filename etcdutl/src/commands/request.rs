//! A proposal of the log as text, in the form in which protobuf writes messages for people. Passwords
//! are not shown.

use ferrite_api::pb::authpb::permission;
use ferrite_api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use ferrite_api::pb::etcdserverpb::request_op::Request;
use ferrite_api::pb::etcdserverpb::{
    AlarmType, Compare, DeleteRangeRequest, InternalRaftRequest, PutRequest, RangeRequest,
    RequestOp, TxnRequest, alarm_request::AlarmAction,
};
use ferrite_api::types::{LeaseId, MemberId};

use crate::render::quote;

/// The request; fields at their defaults are left out.
pub(crate) fn text(request: &InternalRaftRequest) -> String {
    let mut text = Text::default();
    let header = request.header.as_ref();
    let id = header.map_or(request.id, |header| header.id);
    text.number("ID", id);
    if let Some(header) = header {
        text.string("user", &header.username);
    }
    key_values(request, &mut text);
    leases(request, &mut text);
    cluster(request, &mut text);
    authentication(request, &mut text);
    text.0
}

fn key_values(request: &InternalRaftRequest, text: &mut Text) {
    text.message("range", &request.range, range);
    text.message("put", &request.put, put);
    text.message("delete_range", &request.delete_range, delete_range);
    text.message("txn", &request.txn, txn);
    text.message("compaction", &request.compaction, |compaction, text| {
        text.number("revision", compaction.revision);
        text.flag("physical", compaction.physical);
    });
}

fn range(range: &RangeRequest, text: &mut Text) {
    text.bytes("key", &range.key);
    text.bytes("range_end", &range.range_end);
    text.number("limit", range.limit);
    text.number("revision", range.revision);
    text.flag("keys_only", range.keys_only);
    text.flag("count_only", range.count_only);
}

fn put(put: &PutRequest, text: &mut Text) {
    text.bytes("key", &put.key);
    text.bytes("value", &put.value);
    text.lease("lease", put.lease);
    text.flag("prev_kv", put.prev_kv);
    text.flag("ignore_value", put.ignore_value);
    text.flag("ignore_lease", put.ignore_lease);
}

fn delete_range(delete: &DeleteRangeRequest, text: &mut Text) {
    text.bytes("key", &delete.key);
    text.bytes("range_end", &delete.range_end);
    text.flag("prev_kv", delete.prev_kv);
}

fn txn(txn: &TxnRequest, text: &mut Text) {
    for compare in &txn.compare {
        text.message("compare", &Some(compare), |compare, text| {
            self::compare(compare, text)
        });
    }
    for (name, operations) in [("success", &txn.success), ("failure", &txn.failure)] {
        for operation in operations {
            text.message(name, &Some(operation), |operation, text| {
                self::operation(operation, text)
            });
        }
    }
}

fn compare(compare: &Compare, text: &mut Text) {
    let target = CompareTarget::try_from(compare.target);
    let result = CompareResult::try_from(compare.result);
    text.word("target", target.map_or("?", |target| target.as_str_name()));
    text.word("result", result.map_or("?", |result| result.as_str_name()));
    text.bytes("key", &compare.key);
    text.bytes("range_end", &compare.range_end);
    match &compare.target_union {
        Some(TargetUnion::Version(version)) => text.number("version", *version),
        Some(TargetUnion::CreateRevision(revision)) => text.number("create_revision", *revision),
        Some(TargetUnion::ModRevision(revision)) => text.number("mod_revision", *revision),
        Some(TargetUnion::Value(value)) => text.bytes("value", value),
        Some(TargetUnion::Lease(lease)) => text.lease("lease", *lease),
        None => {}
    }
}

fn operation(operation: &RequestOp, text: &mut Text) {
    match &operation.request {
        Some(Request::RequestRange(request)) => {
            text.message("range", &Some(request), |r, t| range(r, t))
        }
        Some(Request::RequestPut(request)) => text.message("put", &Some(request), |r, t| put(r, t)),
        Some(Request::RequestDeleteRange(request)) => {
            text.message("delete_range", &Some(request), |r, t| delete_range(r, t));
        }
        Some(Request::RequestTxn(request)) => text.message("txn", &Some(request), |r, t| txn(r, t)),
        None => {}
    }
}

fn leases(request: &InternalRaftRequest, text: &mut Text) {
    text.message("lease_grant", &request.lease_grant, |grant, text| {
        text.lease("ID", grant.id);
        text.number("TTL", grant.ttl);
    });
    text.message("lease_revoke", &request.lease_revoke, |revoke, text| {
        text.lease("ID", revoke.id);
    });
    text.message(
        "lease_checkpoint",
        &request.lease_checkpoint,
        |checkpoints, text| {
            for checkpoint in &checkpoints.checkpoints {
                text.message("checkpoint", &Some(checkpoint), |checkpoint, text| {
                    text.lease("ID", checkpoint.id);
                    text.number("remaining_TTL", checkpoint.remaining_ttl);
                });
            }
        },
    );
}

fn cluster(request: &InternalRaftRequest, text: &mut Text) {
    text.message("alarm", &request.alarm, |alarm, text| {
        let action = AlarmAction::try_from(alarm.action);
        let kind = AlarmType::try_from(alarm.alarm);
        text.word("action", action.map_or("?", |action| action.as_str_name()));
        text.member("memberID", alarm.member_id);
        text.word("alarm", kind.map_or("?", |kind| kind.as_str_name()));
    });
    text.message(
        "cluster_version_set",
        &request.cluster_version_set,
        |set, text| {
            text.string("ver", &set.ver);
        },
    );
    text.message(
        "cluster_member_attr_set",
        &request.cluster_member_attr_set,
        |set, text| {
            text.member("member_ID", set.member_id);
            text.message(
                "member_attributes",
                &set.member_attributes,
                |attributes, text| {
                    text.string("name", &attributes.name);
                    for url in &attributes.client_urls {
                        text.string("client_urls", url);
                    }
                },
            );
        },
    );
    text.message(
        "downgrade_info_set",
        &request.downgrade_info_set,
        |set, text| {
            text.flag("enabled", set.enabled);
            text.string("ver", &set.ver);
        },
    );
}

fn authentication(request: &InternalRaftRequest, text: &mut Text) {
    text.message("auth_enable", &request.auth_enable, |_, _| {});
    text.message("auth_disable", &request.auth_disable, |_, _| {});
    text.message("authenticate", &request.authenticate, |request, text| {
        text.string("name", &request.name);
    });
    text.message("auth_user_add", &request.auth_user_add, |request, text| {
        text.string("name", &request.name);
        text.word("password", REMOVED);
    });
    text.message(
        "auth_user_delete",
        &request.auth_user_delete,
        |request, text| {
            text.string("name", &request.name);
        },
    );
    text.message(
        "auth_user_change_password",
        &request.auth_user_change_password,
        |request, text| {
            text.string("name", &request.name);
            text.word("password", REMOVED);
        },
    );
    text.message(
        "auth_user_grant_role",
        &request.auth_user_grant_role,
        |request, text| {
            text.string("user", &request.user);
            text.string("role", &request.role);
        },
    );
    text.message(
        "auth_user_revoke_role",
        &request.auth_user_revoke_role,
        |request, text| {
            text.string("name", &request.name);
            text.string("role", &request.role);
        },
    );
    text.message("auth_role_add", &request.auth_role_add, |request, text| {
        text.string("name", &request.name);
    });
    text.message(
        "auth_role_delete",
        &request.auth_role_delete,
        |request, text| {
            text.string("role", &request.role);
        },
    );
    text.message(
        "auth_role_grant_permission",
        &request.auth_role_grant_permission,
        |request, text| {
            text.string("name", &request.name);
            text.message("perm", &request.perm, |perm, text| {
                let kind = permission::Type::try_from(perm.perm_type);
                text.word("permType", kind.map_or("?", |kind| kind.as_str_name()));
                text.bytes("key", &perm.key);
                text.bytes("range_end", &perm.range_end);
            });
        },
    );
    text.message(
        "auth_role_revoke_permission",
        &request.auth_role_revoke_permission,
        |request, text| {
            text.string("role", &request.role);
            text.bytes("key", &request.key);
            text.bytes("range_end", &request.range_end);
        },
    );
}

/// Stands for a password.
const REMOVED: &str = "<value removed>";

/// Fields, separated by blanks.
#[derive(Default)]
struct Text(String);

impl Text {
    fn word(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push(' ');
        }
        self.0.push_str(name);
        self.0.push(':');
        self.0.push_str(value);
    }

    fn number<N: PartialEq + Default + ToString>(&mut self, name: &str, number: N) {
        if number != N::default() {
            self.word(name, &number.to_string());
        }
    }

    fn flag(&mut self, name: &str, set: bool) {
        if set {
            self.word(name, "true");
        }
    }

    fn lease(&mut self, name: &str, lease: i64) {
        if lease != 0 {
            self.word(name, &LeaseId::new(lease).to_string());
        }
    }

    fn member(&mut self, name: &str, member: u64) {
        if member != 0 {
            self.word(name, &MemberId::new(member).to_string());
        }
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.word(name, &quote(bytes));
        }
    }

    fn string(&mut self, name: &str, text: &str) {
        self.bytes(name, text.as_bytes());
    }

    fn message<M>(&mut self, name: &str, message: &Option<M>, fields: impl Fn(&M, &mut Text)) {
        if let Some(message) = message {
            let mut inner = Text::default();
            fields(message, &mut inner);
            self.word(name, &format!("{{{}}}", inner.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ferrite_api::pb::etcdserverpb::{
        AuthUserAddRequest, AuthUserChangePasswordRequest, RequestHeader,
    };

    use super::*;

    fn of(request: InternalRaftRequest) -> String {
        text(&InternalRaftRequest {
            header: Some(RequestHeader {
                id: 6,
                ..RequestHeader::default()
            }),
            ..request
        })
    }

    #[test]
    fn requests_are_shown_without_defaults() {
        let put = PutRequest {
            key: Bytes::from_static(b"foo1"),
            value: Bytes::from_static(b"bar\n"),
            lease: 16,
            ignore_lease: true,
            ..PutRequest::default()
        };
        let shown = of(InternalRaftRequest {
            put: Some(put.clone()),
            ..InternalRaftRequest::default()
        });
        let put_text = r#"put:{key:"foo1" value:"bar\n" lease:0000000000000010 ignore_lease:true}"#;
        assert_eq!(shown, format!("ID:6 {put_text}"));

        let shown = of(InternalRaftRequest {
            txn: Some(TxnRequest {
                compare: vec![Compare {
                    result: CompareResult::Equal.into(),
                    target: CompareTarget::Version.into(),
                    key: Bytes::from_static(b"k"),
                    target_union: Some(TargetUnion::Version(2)),
                    ..Compare::default()
                }],
                success: vec![RequestOp {
                    request: Some(Request::RequestPut(put)),
                }],
                failure: vec![],
            }),
            ..InternalRaftRequest::default()
        });
        assert_eq!(
            shown,
            format!(
                "ID:6 txn:{{compare:{{target:VERSION result:EQUAL key:\"k\" version:2}} \
                 success:{{{put_text}}}}}"
            )
        );
    }

    #[test]
    fn passwords_are_not_shown() {
        let secret = || "s3cret".to_owned();
        for request in [
            InternalRaftRequest {
                auth_user_add: Some(AuthUserAddRequest {
                    name: "u".to_owned(),
                    password: secret(),
                    hashed_password: secret(),
                    ..AuthUserAddRequest::default()
                }),
                ..InternalRaftRequest::default()
            },
            InternalRaftRequest {
                auth_user_change_password: Some(AuthUserChangePasswordRequest {
                    name: "u".to_owned(),
                    password: secret(),
                    hashed_password: secret(),
                }),
                ..InternalRaftRequest::default()
            },
        ] {
            let shown = of(request);
            assert!(
                shown.contains("name:\"u\" password:<value removed>"),
                "{shown}"
            );
            assert!(!shown.contains("s3cret"), "{shown}");
        }
    }
}
