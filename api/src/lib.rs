//! The etcd v3 API as Ferrite speaks it: messages and services generated from the .proto files of
//! this crate ([`pb`]), identifiers that cannot be mixed up ([`types`]), and etcd's errors with
//! their codes and texts ([`error`]), one table for server and client; URLs as etcd writes them
//! ([`urls`]); and versions ([`version`]).

pub mod error;
pub mod pb;
pub mod types;
pub mod urls;
pub mod version;

pub use error::Error;
pub use version::Version;
