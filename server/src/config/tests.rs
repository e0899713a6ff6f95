//! Tables of what etcd says to flags, variables and files, and of what the values become.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::flags::{FLAGS, FileKey, Group, Status, Value};
use super::*;

mod bootstrap;
mod files;
mod security;

/// Every flag of etcd 3.7.1 and its default, as spec/server-flags.md lists them.
const ETCD: &[(&str, &str)] = &[
    ("name", "default"),
    ("data-dir", ""),
    ("wal-dir", ""),
    ("snapshot-count", "10000"),
    ("snapshot-catchup-entries", "5000"),
    ("heartbeat-interval", "100"),
    ("election-timeout", "1000"),
    ("initial-election-tick-advance", "true"),
    ("listen-peer-urls", "http://localhost:2380"),
    ("listen-client-urls", "http://localhost:2379"),
    ("listen-client-http-urls", ""),
    ("listen-metrics-urls", ""),
    ("max-snapshots", "5"),
    ("max-wals", "5"),
    ("memory-mlock", "false"),
    ("quota-backend-bytes", "0"),
    ("backend-bbolt-freelist-type", ""),
    ("backend-batch-interval", "0s"),
    ("backend-batch-limit", "0"),
    ("max-txn-ops", "128"),
    ("max-request-bytes", "1572864"),
    ("max-concurrent-streams", "4294967295"),
    ("grpc-keepalive-min-time", "5s"),
    ("grpc-keepalive-interval", "2h0m0s"),
    ("grpc-keepalive-timeout", "20s"),
    ("socket-reuse-port", "false"),
    ("socket-reuse-address", "false"),
    ("enable-grpc-gateway", "true"),
    ("raft-read-timeout", "5s"),
    ("raft-write-timeout", "5s"),
    ("feature-gates", ""),
    ("config-file", ""),
    ("version", "false"),
    ("initial-advertise-peer-urls", "http://localhost:2380"),
    ("initial-cluster", "default=http://localhost:2380"),
    ("initial-cluster-state", "new"),
    ("initial-cluster-token", "etcd-cluster"),
    ("advertise-client-urls", "http://localhost:2379"),
    ("discovery-token", ""),
    ("discovery-endpoints", ""),
    ("discovery-dial-timeout", "2s"),
    ("discovery-request-timeout", "5s"),
    ("discovery-keepalive-time", "2s"),
    ("discovery-keepalive-timeout", "6s"),
    ("discovery-insecure-transport", "true"),
    ("discovery-insecure-skip-tls-verify", "false"),
    ("discovery-cert", ""),
    ("discovery-key", ""),
    ("discovery-cacert", ""),
    ("discovery-user", ""),
    ("discovery-password", ""),
    ("discovery-fallback", "exit"),
    ("discovery-srv", ""),
    ("discovery-srv-name", ""),
    ("strict-reconfig-check", "true"),
    ("pre-vote", "true"),
    ("auto-compaction-mode", "periodic"),
    ("auto-compaction-retention", "0"),
    ("v2-deprecation", ""),
    ("cert-file", ""),
    ("key-file", ""),
    ("client-cert-file", ""),
    ("client-key-file", ""),
    ("client-cert-auth", "false"),
    ("trusted-ca-file", ""),
    ("client-crl-file", ""),
    ("client-cert-allowed-hostname", ""),
    ("auto-tls", "false"),
    ("peer-cert-file", ""),
    ("peer-key-file", ""),
    ("peer-client-cert-file", ""),
    ("peer-client-key-file", ""),
    ("peer-client-cert-auth", "false"),
    ("peer-trusted-ca-file", ""),
    ("peer-crl-file", ""),
    ("peer-cert-allowed-cn", ""),
    ("peer-cert-allowed-hostname", ""),
    ("peer-auto-tls", "false"),
    ("peer-skip-client-san-verification", "false"),
    ("self-signed-cert-validity", "1"),
    ("cipher-suites", ""),
    ("tls-min-version", "TLS1.2"),
    ("tls-max-version", ""),
    ("cors", "*"),
    ("host-whitelist", "*"),
    ("auth-token", "simple"),
    ("auth-token-ttl", "300"),
    ("bcrypt-cost", "10"),
    ("enable-pprof", "false"),
    ("metrics", "basic"),
    ("logger", "zap"),
    ("log-outputs", "default"),
    ("log-level", "info"),
    ("log-format", "json"),
    ("enable-log-rotation", "false"),
    (
        "log-rotation-config-json",
        r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#,
    ),
    ("warning-unary-request-duration", "300ms"),
    ("warning-apply-duration", "100ms"),
    ("enable-distributed-tracing", "false"),
    ("distributed-tracing-address", "localhost:4317"),
    ("distributed-tracing-service-name", "etcd"),
    ("distributed-tracing-instance-id", ""),
    ("distributed-tracing-sampling-rate", "0"),
    ("corrupt-check-time", "0s"),
    ("compact-hash-check-time", "1m0s"),
    ("compaction-batch-limit", "0"),
    ("compaction-sleep-interval", "0s"),
    ("watch-progress-notify-interval", "0s"),
    ("bootstrap-defrag-threshold-megabytes", "0"),
    ("max-learners", "1"),
    ("downgrade-check-time", "5s"),
    ("force-new-cluster", "false"),
    ("unsafe-no-fsync", "false"),
];

const IGNORED: &[&str] = &[
    "cluster-active-size",
    "cluster-remove-delay",
    "cluster-sync-interval",
    "config",
    "force",
    "max-result-buffer",
    "max-retry-attempts",
    "peer-heartbeat-interval",
    "peer-election-timeout",
    "retry-interval",
    "snapshot",
    "v",
    "vv",
    "test.coverprofile",
    "test.outputdir",
];

fn run(args: &[&str], variables: &[(&str, &str)]) -> Outcome {
    let args = ["etcd"].iter().chain(args).map(OsString::from);
    load(args, variables.iter().map(|(n, v)| (n.into(), v.into())))
}

fn loaded(args: &[&str], variables: &[(&str, &str)]) -> Loaded {
    match run(args, variables) {
        Outcome::Run(loaded) => *loaded,
        Outcome::Exit(exit) => panic!("{args:?}: {exit:?}"),
    }
}

fn config(args: &[&str]) -> Config {
    loaded(args, &[]).config
}

fn exit(args: &[&str], variables: &[(&str, &str)]) -> Exit {
    match run(args, variables) {
        Outcome::Exit(exit) => exit,
        Outcome::Run(loaded) => panic!("{args:?}: {:?}", loaded.config),
    }
}

/// The line of an invalid configuration, which ends the program with 1.
fn invalid(args: &[&str], variables: &[(&str, &str)]) -> String {
    let exit = exit(args, variables);
    assert_eq!(
        (exit.code, exit.stdout.as_str(), exit.stderr.as_str()),
        (1, "", "")
    );
    exit.notes
        .iter()
        .find_map(|note| match note {
            Note::Invalid { error } => Some(error.clone()),
            _ => None,
        })
        .unwrap_or_else(|| panic!("{args:?}: {:?}", exit.notes))
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

fn with_file(text: &str) -> Outcome {
    let file = file(text);
    run(&["--config-file", file.path().to_str().unwrap()], &[])
}

fn config_of_file(text: &str) -> Config {
    match with_file(text) {
        Outcome::Run(loaded) => loaded.config,
        Outcome::Exit(exit) => panic!("{text}: {exit:?}"),
    }
}

fn invalid_file(text: &str) -> String {
    let file = file(text);
    invalid(&["--config-file", file.path().to_str().unwrap()], &[])
}

fn not_built(flag: &str, value: &str, reason: &str, default: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!("--{flag}={value}: {reason} in Ferrite {version}; leave it at its default {default:?}")
}

#[test]
fn the_table_has_every_flag_of_etcd_once() {
    let mut names: Vec<&str> = FLAGS.iter().map(|flag| flag.name).collect();
    let mut expected: Vec<&str> = ETCD.iter().map(|(name, _)| *name).collect();
    expected.extend(IGNORED);
    names.sort_unstable();
    expected.sort_unstable();
    assert_eq!(names, expected);
    for (name, default) in ETCD {
        let flag = flags::find(name).unwrap();
        assert_eq!(flag.default_value().to_string(), *default, "{name}");
        assert!(
            !flag.help.is_empty() && flag.group != Group::Ignored,
            "{name}"
        );
        if let Status::Refused { harmless, .. } = flag.status {
            for text in harmless {
                assert!(flag.kind.parse(text).is_ok(), "{name} {text}");
            }
        }
    }
    for name in IGNORED {
        assert_eq!(flags::find(name).unwrap().status, Status::IgnoredByEtcd);
    }
}

#[test]
fn every_flag_takes_its_default_in_every_way() {
    for flag in FLAGS {
        if flag.name == "config-file" || flag.name == "version" {
            continue;
        }
        let text = flag.default_value().to_string();
        let inline = format!("--{}={text}", flag.name);
        // etcd refuses the empty text here.
        if ["discovery-endpoints", "v2-deprecation"].contains(&flag.name) {
            continue;
        }
        loaded(
            &[&inline, "--advertise-client-urls=http://localhost:2379"],
            &[],
        );
        loaded(
            &[],
            &[
                (&flag.env(), &text),
                ("ETCD_ADVERTISE_CLIENT_URLS", "http://localhost:2379"),
            ],
        );
    }
}

#[test]
fn defaults_are_etcds() {
    let default = Config::default();
    assert_eq!(config(&[]), default);
    assert_eq!(default.name, "default");
    assert_eq!(default.data_dir, PathBuf::from("default.etcd"));
    assert_eq!(default.wal_path(), PathBuf::from("default.etcd/member/wal"));
    assert_eq!(
        default.snap_path(),
        PathBuf::from("default.etcd/member/snap")
    );
    assert_eq!(default.snapshot_count, 10_000);
    assert_eq!(default.snapshot_catchup_entries, 5_000);
    assert_eq!(default.heartbeat_interval, Duration::from_millis(100));
    assert_eq!(default.election_ticks(), 10);
    assert_eq!(default.request_timeout(), Duration::from_secs(7));
    assert_eq!(default.quota(), Some(2 << 30));
    assert_eq!(default.max_request_bytes, 1_572_864);
    assert_eq!(default.grpc_receive_limit(), 1_572_864 + 524_288);
    assert_eq!(default.max_txn_ops, 128);
    assert_eq!(default.max_concurrent_streams, u32::MAX);
    assert_eq!(default.grpc_keepalive_interval, Duration::from_secs(7200));
    assert_eq!(default.grpc_keepalive_timeout, Duration::from_secs(20));
    assert_eq!(default.compaction_batch_limit, 1_000);
    assert_eq!(default.compaction_sleep_interval, Duration::from_millis(10));
    assert_eq!(default.warning_apply_duration, Duration::from_millis(100));
    assert_eq!(
        default.warning_unary_request_duration,
        Duration::from_millis(300)
    );
    assert_eq!(default.initial_cluster, "default=http://localhost:2380");
    assert_eq!(default.log, crate::logging::Options::default());
    assert!(default.pre_vote && default.new_cluster);
    assert!(!default.unsafe_no_fsync && !default.extensive_metrics);
}

#[test]
fn flag_forms() {
    let expected = Config {
        name: "m1".to_owned(),
        data_dir: "m1.etcd".into(),
        initial_cluster: "m1=http://localhost:2380".to_owned(),
        pre_vote: false,
        snapshot_count: 16,
        ..Config::default()
    };
    for args in [
        &["-name", "m1", "-pre-vote=false", "-snapshot-count", "0x10"][..],
        &["--name", "m1", "--pre-vote=0", "--snapshot-count", "1_6"],
        &["-name=m1", "--pre-vote=f", "--snapshot-count=0b1_0000"],
        &[
            "--name=m0",
            "--name=m1",
            "--pre-vote",
            "--pre-vote=False",
            "-snapshot-count=020",
        ],
        &["--name=m1", "--pre-vote=F", "--snapshot-count=16", "--"],
        &[
            "-v",
            "--force=anything",
            "--name=m1",
            "--pre-vote=FALSE",
            "--snapshot-count=0o20",
        ],
    ] {
        assert_eq!(config(args), expected, "{args:?}");
    }
    // A value may look like a flag, and be empty.
    assert_eq!(config(&["--name", "--pre-vote"]).name, "--pre-vote");
    assert_eq!(config(&["--name", ""]).data_dir, PathBuf::from(".etcd"));
    assert_eq!(
        config(&["--name="]).initial_cluster,
        "default=http://localhost:2380"
    );
}

#[test]
fn values_in_effect() {
    let config = config(&[
        "--snapshot-count=0",
        "--snapshot-catchup-entries=0",
        "--quota-backend-bytes=-1",
        "--compaction-batch-limit=0",
        "--compaction-sleep-interval=0",
        "--warning-unary-request-duration=0",
        "--warning-apply-duration=-1s",
        "--grpc-keepalive-interval=-1s",
        "--grpc-keepalive-timeout=1m30s",
        "--election-timeout=1050",
        "--heartbeat-interval=200",
        "--wal-dir=/wal",
        "--metrics=extensive",
        "--log-level=ERROR",
        "--log-format=console",
        "--log-outputs=stdout,etcd.log",
        "--cors=http://b:1,http://a:1",
        "--host-whitelist=b,a,b",
        "--unsafe-no-fsync",
        "--max-concurrent-streams=0",
    ]);
    assert_eq!(config.snapshot_count, 10_000);
    assert_eq!(config.snapshot_catchup_entries, 5_000);
    assert_eq!((config.quota_backend_bytes, config.quota()), (-1, None));
    assert_eq!(config.compaction_batch_limit, 1_000);
    assert_eq!(config.compaction_sleep_interval, Duration::from_millis(10));
    assert_eq!(
        config.warning_unary_request_duration,
        Duration::from_millis(300)
    );
    assert_eq!(config.warning_apply_duration, Duration::ZERO);
    assert_eq!(config.grpc_keepalive_interval, Duration::ZERO);
    assert_eq!(config.grpc_keepalive_timeout, Duration::from_secs(90));
    assert_eq!(config.election_ticks(), 5);
    assert_eq!(config.wal_path(), PathBuf::from("/wal"));
    assert!(config.metrics_options().extensive && config.unsafe_no_fsync);
    assert_eq!(config.log.level, crate::logging::Level::Error);
    assert_eq!(config.log.format, crate::logging::Format::Console);
    assert_eq!(config.log.outputs.len(), 2);
    assert_eq!(config.cors, ["http://a:1", "http://b:1"]);
    assert_eq!(config.host_whitelist, ["a", "b"]);
    assert_eq!(config.max_concurrent_streams, 0);
}

#[test]
fn flags_that_do_not_parse() {
    for (args, line) in [
        (&["--nope"][..], "flag provided but not defined: -nope"),
        (&["-nope=1"], "flag provided but not defined: -nope"),
        (
            &["--discovery", "x"],
            "flag provided but not defined: -discovery",
        ),
        (
            &["--experimental-corrupt-check-time=1s"],
            "flag provided but not defined: -experimental-corrupt-check-time",
        ),
        (&["---name=x"], "bad flag syntax: ---name=x"),
        (&["--=x"], "bad flag syntax: --=x"),
        (&["--name"], "flag needs an argument: -name"),
        (
            &["--snapshot-count=many"],
            "invalid value \"many\" for flag -snapshot-count: parse error",
        ),
        (
            &["--snapshot-count", "18446744073709551616"],
            "invalid value \"18446744073709551616\" for flag -snapshot-count: value out of range",
        ),
        (
            &["--max-concurrent-streams=4294967296"],
            "invalid value \"4294967296\" for flag -max-concurrent-streams: strconv.ParseUint: parsing \"4294967296\": value out of range",
        ),
        (
            &["--max-concurrent-streams=x"],
            "invalid value \"x\" for flag -max-concurrent-streams: strconv.ParseUint: parsing \"x\": invalid syntax",
        ),
        (
            &["--pre-vote=maybe"],
            "invalid boolean value \"maybe\" for -pre-vote: parse error",
        ),
        (
            &["--warning-apply-duration=10"],
            "invalid value \"10\" for flag -warning-apply-duration: parse error",
        ),
        (
            &["--initial-cluster-state=old"],
            "invalid value \"old\" for flag -initial-cluster-state: invalid value",
        ),
        (
            &["--v2-deprecation=not-yet"],
            "invalid value \"not-yet\" for flag -v2-deprecation: invalid value \"not-yet\"",
        ),
        (
            &["--feature-gates=Nope=true"],
            "invalid value \"Nope=true\" for flag -feature-gates: unrecognized feature gate: Nope",
        ),
        (
            &["--listen-client-urls=http://localhost"],
            "invalid value \"http://localhost\" for flag -listen-client-urls: URL address does not have the form \"host:port\": http://localhost",
        ),
        (
            &["--listen-peer-urls=http://localhost:1/x"],
            "invalid value \"http://localhost:1/x\" for flag -listen-peer-urls: URL must not contain a path: http://localhost:1/x",
        ),
        (
            &["--listen-metrics-urls=tcp://localhost:1"],
            "invalid value \"tcp://localhost:1\" for flag -listen-metrics-urls: URL scheme must be http, https, unix, or unixs: tcp://localhost:1",
        ),
        (
            &["--cors=localhost"],
            "invalid value \"localhost\" for flag -cors: URL scheme must be http, https, unix, or unixs: localhost",
        ),
    ] {
        let exit = exit(args, &[]);
        assert_eq!(exit.stderr, format!("{line}\n{USAGE}"), "{args:?}");
        assert_eq!((exit.code, exit.stdout.as_str()), (2, ""));
        assert!(exit.notes.is_empty());
    }
}

#[test]
fn booleans_do_not_take_the_next_argument() {
    assert_eq!(
        invalid(&["--pre-vote", "true"], &[]),
        "\"true\" is not a valid flag"
    );
    assert_eq!(invalid(&["--", "x"], &[]), "\"x\" is not a valid flag");
    assert_eq!(
        invalid(&["--name=a", "-"], &[]),
        "\"-\" is not a valid flag"
    );
}

#[test]
fn help_and_version() {
    for args in [&["-h"][..], &["--help"], &["--name=x", "--help", "--nope"]] {
        let exit = exit(args, &[("ETCD_SNAPSHOT_COUNT", "x")]);
        assert_eq!((exit.code, exit.stderr.as_str()), (0, USAGE));
        for flag in FLAGS.iter().filter(|flag| flag.group != Group::Ignored) {
            assert!(
                exit.stdout.contains(&format!("\n  --{} '", flag.name)),
                "{}",
                flag.name
            );
        }
        assert!(
            exit.stdout
                .contains("CompactHashCheck=true|false (ALPHA - default=false)\n")
        );
    }
    // Before file and environment.
    let exit = exit(&["--version", "--config-file=/none"], &[("ETCD_NAME", "x")]);
    assert_eq!((exit.code, exit.stderr.as_str()), (0, ""));
    let lines: Vec<&str> = exit.stdout.lines().collect();
    assert_eq!(lines[0], "etcd Version: 3.7.1");
    assert!(lines[1].starts_with("Git SHA: "));
    assert!(lines[2].starts_with("Go Version: "));
    assert!(lines[3].starts_with("Go OS/Arch: ") && lines[3].contains('/'));
    assert_eq!(
        lines[4],
        concat!("Ferrite Version: ", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(lines.len(), 5);
}

#[test]
fn sub_commands_are_not_built() {
    for command in ["gateway", "grpc-proxy"] {
        let exit = exit(&[command, "start"], &[]);
        assert_eq!(exit.code, 1);
        assert!(
            exit.stderr
                .starts_with(&format!("etcd {command} is not built yet"))
        );
    }
}

#[test]
fn variables() {
    let loaded = loaded(
        &["--name=m1"],
        &[
            ("PATH", "/bin"),
            ("ETCD_SNAPSHOT_COUNT", "7"),
            ("ETCD_PRE_VOTE", "false"),
            ("ETCD_V", "x"),
            ("ETCDCTL_API", "3"),
            ("ETCD_LOG_LEVEL", ""),
            ("ETCD_NO_SUCH_THING", "y"),
            ("ETCD_VERSION", "3"),
            ("ETCD_VERIFY", "all"),
        ],
    );
    assert_eq!(loaded.config.snapshot_count, 7);
    assert!(!loaded.config.pre_vote);
    let expected = [
        Note::VersionVariable { value: "3".into() },
        Note::VariableUsed {
            name: "ETCD_PRE_VOTE".into(),
            value: "false".into(),
        },
        Note::VariableUsed {
            name: "ETCD_SNAPSHOT_COUNT".into(),
            value: "7".into(),
        },
        Note::VariableUsed {
            name: "ETCD_V".into(),
            value: "x".into(),
        },
        Note::VariableUnknown {
            variable: "ETCD_LOG_LEVEL=".into(),
        },
        Note::VariableUnknown {
            variable: "ETCD_NO_SUCH_THING=y".into(),
        },
        Note::VariableUnknown {
            variable: "ETCD_VERIFY=all".into(),
        },
    ];
    assert_eq!(loaded.notes[..expected.len()], expected);
}

#[test]
fn a_variable_behind_its_flag_is_fatal() {
    for value in ["m2", "m1", ""] {
        let exit = exit(
            &["--name=m1"],
            &[("ETCD_SNAPSHOT_COUNT", "x"), ("ETCD_NAME", value)],
        );
        assert_eq!((exit.code, exit.stderr.as_str()), (1, ""));
        let shadowed = Note::VariableShadowed {
            name: "ETCD_NAME".into(),
        };
        assert_eq!(exit.notes.last(), Some(&shadowed));
    }
}

#[test]
fn variables_that_do_not_parse() {
    for (name, value, error) in [
        (
            "ETCD_SNAPSHOT_COUNT",
            "x",
            "invalid value \"x\" for ETCD_SNAPSHOT_COUNT: parse error",
        ),
        (
            "ETCD_PRE_VOTE",
            "x",
            "invalid value \"x\" for ETCD_PRE_VOTE: parse error",
        ),
        (
            "ETCD_LISTEN_CLIENT_URLS",
            "localhost:2379",
            "invalid value \"localhost:2379\" for ETCD_LISTEN_CLIENT_URLS: URL scheme must be http, https, unix, or unixs: localhost:2379",
        ),
        (
            "ETCD_INITIAL_CLUSTER_STATE",
            "x",
            "invalid value \"x\" for ETCD_INITIAL_CLUSTER_STATE: invalid value",
        ),
    ] {
        assert_eq!(invalid(&[], &[(name, value)]), error);
    }
}

/// Section 6, in its order.
#[test]
fn rules() {
    for (args, error) in [
        (
            &["--logger=capnslog"][..],
            "--logger=capnslog is removed in v3.5",
        ),
        (&["--logger=x"], "unknown logger option \"x\""),
        (
            &["--log-outputs=default,stdout"],
            "multi logoutput for \"default\" is not supported yet",
        ),
        (
            &["--log-outputs=systemd/journal,stderr"],
            "running with systemd/journal but other '--log-outputs' values ([\"stderr\" \"systemd/journal\"]) are configured with 'default'; override 'default' value with something else",
        ),
        (&["--log-level=loud"], "unrecognized level: \"loud\""),
        (
            &["--log-format=xml"],
            "unknown log format: xml, supported values json, console",
        ),
        (
            &["--listen-peer-urls=http://example.com:2380"],
            "expected IP in URL for binding (http://example.com:2380)",
        ),
        (
            &[
                "--listen-client-urls=http://example.com:1",
                "--advertise-client-urls=http://a:1",
            ],
            "expected IP in URL for binding (http://example.com:1)",
        ),
        (
            &["--listen-client-http-urls=http://example.com:1"],
            "expected IP in URL for binding (http://example.com:1)",
        ),
        (
            &["--listen-metrics-urls=http://:1"],
            "expected IP in URL for binding (http://:1)",
        ),
        (
            &["--initial-advertise-peer-urls=http://:1,http://a:1"],
            "--initial-advertise-peer-urls \"http://:1,http://a:1\" must be \"host:port\" (unexpected empty host (http://:1))",
        ),
        (
            &["--advertise-client-urls=http://:1"],
            "--advertise-client-urls \"http://:1\" must be in the format \"host:port\", \"unix:/path/to/socket\" or \"unixs:/path/to/socket\" (unexpected empty host (http://:1))",
        ),
        (
            &["--discovery-fallback=proxy"],
            "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"",
        ),
        (
            &["--enable-log-rotation"],
            "--log-outputs requires a single file path when --log-rotate-config-json is defined",
        ),
        (
            &["--enable-log-rotation", "--log-outputs=a,b"],
            "--log-outputs requires a single file path when --log-rotate-config-json is defined",
        ),
        (
            &[
                "--enable-log-rotation",
                "--log-outputs=a",
                "--log-rotation-config-json={",
            ],
            "improperly formatted log rotation config: EOF while parsing an object at line 1 column 1",
        ),
        (
            &["--heartbeat-interval=0"],
            "--heartbeat-interval must be >0 (set to 0ms)",
        ),
        (
            &["--election-timeout=0"],
            "--election-timeout must be >0 (set to 0ms)",
        ),
        (
            &["--election-timeout=500", "--heartbeat-interval=200"],
            "--election-timeout[500ms] should be at least as 5 times as --heartbeat-interval[200ms]",
        ),
        (
            &["--election-timeout=60000"],
            "--election-timeout[60000ms] is too long, and should be set less than 50000ms",
        ),
        (
            &["--listen-client-urls=http://localhost:2379"],
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        (
            &["--auto-compaction-mode="],
            "undefined auto-compaction-mode",
        ),
        (
            &["--auto-compaction-mode=x"],
            "unknown auto-compaction-mode \"x\"",
        ),
        (
            &["--compact-hash-check-time=0"],
            "--compact-hash-check-time must be >0 (set to 0s)",
        ),
        (
            &["--feature-gates=LeaseCheckpointPersist=true"],
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint",
        ),
        (
            &[
                "--enable-distributed-tracing",
                "--distributed-tracing-sampling-rate=-1",
            ],
            "distributed tracing configurition is not valid: (tracing sampling rate must be positive)",
        ),
        (
            &[
                "--enable-distributed-tracing",
                "--distributed-tracing-sampling-rate=1000001",
            ],
            "distributed tracing configurition is not valid: (tracing sampling rate must be less than 1000000)",
        ),
        (
            &["--compact-hash-check-time=-90s"],
            "--compact-hash-check-time must be >0 (set to -1m30s)",
        ),
        (
            &["--compaction-batch-limit=-1"],
            "--compaction-batch-limit must be >0 (set to -1)",
        ),
        (
            &["--listen-peer-urls=https://0.0.0.0:2380"],
            "cannot listen on TLS for 0.0.0.0:2380: KeyFile and CertFile are not presented",
        ),
        (
            &[
                "--listen-client-urls=https://0.0.0.0:2379",
                "--advertise-client-urls=https://a:2379",
            ],
            "TLS key/cert (--cert-file, --key-file) must be provided for client url https://0.0.0.0:2379 with HTTPS scheme",
        ),
        (
            &["--listen-client-http-urls=unixs://a"],
            "TLS key/cert (--cert-file, --key-file) must be provided for client url unixs://a with HTTPS scheme",
        ),
        (
            &["--listen-metrics-urls=https://0.0.0.0:1"],
            "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url",
        ),
        (
            &["--listen-client-http-urls=http://localhost:2379"],
            "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url http://localhost:2379",
        ),
        (
            &[
                "--discovery-srv=a",
                "--discovery-endpoints=b",
                "--discovery-token=c",
            ],
            "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery-endpoints\" or \"discovery-srv\"",
        ),
        (
            &[
                "--discovery-srv=a",
                "--initial-cluster=default=http://localhost:2380",
            ],
            "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery-endpoints\" or \"discovery-srv\"",
        ),
        (
            &["--discovery-token=a"],
            "both --discovery-token and --discovery-endpoints must be set",
        ),
        (
            &["--discovery-token=a", "--discovery-endpoints= ,b"],
            "--discovery-endpoints must not contain empty endpoints",
        ),
    ] {
        assert_eq!(invalid(args, &[]), error, "{args:?}");
    }
    config(&["--election-timeout=50000"]);
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    // A value that is not the default, for every refused flag.
    for flag in FLAGS {
        let Status::Refused { reason, .. } = flag.status else {
            continue;
        };
        let value = match (flag.kind, flag.default) {
            (flags::Kind::Bool, "false") => "true",
            (flags::Kind::Bool, _) => "false",
            (flags::Kind::Duration, _) => "7h0m0s",
            (flags::Kind::Uint | flags::Kind::Int, _) => "7",
            _ => "seven",
        };
        let all = invalid(&[&format!("--{}={value}", flag.name)], &[]);
        let shown = match flag.name {
            "discovery-password" => "...",
            _ => value,
        };
        let line = not_built(flag.name, shown, reason, flag.default);
        assert!(all.ends_with(&line), "{all}");
    }
}

/// Flags that many deployments set, and that have nothing to change here.
#[test]
fn flags_without_effect_are_taken_with_a_warning() {
    let mut seen = 0;
    for flag in FLAGS {
        let Status::NoEffect(why) = flag.status else {
            continue;
        };
        seen += 1;
        let value = match flag.kind {
            flags::Kind::Duration => "7h0m0s",
            flags::Kind::Uint | flags::Kind::Int => "7",
            _ => "array",
        };
        let warning = Note::NoEffect {
            flag: flag.name,
            why,
        };
        let given = loaded(&[&format!("--{}={value}", flag.name)], &[]);
        assert!(given.notes.contains(&warning), "{}", flag.name);
        let default = loaded(&[&format!("--{}={}", flag.name, flag.default)], &[]);
        assert!(!default.notes.contains(&warning), "{}", flag.name);
    }
    assert_eq!(seen, 8);
}

#[test]
fn values_that_mean_the_default_are_taken() {
    for arg in [
        "--backend-bbolt-freelist-type=map",
        "--backend-batch-interval=0.1s",
        "--backend-batch-limit=10000",
        "--auto-compaction-mode=revision",
        "--auth-token-ttl=0",
        "--raft-read-timeout=1s",
        "--enable-grpc-gateway=false",
        "--feature-gates=CompactHashCheck=false,AllBeta=true",
        "--pre-vote=false",
        "--distributed-tracing-sampling-rate=7",
        "--discovery-dial-timeout=7s",
        "--v2-deprecation=gone,write-only",
        "--initial-cluster-state=existing",
    ] {
        loaded(&[arg], &[]);
    }
}

#[test]
fn automatic_compaction() {
    let of = |mode: &str, retention: &str| {
        let (mode, retention) = (
            format!("--auto-compaction-mode={mode}"),
            format!("--auto-compaction-retention={retention}"),
        );
        config(&[&mode, &retention]).auto_compaction
    };
    let periodic = |seconds| Some(AutoCompaction::Periodic(Duration::from_secs(seconds)));
    let revision = |number| Some(AutoCompaction::Revision(number));
    for off in ["0", "", "0s", "0h", "-0"] {
        assert_eq!(of("periodic", off), None);
        assert_eq!(of("revision", off), None);
    }
    assert_eq!(of("periodic", "2"), periodic(7200));
    assert_eq!(of("periodic", "10m"), periodic(600));
    assert_eq!(of("revision", "1000"), revision(1000));
    assert_eq!(of("revision", "2us"), revision(2000));
    for (retention, reason) in [
        ("soon", "time: invalid duration \"soon\""),
        ("-1", "time: missing unit in duration \"-1\""),
        ("-1h", "negative duration \"-1h\""),
        ("3000000", "time: invalid duration \"3000000h\""),
    ] {
        let line = format!("error parsing CompactionRetention: {reason}");
        let flag = format!("--auto-compaction-retention={retention}");
        assert_eq!(invalid(&[&flag], &[]), line);
    }
}

#[test]
fn every_problem_is_reported() {
    assert_eq!(
        invalid(
            &[
                "--logger=x",
                "--heartbeat-interval=0",
                "--election-timeout=60000"
            ],
            &[]
        ),
        "unknown logger option \"x\"; --heartbeat-interval must be >0 (set to 0ms); --election-timeout[60000ms] is too long, and should be set less than 50000ms"
    );
    let exit = exit(&["--listen-client-urls=http://a:1"], &[]);
    let unset = Error::UnsetAdvertiseClient.to_string();
    assert_eq!(
        exit.notes.last(),
        Some(&Note::AdvertiseClientUnset { error: unset })
    );
}

#[test]
fn features_and_rotation_are_in_the_configuration() {
    let config = config(&[
        "--feature-gates=AllAlpha=true,SetMemberLocalAddr=false,FastLeaseKeepAlive=false",
        "--enable-log-rotation",
        "--log-outputs=stderr,etcd.log",
        "--bootstrap-defrag-threshold-megabytes=3",
        "--corrupt-check-time=2s",
    ]);
    let on: Vec<_> = config.features.iter().filter(|(_, on)| *on).collect();
    let on: Vec<_> = on.iter().map(|(gate, _)| gate.name).collect();
    assert_eq!(
        on,
        [
            "AllAlpha",
            "CompactHashCheck",
            "InitialCorruptCheck",
            "LeaseCheckpoint",
            "LeaseCheckpointPersist",
            "PriorityRequest",
            "StopGRPCServiceOnDefrag",
            "TxnModeWriteWithSharedBuffer"
        ]
    );
    assert_eq!(config.log.rotation.unwrap().max_bytes, 100 << 20);
    assert_eq!(config.bootstrap_defrag_threshold, 3 << 20);
    assert_eq!(config.corrupt_check_time, Some(Duration::from_secs(2)));
    assert_eq!(Config::default().corrupt_check_time, None);
    assert_eq!(Config::default().log.rotation, None);
}

#[test]
fn secrets_are_not_repeated() {
    let all = invalid(&["--discovery-srv=a", "--discovery-password=hunter2"], &[]);
    assert!(!all.contains("hunter2"), "{all}");
}

#[test]
fn notes() {
    let has = |args: &[&str], note: &Note| loaded(args, &[]).notes.contains(note);
    let own_port = &["--listen-client-http-urls=http://localhost:1"][..];
    assert!(has(&[], &Note::SinglePort));
    assert!(!has(own_port, &Note::SinglePort));
    let persist = "--feature-gates=LeaseCheckpoint=true,LeaseCheckpointPersist=true";
    let checkpoint = "--feature-gates=LeaseCheckpoint=true";
    assert!(has(&[checkpoint], &Note::CheckpointWithoutPersist));
    assert!(!has(&[persist], &Note::CheckpointWithoutPersist));
    let checkpoints = [&[][..], &[checkpoint], &[persist]].map(|args| {
        let features = config(args).features;
        features.is_on(Feature::LeaseCheckpoint)
    });
    assert_eq!(checkpoints, [false, true, true]);
    assert!(has(
        &[],
        &Note::DefaultName {
            name: "default".into()
        }
    ));
    assert!(has(
        &["--name=a"],
        &Note::DefaultDataDir {
            data_dir: "a.etcd".into()
        }
    ));
    assert!(has(&["--unsafe-no-fsync"], &Note::NoFsync));
    let raised = Note::PeerTimeoutRaised {
        flag: "raft-write-timeout",
        minimum: GoDuration::from_nanos(5_000_000_000),
    };
    assert!(has(&["--raft-write-timeout=1s"], &raised));
    assert!(!has(&["--raft-write-timeout=5s"], &raised));
    let quota = Note::LargeQuota {
        quota: 9 << 30,
        recommended: 8 << 30,
    };
    assert!(has(&["--quota-backend-bytes=9663676416"], &quota));
    let requests = Note::LargeRequests {
        limit: 10_485_761,
        recommended: 10_485_760,
    };
    assert!(has(&["--max-request-bytes=10485761"], &requests));
    let deprecated =
        Note::Deprecated("--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8.");
    assert!(has(&["--max-snapshots=5"], &deprecated));
    let running = Note::Running {
        args: vec!["etcd".into(), "--name=a".into()],
    };
    assert_eq!(loaded(&["--name=a"], &[]).notes.last(), Some(&running));
}

#[test]
fn the_default_host_is_advertised_for_a_wildcard() {
    let host = || Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7)));
    let resolve_args = |args: &[&str]| {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let Ok(cli::CommandLine::Flags(raw)) = cli::parse(&args) else {
            panic!("{args:?}");
        };
        resolve(&raw, Source::CommandLine, &host).unwrap()
    };
    let (config, notes) = resolve_args(&["--name=a", "--listen-peer-urls=http://0.0.0.0:7380"]);
    assert_eq!(
        urls::join(&config.advertise_peer_urls),
        "http://10.0.0.7:7380"
    );
    assert_eq!(
        urls::join(&config.advertise_client_urls),
        "http://localhost:2379"
    );
    assert_eq!(config.initial_cluster, "a=http://10.0.0.7:7380");
    assert!(notes.contains(&Note::DefaultHost {
        host: "10.0.0.7".into()
    }));

    let (config, notes) = resolve_args(&["--name=a", "--listen-peer-urls=http://127.0.0.1:7380"]);
    assert_eq!(
        urls::join(&config.advertise_peer_urls),
        "http://localhost:2380"
    );
    assert!(
        !notes
            .iter()
            .any(|note| matches!(note, Note::DefaultHost { .. }))
    );

    let (config, _) = resolve_args(&[
        "--listen-client-urls=http://0.0.0.0:7379",
        "--advertise-client-urls=http://localhost:2379",
    ]);
    assert_eq!(
        urls::join(&config.advertise_client_urls),
        "http://10.0.0.7:7379"
    );
}

#[test]
fn a_raw_config_can_be_built_by_hand() {
    let mut raw = RawConfig::default();
    raw.set(flags::find("name").unwrap(), Value::Text("m".to_owned()));
    raw.set_text(flags::find("snapshot-count").unwrap(), "9")
        .unwrap();
    let given: Vec<&str> = raw.given().map(|(flag, _)| flag.name).collect();
    assert_eq!(given, ["name", "snapshot-count"]);
    let (config, _) = resolve(&raw, Source::CommandLine, &|| None).unwrap();
    assert_eq!((config.name.as_str(), config.snapshot_count), ("m", 9));
}

proptest::proptest! {
    /// Nothing that an operator can type or write into a file panics.
    #[test]
    fn nothing_panics(args in proptest::collection::vec(arbitrary_arg(), 0..4), text in ".*") {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let _ = run(&args, &[("ETCD_LISTEN_PEER_URLS", &text), ("ETCD_CORS", &text)]);
        let _ = super::file::parse(&text);
        let _ = urls::UrlsMap::parse(&text);
    }
}

fn arbitrary_arg() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    prop_oneof![
        ".*",
        (0..FLAGS.len(), ".*").prop_map(|(at, value)| format!("--{}={value}", FLAGS[at].name)),
        (
            0..FLAGS.len(),
            "(http|unix)://[a-z\\[\\]:@/?#%0-9]*,?-?[0-9.]*[mushn]*"
        )
            .prop_map(|(at, value)| format!("--{}={value}", FLAGS[at].name)),
    ]
}
