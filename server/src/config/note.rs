//! What configuration has to say besides its result. It runs before the log is set up, so it
//! returns notes, and the program emits them once there is a log.

use tracing::{error, info, warn};

use super::gates;
use super::value::GoDuration;

/// One line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The command line.
    Running {
        /// The program's name first.
        args: Vec<String>,
    },
    /// A variable was taken.
    VariableUsed {
        /// Variable.
        name: String,
        /// Value.
        value: String,
    },
    /// An `ETCD_*` variable of no flag, or an empty one.
    VariableUnknown {
        /// `NAME=value`.
        variable: String,
    },
    /// `ETCD_VERSION` is set.
    VersionVariable {
        /// Value.
        value: String,
    },
    /// A variable and its flag are both there.
    VariableShadowed {
        /// Variable.
        name: String,
    },
    /// A configuration file was read.
    FileLoaded {
        /// Its path.
        path: String,
    },
    /// A flag that goes away.
    Deprecated(&'static str),
    /// A flag that changes nothing here.
    NoEffect {
        /// Flag.
        flag: &'static str,
        /// A clause.
        why: &'static str,
    },
    /// A feature gate that goes away.
    Gate(gates::Warning),
    /// HTTP and gRPC share the client listeners.
    SinglePort,
    /// The name is the default one.
    DefaultName {
        /// Name.
        name: String,
    },
    /// The data directory is the default one.
    DefaultDataDir {
        /// Path.
        data_dir: String,
    },
    /// The advertised host was found out.
    DefaultHost {
        /// Host.
        host: String,
    },
    /// A peer timeout below its minimum.
    PeerTimeoutRaised {
        /// Flag.
        flag: &'static str,
        /// The minimum.
        minimum: GoDuration,
    },
    /// A quota beyond what etcd recommends.
    LargeQuota {
        /// Bytes.
        quota: i64,
        /// Bytes.
        recommended: i64,
    },
    /// A request limit beyond what etcd recommends.
    LargeRequests {
        /// Bytes.
        limit: u64,
        /// Bytes.
        recommended: u64,
    },
    /// Checkpoints of leases are asked for without their gate of persistence, which changes nothing
    /// since clusters of 3.6.
    CheckpointWithoutPersist,
    /// Cipher suites that were named and are not here.
    MissingSuites(String),
    /// Certificates, and a listener without TLS.
    CertificatesIgnored {
        /// Whose listener: `client` or `peer`.
        what: &'static str,
        /// The listener.
        url: String,
    },
    /// Clients shall show certificates, and a listener without TLS.
    CertAuthIgnored {
        /// Whose listener: `client` or `peer`.
        what: &'static str,
        /// The listener.
        url: String,
    },
    /// Certificates, and one that shall be made.
    AutoTlsIgnored(&'static str),
    /// Nothing waits for the disk.
    NoFsync,
    /// The configuration is not valid.
    Invalid {
        /// All problems.
        error: String,
    },
    /// One of the problems is the missing `--advertise-client-urls`.
    AdvertiseClientUnset {
        /// That problem.
        error: String,
    },
}

impl Note {
    /// Writes the line.
    pub fn emit(&self) {
        match self {
            Note::Running { args } => info!(args = ?args, "Running: "),
            Note::VariableUsed { name, value } => info!(
                "variable-name" = name,
                "variable-value" = value,
                "recognized and used environment variable"
            ),
            Note::VariableUnknown { variable } => warn!(
                "environment-variable" = variable,
                "unrecognized environment variable"
            ),
            Note::VersionVariable { value } => warn!(
                key = "ETCD_VERSION",
                value, "cannot set special environment variable"
            ),
            Note::VariableShadowed { name } => error!(
                "zap.level" = "fatal",
                "environment-variable" = name,
                "conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or disable flag))"
            ),
            Note::FileLoaded { path } => info!(
                path,
                "loaded server configuration, other configuration command line flags and environment variables will be ignored if provided"
            ),
            Note::Deprecated(text) => warn!("{text}"),
            Note::NoEffect { flag, why } => warn!("--{flag} has no effect: {why}"),
            Note::Gate(warning) => warn!("{}", warning.0),
            Note::SinglePort => warn!(
                "Running http and grpc server on single port. This is not recommended for production."
            ),
            Note::DefaultName { name } => warn!(
                name,
                "the name of this member is the default one; give each member its own --name"
            ),
            Note::DefaultDataDir { data_dir } => {
                warn!("data-dir" = data_dir, "'data-dir' was empty; using default")
            }
            Note::DefaultHost { host } => info!(host, "detected default host for advertise"),
            Note::PeerTimeoutRaised { flag, minimum } => {
                info!("{flag} increased to minimum value: {minimum}");
            }
            Note::LargeQuota { quota, recommended } => warn!(
                "quota-size-bytes" = quota,
                "quota-maximum-size-bytes" = recommended,
                "quota exceeds the maximum value"
            ),
            Note::LargeRequests { limit, recommended } => warn!(
                "max-request-bytes" = limit,
                "recommended-request-bytes" = recommended,
                "exceeded recommended request limit"
            ),
            Note::CheckpointWithoutPersist => warn!(
                "Detected that checkpointing is enabled without persistence. Consider enabling feature gate LeaseCheckpointPersist"
            ),
            Note::MissingSuites(suites) => warn!(
                "cipher-suites" = suites,
                "cipher suites are left out: this program does not have them"
            ),
            Note::CertificatesIgnored {
                what: "client",
                url,
            } => warn!(
                "client-url" = url,
                "scheme is http or unix while key and cert files are present; ignoring key and cert files"
            ),
            Note::CertificatesIgnored { url, .. } => warn!(
                "peer-url" = url,
                "scheme is HTTP while key and cert files are present; ignoring key and cert files"
            ),
            Note::CertAuthIgnored {
                what: "client",
                url,
            } => warn!(
                "client-url" = url,
                "scheme is http or unix while --client-cert-auth is enabled; ignoring client cert auth for this URL"
            ),
            Note::CertAuthIgnored { url, .. } => warn!(
                "peer-url" = url,
                "scheme is HTTP while --peer-client-cert-auth is enabled; ignoring client cert auth for this URL"
            ),
            Note::AutoTlsIgnored(what) => warn!("ignoring {what} auto TLS since certs given"),
            Note::NoFsync => warn!(
                "--unsafe-no-fsync: writes are acknowledged before they are on disk; a crash of the machine loses data"
            ),
            Note::Invalid { error } => warn!(error, "failed to verify flags"),
            Note::AdvertiseClientUnset { error } => {
                warn!(error, "advertise client URLs are not set");
            }
        }
    }
}
