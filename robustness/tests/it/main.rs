//! Crash and fault tests of a whole member.

mod crash_points;
mod kill_minus_9;
