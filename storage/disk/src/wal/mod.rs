//! The write-ahead log: a chain of segment files, each written front to back, recycled when released.
//!
//! A [`Wal`] is owned by the one thread that writes. It promises:
//!
//! * what was appended before a successful [`Wal::sync`] is given back by every later [`Wal::open`], in order, until
//!   its segment is released, whatever power losses lie between;
//! * nothing is given back that was not appended, and nothing out of order;
//! * damage to what had been synced is an [`Error::Corrupt`] that names segment and offset, with the one exception
//!   spelled out under *Recovery*.
//!
//! It leaves to its owner: what the records mean, which segments are no longer needed, a lock on the directory, and
//! noticing that the *newest* segment files are missing (a log cannot tell that from never having written them).
//!
//! # Files
//!
//! | Name | Content |
//! |---|---|
//! | `%016x.wal` | a segment of the log; the number is the name; numbers have no gaps |
//! | `%016x.spare` | a whole segment's worth of allocated blocks, for reuse; its content means nothing |
//! | `%016x.tmp` | a spare that is not finished; removed when the log is opened |
//! | `../<dir>.tmp` | a log that is not finished; [`Wal::create`] renames it |
//!
//! A segment's blocks are written with zeros once, before its first use, and stay allocated while it is recycled. A sync then
//! only has to write data in place, no metadata (`examples/wal_cost.rs` measures it beside a growing file). A batch that begins a
//! page is padded with zeros to the page's end, so that no write ever has to read the page's old content from the disk.
//!
//! # Layout
//!
//! All integers are little-endian. CRC is CRC-32 (IEEE), over the given bytes, starting from the given seed.
//!
//! A segment begins with one sector of 512 bytes:
//!
//! | Bytes | Field |
//! |---|---|
//! | 0..8 | `FERRWAL\n` |
//! | 8..12 | format version, 1 |
//! | 12..16 | salt: a number that no other use of any segment file in this directory has had |
//! | 16..24 | segment number, as in the name |
//! | 24..32 | LSN of the first record |
//! | 32..40 | offset at which the previous segment's records end, 0 for the first segment |
//! | 40..44 | CRC of the last record before this segment, 0 if there is none |
//! | 44..508 | zeros |
//! | 508..512 | CRC of bytes 0..508, seed 0 |
//!
//! Records follow without gaps from offset 512, each beginning at a multiple of 8:
//!
//! | Bytes | Field |
//! |---|---|
//! | 0..4 | CRC of everything that follows, padding included; the seed is the CRC of the segment's header |
//! | 4..8 | payload length in bytes, at most [`MAX_PAYLOAD_BYTES`] |
//! | 8..12 | CRC of the previous record, also across segments |
//! | 12..16 | the segment's salt |
//! | 16..24 | LSN: the number of the record, rising by exactly 1, also across segments; the first is 1 |
//! | 24..28 | how many records up to this one were not known to be synced when it was written, so at least 1 |
//! | 28 | kind: the owner's, or 255 for a mark, see [`Wal::mark_synced`] |
//! | 29 | flags: 1 = part of the segment's head, 2 = the head's last record |
//! | 30..32 | zeros |
//! | 32.. | payload, then zeros up to a multiple of 8 |
//!
//! A mark's payload is empty, or zeros that fill a page: a batch of at least a page ends with such a mark, so that the next one
//! does not have to write its last page again.
//!
//! A batch never spans segments. One that does not fit in what is left of a segment begins the next; one that does not
//! fit in any gets a segment sized for it, which is not recycled.
//!
//! # The order of a cut
//!
//! 1. Sync the active segment: **every segment but the newest is synced to its end**.
//! 2. Take a spare, or write one (the only step that needs space).
//! 3. Write its header, sync, rename it to its segment name, sync the directory. So a `.wal` file always has a valid
//!    header, and everything in it that bears another salt is left over from earlier lives.
//! 4. Write the head and the batch in one write. The head is what recovery needs from older segments; it counts only
//!    if it is complete, otherwise the segment counts as empty and the next append writes a head again.
//!
//! Release goes the other way: the active segment is synced first (its head replaces what is released), then each
//! segment, oldest first, is renamed or removed and the directory synced before the next, so power loss leaves no gap.
//!
//! # Recovery
//!
//! Every segment but the newest must be intact up to the end that its successor's header names; anything else is
//! corruption, and so is a missing file between two others. In the newest, the first record that is not valid ends
//! the log. It is the torn tail of a write that was never synced, unless a later record of the same segment *proves that it
//! had been synced* by naming a synced LSN at or above it: then it is corruption.
//!
//! A later valid record alone proves nothing, since a disk may persist the sectors of an unsynced batch in any order.
//! So damage within what was synced last, with nothing written since, cannot be told from a torn write. This is
//! inherent; [`TornTail::valid_after`] tells the owner of such a tail that *looks* like damage. [`Wal::mark_synced`]
//! closes the window when the log goes idle or shuts down.
//!
//! Before the log is appended to again, recovery makes it safe, with one sync:
//!
//! * bytes after the end that bear this segment's salt are overwritten with zeros. An old record that lay there could
//!   become valid again if the records before it were appended anew with the same content. Left-overs of other salts
//!   cannot, and are not touched;
//! * records that were not known to be synced are written again in place. They were read from the page cache, and after
//!   a crash of the process alone, or a failed sync before it, the disk may not have them.
//!
//! # Full disks and failures
//!
//! Space runs out only where a segment is made: [`Error::NoSpace`], nothing appended, everything as before. All other failures
//! of a write or a sync poison the `Wal`: its owner can no longer know what is on the disk, so every later call fails until
//! the log is opened again.

mod error;
mod format;
mod reader;
mod recovery;
mod segment;
mod writer;

use bytes::Bytes;

pub use error::Error;
pub use reader::WalReader;
pub use recovery::Visit;
pub use writer::Wal;

/// Bytes of a segment's header; the first record begins there.
pub(crate) const HEADER_BYTES: usize = 512;

/// Largest payload of a record, in bytes.
pub const MAX_PAYLOAD_BYTES: u64 = 64 << 20;

/// Largest batch of one append, headers and the segment's head included, in bytes.
pub const MAX_BATCH_BYTES: u64 = 1 << 30;

/// Largest segment, in bytes: so large that nobody wants it, so small that its records can be counted in 32 bits.
const MAX_SEGMENT_BYTES: u64 = 1 << 36;

/// The kind that marks take; owners use the others.
pub const KIND_MARK: u8 = 255;

/// The page of the operating system's cache, in bytes: segments and paddings are multiples of it.
const PAGE_BYTES: u64 = 4096;

/// How large the log's files are and how many are kept for reuse.
#[derive(Debug, Clone)]
pub struct Options {
    /// Size of a segment file in bytes, header included; rounded up to whole pages of 4 KiB, at most 64 GiB.
    /// Default 64,000,000, as etcd's.
    /// May differ from what the existing segments have.
    pub segment_bytes: u64,
    /// How many segment files to keep ready for reuse. Default 1.
    pub spare_segments: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 64_000_000,
            spare_segments: 1,
        }
    }
}

impl Options {
    /// The size that segment files really get.
    fn file_bytes(&self) -> u64 {
        format::round_up(self.segment_bytes.min(MAX_SEGMENT_BYTES), PAGE_BYTES).max(PAGE_BYTES)
    }
}

/// One record to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What the payload is; any value but [`KIND_MARK`].
    pub kind: u8,
    /// At most [`MAX_PAYLOAD_BYTES`]; may be empty.
    pub payload: Bytes,
}

/// Where a record begins. Positions rise in the order of appending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Number of the segment.
    pub segment: u64,
    /// Byte offset in the segment's file.
    pub offset: u64,
}

/// What [`Wal::open`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Records given to the visitor, heads included, marks not.
    pub records: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// What was dropped at the end, if anything.
    pub torn: Option<TornTail>,
}

/// An incomplete write at the end of the log, never acknowledged as synced as far as the log can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The segment, always the newest.
    pub segment: u64,
    /// Where the valid records end.
    pub offset: u64,
    /// How many bytes from there were zeroed.
    pub bytes: u64,
    /// Valid records were found after the first bad one. Either a power loss persisted the sectors of an unsynced write
    /// out of order, or records of the very last sync were damaged. An owner that can get its log elsewhere
    /// should not trust this one to hold all that it had synced.
    pub valid_after: bool,
}
