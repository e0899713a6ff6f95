//! Who may do what while authentication is on: section 1.4 of spec validation.md, for every RPC.

use bytes::Bytes;
use ferrite_api::pb::authpb::permission::Type;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::etcdserverpb::lease_client::LeaseClient;
use ferrite_api::pb::etcdserverpb::watch_client::WatchClient;
use ferrite_api::pb::etcdserverpb::watch_request::RequestUnion;
use tokio_stream::StreamExt;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};

use crate::auth::{DENIED, INVALID_TOKEN, OLD_REVISION, USER_EMPTY, with};
use crate::json_client::send;
use crate::support::*;

/// What an RPC asks of its caller.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Asks {
    Nothing,
    AnyUser,
    /// Any user, of whom it then asks more than `u` has.
    Permission,
    Root,
    /// Nothing that `u` does not have; but somebody.
    Own,
}

use Asks::{AnyUser, Nothing, Own, Permission, Root};

/// Every RPC that the gateway has, but for streams, with a request that changes little.
const CALLS: &[(&str, &str, Asks)] = &[
    ("kv/range", r#"{"key":"YQ=="}"#, Permission),
    ("kv/put", r#"{"key":"YQ=="}"#, Permission),
    ("kv/deleterange", r#"{"key":"YQ=="}"#, Permission),
    (
        "kv/txn",
        r#"{"success":[{"requestPut":{"key":"YQ=="}}]}"#,
        Permission,
    ),
    (
        "kv/txn",
        r#"{"success":[{"requestRange":{"key":"YQ=="}}]}"#,
        Permission,
    ),
    ("kv/compaction", r#"{"revision":"1"}"#, Root),
    ("lease/grant", r#"{"TTL":"60"}"#, AnyUser),
    ("lease/revoke", r#"{"ID":"9"}"#, AnyUser),
    ("lease/timetolive", r#"{"ID":"7"}"#, AnyUser),
    ("lease/timetolive", r#"{"ID":"7","keys":true}"#, Permission),
    ("lease/leases", "{}", Permission),
    ("lease/revoke", r#"{"ID":"7"}"#, Permission),
    (
        "cluster/member/add",
        r#"{"peerURLs":["http://127.0.0.1:1"],"isLearner":true}"#,
        Root,
    ),
    ("cluster/member/remove", r#"{"ID":"9"}"#, Root),
    ("cluster/member/update", r#"{"ID":"9"}"#, Root),
    ("cluster/member/promote", r#"{"ID":"9"}"#, Root),
    ("cluster/member/list", "{}", AnyUser),
    ("cluster/member/list", r#"{"linearizable":true}"#, AnyUser),
    ("maintenance/alarm", "{}", AnyUser),
    ("maintenance/alarm", r#"{"action":"ACTIVATE"}"#, Root),
    (
        "maintenance/alarm",
        r#"{"action":"DEACTIVATE","alarm":"NOSPACE"}"#,
        Root,
    ),
    ("maintenance/status", "{}", AnyUser),
    ("maintenance/defragment", "{}", Root),
    ("maintenance/hash", "{}", Root),
    ("maintenance/hashkv", "{}", Root),
    ("maintenance/snapshot", "{}", Root),
    (
        "maintenance/transfer-leadership",
        r#"{"targetID":"9"}"#,
        Root,
    ),
    ("maintenance/downgrade", r#"{"action":"CANCEL"}"#, Root),
    ("auth/status", "{}", Nothing),
    (
        "auth/authenticate",
        r#"{"name":"u","password":"u-pw"}"#,
        Nothing,
    ),
    ("auth/enable", "{}", Root),
    ("auth/user/add", r#"{"name":"x"}"#, Root),
    ("auth/user/get", r#"{"name":"u"}"#, Own),
    ("auth/user/get", r#"{"name":"root"}"#, Root),
    ("auth/user/list", "{}", Root),
    ("auth/user/changepw", r#"{"name":"x"}"#, Root),
    ("auth/user/grant", r#"{"user":"x","role":"r"}"#, Root),
    ("auth/user/revoke", r#"{"name":"x","role":"r"}"#, Root),
    ("auth/user/delete", r#"{"name":"x"}"#, Root),
    ("auth/role/add", r#"{"name":"x"}"#, Root),
    ("auth/role/get", r#"{"role":"r"}"#, Own),
    ("auth/role/get", r#"{"role":"x"}"#, Root),
    ("auth/role/list", "{}", Root),
    (
        "auth/role/grant",
        r#"{"name":"x","perm":{"key":"YQ=="}}"#,
        Root,
    ),
    ("auth/role/revoke", r#"{"role":"x","key":"YQ=="}"#, Root),
    ("auth/role/delete", r#"{"role":"x"}"#, Root),
    ("lock/lock", r#"{"name":"YQ=="}"#, Permission),
    ("lock/unlock", r#"{"key":"YQ=="}"#, Permission),
    ("election/campaign", r#"{"name":"YQ=="}"#, Permission),
    (
        "election/proclaim",
        r#"{"leader":{"name":"YQ==","key":"YQ=="}}"#,
        Permission,
    ),
    ("election/leader", r#"{"name":"YQ=="}"#, Permission),
    (
        "election/resign",
        r#"{"leader":{"name":"YQ==","key":"YQ=="}}"#,
        Permission,
    ),
    ("auth/disable", "{}", Root),
];

#[tokio::test]
async fn s1_4_every_rpc_asks_who_calls() {
    let member = Member::start().await;
    let (root, user) = member.guarded().await;
    let mut leases = LeaseClient::new(member.channel.clone());
    let lease = pb::LeaseGrantRequest { id: 7, ttl: 600 };
    leases.lease_grant(with(&root, lease)).await.unwrap();
    let attached = pb::PutRequest {
        lease: 7,
        ..put("secret", "1")
    };
    member.kv().put(with(&root, attached)).await.unwrap();
    for (path, body, asks) in CALLS {
        let url = format!("/v3/{path}");
        let says = |token: &str| {
            let (member, url, token) = (&member, &url, token.to_owned());
            async move {
                let header = [("Authorization", token.as_str())];
                let headers = if token.is_empty() {
                    &[][..]
                } else {
                    &header[..]
                };
                send(member, "POST", url, headers, body).await.text
            }
        };
        let (nobody, unknown, by_user) = (says("").await, says("x.1").await, says(&user).await);
        let is = |text: &str, error: &str| text.contains(error);
        let open = *asks == Nothing;
        assert_eq!(!is(&nobody, USER_EMPTY), open, "{path} {body}: {nobody}");
        // The status may be asked for without a token, but not with one that is none.
        let tokenless = *path == "auth/authenticate";
        assert_eq!(
            !is(&unknown, INVALID_TOKEN),
            tokenless,
            "{path} {body}: {unknown}"
        );
        let denied = matches!(asks, Permission | Root);
        assert_eq!(is(&by_user, DENIED), denied, "{path} {body}: {by_user}");
        let by_root = says(&root).await;
        for refusal in [USER_EMPTY, DENIED, INVALID_TOKEN, OLD_REVISION] {
            assert!(!is(&by_root, refusal), "{path} {body}: {by_root}");
        }
    }
}

#[tokio::test]
async fn s1_2_2_which_credentials_count() {
    let member = Member::start().await;
    let (root, user) = member.guarded().await;
    let ask = |headers: &[(&'static str, String)]| {
        let mut request = Request::new(get("a"));
        for (name, value) in headers {
            let value = MetadataValue::try_from(value.as_str()).unwrap();
            request.metadata_mut().append(*name, value);
        }
        let mut kv = member.kv();
        async move { kv.range(request).await }
    };
    let token = |value: &str| ("token", value.to_owned());
    let authorization = |value: &str| ("authorization", value.to_owned());
    ask(&[token(&root)]).await.unwrap();
    ask(&[authorization(&root)]).await.unwrap();
    ask(&[authorization(&format!("Bearer {root}"))])
        .await
        .unwrap();
    ask(&[token(&format!("Bearer {root}"))]).await.unwrap();
    // The first that is there counts, good or not.
    let user_first = ask(&[authorization(&root), token(&user)]).await;
    refused(user_first, Code::PermissionDenied, DENIED);
    let bad_first = ask(&[token("x.1"), token(&root), authorization(&root)]).await;
    refused(bad_first, Code::Unauthenticated, INVALID_TOKEN);
    for none in [
        format!("bearer {root}"),
        format!("Bearer  {root}"),
        root[1..].to_owned(),
        "x".to_owned(),
    ] {
        let unknown = ask(&[authorization(&none)]).await;
        refused(unknown, Code::Unauthenticated, INVALID_TOKEN);
    }
    refused(ask(&[]).await, Code::InvalidArgument, USER_EMPTY);
    // Nobody waits for an entry that will never come.
    let unknown = ask(&[token("abcdefghijklmnop.9999999")]).await;
    refused(unknown, Code::Unauthenticated, INVALID_TOKEN);
}

#[tokio::test]
async fn s1_2_5_faults_of_the_request_come_before_permissions() {
    let member = Member::start().await;
    let (_, user) = member.guarded().await;
    let code = Code::InvalidArgument;
    refused(
        member.kv().put(with(&user, put("", ""))).await,
        code,
        EMPTY_KEY,
    );
    refused(
        member.kv().range(with("x.1", get(""))).await,
        code,
        EMPTY_KEY,
    );
    // Permissions come before what the store would say.
    let future = pb::RangeRequest {
        revision: 99,
        ..get("a")
    };
    refused(
        member.kv().range(with(&user, future)).await,
        Code::PermissionDenied,
        DENIED,
    );
    let no_lease = pb::PutRequest {
        lease: 99,
        ..put("a", "")
    };
    refused(
        member.kv().put(with(&user, no_lease)).await,
        Code::PermissionDenied,
        DENIED,
    );
}

#[tokio::test]
async fn s4_1_5_s4_3_8_s4_4_4_what_a_user_may_do_with_keys() {
    let member = Member::start().await;
    let (root, user) = member.guarded().await;
    let mut kv = member.kv();
    kv.put(with(&root, put("a", "1"))).await.unwrap();
    kv.put(with(&root, put("x", "secret"))).await.unwrap();
    let code = Code::PermissionDenied;
    refused(kv.range(with(&user, get("a"))).await, code, DENIED);
    // At once, with the token that the user has.
    member.permit(&root, "r", Type::Read, "a", "c").await;
    let found = kv.range(with(&user, get("a"))).await.unwrap().into_inner();
    assert_eq!(found.kvs[0].value, "1");
    kv.range(with(&user, range("a", "c"))).await.unwrap();
    for (key, end) in [("a", "d"), ("a", "\0"), ("\0", "\0"), ("x", "")] {
        refused(kv.range(with(&user, range(key, end))).await, code, DENIED);
        let serializable = pb::RangeRequest {
            serializable: true,
            ..range(key, end)
        };
        refused(kv.range(with(&user, serializable)).await, code, DENIED);
    }
    refused(kv.put(with(&user, put("a", "2"))).await, code, DENIED);
    member.permit(&root, "r", Type::Write, "a", "").await;
    member.permit(&root, "r", Type::Write, "d", "").await;
    let with_previous = |key: &str| pb::PutRequest {
        prev_kv: true,
        ..put(key, "2")
    };
    kv.put(with(&user, with_previous("a"))).await.unwrap();
    kv.put(with(&user, put("d", "2"))).await.unwrap();
    refused(kv.put(with(&user, with_previous("d"))).await, code, DENIED);
    let deleted = |key: &str, prev_kv| pb::DeleteRangeRequest {
        prev_kv,
        ..delete(key, "")
    };
    refused(
        kv.delete_range(with(&user, deleted("d", true))).await,
        code,
        DENIED,
    );
    kv.delete_range(with(&user, deleted("d", false)))
        .await
        .unwrap();
    refused(
        kv.delete_range(with(&user, delete("a", "b"))).await,
        code,
        DENIED,
    );
    // Until it is taken away.
    let revoke = pb::AuthRoleDeleteRequest {
        role: "r".to_owned(),
    };
    member
        .auth()
        .role_delete(with(&root, revoke))
        .await
        .unwrap();
    refused(kv.range(with(&user, get("a"))).await, code, DENIED);
}

#[tokio::test]
async fn s4_5_5_a_txn_needs_all_that_is_in_it() {
    use crate::txn::{get_op, put_op, then};
    let member = Member::start().await;
    let (root, user) = member.guarded().await;
    member.permit(&root, "r", Type::Readwrite, "a", "").await;
    let mut kv = member.kv();
    kv.txn(with(&user, then(vec![put_op("a", "1"), get_op("a")])))
        .await
        .unwrap();
    let other_branch = pb::TxnRequest {
        failure: vec![put_op("x", "1")],
        ..then(vec![get_op("a")])
    };
    for denied in [
        then(vec![get_op("x")]),
        then(vec![put_op("a", "1"), get_op("x")]),
        other_branch,
    ] {
        let answer = kv.txn(with(&user, denied)).await;
        refused(answer, Code::PermissionDenied, DENIED);
    }
    let found = kv.range(with(&user, get("a"))).await.unwrap().into_inner();
    assert_eq!(found.kvs[0].version, 1, "what is refused changes nothing");
}

/// The first response to a watch.
async fn watch(
    member: &Member,
    token: &str,
    key: &str,
    end: &str,
    revision: i64,
) -> pb::WatchResponse {
    let create = pb::WatchCreateRequest {
        key: Bytes::from(key.to_owned()),
        range_end: Bytes::from(end.to_owned()),
        start_revision: revision,
        ..Default::default()
    };
    let request = pb::WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    };
    let requests = tokio_stream::iter([request]).chain(tokio_stream::pending());
    let mut client = WatchClient::new(member.channel.clone());
    let stream = client.watch(with(token, requests)).await.unwrap();
    stream.into_inner().message().await.unwrap().unwrap()
}

#[tokio::test]
async fn s5_3_a_watch_needs_to_read_what_it_wants_to_see() {
    let member = Member::start().await;
    let (root, user) = member.guarded().await;
    member.permit(&root, "r", Type::Read, "a", "c").await;
    for (key, end) in [("a", ""), ("a", "c")] {
        let created = watch(&member, &user, key, end, 0).await;
        assert!(created.created && !created.canceled, "{created:?}");
    }
    let denied = format!("rpc error: code = PermissionDenied desc = {DENIED}");
    let invalid = format!("rpc error: code = Unauthenticated desc = {INVALID_TOKEN}");
    let nobody = format!("rpc error: code = InvalidArgument desc = {USER_EMPTY}");
    for (token, key, end, revision, reason) in [
        (user.as_str(), "a", "d", 0, denied.as_str()),
        // Not etcd's verdict: it takes a range without an end for its first key.
        (&user, "a", "\0", 0, &denied),
        (&user, "", "\0", 0, &denied),
        (&user, "d", "", 0, &denied),
        ("x.1", "a", "", 0, &invalid),
        ("", "a", "", 0, &nobody),
        ("", "a", "", -1, COMPACTED),
        (&user, "d", "c", 0, &denied),
    ] {
        let refused = watch(&member, token, key, end, revision).await;
        assert!(refused.created && refused.canceled, "{refused:?}");
        assert_eq!(
            (refused.watch_id, refused.cancel_reason.as_str()),
            (-1, reason)
        );
        assert!(refused.header.unwrap().revision > 0);
    }
}

#[tokio::test]
async fn s6_leases_need_the_keys_that_are_attached() {
    let member = Member::start().await;
    let (root, user) = member.guarded().await;
    member.permit(&root, "r", Type::Readwrite, "a", "c").await;
    let mut leases = LeaseClient::new(member.channel.clone());
    for id in [1, 2] {
        let grant = pb::LeaseGrantRequest { id, ttl: 600 };
        leases.lease_grant(with(&user, grant)).await.unwrap();
    }
    let attach = |key: &str, lease| pb::PutRequest {
        lease,
        ..put(key, "1")
    };
    let mut kv = member.kv();
    kv.put(with(&user, attach("a", 1))).await.unwrap();
    kv.put(with(&root, attach("secret", 2))).await.unwrap();
    let code = Code::PermissionDenied;
    refused(kv.put(with(&user, attach("a", 2))).await, code, DENIED);
    let keys = |id, keys| pb::LeaseTimeToLiveRequest { id, keys };
    let found = leases
        .lease_time_to_live(with(&user, keys(1, true)))
        .await
        .unwrap();
    assert_eq!(found.into_inner().keys, ["a"]);
    leases
        .lease_time_to_live(with(&user, keys(2, false)))
        .await
        .unwrap();
    refused(
        leases.lease_time_to_live(with(&user, keys(2, true))).await,
        code,
        DENIED,
    );
    let unknown = leases
        .lease_time_to_live(with(&user, keys(9, true)))
        .await
        .unwrap();
    assert_eq!(unknown.into_inner().ttl, -1);
    let revoke = |id| pb::LeaseRevokeRequest { id };
    refused(
        leases.lease_revoke(with(&user, revoke(2))).await,
        code,
        DENIED,
    );
    refused(
        leases
            .lease_leases(with(&user, pb::LeaseLeasesRequest {}))
            .await,
        code,
        DENIED,
    );
    let keep = |token: String, id| {
        let mut leases = LeaseClient::new(member.channel.clone());
        async move {
            let requests = tokio_stream::iter([pb::LeaseKeepAliveRequest { id }]);
            let answers = leases.lease_keep_alive(with(&token, requests)).await?;
            let answer = answers.into_inner().message().await?;
            Ok::<_, Status>(tonic::Response::new(answer.expect("an answer").ttl))
        }
    };
    assert_eq!(keep(user.clone(), 1).await.unwrap().into_inner(), 600);
    assert_eq!(keep(root.clone(), 2).await.unwrap().into_inner(), 600);
    // Whether there is such a lease anybody may know.
    assert_eq!(keep(user.clone(), 9).await.unwrap().into_inner(), 0);
    refused(keep(user.clone(), 2).await, code, DENIED);
    refused(
        keep(String::new(), 1).await,
        Code::InvalidArgument,
        USER_EMPTY,
    );
    refused(
        keep("x.1".to_owned(), 1).await,
        Code::Unauthenticated,
        INVALID_TOKEN,
    );
    leases.lease_revoke(with(&root, revoke(2))).await.unwrap();
    leases
        .lease_leases(with(&user, pb::LeaseLeasesRequest {}))
        .await
        .unwrap();
    leases.lease_revoke(with(&user, revoke(1))).await.unwrap();
}

/// The member's own revocations are nobody's in particular.
#[tokio::test]
async fn s6_leases_end_while_authentication_is_on() {
    let member = Member::start().await;
    let (root, _) = member.guarded().await;
    let mut leases = LeaseClient::new(member.channel.clone());
    let grant = pb::LeaseGrantRequest { id: 1, ttl: 1 };
    leases.lease_grant(with(&root, grant)).await.unwrap();
    let attached = pb::PutRequest {
        lease: 1,
        ..put("secret", "1")
    };
    member.kv().put(with(&root, attached)).await.unwrap();
    let patience = std::time::Duration::from_secs(30);
    let gone = async {
        while !member
            .kv()
            .range(with(&root, get("secret")))
            .await
            .unwrap()
            .into_inner()
            .kvs
            .is_empty()
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(patience, gone)
        .await
        .expect("the lease ends");
}

#[tokio::test]
async fn s4_2_6_a_stream_is_checked_first_and_last() {
    let member = Member::start().await;
    let (root, user) = member.guarded().await;
    let code = Code::PermissionDenied;
    let stream = member.kv().range_stream(with(&user, range("a", "z"))).await;
    refused(stream, code, DENIED);
    member.permit(&root, "r", Type::Readwrite, "a", "z").await;
    // More than what the server sends before the client reads.
    let value = "v".repeat(200_000);
    for key in 0..60 {
        let pair = put(&format!("k{key:02}"), &value);
        member.kv().put(with(&user, pair)).await.unwrap();
    }
    let stream = member.kv().range_stream(with(&user, range("a", "z"))).await;
    let mut stream = stream.unwrap().into_inner();
    stream.message().await.unwrap().expect("the first pairs");
    member.user_add(&root, "v").await;
    let mut pairs = 0;
    let end = loop {
        match stream.message().await {
            Ok(Some(message)) => pairs += message.range_response.unwrap().kvs.len(),
            Ok(None) => panic!("the stream ends well"),
            Err(status) => break status,
        }
    };
    assert_eq!(
        (end.code(), end.message()),
        (Code::InvalidArgument, OLD_REVISION)
    );
    assert!(pairs > 40, "all of it was sent before");
}

/// Probes of the machinery around carry no token.
#[tokio::test]
async fn s1_4_health_is_for_everybody() {
    let member = Member::start().await;
    member.guarded().await;
    for path in ["/health", "/livez", "/readyz", "/version", "/metrics"] {
        let answer = send(&member, "GET", path, &[], "").await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    }
}
