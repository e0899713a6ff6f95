//! The commands, one module each.

pub(crate) mod check;
pub(crate) mod completion;
pub(crate) mod defrag;
pub(crate) mod dump_db;
pub(crate) mod dump_log;
pub(crate) mod hashkv;
mod progress;
mod request;
pub(crate) mod version;
