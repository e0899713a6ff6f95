//! The commands and flags of etcdutl.

use std::time::Duration;

use crate::cli::{Command, Flag, Kind, Program};
use crate::commands::{
    check, completion, defrag, dump_db, dump_log, hashkv, migrate, snapshot_restore,
    snapshot_status, version,
};
use crate::new_cluster::{
    CLUSTER_FLAG, DATA_DIR_FLAG, NAME_FLAG, PEER_URLS_FLAG, TOKEN_FLAG, WAL_DIR_FLAG,
};

/// How long to wait for the lock of a data directory, if `--timeout` does not say.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// The program.
pub(crate) static ROOT: Program = Program {
    name: "etcdutl",
    flags: &[
        Flag {
            short: Some(b'w'),
            ..Flag::new(
                "write-out",
                Kind::Text("simple"),
                "set the output format (fields, json, protobuf, simple, table)",
            )
        },
        Flag::new(
            "timeout",
            Kind::Time(TIMEOUT),
            "wait so long for the lock of the data directory, 0 for ever",
        ),
    ],
    commands: &[
        Command {
            name: "check",
            arguments: "",
            count: (0, 0),
            short: "Verifies everything in a data directory, changes nothing",
            long: CHECK,
            flags: &[DATA_DIR, WAL_DIR],
            run: check::run,
        },
        Command {
            name: "completion",
            arguments: "[bash|zsh|fish|powershell]",
            count: (1, 1),
            short: "Generates completion script",
            long: "",
            flags: &[],
            run: completion::run,
        },
        Command {
            name: "defrag",
            arguments: "",
            count: (0, 0),
            short: "Defragments the storage of the etcd",
            long: "",
            flags: &[DATA_DIR],
            run: defrag::run,
        },
        Command {
            name: "dump-db",
            arguments: "[table]",
            count: (0, 1),
            short: "Shows the tables of the page file, or the rows of one",
            long: "",
            flags: &[
                DATA_DIR,
                Flag::new("limit", Kind::Number(0), "show so many rows, 0 for all"),
            ],
            run: dump_db::run,
        },
        Command {
            name: "dump-log",
            arguments: "",
            count: (0, 0),
            short: "Shows the entries of the log",
            long: DUMP_LOG,
            flags: &[
                DATA_DIR,
                WAL_DIR,
                Flag::new("start-index", Kind::Number(0), "first entry to show"),
                Flag::new(
                    "end-index",
                    Kind::Number(i64::MAX),
                    "show the entries before this one",
                ),
                Flag::new("raw", Kind::Switch, "show every record and where it is"),
            ],
            run: dump_log::run,
        },
        Command {
            name: "hashkv",
            arguments: "<filename>",
            count: (1, 1),
            short: "Prints the KV history hash of a given file",
            long: "",
            flags: &[Flag::new(
                "rev",
                Kind::Number(0),
                "maximum revision to hash (default: latest revision)",
            )],
            run: hashkv::run,
        },
        Command {
            name: "migrate",
            arguments: "",
            count: (0, 0),
            short: "Changes the storage version of a data directory, or makes one from an etcd's",
            long: MIGRATE,
            flags: &[
                Flag::new(
                    "from-etcd",
                    Kind::Text(""),
                    "The data directory of an etcd that does not run",
                ),
                Flag::new(
                    "from-wal-dir",
                    Kind::Text(""),
                    "The directory of that etcd's log, if it is not in its data directory",
                ),
                DATA_DIR_FLAG,
                WAL_DIR_FLAG,
                NAME_FLAG,
                CLUSTER_FLAG,
                TOKEN_FLAG,
                PEER_URLS_FLAG,
                Flag::new(
                    "target-version",
                    Kind::Text(""),
                    "Storage version that the data directory is to have. Format \"X.Y\", for example 3.6; 3.5 at least",
                ),
                Flag::new(
                    "force",
                    Kind::Switch,
                    "Write the storage version even if the migration is refused. Not recommended",
                ),
            ],
            run: migrate::run,
        },
        Command {
            name: "snapshot restore",
            arguments: "<filename> --data-dir {output dir} [options]",
            count: (0, usize::MAX),
            short: "Restores an etcd member snapshot to an etcd directory",
            long: "",
            flags: &[
                DATA_DIR_FLAG,
                WAL_DIR_FLAG,
                NAME_FLAG,
                CLUSTER_FLAG,
                TOKEN_FLAG,
                PEER_URLS_FLAG,
                Flag::new(
                    "skip-hash-check",
                    Kind::Switch,
                    "Ignore snapshot integrity hash value (required if copied from data directory)",
                ),
                Flag::new(
                    "initial-memory-map-size",
                    Kind::Number(0),
                    "Without effect: nothing is mapped",
                ),
                Flag::new(
                    "bump-revision",
                    Kind::Number(0),
                    "How much to increase the latest revision after restore",
                ),
                Flag::new(
                    "mark-compacted",
                    Kind::Switch,
                    "Mark the latest revision after restore as the point of scheduled compaction \
                     (required if --bump-revision > 0, disallowed otherwise)",
                ),
            ],
            run: snapshot_restore::run,
        },
        Command {
            name: "snapshot status",
            arguments: "<filename>",
            count: (0, usize::MAX),
            short: "Gets backend snapshot status of a given file",
            long: "",
            flags: &[],
            run: snapshot_status::run,
        },
        Command {
            name: "version",
            arguments: "",
            count: (0, usize::MAX),
            short: "Prints the version of etcdutl",
            long: "",
            flags: &[],
            run: version::run,
        },
    ],
    groups: &[("snapshot", "Manages etcd node snapshots")],
};

const DATA_DIR: Flag = Flag {
    required: true,
    ..Flag::new(
        "data-dir",
        Kind::Text(""),
        "Required. A data directory not in use by etcd.",
    )
};

const WAL_DIR: Flag = Flag::new(
    "wal-dir",
    Kind::Text(""),
    "the directory of the log, if it is not in the data directory",
);

const CHECK: &str = "\
Verifies everything in a data directory, changes nothing.

Reads the log and the page file as a start of the member would, and more: every checksum, every
row, the counters and digests, the order of the log, and that both belong together. What is damaged
is named by segment and offset of the log, or by table and key of the page file, and the exit code
is 1. The formats simple and json are supported.";

const DUMP_LOG: &str = "\
Shows the entries of the log, one a line: term, index, type, content. Entries up to the truncation
mark are in the page file. Passwords are not shown.";

const MIGRATE: &str = "\
With --target-version: changes the storage version of a member that does not run, a minor version at a
time, for a server of that version. Each step is made as a whole or not at all. A running cluster does
this by itself: see `etcdctl downgrade`.

With --from-etcd: makes a member of a new cluster from the data directory of an etcd that does not run, of
version 3.4 to 3.7.

Keys, revisions, history, leases, users, roles and alarms are those of the old member, with what its log
has beyond its database. The old directory is not changed. The members of a new cluster are all made from
copies of the same directory: that of the old member which had got furthest.";
