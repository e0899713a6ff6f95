//! Integration tests of the server, one module per behaviour.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod accounts;
mod clusters;
mod process;
mod quorum;
mod wire_connections;
mod wire_kv;
mod wire_lists;
mod wire_messages;
mod wire_reflection;
mod wire_support;
