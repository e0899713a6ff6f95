//! The replicated state of a member: the multi-version key-value store, the leases, the members, users
//! and roles, and [`apply`], the pure state machine that turns log entries into new state.
//!
//! Nothing here knows Raft messages, gRPC, clocks, randomness or, once a start is over ([`restore`]),
//! threads. Reading order: [`mvcc`]
//! (what the data looks like), [`apply`] (how an entry changes it), [`checkpoint`] (how it reaches
//! the page file in [`page`]).

pub mod alarms;
pub mod apply;
pub mod auth;
pub mod bolt;
pub mod checkpoint;
pub mod cluster_version;
mod courtesy;
pub mod error;
pub mod etcd;
pub mod founding;
pub mod leases;
pub mod members;
pub mod membership;
pub mod mvcc;
pub mod page;
pub mod restore;
pub mod schema;
pub mod snapshot;
pub mod state;

pub use error::Error;
