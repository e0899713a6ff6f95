//! Every flag of etcd 3.7.1, once: type, default, where it stands in a configuration file, and
//! whether this build has it (spec/server-flags.md sections 2 to 5). Parsing, resolution, refusal
//! and `--help` all read this table.

use super::gates;
use super::urls::{Url, parse_urls};
use super::value::{GoDuration, OUT_OF_RANGE, PARSE_ERROR, parse_bool, parse_int, parse_uint};

/// The heading under which `--help` lists a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// This member alone.
    Member,
    /// Finding and joining the other members.
    Clustering,
    /// TLS and who may connect.
    Security,
    /// Users and tokens.
    Auth,
    /// Metrics and profiles.
    Monitoring,
    /// Log lines.
    Logging,
    /// OpenTelemetry.
    Tracing,
    /// Background work and its limits.
    Features,
    /// What can lose data.
    Unsafe,
    /// Accepted for old command lines; not listed.
    Ignored,
}

impl Group {
    /// Groups in the order of `--help`.
    pub const LISTED: [Group; 9] = [
        Group::Member,
        Group::Clustering,
        Group::Security,
        Group::Auth,
        Group::Monitoring,
        Group::Logging,
        Group::Tracing,
        Group::Features,
        Group::Unsafe,
    ];

    /// The heading.
    pub const fn title(self) -> &'static str {
        match self {
            Group::Member => "Member",
            Group::Clustering => "Clustering",
            Group::Security => "Security",
            Group::Auth => "Auth",
            Group::Monitoring => "Profiling and Monitoring",
            Group::Logging => "Logging",
            Group::Tracing => "Distributed tracing",
            Group::Features => "Features",
            Group::Unsafe => "Unsafe feature",
            Group::Ignored => "Ignored",
        }
    }
}

/// The type of a flag's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `--x`, `--x=true`, `--x=0`.
    Bool,
    /// 0 to 2^64 - 1, base 0.
    Uint,
    /// 0 to 2^32 - 1, base 0.
    Uint32,
    /// -2^63 to 2^63 - 1, base 0.
    Int,
    /// `1h30m`; nanoseconds in files.
    Duration,
    /// Any text.
    Text,
    /// URLs; the empty text leaves the value as it was.
    Urls,
    /// Origins, or `*`.
    Cors,
    /// Comma-separated, sorted, without duplicates.
    UniqueStrings,
    /// Comma-separated.
    Strings,
    /// One of these.
    Choice(&'static [&'static str]),
    /// Some of these, comma-separated.
    Choices(&'static [&'static str]),
    /// `Gate=true,Other=false`.
    Gates,
    /// Boolean style, any value, no effect.
    Ignored,
}

/// Whether this build has what a flag asks for. `docs/flags.md` shows it to people; a test keeps it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It has.
    Built,
    /// There is nothing here that it could change: any valid value is taken, with a warning if it is not the
    /// default. Only for what no client, no file and no operator can come to miss.
    NoEffect(&'static str),
    /// It has not: any value but the default and the harmless ones is an error.
    Refused {
        /// A clause, e.g. `authentication is not built yet`.
        reason: &'static str,
        /// Values that mean the same as the default.
        harmless: &'static [&'static str],
    },
    /// etcd itself takes it and does nothing.
    IgnoredByEtcd,
}

/// Where a flag stands in a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKey {
    /// At the top, under the flag's name.
    Same,
    /// Elsewhere: the keys from the top down.
    At(&'static [&'static str]),
    /// Nowhere.
    None,
}

/// One row of the table.
#[derive(Debug)]
pub struct Flag {
    /// Without dashes.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// Default as text of the type.
    pub default: &'static str,
    /// Heading.
    pub group: Group,
    /// Built or not.
    pub status: Status,
    /// Key in files.
    pub file: FileKey,
    /// One sentence for `--help`.
    pub help: &'static str,
}

impl Flag {
    /// `ETCD_` and the name in upper case, `_` for `-`.
    pub fn env(&self) -> String {
        format!("ETCD_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }

    /// The default as a value.
    pub(super) fn default_value(&self) -> Value {
        match (self.kind, self.default) {
            (Kind::Urls, "") => Value::Urls(Vec::new()),
            (Kind::UniqueStrings | Kind::Strings | Kind::Cors | Kind::Choices(_), "") => {
                Value::List(Vec::new())
            }
            (Kind::Ignored, _) => Value::Text(String::new()),
            (kind, text) => kind
                .parse(text)
                .expect("a test parses every default of the table"),
        }
    }
}

/// A value of one of the types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// [`Kind::Bool`].
    Bool(bool),
    /// [`Kind::Uint`], [`Kind::Uint32`].
    Uint(u64),
    /// [`Kind::Int`].
    Int(i64),
    /// [`Kind::Duration`].
    Duration(GoDuration),
    /// [`Kind::Text`], [`Kind::Choice`], [`Kind::Gates`], [`Kind::Ignored`].
    Text(String),
    /// [`Kind::Urls`].
    Urls(Vec<Url>),
    /// The lists.
    List(Vec<String>),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Bool(value) => write!(f, "{value}"),
            Value::Uint(value) => write!(f, "{value}"),
            Value::Int(value) => write!(f, "{value}"),
            Value::Duration(value) => write!(f, "{value}"),
            Value::Text(value) => f.write_str(value),
            Value::Urls(urls) => f.write_str(&super::urls::join(urls)),
            Value::List(values) => f.write_str(&values.join(",")),
        }
    }
}

impl Kind {
    /// Whether `--x` without a value means true.
    pub(super) const fn is_bool(self) -> bool {
        matches!(self, Kind::Bool | Kind::Ignored)
    }

    /// Parses the text of a flag or of an environment variable.
    ///
    /// # Errors
    /// The reason, as it stands behind `invalid value ... :`.
    pub(super) fn parse(self, text: &str) -> Result<Value, String> {
        let list = || text.split(',').map(str::to_owned).collect::<Vec<_>>();
        Ok(match self {
            Kind::Bool => Value::Bool(parse_bool(text).ok_or(PARSE_ERROR)?),
            Kind::Uint => Value::Uint(parse_uint(text)?),
            Kind::Uint32 => {
                let fits = parse_uint(text).and_then(|v| match u32::try_from(v) {
                    Ok(v) => Ok(u64::from(v)),
                    Err(_) => Err(OUT_OF_RANGE),
                });
                // etcd's own flag type, whose errors are those of strconv.
                Value::Uint(fits.map_err(|reason| {
                    let reason = if reason == PARSE_ERROR {
                        "invalid syntax"
                    } else {
                        reason
                    };
                    format!("strconv.ParseUint: parsing {text:?}: {reason}")
                })?)
            }
            Kind::Int => Value::Int(parse_int(text)?),
            Kind::Duration => Value::Duration(GoDuration::parse(text).map_err(|_| PARSE_ERROR)?),
            Kind::Text | Kind::Ignored => Value::Text(text.to_owned()),
            Kind::Urls => Value::Urls(parse_urls(text)?),
            Kind::Cors if text == "*" => Value::List(vec!["*".to_owned()]),
            Kind::Cors => {
                let urls = parse_urls(text)?;
                Value::List(urls.iter().map(Url::to_string).collect())
            }
            Kind::UniqueStrings => {
                let mut values = list();
                values.sort();
                values.dedup();
                Value::List(values)
            }
            Kind::Strings => Value::List(list()),
            Kind::Choice(choices) if choices.contains(&text) => Value::Text(text.to_owned()),
            Kind::Choice(_) => return Err("invalid value".to_owned()),
            Kind::Choices(choices) => {
                let values = list();
                if let Some(bad) = values.iter().find(|v| !choices.contains(&v.as_str())) {
                    return Err(format!("invalid value {bad:?}"));
                }
                Value::List(values)
            }
            Kind::Gates => {
                gates::parse(text)?;
                Value::Text(text.to_owned())
            }
        })
    }
}

/// The row of a flag.
pub fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

const fn flag(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    group: Group,
    status: Status,
    file: FileKey,
    help: &'static str,
) -> Flag {
    Flag {
        name,
        kind,
        default,
        group,
        status,
        file,
        help,
    }
}

const fn refused(reason: &'static str) -> Status {
    Status::Refused {
        reason,
        harmless: &[],
    }
}

const fn ignored(name: &'static str) -> Flag {
    flag(
        name,
        Kind::Ignored,
        "",
        Group::Ignored,
        Status::IgnoredByEtcd,
        FileKey::None,
        "",
    )
}

const DISCOVERY_AUTH: Status =
    refused("showing who this is to the discovery service is not built yet");

use FileKey::{At, None as NoKey, Same};
use Group::{Auth, Clustering, Features, Logging, Member, Monitoring, Security, Tracing, Unsafe};
use Kind::{
    Bool, Choice, Choices, Cors, Duration, Gates, Int, Strings, Text, Uint, Uint32, UniqueStrings,
    Urls,
};
use Status::{Built, NoEffect};

/// The table, in the order of `--help` within each group.
#[rustfmt::skip] // one row, one or two lines: a table is read by column
pub static FLAGS: &[Flag] = &[
    // Member.
    flag("name", Text, "default", Member, Built, Same, "Name of this member, for people."),
    flag("data-dir", Text, "", Member, Built, Same, "Directory of all data; ${name}.etcd when empty."),
    flag("wal-dir", Text, "", Member, Built, Same, "Directory of the write-ahead log, if it shall be elsewhere."),
    flag("snapshot-count", Uint, "10000", Member, Built, Same, "Entries applied between two snapshots of the raft log."),
    flag("snapshot-catchup-entries", Uint, "5000", Member, Built, Same,
        "Entries kept behind the snapshot for followers that lag."),
    flag("heartbeat-interval", Uint, "100", Member, Built, Same, "Milliseconds between two heartbeats of a leader."),
    flag("election-timeout", Uint, "1000", Member, Built, Same,
        "Milliseconds without a heartbeat until an election; at least five heartbeats."),
    flag("initial-election-tick-advance", Bool, "true", Member, Built, Same,
        "Takes both values; no effect: a sole voter campaigns at once, others wait for the usual time."),
    flag("listen-peer-urls", Urls, "http://localhost:2380", Member, Built, Same, "Where to listen for other members."),
    flag("listen-client-urls", Urls, "http://localhost:2379", Member, Built, Same,
        "Where to listen for clients: gRPC, and HTTP unless --listen-client-http-urls is given."),
    flag("listen-client-http-urls", Urls, "", Member, Built, Same,
        "Where to listen for HTTP clients only; takes HTTP away from --listen-client-urls."),
    flag("max-snapshots", Uint, "5", Member,
        NoEffect("snapshots are not numbered files here, so there is nothing to retain"), Same,
        "Snapshot files to keep, 0 for all. Deprecated."),
    flag("max-wals", Uint, "5", Member, NoEffect("log segments are recycled here, not retained by count"), Same,
        "Log files to keep, 0 for all."),
    flag("memory-mlock", Bool, "false", Member, Built, Same,
        "Keep the memory of the process from being swapped out."),
    flag("quota-backend-bytes", Int, "0", Member, Built, Same,
        "Bytes that the store may take before writes are refused; 0 for 2 GiB, negative for no limit."),
    flag("backend-bbolt-freelist-type", Text, "", Member,
        NoEffect("the store is not bbolt, it has no such list"), Same,
        "A detail of bbolt: 'array' or 'map'."),
    flag("backend-batch-interval", Duration, "0", Member,
        NoEffect("the store is not written in bbolt's batches"), Same,
        "Longest time between two commits of the store."),
    flag("backend-batch-limit", Int, "0", Member,
        NoEffect("the store is not written in bbolt's batches"), Same,
        "Most operations in one commit of the store."),
    flag("max-txn-ops", Uint, "128", Member, Built, Same, "Most operations in each part of a transaction."),
    flag("max-request-bytes", Uint, "1572864", Member, Built, Same, "Largest request of a client, in bytes."),
    flag("max-concurrent-streams", Uint32, "4294967295", Member, Built, Same,
        "Most calls that one client connection may have open."),
    flag("grpc-keepalive-min-time", Duration, "5s", Member,
        NoEffect("clients may ping as often as they like: the HTTP/2 library answers without telling how many pings came"), Same,
        "Shortest time between two pings of a client; 0 for no rule."),
    flag("grpc-keepalive-interval", Duration, "2h", Member, Built, Same,
        "Time between two pings of the server to a client; 0 for none."),
    flag("grpc-keepalive-timeout", Duration, "20s", Member, Built, Same,
        "How long the server waits for the answer to a ping; 0 for no pings."),
    flag("socket-reuse-port", Bool, "false", Member, Built, At(&["socket-options", "reuse-port"]),
        "Set SO_REUSEPORT on listeners."),
    flag("socket-reuse-address", Bool, "false", Member, Built, At(&["socket-options", "reuse-address"]),
        "Set SO_REUSEADDR on listeners; they always have it here."),
    flag("enable-grpc-gateway", Bool, "true", Member, Built, Same,
        "Serve the JSON form of the API under /v3/, to clients of HTTP."),
    flag("raft-read-timeout", Duration, "5s", Member, NoEffect("connections between members are not given up after a fixed time here"), NoKey,
        "How long a read from another member may take; at least 5s."),
    flag("raft-write-timeout", Duration, "5s", Member, NoEffect("connections between members are not given up after a fixed time here"), NoKey,
        "How long a write to another member may take; at least 5s."),
    flag("feature-gates", Gates, "", Member, Built, Same, "Features to switch, as Name=true,Other=false."),
    flag("config-file", Text, "", Member, Built, NoKey,
        "Configuration file (YAML or JSON); all other flags and all variables are then ignored."),
    flag("version", Bool, "false", Member, Built, NoKey, "Print the version and exit."),
    // Clustering.
    flag("initial-advertise-peer-urls", Urls, "http://localhost:2380", Clustering, Built, Same,
        "Peer URLs of this member, as the others reach it."),
    flag("initial-cluster", Text, "default=http://localhost:2380", Clustering, Built, Same,
        "Members of a new cluster, as name=url,name=url."),
    flag("initial-cluster-state", Choice(&["new", "existing"]), "new", Clustering, Built, Same,
        "Whether this member starts a new cluster or joins an existing one; unused once it has data."),
    flag("initial-cluster-token", Text, "etcd-cluster", Clustering, Built, Same,
        "Part of every id of a new cluster; keeps clusters with equal URLs apart."),
    flag("advertise-client-urls", Urls, "http://localhost:2379", Clustering, Built, Same,
        "Client URLs of this member, as clients reach it; needed when --listen-client-urls is given."),
    flag("discovery-token", Text, "", Clustering, Built, At(&["discovery-config", "token"]),
        "Name of the cluster in the discovery service."),
    flag("discovery-endpoints", UniqueStrings, "", Clustering, Built, At(&["discovery-config", "client", "endpoints"]),
        "gRPC endpoints of the discovery service."),
    flag("discovery-dial-timeout", Duration, "2s", Clustering, Built,
        At(&["discovery-config", "client", "dial-timeout"]), "Discovery: how long connecting may take."),
    flag("discovery-request-timeout", Duration, "5s", Clustering, Built,
        At(&["discovery-config", "client", "request-timeout"]), "Discovery: how long a request may take."),
    flag("discovery-keepalive-time", Duration, "2s", Clustering, Built,
        At(&["discovery-config", "client", "keepalive-time"]), "Discovery: time between two pings."),
    flag("discovery-keepalive-timeout", Duration, "6s", Clustering, Built,
        At(&["discovery-config", "client", "keepalive-timeout"]), "Discovery: how long an answer to a ping may take."),
    flag("discovery-insecure-transport", Bool, "true", Clustering, Built,
        At(&["discovery-config", "client", "secure", "insecure-transport"]), "Discovery: connect without TLS."),
    flag("discovery-insecure-skip-tls-verify", Bool, "false", Clustering, Built,
        At(&["discovery-config", "client", "secure", "insecure-skip-tls-verify"]),
        "Discovery: do not check the service's certificate; for tests."),
    flag("discovery-cert", Text, "", Clustering, Built,
        At(&["discovery-config", "client", "secure", "cert"]), "Discovery: client certificate file."),
    flag("discovery-key", Text, "", Clustering, Built,
        At(&["discovery-config", "client", "secure", "key"]), "Discovery: client key file."),
    flag("discovery-cacert", Text, "", Clustering, Built,
        At(&["discovery-config", "client", "secure", "cacert"]), "Discovery: file of authorities to trust."),
    flag("discovery-user", Text, "", Clustering, DISCOVERY_AUTH,
        At(&["discovery-config", "client", "auth", "username"]), "Discovery: user name."),
    flag("discovery-password", Text, "", Clustering, DISCOVERY_AUTH,
        At(&["discovery-config", "client", "auth", "password"]), "Discovery: password."),
    flag("discovery-fallback", Choice(&["exit", "proxy"]), "exit", Clustering, Built, NoKey,
        "What to do when discovery fails: only 'exit'."),
    flag("discovery-srv", Text, "", Clustering, Built, Same, "DNS domain whose SRV records name the members."),
    flag("discovery-srv-name", Text, "", Clustering, Built, Same, "Suffix of the SRV service name."),
    flag("strict-reconfig-check", Bool, "true", Clustering, Built, Same,
        "Refuse membership changes that would cost the quorum."),
    flag("pre-vote", Bool, "true", Clustering, Built, Same,
        "Ask before an election, so that a member that comes back disturbs nobody."),
    flag("auto-compaction-mode", Text, "periodic", Clustering, Built, Same,
        "Meaning of --auto-compaction-retention: 'periodic' for a time, 'revision' for a number."),
    flag("auto-compaction-retention", Text, "0", Clustering, Built, Same,
        "History to keep when compacting automatically; 0 for no automatic compaction."),
    flag("v2-deprecation", Choices(&["write-only", "write-only-skip-check", "write-only-drop-data", "gone"]), "",
        Clustering, Built, Same, "Takes write-only, write-only-skip-check, write-only-drop-data or gone; no effect. Deprecated."),
    // Security.
    flag("cert-file", Text, "", Security, Built, At(&["client-transport-security", "cert-file"]),
        "Certificate of the client listeners."),
    flag("key-file", Text, "", Security, Built, At(&["client-transport-security", "key-file"]),
        "Key of the client listeners."),
    flag("client-cert-file", Text, "", Security, Built, At(&["client-transport-security", "client-cert-file"]),
        "Certificate to use towards the own client listeners; only checked: nothing here connects to them."),
    flag("client-key-file", Text, "", Security, Built, At(&["client-transport-security", "client-key-file"]),
        "Key to use towards the own client listeners; only checked."),
    flag("client-cert-auth", Bool, "false", Security, Built, At(&["client-transport-security", "client-cert-auth"]),
        "Require certificates of clients."),
    flag("trusted-ca-file", Text, "", Security, Built, At(&["client-transport-security", "trusted-ca-file"]),
        "Authorities that clients' certificates must come from."),
    flag("client-crl-file", Text, "", Security, Built, NoKey, "Revoked certificates of clients."),
    flag("client-cert-allowed-hostname", Strings, "", Security, Built, At(&["client-transport-security", "allowed-hostname"]),
        "Names that clients' certificates may carry."),
    flag("auto-tls", Bool, "false", Security, Built, At(&["client-transport-security", "auto-tls"]),
        "Use a self-signed certificate for clients."),
    flag("peer-cert-file", Text, "", Security, Built, At(&["peer-transport-security", "cert-file"]),
        "Certificate of the peer listeners."),
    flag("peer-key-file", Text, "", Security, Built, At(&["peer-transport-security", "key-file"]), "Key of the peer listeners."),
    flag("peer-client-cert-file", Text, "", Security, Built, At(&["peer-transport-security", "client-cert-file"]),
        "Certificate to use towards other members, if not the same."),
    flag("peer-client-key-file", Text, "", Security, Built, At(&["peer-transport-security", "client-key-file"]),
        "Key to use towards other members, if not the same."),
    flag("peer-client-cert-auth", Bool, "false", Security, Built, At(&["peer-transport-security", "client-cert-auth"]),
        "Require certificates of other members."),
    flag("peer-trusted-ca-file", Text, "", Security, Built, At(&["peer-transport-security", "trusted-ca-file"]),
        "Authorities that members' certificates must come from."),
    flag("peer-crl-file", Text, "", Security, Built, NoKey, "Revoked certificates of members."),
    flag("peer-cert-allowed-cn", Strings, "", Security, Built, At(&["peer-transport-security", "allowed-cn"]),
        "Common names that members' certificates may carry."),
    flag("peer-cert-allowed-hostname", Strings, "", Security, Built, At(&["peer-transport-security", "allowed-hostname"]),
        "Names that members' certificates may carry."),
    flag("peer-auto-tls", Bool, "false", Security, Built, At(&["peer-transport-security", "auto-tls"]),
        "Use a self-signed certificate between members."),
    flag("peer-skip-client-san-verification", Bool, "false", Security, Built,
        At(&["peer-transport-security", "skip-client-san-verification"]),
        "Do not compare the names in members' certificates with their addresses."),
    flag("self-signed-cert-validity", Uint, "1", Security, Built, Same,
        "Years that a self-signed certificate is valid."),
    flag("cipher-suites", Strings, "", Security, Built, Same, "TLS cipher suites to allow, by Go's names."),
    flag("tls-min-version", Text, "TLS1.2", Security, Built, Same, "Lowest TLS version: TLS1.2 or TLS1.3."),
    flag("tls-max-version", Text, "", Security, Built, Same, "Highest TLS version: TLS1.2 or TLS1.3; empty for no limit."),
    flag("cors", Cors, "*", Security, Built, Same, "Origins that browsers may send requests from; * for all."),
    flag("host-whitelist", UniqueStrings, "*", Security, Built, Same,
        "Host names that plain HTTP requests may carry; * for all."),
    // Auth.
    flag("auth-token", Text, "simple", Auth, Built, Same,
        "Type and options of tokens: 'simple' or 'jwt,...'."),
    flag("auth-token-ttl", Uint, "300", Auth, Built, Same,
        "Seconds that an unused simple token lives."),
    flag("bcrypt-cost", Uint, "10", Auth, Built, Same,
        "Cost of hashing passwords, 4 to 31."),
    // Profiling and monitoring.
    flag("enable-pprof", Bool, "false", Monitoring, Built, Same,
        "Serve a CPU profile under /debug/pprof/, to clients of HTTP; there are no others here."),
    flag("metrics", Text, "basic", Monitoring, Built, Same,
        "'extensive' adds a histogram of gRPC handling times to 'basic'."),
    flag("listen-metrics-urls", Urls, "", Monitoring, Built, Same, "Where to listen for /metrics and health checks only."),
    // Logging.
    flag("logger", Text, "zap", Logging, Built, Same, "Only 'zap', the form of the log lines."),
    flag("log-outputs", UniqueStrings, "default", Logging, Built, Same,
        "Where log lines go: 'default' or 'stderr', 'stdout', 'systemd/journal', file paths."),
    flag("log-level", Text, "info", Logging, Built, Same, "debug, info, warn, error, panic or fatal."),
    flag("log-format", Text, "json", Logging, Built, Same, "json or console."),
    flag("enable-log-rotation", Bool, "false", Logging, Built, Same,
        "Rotate the one file among --log-outputs."),
    flag("log-rotation-config-json", Text,
        r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#,
        Logging, Built, Same, "How to rotate: megabytes, days, files."),
    flag("warning-unary-request-duration", Duration, "300ms", Logging, Built, Same,
        "Log a warning about calls that take longer."),
    // Distributed tracing.
    flag("enable-distributed-tracing", Bool, "false", Tracing, Built, Same,
        "Send spans to a collector."),
    flag("distributed-tracing-address", Text, "localhost:4317", Tracing, Built, Same, "Address of the collector."),
    flag("distributed-tracing-service-name", Text, "etcd", Tracing, Built, Same, "Service name of the spans."),
    flag("distributed-tracing-instance-id", Text, "", Tracing, Built, Same, "Service instance id of the spans."),
    flag("distributed-tracing-sampling-rate", Int, "0", Tracing, Built, Same, "Spans to send of each million."),
    // Features.
    flag("corrupt-check-time", Duration, "0", Features, Built, Same,
        "Time between two comparisons of the members' hashes; 0 for none."),
    flag("compact-hash-check-time", Duration, "1m", Features, Built, Same,
        "Time between two comparisons of the members' hashes at compactions."),
    flag("compaction-batch-limit", Int, "0", Features, Built, Same, "Revisions that compaction removes at a time; 0 for 1000."),
    flag("compaction-sleep-interval", Duration, "0", Features, Built, Same,
        "Pause of compaction between two batches; 0 for 10ms."),
    flag("watch-progress-notify-interval", Duration, "0", Features, Built, Same,
        "Time between two progress notifications to watchers; 0 for 10m."),
    flag("warning-apply-duration", Duration, "100ms", Features, Built, Same, "Log a warning about applies that take longer."),
    flag("bootstrap-defrag-threshold-megabytes", Uint, "0", Features, Built,
        Same, "Defragment at start if that frees so many megabytes; 0 for never."),
    flag("max-learners", Int, "1", Features, Built, Same, "Most learners in the cluster."),
    flag("downgrade-check-time", Duration, "5s", Features, Built, Same,
        "Time between two looks at a running downgrade."),
    // Unsafe.
    flag("force-new-cluster", Bool, "false", Unsafe, Built, Same,
        "The other members are lost: go on alone with the data of this one, and remove them."),
    flag("unsafe-no-fsync", Bool, "false", Unsafe, Built, Same,
        "Never wait for the disk. A crash of the machine loses data."),
    // Ignored by etcd too.
    ignored("cluster-active-size"),
    ignored("cluster-remove-delay"),
    ignored("cluster-sync-interval"),
    ignored("config"),
    ignored("force"),
    ignored("max-result-buffer"),
    ignored("max-retry-attempts"),
    ignored("peer-heartbeat-interval"),
    ignored("peer-election-timeout"),
    ignored("retry-interval"),
    ignored("snapshot"),
    ignored("v"),
    ignored("vv"),
    ignored("test.coverprofile"),
    ignored("test.outputdir"),
];
