//! Clusters of real processes: how members begin, join, leave, and are refused.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ferrite_api::pb::etcdserverpb as pb;
use prost::Message;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};

use crate::process::{Running, assert_one_error, etcd, free_port, run};

/// Keeps a test that fails from hanging.
const PATIENCE: Duration = Duration::from_secs(120);

/// One member's place: ports, directory, name.
pub(crate) struct Place {
    pub(crate) name: String,
    client: u16,
    pub(crate) peer: String,
    dir: PathBuf,
}

impl Place {
    pub(crate) fn new(dir: &Path, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            client: free_port(),
            peer: format!("http://127.0.0.1:{}", free_port()),
            dir: dir.join(name),
        }
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// As it stands in `--initial-cluster`.
    pub(crate) fn entry(&self) -> String {
        format!("{}={}", self.name, self.peer)
    }

    /// The program, which has not been told yet how to find its cluster.
    pub(crate) fn command(&self) -> Command {
        let client = format!("http://127.0.0.1:{}", self.client);
        std::fs::create_dir_all(&self.dir).unwrap();
        let mut command = etcd();
        command
            .args(["--name", &self.name, "--data-dir"])
            .arg(self.data())
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &self.peer])
            .args(["--initial-advertise-peer-urls", &self.peer])
            .args(["--heartbeat-interval=20", "--election-timeout=200"]);
        command
    }

    /// Begins to run; see [`Place::serves`].
    pub(crate) fn begin(&self, args: &[&str]) -> Running {
        let mut command = self.command();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .unwrap();
        Running(command.args(args).stderr(log).spawn().unwrap())
    }

    /// Waits until the log says something for the `times`th time.
    pub(crate) fn says(&self, running: &mut Running, text: &str, times: usize) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = std::fs::read_to_string(self.log()).unwrap();
            if log.matches(text).count() >= times {
                return;
            }
            assert!(running.0.try_wait().unwrap().is_none(), "it ended: {log}");
            assert!(Instant::now() < deadline, "it does not say {text}: {log}");
            std::thread::yield_now();
        }
    }

    pub(crate) fn serves(&self, running: &mut Running, times: usize) {
        self.says(running, "serving client traffic", times);
    }

    /// Waits until it has ended, and gives its exit code and its log.
    fn ended(&self, running: &mut Running) -> (Option<i32>, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = running.0.try_wait().unwrap() {
                return (status.code(), std::fs::read_to_string(self.log()).unwrap());
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::yield_now();
        }
    }

    pub(crate) async fn client(&self) -> Client {
        let url = format!("http://127.0.0.1:{}", self.client);
        Client {
            channel: Endpoint::new(url).unwrap().connect().await.unwrap(),
            token: None,
            insists: false,
        }
    }
}

/// Calls to one member.
pub(crate) struct Client {
    channel: Channel,
    pub(crate) token: Option<String>,
    /// Whether calls are refused while there is no leader.
    insists: bool,
}

impl Client {
    /// Calls to the same member with a token.
    pub(crate) fn with_token(&self, token: &str) -> Client {
        Client {
            channel: self.channel.clone(),
            token: Some(token.to_owned()),
            insists: self.insists,
        }
    }

    /// Calls to the same member that are refused while it knows no leader.
    pub(crate) fn insisting_on_a_leader(&self) -> Client {
        Client {
            channel: self.channel.clone(),
            token: self.token.clone(),
            insists: true,
        }
    }

    pub(crate) async fn call<Q, A>(
        &self,
        path: &'static str,
        request: Q,
    ) -> Result<A, tonic::Status>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.unwrap();
        let request = self.request(request);
        let codec = tonic_prost::ProstCodec::default();
        let path = http::uri::PathAndQuery::from_static(path);
        let answer = grpc.unary(request, path, codec).await?;
        Ok(answer.into_inner())
    }

    fn request<Q>(&self, message: Q) -> tonic::Request<Q> {
        let mut request = tonic::Request::new(message);
        request.set_timeout(PATIENCE);
        let metadata = request.metadata_mut();
        if let Some(token) = &self.token {
            metadata.insert("token", token.parse().unwrap());
        }
        if self.insists {
            metadata.insert("hasleader", "true".parse().unwrap());
        }
        request
    }

    /// Renews a lease once: the time that it has again.
    pub(crate) async fn keep_alive(&self, id: i64) -> Result<i64, tonic::Status> {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.unwrap();
        let requests = tokio_stream::iter([pb::LeaseKeepAliveRequest { id }]);
        let codec: tonic_prost::ProstCodec<_, pb::LeaseKeepAliveResponse> =
            tonic_prost::ProstCodec::default();
        let path = "/etcdserverpb.Lease/LeaseKeepAlive";
        let path = http::uri::PathAndQuery::from_static(path);
        let answers = grpc.streaming(self.request(requests), path, codec).await?;
        let answer = answers.into_inner().message().await?;
        Ok(answer.expect("an answer for each request").ttl)
    }

    pub(crate) async fn put(&self, key: &str, value: &str) {
        let request = pb::PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..pb::PutRequest::default()
        };
        let _: pb::PutResponse = self.call("/etcdserverpb.KV/Put", request).await.unwrap();
    }

    /// The value of a key, read linearizably.
    pub(crate) async fn get(&self, key: &str) -> Option<String> {
        let request = pb::RangeRequest {
            key: key.to_owned().into(),
            ..pb::RangeRequest::default()
        };
        let answer: pb::RangeResponse = self.call("/etcdserverpb.KV/Range", request).await.unwrap();
        let kv = answer.kvs.first()?;
        Some(String::from_utf8(kv.value.to_vec()).unwrap())
    }

    pub(crate) async fn members(&self) -> Vec<pb::Member> {
        let request = pb::MemberListRequest { linearizable: true };
        let path = "/etcdserverpb.Cluster/MemberList";
        let answer: pb::MemberListResponse = self.call(path, request).await.unwrap();
        answer.members
    }

    /// Adds a member: tried until the cluster holds itself healthy.
    pub(crate) async fn add(&self, peer: &str) -> u64 {
        let request = pb::MemberAddRequest {
            peer_ur_ls: vec![peer.to_owned()],
            is_learner: false,
        };
        let answer: pb::MemberAddResponse = self
            .settled("/etcdserverpb.Cluster/MemberAdd", request)
            .await;
        answer.member.unwrap().id
    }

    async fn remove(&self, id: u64) {
        let request = pb::MemberRemoveRequest { id };
        let path = "/etcdserverpb.Cluster/MemberRemove";
        let _: pb::MemberRemoveResponse = self.settled(path, request).await;
    }

    /// Calls until members have been connected for long enough.
    async fn settled<Q, A>(&self, path: &'static str, request: Q) -> A
    where
        Q: Message + Default + Clone + 'static,
        A: Message + Default + 'static,
    {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.call(path, request.clone()).await {
                Ok(answer) => return answer,
                Err(status) => {
                    let unhealthy = status.code() == tonic::Code::Unavailable;
                    assert!(unhealthy && Instant::now() < deadline, "{status}");
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

/// Members that have begun a cluster together and serve.
pub(crate) fn begin_cluster(places: &[Place]) -> (Vec<Running>, String) {
    begin_cluster_with(places, &[])
}

/// As [`begin_cluster`], with further flags.
pub(crate) fn begin_cluster_with(places: &[Place], flags: &[&str]) -> (Vec<Running>, String) {
    let cluster: Vec<String> = places.iter().map(Place::entry).collect();
    let cluster = cluster.join(",");
    let mut running: Vec<Running> = places
        .iter()
        .map(|place| place.begin(&[&["--initial-cluster", &cluster], flags].concat()))
        .collect();
    for (place, running) in places.iter().zip(&mut running) {
        place.serves(running, 1);
    }
    (running, cluster)
}

/// A member that has no data and joins is told so.
pub(crate) const EXISTING: [&str; 2] = ["--initial-cluster-state=existing", "--initial-cluster"];

#[tokio::test(flavor = "multi_thread")]
async fn three_members_begin_a_cluster_and_one_leaves_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let places = ["a", "b", "c"].map(|name| Place::new(dir.path(), name));
    let [first, _, last] = &places;
    let (mut running, cluster) = begin_cluster(&places);
    let client = first.client().await;
    client.put("k", "v").await;
    assert_eq!(last.client().await.get("k").await.as_deref(), Some("v"));
    let members = client.members().await;
    let mut names: Vec<&str> = members.iter().map(|member| &*member.name).collect();
    names.sort_unstable();
    assert_eq!(names, ["a", "b", "c"]);
    let id = members.iter().find(|member| member.name == "c").unwrap().id;

    // With the data lost, nobody comes back as the member that it was.
    let mut gone = running.remove(2);
    drop(gone);
    let lost = dir.path().join("lost");
    std::fs::rename(last.data(), &lost).unwrap();
    let output = run(last.command().args(EXISTING).arg(&cluster));
    assert_one_error(&output, "remove it from the cluster and add it again");
    std::fs::rename(&lost, last.data()).unwrap();
    // With data, flags like this one do not count any more.
    gone = last.begin(&[EXISTING[0], EXISTING[1], "x=http://127.0.0.1:1"]);
    last.serves(&mut gone, 2);

    client.remove(id).await;
    let removed = "the member has been permanently removed from the cluster";
    let (code, log) = last.ended(&mut gone);
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains(removed), "{log}");
    let mut again = last.begin(&[]);
    let (code, log) = last.ended(&mut again);
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(log.matches(removed).count(), 2, "{log}");
    assert_eq!(client.members().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_the_cluster_does_not_expect_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Place::new(dir.path(), "a"), Place::new(dir.path(), "b"));
    let (_running, cluster) = begin_cluster(std::slice::from_ref(&a));
    let both = format!("{cluster},{}", b.entry());
    let output = run(b.command().args(EXISTING).arg(&both));
    assert_one_error(&output, "member count is unequal");
    assert_eq!(output.status.code(), Some(1));
    a.client().await.add(&b.peer).await;
    let wrong = format!("{cluster},b=http://127.0.0.1:1");
    let output = run(b.command().args(EXISTING).arg(&wrong));
    assert_one_error(&output, "PeerURLs: no match found for existing member");
    assert!(!b.data().join("member/wal").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_added_joins() {
    let dir = tempfile::tempdir().unwrap();
    let places = ["a", "b", "c"].map(|name| Place::new(dir.path(), name));
    let (_running, cluster) = begin_cluster(&places);
    let first = places[0].client().await;
    first.put("k", "v").await;
    let fourth = Place::new(dir.path(), "d");
    first.add(&fourth.peer).await;
    let all = format!("{cluster},{}", fourth.entry());
    let mut joined = fourth.begin(&[EXISTING[0], EXISTING[1], &all]);
    fourth.serves(&mut joined, 1);
    let client = fourth.client().await;
    assert_eq!(client.get("k").await.as_deref(), Some("v"));
    assert_eq!(client.members().await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_others_are_lost_goes_on_alone() {
    let dir = tempfile::tempdir().unwrap();
    let places = ["a", "b", "c"].map(|name| Place::new(dir.path(), name));
    let (running, cluster) = begin_cluster(&places);
    let client = places[1].client().await;
    for at in 0..20 {
        client.put(&format!("k{at}"), "v").await;
    }
    // One who answers a linearizable read has everything.
    assert!(places[0].client().await.get("k19").await.is_some());
    drop(running);
    let alone = &places[0];
    let mut running = alone.begin(&["--force-new-cluster"]);
    alone.serves(&mut running, 2);
    let client = alone.client().await;
    for at in 0..20 {
        assert!(client.get(&format!("k{at}")).await.is_some(), "k{at}");
    }
    assert_eq!(client.members().await.len(), 1);
    client.put("after", "v").await;

    // It is a cluster like any other: who was lost comes back as a new member.
    let back = Place::new(dir.path(), "d");
    client.add(&back.peer).await;
    let both = format!("{},{}", alone.entry(), back.entry());
    let mut joined = back.begin(&[EXISTING[0], EXISTING[1], &both]);
    back.serves(&mut joined, 1);
    assert!(back.client().await.get("after").await.is_some());
    // And who was removed has no place in it.
    let mut old = places[1].begin(&["--initial-cluster", &cluster]);
    let (code, log) = places[1].ended(&mut old);
    assert_eq!(code, Some(0), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_cannot_begin_or_join_say_why() {
    let dir = tempfile::tempdir().unwrap();
    let a = Place::new(dir.path(), "a");
    let b = Place::new(dir.path(), "b");
    let both = format!("{},{}", a.entry(), b.entry());
    let existing = "--initial-cluster-state=existing";
    for (args, error) in [
        (
            vec!["--initial-cluster", &both, existing],
            "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs",
        ),
        (
            vec!["--initial-cluster", "b=http://127.0.0.1:1"],
            r#"couldn't find local name \"a\" in the initial cluster configuration"#,
        ),
        (
            vec!["--initial-cluster", "a=http://127.0.0.1:1"],
            "--initial-cluster has a=http://127.0.0.1:1 but missing from --initial-advertise-peer-urls=",
        ),
        (
            vec!["--initial-cluster", &format!("{},b={}", a.entry(), a.peer)],
            "has duplicate url",
        ),
    ] {
        let output = run(a.command().args(&args));
        assert_one_error(&output, error);
        assert_one_error(&output, r#""level":"fatal""#);
        assert_one_error(&output, "discovery failed");
        assert_eq!(output.status.code(), Some(1));
        assert!(!a.data().join("member/wal").exists(), "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_has_served_does_not_begin_its_cluster_again() {
    let dir = tempfile::tempdir().unwrap();
    let places = ["a", "b"].map(|name| Place::new(dir.path(), name));
    let (mut running, cluster) = begin_cluster(&places);
    // Both are known as started when both list both.
    for place in &places {
        let members = place.client().await.members().await;
        assert!(members.iter().all(|member| !member.client_ur_ls.is_empty()));
    }
    drop(running.remove(0));
    std::fs::remove_dir_all(places[0].data()).unwrap();
    let output = run(places[0].command().args(["--initial-cluster", &cluster]));
    assert_one_error(&output, "has already been bootstrapped");
}

#[test]
fn what_was_forgotten_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(etcd()
        .arg("--data-dir")
        .arg(dir.path())
        .args([
            "--listen-client-urls=http://127.0.0.1:0",
            "--advertise-client-urls=http://a:1",
        ])
        .args(["--listen-peer-urls=http://127.0.0.1:0"])
        .args(["--initial-cluster=x=http://localhost:2380"]));
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(
        log.contains("forgot to set --initial-advertise-peer-urls?"),
        "{log}"
    );
    assert!(!log.contains("forgot to set --initial-cluster?"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_find_each_other_through_another_etcd() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Place::new(dir.path(), "registry");
    let (_running, _) = begin_cluster(std::slice::from_ref(&registry));
    let client = registry.client().await;
    let places = ["a", "b", "c"].map(|name| Place::new(dir.path(), name));
    let endpoint = format!("127.0.0.1:{}", registry.client);
    // The first endpoint does not answer.
    let endpoints = format!("127.0.0.1:1,{endpoint}");
    let args = ["--discovery-token=t", "--discovery-endpoints", &endpoints];

    let failed = |output: &std::process::Output, why: &str| {
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        let text = format!("failed to join discovery cluster ({why})");
        assert!(log.contains(&text), "{log}");
        assert!(log.contains("failed to bootstrap; discovery token was already used"));
        assert!(!log.contains(r#""level":"fatal""#), "{log}");
        assert_eq!(output.status.code(), Some(1));
    };
    failed(
        &run(places[0].command().args(args)),
        "discovery: size key not found",
    );
    client.put("/_etcd/registry/t/_config/size", "two").await;
    failed(
        &run(places[0].command().args(args)),
        "discovery: size key is bad",
    );
    client.put("/_etcd/registry/t/_config/size", "2").await;
    let mut first = places[0].begin(&args);
    places[0].says(&mut first, "waiting for peers from discovery service", 1);
    let mut second = places[1].begin(&args);
    places[0].serves(&mut first, 1);
    places[1].serves(&mut second, 1);
    assert_eq!(places[1].client().await.members().await.len(), 2);
    failed(
        &run(places[2].command().args(args)),
        "discovery: cluster is full",
    );

    // Who has data does not look there any more.
    drop(first);
    let mut first = places[0].begin(&args);
    places[0].says(&mut first, "discovery token is ignored", 1);
    places[0].serves(&mut first, 2);
}
