//! `make-mirror`: what is copied, under which names, in which transactions, and how it ends.

use ferrite_fake::Fake;
use tonic::Status;

use crate::watch::Running;
use crate::{MEMBER, check_refused, run, run_on, run_with};

/// Two clusters, the first with a key under `a/`.
fn clusters() -> (Fake, Fake) {
    let (source, destination) = (Fake::start(MEMBER), Fake::start(MEMBER));
    run_on(&source, &["put", "a/1", "one"]);
    destination.take_seen();
    (source, destination)
}

fn mirror(source: &Fake, destination: &Fake, flags: &[&str]) -> Running {
    let endpoint = destination.endpoint();
    let args: Vec<&str> = ["make-mirror", &endpoint]
        .iter()
        .chain(flags)
        .copied()
        .collect();
    Running::start(source, &args)
}

/// All pairs there are.
fn pairs(fake: &Fake) -> String {
    run_on(fake, &["get", "", "--prefix"]).out
}

#[test]
fn what_is_there_and_what_comes_is_copied() {
    let (source, destination) = clusters();
    run_on(&source, &["put", "b", "two"]);
    let _mirror = mirror(&source, &destination, &[]);
    source.wait_for("Watch", 1);
    assert_eq!(pairs(&destination), "a/1\none\nb\ntwo\n");
    run_on(&source, &["put", "c", "three"]);
    run_on(&source, &["del", "a/1"]);
    destination.wait_for("Txn", 2);
    assert_eq!(pairs(&destination), "b\ntwo\nc\nthree\n");
}

#[test]
fn names_at_the_destination() {
    for (flags, name) in [
        (&["--prefix", "a/"][..], "a/"),
        (&["--prefix", "a/", "--dest-prefix", "copy/"], "copy/"),
        (&["--prefix", "a/", "--no-dest-prefix"], ""),
        (&["--dest-prefix", "copy/"], "copy/a/"),
    ] {
        let (source, destination) = clusters();
        let _mirror = mirror(&source, &destination, flags);
        source.wait_for("Watch", 1);
        run_on(&source, &["put", "a/a/2", "two"]);
        destination.wait_for("Txn", 1);
        let expected = format!("{name}1\none\n{name}a/2\ntwo\n");
        assert_eq!(pairs(&destination), expected, "{flags:?}");
    }
}

#[test]
fn keys_beside_the_prefix_stay_away() {
    let (source, destination) = clusters();
    run_on(&source, &["put", "b", "two"]);
    let _mirror = mirror(&source, &destination, &["--prefix", "a/"]);
    source.wait_for("Watch", 1);
    run_on(&source, &["put", "c", "three"]);
    run_on(&source, &["put", "a/2", "four"]);
    destination.wait_for("Txn", 1);
    assert_eq!(pairs(&destination), "a/1\none\na/2\nfour\n");
}

/// Without the pairs of before, and with the names that they have.
#[test]
fn a_copy_goes_on_where_it_was() {
    let (source, destination) = clusters();
    run_on(&source, &["put", "a/2", "two"]);
    run_on(&source, &["put", "a/3", "three"]);
    let flags = ["--prefix", "a/", "--rev", "3"];
    let _mirror = mirror(&source, &destination, &flags);
    destination.wait_for("Txn", 2);
    assert_eq!(pairs(&destination), "a/2\ntwo\na/3\nthree\n");
}

#[test]
fn a_revision_is_one_transaction_unless_it_is_large() {
    for (flags, transactions) in [
        (&[][..], 1),
        (&["--max-txn-ops", "2"], 2),
        (&["--max-txn-ops", "0"], 1),
    ] {
        let (source, destination) = clusters();
        let _mirror = mirror(&source, &destination, flags);
        source.wait_for("Watch", 1);
        let endpoint = source.endpoint();
        let input = "\nput x 1\nput y 2\nput z 3\n\n\n";
        run_with(&["txn"], &[("ETCDCTL_ENDPOINTS", &endpoint)], input);
        run_on(&source, &["put", "last", "4"]);
        // The last change has a transaction of its own.
        destination.wait_for("Txn", transactions + 1);
        assert_eq!(
            pairs(&destination),
            "a/1\none\nlast\n4\nx\n1\ny\n2\nz\n3\n",
            "{flags:?}"
        );
    }
}

#[test]
fn it_ends_when_copying_fails() {
    let (source, destination) = clusters();
    destination.fail_with([Status::internal("no")]);
    let (code, out, err) = mirror(&source, &destination, &[]).end();
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(
        err.lines().last(),
        Some("Error: rpc error: code = Internal desc = no")
    );
    run_on(&source, &["put", "a/2", "two"]);
    run_on(&source, &["compaction", "3"]);
    let (code, _, err) = mirror(&source, &destination, &["--rev", "2"]).end();
    assert_eq!(code, 1);
    assert_eq!(
        err.lines().last(),
        Some("Error: etcdserver: mvcc: required revision has been compacted")
    );
}

#[test]
fn bad_arguments() {
    let message = "Error: make-mirror takes one destination argument";
    check_refused(&run(&["make-mirror"]), 128, message);
    check_refused(&run(&["make-mirror", "a:1", "b:1"]), 128, message);
    let ran = run(&[
        "make-mirror",
        "127.0.0.1:1",
        "--dest-prefix=x",
        "--no-dest-prefix",
    ]);
    let message =
        "Error: `--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one";
    check_refused(&ran, 128, message);
    let ran = run(&["make-mirror", "--max-txn-ops=-1", "127.0.0.1:1"]);
    let message = "Error: invalid argument \"-1\" for \"--max-txn-ops\" flag: strconv.ParseUint: parsing \"-1\": invalid syntax\n";
    assert!(ran.code == 1 && ran.err.starts_with(message), "{ran:?}");
    for (flag, message) in [
        (
            "--dest-cert=/none/x",
            "Error: KeyFile and CertFile must both be present[key: , cert: /none/x]",
        ),
        (
            "--dest-cacert=/none/x",
            "Error: open /none/x: no such file or directory",
        ),
    ] {
        check_refused(&run(&["make-mirror", "127.0.0.1:1", flag]), 128, message);
    }
}
