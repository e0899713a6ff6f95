//! The commands, one module each.

pub(crate) mod check;
pub(crate) mod completion;
pub(crate) mod defrag;
pub(crate) mod dump_db;
pub(crate) mod dump_log;
pub(crate) mod hashkv;
pub(crate) mod migrate;
mod migrate_schema;
mod progress;
mod request;
pub(crate) mod snapshot_restore;
pub(crate) mod snapshot_status;
pub(crate) mod version;
