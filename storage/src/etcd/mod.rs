//! The state in etcd's own form: snapshots that etcd's tools take, and etcd's files as the origin of
//! a state.
//!
//! ```text
//!   State ── backup() ──▶ Backup ── pieces ──▶ a bbolt file, then its SHA-256
//!   a snapshot, or the file of a data directory ──▶ Database ── restore() ──▶ page file
//! ```
//!
//! The pages are [`bolt`](crate::bolt)'s business; which buckets there are and what is in them is
//! said in `layout`.

mod backup;
mod database;
mod error;
mod layout;
mod restore;

pub use backup::{Backup, CHECKSUM_BYTES};
pub use database::{Database, Meta, Progress, Status, has_checksum, verify_checksum};
pub use error::Error;
pub use restore::{Bump, restore};
