//! `make-mirror`: copies keys to another cluster, and keeps the copy up to date.

use std::cell::Cell;
use std::convert::Infallible;
use std::time::Duration;

use ferrite_client::pb::mvccpb::{Event, event::EventType};
use ferrite_client::{Client, DeleteOptions, Mirror, PutOptions, Tls, Txn, TxnOp};
use tokio::time::{Instant, interval_at};

use crate::cli::{Flags, Matches, Text};
use crate::context::Context;
use crate::failure::Failure;
use crate::session::{self, Session};

/// Between two lines that say how much was copied.
const PERIOD: Duration = Duration::from_secs(30);

/// Runs until it is ended, or fails.
pub(crate) fn run(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let [destination] = matches.args.as_slice() else {
        let message = "make-mirror takes one destination argument";
        return Err(Failure::bad_args(message));
    };
    let flags = &matches.flags;
    let session = Session::open(context, matches)?;
    let (user, password) = (flags.text("dest-user"), flags.text("dest-password"));
    let user = match user.is_empty() {
        true => None,
        false => {
            let prompt = "Destination Password: ";
            Some(session::credentials(context, prompt, &user, password)?)
        }
    };
    let destination = String::from_utf8_lossy(destination);
    let copy = Copy {
        destination: session.client_elsewhere(&destination, user, destination_tls(flags)?)?,
        names: Names::of(flags)?,
        max_operations: usize::try_from(flags.uint("max-txn-ops")).unwrap_or(usize::MAX),
        count: Cell::new(0),
    };
    let source = session.client()?;
    let revision = flags.int("rev");
    session.run(async {
        tokio::select! {
            copied = copy.run(&source, revision) => match copied? {},
            told = copy.tell(context) => match told? {},
        }
    })
}

/// TLS at the destination: nothing of the flags for the source counts.
fn destination_tls(flags: &Flags) -> Result<Option<Tls>, Failure> {
    let [cert, key, cacert] = ["dest-cert", "dest-key", "dest-cacert"].map(|name| flags.text(name));
    let options = session::tls_options(&cert, &key, &cacert, "");
    session::tls(options, flags.switch("dest-insecure-transport"))
}

/// What keys are called at the destination.
struct Names {
    prefix: Text,
    /// What stands there instead of the prefix.
    replacement: Text,
}

impl Names {
    /// Without a flag about it keys keep their names.
    ///
    /// Deviation: with `--rev` above 1 etcd's tool drops the prefix then, though it keeps it without
    /// `--rev`; so what goes on with a copy would not fit to it.
    fn of(flags: &Flags) -> Result<Names, Failure> {
        let prefix = flags.bytes("prefix").to_vec();
        let replacement = match (flags.bytes("dest-prefix"), flags.switch("no-dest-prefix")) {
            (b"", false) => prefix.clone(),
            (b"", true) => Text::new(),
            (given, false) => given.to_vec(),
            (_, true) => {
                return Err(Failure::bad_args(
                    "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one",
                ));
            }
        };
        Ok(Names {
            prefix,
            replacement,
        })
    }

    fn rename(&self, key: &[u8]) -> Text {
        let rest = key.strip_prefix(self.prefix.as_slice()).unwrap_or(key);
        [&self.replacement, rest].concat()
    }
}

struct Copy {
    destination: Client,
    names: Names,
    /// In one transaction; 0 is no limit.
    max_operations: usize,
    /// Pairs and changes that were copied.
    count: Cell<u64>,
}

impl Copy {
    async fn run(&self, source: &Client, revision: i64) -> Result<Infallible, Failure> {
        let updates = if revision > 1 {
            Mirror::at(source, self.names.prefix.clone(), revision - 1)
        } else {
            let mut mirror = Mirror::new(source, self.names.prefix.clone());
            while let Some(pairs) = mirror.next_base().await? {
                for pair in pairs {
                    let key = self.names.rename(&pair.key);
                    let options = PutOptions::new();
                    self.destination.put(key, pair.value, options).await?;
                    self.add(1);
                }
            }
            mirror
        };
        let mut updates = updates.updates().await?;
        loop {
            let response = updates.next().await?;
            for operations in transactions(&response.events, self.max_operations, &self.names) {
                let count = operations.len();
                let transaction = Txn::new().and_then(operations);
                self.destination.txn(transaction).await?;
                self.add(count);
            }
        }
    }

    fn add(&self, count: usize) {
        self.count.set(self.count.get() + count as u64);
    }

    /// Says now and then how much was copied.
    async fn tell(&self, context: &mut Context) -> Result<Infallible, Failure> {
        let mut ticks = interval_at(Instant::now() + PERIOD, PERIOD);
        loop {
            ticks.tick().await;
            writeln!(context.out(), "{}", self.count.get())?;
            context.flush()?;
        }
    }
}

/// The changes as transactions: what one revision has changed stays together, unless that is more
/// than `max` operations.
fn transactions(events: &[Event], max: usize, names: &Names) -> Vec<Vec<TxnOp>> {
    let revision = |event: &Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
    let max = if max == 0 { usize::MAX } else { max };
    events
        .chunk_by(|a, b| revision(a) == revision(b))
        .flat_map(|changes| changes.chunks(max))
        .map(|changes| {
            changes
                .iter()
                .map(|event| operation(event, names))
                .collect()
        })
        .collect()
}

fn operation(event: &Event, names: &Names) -> TxnOp {
    let pair = event.kv.clone().unwrap_or_default();
    let key = names.rename(&pair.key);
    match event.r#type() {
        EventType::Put => TxnOp::put(key, pair.value, PutOptions::new()),
        EventType::Delete => TxnOp::delete(key, DeleteOptions::new()),
    }
}
