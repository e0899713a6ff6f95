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
        let deadline = session.timeout().deadline();
        let client = session
            .client_of([endpoint.as_str()])?
            .with_deadline(deadline);
        let start = Instant::now();
        let result = session.run(client.maintenance().defragment(&endpoint));
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
