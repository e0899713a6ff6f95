//! The commands and flags of etcdctl, as one constant tree.

mod authentication;
mod global;
mod key_value;
mod utility;

use crate::cli::{Action, Command, Flag, Kind};
use crate::commands::{
    alarm, compaction, defrag, downgrade, elect, endpoint, lease, lock, member, move_leader,
    snapshot, txn,
};

pub(crate) use global::GLOBAL;
use key_value::{DEL, GET, PUT, TXN_LONG, WATCH};

const KEY_VALUE: &str = "Key-value commands";
const MAINTENANCE: &str = "Cluster maintenance commands";
const CONCURRENCY: &str = "Concurrency commands";
const AUTHENTICATION: &str = "Authentication commands";
const UTILITY: &str = "Utility commands";

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
        authentication::AUTH,
        authentication::USER,
        authentication::ROLE,
        utility::VERSION,
        utility::MAKE_MIRROR,
        utility::CHECK,
        utility::COMPLETION,
        utility::OPTIONS,
        utility::HELP,
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

const LOCK_LONG: &str = "\
Waits for the lock and holds it until it is interrupted.

With a program the lock is held while it runs. The program finds the lock's key and the
revision in ETCD_LOCK_KEY and ETCD_LOCK_REV; its exit status becomes that of etcdctl. Flags
of the program must come after '--':

$ etcdctl lock <lockname> -- ls -l";

const STATUS_LONG: &str = "\
Shows version, sizes, leader and raft state of each endpoint.

The simple format has, separated by commas: endpoint, ID, version, storage version, db size,
in use, percentage not in use, quota, is leader, is learner, raft term, raft index,
raft applied index, errors, downgrade target version, downgrade enabled.";
