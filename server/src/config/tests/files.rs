//! The configuration file.

use super::*;

#[test]
fn files() {
    assert_eq!(config_of_file(""), Config::default());
    assert_eq!(config_of_file("{}"), Config::default());
    let yaml = "
Name: m1
SNAPSHOT-COUNT: 7
heartbeat-interval: 200
election-timeout: 2000
initial-advertise-peer-urls: http://b:1,http://a:1
initial-cluster: m1=http://a:1
listen-client-urls: http://127.0.0.1:1
quota-backend-bytes: -1
grpc-keepalive-interval: 600000000000
socket-options:
  reuse-address: true
log-outputs: [stdout]
log-level: debug
cors: http://a:1
host-whitelist: a,b
initial-cluster-state:
initial-cluster-token: 12
unknown-key: {a: 1}
client-transport-security:
  auto-tls: false
peer-transport-security: {}
discovery-config:
  client: null
enable-grpc-gateway: false
max-learners: 1
";
    let config = config_of_file(yaml);
    assert_eq!(config.name, "m1");
    assert_eq!(config.snapshot_count, 7);
    assert_eq!(config.heartbeat_interval, Duration::from_millis(200));
    assert_eq!(config.election_ticks(), 10);
    assert_eq!(
        urls::join(&config.advertise_peer_urls),
        "http://a:1,http://b:1"
    );
    assert_eq!(config.initial_cluster, "m1=http://a:1");
    // A file keeps the default advertised URLs beside other listeners.
    assert_eq!(
        urls::join(&config.advertise_client_urls),
        "http://localhost:2379"
    );
    assert_eq!(config.quota(), None);
    assert_eq!(config.grpc_keepalive_interval, Duration::from_secs(600));
    assert_eq!(config.log.outputs, [crate::logging::Output::Stdout]);
    assert_eq!(config.log.level, crate::logging::Level::Debug);
    assert_eq!(config.cors, ["http://a:1"]);
    assert!(!config.enable_grpc_gateway);
    assert_eq!(config.host_whitelist, ["a", "b"]);
    assert!(config.new_cluster);
    assert_eq!(config.initial_cluster_token, "12");

    for (word, value) in [("yes", true), ("Off", false)] {
        assert_eq!(config_of_file(&format!("pre-vote: {word}")).pre_vote, value);
    }

    let json = r#"{"name": "m1", "pre-vote": false, "listen-metrics-urls": "http://127.0.0.1:1"}"#;
    let config = config_of_file(json);
    assert_eq!((config.name.as_str(), config.pre_vote), ("m1", false));
    assert_eq!(config.initial_cluster, "m1=http://localhost:2380");
    assert_eq!(
        urls::join(&config.listen_metrics_urls),
        "http://127.0.0.1:1"
    );
}

#[test]
fn a_file_stands_alone() {
    let file = file("snapshot-count: 7");
    let path = file.path().to_str().unwrap();
    let variables = [("ETCD_NAME", "env"), ("ETCD_CONFIG_FILE", path)];
    let of_variable = loaded(&["--name=flag"], &variables);
    assert_eq!(of_variable.config.name, "default");
    assert_eq!(of_variable.config.snapshot_count, 7);
    assert_eq!(of_variable.notes[0], Note::FileLoaded { path: path.into() });
    // The flag wins over the variable; the command line must still parse.
    let variables = [("ETCD_CONFIG_FILE", "/none")];
    let of_flag = loaded(&["--config-file", path], &variables);
    assert_eq!(of_flag.config, of_variable.config);
    assert_eq!(exit(&["--config-file", path, "--nope"], &[]).code, 2);
}

#[test]
fn bad_files() {
    let json = "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal";
    for (text, error) in [
        (
            "heartbeat-interval: 100ms",
            format!(
                "{json} string into Go struct field configYAML.heartbeat-interval of type uint"
            ),
        ),
        (
            "warning-apply-duration: 10ms",
            format!(
                "{json} string into Go struct field configYAML.warning-apply-duration of type time.Duration"
            ),
        ),
        (
            "pre-vote: 1",
            format!("{json} number into Go struct field configYAML.pre-vote of type bool"),
        ),
        (
            "snapshot-count: -1",
            format!("{json} number into Go struct field configYAML.snapshot-count of type uint"),
        ),
        (
            "name: [a]",
            format!("{json} array into Go struct field configYAML.name of type string"),
        ),
        (
            "client-transport-security: x",
            format!(
                "{json} string into Go struct field configYAML.client-transport-security of type struct"
            ),
        ),
        (
            "[a]",
            format!("{json} array into Go value of type embed.configYAML"),
        ),
        (
            "peer-transport-security: x",
            "invalid peer-transport-security".to_owned(),
        ),
        (
            "peer-transport-security:",
            "invalid peer-transport-security".to_owned(),
        ),
        (
            "feature-gates: X=true",
            "unrecognized feature gate: X".to_owned(),
        ),
        (
            "initial-cluster-state: old",
            "unexpected clusterState \"old\"".to_owned(),
        ),
        (
            "election-timeout: 60000",
            "--election-timeout[60000ms] is too long, and should be set less than 50000ms"
                .to_owned(),
        ),
    ] {
        assert_eq!(invalid_file(text), error, "{text}");
    }
    assert!(invalid_file("a: [").starts_with("error converting YAML to JSON: yaml: "));
    assert_eq!(
        invalid(&["--config-file=/none/at.all"], &[]),
        "open /none/at.all: no such file or directory"
    );
    // Bad URLs are printed bare, with etcd's slip in one name.
    for (text, line) in [
        (
            "listen-peer-urls: a",
            "unexpected error setting up listen-peer-urls: URL scheme must be http, https, unix, or unixs: a\n",
        ),
        (
            "advertise-client-urls: http://a",
            "unexpected error setting up advertise-peer-urls: URL address does not have the form \"host:port\": http://a\n",
        ),
    ] {
        match with_file(text) {
            Outcome::Exit(exit) => assert_eq!((exit.code, exit.stderr.as_str()), (1, line)),
            Outcome::Run(loaded) => panic!("{text}: {:?}", loaded.config),
        }
    }
}

#[test]
fn file_keys_are_unique() {
    let mut keys: Vec<String> = FLAGS
        .iter()
        .filter_map(|flag| match flag.file {
            FileKey::Same => Some(flag.name.to_owned()),
            FileKey::At(path) => Some(path.join(".")),
            FileKey::None => None,
        })
        .collect();
    let count = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), count);
}
