//! The page file: the durable B-tree under the write-behind store.
//!
//! Applied entries live in memory and in the log. Now and then a checkpoint moves them here, whole
//! entries, in one transaction together with the index of the last of them
//! ([`Meta::consistent_index`]); compaction removes rows in the same way. Nothing else writes. Reads
//! come at any time from any thread. redb does the tree and the transactions, and no other module
//! knows it.
//!
//! # What it promises
//!
//! * **A commit is there whole or not at all**, whenever power is lost, and what [`PageFile::commit`]
//!   has returned stays. Opening finds the newest commit: commits are two-phase, so redb never falls
//!   back to an older one. Nevertheless the caller compares [`Meta::consistent_index`] with its log,
//!   which must reach back to it: a disk that loses synced writes, or a file put back from
//!   elsewhere, shows as an older state that is consistent in itself.
//! * **Damage is noticed before it is served**, and named. Every page carries a checksum that is
//!   checked when the page comes from the disk (`layout`): redb does not check its own on reads,
//!   and on damaged pages gives wrong values, misses rows or panics. Every row and every small row
//!   carries one over key and value as well, checked on every read, so that also a wrong turn inside
//!   redb shows, and a row can be taken from its leaf without redb ([`Fetcher`]). What still panics
//!   becomes [`Error::Corrupt`] (`guard`). Not noticed is a page that is *whole* but old, checksum
//!   included; counters and digest in the meta record tell, at start and in [`PageFile::verify`].
//! * **A full disk refuses commits and nothing else** ([`Error::NoSpace`]). redb refuses everything
//!   after its first IO error, so it must not meet a full disk: what a commit may need at most
//!   (`space`) is reserved as real blocks beforehand. A commit that adds rows also leaves enough
//!   reserved to compact 2000 rows afterwards; should even that be refused, fewer rows at a time need
//!   less. The same commit works as soon as there is room.
//! * **Any other failure of the disk is final**: the file refuses all later calls.
//! * **Equal rows, equal counters**: [`Meta::rows`], [`Meta::digest`] and the others depend on what is
//!   in the file, not on how it came there.
//! * The same calls do the same operations on the disk in the same order. Dropping a file writes
//!   nothing.
//!
//! # Left to the caller
//!
//! That a file is opened once (the data directory has a lock). That readers are short: while one
//! lives, replaced pages are not reused and the file grows. What rows mean.
//!
//! # Layout
//!
//! `layout` says where pages are in the file, `row` how rows are stored. The tables of small
//! rows have the CRC-32C of key and value (4 bytes, little-endian) before the value; so has the one
//! row of the table `meta`. The pages themselves are redb's file format 3 with regions of 16 MiB.
//!
//! # Measured
//!
//! redb 4.6 on 2 busy cores; `fdatasync` took 0.3 to 4 ms.
//!
//! | | |
//! |---|---|
//! | commit of 1, 100, 10,000 rows of 300 bytes | 44 KB, 84 KB, 3.4 MB written; 2 syncs and 0.2, 0.4, 15 ms (1 us of CPU a row) |
//! | the same with 1M rows in the file | 130 KB, 155 KB, 3.5 MB: the allocator state is 80 KB |
//! | without `set_quick_repair` | 1 sync, 12 to 80 KB less; opening after a crash 1.3 s instead of 7 ms |
//! | row in redb's cache; its page read from the system's | 0.4 to 0.8 us; 5 us |
//! | row straight from its leaf ([`Fetcher`]): far from the row before; next to it | 2 us; 0.3 us |
//! | record of 10 KiB, likewise; through redb | 5 us; 17 us |
//! | scan, per row; straight from the leaves | 0.6 us; 0.15 us |
//! | removing 2000 of 2M rows: a whole range, every 8th, 50th, 200th of one | 2, 21, 40, 50 ms |
//! | file of 1M rows of 300 bytes | 345 MB: 319 MB of keys and values, 8 % tree |
//!
//! File bytes per record byte, by the size of the parts that a record is split into (read time of a
//! record in us):
//!
//! | Parts | 300 B | 2.5 KB | 4 KiB | 10 KiB | 64 KiB | 1 MiB |
//! |---|---|---|---|---|---|---|
//! | unsplit (computed) | 1.15 | 1.67 | 2.02 | 1.61 | 2.0 | 2.0 |
//! | 480 B | 1.15 | 1.19 (8) | 1.15 (10) | 1.12 (21) | 1.09 (123) | 1.09 (2083) |
//! | 795 B | 1.15 | 1.25 (7) | 1.22 (9) | 1.06 (15) | 1.06 (87) | 1.05 (1656) |
//! | 2000 B | 1.15 | 1.67 (5) | 1.53 (8) | 1.22 (12) | 1.05 (64) | 1.05 (1093) |
//! | 8160 B | 1.15 | 1.67 (4) | 2.02 (6) | 1.22 (10) | 1.07 (41) | 1.02 (689) |
//! | 16,300 B | 1.15 | 1.67 (5) | 2.02 (6) | 1.61 (8) | 1.07 (31) | 1.01 (498) |
//! | **1341 B, 16,357 B from 32 KiB on** | 1.15 | 1.10 (5) | 1.35 (9) | 1.08 (12) | 1.07 (40) | 1.01 (494) |
//!
//! Over records of all sizes from 2 to 16 KB, computed: 480 B parts cost 1.10, 1341 B 1.11, 2000 B 1.15, whole
//! pages 1.24.

mod backend;
mod batch;
mod error;
mod fetch;
mod file;
mod fill;
mod gathered;
mod guard;
mod layout;
mod leaves;
mod meta;
mod pacing;
mod places;
mod reader;
mod rebuild;
mod row;
mod space;
mod tables;
mod tree;
mod verify;
mod write;

pub use batch::{Batch, ConfState, Initial, MetaUpdate, RowId, RowWrite, Table, TableWrite};
pub use error::Error;
pub use fetch::Fetcher;
pub use file::{Options, PageFile, Sizes};
pub use fill::Filling;
pub(crate) use fill::{remove_unfinished, with_ending};
pub use leaves::{Leaves, RowVisitor};
pub use meta::{FORMAT_VERSION, Meta};
pub use reader::Reader;
pub use rebuild::{
    Outcome as RebuildOutcome, Rebuild, Rebuilt, Step as RebuildStep, rebuild, rebuild_in_use,
    remove_remains,
};
pub use row::{MAX_RECORD_BYTES, REVISIONS, record_digest};
pub use verify::{Damage, VerifyReport};

#[cfg(test)]
mod tests;
