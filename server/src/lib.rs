//! The Ferrite server: one member of a cluster, embeddable.
//!
//! [`Server::start`] runs a member from a [`config::Config`]; [`handle::Handle`] calls it from
//! inside the process. Reading order of the write path: [`grpc`] takes a request off the wire,
//! [`handle`] validates and proposes it, [`shell`] gathers what arrives and carries effects out,
//! [`member`] decides. What it publishes goes to those who watch through [`watch`].

pub mod auth;
mod background;
pub mod bootstrap;
mod compactor;
mod concurrency;
pub mod config;
pub mod corruption;
pub mod error;
mod gather;
pub mod grpc;
pub mod handle;
pub mod http;
pub mod lessor;
pub mod logging;
pub mod member;
pub mod metrics;
pub mod peer;
mod peering;
pub mod program;
pub mod quota;
mod release;
pub mod request_id;
pub mod serve;
pub mod server;
mod shell;
mod spans;
pub mod validate;
pub mod watch;

pub use release::InvalidDowngrade;
pub use server::Server;
