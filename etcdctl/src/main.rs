//! `etcdctl`: the online command line client, byte for byte what etcd's own prints.
//!
//! Reading order: [`tree`] (the commands and flags there are), [`cli`] (how a command line is
//! read), [`session`] (global flags, environment, client), [`commands`] (one module each),
//! [`print`] (one module per output format). [`go`] holds the spellings of Go's standard library
//! that outputs are made of. What is promised is in `spec/etcdctl.md`.

mod cli;
mod commands;
mod context;
mod discovery;
mod failure;
mod go;
mod log;
mod print;
mod session;
mod tree;

use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use context::Context;

fn main() -> ExitCode {
    // Keys and values may be any bytes, so arguments are not required to be text.
    let arguments: Vec<Vec<u8>> = std::env::args_os()
        .skip(1)
        .map(OsStringExt::into_vec)
        .collect();
    let mut context = Context::from_process();
    let result = commands::execute(&mut context, &arguments);
    ExitCode::from(context.finish(result))
}
