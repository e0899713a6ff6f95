//! The commands and flags of etcdctl, as one constant tree.

use crate::cli::{Action, Command, Flag, Kind};
use crate::commands::{
    alarm, compaction, completion, defrag, del, downgrade, elect, endpoint, get, help, lease, lock,
    member, move_leader, options, put, snapshot, txn, version, watch,
};

const KEY_VALUE: &str = "Key-value commands";
const MAINTENANCE: &str = "Cluster maintenance commands";
const CONCURRENCY: &str = "Concurrency commands";
const UTILITY: &str = "Utility commands";

const SECOND: i64 = 1_000_000_000;

/// The program. Commands are in the order of their groups in the root help.
pub(crate) static ROOT: Command = Command {
    name: "etcdctl",
    usage: "etcdctl",
    short: "A simple command line client for etcd3.",
    long: concat!(
        "A simple command line client for etcd3.\n\n",
        "This is Ferrite ",
        env!("CARGO_PKG_VERSION"),
        ", compatible with etcdctl 3.7.1."
    ),
    persistent: &GLOBAL,
    commands: &[
        GET,
        PUT,
        DEL,
        Command {
            name: "txn",
            usage: "txn [options]",
            short: "Runs compares and operations as one transaction",
            long: TXN_LONG,
            group: KEY_VALUE,
            flags: &[
                Flag::new("interactive", Kind::Switch(false), "say what is being read").short('i'),
            ],
            action: Action::Run(txn::run),
            ..Command::EMPTY
        },
        Command {
            name: "compaction",
            usage: "compaction [options] <revision>",
            short: "Gives up the history before a revision",
            group: KEY_VALUE,
            flags: &[Flag::new(
                "physical",
                Kind::Switch(false),
                "wait until the old versions are removed from storage",
            )],
            action: Action::Run(compaction::run),
            ..Command::EMPTY
        },
        WATCH,
        Command {
            name: "lease",
            usage: "lease <subcommand>",
            short: "Grants, renews and shows leases. See `etcdctl lease --help`",
            long: "Grants, renews and shows leases",
            group: KEY_VALUE,
            commands: &[
                Command {
                    name: "grant",
                    usage: "grant <ttl>",
                    short: "Makes a lease of so many seconds",
                    action: Action::Run(lease::grant),
                    ..Command::EMPTY
                },
                Command {
                    name: "revoke",
                    usage: "revoke <leaseID>",
                    short: "Ends a lease and deletes its keys",
                    action: Action::Run(lease::revoke),
                    ..Command::EMPTY
                },
                Command {
                    name: "timetolive",
                    usage: "timetolive <leaseID> [options]",
                    short: "Shows how long a lease lives",
                    flags: &[Flag::new(
                        "keys",
                        Kind::Switch(false),
                        "show the keys attached to the lease",
                    )],
                    action: Action::Run(lease::time_to_live),
                    ..Command::EMPTY
                },
                Command {
                    name: "list",
                    usage: "list",
                    short: "Lists the leases",
                    action: Action::Run(lease::list),
                    ..Command::EMPTY
                },
                Command {
                    name: "keep-alive",
                    usage: "keep-alive [options] <leaseID>",
                    short: "Renews a lease until it ends",
                    flags: &[Flag::new(
                        "once",
                        Kind::Switch(false),
                        "renew once and exit",
                    )],
                    action: Action::Run(lease::keep_alive),
                    ..Command::EMPTY
                },
            ],
            ..Command::EMPTY
        },
        Command {
            name: "endpoint",
            usage: "endpoint <subcommand>",
            short: "Health, status and hashes of endpoints. See `etcdctl endpoint --help`",
            long: "Health, status and hashes of endpoints",
            group: MAINTENANCE,
            persistent: &[Flag::new(
                "cluster",
                Kind::Switch(false),
                "ask the client URLs of all members instead of --endpoints",
            )],
            commands: &[
                Command {
                    name: "health",
                    usage: "health",
                    short: "Tells which endpoints can commit",
                    action: Action::Run(endpoint::health),
                    ..Command::EMPTY
                },
                Command {
                    name: "status",
                    usage: "status",
                    short: "Shows version, sizes, leader and raft state of each endpoint",
                    long: STATUS_LONG,
                    action: Action::Run(endpoint::status),
                    ..Command::EMPTY
                },
                Command {
                    name: "hashkv",
                    usage: "hashkv",
                    short: "Shows the hash of each endpoint's key-value history",
                    persistent: &[Flag::new(
                        "rev",
                        Kind::Int(0),
                        "last revision to include, 0 for the latest",
                    )],
                    action: Action::Run(endpoint::hash_kv),
                    ..Command::EMPTY
                },
            ],
            ..Command::EMPTY
        },
        Command {
            name: "member",
            usage: "member <subcommand>",
            short: "Members of the cluster. See `etcdctl member --help`",
            long: "Members of the cluster",
            group: MAINTENANCE,
            commands: &[
                Command {
                    name: "list",
                    usage: "list",
                    short: "Lists the members",
                    long: "Lists the members.\n\nThe simple format has, separated by commas: \
                           ID, status, name, peer addresses, client addresses, is learner.",
                    flags: &[Flag::new(
                        "consistency",
                        Kind::Text("l"),
                        "l (linearizable) or s (serializable)",
                    )],
                    action: Action::Run(member::list),
                    ..Command::EMPTY
                },
                Command {
                    name: "add",
                    usage: "add <memberName> [options]",
                    short: "Adds a member",
                    flags: &[
                        Flag::new(
                            "peer-urls",
                            Kind::Text(""),
                            "comma-separated peer URLs of the new member",
                        ),
                        Flag::new("learner", Kind::Switch(false), "add it without a vote"),
                    ],
                    action: Action::Run(member::add),
                    ..Command::EMPTY
                },
                Command {
                    name: "remove",
                    usage: "remove <memberID>",
                    short: "Removes a member for ever",
                    action: Action::Run(member::remove),
                    ..Command::EMPTY
                },
                Command {
                    name: "update",
                    usage: "update <memberID> [options]",
                    short: "Changes the peer URLs of a member",
                    flags: &[Flag::new(
                        "peer-urls",
                        Kind::Text(""),
                        "comma-separated new peer URLs of the member",
                    )],
                    action: Action::Run(member::update),
                    ..Command::EMPTY
                },
                Command {
                    name: "promote",
                    usage: "promote <memberID>",
                    short: "Gives a learner a vote",
                    action: Action::Run(member::promote),
                    ..Command::EMPTY
                },
            ],
            ..Command::EMPTY
        },
        Command {
            name: "alarm",
            usage: "alarm <subcommand>",
            short: "Shows and ends alarms. See `etcdctl alarm --help`",
            long: "Shows and ends alarms",
            group: MAINTENANCE,
            commands: &[
                Command {
                    name: "disarm",
                    usage: "disarm",
                    short: "Ends all alarms",
                    action: Action::Run(alarm::disarm),
                    ..Command::EMPTY
                },
                Command {
                    name: "list",
                    usage: "list",
                    short: "Lists the alarms",
                    action: Action::Run(alarm::list),
                    ..Command::EMPTY
                },
            ],
            ..Command::EMPTY
        },
        Command {
            name: "defrag",
            usage: "defrag",
            short: "Gives unused space of the endpoints' databases back",
            group: MAINTENANCE,
            persistent: &[Flag::new(
                "cluster",
                Kind::Switch(false),
                "all members instead of --endpoints",
            )],
            action: Action::Run(defrag::run),
            ..Command::EMPTY
        },
        Command {
            name: "move-leader",
            usage: "move-leader <transferee-member-id>",
            short: "Makes another member the leader",
            group: MAINTENANCE,
            action: Action::Run(move_leader::run),
            ..Command::EMPTY
        },
        Command {
            name: "snapshot",
            usage: "snapshot <subcommand>",
            short: "Saves copies of a member's database. See `etcdctl snapshot --help`",
            long: "Saves copies of a member's database",
            group: MAINTENANCE,
            commands: &[Command {
                name: "save",
                usage: "save <filename>",
                short: "Saves the database of one endpoint in a file",
                action: Action::Run(snapshot::save),
                ..Command::EMPTY
            }],
            ..Command::EMPTY
        },
        Command {
            name: "downgrade",
            usage: "downgrade <TARGET_VERSION>",
            short: "Goes back to the minor version before. See `etcdctl downgrade --help`",
            long: "Goes back to the minor version before",
            group: MAINTENANCE,
            commands: &[
                Command {
                    name: "validate",
                    usage: "validate <TARGET_VERSION>",
                    short: "Tells whether the cluster can go back to this version",
                    action: Action::Run(downgrade::validate),
                    ..Command::EMPTY
                },
                Command {
                    name: "enable",
                    usage: "enable <TARGET_VERSION>",
                    short: "Begins to go back to this version",
                    action: Action::Run(downgrade::enable),
                    ..Command::EMPTY
                },
                Command {
                    name: "cancel",
                    usage: "cancel",
                    short: "Stays at the current version after all",
                    action: Action::Run(downgrade::cancel),
                    ..Command::EMPTY
                },
            ],
            ..Command::EMPTY
        },
        Command {
            name: "lock",
            usage: "lock <lockname> [exec-command arg1 arg2 ...]",
            short: "Holds a lock, or runs a program while holding it",
            long: LOCK_LONG,
            group: CONCURRENCY,
            flags: &[Flag::new(
                "ttl",
                Kind::Int(10),
                "seconds for which the lock outlives this process",
            )],
            action: Action::Run(lock::run),
            ..Command::EMPTY
        },
        Command {
            name: "elect",
            usage: "elect <election-name> [proposal]",
            short: "Takes part in an election, or follows one",
            group: CONCURRENCY,
            flags: &[Flag::new("listen", Kind::Switch(false), "follow the election").short('l')],
            action: Action::Run(elect::run),
            ..Command::EMPTY
        },
        Command::not_built("auth"),
        Command::not_built("user"),
        Command::not_built("role"),
        Command {
            name: "version",
            usage: "version",
            short: "Shows the version of etcdctl and of the API",
            group: UTILITY,
            action: Action::Run(version::run),
            ..Command::EMPTY
        },
        Command::not_built("make-mirror"),
        Command::not_built("check"),
        Command {
            name: "completion",
            usage: "completion [bash|zsh|fish|powershell]",
            short: "Prints a script that lets a shell complete commands and flags",
            long: COMPLETION_LONG,
            group: UTILITY,
            action: Action::Run(completion::run),
            ..Command::EMPTY
        },
        Command {
            name: "options",
            usage: "options",
            short: "Lists the flags that every command takes",
            group: UTILITY,
            action: Action::Run(options::run),
            ..Command::EMPTY
        },
        Command {
            name: "help",
            usage: "help [command]",
            short: "Shows the help of a command",
            group: UTILITY,
            action: Action::Run(help::run),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

/// What an operation line of a transaction is read with.
pub(crate) static TXN_OPERATIONS: Command = Command {
    commands: &[PUT, GET, DEL],
    ..Command::EMPTY
};

/// What a line of an interactive watch is read with.
pub(crate) static WATCH_LINES: Command = Command {
    commands: &[WATCH],
    ..Command::EMPTY
};

const WATCH: Command = Command {
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

const GET: Command = Command {
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

const PUT: Command = Command {
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

const DEL: Command = Command {
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

const TXN_LONG: &str = "\
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

const LOCK_LONG: &str = "\
Waits for the lock and holds it until it is interrupted.

With a program the lock is held while it runs. The program finds the lock's key and the
revision in ETCD_LOCK_KEY and ETCD_LOCK_REV; its exit status becomes that of etcdctl. Flags
of the program must come after '--':

$ etcdctl lock <lockname> -- ls -l";

const COMPLETION_LONG: &str = "\
Prints a script that lets a shell complete commands and flags. For this shell only:

bash        source <(etcdctl completion bash)
zsh         source <(etcdctl completion zsh)
fish        etcdctl completion fish | source
powershell  etcdctl completion powershell | Out-String | Invoke-Expression";

const STATUS_LONG: &str = "\
Shows version, sizes, leader and raft state of each endpoint.

The simple format has, separated by commas: endpoint, ID, version, storage version, db size,
in use, percentage not in use, quota, is leader, is learner, raft term, raft index,
raft applied index, errors, downgrade target version, downgrade enabled.";

/// The flags of every command; `etcdctl options` shows them.
pub(crate) const GLOBAL: [Flag; 21] = [
    Flag::new("endpoints", Kind::List("127.0.0.1:2379"), "gRPC endpoints").hidden(),
    Flag::new(
        "debug",
        Kind::Switch(false),
        "show the value of every global flag",
    )
    .hidden(),
    Flag::new(
        "write-out",
        Kind::Text("simple"),
        "output format: fields, json, protobuf, simple or table",
    )
    .short('w')
    .hidden(),
    Flag::new(
        "hex",
        Kind::Switch(false),
        "show byte strings, or IDs, in hexadecimal",
    )
    .hidden(),
    Flag::new(
        "dial-timeout",
        Kind::Duration(2 * SECOND),
        "time to set up the client",
    )
    .hidden(),
    Flag::new(
        "command-timeout",
        Kind::Duration(5 * SECOND),
        "time for a short command, setting up not included",
    )
    .hidden(),
    Flag::new(
        "keepalive-time",
        Kind::Duration(2 * SECOND),
        "time between keepalive pings",
    )
    .hidden(),
    Flag::new(
        "keepalive-timeout",
        Kind::Duration(6 * SECOND),
        "time to answer a keepalive ping",
    )
    .hidden(),
    Flag::new(
        "max-request-bytes",
        Kind::Int(0),
        "largest request in bytes, 0 for 2 MiB",
    )
    .hidden(),
    Flag::new(
        "max-recv-bytes",
        Kind::Int(0),
        "largest response in bytes, 0 for 2147483647",
    )
    .hidden(),
    Flag::new(
        "insecure-transport",
        Kind::Switch(true),
        "connect without TLS",
    )
    .hidden(),
    Flag::new(
        "insecure-discovery",
        Kind::Switch(true),
        "accept discovered endpoints without TLS",
    )
    .hidden(),
    Flag::new(
        "insecure-skip-tls-verify",
        Kind::Switch(false),
        "accept any server certificate (not built yet)",
    )
    .hidden(),
    Flag::new(
        "cert",
        Kind::Text(""),
        "certificate of the client (not built yet)",
    )
    .hidden(),
    Flag::new(
        "key",
        Kind::Text(""),
        "key of the client's certificate (not built yet)",
    )
    .hidden(),
    Flag::new(
        "cacert",
        Kind::Text(""),
        "certificate authorities of servers (not built yet)",
    )
    .hidden(),
    Flag::new(
        "auth-jwt-token",
        Kind::Text(""),
        "JWT to authenticate with (not built yet)",
    )
    .hidden(),
    Flag::new(
        "user",
        Kind::Text(""),
        "user[:password] to authenticate (not built yet)",
    )
    .hidden(),
    Flag::new(
        "password",
        Kind::Text(""),
        "password to authenticate with (not built yet)",
    )
    .hidden(),
    Flag::new(
        "discovery-srv",
        Kind::Text(""),
        "domain of SRV records (not built yet)",
    )
    .short('d')
    .hidden(),
    Flag::new(
        "discovery-srv-name",
        Kind::Text(""),
        "suffix of SRV names (not built yet)",
    )
    .hidden(),
];
