//! `lock` and `elect`: until a signal, while a program runs, when the session is lost.

use ferrite_fake::Fake;

use crate::watch::Running;
use crate::{MEMBER, check_refused, run, run_on};

#[test]
fn a_lock_is_held_until_a_signal() {
    let fake = Fake::start(MEMBER);
    let mut first = Running::start(&fake, &["lock", "name"]);
    let shown = first.lines(2);
    let key = shown.trim_end();
    assert!(key.starts_with("name/"), "{shown:?}");
    assert_eq!(run_on(&fake, &["get", key, "--keys-only"]).out, shown);

    let mut second = Running::start(&fake, &["lock", "name"]);
    let third = Running::start(&fake, &["lock", "name"]);
    fake.wait_for("Watch", 2);
    // One that waits gives its place up.
    third.signal("-INT");
    let (code, out, err) = third.end();
    let canceled = "Error: context canceled\n";
    assert_eq!((code, out.as_str(), err.as_str()), (1, "", canceled));
    first.signal("-TERM");
    assert_eq!(first.end(), (0, String::new(), String::new()));
    assert!(second.lines(2).starts_with("name/"));
    second.signal("-INT");
    assert_eq!(second.end().0, 0);
    assert_eq!(run_on(&fake, &["get", "name/", "--prefix"]).out, "");
}

#[test]
fn a_lock_is_held_while_a_program_runs() {
    let fake = Fake::start(MEMBER);
    let script = "echo $ETCD_LOCK_KEY $ETCD_LOCK_REV; cat; exit 7";
    let ran = run_on(&fake, &["lock", "name", "/bin/sh", "--", "-c", script]);
    assert_eq!(ran.code, 7, "{ran:?}");
    assert!(
        ran.out.starts_with("name/") && ran.out.ends_with(" 2\n"),
        "{ran:?}"
    );
    assert_eq!(ran.err, "Error: exit status 7\n");
    assert_eq!(run_on(&fake, &["get", "name/", "--prefix"]).out, "");
    let ran = run_on(&fake, &["lock", "name", "--", "/bin/true"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "", ""));
    let ran = run_on(
        &fake,
        &["lock", "name", "--", "/bin/sh", "-c", "kill -9 $$"],
    );
    assert_eq!(
        (ran.code, ran.err.as_str()),
        (255, "Error: signal: killed\n")
    );
    let ran = run_on(&fake, &["lock", "name", "no-such-program"]);
    let message = "Error: exec: \"no-such-program\": executable file not found in $PATH";
    check_refused(&ran, 1, message);
}

#[test]
fn a_lost_session_ends_the_lock() {
    let fake = Fake::start(MEMBER);
    let mut lock = Running::start(&fake, &["lock", "name", "--ttl", "3"]);
    lock.lines(2);
    fake.expire(fake.leases()[0]);
    let (code, _, err) = lock.end();
    assert_eq!((code, err.as_str()), (1, "Error: session expired\n"));
}

#[test]
fn leaders_and_listeners() {
    let fake = Fake::start(MEMBER);
    let mut listener = Running::start(&fake, &["elect", "-l", "name"]);
    let mut first = Running::start(&fake, &["elect", "name", "one"]);
    let shown = first.lines(2);
    assert!(
        shown.starts_with("name/") && shown.ends_with("\none\n"),
        "{shown:?}"
    );
    assert_eq!(listener.lines(2), shown);
    let mut second = Running::start(&fake, &["elect", "name", "two"]);
    // The listener's and the candidate's.
    fake.wait_for("Watch", 2);
    first.signal("-INT");
    assert_eq!(first.end().0, 0);
    let shown = second.lines(2);
    assert!(shown.ends_with("\ntwo\n"), "{shown:?}");
    assert_eq!(listener.lines(2), shown);
    listener.signal("-TERM");
    assert_eq!(listener.end(), (0, String::new(), String::new()));
}

#[test]
fn bad_arguments() {
    let fake = Fake::start(MEMBER);
    let elect = "Error: elect takes one election name argument and an optional proposal argument";
    check_refused(
        &run(&["lock"]),
        128,
        "Error: lock takes a lock name argument and an optional command to execute",
    );
    check_refused(&run(&["elect"]), 128, elect);
    check_refused(&run(&["elect", "a", "b", "c"]), 128, elect);
    let ran = run_on(&fake, &["elect", "a"]);
    check_refused(&ran, 128, "Error: no proposal argument but -l not set");
    let ran = run_on(&fake, &["elect", "-l", "a", "b"]);
    check_refused(&ran, 128, "Error: proposal given but -l is set");
}
