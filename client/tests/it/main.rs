//! The client against fake servers on loopback: what it sends, where, and how often.

mod calls;
mod concurrency;
mod failover;
mod lease;
mod retry;
mod unprocessed;
mod watch;
