//! The etcd v3 API as Ferrite speaks it: messages and services generated from the .proto files of
//! this crate ([`pb`]), identifiers that cannot be mixed up ([`types`]), and etcd's errors with
//! their codes and texts ([`error`]), one table for server and client; URLs as etcd writes them
//! ([`urls`]); versions ([`version`]); and Go's texts for failures of the system ([`os_text`]).

pub mod error;
mod os_text;
pub mod pb;
pub mod types;
pub mod urls;
pub mod version;

pub use error::Error;
pub use os_text::os_text;
pub use version::Version;
