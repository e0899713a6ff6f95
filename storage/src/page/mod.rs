//! The page file: the durable B-tree under the write-behind store.

mod backend;
mod batch;
mod error;
mod file;
mod guard;
mod layout;
mod meta;
mod reader;
mod row;
mod space;
mod tables;
mod verify;
mod write;

pub use batch::{Batch, ConfState, Initial, MetaUpdate, RowId, RowWrite, Table, TableWrite};
pub use error::Error;
pub use file::{Options, PageFile, Sizes};
pub use meta::{FORMAT_VERSION, Meta};
pub use reader::Reader;
pub use row::{MAX_RECORD_BYTES, REVISIONS, record_digest};
pub use verify::{Damage, VerifyReport};

#[cfg(test)]
mod tests;
