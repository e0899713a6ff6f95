//! `lease grant`, `revoke`, `timetolive`, `list`, `keep-alive`.

use ferrite_client::LeaseId;

use crate::cli::{Matches, Text};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::go::number;
use crate::session::{Session, Timeout};

pub(crate) fn grant(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let [ttl] = matches.args.as_slice() else {
        return Err(Failure::bad_args("lease grant command needs TTL argument"));
    };
    let ttl = number::parse_int(&String::from_utf8_lossy(ttl), 10)
        .map_err(|reason| Failure::bad_args(format!("bad TTL ({reason})")))?;
    let deadline = Timeout::of(&matches.flags).deadline();
    let session = Session::open(context, matches)?;
    let client = session.client()?.with_deadline(deadline);
    let response = session
        .run(client.leases().grant(ttl))
        .map_err(|error| Failure::new(Exit::Error, format!("failed to grant lease ({error})")))?;
    session.printer.lease_grant(context, &response)
}

pub(crate) fn revoke(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let [lease] = matches.args.as_slice() else {
        return Err(Failure::bad_args("lease revoke command needs 1 argument"));
    };
    let lease = lease_id(lease)?;
    let deadline = Timeout::of(&matches.flags).deadline();
    let session = Session::open(context, matches)?;
    let client = session.client()?.with_deadline(deadline);
    let response = session
        .run(client.leases().revoke(lease))
        .map_err(|error| Failure::new(Exit::Error, format!("failed to revoke lease ({error})")))?;
    session.printer.lease_revoke(context, lease, &response)
}

pub(crate) fn time_to_live(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let [lease] = matches.args.as_slice() else {
        let message = "lease timetolive command needs lease ID as argument";
        return Err(Failure::bad_args(message));
    };
    let session = Session::open(context, matches)?;
    let leases = session.client()?.leases();
    let lease = lease_id(lease)?;
    let keys = matches.flags.switch("keys");
    let response = session.run(async {
        if keys {
            leases.time_to_live_with_keys(lease).await
        } else {
            leases.time_to_live(lease).await
        }
    });
    let response = response.map_err(bad_connection)?;
    session.printer.lease_time_to_live(context, &response, keys)
}

pub(crate) fn list(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let session = Session::open(context, matches)?;
    let leases = session.client()?.leases();
    let response = session.run(leases.list()).map_err(bad_connection)?;
    session.printer.lease_list(context, &response)
}

pub(crate) fn keep_alive(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let [lease] = matches.args.as_slice() else {
        let message = "lease keep-alive command needs lease ID as argument";
        return Err(Failure::bad_args(message));
    };
    let lease = lease_id(lease)?;
    let session = Session::open(context, matches)?;
    let leases = session.client()?.leases();
    if matches.flags.switch("once") {
        let response = session.run(leases.keep_alive_once(lease));
        let response = response.map_err(bad_connection)?;
        return session.printer.lease_keep_alive(context, &response);
    }
    session.run(async {
        let mut renewals = leases.keep_alive(lease);
        // Whatever ends the renewal, the lease is or may be lost.
        while let Ok(renewal) = renewals.next().await {
            session.printer.lease_keep_alive(context, &renewal)?;
            context.flush()?;
        }
        if session.printer.name() == "simple" {
            writeln!(context.out(), "lease {lease} expired or revoked.")?;
        }
        Ok(())
    })
}

fn lease_id(text: &Text) -> Result<LeaseId, Failure> {
    let id = number::parse_int(&String::from_utf8_lossy(text), 16).map_err(|reason| {
        Failure::bad_args(format!("bad lease ID arg ({reason}), expecting ID in Hex"))
    })?;
    Ok(LeaseId::new(id))
}

fn bad_connection(error: ferrite_client::Error) -> Failure {
    Failure::new(Exit::BadConnection, error)
}
