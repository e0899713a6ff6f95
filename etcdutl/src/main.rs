//! `etcdutl`: the offline command line tool. It works on the files of a member that does not run.
//!
//! Reading order: [`cli`] (how a command line is read), [`tree`] (the commands and flags there
//! are), [`data_dir`] (lock and files), [`commands`] (one module each). `defrag` changes a data
//! directory, and `snapshot restore` and `migrate` make one ([`new_cluster`], [`new_member`]): all
//! others see the files through an [`OverlayDisk`](ferrite_disk::OverlayDisk), on which the same code
//! runs that a member runs when it starts. What is promised is in `spec/etcdutl.md`.

mod cli;
mod commands;
mod data_dir;
mod failure;
mod log;
mod new_cluster;
mod new_member;
mod render;
mod tree;

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    ExitCode::from(failure::report(cli::execute(&tree::ROOT, &arguments)))
}
