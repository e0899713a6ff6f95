//! Consensus for Ferrite: a sans-IO driver over tikv's `raft` crate, and its log over the WAL of
//! `ferrite-disk`.
//!
//! Nothing here reads a clock, starts a thread, opens a socket or draws a random number: ticks,
//! messages and reports go in, [`Effects`] come out, and the same inputs and the same seed give the
//! same effects. What an entry contains is opaque.
//!
//! Start reading at [`driver`], which explains the order of things; [`log`] says what is on the
//! disk.
//!
//! The life of a member:
//!
//! 1. [`log::create`] once, [`log::recover`] at every later start: a log and its WAL; and the
//!    [`BallotFile`] beside it;
//! 2. [`Driver::new`] with the log, the index up to which the checkpoint holds the state, and the
//!    configuration as of that index;
//! 3. inputs, and after them [`Driver::effects`] until there are none: see [`driver`];
//! 4. now and then [`Driver::compact`], as [`should_compact`] says, and `Wal::release_before` of
//!    [`Driver::releasable_before`].

pub mod driver;
pub mod log;

mod appends;
mod ballot;
mod conf;
mod effects;
mod election;
mod error;
mod logger;
mod policy;
mod snapshot;
mod wire;

pub use ballot::{Ballot, BallotFile};
pub use conf::{Change, ConfChange, ConfState};
pub use driver::{Config, Driver};
pub use effects::{
    Append, Committed, Effects, EntryKind, Leadership, OutgoingSnapshot, Progress, Role, Status,
    Ticket,
};
pub use error::{DropReason, Error, ProposeError, StepError};
pub use log::{HardState, MAX_ENTRY_BYTES, Mark, Metadata, RaftLog};
pub use policy::should_compact;
pub use snapshot::Snapshot;
