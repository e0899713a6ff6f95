//! The program itself, run against a fake server: outputs, errors, exit codes, environment.

mod check;
mod concurrency;
mod lease;
mod maintenance;
mod mirror;
mod watch;

use std::io::Write;
use std::process::{Command, Stdio};

use ferrite_fake::Fake;
use tonic::Status;

/// The id of the fake member.
const MEMBER: u64 = 0x2a;

/// How a run ended.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

/// Runs etcdctl with a clean environment plus `environment`.
fn run_with(args: &[&str], environment: &[(&str, &str)], input: &str) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_etcdctl"))
        .args(args)
        .env_clear()
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("piped");
    // A program that does not read its input closes it.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("the program ends");
    Ran {
        code: output.status.code().expect("no signal"),
        out: String::from_utf8(output.stdout).expect("text"),
        err: String::from_utf8(output.stderr).expect("text"),
    }
}

fn run(args: &[&str]) -> Ran {
    run_with(args, &[], "")
}

/// Runs etcdctl against the fake.
fn run_on(fake: &Fake, args: &[&str]) -> Ran {
    run_with(args, &[("ETCDCTL_ENDPOINTS", &fake.endpoint())], "")
}

/// A refusal: exit code, nothing on stdout, and a last line on stderr that says why.
fn check_refused(ran: &Ran, code: i32, message: &str) {
    assert_eq!(ran.code, code, "{ran:?}");
    assert_eq!(ran.out, "", "{ran:?}");
    assert_eq!(ran.err.lines().last(), Some(message), "{ran:?}");
}

#[test]
fn put_get_and_del() {
    let fake = Fake::start(MEMBER);
    let ran = run_on(&fake, &["put", "foo", "bar"]);
    assert_eq!(
        (ran.code, ran.out.as_str(), ran.err.as_str()),
        (0, "OK\n", "")
    );
    let ran = run_on(&fake, &["get", "foo"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "foo\nbar\n"));
    let ran = run_on(&fake, &["get", "foo", "--print-value-only"]);
    assert_eq!(ran.out, "bar\n");
    let ran = run_on(&fake, &["get", "fo", "--prefix", "--stream", "-w", "json"]);
    assert!(ran.out.contains("\"kvs\":[{\"key\":\"Zm9v\""), "{ran:?}");
    let ran = run_on(&fake, &["del", "foo", "--prev-kv"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "1\nfoo\nbar\n"));
    let ran = run_on(&fake, &["get", "foo"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""));
}

#[test]
fn a_value_from_stdin_keeps_its_last_newline() {
    let fake = Fake::start(MEMBER);
    let endpoint = fake.endpoint();
    let environment = [("ETCDCTL_ENDPOINTS", endpoint.as_str())];
    let ran = run_with(&["put", "k"], &environment, "two\nlines\n");
    assert_eq!(ran.out, "OK\n");
    assert_eq!(run_on(&fake, &["get", "k"]).out, "k\ntwo\nlines\n\n");
    let message = "Error: put command needs 1 argument and input from stdin or 2 arguments";
    check_refused(&run_with(&["put", "k"], &environment, ""), 128, message);
}

#[test]
fn txn_runs_what_it_reads() {
    let fake = Fake::start(MEMBER);
    let endpoint = fake.endpoint();
    let environment = [("ETCDCTL_ENDPOINTS", endpoint.as_str())];
    let input = "mod(\"k\") = \"0\"\n\nput k v\nget k\n\ndel k\n\n";
    let ran = run_with(&["txn"], &environment, input);
    assert_eq!((ran.code, ran.out.as_str()), (0, "SUCCESS\n\nOK\n\nk\nv\n"));
    let ran = run_with(&["txn", "-i"], &environment, input);
    assert_eq!(
        ran.out,
        "compares:\nsuccess requests (get, put, del):\nfailure requests (get, put, del):\n\
         FAILURE\n\n1\n"
    );
    let ran = run_with(&["txn"], &environment, "\n\n");
    check_refused(&ran, 3, "Error: EOF");
    let ran = run_with(&["txn"], &environment, "mod(\"k\") ~ \"0\"\n\n\n\n");
    assert_eq!(ran.code, 3, "{ran:?}");
    let ran = run_with(&["txn", "x"], &environment, "");
    check_refused(&ran, 128, "Error: txn command does not accept argument");
}

#[test]
fn server_errors_exit_with_1_and_print_the_servers_text() {
    let fake = Fake::start(MEMBER);
    let ran = run_on(&fake, &["get", "foo", "--rev", "100"]);
    check_refused(
        &ran,
        1,
        "Error: etcdserver: mvcc: required revision is a future revision",
    );
    let warning: serde_json::Value =
        serde_json::from_str(ran.err.lines().next().expect("a line")).expect("JSON");
    assert_eq!(warning["level"], "warn");
    assert_eq!(warning["msg"], "retrying of unary invoker failed");
    assert_eq!(warning["method"], "/etcdserverpb.KV/Range");
    assert_eq!(warning["attempt"], 0);
    assert_eq!(
        run_on(&fake, &["compaction", "1"]).out,
        "compacted revision 1\n"
    );
}

#[test]
fn nobody_there_is_a_deadline() {
    let ran = run(&[
        "get",
        "k",
        "--endpoints",
        "127.0.0.1:1",
        "--command-timeout",
        "200ms",
    ]);
    check_refused(&ran, 1, "Error: context deadline exceeded");
    assert!(ran.err.to_lowercase().contains("refused"), "{ran:?}");
}

#[test]
fn bad_arguments_exit_with_128() {
    let get = "Error: get command needs one argument as key and an optional argument as range_end";
    let both = "Error: `--prefix` and `--from-key` cannot be set at the same time, choose one";
    for (args, message) in [
        (&["get"][..], get),
        (&["get", "a", "--prefix", "--from-key"], both),
        (&["del", "a", "--prefix", "--from-key"], both),
        (
            &["get", "a", "--keys-only", "--count-only"],
            "Error: `--keys-only` and `--count-only` cannot be set at the same time, choose one",
        ),
        (
            &["del", "a", "b", "--prefix"],
            "Error: too many arguments, only accept one argument when `--prefix` or `--from-key` is set",
        ),
        (
            &["put", "a", "b", "--ignore-value"],
            "Error: put command needs only 1 argument when 'ignore-value' is set",
        ),
        (
            &["put", "a", "b", "--lease", "x"],
            "Error: bad lease ID (strconv.ParseInt: parsing \"x\": invalid syntax), expecting ID in Hex",
        ),
        (
            &["compaction"],
            "Error: compaction command needs 1 argument",
        ),
        (
            &["get", "a", "--cert", ""],
            "Error: empty string is passed to --cert option",
        ),
    ] {
        check_refused(&run(args), 128, message);
    }
}

#[test]
fn bad_features_exit_with_4() {
    for (args, message) in [
        (
            &["get", "a", "--order", "up"][..],
            "Error: bad sort order up",
        ),
        (&["get", "a", "--sort-by", "x"], "Error: bad sort target x"),
        (
            &["get", "a", "--consistency", "x"],
            "Error: unknown consistency flag \"x\"",
        ),
        // The text is etcd's: it shows another flag's default.
        (
            &["member", "list", "--consistency", "x"],
            "Error: unknown consistency flag \"l\"",
        ),
        (
            &["get", "a", "--min-mod-rev", "3", "--max-mod-rev", "2"],
            "Error: getMinModRev(=3) > getMaxModRev(=2)",
        ),
        (
            &["get", "a", "-w", "bogus"],
            "Error: unsupported output format",
        ),
    ] {
        check_refused(&run(args), 4, message);
    }
}

#[test]
fn an_unsupported_format_is_noticed_after_the_write() {
    let fake = Fake::start(MEMBER);
    let ran = run_on(&fake, &["put", "k", "v", "-w", "table"]);
    check_refused(&ran, 4, "Error: table not supported as output format");
    assert_eq!(run_on(&fake, &["get", "k"]).out, "k\nv\n");
}

#[test]
fn commands_and_flags_that_do_not_exist() {
    let ran = run(&["gett"]);
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.err,
        "Error: unknown command \"gett\" for \"etcdctl\"\n\nDid you mean this?\n\tget\n\nRun 'etcdctl --help' for usage.\n"
    );
    let ran = run(&["get", "--bogus"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.err.starts_with(
            "Error: unknown flag: --bogus\nUsage:\n  etcdctl get [options] <key> [range_end] [flags]\n\nFlags:\n"
        ),
        "{ran:?}"
    );
    let ran = run(&["get", "--command-timeout", "5", "k"]);
    assert!(
        ran.err.starts_with(
            "Error: invalid argument \"5\" for \"--command-timeout\" flag: time: missing unit in duration \"5\"\n"
        ),
        "{ran:?}"
    );
}

#[test]
fn certificates_that_are_not_there_are_bad_arguments() {
    for (args, error) in [
        (
            &["--cacert", "/none/ca.pem"][..],
            "Error: open /none/ca.pem: no such file or directory\n",
        ),
        (
            &["--cert", "/none/c.pem"],
            "Error: KeyFile and CertFile must both be present[key: , cert: /none/c.pem]\n",
        ),
        (
            &["--cert", "/none/c.pem", "--key", "/none/k.pem"],
            "Error: open /none/c.pem: no such file or directory\n",
        ),
        (
            &["--key="],
            "Error: empty string is passed to --key option\n",
        ),
    ] {
        let ran = run(&[&["get", "k"], args].concat());
        assert_eq!((ran.code, ran.err.as_str()), (128, error), "{args:?}");
    }
}

#[test]
fn help_lists_what_is_built() {
    let ran = run(&[]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert!(
        ran.out
            .starts_with("A simple command line client for etcd3.\n"),
        "{ran:?}"
    );
    assert!(ran.out.contains("\n  get         "), "{ran:?}");
    assert!(ran.out.contains("\nAuthentication commands\n"), "{ran:?}");
    assert!(ran.out.ends_with(
        "Use \"etcdctl options\" for a list of global command-line options (applies to all commands).\n"
    ));
    assert_eq!(run(&["--help"]).out, ran.out);
    assert_eq!(run(&["help"]).out, ran.out);
    assert_eq!(run(&["help", "get"]).out, run(&["get", "-h"]).out);
    assert_eq!(run(&["endpoint", "bogus"]).out, run(&["endpoint"]).out);
    let ran = run(&["help", "nope"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""));
    assert!(
        ran.err.starts_with("Unknown help topic [`nope`]\nUsage:\n"),
        "{ran:?}"
    );
    let ran = run(&["options"]);
    assert!(ran.out.starts_with(
        "The following options can be passed to any command:\n\n      --auth-jwt-token"
    ));
}

#[test]
fn version_is_exactly_etcds() {
    assert_eq!(
        run(&["version"]).out,
        "etcdctl version: 3.7.1\nAPI version: 3.7\n"
    );
}

#[test]
fn environment_variables_stand_in_for_flags() {
    let fake = Fake::start(MEMBER);
    let endpoint = fake.endpoint();
    let at = ("ETCDCTL_ENDPOINTS", endpoint.as_str());
    run_on(&fake, &["put", "foo", "bar"]);

    let ran = run_with(&["get", "foo"], &[at, ("ETCDCTL_HEX", "true")], "");
    assert_eq!(ran.out, "\\x66\\x6f\\x6f\n\\x62\\x61\\x72\n");
    // A value that cannot be read is ignored.
    let ran = run_with(&["get", "foo"], &[at, ("ETCDCTL_HEX", "bogus")], "");
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("foo\nbar\n", ""));

    let ran = run_with(&["get", "foo"], &[at, ("ETCDCTL_API", "3")], "");
    assert_eq!((ran.code, ran.out.as_str()), (0, "foo\nbar\n"));
    let line: serde_json::Value = serde_json::from_str(&ran.err).expect("one JSON line");
    assert_eq!(line["level"], "warn");
    assert_eq!(line["msg"], "unrecognized environment variable");
    assert_eq!(line["environment-variable"], "ETCDCTL_API=3");

    let ran = run_with(&["get", "foo", "--endpoints", &endpoint], &[at], "");
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    let line: serde_json::Value = serde_json::from_str(&ran.err).expect("one JSON line");
    assert_eq!(line["level"], "fatal");
    assert_eq!(line["environment-variable"], "ETCDCTL_ENDPOINTS");
    // A comma too many.
    let trailing = format!("{endpoint},");
    let ran = run(&["get", "foo", "--endpoints", &trailing]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "foo\nbar\n"), "{ran:?}");
    // Commands without a client do not look.
    assert_eq!(run_with(&["version"], &[("ETCDCTL_API", "3")], "").err, "");
}

#[test]
fn debug_shows_every_global_flag() {
    let fake = Fake::start(MEMBER);
    let ran = run_with(
        &["get", "foo", "--debug", "--endpoints", &fake.endpoint()],
        &[],
        "",
    );
    assert!(
        ran.err
            .contains(&format!("ETCDCTL_ENDPOINTS=[{}]\n", fake.endpoint())),
        "{ran:?}"
    );
    assert!(ran.err.contains("ETCDCTL_COMMAND_TIMEOUT=5s\n"), "{ran:?}");
    assert_eq!(ran.err.lines().count(), 21);
}

#[test]
fn endpoints_are_asked_one_by_one() {
    let fake = Fake::start(MEMBER);
    let endpoint = fake.endpoint();
    let ran = run_on(&fake, &["endpoint", "status"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.out.starts_with(&format!("{endpoint}, 2a, 3.7.1, ")),
        "{ran:?}"
    );
    let ran = run_on(&fake, &["endpoint", "health"]);
    assert!(
        ran.out.starts_with(&format!(
            "{endpoint} is healthy: successfully committed proposal: took = "
        )),
        "{ran:?}"
    );
    let ran = run_on(&fake, &["endpoint", "health", "--cluster", "-w", "json"]);
    assert!(
        ran.out.starts_with(&format!(
            "[{{\"endpoint\":\"http://{endpoint}\",\"health\":true,"
        )),
        "{ran:?}"
    );

    fake.fail_with([Status::unimplemented("not part of the fake")]);
    let ran = run_on(&fake, &["endpoint", "hashkv"]);
    let reason = "rpc error: code = Unimplemented desc = not part of the fake";
    check_refused(&ran, 1, &format!("Error: {reason}"));
    assert!(ran.err.contains(&format!(
        "Failed to get the hash of endpoint {endpoint} ({reason})\n"
    )));

    let both = format!("{endpoint},127.0.0.1:1");
    let ran = run(&[
        "endpoint",
        "status",
        "--endpoints",
        &both,
        "--command-timeout",
        "300ms",
    ]);
    assert_eq!((ran.code, ran.out.lines().count()), (1, 1), "{ran:?}");
    assert_eq!(
        ran.err.lines().last(),
        Some("Failed to get the status of endpoint 127.0.0.1:1 (context deadline exceeded)")
    );
    let ran = run(&[
        "endpoint",
        "health",
        "--endpoints",
        &both,
        "--command-timeout",
        "300ms",
    ]);
    assert_eq!((ran.code, ran.out.lines().count()), (1, 1), "{ran:?}");
    assert!(ran.err.contains(
        "127.0.0.1:1 is unhealthy: failed to commit proposal: context deadline exceeded\n"
    ));
    assert_eq!(ran.err.lines().last(), Some("Error: unhealthy cluster"));
    // Nor does one that cannot be asked keep the others from it.
    let both = format!("nowhere,{endpoint}");
    for (args, failed) in [
        (
            ["endpoint", "status"],
            "Failed to get the status of endpoint nowhere (",
        ),
        (
            ["endpoint", "hashkv"],
            "Failed to get the hash of endpoint nowhere (",
        ),
        (
            ["endpoint", "health"],
            "nowhere is unhealthy: failed to commit proposal: ",
        ),
    ] {
        let ran = run(&[args[0], args[1], "--endpoints", &both]);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.err.contains(failed), "{ran:?}");
        assert!(ran.out.starts_with(&endpoint), "{ran:?}");
    }
}

#[test]
fn an_alarm_makes_an_endpoint_unhealthy() {
    let fake = Fake::start(MEMBER);
    fake.raise_alarm();
    let ran = run_on(&fake, &["endpoint", "health"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:?}");
    let expected = format!(
        "{} is unhealthy: failed to commit proposal: Active Alarm(s): NOSPACE \nError: unhealthy cluster\n",
        fake.endpoint()
    );
    assert_eq!(ran.err, expected);
}

#[test]
fn member_list() {
    let fake = Fake::start(MEMBER);
    let ran = run_on(&fake, &["member", "li"]);
    assert_eq!(
        (ran.code, ran.out),
        (
            0,
            format!(
                "2a, started, default, http://peer:2380, http://{}, false\n",
                fake.endpoint()
            )
        )
    );
}

#[test]
fn completion_scripts() {
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let ran = run(&["completion", shell]);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        assert!(ran.out.contains("timetolive"), "{shell}");
    }
    let ran = run(&["completion"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(
        ran.err
            .starts_with("Error: accepts 1 arg(s), received 0\nUsage:")
    );
    let ran = run(&["completion", "tcsh"]);
    let message = "Error: invalid argument \"tcsh\" for \"etcdctl completion\"\nUsage:";
    assert!(ran.code == 1 && ran.err.starts_with(message), "{ran:?}");
}
