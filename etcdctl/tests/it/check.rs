//! `check`: refusals, and what is left when it ends.

use ferrite_fake::Fake;

use crate::watch::Running;
use crate::{MEMBER, check_refused, run, run_on};

#[test]
fn loads_that_do_not_exist() {
    for check in ["perf", "datascale"] {
        let ran = run(&["check", check, "--load", "XL"]);
        check_refused(&ran, 4, "Error: unknown load option XL");
    }
}

#[test]
fn keys_that_are_there_are_not_touched() {
    let fake = Fake::start(MEMBER);
    run_on(&fake, &["put", "p/q", "v"]);
    let ran = run_on(&fake, &["check", "perf", "--prefix", "p/"]);
    let message = "Error: prefix \"p/\" has keys. Delete with 'etcdctl del --prefix p/' first";
    check_refused(&ran, 3, message);
    let ran = run_on(&fake, &["check", "datascale", "--prefix", "p/"]);
    let message = "Error: prefix \"p/\" has keys. Delete with etcdctl del --prefix p/ first";
    check_refused(&ran, 3, message);
    assert_eq!(run_on(&fake, &["get", "p/q"]).out, "p/q\nv\n");
}

/// A minute is long, so a signal ends it; all the rest is done and told as at the end.
#[test]
fn a_signal_ends_the_check_early_and_its_keys_are_deleted() {
    let fake = Fake::start(MEMBER);
    run_on(&fake, &["put", "other", "v"]);
    fake.take_seen();
    let check = Running::start(&fake, &["check", "perf", "--auto-compact", "--auto-defrag"]);
    fake.wait_for("Put", 20);
    check.signal("-INT");
    let (code, out, err) = check.end();
    // No progress is shown but on a terminal.
    assert_eq!(err, "");
    let lines: Vec<&str> = out.lines().collect();
    let endpoint = fake.endpoint();
    assert!(lines[0].starts_with("Compacting with revision "), "{out}");
    assert!(lines[1].starts_with("Compacted with revision "), "{out}");
    assert_eq!(lines[2], format!("Defragmenting \"{endpoint}\""));
    assert_eq!(lines[3], format!("Defragmented \"{endpoint}\""));
    assert!(lines[4].contains("Throughput "), "{out}");
    assert!(lines[5].contains("Slowest request took "), "{out}");
    assert!(lines[6].contains("Stddev "), "{out}");
    // How fast it is here is not the point.
    let verdict = if code == 0 { "PASS" } else { "FAIL" };
    assert_eq!(lines[7..], [verdict]);
    assert!(code <= 1, "{code}");
    assert_eq!(run_on(&fake, &["get", "", "--prefix"]).out, "other\nv\n");
}
