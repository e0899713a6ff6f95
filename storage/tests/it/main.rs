//! Integration tests of the storage crate: models and crash tests.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod alarms;
mod auth;
mod defragmentation;
mod harness;
mod hash;
mod membership;
mod model;
mod model_index;
mod model_mvcc;
mod snapshot;
