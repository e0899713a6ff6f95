//! The commands about users, roles and authentication.

use super::AUTHENTICATION;
use crate::cli::{Action, Command, Flag, Kind};
use crate::commands::{auth, role, user};

pub(super) const AUTH: Command = Command {
    name: "auth",
    usage: "auth <enable or disable>",
    short: "Switches authentication on and off. See `etcdctl auth --help`",
    long: "Switches authentication on and off",
    group: AUTHENTICATION,
    commands: &[
        Command {
            name: "enable",
            usage: "enable",
            short: "Switches authentication on",
            action: Action::Run(auth::enable),
            ..Command::EMPTY
        },
        Command {
            name: "disable",
            usage: "disable",
            short: "Switches authentication off",
            action: Action::Run(auth::disable),
            ..Command::EMPTY
        },
        Command {
            name: "status",
            usage: "status",
            short: "Shows whether authentication is on",
            action: Action::Run(auth::status),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

const INTERACTIVE: Flag = Flag::new(
    "interactive",
    Kind::Switch(true),
    "ask for the password on the terminal; if not, it is the first word of the input",
);

pub(super) const USER: Command = Command {
    name: "user",
    usage: "user <subcommand>",
    short: "Adds, changes and shows users. See `etcdctl user --help`",
    long: "Adds, changes and shows users",
    group: AUTHENTICATION,
    commands: &[
        Command {
            name: "add",
            usage: "add <user name or user:password> [options]",
            short: "Adds a user",
            flags: &[
                INTERACTIVE,
                Flag::new("new-user-password", Kind::Text(""), "password of the user"),
                Flag::new(
                    "no-password",
                    Kind::Switch(false),
                    "the user has no password, and is known by a certificate only",
                ),
            ],
            action: Action::Run(user::add),
            ..Command::EMPTY
        },
        Command {
            name: "delete",
            usage: "delete <user name>",
            short: "Deletes a user",
            action: Action::Run(user::delete),
            ..Command::EMPTY
        },
        Command {
            name: "get",
            usage: "get <user name> [options]",
            short: "Shows the roles of a user",
            flags: &[Flag::new(
                "detail",
                Kind::Switch(false),
                "also what the roles permit",
            )],
            action: Action::Run(user::get),
            ..Command::EMPTY
        },
        Command {
            name: "list",
            usage: "list",
            short: "Shows all users",
            action: Action::Run(user::list),
            ..Command::EMPTY
        },
        Command {
            name: "passwd",
            usage: "passwd <user name> [options]",
            short: "Changes the password of a user",
            flags: &[INTERACTIVE],
            action: Action::Run(user::passwd),
            ..Command::EMPTY
        },
        Command {
            name: "grant-role",
            usage: "grant-role <user name> <role name>",
            short: "Gives a role to a user",
            action: Action::Run(user::grant_role),
            ..Command::EMPTY
        },
        Command {
            name: "revoke-role",
            usage: "revoke-role <user name> <role name>",
            short: "Takes a role from a user",
            action: Action::Run(user::revoke_role),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

const RANGE: [Flag; 2] = [
    Flag::new(
        "prefix",
        Kind::Switch(false),
        "all keys that start with the key",
    ),
    Flag::new("from-key", Kind::Switch(false), "all keys from the key on"),
];

pub(super) const ROLE: Command = Command {
    name: "role",
    usage: "role <subcommand>",
    short: "Adds, changes and shows roles. See `etcdctl role --help`",
    long: "Adds, changes and shows roles",
    group: AUTHENTICATION,
    commands: &[
        Command {
            name: "add",
            usage: "add <role name>",
            short: "Adds a role",
            action: Action::Run(role::add),
            ..Command::EMPTY
        },
        Command {
            name: "delete",
            usage: "delete <role name>",
            short: "Deletes a role",
            action: Action::Run(role::delete),
            ..Command::EMPTY
        },
        Command {
            name: "get",
            usage: "get <role name>",
            short: "Shows what a role permits",
            action: Action::Run(role::get),
            ..Command::EMPTY
        },
        Command {
            name: "list",
            usage: "list",
            short: "Shows all roles",
            action: Action::Run(role::list),
            ..Command::EMPTY
        },
        Command {
            name: "grant-permission",
            usage: "grant-permission [options] <role name> <permission type> <key> [endkey]",
            short: "Permits a role to read, write or both",
            flags: &RANGE,
            action: Action::Run(role::grant_permission),
            ..Command::EMPTY
        },
        Command {
            name: "revoke-permission",
            usage: "revoke-permission <role name> <key> [endkey]",
            short: "Takes a permission from a role",
            flags: &RANGE,
            action: Action::Run(role::revoke_permission),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};
