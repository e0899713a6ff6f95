//! `version`: the etcd level that this tool is equal to.

use std::io::Write as _;

use crate::cli::Matches;
use crate::failure::Failure;

/// Two lines and no more: scripts compare them with etcd's.
pub(crate) fn run(_: &Matches) -> Result<(), Failure> {
    writeln!(
        std::io::stdout(),
        "etcdutl version: 3.7.1\nAPI version: 3.7"
    )?;
    Ok(())
}
