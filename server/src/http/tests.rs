use std::future::pending;
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use ferrite_api::Error as ApiError;
use ferrite_api::pb::etcdserverpb::{AlarmMember, AlarmType};
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::*;
use crate::error::Error;
use crate::handle::Versions;

/// What a read does.
#[derive(Clone, Debug, Default)]
enum Read {
    #[default]
    Ok,
    Fails(Error),
    /// Never answers.
    Hangs,
}

impl Read {
    async fn run(&self) -> Result<(), Error> {
        match self {
            Read::Ok => Ok(()),
            Read::Fails(error) => Err(error.clone()),
            Read::Hangs => pending().await,
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Fake {
    alarms: Vec<AlarmMember>,
    no_leader: bool,
    learner: bool,
    serializable: Read,
    linearizable: Read,
    undecided: bool,
    auth: bool,
    progress: Vec<RaftProgress>,
}

impl Source for Fake {
    fn alarms(&self) -> Vec<AlarmMember> {
        self.alarms.clone()
    }

    fn leader(&self) -> u64 {
        if self.no_leader { 0 } else { 0xabc }
    }

    fn is_learner(&self) -> bool {
        self.learner
    }

    fn auth_enabled(&self) -> bool {
        self.auth
    }

    fn versions(&self) -> Versions {
        let decided = |version: &str| (!self.undecided).then(|| version.to_owned());
        Versions {
            server: "3.7.1".to_owned(),
            cluster: decided("3.7.0"),
            storage: decided("3.7.0"),
        }
    }

    fn raft_status(&self) -> RaftStatus {
        RaftStatus {
            id: 0xabc,
            term: 2,
            vote: (!self.undecided).then_some(0xabc),
            commit: 9,
            lead: self.leader(),
            state: "StateLeader",
            applied: 8,
            progress: self.progress.clone(),
            transferee: 0,
        }
    }

    async fn serializable_read(&self) -> Result<(), Error> {
        self.serializable.run().await
    }

    async fn linearizable_read(&self) -> Result<(), Error> {
        self.linearizable.run().await
    }
}

fn alarm(kind: AlarmType) -> AlarmMember {
    AlarmMember {
        member_id: 0xabc,
        alarm: kind.into(),
    }
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

fn options() -> Options {
    Options {
        request_timeout: Duration::from_secs(7),
        access: Access::new(&[], &[]),
        profiles: false,
    }
}

async fn send(router: Router, request: Request<Body>) -> Answer {
    let response = router.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

fn request(method: &str, path: &str) -> Request<Body> {
    let request = Request::builder().method(method).uri(path);
    request.body(Body::empty()).unwrap()
}

async fn get_with(source: Fake, metrics: &Arc<Metrics>, path: &str) -> Answer {
    let router = client_router(source, metrics.clone(), options(), None);
    send(router, request("GET", path)).await
}

async fn get(source: Fake, path: &str) -> Answer {
    get_with(source, &Metrics::new(Default::default()), path).await
}

const PLAIN: &str = "text/plain; charset=utf-8";

fn fails(error: ApiError) -> Read {
    Read::Fails(error.into())
}

#[tokio::test]
async fn health_of_a_healthy_member() {
    let metrics = Metrics::new(Default::default());
    for path in [
        "/health",
        "/health?serializable=true",
        "/health?exclude=NOSPACE&x=1",
    ] {
        let answer = get_with(Fake::default(), &metrics, path).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body, r#"{"health":"true","reason":""}"#);
        assert_eq!(answer.header("content-type"), PLAIN);
        assert_eq!(answer.header("x-content-type-options"), "");
    }
    assert_eq!(metrics.server.health_success.get(), 3);
    assert_eq!(metrics.server.health_failures.get(), 0);
}

#[tokio::test]
async fn health_fails_with_the_first_reason() {
    let no_space = alarm(AlarmType::Nospace);
    let corrupt = alarm(AlarmType::Corrupt);
    let odd = AlarmMember {
        member_id: 1,
        alarm: 77,
    };
    let all_wrong = Fake {
        alarms: vec![no_space, corrupt],
        no_leader: true,
        linearizable: fails(ApiError::Timeout),
        serializable: fails(ApiError::Corrupt),
        ..Fake::default()
    };
    let leaderless = Fake {
        alarms: vec![],
        ..all_wrong.clone()
    };
    let timeout = Fake {
        no_leader: false,
        ..leaderless.clone()
    };
    let odd = Fake {
        alarms: vec![odd],
        ..Fake::default()
    };
    let cases = [
        (&all_wrong, "/health", "ALARM NOSPACE"),
        (&all_wrong, "/health?exclude=NOSPACE", "ALARM CORRUPT"),
        (
            &all_wrong,
            "/health?exclude=nospace&exclude=",
            "ALARM NOSPACE",
        ),
        (
            &all_wrong,
            "/health?exclude=NOSPACE&exclude=CORRUPT",
            "RAFT NO LEADER",
        ),
        (&leaderless, "/health", "RAFT NO LEADER"),
        (&leaderless, "/health?serializable=TRUE", "RAFT NO LEADER"),
        (
            &leaderless,
            "/health?serializable=true",
            "RANGE ERROR:etcdserver: corrupt cluster",
        ),
        (
            &timeout,
            "/health",
            "RANGE ERROR:etcdserver: request timed out",
        ),
        (&odd, "/health", "ALARM UNKNOWN"),
    ];
    let metrics = Metrics::new(Default::default());
    for (source, path, reason) in &cases {
        let answer = get_with((*source).clone(), &metrics, path).await;
        assert_eq!(answer.status, 503, "{path}");
        let body = format!("{{\"health\":\"false\",\"reason\":\"{reason}\"}}\n");
        assert_eq!(answer.body, body, "{path}");
        assert_eq!(answer.header("content-type"), PLAIN);
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
    assert_eq!(metrics.server.health_failures.get(), cases.len() as u64);
}

#[tokio::test]
async fn health_gives_up_after_the_request_timeout() {
    let source = Fake {
        linearizable: Read::Hangs,
        ..Fake::default()
    };
    let options = Options {
        request_timeout: Duration::ZERO,
        ..options()
    };
    let router = client_router(source, Metrics::new(Default::default()), options, None);
    let answer = send(router, request("GET", "/health")).await;
    assert_eq!(
        answer.body,
        "{\"health\":\"false\",\"reason\":\"RANGE ERROR:context deadline exceeded\"}\n"
    );
}

#[tokio::test]
async fn livez_and_readyz_pass() {
    let readyz = "[+]data_corruption ok\n[+]non_learner ok\n[+]serializable_read ok\n[+]linearizable_read ok\nok\n";
    for (path, body) in [
        ("/livez", "ok\n"),
        ("/livez?verbose", "[+]serializable_read ok\nok\n"),
        ("/livez/serializable_read", "ok\n"),
        ("/readyz", "ok\n"),
        ("/readyz?verbose=false", readyz),
        ("/readyz/non_learner?verbose", "[+]non_learner ok\nok\n"),
        (
            "/readyz?verbose&exclude=linearizable_read&exclude=none&exclude=non_learner",
            "[+]data_corruption ok\n[+]serializable_read ok\nok\n",
        ),
        ("/livez?verbose&exclude=serializable_read", "ok\n"),
    ] {
        let answer = get(Fake::default(), path).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, body), "{path}");
        assert_eq!(answer.header("content-type"), PLAIN);
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
}

#[tokio::test]
async fn failed_checks_are_listed_and_counted() {
    let metrics = Metrics::new(Default::default());
    let source = Fake {
        alarms: vec![alarm(AlarmType::Nospace), alarm(AlarmType::Corrupt)],
        learner: true,
        linearizable: fails(ApiError::LeaderChanged),
        ..Fake::default()
    };
    let all = "[-]data_corruption failed: alarm activated: CORRUPT\n\
               [-]non_learner failed: not supported for learner\n\
               [+]serializable_read ok\n\
               [-]linearizable_read failed: etcdserver: leader changed\n\n";
    for (path, status, body) in [
        ("/readyz", 503, all),
        ("/readyz?verbose", 503, all),
        (
            "/readyz/linearizable_read",
            503,
            "[-]linearizable_read failed: etcdserver: leader changed\n\n",
        ),
        // The exclusion is for the root path only.
        (
            "/readyz/linearizable_read?exclude=linearizable_read",
            503,
            "[-]linearizable_read failed: etcdserver: leader changed\n\n",
        ),
        ("/livez", 200, "ok\n"),
        (
            "/readyz?exclude=linearizable_read&exclude=non_learner&exclude=data_corruption",
            200,
            "ok\n",
        ),
    ] {
        let answer = get_with(source.clone(), &metrics, path).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (status, body),
            "{path}"
        );
        assert_eq!(answer.header("content-type"), PLAIN);
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
    let text = get_with(source, &metrics, "/metrics").await.body;
    for line in [
        "etcd_server_healthcheck{name=\"linearizable_read\",type=\"readyz\"} 0",
        "etcd_server_healthcheck{name=\"serializable_read\",type=\"readyz\"} 1",
        "etcd_server_healthcheck{name=\"serializable_read\",type=\"livez\"} 1",
        "etcd_server_healthchecks_total{name=\"linearizable_read\",status=\"error\",type=\"readyz\"} 4",
        "etcd_server_healthchecks_total{name=\"serializable_read\",status=\"success\",type=\"readyz\"} 3",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}");
    }
}

#[tokio::test]
async fn no_space_does_not_make_a_member_unready() {
    let source = Fake {
        alarms: vec![alarm(AlarmType::Nospace)],
        ..Fake::default()
    };
    assert_eq!(get(source, "/readyz").await.status, 200);
}

#[tokio::test]
async fn version() {
    let answer = get(Fake::default(), "/version").await;
    assert_eq!(
        answer.body,
        r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}"#
    );
    assert_eq!(answer.header("content-type"), "application/json");
    let answer = get(
        Fake {
            undecided: true,
            ..Fake::default()
        },
        "/version",
    )
    .await;
    assert_eq!(
        answer.body,
        r#"{"etcdserver":"3.7.1","etcdcluster":"not_decided","storage":"unknown"}"#
    );
}

#[tokio::test]
async fn debug_vars() {
    let progress = RaftProgress {
        id: 0xabc,
        matched: 9,
        next: 10,
        state: "StateReplicate",
    };
    let source = Fake {
        progress: vec![progress],
        ..Fake::default()
    };
    let answer = get(source, "/debug/vars").await;
    assert_eq!(
        answer.header("content-type"),
        "application/json; charset=utf-8"
    );
    assert!(
        answer.body.starts_with("{\n\"cmdline\": [\""),
        "{}",
        answer.body
    );
    assert!(answer.body.ends_with("}\n}\n"), "{}", answer.body);
    assert!(answer.body.contains(",\n\"raft.status\": {\"id\":\"abc\",\"term\":2,\"vote\":\"abc\",\"commit\":9,\"lead\":\"abc\",\"raftState\":\"StateLeader\",\"applied\":8,\"progress\":{\"abc\":{\"match\":9,\"next\":10,\"state\":\"StateReplicate\"}},\"leadtransferee\":\"0\"}\n}"), "{}", answer.body);
    let parsed: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert!(parsed["file_descriptor_limit"].is_u64());
    assert!(parsed["memstats"].is_object());

    let answer = get(
        Fake {
            undecided: true,
            ..Fake::default()
        },
        "/debug/vars",
    )
    .await;
    let parsed: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(parsed["raft.status"]["progress"], serde_json::json!({}));
    assert!(parsed["raft.status"].get("vote").is_none());
}

#[tokio::test]
async fn metrics_take_any_method() {
    let metrics = Metrics::new(Default::default());
    for method in ["GET", "POST", "PATCH"] {
        let router = client_router(Fake::default(), metrics.clone(), options(), None);
        let answer = send(router, request(method, "/metrics?x=1")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.header("content-type"),
            "text/plain; version=0.0.4; charset=utf-8"
        );
        assert!(
            answer
                .body
                .contains("\netcd_server_version{server_version=\"3.7.1\"} 1\n")
        );
    }
}

#[tokio::test]
async fn metrics_are_compressed_for_who_takes_it() {
    for (accept, compressed) in [
        ("gzip", true),
        ("deflate, GZIP;q=0.5", true),
        ("gzip;q=0", false),
        ("identity", false),
        ("x-gzip", false),
    ] {
        let metrics = Metrics::new(Default::default());
        let router = client_router(Fake::default(), metrics, options(), None);
        let mut request = request("GET", "/metrics");
        let accept_encoding = accept.parse().unwrap();
        request
            .headers_mut()
            .insert("accept-encoding", accept_encoding);
        let (parts, body) = router.oneshot(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        assert_eq!(parts.headers.contains_key("content-encoding"), compressed);
        let mut text = String::new();
        match compressed {
            true => flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text),
            false => (&body[..]).read_to_string(&mut text),
        }
        .unwrap();
        assert!(text.contains("\netcd_server_version{"), "{accept}");
    }
}

#[tokio::test]
async fn wrong_methods() {
    for path in [
        "/health",
        "/livez",
        "/livez/serializable_read",
        "/readyz",
        "/readyz/non_learner",
        "/version",
        "/debug/vars",
    ] {
        for method in ["POST", "HEAD", "DELETE"] {
            let metrics = Metrics::new(Default::default());
            let router = client_router(Fake::default(), metrics.clone(), options(), None);
            let answer = send(router, request(method, path)).await;
            assert_eq!(answer.status, 405, "{method} {path}");
            assert_eq!(answer.header("allow"), "GET");
            let body = match method {
                "HEAD" => "",
                _ => "Method Not Allowed\n",
            };
            assert_eq!(answer.body, body);
            assert_eq!(answer.header("content-type"), PLAIN);
            assert_eq!(metrics.server.health_failures.get(), 0);
        }
    }
}

#[tokio::test]
async fn unknown_paths() {
    for path in [
        "/",
        "/v2/keys",
        "/v3/kv/range",
        "/v3beta/kv/range",
        "/health/",
        "/livez/linearizable_read",
        "/readyz/",
        "/readyzx",
        "/debug/pprof/",
        "/members",
    ] {
        let answer = get(Fake::default(), path).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (404, "404 page not found\n"),
            "{path}"
        );
        assert_eq!(answer.header("content-type"), PLAIN);
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
}

#[tokio::test]
async fn unclean_paths_are_redirected() {
    let answer = get(Fake::default(), "//health?a=1&b=2").await;
    assert_eq!(answer.status, 307);
    assert_eq!(answer.header("location"), "/health?a=1&b=2");
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(
        answer.body,
        "<a href=\"/health?a=1&amp;b=2\">Temporary Redirect</a>.\n\n"
    );
    let router = client_router(
        Fake::default(),
        Metrics::new(Default::default()),
        options(),
        None,
    );
    let answer = send(router, request("POST", "/a/../b")).await;
    assert_eq!(
        (
            answer.status,
            answer.header("location"),
            answer.body.as_str()
        ),
        (307, "/b", "")
    );
}

#[tokio::test]
async fn options_is_answered_everywhere() {
    for path in ["/health", "/none", "/v3/kv/range"] {
        let router = client_router(
            Fake::default(),
            Metrics::new(Default::default()),
            options(),
            None,
        );
        let answer = send(router, request("OPTIONS", path)).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
    }
}

#[tokio::test]
async fn cross_origin_headers() {
    let origins = ["http://a:1".to_owned(), "http://b:1".to_owned()];
    for (allowed, origin, expected) in [
        (&[][..], "", "*"),
        (&["*".to_owned()], "http://x:1", "*"),
        (&origins, "http://b:1", "http://b:1"),
        (&origins, "http://x:1", ""),
        (&origins, "", ""),
    ] {
        let options = Options {
            access: Access::new(allowed, &[]),
            ..options()
        };
        let router = client_router(
            Fake::default(),
            Metrics::new(Default::default()),
            options,
            None,
        );
        let mut request = request("GET", "/none");
        if !origin.is_empty() {
            request
                .headers_mut()
                .insert("origin", origin.parse().unwrap());
        }
        let answer = send(router, request).await;
        // Whatever the origin, the request is served.
        assert_eq!(answer.status, 404);
        assert_eq!(answer.header("access-control-allow-origin"), expected);
        let others = if expected.is_empty() {
            ("", "")
        } else {
            (
                "POST, GET, OPTIONS, PUT, DELETE",
                "accept, content-type, authorization",
            )
        };
        let found = (
            answer.header("access-control-allow-methods"),
            answer.header("access-control-allow-headers"),
        );
        assert_eq!(found, others);
    }
}

#[tokio::test]
async fn host_names() {
    let whitelist = ["good".to_owned(), "::1".to_owned()];
    for (allowed, host, served) in [
        (&[][..], "evil:2379", true),
        (&["*".to_owned()], "evil:2379", true),
        (&whitelist, "good:2379", true),
        (&whitelist, "good", true),
        (&whitelist, "[::1]:2379", true),
        (&whitelist, "localhost:2379", false),
        (&whitelist, "good.evil:2379", false),
    ] {
        let options = Options {
            access: Access::new(&[], allowed),
            ..options()
        };
        let metrics = Metrics::new(Default::default());
        let router = client_router(Fake::default(), metrics, options.clone(), None);
        let mut by_header = request("GET", "/version");
        by_header
            .headers_mut()
            .insert("host", host.parse().unwrap());
        let answer = send(router.clone(), by_header).await;
        // HTTP/2 has the name in the authority.
        let by_authority = send(router, request("GET", &format!("http://{host}/version"))).await;
        assert_eq!(answer.status, by_authority.status);
        if served {
            assert_eq!(answer.status, 200, "{host}");
            continue;
        }
        assert_eq!(answer.status, 421, "{host}");
        let name = host.split(':').next().unwrap();
        assert!(answer.body.starts_with('\n') && answer.body.ends_with(".\n\n"));
        assert!(answer.body.contains("Host header was unrecognized"));
        assert!(
            answer
                .body
                .contains(&format!("etcd --host-whitelist {name:?}"))
        );
        assert!(answer.body.contains("CVE-2018-5702"));
        assert_eq!(answer.header("access-control-allow-origin"), "");
    }
}

#[tokio::test]
async fn the_metrics_listener_serves_metrics_and_health_to_everybody() {
    let options = Options {
        access: Access::new(&["http://a:1".to_owned()], &["good".to_owned()]),
        ..options()
    };
    for (method, path, status) in [
        ("GET", "/metrics", 200),
        ("GET", "/health", 200),
        ("GET", "/livez", 200),
        ("GET", "/readyz/linearizable_read", 200),
        ("OPTIONS", "/health", 405),
        ("OPTIONS", "/none", 404),
        ("GET", "/version", 404),
        ("GET", "/debug/vars", 404),
        ("GET", "//health", 307),
    ] {
        let metrics = Metrics::new(Default::default());
        let router = metrics_router(Fake::default(), metrics, options.clone());
        let mut request = request(method, path);
        request
            .headers_mut()
            .insert("host", "evil".parse().unwrap());
        let answer = send(router, request).await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.header("access-control-allow-origin"), "");
    }
}

#[test]
fn options_come_from_the_configuration() {
    let options = Options::from(&Config::default());
    let everything = ["*".to_owned()];
    assert_eq!(options.request_timeout, Duration::from_secs(7));
    assert_eq!(options.access, Access::new(&everything, &everything));
}

#[tokio::test]
async fn profiles_are_there_where_they_are_switched_on() {
    let paths = [
        ("/debug/pprof", 307),
        ("/debug/pprof/", 200),
        ("/debug/pprof/cmdline", 200),
        ("/debug/pprof/heap", 404),
    ];
    for (path, status) in paths {
        for profiles in [false, true] {
            let options = Options {
                profiles,
                ..options()
            };
            let metrics = Metrics::new(Default::default());
            let router = client_router(Fake::default(), metrics.clone(), options.clone(), None);
            let answer = send(router, request("GET", path)).await;
            let expected = if profiles { status } else { 404 };
            assert_eq!(answer.status, expected, "{path}");
            let router = metrics_router(Fake::default(), metrics, options);
            let answer = send(router, request("GET", path)).await;
            assert_eq!(answer.status, 404, "{path} is for clients only");
        }
    }
}
