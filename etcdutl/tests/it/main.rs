//! etcdutl as a program, on the files of members that have run.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod check;
mod defrag;
mod dump;
mod hashkv;
mod migrate;
mod snapshot;
mod support;
mod usage;
