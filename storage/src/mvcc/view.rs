//! What a reader pins: a consistent, immutable picture of the store.

use std::sync::Arc;

use bytes::Bytes;
use ferrite_api::types::Revision;

use super::index::KeyIndex;
use super::pins::Pins;
use super::recent::RecentRows;
use crate::error::Error;
use crate::page::{self, PageFile};

/// The store as it stood after some applied entry. Pinning one costs a reference count; it holds
/// no page-file transaction.
#[derive(Clone, Debug)]
pub struct View {
    /// Key to revisions.
    pub index: KeyIndex,
    /// Rows that are not in the page file yet (and some that already are).
    pub recent: RecentRows,
    /// The page file.
    pub page: Arc<PageFile>,
    /// The store revision.
    pub revision: i64,
    /// The last compaction; -1 before the first. Reads need `compacted <= at <= revision`.
    pub compacted: i64,
    /// Revisions that long readers still need.
    pub pins: Pins,
}

/// Why a row could not be fetched.
#[derive(Debug)]
pub enum RowError {
    /// The page file has no such row: it was compacted away, or the file is damaged. The caller
    /// knows which, by comparing its revision with the newest compaction.
    Missing(Revision),
    /// The storage failed or is damaged.
    Storage(Error),
}

impl View {
    /// Starts fetching rows.
    pub fn rows(&self) -> Rows<'_> {
        Rows {
            view: self,
            fetcher: None,
            fetched: 0,
        }
    }
}

/// Fetches rows of a view. What fetches them from the page file is renewed every few hundred rows: it
/// may hold a transaction, and one that stays open makes the file grow.
pub struct Rows<'a> {
    view: &'a View,
    fetcher: Option<page::Fetcher>,
    fetched: u32,
}

/// Rows until then; at a few microseconds a row this is milliseconds.
const RENEWED_AFTER: u32 = 512;

impl Rows<'_> {
    /// The record of the put at `revision`.
    ///
    /// # Errors
    /// See [`RowError`].
    pub fn get(&mut self, revision: Revision) -> Result<Bytes, RowError> {
        if let Some(row) = self.view.recent.get(revision) {
            return Ok(row.record.clone());
        }
        if self.fetched == RENEWED_AFTER {
            self.fetcher = None;
            self.fetched = 0;
        }
        self.fetched += 1;
        let fetcher = match &mut self.fetcher {
            Some(fetcher) => fetcher,
            fetcher => fetcher.insert(self.view.page.fetcher()?),
        };
        Ok(fetcher.row(revision)?)
    }
}

impl From<page::Error> for RowError {
    fn from(error: page::Error) -> Self {
        match error {
            page::Error::Missing { revision } => Self::Missing(revision),
            error => Self::Storage(error.into()),
        }
    }
}
