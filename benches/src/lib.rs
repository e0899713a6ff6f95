//! Measuring a server of the etcd v3 API from outside, over its wire.
//!
//! [`load`] makes requests and times them (binary `load`); [`compare`] runs two server binaries
//! alternately under the same loads and sets their figures side by side (binary `side-by-side`).
//! Nothing here knows how Ferrite works inside: a real etcd is measured by the same code.
//!
//! Reading order: [`keys`] (which keys, in which order), [`rpc`] (the light gRPC client),
//! [`histogram`], [`load`], [`page`], [`lease`], [`list`], [`watch`], [`defragment`]; then [`server`] (child processes),
//! [`proc`] (what the kernel says about them), [`compare`], [`report`].

pub mod compare;
pub mod defragment;
pub mod discard;
pub mod flags;
pub mod histogram;
pub mod keys;
pub mod lease;
pub mod list;
pub mod load;
pub mod page;
pub mod proc;
pub mod report;
pub mod rpc;
pub mod server;
pub mod watch;
