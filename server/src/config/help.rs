//! `--help` and `--version`.

use std::fmt::Write as _;

use ferrite_api::Version;

use super::flags::{FLAGS, Group};
use super::gates::GATES;

/// The short text that goes to stderr with `--help` and with every flag error.
pub const USAGE: &str = "\
Usage:

  etcd [flags]
    Run a member.

  etcd --version
    Print the version.

  etcd -h | --help
    Print this and all flags.

  etcd --config-file PATH
    Run a member as the file says; other flags and variables are ignored. In the file, durations
    are whole nanoseconds, --heartbeat-interval and --election-timeout whole milliseconds.

";

/// All flags with their defaults.
pub fn flags() -> String {
    let mut text = String::new();
    for group in Group::LISTED {
        let _ = write!(text, "\n{}:\n", group.title());
        for flag in FLAGS.iter().filter(|flag| flag.group == group) {
            let default = match flag.name {
                "data-dir" => "${name}.etcd",
                _ => flag.default,
            };
            let _ = write!(text, "  --{} '{default}'\n    {}\n", flag.name, flag.help);
            if flag.name == "feature-gates" {
                for gate in GATES.iter().filter(|gate| gate.is_listed()) {
                    let _ = writeln!(
                        text,
                        "    {}=true|false ({} - default={})",
                        gate.name,
                        gate.stage.name(),
                        gate.default
                    );
                }
            }
        }
    }
    text.push_str("\nUnsafe flags can break every promise that the server makes.\n\n");
    text
}

/// etcd's four lines, and one of our own.
pub fn version() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    };
    format!(
        "etcd Version: {}\n\
         Git SHA: {}\n\
         Go Version: none (Rust)\n\
         Go OS/Arch: {}/{arch}\n\
         Ferrite Version: {}\n",
        Version::RELEASE,
        option_env!("FERRITE_GIT_SHA").unwrap_or("not provided"),
        std::env::consts::OS,
        env!("CARGO_PKG_VERSION"),
    )
}
