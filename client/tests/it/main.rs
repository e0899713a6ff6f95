//! The client against fake servers on loopback: what it sends, where, and how often.

mod calls;
mod failover;
mod fake;
mod retry;
mod unprocessed;
