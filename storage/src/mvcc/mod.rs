//! The multi-version store: every change of a key is kept, under the revision that made it, until
//! a compaction drops it.
//!
//! ```text
//!            writer (apply, one owner)                       readers (any thread)
//!   Store { index, recent, page, revision, compacted } ──▶ View { index, recent, page, ... }
//!
//!   index   key  -> revisions            in memory, copy-on-write      (KeyIndex)
//!   recent  revision -> row              in memory, not yet on disk    (RecentRows)
//!   page    revision -> row              the page file                 (crate::page)
//! ```
//!
//! A read pins a [`View`], finds (main, sub) of each key in the index and fetches the rows from
//! `recent` or the page file. Rows are immutable, so a reader needs no lock against apply.
//!
//! Invariants:
//! * `main` grows by exactly 1 per request that changes a key; a fresh store is at 1.
//! * `compacted <= revision`; `compacted` is -1 until the first compaction.
//! * Every row that the index names is in `recent` or in the page file, unless a compaction above
//!   the reader's revision removed it.

pub(crate) mod bucket_key;
pub mod hash;
pub mod index;
pub mod list;
pub mod pins;
pub mod range;
pub mod read;
pub mod recent;
pub(crate) mod record;
pub mod store;
pub mod view;

pub use record::{Head as RecordHead, append_field, decode as decode_record, head as record_head};
