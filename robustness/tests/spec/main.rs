//! What a client gets for good and for bad requests, row by row of the specification: the module
//! is the section, the test names the row (`s4_3` is section 4.3 of spec validation.md, `g7_1` is 7.1
//! of wire.md), and the texts are written out, so that a change of the error table cannot hide one of
//! the wire.
//!
//! A whole server in this process, its real sockets, and the messages as they are: no client
//! library that could refuse, repair or repeat something.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod alarms;
mod auth;
mod authorization;
mod cluster;
mod coverage;
mod downgrade;
mod ecosystem;
mod gateway;
mod gateway_streams;
mod json_client;
mod kv;
mod lease;
mod maintenance;
mod pipeline;
mod queues;
mod range_stream;
mod support;
mod tracing;
mod txn;
mod watch;
