//! `defrag`: gives unused space of each endpoint's database back to its file system.

use std::time::Instant;

use super::endpoint::endpoints;
use crate::cli::Matches;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::go::duration;
use crate::session::Session;

pub(crate) fn run(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let session = Session::open(context, matches)?;
    let mut failed = false;
    for endpoint in endpoints(&session)? {
        let start = Instant::now();
        let result = session.ask(&endpoint, async |client| {
            client.maintenance().defragment(&endpoint).await
        });
        let took = duration::format_elapsed(start.elapsed());
        match result {
            Ok(_) => writeln!(
                context.out(),
                "Finished defragmenting etcd member[{endpoint}]. took {took}"
            )?,
            Err(error) => {
                failed = true;
                context.error_line(format!(
                    "Failed to defragment etcd member[{endpoint}]. took {took}. ({error})"
                ))?;
            }
        }
    }
    match failed {
        true => Err(Failure::silent(Exit::Error)),
        false => Ok(()),
    }
}
