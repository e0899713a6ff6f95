//! `txn`: reads compares and operations from standard input and runs them as one transaction.

use ferrite_client::{Compare, CompareOp, LeaseId, Txn, TxnOp};

use super::{del, get, put};
use crate::cli::{self, Matches, Parsed, Text};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::go::number;
use crate::go::quote::{lossy, quote};
use crate::go::scan::Scanner;
use crate::session::Session;
use crate::tree::TXN_OPERATIONS;

pub(crate) fn run(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    if !matches.args.is_empty() {
        return Err(Failure::bad_args("txn command does not accept argument"));
    }
    let session = Session::open(context, matches)?;
    let client = session.client()?;
    let interactive = matches.flags.switch("interactive");
    let mut txn = Txn::new();

    prompt(context, interactive, "compares:")?;
    while let Some(line) = next_line(context)? {
        txn = txn.when([parse_compare(&line)?]);
    }
    prompt(context, interactive, "success requests (get, put, del):")?;
    while let Some(line) = next_line(context)? {
        txn = txn.and_then([parse_operation(context, &line)?]);
    }
    prompt(context, interactive, "failure requests (get, put, del):")?;
    while let Some(line) = next_line(context)? {
        txn = txn.or_else([parse_operation(context, &line)?]);
    }
    let response = session.run(client.txn(txn))?;
    session.printer.txn(context, &response)
}

fn prompt(context: &mut Context, interactive: bool, text: &str) -> Result<(), Failure> {
    if interactive {
        writeln!(context.out(), "{text}")?;
        context.flush()?;
    }
    Ok(())
}

fn invalid(message: impl ToString) -> Failure {
    Failure::new(Exit::InvalidInput, message)
}

/// The next line without the space around it; `None` at an empty line, which ends a list.
fn next_line(context: &mut Context) -> Result<Option<Text>, Failure> {
    let mut line = Vec::new();
    context
        .stdin
        .read_until(b'\n', &mut line)
        .map_err(invalid)?;
    // A last line without its end does not count.
    if line.pop() != Some(b'\n') {
        return Err(invalid("EOF"));
    }
    let line = trim(&line);
    Ok((!line.is_empty()).then(|| line.to_vec()))
}

fn trim(line: &[u8]) -> &[u8] {
    match std::str::from_utf8(line) {
        Ok(text) => text.trim().as_bytes(),
        Err(_) => line.trim_ascii(),
    }
}

/// Reads `target("key") op "value"`.
fn parse_compare(line: &[u8]) -> Result<Compare, Failure> {
    let shown = lossy(line);
    let Some((target, rest)) = shown.split_once('(') else {
        return Err(invalid(format!("malformed comparison: {shown}")));
    };
    let (mut key, mut op, mut value) = (Text::new(), String::new(), Text::new());
    let mut scanner = Scanner::new(rest);
    let complete = (|| {
        key = scanner.quoted().ok()?;
        scanner.literal(')')?;
        scanner.space()?;
        op = scanner.word()?.to_owned();
        scanner.space()?;
        value = scanner.quoted().ok()?;
        Some(())
    })();
    if complete.is_none() {
        let got = format!("{target}({}) {op} {}", quote(&key), quote(&value));
        return Err(invalid(format!("malformed comparison: {shown}; got {got}")));
    }
    if !matches!(
        target,
        "ver" | "version" | "c" | "create" | "m" | "mod" | "val" | "value" | "lease"
    ) {
        let message = format!("malformed comparison: {shown} (unknown target {target})");
        return Err(invalid(message));
    }
    // Deviation: etcd's tool crashes on an unknown operator (and on every lease compare).
    let operator = match op.as_str() {
        "=" => CompareOp::Equal,
        "!=" => CompareOp::NotEqual,
        ">" => CompareOp::Greater,
        "<" => CompareOp::Less,
        _ => {
            let message = format!("malformed comparison: {shown} (unknown operator {op})");
            return Err(invalid(message));
        }
    };
    let number = |base| {
        number::parse_int(&lossy(&value), base)
            .map_err(|_| invalid(format!("invalid txn compare request: {shown}")))
    };
    Ok(match target {
        "ver" | "version" => Compare::version(key, operator, number(10)?),
        "c" | "create" => Compare::create_revision(key, operator, number(10)?),
        "m" | "mod" => Compare::mod_revision(key, operator, number(10)?),
        "lease" => Compare::lease(key, operator, LeaseId::new(number(16)?)),
        _ => Compare::value(key, operator, value),
    })
}

/// Reads a `get`, `put` or `del` command line.
fn parse_operation(context: &mut Context, line: &[u8]) -> Result<TxnOp, Failure> {
    let shown = lossy(line);
    let args = split_arguments(line)?;
    if args.len() < 2 {
        return Err(invalid(format!("invalid txn compare request: {shown}")));
    }
    let unreadable = || invalid(format!("invalid txn request: {shown}"));
    let matches = match cli::parse(&TXN_OPERATIONS, &args) {
        Parsed::Run(matches) => matches,
        Parsed::BadFlags { chain, .. } => {
            context.error_line(cli::help::usage(&chain))?;
            return Err(unreadable());
        }
        Parsed::Help(chain) => {
            write!(context.out(), "{}", cli::help::help(&chain))?;
            return Err(unreadable());
        }
        Parsed::UnknownCommand(_) => return Err(unreadable()),
    };
    let (flags, args) = (&matches.flags, &matches.args);
    Ok(match matches.chain.command().name {
        "get" => {
            let (key, options) = get::operation(flags, args)?;
            TxnOp::get(key, options)
        }
        "put" => {
            // Deviation: etcd's tool takes what is left of stdin beyond its read buffer.
            let (key, value, options) = put::operation(flags, args, || None)?;
            TxnOp::put(key, value, options)
        }
        _ => {
            let (key, options) = del::operation(context, flags, args)?;
            TxnOp::delete(key, options)
        }
    })
}

/// Splits a line into words, `'literal'` and `"escaped"` strings. A quote that is never closed is
/// skipped, and a quote inside a word is part of it.
pub(super) fn split_arguments(line: &[u8]) -> Result<Vec<Text>, Failure> {
    let mut args = Vec::new();
    let mut rest = line;
    while let Some(&first) = rest.first() {
        let length = match first {
            b'"' => closing_quote(rest),
            b'\'' => rest[1..]
                .iter()
                .position(|&byte| byte == b'\'')
                .map(|end| end + 2),
            byte if is_space(byte) => None,
            _ => Some(
                rest.iter()
                    .position(|&byte| is_space(byte))
                    .unwrap_or(rest.len()),
            ),
        };
        let Some(length) = length else {
            rest = &rest[1..];
            continue;
        };
        let (token, tail) = rest.split_at(length);
        rest = tail;
        args.push(match first {
            b'"' => Scanner::new(&lossy(token)).quoted().map_err(invalid)?,
            b'\'' => token[1..length - 1].to_vec(),
            _ => token.to_vec(),
        });
    }
    Ok(args)
}

/// The length of the double-quoted string at the start, if it is closed.
fn closing_quote(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    for (index, &byte) in text.iter().enumerate().skip(1) {
        match byte {
            b'"' if !escaped => return Some(index + 1),
            _ => escaped = byte == b'\\' && !escaped,
        }
    }
    None
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0c)
}

#[cfg(test)]
mod tests;
