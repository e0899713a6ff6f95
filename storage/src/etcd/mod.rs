//! The state in etcd's own form: snapshots that etcd's tools take, and etcd's files as the origin of
//! a state.
//!
//! ```text
//!   State ── backup() ──▶ Backup ── pieces ──▶ a bbolt file, then its SHA-256
//!   a snapshot ──▶ Database ── restore() ──▶ page file
//!   a data directory ──▶ Database, its log ── migrate() ──▶ page file
//! ```
//!
//! The pages are [`bolt`](crate::bolt)'s business; which buckets there are and what is in them is
//! said in `layout`.

mod backup;
mod database;
mod error;
mod layout;
mod migrate;
mod restore;
mod wal;

pub use backup::{Backup, CHECKSUM_BYTES};
pub use database::{Database, HashKvError, Meta, Progress, Status, has_checksum, verify_checksum};
pub use error::Error;
pub use migrate::{Migrated, migrate};
pub use restore::{Bump, restore};
