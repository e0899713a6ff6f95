//! `compaction`: gives up the history before a revision.

use ferrite_client::CompactOptions;

use crate::cli::Matches;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::go::number;
use crate::session::Session;

pub(crate) fn run(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let [revision] = matches.args.as_slice() else {
        return Err(Failure::bad_args("compaction command needs 1 argument"));
    };
    let revision = number::parse_int(&String::from_utf8_lossy(revision), 10)
        .map_err(|reason| Failure::new(Exit::Error, reason))?;
    let mut options = CompactOptions::new();
    if matches.flags.switch("physical") {
        options = options.physical();
    }
    let session = Session::open(context, matches)?;
    let deadline = session.timeout().deadline();
    let client = session.client()?.with_deadline(deadline);
    session.run(client.compact(revision, options))?;
    writeln!(context.out(), "compacted revision {revision}")?;
    Ok(())
}
