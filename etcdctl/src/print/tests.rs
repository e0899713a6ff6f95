//! Golden outputs: what etcd's etcdctl 3.7.1 prints for the same answers.

use ferrite_client::pb::mvccpb::KeyValue;
use pb::response_op::Response;

use super::*;
use crate::context::tests::captured;

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader {
        cluster_id: 14841639068965178418,
        member_id: 10276657743932975437,
        revision,
        raft_term: 2,
    })
}

fn pair() -> KeyValue {
    KeyValue {
        key: "foo".into(),
        create_revision: 2,
        mod_revision: 2,
        version: 1,
        value: "bar".into(),
        lease: 0,
    }
}

fn range() -> pb::RangeResponse {
    pb::RangeResponse {
        header: header(2),
        kvs: vec![pair()],
        more: false,
        count: 1,
    }
}

/// What a format prints; stderr is appended, then the failure's text.
fn printed(
    format: &str,
    hex: bool,
    print: impl Fn(&dyn Printer, &mut Context) -> Printed,
) -> Vec<u8> {
    let printer = for_format(format, hex).expect("a format");
    let (mut context, out, err) = captured("");
    let result = print(printer.as_ref(), &mut context);
    context.finish(result);
    [out.bytes(), err.bytes()].concat()
}

fn check(format: &str, print: impl Fn(&dyn Printer, &mut Context) -> Printed, expected: &str) {
    let text = String::from_utf8(printed(format, false, print)).expect("text");
    assert_eq!(text, expected, "{format}");
}

fn check_hex(format: &str, print: impl Fn(&dyn Printer, &mut Context) -> Printed, expected: &str) {
    let text = String::from_utf8(printed(format, true, print)).expect("text");
    assert_eq!(text, expected, "{format} --hex");
}

const HEADER_FIELDS: &str = "\"ClusterID\" : 14841639068965178418
\"MemberID\" : 10276657743932975437
\"Revision\" : 2
\"RaftTerm\" : 2
";

const HEADER_JSON: &str = r#""header":{"cluster_id":14841639068965178418,"member_id":10276657743932975437,"revision":2,"raft_term":2}"#;

#[test]
fn get() {
    let print = |printer: &dyn Printer, context: &mut Context| printer.get(context, &range());
    check("simple", print, "foo\nbar\n");
    check_hex("simple", print, "\\x66\\x6f\\x6f\n\\x62\\x61\\x72\n");
    let json = format!(
        "{{{HEADER_JSON},\"kvs\":[{{\"key\":\"Zm9v\",\"create_revision\":2,\"mod_revision\":2,\"version\":1,\"value\":\"YmFy\"}}],\"count\":1}}\n"
    );
    check("json", print, &json);
    check_hex("json", print, &json);
    let fields = format!(
        "{HEADER_FIELDS}\"Key\" : \"foo\"\n\"CreateRevision\" : 2\n\"ModRevision\" : 2\n\"Version\" : 1\n\"Value\" : \"bar\"\n\"Lease\" : 0\n\"More\" : false\n\"Count\" : 1\n"
    );
    check("fields", print, &fields);
    check(
        "table",
        print,
        "Error: table not supported as output format\n",
    );
    let bytes = printed("protobuf", false, print);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "0a1a08b298eaf1948386fccd0110cdd2918bd2b881cf8e0118022002\
         12100a03666f6f1002180220012a036261722001"
    );
}

#[test]
fn hex_fields_have_hexadecimal_ids_and_quoted_keys() {
    let response = pb::RangeResponse {
        kvs: vec![KeyValue {
            key: "\u{1}<".into(),
            lease: 0x2a,
            ..pair()
        }],
        ..range()
    };
    check_hex(
        "fields",
        |printer, context| printer.get(context, &response),
        "\"ClusterID\" : cdf818194e3a8c32\n\"MemberID\" : 8e9e05c52164694d\n\"Revision\" : 2\n\"RaftTerm\" : 2\n\
         \"Key\" : \"\\x01<\"\n\"CreateRevision\" : 2\n\"ModRevision\" : 2\n\"Version\" : 1\n\"Value\" : \"bar\"\n\
         \"Lease\" : 000000000000002a\n\"More\" : false\n\"Count\" : 1\n",
    );
}

#[test]
fn simple_prints_bytes_as_they_are() {
    let response = pb::RangeResponse {
        kvs: vec![KeyValue {
            key: b"\xff\0"[..].into(),
            value: "".into(),
            ..pair()
        }],
        ..range()
    };
    let bytes = printed("simple", false, |printer, context| {
        printer.get(context, &response)
    });
    assert_eq!(bytes, b"\xff\0\n\n");
}

#[test]
fn values_and_counts_are_for_one_format_each() {
    let values = |printer: &dyn Printer, context: &mut Context| printer.values(context, &range());
    let count = |printer: &dyn Printer, context: &mut Context| printer.count(context, &range());
    check("simple", values, "bar\n");
    check_hex("simple", values, "\\x62\\x61\\x72\n");
    for format in ["json", "fields", "protobuf", "table"] {
        check(
            format,
            values,
            "Error: print-value-only is only for `--write-out=simple`\n",
        );
    }
    for format in ["json", "simple", "protobuf", "table"] {
        check(
            format,
            count,
            "Error: --count-only is only for `--write-out=fields`\n",
        );
    }
}

#[test]
fn put() {
    let plain = pb::PutResponse {
        header: header(2),
        prev_kv: None,
    };
    let print = |printer: &dyn Printer, context: &mut Context| printer.put(context, &plain);
    check("simple", print, "OK\n");
    check("json", print, &format!("{{{HEADER_JSON}}}\n"));
    check("fields", print, HEADER_FIELDS);
    let hex: String = printed("protobuf", false, print)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        hex,
        "0a1a08b298eaf1948386fccd0110cdd2918bd2b881cf8e0118022002"
    );

    let replaced = pb::PutResponse {
        header: header(2),
        prev_kv: Some(pair()),
    };
    let print = |printer: &dyn Printer, context: &mut Context| printer.put(context, &replaced);
    check("simple", print, "OK\nfoo\nbar\n");
    check(
        "json",
        print,
        &format!(
            "{{{HEADER_JSON},\"prev_kv\":{{\"key\":\"Zm9v\",\"create_revision\":2,\"mod_revision\":2,\"version\":1,\"value\":\"YmFy\"}}}}\n"
        ),
    );
    check(
        "fields",
        print,
        &format!(
            "{HEADER_FIELDS}\"PrevKey\" : \"foo\"\n\"PrevCreateRevision\" : 2\n\"PrevModRevision\" : 2\n\"PrevVersion\" : 1\n\"PrevValue\" : \"bar\"\n\"PrevLease\" : 0\n"
        ),
    );
}

#[test]
fn delete() {
    let response = pb::DeleteRangeResponse {
        header: header(2),
        deleted: 1,
        prev_kvs: vec![pair()],
    };
    let print = |printer: &dyn Printer, context: &mut Context| printer.delete(context, &response);
    check("simple", print, "1\nfoo\nbar\n");
    check(
        "json",
        print,
        &format!(
            "{{{HEADER_JSON},\"deleted\":1,\"prev_kvs\":[{{\"key\":\"Zm9v\",\"create_revision\":2,\"mod_revision\":2,\"version\":1,\"value\":\"YmFy\"}}]}}\n"
        ),
    );
    check(
        "fields",
        print,
        &format!(
            "{HEADER_FIELDS}\"Deleted\" : 1\n\"PrevKey\" : \"foo\"\n\"PrevCreateRevision\" : 2\n\"PrevModRevision\" : 2\n\"PrevVersion\" : 1\n\"PrevValue\" : \"bar\"\n\"PrevLease\" : 0\n"
        ),
    );
    let nothing = pb::DeleteRangeResponse {
        header: header(2),
        ..Default::default()
    };
    check(
        "simple",
        |printer, context| printer.delete(context, &nothing),
        "0\n",
    );
}

#[test]
fn txn() {
    let inner = |revision| pb::ResponseHeader {
        revision,
        ..Default::default()
    };
    let op = |response| pb::ResponseOp {
        response: Some(response),
    };
    let response = pb::TxnResponse {
        header: header(2),
        succeeded: true,
        responses: vec![
            op(Response::ResponsePut(pb::PutResponse {
                header: Some(inner(3)),
                prev_kv: None,
            })),
            op(Response::ResponseRange(pb::RangeResponse {
                header: Some(inner(3)),
                ..range()
            })),
            op(Response::ResponseDeleteRange(pb::DeleteRangeResponse {
                header: Some(inner(3)),
                ..Default::default()
            })),
        ],
    };
    let print = |printer: &dyn Printer, context: &mut Context| printer.txn(context, &response);
    check("simple", print, "SUCCESS\n\nOK\n\nfoo\nbar\n\n0\n");
    check(
        "json",
        print,
        &format!(
            "{{{HEADER_JSON},\"succeeded\":true,\"responses\":[\
             {{\"Response\":{{\"response_put\":{{\"header\":{{\"revision\":3}}}}}}}},\
             {{\"Response\":{{\"response_range\":{{\"header\":{{\"revision\":3}},\"kvs\":[{{\"key\":\"Zm9v\",\"create_revision\":2,\"mod_revision\":2,\"version\":1,\"value\":\"YmFy\"}}],\"count\":1}}}}}},\
             {{\"Response\":{{\"response_delete_range\":{{\"header\":{{\"revision\":3}}}}}}}}]}}\n"
        ),
    );
    check(
        "fields",
        print,
        &format!(
            "{HEADER_FIELDS}\"Succeeded\" : true\n\
             \"ClusterID\" : 0\n\"MemberID\" : 0\n\"Revision\" : 3\n\"RaftTerm\" : 0\n\
             \"ClusterID\" : 0\n\"MemberID\" : 0\n\"Revision\" : 3\n\"RaftTerm\" : 0\n\
             \"Key\" : \"foo\"\n\"CreateRevision\" : 2\n\"ModRevision\" : 2\n\"Version\" : 1\n\"Value\" : \"bar\"\n\"Lease\" : 0\n\"More\" : false\n\"Count\" : 1\n\
             \"ClusterID\" : 0\n\"MemberID\" : 0\n\"Revision\" : 3\n\"RaftTerm\" : 0\n\"Deleted\" : 0\n"
        ),
    );
    let failed = pb::TxnResponse {
        header: header(2),
        ..Default::default()
    };
    check(
        "simple",
        |printer, context| printer.txn(context, &failed),
        "FAILURE\n",
    );
    check(
        "json",
        |printer, context| printer.txn(context, &failed),
        &format!("{{{HEADER_JSON}}}\n"),
    );
}

fn members() -> pb::MemberListResponse {
    pb::MemberListResponse {
        header: header(0),
        members: vec![pb::Member {
            id: 10276657743932975437,
            name: "default".into(),
            peer_ur_ls: vec!["http://localhost:2380".into()],
            client_ur_ls: vec!["http://localhost:2379".into()],
            is_learner: false,
        }],
    }
}

#[test]
fn member_list() {
    let print =
        |printer: &dyn Printer, context: &mut Context| printer.member_list(context, &members());
    check(
        "simple",
        print,
        "8e9e05c52164694d, started, default, http://localhost:2380, http://localhost:2379, false\n",
    );
    check(
        "json",
        print,
        "{\"header\":{\"cluster_id\":14841639068965178418,\"member_id\":10276657743932975437,\"raft_term\":2},\"members\":[{\"ID\":10276657743932975437,\"name\":\"default\",\"peerURLs\":[\"http://localhost:2380\"],\"clientURLs\":[\"http://localhost:2379\"]}]}\n",
    );
    check_hex(
        "json",
        print,
        "{\"header\":{\"cluster_id\":\"cdf818194e3a8c32\",\"member_id\":\"8e9e05c52164694d\",\"raft_term\":2},\"members\":[{\"ID\":\"8e9e05c52164694d\",\"name\":\"default\",\"peerURLs\":[\"http://localhost:2380\"],\"clientURLs\":[\"http://localhost:2379\"]}]}\n",
    );
    check(
        "fields",
        print,
        "\"ClusterID\" : 14841639068965178418\n\"MemberID\" : 10276657743932975437\n\"RaftTerm\" : 2\n\"ID\" : 10276657743932975437\n\"Name\" : \"default\"\n\"PeerURL\" : \"http://localhost:2380\"\n\"ClientURL\" : \"http://localhost:2379\"\n\"IsLearner\" : false\n\n",
    );
    check(
        "table",
        print,
        "\
┌──────────────────┬─────────┬─────────┬───────────────────────┬───────────────────────┬────────────┐
│        ID        │ STATUS  │  NAME   │      PEER ADDRS       │     CLIENT ADDRS      │ IS LEARNER │
├──────────────────┼─────────┼─────────┼───────────────────────┼───────────────────────┼────────────┤
│ 8e9e05c52164694d │ started │ default │ http://localhost:2380 │ http://localhost:2379 │      false │
└──────────────────┴─────────┴─────────┴───────────────────────┴───────────────────────┴────────────┘
",
    );
}

#[test]
fn an_unstarted_learner_shows_in_all_formats() {
    let mut response = members();
    response.members[0].name.clear();
    response.members[0].client_ur_ls.clear();
    response.members[0].is_learner = true;
    let print =
        |printer: &dyn Printer, context: &mut Context| printer.member_list(context, &response);
    check(
        "simple",
        print,
        "8e9e05c52164694d, unstarted, , http://localhost:2380, , true\n",
    );
    let json = String::from_utf8(printed("json", false, print)).expect("text");
    assert!(
        json.ends_with("\"peerURLs\":[\"http://localhost:2380\"],\"isLearner\":true}]}\n"),
        "{json}"
    );
}

#[test]
fn health() {
    let list = [
        Health {
            endpoint: "127.0.0.1:2379".into(),
            healthy: true,
            took: "1.061334ms".into(),
            error: String::new(),
        },
        Health {
            endpoint: "127.0.0.1:1".into(),
            healthy: false,
            took: "5.0001s".into(),
            error: "Active Alarm(s): NOSPACE ".into(),
        },
    ];
    let print = |printer: &dyn Printer, context: &mut Context| printer.health(context, &list);
    check(
        "simple",
        print,
        "127.0.0.1:2379 is healthy: successfully committed proposal: took = 1.061334ms\n\
         127.0.0.1:1 is unhealthy: failed to commit proposal: Active Alarm(s): NOSPACE \n",
    );
    check(
        "json",
        print,
        "[{\"endpoint\":\"127.0.0.1:2379\",\"health\":true,\"took\":\"1.061334ms\"},{\"endpoint\":\"127.0.0.1:1\",\"health\":false,\"took\":\"5.0001s\",\"error\":\"Active Alarm(s): NOSPACE \"}]\n",
    );
    check(
        "fields",
        print,
        "\"Endpoint\" : \"127.0.0.1:2379\"\n\"Health\" : true\n\"Took\" : 1.061334ms\n\"Error\" : \n\n\
         \"Endpoint\" : \"127.0.0.1:1\"\n\"Health\" : false\n\"Took\" : 5.0001s\n\"Error\" : Active Alarm(s): NOSPACE \n\n",
    );
    check(
        "table",
        print,
        "\
┌────────────────┬────────┬────────────┬──────────────────────────┐
│    ENDPOINT    │ HEALTH │    TOOK    │          ERROR           │
├────────────────┼────────┼────────────┼──────────────────────────┤
│ 127.0.0.1:2379 │   true │ 1.061334ms │                          │
│    127.0.0.1:1 │  false │    5.0001s │ Active Alarm(s): NOSPACE │
└────────────────┴────────┴────────────┴──────────────────────────┘
",
    );
    check(
        "protobuf",
        print,
        "Error: protobuf not supported as output format\n",
    );
}

#[test]
fn nothing_to_show_is_null_in_json_and_a_bare_heading_in_a_table() {
    let print = |printer: &dyn Printer, context: &mut Context| printer.hash_kv(context, &[]);
    check("simple", print, "");
    check("json", print, "null\n");
    check("fields", print, "");
    check(
        "table",
        print,
        "┌──────────┬──────┬───────────────┐\n│ ENDPOINT │ HASH │ HASH REVISION │\n└──────────┴──────┴───────────────┘\n",
    );
}

#[test]
fn status() {
    let list = [Answer {
        endpoint: "127.0.0.1:2379".to_owned(),
        response: pb::StatusResponse {
            header: header(2),
            version: "3.7.1".into(),
            db_size: 98304,
            leader: 10276657743932975437,
            raft_index: 8,
            raft_term: 2,
            raft_applied_index: 8,
            errors: vec!["memberID:1 alarm:NOSPACE ".into(), "b".into()],
            db_size_in_use: 98304,
            is_learner: false,
            storage_version: "3.7.0".into(),
            db_size_quota: 2147483648,
            downgrade_info: Some(pb::DowngradeInfo::default()),
        },
    }];
    let print = |printer: &dyn Printer, context: &mut Context| printer.status(context, &list);
    check(
        "simple",
        print,
        "127.0.0.1:2379, 8e9e05c52164694d, 3.7.1, 3.7.0, 98 kB, 98 kB, 0%, 2.1 GB, true, false, 2, 8, 8, memberID:1 alarm:NOSPACE , b, , false\n",
    );
    check(
        "json",
        print,
        &format!(
            "[{{\"Endpoint\":\"127.0.0.1:2379\",\"Status\":{{{HEADER_JSON},\"version\":\"3.7.1\",\"dbSize\":98304,\"leader\":10276657743932975437,\"raftIndex\":8,\"raftTerm\":2,\"raftAppliedIndex\":8,\"errors\":[\"memberID:1 alarm:NOSPACE \",\"b\"],\"dbSizeInUse\":98304,\"storageVersion\":\"3.7.0\",\"dbSizeQuota\":2147483648,\"downgradeInfo\":{{}}}}}}]\n"
        ),
    );
    check(
        "fields",
        print,
        &format!(
            "{HEADER_FIELDS}\"Version\" : \"3.7.1\"\n\"StorageVersion\" : \"3.7.0\"\n\"DBSize\" : 98304\n\"DBSizeInUse\" : 98304\n\"DBSizeQuota\" : 2147483648\n\"Leader\" : 10276657743932975437\n\"IsLearner\" : false\n\"RaftIndex\" : 8\n\"RaftTerm\" : 2\n\"RaftAppliedIndex\" : 8\n\"Errors\" : [memberID:1 alarm:NOSPACE  b]\n\"Endpoint\" : \"127.0.0.1:2379\"\n\"DowngradeTargetVersion\" : \"\"\n\"DowngradeEnabled\" : false\n\n"
        ),
    );
}

#[test]
fn hash_kv() {
    let list = [Answer {
        endpoint: "127.0.0.1:2379".to_owned(),
        response: pb::HashKvResponse {
            header: header(2),
            hash: 2064120424,
            compact_revision: -1,
            hash_revision: 13,
        },
    }];
    let print = |printer: &dyn Printer, context: &mut Context| printer.hash_kv(context, &list);
    check("simple", print, "127.0.0.1:2379, 2064120424, 13\n");
    check(
        "json",
        print,
        &format!(
            "[{{\"Endpoint\":\"127.0.0.1:2379\",\"HashKV\":{{{HEADER_JSON},\"hash\":2064120424,\"compact_revision\":-1,\"hash_revision\":13}}}}]\n"
        ),
    );
    check(
        "fields",
        print,
        &format!(
            "{HEADER_FIELDS}\"Endpoint\" : \"127.0.0.1:2379\"\n\"Hash\" : 2064120424\n\"HashRevision\" : 13\n\n"
        ),
    );
}

#[test]
fn json_strings_are_escaped_like_go() {
    let mut text = String::new();
    json::push_string(&mut text, "<a&b>\"\\\n\r\t\u{8}\u{c}\u{1}\u{2028}ä\u{7f}");
    assert_eq!(
        text,
        "\"\\u003ca\\u0026b\\u003e\\\"\\\\\\n\\r\\t\\b\\f\\u0001\\u2028ä\u{7f}\""
    );
}

const HEADER_FLAT: &str = r#""cluster_id":14841639068965178418,"member_id":10276657743932975437,"revision":2,"raft_term":2"#;

const LEASE: i64 = 0x694d_805f_8177_6920;

/// What every answer about leases encodes to: its header and nothing else.
fn only_the_header() -> Vec<u8> {
    use prost::Message;
    header(2).expect("some").encode_to_vec()
}

#[test]
fn watch() {
    use ferrite_client::pb::mvccpb::Event;
    let deleted = KeyValue {
        key: "foo".into(),
        mod_revision: 3,
        ..Default::default()
    };
    let response = pb::WatchResponse {
        header: header(2),
        watch_id: 7,
        events: vec![
            Event {
                r#type: 0,
                kv: Some(pair()),
                prev_kv: Some(pair()),
            },
            Event {
                r#type: 1,
                kv: Some(deleted),
                prev_kv: None,
            },
        ],
        ..Default::default()
    };
    let print = |printer: &dyn Printer, context: &mut Context| printer.watch(context, &response);
    check("simple", print, "PUT\nfoo\nbar\nfoo\nbar\nDELETE\nfoo\n\n");
    let kv = r#"{"key":"Zm9v","create_revision":2,"mod_revision":2,"version":1,"value":"YmFy"}"#;
    let json = format!(
        "{{\"Header\":{{{HEADER_FLAT}}},\"Events\":[{{\"kv\":{kv},\"prev_kv\":{kv}}},{{\"type\":1,\"kv\":{{\"key\":\"Zm9v\",\"mod_revision\":3}}}}],\"CompactRevision\":0,\"Canceled\":false,\"Created\":false,\"CancelReason\":\"\"}}\n"
    );
    check("json", print, &json);
    let fields = |prefix: &str| {
        format!(
            "\"{prefix}Key\" : \"foo\"\n\"{prefix}CreateRevision\" : 2\n\"{prefix}ModRevision\" : 2\n\"{prefix}Version\" : 1\n\"{prefix}Value\" : \"bar\"\n\"{prefix}Lease\" : 0\n"
        )
    };
    let deletion = "\"Type\" : DELETE\n\"Key\" : \"foo\"\n\"CreateRevision\" : 0\n\"ModRevision\" : 3\n\"Version\" : 0\n\"Value\" : \"\"\n\"Lease\" : 0\n";
    let expected = format!(
        "{HEADER_FIELDS}\"Type\" : PUT\n{}{}{deletion}",
        fields("Prev"),
        fields("")
    );
    check("fields", print, &expected);
    // Ids of watches are not shown.
    let encoded = printed("protobuf", false, print);
    let decoded = <pb::WatchResponse as prost::Message>::decode(encoded.as_slice()).expect("whole");
    let shown = pb::WatchResponse {
        watch_id: 0,
        ..response.clone()
    };
    assert_eq!(decoded, shown);
}

#[test]
fn lease_grant_and_keep_alive() {
    let granted = pb::LeaseGrantResponse {
        header: header(2),
        id: LEASE,
        ttl: 60,
        error: String::new(),
    };
    let grant =
        |printer: &dyn Printer, context: &mut Context| printer.lease_grant(context, &granted);
    check(
        "simple",
        grant,
        "lease 694d805f81776920 granted with TTL(60s)\n",
    );
    let json = format!("{{{HEADER_FLAT},\"ID\":{LEASE},\"TTL\":60,\"Error\":\"\"}}\n");
    check("json", grant, &json);
    let fields = format!("{HEADER_FIELDS}\"ID\" : {LEASE}\n\"TTL\" : 60\n");
    check("fields", grant, &fields);
    let hex = printed("fields", true, grant);
    let hex = String::from_utf8(hex).expect("text");
    assert!(
        hex.ends_with("\"ID\" : 694d805f81776920\n\"TTL\" : 60\n"),
        "{hex}"
    );
    assert_eq!(printed("protobuf", false, grant), only_the_header());
    check(
        "table",
        grant,
        "Error: table not supported as output format\n",
    );

    let renewed = pb::LeaseKeepAliveResponse {
        header: header(2),
        id: LEASE,
        ttl: 60,
    };
    let renew =
        |printer: &dyn Printer, context: &mut Context| printer.lease_keep_alive(context, &renewed);
    check(
        "simple",
        renew,
        "lease 694d805f81776920 keepalived with TTL(60)\n",
    );
    let json = format!("{{{HEADER_FLAT},\"ID\":{LEASE},\"TTL\":60}}\n");
    check("json", renew, &json);
    check("fields", renew, &fields);
    assert_eq!(printed("protobuf", false, renew), only_the_header());
}

#[test]
fn lease_time_to_live() {
    let lives = |keys: &[&'static str]| pb::LeaseTimeToLiveResponse {
        header: header(2),
        id: LEASE,
        ttl: 481,
        granted_ttl: 500,
        keys: keys.iter().map(|key| (*key).into()).collect(),
    };
    let with_keys = lives(&["foo1", "foo2"]);
    let print = |printer: &dyn Printer, context: &mut Context| {
        printer.lease_time_to_live(context, &with_keys, true)
    };
    let simple = "lease 694d805f81776920 granted with TTL(500s), remaining(481s)";
    check(
        "simple",
        print,
        &format!("{simple}, attached keys([foo1 foo2])\n"),
    );
    let json = format!(
        "{{{HEADER_FLAT},\"id\":{LEASE},\"ttl\":481,\"granted-ttl\":500,\"keys\":[\"Zm9vMQ==\",\"Zm9vMg==\"]}}\n"
    );
    check("json", print, &json);
    let fields = format!(
        "{HEADER_FIELDS}\"ID\" : {LEASE}\n\"TTL\" : 481\n\"GrantedTTL\" : 500\n\"Key\" : \"foo1\"\n\"Key\" : \"foo2\"\n"
    );
    check("fields", print, &fields);
    assert_eq!(printed("protobuf", false, print), only_the_header());

    let without = lives(&[]);
    let print = |printer: &dyn Printer, context: &mut Context| {
        printer.lease_time_to_live(context, &without, false)
    };
    check("simple", print, &format!("{simple}\n"));
    let json =
        format!("{{{HEADER_FLAT},\"id\":{LEASE},\"ttl\":481,\"granted-ttl\":500,\"keys\":null}}\n");
    check("json", print, &json);

    let gone = pb::LeaseTimeToLiveResponse {
        ttl: -1,
        granted_ttl: 0,
        ..lives(&[])
    };
    let print = |printer: &dyn Printer, context: &mut Context| {
        printer.lease_time_to_live(context, &gone, true)
    };
    check("simple", print, "lease 694d805f81776920 already expired\n");
}

#[test]
fn lease_list_and_revoke() {
    let list = |ids: &[i64]| pb::LeaseLeasesResponse {
        header: header(2),
        leases: ids.iter().map(|&id| pb::LeaseStatus { id }).collect(),
    };
    let (some, none) = (list(&[LEASE, 10]), list(&[]));
    let print = |printer: &dyn Printer, context: &mut Context| printer.lease_list(context, &some);
    check(
        "simple",
        print,
        "found 2 leases\n694d805f81776920\n000000000000000a\n",
    );
    let json = format!("{{{HEADER_FLAT},\"leases\":[{{\"id\":{LEASE}}},{{\"id\":10}}]}}\n");
    check("json", print, &json);
    let fields = format!("{HEADER_FIELDS}\"ID\" : {LEASE}\n\"ID\" : 10\n");
    check("fields", print, &fields);
    assert_eq!(printed("protobuf", false, print), only_the_header());
    let print = |printer: &dyn Printer, context: &mut Context| printer.lease_list(context, &none);
    check("simple", print, "found 0 leases\n");
    check("json", print, &format!("{{{HEADER_FLAT},\"leases\":[]}}\n"));

    let revoked = pb::LeaseRevokeResponse { header: header(2) };
    let print = |printer: &dyn Printer, context: &mut Context| {
        printer.lease_revoke(context, LeaseId::new(LEASE), &revoked)
    };
    check("simple", print, "lease 694d805f81776920 revoked\n");
    check("json", print, &format!("{{{HEADER_JSON}}}\n"));
    check("fields", print, HEADER_FIELDS);
    let refused = String::from_utf8(printed("protobuf", false, print)).expect("text");
    let message = "Error: marshal unsupported for type *clientv3.LeaseRevokeResponse (";
    assert!(refused.starts_with(message), "{refused}");
}

#[test]
fn alarms() {
    let response = pb::AlarmResponse {
        header: header(2),
        alarms: vec![pb::AlarmMember {
            member_id: 10276657743932975437,
            alarm: pb::AlarmType::Nospace.into(),
        }],
    };
    let print = |printer: &dyn Printer, context: &mut Context| printer.alarm(context, &response);
    check(
        "simple",
        print,
        "memberID:10276657743932975437 alarm:NOSPACE\n",
    );
    let json = format!(
        "{{{HEADER_JSON},\"alarms\":[{{\"memberID\":10276657743932975437,\"alarm\":1}}]}}\n"
    );
    check("json", print, &json);
    let fields =
        format!("{HEADER_FIELDS}\"MemberID\" : 10276657743932975437\n\"AlarmType\" : NOSPACE\n\n");
    check("fields", print, &fields);
}

#[test]
fn changes_of_members() {
    let member = |id, name: &str| pb::Member {
        id,
        name: name.to_owned(),
        peer_ur_ls: vec!["http://a:1".to_owned()],
        ..Default::default()
    };
    let added = pb::MemberAddResponse {
        header: header(0),
        member: Some(member(0x0abc_def0_1234_5678, "")),
        members: vec![member(1, "default")],
    };
    let print = |printer: &dyn Printer, context: &mut Context| printer.member_add(context, &added);
    check(
        "simple",
        print,
        "Member  abcdef012345678 added to cluster cdf818194e3a8c32\n",
    );
    let json = "{\"header\":{\"cluster_id\":14841639068965178418,\"member_id\":10276657743932975437,\"raft_term\":2},\"member\":{\"ID\":773738358679819896,\"peerURLs\":[\"http://a:1\"]},\"members\":[{\"ID\":1,\"name\":\"default\",\"peerURLs\":[\"http://a:1\"]}]}\n";
    check("json", print, json);
    let hex = "{\"header\":{\"cluster_id\":\"cdf818194e3a8c32\",\"member_id\":\"8e9e05c52164694d\",\"raft_term\":2},\"member\":{\"ID\":\"abcdef012345678\",\"peerURLs\":[\"http://a:1\"]},\"members\":[{\"ID\":\"1\",\"name\":\"default\",\"peerURLs\":[\"http://a:1\"]}]}\n";
    check_hex("json", print, hex);
    check(
        "fields",
        print,
        "Error: fields not supported as output format\n",
    );
    let learner = pb::MemberAddResponse {
        member: Some(pb::Member {
            is_learner: true,
            ..member(2, "")
        }),
        ..added.clone()
    };
    let print =
        |printer: &dyn Printer, context: &mut Context| printer.member_add(context, &learner);
    let simple = "Member                2 added as learner to cluster cdf818194e3a8c32\n";
    check("simple", print, simple);
}
