//! bbolt files: the B-tree files in which etcd keeps its state, and which its snapshots are.
//!
//! This is the only module that knows the format. It knows no bucket of etcd's; `snapshot` does.
//!
//! # The file
//!
//! Pages of one size, which the meta pages tell. Numbers are little-endian. A page has a header
//! (`id u64, flags u16, count u16, overflow u32`) and goes on over `overflow` more pages.
//!
//! | Page | Content |
//! |---|---|
//! | 0 and 1: meta | magic, version, page size, flags (u32 each), root bucket (page u64, sequence u64), page of the freelist, end of the pages in use, transaction (u64 each), FNV-1a-64 of those 56 bytes. The valid one of the later transaction counts |
//! | branch | `count` elements `{pos u32, key length u32, page u64}`, then the keys; `pos` counts from the element |
//! | leaf | `count` elements `{flags u32, pos u32, key length u32, value length u32}`, then keys and values. Flag 1: the value is a bucket, `{root page u64, sequence u64}`; with root 0 its only leaf follows within the value |
//! | freelist | numbers of free pages; none is stored when the meta page says page `u64::MAX`, as in etcd's files |
//!
//! # Reading
//!
//! [`BoltFile`] takes nothing for granted: lengths, offsets, page numbers, the order of keys and the
//! number of pages that a walk may visit are checked, so that damage is an [`Error`] and neither a
//! panic nor a loop, and so that what is in memory is bounded by one page for each level of the tree.
//! There is no checksum in the format but those of the meta pages: a flipped bit in a value is not
//! noticed here.
//!
//! # Writing
//!
//! [`Writer`] gives the bytes of a file from the first to the last in one pass, from entries in the
//! order of their keys, with two nodes a level in memory. The head of a file names its root and
//! its length, which are known when everything else is; so the writer is told beforehand how many
//! entries and bytes there are **at most** ([`Contents`]), computes from it the number of pages that
//! are enough, and puts the root into the last one. The pages between are free ones. Leaves are runs of
//! 16 pages, so that the bound is at most 7 % over what is used, and is 3 % as a rule.

mod check;
mod format;
mod reader;
mod writer;

pub use check::{Fault, check};
pub use reader::{BoltFile, Bucket, Entries, Entry};
pub use writer::{Contents, Tail, Writer};

/// Why a file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk.
    #[error("cannot read: {0}")]
    Io(#[from] std::io::Error),
    /// Not a bbolt file, one of another version, or both its meta pages are damaged. The texts are
    /// bbolt's.
    #[error("{0}")]
    Invalid(&'static str),
    /// The file is shorter than it says.
    #[error("file is cut: it has {bytes} bytes, its pages take {expected}")]
    Cut {
        /// Its length.
        bytes: u64,
        /// What it should be at least.
        expected: u64,
    },
    /// A page contradicts itself or others.
    #[error("page {page}: {what}")]
    Page {
        /// The number of the page.
        page: u64,
        /// What is wrong with it.
        what: String,
    },
    /// What was to be written is more than was announced, or not in order.
    #[error("cannot write: {0}")]
    Write(String),
}

#[cfg(test)]
mod tests;
