//! etcd's errors: gRPC code and text of each, in one table for server and client.
//!
//! Clients recognise an error by its **text**; the Go client maps the text back to a constant and
//! ignores the code it received. Texts are therefore part of the API and never change.
//!
//! Two errors leave a server with code `UNKNOWN` although their constant names another code
//! ([`Error::wire_code`] against [`Error::code`]): etcd's own quirk, kept because clients see it.

use tonic::Code;

macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident, $code:ident, $wire:ident, $typed:literal, $text:literal;)*) => {
        /// An error of the etcd v3 API.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[non_exhaustive]
        pub enum Error {
            $($(#[$doc])* $name,)*
        }

        impl Error {
            /// Every error of the table.
            pub const ALL: &'static [Error] = &[$(Error::$name,)*];

            /// The code that the error's constant carries and that clients report.
            pub const fn code(self) -> Code {
                match self {
                    $(Error::$name => Code::$code,)*
                }
            }

            /// The code that a server sends.
            pub const fn wire_code(self) -> Code {
                match self {
                    $(Error::$name => Code::$wire,)*
                }
            }

            /// The text, as sent and as matched by clients.
            pub const fn message(self) -> &'static str {
                match self {
                    $(Error::$name => $text,)*
                }
            }

            /// Whether etcd's Go client turns the text back into a typed error.
            pub const fn is_typed(self) -> bool {
                match self {
                    $(Error::$name => $typed,)*
                }
            }
        }
    };
}

errors! {
    /// Range, RangeStream, Put, DeleteRange with empty key; the same op inside Txn; empty key
    /// in a Compare. (Watch with an empty key is not an error.)
    EmptyKey, InvalidArgument, InvalidArgument, true,
        "etcdserver: key is not provided";
    /// Put with `ignore_value` or `ignore_lease` on a missing key (also inside the taken branch
    /// of a Txn); a Txn op with no member of the oneof set (any branch)
    KeyNotFound, InvalidArgument, InvalidArgument, true,
        "etcdserver: key not found";
    /// Put with `ignore_value` and a non-empty value
    ValueProvided, InvalidArgument, InvalidArgument, true,
        "etcdserver: value is provided";
    /// Put with `ignore_lease` and lease ≠ 0
    LeaseProvided, InvalidArgument, InvalidArgument, true,
        "etcdserver: lease is provided";
    /// Txn: the largest of len(compare), len(success), len(failure) exceeds `--max-txn-ops`
    /// (128); nested Txn: exceeds what the outer levels left over
    TooManyOps, InvalidArgument, InvalidArgument, true,
        "etcdserver: too many operations in txn request";
    /// Txn: a key put twice, or put and deleted, on paths that can both run
    DuplicateKey, InvalidArgument, InvalidArgument, true,
        "etcdserver: duplicate key given in txn request";
    /// Range, RangeStream, Txn range: unknown sort_order or sort_target number
    InvalidSortOption, InvalidArgument, InvalidArgument, true,
        "etcdserver: invalid sort option";
    /// read revision < compaction revision; Compact at a revision <= the last one; HashKV at a
    /// compacted revision; RangeStream when its revision is compacted mid-stream. (Watch:
    /// in-band, §3)
    Compacted, OutOfRange, OutOfRange, true,
        "etcdserver: mvcc: required revision has been compacted";
    /// read, Compact or HashKV revision > current revision; in Txn compared with the revision
    /// before the Txn
    FutureRev, OutOfRange, OutOfRange, true,
        "etcdserver: mvcc: required revision is a future revision";
    /// Put, LeaseGrant, Txn with puts: the quota check of the answering member fails, the
    /// NOSPACE alarm is active, or the quota is found exceeded while applying
    NoSpace, ResourceExhausted, ResourceExhausted, true,
        "etcdserver: mvcc: database space exceeded";
    /// Put (also in the taken Txn branch) naming an unknown lease; LeaseRevoke of an unknown
    /// lease. (LeaseKeepAlive answers TTL 0, LeaseTimeToLive TTL -1, both without error)
    LeaseNotFound, NotFound, NotFound, true,
        "etcdserver: requested lease not found";
    /// LeaseGrant with an ID in use
    LeaseExist, FailedPrecondition, FailedPrecondition, true,
        "etcdserver: lease already exists";
    /// LeaseGrant with TTL > 9000000000
    LeaseTTLTooLarge, OutOfRange, OutOfRange, true,
        "etcdserver: too large lease TTL";
    /// end of a Watch stream whose context was cancelled (by the client, or by server
    /// shutdown); a client-side cancel may also surface as plain `context canceled`
    WatchCanceled, Cancelled, Cancelled, false,
        "etcdserver: watch canceled";
    /// MemberAdd producing an existing ID
    MemberExist, FailedPrecondition, FailedPrecondition, true,
        "etcdserver: member ID already exist";
    /// MemberAdd, MemberUpdate: a peer URL belongs to another member
    PeerURLExist, FailedPrecondition, FailedPrecondition, true,
        "etcdserver: Peer URLs already exists";
    /// strict reconfig check of MemberAdd (voter), MemberRemove (voter), MemberPromote fails.
    /// On the wire UNKNOWN (2)
    MemberNotEnoughStarted, FailedPrecondition, Unknown, true,
        "etcdserver: re-configuration failed due to not enough started members";
    /// MemberAdd with no URL or an unparsable one . MemberUpdate does not check URLs
    MemberBadURLs, InvalidArgument, InvalidArgument, true,
        "etcdserver: given member URLs are invalid";
    /// MemberRemove, MemberUpdate, MemberPromote of an unknown or already removed ID; MemberAdd
    /// whose generated ID was removed before
    MemberNotFound, NotFound, NotFound, true,
        "etcdserver: member not found";
    /// MemberPromote of a voter
    MemberNotLearner, FailedPrecondition, FailedPrecondition, true,
        "etcdserver: can only promote a learner member";
    /// MemberPromote: learner's match index < 90 % of the leader's
    LearnerNotReady, FailedPrecondition, FailedPrecondition, true,
        "etcdserver: can only promote a learner member which is in sync with leader";
    /// MemberAdd of a learner beyond `--max-learners` (1)
    TooManyLearners, FailedPrecondition, FailedPrecondition, true,
        "etcdserver: too many learner members in cluster";
    /// never sent over gRPC by the server; used between peers (HTTP 412 `cluster ID mismatch`)
    /// and by clients. Go also has the deprecated alias ErrGRPCClusterIdMismatch
    ClusterIDMismatch, FailedPrecondition, FailedPrecondition, true,
        "etcdserver: cluster ID mismatch";
    /// any RPC that goes through raft: the encoded `InternalRaftRequest` is larger than
    /// `--max-request-bytes` (1572864)
    RequestTooLarge, InvalidArgument, InvalidArgument, true,
        "etcdserver: request is too large";
    /// any RPC that goes through raft: committed index > applied index + 5000 (LeaseRevoke: +
    /// 10000 with feature gate `PriorityRequest`, default off). On the wire UNKNOWN (2)
    RequestTooManyRequests, ResourceExhausted, Unknown, true,
        "etcdserver: too many requests";
    /// AuthEnable without user `root`
    RootUserNotExist, FailedPrecondition, FailedPrecondition, true,
        "etcdserver: root user does not exist";
    /// AuthEnable and user `root` lacks role `root`
    RootRoleNotExist, FailedPrecondition, FailedPrecondition, true,
        "etcdserver: root user does not have root role";
    /// UserAdd of an existing name
    UserAlreadyExist, FailedPrecondition, FailedPrecondition, true,
        "etcdserver: user name already exists";
    /// UserAdd with empty name; also any RPC needing credentials when auth is on and the call
    /// has none
    UserEmpty, InvalidArgument, InvalidArgument, true,
        "etcdserver: user name is empty";
    /// UserGet, UserDelete, UserChangePassword, UserGrantRole, UserRevokeRole on an unknown
    /// user; admin check of a user deleted meanwhile
    UserNotFound, FailedPrecondition, FailedPrecondition, true,
        "etcdserver: user name not found";
    /// RoleAdd of an existing name
    RoleAlreadyExist, FailedPrecondition, FailedPrecondition, true,
        "etcdserver: role name already exists";
    /// RoleGet, RoleDelete, RoleGrantPermission, RoleRevokePermission on an unknown role;
    /// UserGrantRole of an unknown role other than `root`
    RoleNotFound, FailedPrecondition, FailedPrecondition, true,
        "etcdserver: role name not found";
    /// RoleAdd with empty name
    RoleEmpty, InvalidArgument, InvalidArgument, true,
        "etcdserver: role name is empty";
    /// Authenticate: unknown user or wrong password; also when the server runs with an empty
    /// `--auth-token`
    AuthFailed, InvalidArgument, InvalidArgument, true,
        "etcdserver: authentication failed, invalid user ID or password";
    /// RoleGrantPermission without `perm`
    PermissionNotGiven, InvalidArgument, InvalidArgument, false,
        "etcdserver: permission not given";
    /// key range not covered by the user's permissions; admin operation by a user without role
    /// `root`; unknown user in a key check
    PermissionDenied, PermissionDenied, PermissionDenied, true,
        "etcdserver: permission denied";
    /// UserRevokeRole of a role the user does not have
    RoleNotGranted, FailedPrecondition, FailedPrecondition, true,
        "etcdserver: role is not granted to the user";
    /// RoleRevokePermission without an exactly equal (key, range_end)
    PermissionNotGranted, FailedPrecondition, FailedPrecondition, true,
        "etcdserver: permission is not granted to the role";
    /// Authenticate while auth is off
    AuthNotEnabled, FailedPrecondition, FailedPrecondition, true,
        "etcdserver: authentication is not enabled";
    /// a token was sent and is unknown, expired, malformed or badly signed (any RPC that looks
    /// at credentials, only while auth is on)
    InvalidAuthToken, Unauthenticated, Unauthenticated, true,
        "etcdserver: invalid auth token";
    /// RoleGrantPermission with empty key or key >= range_end (range_end ≠ `\0`); while auth is
    /// on: delete user `root`, delete role `root`, revoke role `root` from `root`
    InvalidAuthMgmt, InvalidArgument, InvalidArgument, true,
        "etcdserver: invalid auth management";
    /// token's auth revision is older than the auth store; or the auth store changed during the
    /// call
    AuthOldRevision, InvalidArgument, InvalidArgument, true,
        "etcdserver: revision of auth store is old";
    /// Authenticate of a user that has no password; a password hash in a request that is none.
    /// In etcd an error of its insides, so it has neither a code nor the prefix of the others
    NoPasswordUser, Unknown, Unknown, false,
        "auth: authentication failed, password was given for no password user";
    /// metadata `client-api-version` is not valid UTF-8
    InvalidClientAPIVersion, InvalidArgument, InvalidArgument, false,
        "etcdserver: invalid client api version";
    /// `hasleader: true` and the member knows no leader; a stream opened with it and no leader
    /// for 3 election timeouts; lease forwarding (KeepAlive, TimeToLive) or MemberPromote
    /// forwarding finds no leader before its timeout
    NoLeader, Unavailable, Unavailable, true,
        "etcdserver: no leader";
    /// MoveLeader on a member that is not the leader
    NotLeader, FailedPrecondition, FailedPrecondition, true,
        "etcdserver: not leader";
    /// linearizable read while the leader changes; LeaseTimeToLive when the leader is demoted
    /// during the lookup
    LeaderChanged, Unavailable, Unavailable, true,
        "etcdserver: leader changed";
    /// the cluster version has no v3 RPC capability entry (does not happen with supported
    /// cluster versions 3.0–3.7)
    NotCapable, FailedPrecondition, FailedPrecondition, true,
        "etcdserver: not capable";
    /// request in progress or started while the server stops
    Stopped, Unavailable, Unavailable, true,
        "etcdserver: server stopped";
    /// accepted proposal not applied in time, read index not confirmed in time, lease/promote
    /// forwarding timed out. Timeout = 5 s + 2 × election timeout (7 s by default)
    Timeout, Unavailable, Unavailable, true,
        "etcdserver: request timed out";
    /// as Timeout, and the request started between (leader elected time − 2 election timeouts)
    /// and that time
    TimeoutDueToLeaderFail, Unavailable, Unavailable, true,
        "etcdserver: request timed out, possibly due to previous leader failure";
    /// as Timeout, and the member was not continuously connected to the leader (or, on the
    /// leader, to a quorum) since the start
    TimeoutDueToConnectionLost, Unavailable, Unavailable, true,
        "etcdserver: request timed out, possibly due to connection lost";
    /// LeaseKeepAlive, LeaseTimeToLive, MemberPromote on the leader: applied index did not
    /// catch up within 1 s
    TimeoutWaitAppliedIndex, Unavailable, Unavailable, false,
        "etcdserver: request timed out, waiting for the applied index took too long";
    /// MemberAdd, MemberRemove with strict reconfig check: not connected to enough voters for
    /// the last 5 s
    Unhealthy, Unavailable, Unavailable, true,
        "etcdserver: unhealthy cluster";
    /// Put, DeleteRange, Txn that is not read-only , Compact, LeaseGrant, LeaseRevoke while the
    /// CORRUPT alarm is active (reads, watches, auth, alarm and member calls still work)
    Corrupt, DataLoss, DataLoss, true,
        "etcdserver: corrupt cluster";
    /// any RPC on a learner except: Status, Range with `serializable`, Snapshot
    NotSupportedForLearner, FailedPrecondition, FailedPrecondition, true,
        "etcdserver: rpc not supported for learner";
    /// MoveLeader target unknown or a learner
    BadLeaderTransferee, FailedPrecondition, FailedPrecondition, true,
        "etcdserver: bad leader transferee";
    /// request cancelled while waiting for apply (the client has normally gone)
    Canceled, Cancelled, Cancelled, false,
        "etcdserver: request canceled";
    /// only through the map; in practice rule 2 of §1 applies and the text is `context deadline
    /// exceeded`
    DeadlineExceeded, DeadlineExceeded, DeadlineExceeded, false,
        "etcdserver: context deadline exceeded";
    /// VALIDATE, ENABLE: version is neither semver nor `major.minor`
    WrongDowngradeVersionFormat, InvalidArgument, InvalidArgument, true,
        "etcdserver: wrong downgrade target version format";
    /// VALIDATE, ENABLE: target is not exactly one minor below the cluster version
    InvalidDowngradeTargetVersion, InvalidArgument, InvalidArgument, true,
        "etcdserver: invalid downgrade target version";
    /// VALIDATE while no cluster version is decided
    ClusterVersionUnavailable, FailedPrecondition, FailedPrecondition, true,
        "etcdserver: cluster version not found during downgrade";
    /// VALIDATE, ENABLE with a valid target while a downgrade is enabled
    DowngradeInProcess, FailedPrecondition, FailedPrecondition, true,
        "etcdserver: cluster has a downgrade job in progress";
    /// defined but never returned: CANCEL swallows it and succeeds
    NoInflightDowngrade, FailedPrecondition, FailedPrecondition, true,
        "etcdserver: no inflight downgrade job";
}

impl Error {
    /// The error with exactly this text, if there is one: what a client does with a status.
    pub fn from_message(text: &str) -> Option<Error> {
        Error::ALL
            .iter()
            .copied()
            .find(|error| error.message() == text)
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Error {}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        tonic::Status::new(error.wire_code(), error.message())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn texts_are_unique_and_map_back() {
        let mut seen = HashSet::new();
        for &error in Error::ALL {
            assert!(seen.insert(error.message()), "{error:?} repeats a text");
            assert_eq!(Error::from_message(error.message()), Some(error));
            let inner = error == Error::NoPasswordUser;
            let prefix = if inner { "auth: " } else { "etcdserver: " };
            assert!(error.message().starts_with(prefix));
        }
    }

    #[test]
    fn two_errors_leave_as_unknown() {
        let quirks: Vec<_> = Error::ALL
            .iter()
            .filter(|error| error.code() != error.wire_code())
            .collect();
        assert_eq!(
            quirks,
            [
                &Error::MemberNotEnoughStarted,
                &Error::RequestTooManyRequests
            ]
        );
        assert_eq!(
            tonic::Status::from(Error::RequestTooManyRequests).code(),
            Code::Unknown
        );
    }

    #[test]
    fn codes_and_texts_that_kubernetes_relies_on() {
        let status = tonic::Status::from(Error::Compacted);
        assert_eq!(status.code(), Code::OutOfRange);
        assert_eq!(
            status.message(),
            "etcdserver: mvcc: required revision has been compacted"
        );
        let status = tonic::Status::from(Error::FutureRev);
        assert_eq!(status.code(), Code::OutOfRange);
        assert_eq!(
            status.message(),
            "etcdserver: mvcc: required revision is a future revision"
        );
    }
}
