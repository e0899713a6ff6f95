//! Verification of everything in the file.

use std::ops::ControlFlow;

use super::batch::Table;
use super::error::Error;
use super::file::PageFile;

/// What [`PageFile::verify`] found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VerifyReport {
    /// Rows that were read and are intact.
    pub rows: u64,
    /// Everything that is not as it should be; empty means intact.
    pub damage: Vec<Damage>,
}

/// One thing that is damaged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The table.
    pub table: &'static str,
    /// The key or the position, and both sides of the contradiction.
    pub what: String,
}
