//! What programs of etcd's ecosystem send over the JSON gateway, in their order and form, and what they
//! look at in the answers.

use serde_json::{Value, json};

use crate::json_client::{Answer, b64, masked, open, post, send};
use crate::support::*;

async fn call(member: &Member, path: &str, body: Value) -> (u16, Value) {
    let answer: Answer = post(member, path, &body.to_string()).await;
    (answer.status, answer.json())
}

async fn ok(member: &Member, path: &str, body: Value) -> Value {
    let (status, answer) = call(member, path, body).await;
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

/// Patroni: a leader key under a lease, members that renew, and a watch that waits for its end.
#[tokio::test]
async fn patroni() {
    let member = Member::start().await;
    let version = send(&member, "GET", "/version", &[], "").await;
    let version = version.json()["etcdserver"].as_str().unwrap().to_owned();
    assert!(version.split('.').all(|part| part.parse::<u32>().is_ok()));
    let list = ok(&member, "/v3/cluster/member/list", json!({})).await;
    assert_eq!(
        list["members"][0]["clientURLs"],
        json!(["http://localhost:2379"])
    );
    // No passwords here.
    let leader = b64("/service/main/leader");
    let service = json!({"key": b64("/service/main/"), "range_end": b64("/service/main0")});
    let mut local = service.clone();
    local["serializable"] = true.into();
    let empty = ok(&member, "/v3/kv/range", local).await;
    assert_eq!((empty.get("kvs"), empty.get("count")), (None, None));
    let lease = ok(&member, "/v3/lease/grant", json!({"TTL": 30})).await["ID"].clone();
    assert!(lease.as_str().unwrap().parse::<i64>().unwrap() > 0);
    let status = json!({"key": b64("/service/main/members/a"), "value": b64("{}"), "lease": lease});
    ok(&member, "/v3/kv/put", status).await;
    // The race for the leader key.
    let acquire = |name: &str| {
        json!({
            "compare": [{"key": leader, "target": "CREATE", "create_revision": "0"}],
            "success": [{"request_put": {"key": leader, "value": b64(name), "lease": lease}}],
            "failure": [{"request_range": {"key": leader}}],
        })
    };
    let won = ok(&member, "/v3/kv/txn", acquire("a")).await;
    assert_eq!(won["succeeded"], true);
    assert_eq!(
        won["responses"][0]["response_put"]["header"]["revision"],
        "3"
    );
    let lost = ok(&member, "/v3/kv/txn", acquire("b")).await;
    assert_eq!(lost.get("succeeded"), None);
    let held = &lost["responses"][0]["response_range"]["kvs"][0];
    assert_eq!((&held["value"], &held["lease"]), (&json!(b64("a")), &lease));
    let alive = post(
        &member,
        "/v3/lease/keepalive",
        &json!({"ID": lease}).to_string(),
    )
    .await;
    assert_eq!(alive.json()["result"]["TTL"], "30");
    let all = ok(&member, "/v3/kv/range", service.clone()).await;
    assert_eq!(all["count"], "2");
    // A replica waits for the leader key to go.
    let mut create = service.clone();
    create["start_revision"] = "4".into();
    create["filters"] = json!(["NOPUT"]);
    let create = json!({"create_request": create}).to_string();
    let mut watch = open(&member, "/v3/watch", &[], &create).await;
    assert_eq!(watch.line().await["result"]["created"], true);
    let update = json!({
        "compare": [{"key": leader, "target": "MOD", "mod_revision": "3"}],
        "success": [{"request_put": {"key": leader, "value": b64("a"), "lease": lease}}],
    });
    assert_eq!(
        ok(&member, "/v3/kv/txn", update.clone()).await["succeeded"],
        true
    );
    assert_eq!(
        ok(&member, "/v3/kv/txn", update).await.get("succeeded"),
        None
    );
    let gone = ok(&member, "/v3/kv/deleterange", json!({"key": leader})).await;
    assert_eq!(gone["deleted"], "1");
    let event = &watch.line().await["result"]["events"][0];
    assert_eq!(
        (&event["type"], &event["kv"]["key"]),
        (&json!("DELETE"), &json!(leader))
    );
    ok(&member, "/v3/lease/revoke", json!({"ID": lease})).await;
    // No TTL: it knows from that that its lease has ended.
    let alive = post(
        &member,
        "/v3/lease/keepalive",
        &json!({"ID": lease}).to_string(),
    )
    .await;
    assert_eq!(alive.json()["result"].get("TTL"), None);
    let put = json!({"key": leader, "value": b64("a"), "lease": lease});
    assert_eq!(
        call(&member, "/v3/kv/put", put).await,
        (404, json!({"code": 5, "message": LEASE_NOT_FOUND}))
    );
}

/// APISIX: its tree read at once, then watched from the next revision on; a full read after a compaction.
#[tokio::test]
async fn apisix() {
    let member = Member::start().await;
    for dir in ["routes/", "upstreams/"] {
        let put = json!({"key": b64(format!("/apisix/{dir}")), "value": b64("init_dir")});
        ok(&member, "/v3/kv/put", put).await;
    }
    let routes = json!({"key": b64("/apisix/routes/"), "range_end": b64("/apisix/routes0")});
    let read = ok(&member, "/v3/kv/range", routes.clone()).await;
    assert_eq!(
        (&read["count"], &read["header"]["revision"]),
        (&json!("1"), &json!("3"))
    );
    let mut create = routes.clone();
    create["start_revision"] = 4.into();
    let create = json!({"create_request": create}).to_string();
    let mut watch = open(&member, "/v3/watch", &[], &create).await;
    assert_eq!(watch.line().await["result"]["created"], true);
    // The admin API: camelCase, the previous value wanted.
    let key = b64("/apisix/routes/1");
    let put = json!({"key": key, "value": b64(r#"{"uri":"/a"}"#), "prevKv": true});
    let first = ok(&member, "/v3/kv/put", put.clone()).await;
    assert_eq!(first.get("prev_kv"), None);
    let second = ok(&member, "/v3/kv/put", put).await;
    assert_eq!(second["prev_kv"]["value"], b64(r#"{"uri":"/a"}"#));
    let swap = json!({
        "compare": [{"key": key, "target": "MOD", "result": "EQUAL", "modRevision": "5"}],
        "success": [{"requestPut": {"key": key, "value": b64("{}")}}],
        "failure": [],
    });
    let swapped = ok(&member, "/v3/kv/txn", swap).await;
    assert_eq!(swapped["succeeded"], true);
    for revision in ["4", "5", "6"] {
        let line = watch.line().await;
        assert_eq!(line["result"]["header"]["revision"], revision);
        assert_eq!(line["result"]["events"][0]["kv"]["mod_revision"], revision);
    }
    let delete = json!({"key": key, "prevKv": true});
    let deleted = ok(&member, "/v3/kv/deleterange", delete.clone()).await;
    assert_eq!(
        (&deleted["deleted"], &deleted["prev_kvs"][0]["version"]),
        (&json!("1"), &json!("3"))
    );
    assert_eq!(
        ok(&member, "/v3/kv/deleterange", delete)
            .await
            .get("deleted"),
        None
    );
    assert_eq!(watch.line().await["result"]["events"][0]["type"], "DELETE");
    watch.leave();
    // It was away for too long.
    ok(&member, "/v3/kv/compaction", json!({"revision": "7"})).await;
    let mut watch = open(&member, "/v3/watch", &[], &create).await;
    assert_eq!(watch.line().await["result"]["created"], true);
    let compacted = masked(watch.line().await);
    assert_eq!(compacted["result"]["compact_revision"], "7");
    assert_eq!(compacted["result"]["canceled"], true);
    assert_eq!(ok(&member, "/v3/kv/range", routes).await["count"], "1");
}
