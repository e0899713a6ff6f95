//! Crash and fault tests of a whole member.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod alone;
mod arrows;
mod client;
mod cluster;
mod corruption;
mod crash_points;
mod dashboards;
mod differential;
mod faults;
mod fleet;
mod group;
mod heal;
mod kill_minus_9;
mod lease_crash;
mod login;
mod quota;
mod quota_flow;
mod serving;
mod simulation;
mod tls;
mod versions;
mod watch_resume;
