//! `get`: reads a key or a range of keys.

use ferrite_client::{GetOptions, SortOrder, SortTarget};

use super::{PREFIX_AND_FROM_KEY, RANGE_END_TOO_MANY, is_serializable};
use crate::cli::{Flags, Matches, Text};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::session::{Session, Timeout};

pub(crate) fn run(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let flags = &matches.flags;
    let (key, options) = operation(flags, &matches.args)?;
    let deadline = Timeout::of(flags).deadline();
    let session = Session::open(context, matches)?;
    let client = session.client()?.with_deadline(deadline);
    let stream = flags.switch("stream");
    let response = session.run(async {
        if stream {
            client.range_stream(key, options).await?.collect().await
        } else {
            client.get(key, options).await
        }
    })?;
    let (count_only, value_only) = (flags.switch("count-only"), flags.switch("print-value-only"));
    match (count_only, value_only) {
        (false, false) => session.printer.get(context, &response),
        (false, true) => session.printer.values(context, &response),
        (true, false) => session.printer.count(context, &response),
        // The count is only for one format and the values only for another.
        (true, true) if session.printer.name() == "fields" => {
            session.printer.values(context, &response)
        }
        (true, true) => session.printer.count(context, &response),
    }
}

/// Key and options of a read, from the command line or from a line of a transaction.
pub(super) fn operation(flags: &Flags, args: &[Text]) -> Result<(Text, GetOptions), Failure> {
    let Some(key) = args.first() else {
        return Err(Failure::bad_args(
            "get command needs one argument as key and an optional argument as range_end",
        ));
    };
    let (prefix, from_key) = (flags.switch("prefix"), flags.switch("from-key"));
    if prefix && from_key {
        return Err(Failure::bad_args(PREFIX_AND_FROM_KEY));
    }
    let (keys_only, count_only) = (flags.switch("keys-only"), flags.switch("count-only"));
    if keys_only && count_only {
        return Err(Failure::bad_args(
            "`--keys-only` and `--count-only` cannot be set at the same time, choose one",
        ));
    }
    let mut options = GetOptions::new();
    let consistency = flags.text("consistency");
    if is_serializable(&consistency, &consistency)? {
        options = options.serializable();
    }
    if let Some(end) = args.get(1) {
        if prefix || from_key {
            return Err(Failure::bad_args(RANGE_END_TOO_MANY));
        }
        options = options.range(end.clone());
    }
    options = options.limit(flags.int("limit"));
    options = options.revision(flags.int("rev").max(0));
    options = options.sort(sort_target(flags)?, sort_order(flags)?);
    if prefix {
        options = options.prefix();
    }
    if from_key {
        options = options.from_key();
    }
    if keys_only {
        options = options.keys_only();
    }
    if count_only {
        options = options.count_only();
    }
    let (min, max) = bounds(flags, "create", "Create")?;
    options = options.min_create_revision(min).max_create_revision(max);
    let (min, max) = bounds(flags, "mod", "Mod")?;
    options = options.min_mod_revision(min).max_mod_revision(max);
    Ok((key.clone(), options))
}

fn sort_order(flags: &Flags) -> Result<SortOrder, Failure> {
    let order = flags.text("order");
    match order.to_uppercase().as_str() {
        "" => Ok(SortOrder::None),
        "ASCEND" => Ok(SortOrder::Ascend),
        "DESCEND" => Ok(SortOrder::Descend),
        _ => Err(Failure::new(
            Exit::BadFeature,
            format!("bad sort order {order}"),
        )),
    }
}

fn sort_target(flags: &Flags) -> Result<SortTarget, Failure> {
    let target = flags.text("sort-by");
    match target.to_uppercase().as_str() {
        "" | "KEY" => Ok(SortTarget::Key),
        "CREATE" => Ok(SortTarget::Create),
        "MODIFY" => Ok(SortTarget::Mod),
        "VALUE" => Ok(SortTarget::Value),
        "VERSION" => Ok(SortTarget::Version),
        _ => Err(Failure::new(
            Exit::BadFeature,
            format!("bad sort target {target}"),
        )),
    }
}

/// The bounds on one kind of revision; 0 is none.
fn bounds(flags: &Flags, flag: &str, name: &str) -> Result<(i64, i64), Failure> {
    let min = flags.int(&format!("min-{flag}-rev"));
    let max = flags.int(&format!("max-{flag}-rev"));
    if max > 0 && min > max {
        let message = format!("getMin{name}Rev(={min}) > getMax{name}Rev(={max})");
        return Err(Failure::new(Exit::BadFeature, message));
    }
    Ok((min.max(0), max.max(0)))
}
