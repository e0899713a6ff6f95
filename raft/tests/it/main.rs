//! The driver over its log over the WAL on simulated disks. No clock, no thread, no network.

mod boot;
mod cluster;
mod compaction;
mod crash;
mod hostile;
mod peers;
mod reads;
mod sole;
mod support;
