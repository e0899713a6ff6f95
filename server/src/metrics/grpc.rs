//! `grpc_server_*`: one prepared [`Rpc`] per method, an array of counters per status code, so that
//! counting a call is a few atomic additions and no label lookup (spec/metrics.md section 6).

use std::sync::OnceLock;
use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};
use tonic::Code;

use super::register::Registrar;

/// How the messages of a method flow; label `grpc_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MethodType {
    /// One request, one response.
    Unary,
    /// One request, many responses.
    ServerStream,
    /// Many of both.
    BidiStream,
}

impl MethodType {
    /// The label value.
    pub const fn name(self) -> &'static str {
        match self {
            MethodType::Unary => "unary",
            MethodType::ServerStream => "server_stream",
            MethodType::BidiStream => "bidi_stream",
        }
    }
}

macro_rules! methods {
    ($($service:literal: $($variant:ident $method:literal $kind:ident),+;)+) => {
        /// Every method.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "service and method name are the documentation")]
        pub enum Method { $($($variant),+),+ }

        impl Method {
            /// Every method, in the order of the discriminants.
            pub const ALL: &'static [Method] = &[$($(Method::$variant),+),+];

            /// Full service name, e.g. `etcdserverpb.KV`.
            pub const fn service(self) -> &'static str {
                match self { $($(Method::$variant)|+ => $service),+ }
            }

            /// Method name, e.g. `Range`.
            pub const fn name(self) -> &'static str {
                match self { $($(Method::$variant => $method),+),+ }
            }

            /// How its messages flow.
            pub const fn kind(self) -> MethodType {
                match self { $($(Method::$variant => MethodType::$kind),+),+ }
            }

            /// The method of an HTTP/2 path such as `/etcdserverpb.KV/Range`.
            pub fn from_path(path: &str) -> Option<Method> {
                match path {
                    $($(concat!("/", $service, "/", $method) => Some(Method::$variant),)+)+
                    _ => None,
                }
            }
        }
    };
}

methods! {
    "etcdserverpb.KV":
        KvRange "Range" Unary,
        KvRangeStream "RangeStream" ServerStream,
        KvPut "Put" Unary,
        KvDeleteRange "DeleteRange" Unary,
        KvTxn "Txn" Unary,
        KvCompact "Compact" Unary;
    "etcdserverpb.Watch":
        WatchWatch "Watch" BidiStream;
    "etcdserverpb.Lease":
        LeaseGrant "LeaseGrant" Unary,
        LeaseRevoke "LeaseRevoke" Unary,
        LeaseKeepAlive "LeaseKeepAlive" BidiStream,
        LeaseTimeToLive "LeaseTimeToLive" Unary,
        LeaseLeases "LeaseLeases" Unary;
    "etcdserverpb.Cluster":
        ClusterMemberAdd "MemberAdd" Unary,
        ClusterMemberRemove "MemberRemove" Unary,
        ClusterMemberUpdate "MemberUpdate" Unary,
        ClusterMemberList "MemberList" Unary,
        ClusterMemberPromote "MemberPromote" Unary;
    "etcdserverpb.Maintenance":
        MaintenanceAlarm "Alarm" Unary,
        MaintenanceStatus "Status" Unary,
        MaintenanceDefragment "Defragment" Unary,
        MaintenanceHash "Hash" Unary,
        MaintenanceHashKv "HashKV" Unary,
        MaintenanceSnapshot "Snapshot" ServerStream,
        MaintenanceMoveLeader "MoveLeader" Unary,
        MaintenanceDowngrade "Downgrade" Unary;
    "etcdserverpb.Auth":
        AuthEnable "AuthEnable" Unary,
        AuthDisable "AuthDisable" Unary,
        AuthStatus "AuthStatus" Unary,
        AuthAuthenticate "Authenticate" Unary,
        AuthUserAdd "UserAdd" Unary,
        AuthUserGet "UserGet" Unary,
        AuthUserList "UserList" Unary,
        AuthUserDelete "UserDelete" Unary,
        AuthUserChangePassword "UserChangePassword" Unary,
        AuthUserGrantRole "UserGrantRole" Unary,
        AuthUserRevokeRole "UserRevokeRole" Unary,
        AuthRoleAdd "RoleAdd" Unary,
        AuthRoleGet "RoleGet" Unary,
        AuthRoleList "RoleList" Unary,
        AuthRoleDelete "RoleDelete" Unary,
        AuthRoleGrantPermission "RoleGrantPermission" Unary,
        AuthRoleRevokePermission "RoleRevokePermission" Unary;
    "v3lockpb.Lock":
        LockLock "Lock" Unary,
        LockUnlock "Unlock" Unary;
    "v3electionpb.Election":
        ElectionCampaign "Campaign" Unary,
        ElectionProclaim "Proclaim" Unary,
        ElectionLeader "Leader" Unary,
        ElectionObserve "Observe" ServerStream,
        ElectionResign "Resign" Unary;
    "grpc.health.v1.Health":
        HealthCheck "Check" Unary,
        HealthList "List" Unary,
        HealthWatch "Watch" ServerStream;
}

/// `grpc_code` by number: etcd's names, which spell 1 `Canceled`.
pub const CODE_NAMES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// Buckets of `grpc_server_handling_seconds`.
const HANDLING_BUCKETS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// The counters of one method. Count a call with [`Rpc::started`], one [`Rpc::handled`], and the
/// messages in between (a unary call has one each).
pub struct Rpc {
    started: IntCounter,
    received: IntCounter,
    sent: IntCounter,
    handled: [IntCounter; CODE_NAMES.len()],
    /// Only with `--metrics extensive`.
    handling: Option<Histogram>,
}

impl Rpc {
    /// A call began.
    pub fn started(&self) {
        self.started.inc();
    }

    /// A request message was received.
    pub fn received(&self) {
        self.received.inc();
    }

    /// A response message was sent.
    pub fn sent(&self) {
        self.sent.inc();
    }

    /// A call ended with this code after `took` since it began.
    pub fn handled(&self, code: Code, took: Duration) {
        self.handled[code as usize].inc();
        if let Some(handling) = &self.handling {
            handling.observe(took.as_secs_f64());
        }
    }
}

/// `grpc_server_*` of all methods, all at 0 from the start but those of Lock and Election, which are
/// there once they are used.
pub struct GrpcMetrics {
    methods: Vec<OnceLock<Rpc>>,
    families: Families,
}

struct Families {
    started: IntCounterVec,
    received: IntCounterVec,
    sent: IntCounterVec,
    handled: IntCounterVec,
    handling: Option<HistogramVec>,
}

impl Families {
    fn of(&self, method: Method) -> Rpc {
        let (kind, service, name) = (method.kind().name(), method.service(), method.name());
        let values = [kind, service, name];
        Rpc {
            started: self.started.with_label_values(&values),
            received: self.received.with_label_values(&values),
            sent: self.sent.with_label_values(&values),
            handled: CODE_NAMES.map(|code| {
                let values = [kind, service, name, code];
                self.handled.with_label_values(&values)
            }),
            handling: self
                .handling
                .as_ref()
                .map(|handling| handling.with_label_values(&values)),
        }
    }
}

impl Method {
    /// Whether its series exist from the start.
    pub fn is_counted_from_the_start(self) -> bool {
        !matches!(self.service(), "v3lockpb.Lock" | "v3electionpb.Election")
    }
}

impl GrpcMetrics {
    pub(super) fn new(r: &Registrar<'_>, extensive: bool) -> Self {
        let labels = ["grpc_type", "grpc_service", "grpc_method"];
        let started = r.counter_vec("grpc_server_started_total", "Calls begun.", &labels);
        let received = r.counter_vec(
            "grpc_server_msg_received_total",
            "Messages received in calls.",
            &labels,
        );
        let sent = r.counter_vec(
            "grpc_server_msg_sent_total",
            "Messages sent in calls.",
            &labels,
        );
        let handled = r.counter_vec(
            "grpc_server_handled_total",
            "Calls ended, by status code.",
            &["grpc_type", "grpc_service", "grpc_method", "grpc_code"],
        );
        let handling = extensive.then(|| {
            r.histogram_vec(
                "grpc_server_handling_seconds",
                "Time from the beginning to the end of a call.",
                &labels,
                HANDLING_BUCKETS.to_vec(),
            )
        });
        let families = Families {
            started,
            received,
            sent,
            handled,
            handling,
        };
        let methods = Method::ALL.iter().map(|method| {
            let rpc = OnceLock::new();
            if method.is_counted_from_the_start() {
                rpc.get_or_init(|| families.of(*method));
            }
            rpc
        });
        Self {
            methods: methods.collect(),
            families,
        }
    }

    /// The counters of a method.
    pub fn method(&self, method: Method) -> &Rpc {
        self.methods[method as usize].get_or_init(|| self.families.of(method))
    }

    /// The counters of an HTTP/2 path such as `/etcdserverpb.KV/Range`.
    pub fn path(&self, path: &str) -> Option<&Rpc> {
        Method::from_path(path).map(|method| self.method(method))
    }
}
