//! `watch`: output as it comes, programs, interactive input, ends.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use ferrite_fake::Fake;
use tonic::Status;

use crate::{MEMBER, check_refused, run, run_on, run_with};

/// A program that goes on running; ended when dropped.
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    out: BufReader<ChildStdout>,
}

impl Running {
    pub(crate) fn start(fake: &Fake, args: &[&str]) -> Running {
        let mut child = Command::new(env!("CARGO_BIN_EXE_etcdctl"))
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("ETCDCTL_ENDPOINTS", fake.endpoint())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        Running {
            stdin: child.stdin.take(),
            out: BufReader::new(child.stdout.take().expect("piped")),
            child,
        }
    }

    /// So many lines of output, as soon as they are there.
    pub(crate) fn lines(&mut self, count: usize) -> String {
        let mut text = String::new();
        for _ in 0..count {
            self.out.read_line(&mut text).expect("readable");
        }
        text
    }

    fn write(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("open");
        stdin.write_all(line.as_bytes()).expect("it reads");
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([name, &id]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits for the end: exit code, the rest of the output, stderr.
    pub(crate) fn end(mut self) -> (i32, String, String) {
        drop(self.stdin.take());
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.out, &mut rest).expect("text");
        let mut err = String::new();
        let stderr = self.child.stderr.as_mut().expect("piped");
        std::io::Read::read_to_string(stderr, &mut err).expect("text");
        let status = self.child.wait().expect("the program ends");
        (status.code().expect("no signal"), rest, err)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A watch that starts at the first revision sees everything, whenever it is opened.
const FROM_START: [&str; 2] = ["--rev", "1"];

#[test]
fn changes_are_shown_as_they_come() {
    let fake = Fake::start(MEMBER);
    let mut watch = Running::start(&fake, &["watch", "--prefix", "k", "--rev", "1"]);
    run_on(&fake, &["put", "k1", "a"]);
    assert_eq!(watch.lines(3), "PUT\nk1\na\n");
    run_on(&fake, &["put", "other", "a"]);
    run_on(&fake, &["del", "k1"]);
    assert_eq!(watch.lines(3), "DELETE\nk1\n\n");
}

#[test]
fn a_range_and_pairs_of_before() {
    let fake = Fake::start(MEMBER);
    run_on(&fake, &["put", "b", "1"]);
    run_on(&fake, &["put", "b", "2"]);
    run_on(&fake, &["put", "c", "3"]);
    run_on(&fake, &["put", "b", "4"]);
    let args = ["watch", "a", "c", "--prev-kv", "--rev", "2"];
    let mut watch = Running::start(&fake, &args);
    let expected = "PUT\nb\n1\nPUT\nb\n1\nb\n2\nPUT\nb\n2\nb\n4\n";
    assert_eq!(watch.lines(13), expected);
}

#[test]
fn formats() {
    let fake = Fake::start(MEMBER);
    run_on(&fake, &["put", "foo", "bar"]);
    let args = ["watch", "foo", "--rev", "1", "-w", "json"];
    let mut watch = Running::start(&fake, &args);
    assert_eq!(
        watch.lines(1),
        "{\"Header\":{\"cluster_id\":1,\"member_id\":42,\"revision\":2,\"raft_term\":3},\"Events\":[{\"kv\":{\"key\":\"Zm9v\",\"create_revision\":2,\"mod_revision\":2,\"version\":1,\"value\":\"YmFy\"}}],\"CompactRevision\":0,\"Canceled\":false,\"Created\":false,\"CancelReason\":\"\"}\n"
    );
    let args = ["watch", "foo", "--rev", "1", "-w", "fields"];
    let mut watch = Running::start(&fake, &args);
    assert_eq!(
        watch.lines(11),
        "\"ClusterID\" : 1\n\"MemberID\" : 42\n\"Revision\" : 2\n\"RaftTerm\" : 3\n\"Type\" : PUT\n\"Key\" : \"foo\"\n\"CreateRevision\" : 2\n\"ModRevision\" : 2\n\"Version\" : 1\n\"Value\" : \"bar\"\n\"Lease\" : 0\n"
    );
    let args = ["watch", "foo", "--rev", "1", "-w", "table"];
    let ran = run_on(&fake, &args);
    check_refused(&ran, 4, "Error: table not supported as output format");
}

#[test]
fn the_environment_can_say_what_to_watch() {
    let fake = Fake::start(MEMBER);
    let endpoint = fake.endpoint();
    let key = ("ETCDCTL_WATCH_KEY", "k");
    let environment = [("ETCDCTL_ENDPOINTS", endpoint.as_str()), key];
    run_on(&fake, &["put", "k", "v"]);
    // The program ends the watch by failing.
    let args = ["watch", FROM_START[0], FROM_START[1], "--", "false"];
    let ran = run_with(&args, &environment, "");
    assert_eq!((ran.code, ran.out.as_str()), (1, "PUT\nk\nv\n"));
    assert_eq!(ran.err, "command [\"false\"] error (exit status 1)\n");
    let message = "Error: bad number of arguments (found conflicting environment key)";
    check_refused(&run_with(&["watch", "k"], &environment, ""), 128, message);
    let alone = [("ETCDCTL_WATCH_RANGE_END", "x")];
    let message = "Error: ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END=\"x\"";
    check_refused(&run_with(&["watch"], &alone, ""), 128, message);
    // Elsewhere the variables mean nothing.
    let ran = run_with(&["get", "x"], &environment, "");
    assert!(
        ran.err.contains("unrecognized environment variable"),
        "{ran:?}"
    );
}

#[test]
fn a_program_runs_for_each_change() {
    let fake = Fake::start(MEMBER);
    run_on(&fake, &["put", "k", "a\"b"]);
    run_on(&fake, &["del", "k"]);
    let script =
        "echo $ETCD_WATCH_REVISION $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE";
    let args = ["watch", "k", "--rev", "1", "--", "/bin/sh", "-c", script];
    let mut watch = Running::start(&fake, &args);
    assert_eq!(
        watch.lines(8),
        "PUT\nk\na\"b\n2 \"PUT\" \"k\" \"a\\\"b\"\nDELETE\nk\n\n3 \"DELETE\" \"k\" \"\"\n"
    );
}

#[test]
fn a_program_that_cannot_run_ends_the_watch() {
    let fake = Fake::start(MEMBER);
    run_on(&fake, &["put", "k", "v"]);
    for (program, error) in [
        (
            "no-such-program",
            "exec: \"no-such-program\": executable file not found in $PATH",
        ),
        (
            "/no/such/program",
            "fork/exec /no/such/program: no such file or directory",
        ),
        ("/", "fork/exec /: permission denied"),
    ] {
        let ran = run_on(&fake, &["watch", "k", "--rev", "1", "--", program]);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert_eq!(
            ran.err,
            format!("command [\"{program}\"] error ({error})\n")
        );
    }
}

#[test]
fn the_server_ends_a_watch() {
    let fake = Fake::start(MEMBER);
    for value in ["1", "2", "3"] {
        run_on(&fake, &["put", "k", value]);
    }
    run_on(&fake, &["compaction", "4"]);
    let ran = run_on(&fake, &["watch", "k", "--rev", "2", "-w", "json"]);
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(
        ran.out
            .contains("\"Events\":null,\"CompactRevision\":4,\"Canceled\":true"),
        "{ran:?}"
    );
    assert_eq!(
        ran.err,
        "watch was canceled (etcdserver: mvcc: required revision has been compacted)\n\
         Error: watch is canceled by the server\n"
    );
    let ran = run_on(&fake, &["watch", "b", "a"]);
    assert_eq!((ran.code, ran.out.as_str()), (5, ""));
    assert_eq!(
        ran.err,
        "watch was canceled (mvcc: watcher range is empty)\n\
         Error: watch is canceled by the server\n"
    );
    fake.fail_with([Status::unimplemented("not there")]);
    let ran = run_on(&fake, &["watch", "k", "-w", "json"]);
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(
        ran.out.starts_with("{\"Header\":{},\"Events\":null,"),
        "{ran:?}"
    );
}

#[test]
fn bad_arguments() {
    for (args, message) in [
        (&["watch"][..], "bad number of arguments"),
        (&["watch", "--prefix"], "bad number of arguments"),
        (
            &["watch", "k", "--"],
            "bad number of arguments (found separator --, but no commands)",
        ),
        (
            &["watch", "a", "b", "--prefix"],
            "`range_end` and `--prefix` are mutually exclusive",
        ),
    ] {
        check_refused(&run(args), 128, &format!("Error: {message}"));
    }
}

#[test]
fn interactive_watches() {
    let fake = Fake::start(MEMBER);
    run_on(&fake, &["put", "a", "1"]);
    run_on(&fake, &["put", "b", "2"]);
    let mut watch = Running::start(&fake, &["watch", "-i"]);
    watch.write("watch a --rev 1\n");
    assert_eq!(watch.lines(3), "PUT\na\n1\n");
    watch.write("watch \"b\" --rev 1 --prev-kv -- echo \"run for\" b\n");
    assert_eq!(watch.lines(4), "PUT\nb\n2\nrun for b\n");
    run_on(&fake, &["put", "a", "3"]);
    assert_eq!(watch.lines(3), "PUT\na\n3\n");
    // For both watches.
    watch.write("progress\n");
    assert_eq!(watch.lines(2), "progress notify: 4\n".repeat(2));
}

#[test]
fn interactive_mistakes() {
    let fake = Fake::start(MEMBER);
    let endpoint = fake.endpoint();
    let environment = [("ETCDCTL_ENDPOINTS", endpoint.as_str())];
    let input = "put a b\n\nwatch\nwatch a b --prefix\nlast line is cut";
    let ran = run_with(&["watch", "-i"], &environment, input);
    assert_eq!((ran.code, ran.out.as_str()), (3, ""));
    assert_eq!(
        ran.err,
        "Invalid command put a b (only support watch)\n\
         Invalid command:  (watch and progress supported)\n\
         Invalid command watch (command type or key is not provided)\n\
         Invalid command watch a b --prefix (`range_end` and `--prefix` are mutually exclusive)\n\
         Error: error reading watch request line: EOF\n"
    );
    for (input, message) in [
        (
            "watch a --\n",
            "bad number of arguments (found separator --, but no commands)",
        ),
        ("watch --prefix\n", "bad number of arguments"),
        ("watch a --bogus\n", "unknown flag: --bogus"),
    ] {
        let ran = run_with(&["watch", "-i"], &environment, input);
        check_refused(&ran, 128, &format!("Error: {message}"));
    }
}
