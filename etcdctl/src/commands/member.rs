//! `member list`.

use super::is_serializable;
use crate::cli::Matches;
use crate::context::Context;
use crate::failure::Failure;
use crate::session::{Session, Timeout};

pub(crate) fn list(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let consistency = matches.flags.text("consistency");
    // Quirk kept from etcd: the refusal shows the default of another flag, not the value.
    let serializable = is_serializable(&consistency, "l")?;
    let deadline = Timeout::of(&matches.flags).deadline();
    let session = Session::open(context, matches)?;
    let cluster = session.client()?.with_deadline(deadline).cluster();
    let response = session.run(async {
        if serializable {
            cluster.member_list_serializable().await
        } else {
            cluster.member_list().await
        }
    })?;
    session.printer.member_list(context, &response)
}
