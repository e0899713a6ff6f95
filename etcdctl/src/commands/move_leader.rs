//! `move-leader`: hands leadership over to another member.

use ferrite_client::MemberId;

use crate::cli::Matches;
use crate::context::Context;
use crate::failure::Failure;
use crate::go::number;
use crate::session::Session;

pub(crate) fn run(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let [target] = matches.args.as_slice() else {
        return Err(Failure::bad_args("move-leader command needs 1 argument"));
    };
    let target =
        number::parse_uint(&String::from_utf8_lossy(target), 16).map_err(Failure::bad_args)?;
    let target = MemberId::new(target);
    let session = Session::open(context, matches)?;
    let deadline = session.timeout().deadline();
    for endpoint in &session.endpoints {
        let client = session.client_of(endpoint)?.with_deadline(deadline);
        let status = session.run(client.maintenance().status(endpoint))?;
        let leader = MemberId::new(status.leader);
        if status.header.unwrap_or_default().member_id != status.leader {
            continue;
        }
        // Only the leader does it, so this endpoint and no other is asked.
        let response = session.run(client.maintenance().move_leader(target))?;
        return session
            .printer
            .move_leader(context, leader, target, &response);
    }
    let endpoints = session.endpoints.join(" ");
    Err(Failure::bad_args(format!(
        "no leader endpoint given at [{endpoints}]"
    )))
}
