//! `etcd-previous`: the server of this workspace as one of the version before, which knows no newer storage
//! schema. Not for use: tests take clusters down to it and up again.

use std::process::ExitCode;

use ferrite_api::Version;

fn main() -> ExitCode {
    ferrite_server::program::run_as(Version::new(3, 6, 11))
}
