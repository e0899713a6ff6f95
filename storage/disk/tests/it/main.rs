//! Tests of the disks and the write-ahead log through their public API.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod overlay;
mod real;
mod sim;
mod support;
mod wal_basic;
mod wal_damage;
mod wal_full;
mod wal_model;
mod wal_power;
