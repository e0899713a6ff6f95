//! `elect`: takes part in an election, or follows one.

use ferrite_client::concurrency::{Election, Session as Lease, SessionOptions};
use ferrite_client::pb::etcdserverpb as pb;
use ferrite_client::{Client, GetOptions};

use super::signals::Signals;
use crate::cli::{Matches, Text};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::session::Session;

pub(crate) fn run(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let listen = matches.flags.switch("listen");
    let (name, proposal) = match matches.args.as_slice() {
        [name] => (name, None),
        [name, proposal] => (name, Some(proposal)),
        _ => {
            return Err(Failure::bad_args(
                "elect takes one election name argument and an optional proposal argument",
            ));
        }
    };
    let session = Session::open(context, matches)?;
    let client = session.client()?;
    match (proposal, listen) {
        (None, false) => Err(Failure::bad_args("no proposal argument but -l not set")),
        (Some(_), true) => Err(Failure::bad_args("proposal given but -l is set")),
        (None, true) => session.run(observe(context, &session, &client, name)),
        (Some(proposal), false) => {
            session.run(campaign(context, &session, &client, name, proposal))
        }
    }
}

async fn campaign(
    context: &mut Context,
    session: &Session,
    client: &Client,
    name: &Text,
    proposal: &Text,
) -> Result<(), Failure> {
    let lease = Lease::open(client, SessionOptions::new()).await?;
    let mut signals = Signals::catch()?;
    let mut election = Election::new(&lease, name.clone());
    let elected = tokio::select! {
        elected = election.campaign(proposal.clone()) => Some(elected),
        () = signals.next() => None,
    };
    match elected {
        Some(elected) => elected?,
        None => {
            let _ = election.resign().await;
            return Err(Failure::new(Exit::Error, "context canceled"));
        }
    }
    let found = client.get(election.key(), GetOptions::new()).await?;
    session.printer.get(context, &found)?;
    context.flush()?;
    tokio::select! {
        () = signals.next() => Ok(election.resign().await?),
        _ = lease.done() => Err(Failure::new(Exit::Error, "elect: session expired")),
    }
}

async fn observe(
    context: &mut Context,
    session: &Session,
    client: &Client,
    name: &Text,
) -> Result<(), Failure> {
    let lease = Lease::open(client, SessionOptions::new()).await?;
    let mut signals = Signals::catch()?;
    let mut leaders = Election::new(&lease, name.clone()).observe();
    loop {
        let leader = tokio::select! {
            leader = leaders.next() => leader,
            () = signals.next() => return Ok(()),
        };
        let Ok(leader) = leader else {
            return Err(Failure::new(Exit::Error, "elect: observer lost"));
        };
        let shown = pb::RangeResponse {
            header: leader.header,
            kvs: leader.kv.into_iter().collect(),
            ..Default::default()
        };
        session.printer.get(context, &shown)?;
        context.flush()?;
    }
}
