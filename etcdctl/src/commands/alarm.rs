//! `alarm list` and `alarm disarm`.

use crate::cli::Matches;
use crate::context::Context;
use crate::failure::Failure;
use crate::session::{Session, Timeout};

pub(crate) fn list(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    if !matches.args.is_empty() {
        let message = "alarm list command accepts no arguments";
        return Err(Failure::bad_args(message));
    }
    let deadline = Timeout::of(&matches.flags).deadline();
    let session = Session::open(context, matches)?;
    let client = session.client()?.with_deadline(deadline);
    let response = session.run(client.maintenance().alarm_list())?;
    session.printer.alarm(context, &response)
}

pub(crate) fn disarm(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    if !matches.args.is_empty() {
        let message = "alarm disarm command accepts no arguments";
        return Err(Failure::bad_args(message));
    }
    let deadline = Timeout::of(&matches.flags).deadline();
    let session = Session::open(context, matches)?;
    let client = session.client()?.with_deadline(deadline);
    let response = session.run(client.maintenance().alarm_disarm_all())?;
    session.printer.alarm(context, &response)
}
