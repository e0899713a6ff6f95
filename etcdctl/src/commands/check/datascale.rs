//! `check datascale`: writes many keys and tells how much memory the server took for them.

use super::writers::{Pairs, Tickets, write};
use super::{Check, metrics, progress_bar, report};
use crate::cli::Matches;
use crate::context::Context;
use crate::failure::{Exit, Failure};

const KEY_BYTES: usize = 512;
const VALUE_BYTES: usize = 512;

struct Load {
    clients: usize,
    keys: u64,
}

/// From small to very large.
const LOADS: [Load; 4] = [
    Load {
        clients: 50,
        keys: 10_000,
    },
    Load {
        clients: 200,
        keys: 100_000,
    },
    Load {
        clients: 500,
        keys: 1_000_000,
    },
    Load {
        clients: 1_000,
        keys: 3_000_000,
    },
];

pub(crate) fn run(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let load = &LOADS[super::load(&matches.flags)?];
    let check = Check::open(context, matches, load.clients)?;
    check.session.run(measure(context, &check, load))
}

async fn measure(context: &mut Context, check: &Check, load: &Load) -> Result<(), Failure> {
    check.require_no_keys(check.client(), "").await?;
    let endpoint = check.client().endpoints().swap_remove(0);
    let Some(before) = memory(context, &endpoint).await? else {
        return unread(context, "before");
    };
    writeln!(
        context.out(),
        "Start data scale check for work load [{} key-value pairs, {} bytes per key-value, {} concurrent clients].",
        load.keys,
        KEY_BYTES + VALUE_BYTES,
        load.clients
    )?;
    context.flush()?;
    let bar = progress_bar(load.keys);
    let pairs = Pairs::new(&check.prefix, KEY_BYTES, VALUE_BYTES);
    let step = bar.clone();
    let writes = write(
        &check.clients,
        &pairs,
        Tickets::count(load.keys),
        move || {
            step.inc(1);
        },
    )
    .await;
    bar.finish();
    let after = memory(context, &endpoint).await?;
    // Also when the memory is not known: etcd's tool leaves the keys then.
    let revision = check.delete(check.client()).await?;
    check.compact(context, revision).await?;
    check.defragment(context).await?;
    let Some(after) = after else {
        return unread(context, "after");
    };
    if !report::errors(context, &writes)? {
        return Err(Failure::silent(Exit::Error));
    }
    let used = (after - before) / f64::from(1 << 20);
    writeln!(
        context.out(),
        "PASS: Approximate system memory used : {used:.2} MB."
    )?;
    Ok(())
}

/// The server's memory in bytes; why it is not known is told.
async fn memory(context: &mut Context, endpoint: &str) -> Result<Option<f64>, Failure> {
    match metrics::resident_memory(endpoint).await {
        Ok(0.0) => Ok(None),
        Ok(bytes) => Ok(Some(bytes)),
        Err(reason) => {
            writeln!(context.out(), "{reason}")?;
            Ok(None)
        }
    }
}

fn unread(context: &mut Context, when: &str) -> Result<(), Failure> {
    writeln!(
        context.out(),
        "FAIL: Could not read process_resident_memory_bytes {when} the put operations."
    )?;
    Err(Failure::silent(Exit::Error))
}

#[cfg(test)]
mod tests {
    use ferrite_fake::Fake;

    use super::*;
    use crate::cli::{Parsed, parse};
    use crate::context::tests::captured;
    use crate::tree::ROOT;

    const FEW: Load = Load {
        clients: 3,
        keys: 20,
    };

    /// Exit code and output of a check with a few keys.
    fn checked(fake: &Fake, flags: &[&str]) -> (u8, String) {
        let (mut context, out, _) = captured("");
        let (name, endpoint) = (b"ETCDCTL_ENDPOINTS".to_vec(), fake.endpoint());
        context.environment.push((name, endpoint.into_bytes()));
        let args: Vec<Vec<u8>> = ["check", "datascale"]
            .iter()
            .chain(flags)
            .map(|arg| arg.as_bytes().to_vec())
            .collect();
        let Parsed::Run(matches) = parse(&ROOT, &args) else {
            panic!("a command that runs");
        };
        let result = Check::open(&mut context, &matches, FEW.clients)
            .and_then(|check| check.session.run(measure(&mut context, &check, &FEW)));
        let code = context.finish(result);
        (code, String::from_utf8(out.bytes()).expect("text"))
    }

    const START: &str = "Start data scale check for work load [20 key-value pairs, 1024 bytes per key-value, 3 concurrent clients].\n";

    #[test]
    fn memory_is_read_while_the_keys_are_there() {
        let fake = Fake::start(1);
        let (code, text) = checked(&fake, &[]);
        let end = "PASS: Approximate system memory used : 20.00 MB.\n";
        assert_eq!((code, text), (0, format!("{START}{end}")));
        // The second would be refused if keys of the first were left.
        let (code, text) = checked(&fake, &["--auto-compact", "--auto-defrag"]);
        let endpoint = fake.endpoint();
        let tidied = format!(
            "Compacting with revision 43\nCompacted with revision 43\n\
             Defragmenting \"{endpoint}\"\nDefragmented \"{endpoint}\"\n"
        );
        assert_eq!((code, text), (0, format!("{START}{tidied}{end}")));
    }
}
