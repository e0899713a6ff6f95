//! TLS of the client port, with the client library.

use std::path::Path;
use std::time::Duration;

use ferrite_client::{
    Client, Config as ClientConfig, GetOptions, PutOptions, TlsOptions, WatchOptions,
};
use ferrite_server::Server;
use ferrite_server::config::{Config, Discovery, Url};
use ferrite_server::serve::Address;
use ferrite_test_authority::{Authority, Subject};
use ferrite_tls::{HTTP1, Info};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn urls(urls: &[&str]) -> Vec<Url> {
    urls.iter().map(|url| Url::parse(url).unwrap()).collect()
}

/// Starts a member with the certificate `server` in `dir`.
async fn start(dir: &Path, listen: &[&str], change: impl FnOnce(&mut Config)) -> Server {
    let mut config = Config {
        data_dir: dir.join("data"),
        listen_client_urls: urls(listen),
        advertise_client_urls: urls(&["https://127.0.0.1:1"]),
        listen_peer_urls: urls(&["http://127.0.0.1:0"]),
        ..Config::default()
    };
    config.client_tls.info = Info {
        cert_file: Some(dir.join("server.crt")),
        key_file: Some(dir.join("server.key")),
        trusted_ca_file: Some(dir.join("ca.crt")),
        client_cert_auth: true,
        ..Info::default()
    };
    change(&mut config);
    Server::start(config).await.unwrap()
}

fn port(server: &Server) -> u16 {
    match &server.client_addresses()[0] {
        Address::Tcp(address) => address.port(),
        Address::Unix(path) => panic!("{}", path.display()),
    }
}

/// Trusts the authority of that name, and shows `client`.
fn options(dir: &Path, authority: &str) -> TlsOptions {
    TlsOptions {
        ca_file: Some(dir.join(format!("{authority}.crt"))),
        cert_file: Some(dir.join("client.crt")),
        key_file: Some(dir.join("client.key")),
        ..TlsOptions::default()
    }
}

async fn connect(endpoint: &str, options: &TlsOptions) -> Client {
    let config = ClientConfig::new([endpoint]).tls(options.load().unwrap());
    Client::connect(config).await.unwrap()
}

/// Why an endpoint cannot be connected.
async fn failure(endpoint: &str, options: &TlsOptions) -> String {
    let client = connect(endpoint, options).await;
    loop {
        if let [error] = &client.connection_errors()[..]
            && !error.reason.is_empty()
        {
            return error.reason.clone();
        }
        tokio::task::yield_now().await;
    }
}

/// An authority, a server's certificate and a client's.
fn certificates(dir: &Path) -> Authority {
    let ca = Authority::new("ca");
    ca.write(dir);
    ca.issue(&Subject::member("server")).write(dir, "server");
    ca.issue(&Subject::client("client")).write(dir, "client");
    ca
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_all_sizes_go_through() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    certificates(dir);
    let socket = format!("unixs://{}", dir.join("socket").display());
    // Both on one port, and a socket of the system's.
    let listen = ["https://127.0.0.1:0", "http://127.0.0.1:0", &socket];
    let server = start(dir, &listen, |_| {}).await;
    let port = port(&server);
    let secure = connect(&format!("https://localhost:{port}"), &options(dir, "ca")).await;
    let mut watcher = secure
        .watch("k", WatchOptions::new().prefix())
        .await
        .unwrap();
    let value = vec![7; 1 << 20];
    for key in 0..8 {
        let key = format!("k{key}");
        secure
            .put(key, value.clone(), PutOptions::new())
            .await
            .unwrap();
    }
    let read = secure.get("k", GetOptions::new().prefix()).await.unwrap();
    assert!(read.kvs.len() == 8 && read.kvs.iter().all(|pair| pair.value == value));
    let mut seen = 0;
    while seen < 8 {
        seen += watcher.next().await.unwrap().events.len();
    }
    // Many at once, on one connection.
    let gets = (0..200).map(|_| {
        let secure = secure.clone();
        tokio::spawn(async move { secure.get("k3", GetOptions::new()).await })
    });
    for get in gets.collect::<Vec<_>>() {
        assert!(get.await.unwrap().unwrap().kvs[0].value == value);
    }
    for endpoint in [socket, format!("127.0.0.1:{port}")] {
        let client = connect(&endpoint, &options(dir, "ca")).await;
        assert_eq!(
            client
                .get("k", GetOptions::new().prefix().count_only())
                .await
                .unwrap()
                .count,
            8
        );
    }
    let plain = ClientConfig::new([format!("http://127.0.0.1:{port}")]);
    let plain = Client::connect(plain).await.unwrap();
    assert_eq!(
        plain
            .get("k", GetOptions::new().prefix().count_only())
            .await
            .unwrap()
            .count,
        8
    );
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_refused_learns_why() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    certificates(dir);
    let server = start(dir, &["https://127.0.0.1:0"], |_| {}).await;
    let endpoint = format!("https://127.0.0.1:{}", port(&server));
    let mine = options(dir, "ca");
    let nothing = TlsOptions {
        cert_file: None,
        key_file: None,
        ..mine.clone()
    };
    let error = failure(&endpoint, &nothing).await;
    assert!(
        error.ends_with("remote error: tls: certificate required"),
        "{error}"
    );
    let other = Authority::new("other");
    other.write(dir);
    let error = failure(&endpoint, &options(dir, "other")).await;
    assert_eq!(
        error,
        "transport: authentication handshake failed: tls: failed to verify certificate: x509: certificate signed by unknown authority"
    );
    let elsewhere = TlsOptions {
        server_name: Some("else.example".to_owned()),
        ..mine
    };
    let error = failure(&endpoint, &elsewhere).await;
    assert!(
        error.ends_with("x509: certificate is valid for localhost, not else.example"),
        "{error}"
    );
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_replaced_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let ca = certificates(dir);
    let server = start(dir, &["https://127.0.0.1:0"], |config| {
        config.client_tls.info.crl_file = Some(dir.join("crl"));
    })
    .await;
    ferrite_test_authority::write(dir, "crl", &ca.revoke(&[]));
    let endpoint = format!("https://127.0.0.1:{}", port(&server));
    let before = connect(&endpoint, &options(dir, "ca")).await;
    before.put("k", "v", PutOptions::new()).await.unwrap();
    let next = Authority::new("next");
    next.write(dir);
    next.issue(&Subject::member("server")).write(dir, "server");
    let after = connect(&endpoint, &options(dir, "next")).await;
    assert_eq!(after.get("k", GetOptions::new()).await.unwrap().count, 1);
    // Connections that there are go on.
    assert_eq!(before.get("k", GetOptions::new()).await.unwrap().count, 1);
    // Revoked clients are refused from their next connection on.
    let gone = ca.issue(&Subject::client("client"));
    gone.write(dir, "client");
    ferrite_test_authority::write(dir, "crl", &ca.revoke(&[gone.serial]));
    let error = failure(&endpoint, &options(dir, "next")).await;
    assert!(!error.is_empty());
    server.stop().await.unwrap();
}

/// Starts a member of three, whose peers show the certificate of their name.
async fn member(dir: &Path, at: usize, ports: &[u16; 3]) -> Server {
    let name = |at: usize| format!("m{at}");
    let url = |at: usize| format!("https://127.0.0.1:{}", ports[at]);
    let cluster: Vec<String> = (0..3)
        .map(|at| format!("{}={}", name(at), url(at)))
        .collect();
    start(dir, &["https://127.0.0.1:0"], |config| {
        config.name = name(at);
        config.data_dir = dir.join(name(at));
        config.listen_peer_urls = urls(&[&url(at)]);
        config.advertise_peer_urls = urls(&[&url(at)]);
        config.initial_cluster = cluster.join(",");
        config.peer_tls.info = Info {
            cert_file: Some(dir.join(format!("m{at}.crt"))),
            key_file: Some(dir.join(format!("m{at}.key"))),
            trusted_ca_file: Some(dir.join("ca.crt")),
            client_cert_auth: true,
            allowed_cns: (0..3).map(name).collect(),
            crl_file: Some(dir.join("crl")),
            ..Info::default()
        };
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_replace_their_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let ca = certificates(dir);
    let issue = |at: usize| {
        let pair = ca.issue(&Subject::member(&format!("m{at}")));
        pair.write(dir, &format!("m{at}"));
        pair.serial
    };
    let old: Vec<u64> = (0..3).map(issue).collect();
    ferrite_test_authority::write(dir, "crl", &ca.revoke(&[]));
    let probes = [0; 3].map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let ports = probes
        .each_ref()
        .map(|probe| probe.local_addr().unwrap().port());
    drop(probes);
    let starting = (0..3).map(|at| {
        let dir = dir.to_owned();
        tokio::spawn(async move { member(&dir, at, &ports).await })
    });
    let mut servers = Vec::new();
    for starting in starting.collect::<Vec<_>>() {
        servers.push(starting.await.unwrap());
    }
    let endpoint = |server: &Server| format!("https://127.0.0.1:{}", port(server));
    let client = connect(&endpoint(&servers[0]), &options(dir, "ca")).await;
    client
        .put("before", vec![1; 1 << 20], PutOptions::new())
        .await
        .unwrap();
    // The old ones are not good for new connections any more, in either direction.
    let new: Vec<u64> = (0..3).map(issue).collect();
    assert!(old.iter().all(|serial| !new.contains(serial)));
    ferrite_test_authority::write(dir, "crl", &ca.revoke(&old));
    servers.pop().unwrap().stop().await.unwrap();
    client
        .put("meanwhile", "v", PutOptions::new())
        .await
        .unwrap();
    servers.push(member(dir, 2, &ports).await);
    let back = connect(&endpoint(&servers[2]), &options(dir, "ca")).await;
    // A linearizable read, through the others.
    let read = back.get("meanwhile", GetOptions::new()).await.unwrap();
    assert_eq!(read.kvs[0].value, "v");
    back.put("after", "v", PutOptions::new()).await.unwrap();
    for server in servers {
        server.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_name_in_a_certificate_is_a_user() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let ca = certificates(dir);
    ca.issue(&Subject::client("root")).write(dir, "client");
    let server = start(dir, &["https://127.0.0.1:0"], |_| {}).await;
    let endpoint = format!("https://127.0.0.1:{}", port(&server));
    let root = connect(&endpoint, &options(dir, "ca")).await;
    let auth = root.auth();
    auth.user_add_without_password("root").await.unwrap();
    auth.role_add("root").await.unwrap();
    auth.user_grant_role("root", "root").await.unwrap();
    auth.enable().await.unwrap();
    root.put("k", "v", PutOptions::new()).await.unwrap();
    // Over the gateway, a name does not count, so it is refused.
    let call = post(dir, port(&server), "/v3/kv/range", "{\"key\":\"aw==\"}").await;
    assert!(call.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{call}");
    assert!(
        call.contains("CommonName of client sending a request against gateway will be ignored"),
        "{call}"
    );
    let version = page(dir, port(&server), "/version", &[]).await;
    assert!(version.starts_with("HTTP/1.1 200 OK\r\n"), "{version}");
    ca.issue(&Subject::client("somebody")).write(dir, "client");
    let other = connect(&endpoint, &options(dir, "ca")).await;
    let refused = other.get("k", GetOptions::new()).await.unwrap_err();
    assert_eq!(refused.to_string(), "etcdserver: permission denied");
    ca.issue(&Subject::client("")).write(dir, "client");
    let nameless = connect(&endpoint, &options(dir, "ca")).await;
    // As with etcd, a user whom nobody knows; what needs no permission is answered.
    let refused = nameless.get("k", GetOptions::new()).await.unwrap_err();
    assert_eq!(refused.to_string(), "etcdserver: permission denied");
    assert_eq!(
        nameless
            .cluster()
            .member_list()
            .await
            .unwrap()
            .members
            .len(),
        1
    );
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_discovered_over_tls() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    certificates(dir);
    let registry = start(dir, &["https://127.0.0.1:0"], |_| {}).await;
    let endpoint = format!("https://127.0.0.1:{}", port(&registry));
    let client = connect(&endpoint, &options(dir, "ca")).await;
    let size = "/_etcd/registry/token/_config/size";
    client.put(size, "1", PutOptions::new()).await.unwrap();
    let member = start(dir, &["https://127.0.0.1:0"], |config| {
        config.data_dir = dir.join("discovered");
        config.discovery = Some(Discovery {
            token: "token".to_owned(),
            endpoints: vec![endpoint.clone()],
            dial_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(5),
            keepalive_time: Duration::from_secs(2),
            keepalive_timeout: Duration::from_secs(6),
            tls: Some(Info {
                trusted_ca_file: Some(dir.join("ca.crt")),
                cert_file: Some(dir.join("client.crt")),
                key_file: Some(dir.join("client.key")),
                ..Info::default()
            }),
        });
        config.initial_cluster = String::new();
    })
    .await;
    let members = "/_etcd/registry/token/members/";
    let registered = client
        .get(members, GetOptions::new().prefix())
        .await
        .unwrap();
    assert_eq!(registered.count, 1);
    member.stop().await.unwrap();
    registry.stop().await.unwrap();
}

/// A page over HTTP/1.1 of a TLS port, for a client that offers these protocols.
async fn page(dir: &Path, port: u16, path: &str, protocols: &[&[u8]]) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: elsewhere\r\nConnection: close\r\n\r\n");
    exchange(dir, port, &request, protocols).await
}

/// The answer to a call over the gateway.
async fn post(dir: &Path, port: u16, path: &str, body: &str) -> String {
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: elsewhere\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    exchange(dir, port, &request, &[]).await
}

async fn exchange(dir: &Path, port: u16, request: &str, protocols: &[&[u8]]) -> String {
    let info = Info {
        trusted_ca_file: Some(dir.join("ca.crt")),
        cert_file: Some(dir.join("client.crt")),
        key_file: Some(dir.join("client.key")),
        ..Info::default()
    };
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let client = info.client(protocols).unwrap();
    let mut stream = client.connect("127.0.0.1", stream).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut page = Vec::new();
    stream.read_to_end(&mut page).await.unwrap();
    String::from_utf8(page).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_served_to_every_name_and_protocol() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    certificates(dir);
    // A port that is free once the probe is gone.
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let metrics = probe.local_addr().unwrap().port();
    drop(probe);
    let server = start(dir, &["https://127.0.0.1:0"], |config| {
        config.host_whitelist = vec!["localhost".to_owned()];
        config.listen_metrics_urls = urls(&[&format!("https://127.0.0.1:{metrics}")]);
    })
    .await;
    let port = port(&server);
    for protocols in [&[][..], &[HTTP1]] {
        let page = page(dir, port, "/health", protocols).await;
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
        assert!(
            page.ends_with("{\"health\":\"true\",\"reason\":\"\"}"),
            "{page}"
        );
    }
    let version = page(dir, port, "/version", &[]).await;
    assert!(version.contains("\"etcdserver\":\"3.7.1\""), "{version}");
    let scraped = page(dir, metrics, "/metrics", &[]).await;
    assert!(scraped.contains("etcd_server_has_leader 1"), "{scraped}");
    server.stop().await.unwrap();
}
