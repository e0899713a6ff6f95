//! `member list`, `add`, `remove`, `update`, `promote`.

use ferrite_client::MemberId;

use super::is_serializable;
use crate::cli::Matches;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::go::quote::quote;
use crate::go::{number, urls};
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

pub(crate) fn add(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let name = match matches.args.as_slice() {
        [] => return Err(Failure::bad_args("member name not provided")),
        [name] => name,
        args => {
            let mut message = "too many arguments".to_owned();
            for arg in args {
                let arg = String::from_utf8_lossy(arg);
                if arg.to_lowercase().starts_with("http") {
                    message.push_str(&format!(", did you mean --peer-urls={arg}"));
                }
            }
            return Err(Failure::bad_args(message));
        }
    };
    let urls = peer_urls(matches)?;
    let learner = matches.flags.switch("learner");
    let deadline = Timeout::of(&matches.flags).deadline();
    let session = Session::open(context, matches)?;
    check_urls(&urls)?;
    let cluster = session.client()?.with_deadline(deadline).cluster();
    let response = session.run(async {
        if learner {
            cluster.member_add_learner(urls.split(',')).await
        } else {
            cluster.member_add(urls.split(',')).await
        }
    })?;
    session.printer.member_add(context, &response)?;
    if session.printer.name() == "simple" {
        let id = response.member.unwrap_or_default().id;
        let name = String::from_utf8_lossy(name).into_owned();
        let members = response.members.iter().flat_map(|member| {
            let shown = if member.id == id { &name } else { &member.name };
            let urls = member.peer_ur_ls.iter();
            urls.map(move |url| format!("{shown}={url}"))
        });
        let initial = members.collect::<Vec<_>>().join(",");
        writeln!(context.out(), "\nETCD_NAME={}", quote(&name))?;
        writeln!(context.out(), "ETCD_INITIAL_CLUSTER={}", quote(initial))?;
        writeln!(
            context.out(),
            "ETCD_INITIAL_ADVERTISE_PEER_URLS={}",
            quote(urls)
        )?;
        writeln!(context.out(), "ETCD_INITIAL_CLUSTER_STATE=\"existing\"")?;
    }
    Ok(())
}

pub(crate) fn remove(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let member = member_id(matches)?;
    let deadline = Timeout::of(&matches.flags).deadline();
    let session = Session::open(context, matches)?;
    let cluster = session.client()?.with_deadline(deadline).cluster();
    let response = session.run(cluster.member_remove(member))?;
    session.printer.member_remove(context, member, &response)
}

pub(crate) fn update(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let member = member_id(matches)?;
    let urls = peer_urls(matches)?;
    let deadline = Timeout::of(&matches.flags).deadline();
    let session = Session::open(context, matches)?;
    check_urls(&urls)?;
    let cluster = session.client()?.with_deadline(deadline).cluster();
    let response = session.run(cluster.member_update(member, urls.split(',')))?;
    session.printer.member_update(context, member, &response)
}

pub(crate) fn promote(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let member = member_id(matches)?;
    let deadline = Timeout::of(&matches.flags).deadline();
    let session = Session::open(context, matches)?;
    let cluster = session.client()?.with_deadline(deadline).cluster();
    let response = session.run(cluster.member_promote(member))?;
    session.printer.member_promote(context, member, &response)
}

fn member_id(matches: &Matches) -> Result<MemberId, Failure> {
    let [id] = matches.args.as_slice() else {
        return Err(Failure::bad_args("member ID is not provided"));
    };
    let id = number::parse_uint(&String::from_utf8_lossy(id), 16).map_err(|reason| {
        Failure::bad_args(format!("bad member ID arg ({reason}), expecting ID in Hex"))
    })?;
    Ok(MemberId::new(id))
}

fn peer_urls(matches: &Matches) -> Result<String, Failure> {
    let urls = matches.flags.text("peer-urls");
    if urls.is_empty() {
        return Err(Failure::bad_args("member peer urls not provided"));
    }
    Ok(urls)
}

fn check_urls(urls: &str) -> Result<(), Failure> {
    let mut checks = urls.split(',').map(urls::check);
    checks
        .try_for_each(|check| check)
        .map_err(|error| Failure::new(Exit::Error, error))
}
