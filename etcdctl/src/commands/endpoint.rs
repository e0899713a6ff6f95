//! `endpoint health`, `endpoint status`, `endpoint hashkv`: each asks every endpoint by itself.

use std::time::Instant;

use ferrite_client::pb::etcdserverpb as pb;
use ferrite_client::{Client, Error, EtcdError, GetOptions};
use tokio::task::JoinSet;

use crate::cli::Matches;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::go::duration;
use crate::print::{Answer, Health};
use crate::session::Session;

/// Checks all endpoints at once; the list is in order of their answers.
pub(crate) fn health(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let session = Session::open(context, matches)?;
    let endpoints = endpoints(&session)?;
    let timeout = session.timeout();
    let mut clients = Vec::new();
    let mut list = Vec::new();
    for endpoint in endpoints {
        match session.connect([endpoint.as_str()]) {
            Ok(client) => clients.push((endpoint, client.with_deadline(timeout.deadline()))),
            Err(error) => list.push(Health {
                endpoint,
                healthy: false,
                took: String::new(),
                error: error.to_string(),
            }),
        }
    }
    list.extend(session.run(async {
        let mut checks = JoinSet::new();
        for (endpoint, client) in clients {
            checks.spawn(check(endpoint, client));
        }
        checks.join_all().await
    }));
    session.printer.health(context, &list)?;
    if list.iter().any(|health| !health.error.is_empty()) {
        return Err(Failure::new(Exit::Error, "unhealthy cluster"));
    }
    Ok(())
}

/// An endpoint is healthy if a quorum answers a read through it and no alarm is raised.
async fn check(endpoint: String, client: Client) -> Health {
    let start = Instant::now();
    let result = client.get("health", GetOptions::new()).await;
    let took = duration::format_elapsed(start.elapsed());
    let error = match result {
        // Permissions are looked up after the quorum was asked, so a refusal is a good sign.
        Ok(_) | Err(Error::Etcd(EtcdError::PermissionDenied)) => alarms(&client).await,
        Err(error) => error.to_string(),
    };
    Health {
        endpoint,
        healthy: error.is_empty(),
        took,
        error,
    }
}

/// What the alarms make of a healthy member; empty if there are none.
async fn alarms(client: &Client) -> String {
    let Ok(response) = client.maintenance().alarm_list().await else {
        return "Unable to fetch the alarm list".to_owned();
    };
    if response.alarms.is_empty() {
        return String::new();
    }
    let mut text = String::from("Active Alarm(s): ");
    for alarm in &response.alarms {
        text.push_str(match pb::AlarmType::try_from(alarm.alarm) {
            Ok(pb::AlarmType::Nospace) => "NOSPACE ",
            Ok(pb::AlarmType::Corrupt) => "CORRUPT ",
            Ok(pb::AlarmType::None) | Err(_) => "UNKNOWN ",
        });
    }
    text
}

pub(crate) fn status(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let session = Session::open(context, matches)?;
    let mut list = Vec::new();
    let mut failed = false;
    for endpoint in endpoints(&session)? {
        let asked = session.ask(&endpoint, async |client| {
            client.maintenance().status(&endpoint).await
        });
        match asked {
            Ok(response) => list.push(Answer { endpoint, response }),
            Err(error) => {
                failed = true;
                context.error_line(format!(
                    "Failed to get the status of endpoint {endpoint} ({error})"
                ))?;
            }
        }
    }
    session.printer.status(context, &list)?;
    match failed {
        true => Err(Failure::silent(Exit::Error)),
        false => Ok(()),
    }
}

pub(crate) fn hash_kv(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let session = Session::open(context, matches)?;
    let revision = matches.flags.int("rev");
    let mut list = Vec::new();
    let mut failure = None;
    for endpoint in endpoints(&session)? {
        let asked = session.ask(&endpoint, async |client| {
            client.maintenance().hash_kv(&endpoint, revision).await
        });
        match asked {
            Ok(response) => list.push(Answer { endpoint, response }),
            Err(error) => {
                context.error_line(format!(
                    "Failed to get the hash of endpoint {endpoint} ({error})"
                ))?;
                failure = Some(error);
            }
        }
    }
    session.printer.hash_kv(context, &list)?;
    failure.map_or(Ok(()), |error| Err(error.into()))
}

/// The endpoints to ask: as given, or with `--cluster` the client URLs of all members.
pub(super) fn endpoints(session: &Session) -> Result<Vec<String>, Failure> {
    if !session.whole_cluster {
        return Ok(session.given_endpoints.clone());
    }
    let client = session
        .client()
        .map_err(|failure| failure.with_code(Exit::Error))?
        .with_deadline(session.timeout().deadline());
    let response = session
        .run(client.cluster().member_list())
        .map_err(|error| {
            let message =
                format!("failed to fetch endpoints from etcd cluster member list: {error}");
            Failure::new(Exit::Error, message)
        })?;
    let urls = response
        .members
        .into_iter()
        .flat_map(|member| member.client_ur_ls);
    Ok(urls.collect())
}
