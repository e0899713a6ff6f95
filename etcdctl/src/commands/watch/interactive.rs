//! `watch -i`: a command per line of input, any number of watches at once.

use std::io::{self, BufRead};

use ferrite_client::pb::etcdserverpb as pb;
use ferrite_client::{Client, Watcher};
use tokio::sync::mpsc;

use super::arguments::{Environment, Wanted};
use super::{End, options, show};
use crate::cli::{self, Matches, Parsed, Text};
use crate::commands::txn::split_arguments;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::go::quote::lossy;
use crate::session::Session;
use crate::tree::WATCH_LINES;

/// Lines and updates that may wait to be handled; their senders wait then.
const AHEAD: usize = 16;

/// News of one of the watches.
struct Update {
    program: Vec<Text>,
    news: Result<pb::WatchResponse, Box<End>>,
}

pub(super) fn run(
    context: &mut Context,
    matches: &Matches,
    environment: &Environment,
) -> Result<(), Failure> {
    let session = Session::open(context, matches)?;
    let client = session.client()?.with_require_leader();
    let mut lines = read_lines(context);
    let (updates, mut news) = mpsc::channel(AHEAD);
    session.run(async {
        loop {
            tokio::select! {
                line = lines.recv() => {
                    let Some(line) = line else {
                        let message = "error reading watch request line: EOF";
                        return Err(Failure::new(Exit::InvalidInput, message));
                    };
                    handle(context, &client, environment, &line, &updates).await?;
                }
                Some(update) = news.recv() => match update.news {
                    Ok(response) => show(context, &session, &response, &update.program).await?,
                    Err(end) => end.show(context, &session)?,
                },
            }
        }
    })
}

/// Reads standard input on a thread of its own, for it cannot be waited for otherwise. A last line
/// without its end does not count.
fn read_lines(context: &mut Context) -> mpsc::Receiver<Text> {
    let (sender, lines) = mpsc::channel(AHEAD);
    let mut stdin: Box<dyn BufRead + Send> =
        std::mem::replace(&mut context.stdin, Box::new(io::empty()));
    std::thread::spawn(move || {
        loop {
            let mut line = Text::new();
            let read = stdin.read_until(b'\n', &mut line);
            if read.is_err() || line.pop() != Some(b'\n') || sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

async fn handle(
    context: &mut Context,
    client: &Client,
    environment: &Environment,
    line: &Text,
    updates: &mpsc::Sender<Update>,
) -> Result<(), Failure> {
    let shown = lossy(line);
    let words = split_arguments(line)?;
    let invalid = |reason: &str| format!("Invalid command {shown} ({reason})");
    match words.first().map(Vec::as_slice) {
        None => context.error_line(format!(
            "Invalid command: {shown} (watch and progress supported)"
        )),
        Some(b"progress") => {
            client.request_watch_progress();
            Ok(())
        }
        Some(b"watch") if words.len() < 2 && environment.key.is_empty() => {
            context.error_line(invalid("command type or key is not provided"))
        }
        Some(b"watch") => {
            let matches = match cli::parse(&WATCH_LINES, &words) {
                Parsed::Run(matches) => matches,
                Parsed::BadFlags { message, .. } => return Err(Failure::bad_args(message)),
                Parsed::Help(_) | Parsed::UnknownCommand(_) => {
                    return Err(Failure::bad_args("pflag: help requested"));
                }
            };
            let wanted = Wanted::read(&matches.given, &matches.args, environment);
            let wanted = wanted.map_err(Failure::bad_args)?;
            let options = match options(&matches.flags, &wanted) {
                Ok(options) => options,
                Err(reason) => return context.error_line(invalid(&reason)),
            };
            let update = |news| Update {
                program: wanted.program.clone(),
                news,
            };
            // The next line waits for the watch: what it changes is seen.
            match client.watch(wanted.key.clone(), options).await {
                Ok(watcher) => {
                    let updates = updates.clone();
                    tokio::spawn(forward(watcher, wanted.program, updates));
                }
                Err(error) => {
                    let end = Box::new(End::refused(error));
                    let _ = updates.try_send(update(Err(end)));
                }
            }
            Ok(())
        }
        Some(_) => context.error_line(invalid("only support watch")),
    }
}

/// Sends what a watch has to say, to its end.
async fn forward(mut watcher: Watcher, program: Vec<Text>, updates: mpsc::Sender<Update>) {
    loop {
        let news = match watcher.next().await {
            Ok(response) => Ok(response),
            Err(error) => Err(Box::new(End::of(&watcher, error))),
        };
        let ended = news.is_err();
        let program = program.clone();
        if updates.send(Update { program, news }).await.is_err() || ended {
            return;
        }
    }
}
