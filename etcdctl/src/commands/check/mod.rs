//! `check`: tries what a cluster can do. [`perf`] is about speed, [`datascale`] about memory.

pub(crate) mod datascale;
pub(crate) mod perf;

mod metrics;
mod report;
mod writers;

use std::time::Duration;

use ferrite_client::{Client, CompactOptions, DeleteOptions, GetOptions};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{Flags, Matches};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::go::quote::quote;
use crate::session::Session;

/// How long each step of the tidying may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// `--load`: the place in a check's table of loads.
fn load(flags: &Flags) -> Result<usize, Failure> {
    let load = flags.text("load");
    match load.as_str() {
        "s" | "small" => Ok(0),
        "m" | "medium" => Ok(1),
        "l" | "large" => Ok(2),
        "xl" | "xLarge" => Ok(3),
        _ => {
            let message = format!("unknown load option {load}");
            Err(Failure::new(Exit::BadFeature, message))
        }
    }
}

/// What both checks work with.
struct Check {
    session: Session,
    /// One for each writer, with connections of its own.
    clients: Vec<Client>,
    prefix: Vec<u8>,
    compact: bool,
    defragment: bool,
}

impl Check {
    fn open(context: &mut Context, matches: &Matches, clients: usize) -> Result<Check, Failure> {
        raise_file_limit();
        let session = Session::open_parallel(context, matches)?;
        let clients: Result<Vec<Client>, Failure> =
            (0..clients).map(|_| session.client()).collect();
        let flags = &matches.flags;
        Ok(Check {
            clients: clients?,
            prefix: flags.bytes("prefix").to_vec(),
            compact: flags.switch("auto-compact"),
            defragment: flags.switch("auto-defrag"),
            session,
        })
    }

    /// For everything but the writes.
    fn client(&self) -> &Client {
        &self.clients[0]
    }

    /// Refuses a prefix that has keys: they would be deleted with those of the check. `mark` stands
    /// around the command in the message.
    async fn require_no_keys(&self, client: &Client, mark: &str) -> Result<(), Failure> {
        let options = GetOptions::new().prefix().limit(1);
        let found = client.get(self.prefix.clone(), options).await?;
        if found.kvs.is_empty() {
            return Ok(());
        }
        let (quoted, prefix) = (quote(&self.prefix), String::from_utf8_lossy(&self.prefix));
        let message = format!(
            "prefix {quoted} has keys. Delete with {mark}etcdctl del --prefix {prefix}{mark} first"
        );
        Err(Failure::new(Exit::InvalidInput, message))
    }

    /// Deletes what was written. The revision of that.
    async fn delete(&self, client: &Client) -> Result<i64, ferrite_client::Error> {
        let options = DeleteOptions::new().prefix();
        let deleted = client.delete(self.prefix.clone(), options).await?;
        Ok(deleted.header.unwrap_or_default().revision)
    }

    /// `--auto-compact`.
    async fn compact(&self, context: &mut Context, revision: i64) -> Result<(), Failure> {
        if !self.compact {
            return Ok(());
        }
        writeln!(context.out(), "Compacting with revision {revision}")?;
        context.flush()?;
        let client = self.client().with_timeout(PATIENCE);
        let options = CompactOptions::new().physical();
        client.compact(revision, options).await?;
        writeln!(context.out(), "Compacted with revision {revision}")?;
        Ok(())
    }

    /// `--auto-defrag`.
    async fn defragment(&self, context: &mut Context) -> Result<(), Failure> {
        if !self.defragment {
            return Ok(());
        }
        let client = self.client().with_timeout(PATIENCE);
        for endpoint in self.client().endpoints() {
            let shown = quote(&endpoint);
            writeln!(context.out(), "Defragmenting {shown}")?;
            context.flush()?;
            client.maintenance().defragment(&endpoint).await?;
            writeln!(context.out(), "Defragmented {shown}")?;
        }
        Ok(())
    }
}

/// A bar up to `length` on a terminal; elsewhere nothing.
///
/// Deviation: etcd's tool draws it into files, too.
fn progress_bar(length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    match ProgressStyle::with_template("{pos} / {len} [{bar:40}] {percent}% {per_sec}") {
        Ok(style) => bar.with_style(style.progress_chars("->_")),
        Err(_) => bar,
    }
}

/// A thousand clients have more connections than a process may usually have files. Go's programs
/// raise that limit by themselves.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // If it cannot be raised, connecting will say so.
    let _ = setrlimit(Resource::Nofile, limit);
}
