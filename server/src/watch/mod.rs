//! Watches: who sees which change, when, and in which order.
//!
//! ```text
//!   member ── publishes a View ──▶ Hub: a turn ──▶ ring of events     ◀── take ── Stream (live)
//!                                    └─ marks the streams concerned ──▶         Stream
//!                                                 page file, index ◀── CatchUp ── Stream (behind)
//! ```
//!
//! * The member pays nothing while nobody watches, and one wake-up for a batch otherwise: the rows
//!   that it applied are in the view that it publishes anyway.
//! * The [`hub::Hub`] turns rows into [`Event`]s, encoded once, in a ring bounded in bytes, and marks
//!   the streams whose ranges match: by key and by interval tree, so that it does not matter how
//!   many other watchers there are.
//! * A [`stream::Stream`] takes events from the ring while its client has room for them. It matches
//!   them against its own watchers, in the task of its connection. A client that reads slowly has an
//!   old cursor and nothing else.
//! * What the ring has dropped, and what is older than the watcher, is read from history
//!   ([`catch_up`]), in chunks bounded in revisions, rows and bytes. A watcher whose next revision was
//!   compacted is told so and ends.
//!
//! What is promised to a watcher (spec watch.md section 5): its revisions only go up; no event comes
//! twice; no event is left out between two that came; the events of a revision come in one response,
//! in fragments if it asked for them; progress at R comes after every event up to R and before every
//! later one; a watcher from the last revision + 1 on, on any member, goes on exactly there.
//!
//! Everything here is decided without clock, thread or file: the hub is given turns, streams are
//! stepped, and history is read by whoever the stream hands the work to. The shell around it is
//! `handle::watch`; `robustness` has another one.

mod catch_up;
mod event;
mod hub;
mod interval;
mod response;
mod ring;
mod stream;
#[cfg(test)]
mod tests;

pub use catch_up::{CatchUp, CaughtUp};
pub use event::Event;
pub use hub::Hub;
pub use response::{Content, Response};
pub use stream::{Step, Stream};

pub(crate) use event::Pieces;

/// The bounds of watching. Small ones make tests meet all of them.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Memory of the ring (bytes).
    pub ring_bytes: usize,
    /// Events after which a turn of the hub ends, at the next whole revision.
    pub turn_events: usize,
    /// Revisions in one response; etcd's number.
    pub response_revisions: i64,
    /// Events that a stream takes from the ring at a time (bytes).
    pub window_bytes: usize,
    /// Revisions that a watcher may lack to get them from the ring at once.
    pub replay_revisions: i64,
    /// Lanes that share a chunk of history.
    pub lanes: usize,
    /// Events in a chunk of history (bytes).
    pub chunk_bytes: usize,
    /// Rows, or revisions, that a chunk of history looks at.
    pub scan_rows: i64,
    /// Keys in a range above which rows are scanned instead of looking in the index.
    pub narrow_keys: u64,
    /// Responses of this length are split if the watcher wants it (bytes).
    pub fragment_bytes: usize,
}

impl Limits {
    /// The server's bounds. `fragment_bytes` is what a client must be able to receive.
    pub fn new(fragment_bytes: usize) -> Self {
        Self {
            ring_bytes: 8 << 20,
            turn_events: 256,
            response_revisions: 1000,
            window_bytes: 256 << 10,
            replay_revisions: 4096,
            lanes: 1024,
            chunk_bytes: 1 << 20,
            scan_rows: 8192,
            narrow_keys: 512,
            fragment_bytes,
        }
    }
}
