//! The commands beside the API: copies, checks, and etcdctl about itself.

use super::UTILITY;
use crate::cli::{Action, Command, Flag, Kind};
use crate::commands::{check, completion, help, make_mirror, options, version};

pub(super) const VERSION: Command = Command {
    name: "version",
    usage: "version",
    short: "Shows the version of etcdctl and of the API",
    group: UTILITY,
    action: Action::Run(version::run),
    ..Command::EMPTY
};

pub(super) const MAKE_MIRROR: Command = Command {
    name: "make-mirror",
    usage: "make-mirror [options] <destination>",
    short: "Copies keys to another cluster, and keeps the copy up to date",
    long: MAKE_MIRROR_LONG,
    group: UTILITY,
    flags: &[
        Flag::new(
            "prefix",
            Kind::Text(""),
            "only keys that start with this, \"\" for all",
        ),
        Flag::new(
            "rev",
            Kind::Int(0),
            "only changes from this revision on, 0 for all there is and then every change",
        ),
        Flag::new(
            "max-txn-ops",
            Kind::Uint(128),
            "most operations in one transaction at the destination",
        ),
        Flag::new(
            "dest-prefix",
            Kind::Text(""),
            "what takes the place of the prefix at the destination",
        ),
        Flag::new(
            "no-dest-prefix",
            Kind::Switch(false),
            "keys are without the prefix at the destination",
        ),
        Flag::new(
            "dest-cert",
            Kind::Text(""),
            "certificate for the destination",
        ),
        Flag::new(
            "dest-key",
            Kind::Text(""),
            "key of the certificate for the destination",
        ),
        Flag::new(
            "dest-cacert",
            Kind::Text(""),
            "certificate authorities of the destination",
        ),
        Flag::new(
            "dest-insecure-transport",
            Kind::Switch(true),
            "connect to the destination without TLS",
        ),
        Flag::new(
            "dest-user",
            Kind::Text(""),
            "user[:password] at the destination",
        ),
        Flag::new(
            "dest-password",
            Kind::Text(""),
            "password at the destination",
        ),
    ],
    action: Action::Run(make_mirror::run),
    ..Command::EMPTY
};

pub(super) const CHECK: Command = Command {
    name: "check",
    usage: "check <subcommand>",
    short: "Tries what a cluster can do. See `etcdctl check --help`",
    long: "Tries what a cluster can do",
    group: UTILITY,
    commands: &[
        Command {
            name: "perf",
            usage: "perf [options]",
            short: "Writes for a minute and judges throughput and latency",
            long: PERF_LONG,
            flags: &[
                LOAD,
                Flag::new(
                    "prefix",
                    Kind::Text("/etcdctl-check-perf/"),
                    "prefix of the keys; no key may have it",
                ),
                AUTO_COMPACT,
                AUTO_DEFRAG,
            ],
            action: Action::Run(check::perf::run),
            ..Command::EMPTY
        },
        Command {
            name: "datascale",
            usage: "datascale [options]",
            short: "Shows how much memory a server uses for so many keys",
            long: DATASCALE_LONG,
            flags: &[
                LOAD,
                Flag::new(
                    "prefix",
                    Kind::Text("/etcdctl-check-datascale/"),
                    "prefix of the keys; no key may have it",
                ),
                AUTO_COMPACT,
                AUTO_DEFRAG,
            ],
            action: Action::Run(check::datascale::run),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

const LOAD: Flag = Flag::new(
    "load",
    Kind::Text("s"),
    "s (small), m (medium), l (large) or xl (xLarge)",
);

const AUTO_COMPACT: Flag = Flag::new(
    "auto-compact",
    Kind::Switch(false),
    "compact up to the last revision when the check is over",
);

const AUTO_DEFRAG: Flag = Flag::new(
    "auto-defrag",
    Kind::Switch(false),
    "defragment the endpoints when the check is over",
);

pub(super) const COMPLETION: Command = Command {
    name: "completion",
    usage: "completion [bash|zsh|fish|powershell]",
    short: "Prints a script that lets a shell complete commands and flags",
    long: COMPLETION_LONG,
    group: UTILITY,
    action: Action::Run(completion::run),
    ..Command::EMPTY
};

pub(super) const OPTIONS: Command = Command {
    name: "options",
    usage: "options",
    short: "Lists the flags that every command takes",
    group: UTILITY,
    action: Action::Run(options::run),
    ..Command::EMPTY
};

pub(super) const HELP: Command = Command {
    name: "help",
    usage: "help [command]",
    short: "Shows the help of a command",
    group: UTILITY,
    action: Action::Run(help::run),
    ..Command::EMPTY
};

const MAKE_MIRROR_LONG: &str = "\
Copies keys to another cluster, and keeps the copy up to date until it is stopped.

First come all keys as of now, then every change after that. Every 30 s it shows how many pairs and
changes were copied. Leases are not copied.

After a stop, --rev goes on with the first revision that was not copied.";

const PERF_LONG: &str = "\
Writes for a minute and judges throughput and latency.

load  clients  writes a second
s          50              150
m         200            1,000
l         500            8,000
xl      1,000           15,000

The check passes when at least 90 % of the writes are made, none takes longer than 500 ms, and the
standard deviation is at most 100 ms. The keys are deleted at the end.";

const DATASCALE_LONG: &str = "\
Shows how much memory a server uses for so many keys: the first of the endpoints is asked for its
metrics before and after.

load  clients      keys of 512 bytes, with values of 512 bytes
s          50      10,000
m         200     100,000
l         500   1,000,000
xl      1,000   3,000,000

The keys are deleted at the end.";

const COMPLETION_LONG: &str = "\
Prints a script that lets a shell complete commands and flags. For this shell only:

bash        source <(etcdctl completion bash)
zsh         source <(etcdctl completion zsh)
fish        etcdctl completion fish | source
powershell  etcdctl completion powershell | Out-String | Invoke-Expression";
