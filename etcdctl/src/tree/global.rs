//! The flags of every command.

use crate::cli::{Flag, Kind};

const SECOND: i64 = 1_000_000_000;

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
        "accept any server certificate",
    )
    .hidden(),
    Flag::new("cert", Kind::Text(""), "certificate of the client").hidden(),
    Flag::new("key", Kind::Text(""), "key of the client's certificate").hidden(),
    Flag::new(
        "cacert",
        Kind::Text(""),
        "certificate authorities of servers",
    )
    .hidden(),
    Flag::new("auth-jwt-token", Kind::Text(""), "JWT to authenticate with").hidden(),
    Flag::new(
        "user",
        Kind::Text(""),
        "user[:password] to authenticate with; without a password it is asked for",
    )
    .hidden(),
    Flag::new("password", Kind::Text(""), "password to authenticate with").hidden(),
    Flag::new(
        "discovery-srv",
        Kind::Text(""),
        "domain whose SRV records name the endpoints",
    )
    .short('d')
    .hidden(),
    Flag::new(
        "discovery-srv-name",
        Kind::Text(""),
        "suffix of the names of those records",
    )
    .hidden(),
];
