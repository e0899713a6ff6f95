//! `etcd`: runs one member.

use std::process::ExitCode;

// Chosen by measurement: see ARCHITECTURE.md, "Allocator".
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ferrite_server::program::run()
}
