//! `lock`: holds a lock until a signal comes, or while a program runs.

use ferrite_client::concurrency::{Mutex, Session as Lease, SessionOptions};
use ferrite_client::{Client, GetOptions};

use super::child;
use super::signals::Signals;
use crate::cli::{Matches, Text};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::log::{self, Value};
use crate::session::Session;

pub(crate) fn run(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let Some((name, program)) = matches.args.split_first() else {
        return Err(Failure::bad_args(
            "lock takes a lock name argument and an optional command to execute",
        ));
    };
    let session = Session::open(context, matches)?;
    let client = session.client()?;
    let ttl = matches.flags.int("ttl");
    let options = SessionOptions::new().ttl(ttl);
    if ttl <= 0 {
        let head = [("logger", "etcd-client"), ("caller", "etcdctl/lock.rs")];
        let message = "WithTTL(): TTL should be > 0, preserving current TTL";
        let fields = [("current-session-ttl", Value::Number(60))];
        context.error_line(log::line("warn", &head, message, &fields))?;
    }
    session.run(async {
        let lease = Lease::open(&client, options).await?;
        let mut signals = Signals::catch()?;
        let mut mutex = Mutex::new(&lease, name.clone());
        let locked = tokio::select! {
            locked = mutex.lock() => Some(locked),
            () = signals.next() => None,
        };
        match locked {
            Some(locked) => locked?,
            None => {
                let _ = mutex.unlock().await;
                return Err(Failure::new(Exit::Error, "context canceled"));
            }
        }
        if !program.is_empty() {
            return run_locked(context, &mut mutex, program).await;
        }
        show_key(context, &session, &client, &mutex).await?;
        tokio::select! {
            () = signals.next() => Ok(mutex.unlock().await?),
            _ = lease.done() => Err(Failure::new(Exit::Error, "session expired")),
        }
    })
}

/// Runs the program, then unlocks. The program's failure is ours.
///
/// Deviation: run by a program that holds a lock itself, etcd's tool shows the outer lock's key.
async fn run_locked(
    context: &mut Context,
    mutex: &mut Mutex,
    program: &[Text],
) -> Result<(), Failure> {
    let revision = mutex.header().unwrap_or_default().revision;
    let variables = vec![
        ("ETCD_LOCK_KEY", mutex.key().to_vec()),
        ("ETCD_LOCK_REV", revision.to_string().into()),
    ];
    let ended = child::run(context, program, variables).await;
    let unlocked = mutex.unlock().await;
    if let Err(failure) = ended? {
        let code = failure.code.map_or(Exit::Error, Exit::Child);
        return Err(Failure::new(code, failure.message));
    }
    Ok(unlocked?)
}

async fn show_key(
    context: &mut Context,
    session: &Session,
    client: &Client,
    mutex: &Mutex,
) -> Result<(), Failure> {
    let found = client.get(mutex.key(), GetOptions::new()).await?;
    if found.kvs.is_empty() {
        return Err(Failure::new(Exit::Error, "lock lost on init"));
    }
    session.printer.get(context, &found)?;
    context.flush()
}
