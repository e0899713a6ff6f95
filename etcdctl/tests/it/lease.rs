//! `lease`: its subcommands against the fake.

use ferrite_fake::Fake;
use tonic::Status;

use crate::{MEMBER, check_refused, run, run_on};

/// The id of a new lease, as it is printed.
fn grant(fake: &Fake, ttl: &str) -> String {
    let ran = run_on(fake, &["lease", "grant", ttl]);
    let words: Vec<&str> = ran.out.split_whitespace().collect();
    assert_eq!(words[2..], ["granted", "with", &format!("TTL({ttl}s)")]);
    words[1].to_owned()
}

#[test]
fn a_lease_from_grant_to_revocation() {
    let fake = Fake::start(MEMBER);
    let lease = grant(&fake, "60");
    assert_eq!(lease.len(), 16);
    let ran = run_on(&fake, &["lease", "list"]);
    assert_eq!(ran.out, format!("found 1 leases\n{lease}\n"));
    run_on(&fake, &["put", "k1", "v", "--lease", &lease]);
    run_on(&fake, &["put", "k2", "v", "--lease", &lease]);
    let ran = run_on(&fake, &["lease", "timetolive", &lease]);
    let lives = format!("lease {lease} granted with TTL(60s), remaining(60s)");
    assert_eq!(ran.out, format!("{lives}\n"));
    let ran = run_on(&fake, &["lease", "timetolive", &lease, "--keys"]);
    assert_eq!(ran.out, format!("{lives}, attached keys([k1 k2])\n"));
    let ran = run_on(&fake, &["lease", "keep-alive", "--once", &lease]);
    assert_eq!(ran.out, format!("lease {lease} keepalived with TTL(60)\n"));
    let ran = run_on(&fake, &["lease", "revoke", &lease]);
    assert_eq!((ran.code, ran.out), (0, format!("lease {lease} revoked\n")));
    assert_eq!(run_on(&fake, &["get", "k", "--prefix"]).out, "");
    let ran = run_on(&fake, &["lease", "timetolive", &lease]);
    let expired = format!("lease {lease} already expired\n");
    assert_eq!((ran.code, ran.out), (0, expired));
    let ran = run_on(&fake, &["lease", "keep-alive", &lease]);
    let expired = format!("lease {lease} expired or revoked.\n");
    assert_eq!((ran.code, ran.out), (0, expired));
}

#[test]
fn failures_have_their_texts_and_exit_codes() {
    let fake = Fake::start(MEMBER);
    let not_found = "etcdserver: requested lease not found";
    let ran = run_on(&fake, &["lease", "revoke", "1234"]);
    let message = format!("Error: failed to revoke lease ({not_found})");
    check_refused(&ran, 1, &message);
    let ran = run_on(&fake, &["lease", "keep-alive", "--once", "1234"]);
    check_refused(&ran, 2, &format!("Error: {not_found}"));
    fake.fail_with([Status::internal("no")]);
    let ran = run_on(&fake, &["lease", "list"]);
    check_refused(&ran, 2, "Error: rpc error: code = Internal desc = no");
}

#[test]
fn bad_arguments() {
    let hex = "(strconv.ParseInt: parsing \"x\": invalid syntax), expecting ID in Hex";
    for (args, message) in [
        (
            &["grant"][..],
            "lease grant command needs TTL argument".to_owned(),
        ),
        (
            &["grant", "x"],
            "bad TTL (strconv.ParseInt: parsing \"x\": invalid syntax)".to_owned(),
        ),
        (
            &["revoke"],
            "lease revoke command needs 1 argument".to_owned(),
        ),
        (&["revoke", "x"], format!("bad lease ID arg {hex}")),
        (
            &["timetolive"],
            "lease timetolive command needs lease ID as argument".to_owned(),
        ),
        (&["timetolive", "x"], format!("bad lease ID arg {hex}")),
        (
            &["keep-alive"],
            "lease keep-alive command needs lease ID as argument".to_owned(),
        ),
        (&["keep-alive", "x"], format!("bad lease ID arg {hex}")),
    ] {
        let args: Vec<&str> = ["lease"].iter().chain(args).copied().collect();
        check_refused(&run(&args), 128, &format!("Error: {message}"));
    }
}
