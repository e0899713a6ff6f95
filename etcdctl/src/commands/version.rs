//! `version`: the etcd level this tool is equal to.

use crate::cli::Matches;
use crate::context::Context;
use crate::failure::Failure;

/// Two lines and no more: scripts compare them with etcd's. Ferrite's own version is in the help.
pub(crate) fn run(context: &mut Context, _: &Matches) -> Result<(), Failure> {
    writeln!(context.out(), "etcdctl version: 3.7.1\nAPI version: 3.7")?;
    Ok(())
}
