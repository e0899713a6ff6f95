//! Integration tests of the server, one module per behaviour.

mod process;
mod wire_connections;
mod wire_kv;
mod wire_messages;
mod wire_support;
