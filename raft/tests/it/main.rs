//! The driver over its log over the WAL on simulated disks. No clock, no thread, no network.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(
    clippy::field_reassign_with_default,
    reason = "raft messages are built like that"
)]

mod ballot;
mod boot;
mod cluster;
mod compaction;
mod crash;
mod hostile;
mod peers;
mod reads;
mod recovering;
mod snapshots;
mod sole;
mod support;
