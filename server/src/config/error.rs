//! Everything that can be wrong with a configuration, in etcd's words where etcd has the case
//! (spec/server-flags.md sections 1 and 6), and in ours where Ferrite lacks something.

use super::value::GoDuration;

/// The version of this program.
pub(super) const FERRITE: &str = concat!("Ferrite ", env!("CARGO_PKG_VERSION"));

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A positional argument.
    #[error("{0:?} is not a valid flag")]
    Positional(String),
    /// A variable of a flag that is also on the command line.
    #[error(
        "conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or disable flag))"
    )]
    Shadowed {
        /// The variable.
        name: String,
    },
    /// A variable whose value does not parse.
    #[error("invalid value {value:?} for {name}: {reason}")]
    Variable {
        /// The variable.
        name: String,
        /// Its value.
        value: String,
        /// Why not.
        reason: String,
    },
    /// The configuration file cannot be read, is no YAML, or holds a value of the wrong type.
    #[error("{0}")]
    File(String),
    /// Bad URLs in the configuration file.
    #[error("unexpected error setting up {key}: {reason}")]
    FileUrls {
        /// The key, as etcd names it.
        key: &'static str,
        /// Why not.
        reason: String,
    },
    /// The logger of etcd before 3.5.
    #[error("--logger=capnslog is removed in v3.5")]
    Capnslog,
    /// Another logger.
    #[error("unknown logger option {0:?}")]
    Logger(String),
    /// `default` among several outputs.
    #[error("multi logoutput for \"default\" is not supported yet")]
    MixedDefaultOutput,
    /// The journal among several outputs.
    #[error(
        "running with systemd/journal but other '--log-outputs' values ({}) are configured with 'default'; override 'default' value with something else",
        go_list(.0)
    )]
    MixedJournal(Vec<String>),
    /// Another level.
    #[error("unrecognized level: {0:?}")]
    LogLevel(String),
    /// Another format.
    #[error("unknown log format: {0}, supported values json, console")]
    LogFormat(String),
    /// Rotation is of exactly one file.
    #[error("--log-outputs requires a single file path when --log-rotate-config-json is defined")]
    RotationWithoutFile,
    /// The description of a rotation is none.
    #[error("{0}")]
    Rotation(String),
    /// A URL to listen on that is not an address.
    #[error("{0}")]
    Bind(String),
    /// A bad advertised peer URL.
    #[error("--initial-advertise-peer-urls {urls:?} must be \"host:port\" ({reason})")]
    AdvertisePeer {
        /// All of them.
        urls: String,
        /// Why not.
        reason: String,
    },
    /// A bad advertised client URL.
    #[error(
        "--advertise-client-urls {urls:?} must be in the format \"host:port\", \"unix:/path/to/socket\" or \"unixs:/path/to/socket\" ({reason})"
    )]
    AdvertiseClient {
        /// All of them.
        urls: String,
        /// Why not.
        reason: String,
    },
    /// A state other than new and existing, from a file.
    #[error("unexpected clusterState {0:?}")]
    ClusterState(String),
    /// More than one way to find the cluster.
    #[error(
        "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery-endpoints\" or \"discovery-srv\""
    )]
    ConflictingBootstrap,
    /// Half of discovery.
    #[error("both --discovery-token and --discovery-endpoints must be set")]
    HalfDiscovery,
    /// An empty endpoint.
    #[error("--discovery-endpoints must not contain empty endpoints")]
    EmptyDiscoveryEndpoint,
    /// Falling back to something that is gone.
    #[error("v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"")]
    DiscoveryFallback,
    /// No heartbeat.
    #[error("--heartbeat-interval must be >0 (set to 0ms)")]
    ZeroHeartbeat,
    /// No election timeout.
    #[error("--election-timeout must be >0 (set to 0ms)")]
    ZeroElection,
    /// Too few heartbeats in an election timeout.
    #[error(
        "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]"
    )]
    ShortElection {
        /// Milliseconds.
        election: u64,
        /// Milliseconds.
        heartbeat: u64,
    },
    /// Too long an election timeout.
    #[error("--election-timeout[{election}ms] is too long, and should be set less than {limit}ms")]
    LongElection {
        /// Milliseconds.
        election: u64,
        /// Milliseconds.
        limit: u64,
    },
    /// Clients would be told the default URLs of a member that listens elsewhere.
    #[error("--advertise-client-urls is required when --listen-client-urls is set explicitly")]
    UnsetAdvertiseClient,
    /// An empty mode.
    #[error("undefined auto-compaction-mode")]
    NoCompactionMode,
    /// Another mode.
    #[error("unknown auto-compaction-mode {0:?}")]
    CompactionMode(String),
    /// Neither a number nor a duration.
    #[error("error parsing CompactionRetention: {0}")]
    CompactionRetention(String),
    /// A batch of no revisions.
    #[error("--compaction-batch-limit must be >0 (set to {0})")]
    CompactionBatch(i64),
    /// A sampling rate that is none.
    #[error("distributed tracing configurition is not valid: (tracing sampling rate must be {0})")]
    SamplingRate(&'static str),
    /// A gate without the gate it needs.
    #[error(
        "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint"
    )]
    PersistWithoutCheckpoint,
    /// No period.
    #[error("--compact-hash-check-time must be >0 (set to {0})")]
    CompactHashCheckTime(GoDuration),
    /// Another TLS version.
    #[error("unexpected TLS version {0:?} (must be one of: TLS1.2, TLS1.3)")]
    TlsVersion(String),
    /// The wrong way round.
    #[error("min version ({min}) is greater than max version ({max})")]
    TlsVersions {
        /// Lowest.
        min: String,
        /// Highest.
        max: String,
    },
    /// Cipher suites are of TLS 1.2 only.
    #[error("cipher suites cannot be configured when only TLS1.3 is enabled")]
    CipherSuites,
    /// A suite that Go does not know.
    #[error(transparent)]
    CipherSuite(ferrite_tls::Unknown),
    /// TLS without a certificate.
    #[error(
        "TLS key/cert (--cert-file, --key-file) must be provided for client url {0} with HTTPS scheme"
    )]
    ClientTlsWithoutCert(String),
    /// TLS without a certificate.
    #[error(
        "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url"
    )]
    MetricsTlsWithoutCert,
    /// TLS without a certificate.
    #[error("cannot listen on TLS for {0}: KeyFile and CertFile are not presented")]
    PeerTlsWithoutCert(String),
    /// One address for two kinds of listener.
    #[error(
        "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url {0}"
    )]
    SameClientUrl(String),
    /// Something that Ferrite does not have (yet).
    #[error("--{flag}={value}: {reason} in {FERRITE}; leave it at its default {default:?}")]
    NotBuilt {
        /// The flag.
        flag: &'static str,
        /// What was asked for.
        value: String,
        /// Why it is refused.
        reason: &'static str,
        /// What is accepted.
        default: &'static str,
    },

    /// `--initial-cluster` does not parse.
    #[error("error setting up initial cluster: {0}")]
    InitialCluster(String),
    /// The own name is missing.
    #[error("couldn't find local name {0:?} in the initial cluster configuration")]
    LocalNameMissing(String),
    /// The own URLs differ.
    #[error(
        "--initial-cluster has {missing} but missing from --initial-advertise-peer-urls={advertised} ({reason})"
    )]
    NotAdvertised {
        /// `name=url`, joined.
        missing: String,
        /// All of them.
        advertised: String,
        /// How the comparison failed.
        reason: String,
    },
    /// The own URLs differ.
    #[error(
        "--initial-advertise-peer-urls has {missing} but missing from --initial-cluster={cluster}"
    )]
    NotInCluster {
        /// URLs, joined.
        missing: String,
        /// `name=url`, joined.
        cluster: String,
    },
    /// The own URLs are the same letters and cannot be compared all the same.
    #[error("failed to resolve {advertised} to match --initial-cluster={cluster} ({reason})")]
    Unresolved {
        /// URLs, joined.
        advertised: String,
        /// `name=url`, joined.
        cluster: String,
        /// How the comparison failed.
        reason: String,
    },
    /// Two ways to find the cluster.
    #[error("discovery URL should not be set when joining existing initial cluster")]
    DiscoveryOfExisting,
    /// One URL twice.
    #[error("initial cluster {0} has duplicate url")]
    DuplicateUrl(String),
}

/// Everything that is wrong, in the order of etcd's checks; never empty. Prints the messages,
/// separated by semicolons: with one problem, exactly etcd's line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Error>);

impl std::fmt::Display for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl From<Error> for Problems {
    fn from(error: Error) -> Self {
        Problems(vec![error])
    }
}

/// A list of texts as Go's `%q` prints it.
fn go_list(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| format!("{text:?}")).collect();
    format!("[{}]", quoted.join(" "))
}
