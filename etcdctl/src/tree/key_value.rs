//! The commands that take or show keys: `get`, `put`, `del`, `watch`.

use super::KEY_VALUE;
use crate::cli::{Action, Command, Flag, Kind};
use crate::commands::{del, get, put, watch};

pub(super) const WATCH: Command = Command {
    name: "watch",
    usage: "watch [options] [key or prefix] [range_end] [--] [exec-command arg1 arg2 ...]",
    short: "Shows changes of keys as they come",
    long: WATCH_LONG,
    group: KEY_VALUE,
    flags: &[
        Flag::new(
            "interactive",
            Kind::Switch(false),
            "read commands from standard input",
        )
        .short('i'),
        Flag::new(
            "prefix",
            Kind::Switch(false),
            "all keys that start with <key>",
        ),
        Flag::new(
            "rev",
            Kind::Int(0),
            "changes from this revision on, 0 for from now on",
        ),
        Flag::new(
            "prev-kv",
            Kind::Switch(false),
            "show the key and value before the change",
        ),
        Flag::new(
            "progress-notify",
            Kind::Switch(false),
            "show from time to time how far the server is",
        ),
    ],
    action: Action::Run(watch::run),
    ..Command::EMPTY
};

pub(super) const GET: Command = Command {
    name: "get",
    usage: "get [options] <key> [range_end]",
    short: "Reads a key or a range of keys",
    group: KEY_VALUE,
    flags: &[
        Flag::new(
            "consistency",
            Kind::Text("l"),
            "l (linearizable) or s (serializable)",
        ),
        Flag::new(
            "order",
            Kind::Text(""),
            "order of the results: ASCEND or DESCEND",
        ),
        Flag::new(
            "sort-by",
            Kind::Text(""),
            "sort by CREATE, KEY, MODIFY, VALUE or VERSION",
        ),
        Flag::new("limit", Kind::Int(0), "most results, 0 for all"),
        Flag::new(
            "prefix",
            Kind::Switch(false),
            "all keys that start with <key>",
        ),
        Flag::new(
            "from-key",
            Kind::Switch(false),
            "all keys from <key> on, in byte order",
        ),
        Flag::new(
            "rev",
            Kind::Int(0),
            "read at this revision, 0 for the latest",
        ),
        Flag::new("keys-only", Kind::Switch(false), "leave out the values"),
        Flag::new(
            "count-only",
            Kind::Switch(false),
            "only count the keys (needs -w fields)",
        ),
        Flag::new(
            "print-value-only",
            Kind::Switch(false),
            "leave out the keys (needs -w simple)",
        ),
        Flag::new(
            "min-create-rev",
            Kind::Int(0),
            "only keys created at or after this revision",
        ),
        Flag::new(
            "max-create-rev",
            Kind::Int(0),
            "only keys created at or before this revision",
        ),
        Flag::new(
            "min-mod-rev",
            Kind::Int(0),
            "only keys modified at or after this revision",
        ),
        Flag::new(
            "max-mod-rev",
            Kind::Int(0),
            "only keys modified at or before this revision",
        ),
        Flag::new(
            "stream",
            Kind::Switch(false),
            "read with the RangeStream call",
        ),
    ],
    action: Action::Run(get::run),
    ..Command::EMPTY
};

pub(super) const PUT: Command = Command {
    name: "put",
    usage: "put [options] <key> <value> (<value> can also be given from stdin)",
    short: "Writes a key",
    long: PUT_LONG,
    group: KEY_VALUE,
    flags: &[
        Flag::new(
            "lease",
            Kind::Text("0"),
            "attach the key to this lease (hexadecimal ID)",
        ),
        Flag::new(
            "prev-kv",
            Kind::Switch(false),
            "show the replaced key and value",
        ),
        Flag::new(
            "ignore-value",
            Kind::Switch(false),
            "keep the current value",
        ),
        Flag::new(
            "ignore-lease",
            Kind::Switch(false),
            "keep the current lease",
        ),
    ],
    action: Action::Run(put::run),
    ..Command::EMPTY
};

pub(super) const DEL: Command = Command {
    name: "del",
    usage: "del [options] <key> [range_end]",
    short: "Deletes a key or the range of keys [key, range_end)",
    group: KEY_VALUE,
    flags: &[
        Flag::new(
            "prefix",
            Kind::Switch(false),
            "all keys that start with <key>",
        ),
        Flag::new(
            "prev-kv",
            Kind::Switch(false),
            "show the deleted keys and values",
        ),
        Flag::new(
            "from-key",
            Kind::Switch(false),
            "all keys from <key> on, in byte order",
        ),
        Flag::new(
            "range",
            Kind::Switch(false),
            "delete a range without the 2 s of delay",
        ),
    ],
    action: Action::Run(del::run),
    ..Command::EMPTY
};

const PUT_LONG: &str = "\
Writes a key.

Without <value> and without --ignore-value the value is all of standard input:

$ etcdctl put <key> < file

An argument that starts with '-' must come after '--':

$ etcdctl put -- <key> <value>";

pub(super) const TXN_LONG: &str = "\
Reads a transaction from standard input and runs it in one step.

Three lists follow each other, one item per line, each list ended by an empty line:
compares, operations for when all of them hold, operations for when one does not.

mod(\"key1\") > \"0\"

put key1 \"there before\"

put key1 \"new\"
put key2 \"another one\"

Compares: ver, create, mod, val or lease of a key; =, !=, < or >; a quoted value.
Operations: get, put and del with their flags.";

const WATCH_LONG: &str = "\
Shows changes of keys as they come.

With a program after '--' it is run for each change, and finds what has changed in the
variables ETCD_WATCH_REVISION, ETCD_WATCH_EVENT_TYPE, ETCD_WATCH_KEY and ETCD_WATCH_VALUE:

$ etcdctl watch <key> -- sh -c 'echo $ETCD_WATCH_KEY'

With --interactive each line of standard input is a command: 'watch' with options, key and
program as above, or 'progress'.

Without <key>, ETCDCTL_WATCH_KEY and ETCDCTL_WATCH_RANGE_END say what to watch.";
