//! Crash and fault tests of a whole member.

mod arrows;
mod crash_points;
mod faults;
mod kill_minus_9;
