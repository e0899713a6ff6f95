//! The commands and flags of etcdutl.

use std::time::Duration;

use crate::cli::{Command, Flag, Kind, Program};
use crate::commands::{check, completion, defrag, dump_db, dump_log, hashkv, version};

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
            name: "version",
            arguments: "",
            count: (0, usize::MAX),
            short: "Prints the version of etcdutl",
            long: "",
            flags: &[],
            run: version::run,
        },
    ],
    not_built: &["migrate", "snapshot"],
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
