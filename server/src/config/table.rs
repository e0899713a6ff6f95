//! `docs/flags.md` is the table of flags for people. It is written by this test, with
//! `FERRITE_WRITE_DOCS=1`, and held to the table of the program without.

use std::fmt::Write as _;
use std::path::Path;

use super::flags::{FLAGS, Flag, Group, Status};
use super::gates::GATES;

/// What stands above the tables.
const HEAD: &str = "\
# Flags of the server

Every flag of etcd 3.7.1, by the headings of `--help`. Each is also a variable (`ETCD_` and the name in upper case, `_` for `-`)
and, where *file* says so, a key of `--config-file`.

* *built*: it does what it says.
* *no effect*: any value is taken, with a warning; the text says why there is nothing to change.
* *refused*: any value but the default, and those named as harmless, ends the start with the reason; nothing is ignored silently.
* *with*: of no effect without another flag, and that one is refused.

";

/// What stands below them.
const FOOT: &str = "\nAccepted and ignored, as by etcd: ";

fn state(flag: &Flag) -> String {
    match flag.status {
        Status::Built => "built".to_owned(),
        Status::IgnoredByEtcd => "ignored".to_owned(),
        Status::NoEffect(why) => format!("no effect: {why}"),
        Status::Refused { reason, harmless } => {
            let mut text = format!("refused: {reason}");
            if !harmless.is_empty() {
                let harmless = harmless.iter().map(|value| format!("`{value}`"));
                let harmless: Vec<_> = harmless.collect();
                let _ = write!(text, " (harmless: {})", harmless.join(", "));
            }
            text
        }
    }
}

fn in_file(flag: &Flag) -> String {
    match flag.file {
        super::flags::FileKey::Same => "same".to_owned(),
        super::flags::FileKey::At(keys) => format!("`{}`", keys.join(".")),
        super::flags::FileKey::None => "no".to_owned(),
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn document() -> String {
    let mut text = HEAD.to_owned();
    for group in Group::LISTED {
        let _ = write!(text, "## {}\n\n", group.title());
        text.push_str("| Flag | Default | State | File | |\n|---|---|---|---|---|\n");
        for flag in FLAGS.iter().filter(|flag| flag.group == group) {
            let default = match flag.default {
                "" => String::new(),
                default => format!("`{}`", cell(default)),
            };
            let _ = writeln!(
                text,
                "| `--{}` | {default} | {} | {} | {} |",
                flag.name,
                cell(&state(flag)),
                in_file(flag),
                cell(flag.help)
            );
        }
        text.push('\n');
    }
    text.push_str("## Feature gates\n\n| Gate | Default | Stage |\n|---|---|---|\n");
    for gate in GATES {
        let _ = writeln!(
            text,
            "| `{}` | {} | {} |",
            gate.name,
            gate.default,
            gate.stage.name()
        );
    }
    text.push_str(FOOT);
    let ignored = FLAGS.iter().filter(|flag| flag.group == Group::Ignored);
    let ignored: Vec<_> = ignored.map(|flag| format!("`--{}`", flag.name)).collect();
    text.push_str(&ignored.join(", "));
    text.push_str(".\n");
    text
}

#[test]
fn the_table_in_the_docs_is_that_of_the_program() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/flags.md");
    let document = document();
    if std::env::var_os("FERRITE_WRITE_DOCS").is_some() {
        std::fs::write(&path, &document).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(
        written == document,
        "{} is not up to date: run this test with FERRITE_WRITE_DOCS=1",
        path.display()
    );
}
