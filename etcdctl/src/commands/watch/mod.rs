//! `watch`: shows changes as they come, or runs a program for each.

mod arguments;
mod interactive;

use ferrite_client::pb::etcdserverpb as pb;
use ferrite_client::pb::mvccpb::Event;
use ferrite_client::{Error, WatchOptions, Watcher};

use self::arguments::{Environment, Wanted};
use super::child;
use crate::cli::{Flags, Matches, Text};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::go::quote::quote;
use crate::session::Session;

pub(crate) fn run(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let environment = Environment::of(&context.environment).map_err(Failure::bad_args)?;
    if matches.flags.switch("interactive") {
        return interactive::run(context, matches, &environment);
    }
    let wanted = Wanted::read(&matches.given, &matches.args, &environment);
    let wanted = wanted.map_err(Failure::bad_args)?;
    let session = Session::open(context, matches)?;
    let client = session.client()?.with_require_leader();
    let options = options(&matches.flags, &wanted).map_err(Failure::bad_args)?;
    session.run(async {
        let end = match client.watch(wanted.key.clone(), options).await {
            Ok(mut watcher) => loop {
                match watcher.next().await {
                    Ok(response) => show(context, &session, &response, &wanted.program).await?,
                    Err(error) => break End::of(&watcher, error),
                }
            },
            Err(error) => End::refused(error),
        };
        end.show(context, &session)?;
        let message = "watch is canceled by the server";
        Err(Failure::new(Exit::Interrupted, message))
    })
}

/// What to watch and how, from the flags of the command line or of a line of input.
fn options(flags: &Flags, wanted: &Wanted) -> Result<WatchOptions, String> {
    let mut options = WatchOptions::new().start_revision(flags.int("rev"));
    if let Some(end) = &wanted.range_end {
        if flags.switch("prefix") {
            return Err("`range_end` and `--prefix` are mutually exclusive".to_owned());
        }
        options = options.range(end.clone());
    }
    if flags.switch("prefix") {
        options = options.prefix();
    }
    if flags.switch("prev-kv") {
        options = options.prev_kv();
    }
    if flags.switch("progress-notify") {
        options = options.progress_notify();
    }
    Ok(options)
}

/// Shows one response, then runs the program for each of its events.
async fn show(
    context: &mut Context,
    session: &Session,
    response: &pb::WatchResponse,
    program: &[Text],
) -> Result<(), Failure> {
    let revision = response.header.unwrap_or_default().revision;
    if response.events.is_empty() {
        writeln!(context.out(), "progress notify: {revision}")?;
    }
    session.printer.watch(context, response)?;
    context.flush()?;
    if program.is_empty() {
        return Ok(());
    }
    for event in &response.events {
        let variables = variables(revision, event);
        if let Err(failure) = child::run(context, program, variables).await? {
            let program: Vec<String> = program.iter().map(quote).collect();
            let message = failure.message;
            context.error_line(format!("command [{}] error ({message})", program.join(" ")))?;
            return Err(Failure::silent(Exit::Error));
        }
    }
    Ok(())
}

/// What a program is told about an event.
fn variables(revision: i64, event: &Event) -> Vec<(&'static str, Text)> {
    let kv = event.kv.clone().unwrap_or_default();
    vec![
        ("ETCD_WATCH_REVISION", revision.to_string().into()),
        (
            "ETCD_WATCH_EVENT_TYPE",
            quote(event.r#type().as_str_name()).into(),
        ),
        ("ETCD_WATCH_KEY", quote(&kv.key).into()),
        ("ETCD_WATCH_VALUE", quote(&kv.value).into()),
    ]
}

/// How a watch ended.
#[derive(Debug)]
struct End {
    error: Error,
    response: pb::WatchResponse,
}

impl End {
    fn of(watcher: &Watcher, error: Error) -> End {
        match watcher.ended_by() {
            Some(response) if response.compact_revision != 0 => End { error, response },
            _ => End::refused(error),
        }
    }

    /// Without an answer that belongs to the watch, an empty one is shown.
    fn refused(error: Error) -> End {
        let response = pb::WatchResponse {
            header: Some(pb::ResponseHeader::default()),
            canceled: true,
            ..Default::default()
        };
        End { error, response }
    }

    fn show(&self, context: &mut Context, session: &Session) -> Result<(), Failure> {
        context.error_line(format!("watch was canceled ({})", self.error))?;
        session.printer.watch(context, &self.response)?;
        context.flush()
    }
}
