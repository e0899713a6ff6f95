//! Command lines, help, and commands that are not there.

use crate::support::{Member, etcdutl};

const COMMANDS: [&str; 9] = [
    "check",
    "completion",
    "defrag",
    "dump-db",
    "dump-log",
    "hashkv",
    "migrate",
    "snapshot",
    "version",
];

#[test]
fn the_version_is_etcds() {
    for arguments in [&["version"][..], &["ver"], &["version", "more"]] {
        let ran = etcdutl(arguments);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        assert_eq!(ran.out, "etcdutl version: 3.7.1\nAPI version: 3.7\n");
    }
}

#[test]
fn help_lists_the_commands_that_are_built() {
    for arguments in [&[][..], &["help"], &["-h"], &["--help"]] {
        let ran = etcdutl(arguments);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        assert!(
            ran.out.starts_with("Usage:\n  etcdutl [command]\n"),
            "{}",
            ran.out
        );
        for command in COMMANDS {
            assert!(ran.out.contains(&format!("\n  {command} ")), "{}", ran.out);
        }
    }
    let ran = etcdutl(&["help", "defrag"]);
    assert_eq!(ran.code, 0);
    let usage =
        "\n\nUsage:\n  etcdutl defrag [flags]\n\nFlags:\n      --data-dir string   Required.";
    assert!(ran.out.contains(usage), "{}", ran.out);
}

#[test]
fn what_the_parser_refuses_is_said_twice() {
    let defrag = "\nUsage:\n  etcdutl defrag [flags]\n";
    let hashkv = "\nUsage:\n  etcdutl hashkv <filename> [flags]\n";
    let run_help = "\nRun 'etcdutl --help' for usage.\n";
    for (arguments, message, after) in [
        (
            &["bogus"][..],
            "unknown command \"bogus\" for \"etcdutl\"",
            run_help,
        ),
        (&["d"], "unknown command \"d\" for \"etcdutl\"", run_help),
        (&["defrag"], "required flag(s) \"data-dir\" not set", defrag),
        (&["defrag", "--bogus"], "unknown flag: --bogus", defrag),
        (
            &["defrag", "--data-dir"],
            "flag needs an argument: --data-dir",
            defrag,
        ),
        (&["hashkv"], "accepts 1 arg(s), received 0", hashkv),
        (
            &["hashkv", "a", "b"],
            "accepts 1 arg(s), received 2",
            hashkv,
        ),
    ] {
        let ran = etcdutl(arguments);
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{arguments:?}");
        let line = format!("Error: {message}\n");
        assert!(
            ran.err.starts_with(&format!("Error: {message}{after}")),
            "{}",
            ran.err
        );
        assert!(ran.err.ends_with(&line), "{}", ran.err);
        assert_eq!(ran.err.matches(&line).count(), 2, "{}", ran.err);
    }
}

#[test]
fn commands_of_a_group_come_after_its_name() {
    for arguments in [&["snapshot"][..], &["sn", "help"], &["snapshot", "-h"]] {
        let ran = etcdutl(arguments);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{arguments:?}");
        let usage = "Usage:\n  etcdutl snapshot [command]\n\nAvailable Commands:\n  help ";
        assert!(ran.out.starts_with(usage), "{}", ran.out);
        for command in ["restore", "status"] {
            assert!(ran.out.contains(&format!("\n  {command} ")), "{}", ran.out);
        }
    }
    let ran = etcdutl(&["snapshot", "rest", "-h"]);
    assert!(ran.out.contains("--bump-revision int"), "{}", ran.out);
    let ran = etcdutl(&["snapshot", "save"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    let error = "Error: unknown command \"save\" for \"etcdutl snapshot\"\n";
    assert!(ran.err.starts_with(error), "{}", ran.err);
}

#[test]
fn what_does_not_go_together_has_a_code_of_its_own() {
    for (arguments, message) in [
        (
            &["snapshot", "status"][..],
            "snapshot status requires exactly one argument",
        ),
        (
            &["snapshot", "restore", "a", "b"],
            "snapshot restore requires exactly one argument",
        ),
        (
            &["snapshot", "restore", "a", "--bump-revision", "5"],
            "--mark-compacted required if --revision-bump > 0",
        ),
        (
            &["snapshot", "restore", "a", "--mark-compacted"],
            "--mark-compacted required if --revision-bump > 0",
        ),
        (
            &[
                "snapshot",
                "restore",
                "a",
                "--mark-compacted",
                "--bump-revision=-1",
            ],
            "--bump-revision must not be negative",
        ),
        (
            &["migrate", "--from-etcd", "d", "--target-version", "3.6"],
            "--from-etcd and --target-version do not go together",
        ),
        (
            &["migrate", "--data-dir", "d", "--target-version", "3.6.0"],
            "wrong target version format, expected \"X.Y\", got \"3.6.0\"",
        ),
        (
            &["migrate", "--data-dir", "d", "--target-version", "3.4"],
            "target version \"3.4\" not supported. Minimal \"3.5\"",
        ),
    ] {
        let ran = etcdutl(arguments);
        assert_eq!((ran.code, ran.out.as_str()), (128, ""), "{arguments:?}");
        assert_eq!(ran.err, format!("Error: {message}\n"));
    }
}

#[test]
fn completions_know_every_command_and_flag() {
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let ran = etcdutl(&["completion", shell]);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{shell}");
        for word in COMMANDS
            .iter()
            .chain(&["data-dir", "write-out", "rev", "raw"])
        {
            assert!(ran.out.contains(word), "{shell} lacks {word}");
        }
    }
    let ran = etcdutl(&["completion", "tcsh"]);
    assert_eq!(ran.code, 1);
    let refusal = "Error: invalid argument \"tcsh\" for \"etcdutl completion\"\n";
    assert_eq!(ran.err, refusal);
}

#[tokio::test]
async fn a_directory_in_use_is_refused() {
    let member = Member::new();
    let server = member.start().await;
    let db = member.db();
    for arguments in [
        &["check", "--data-dir", member.text()][..],
        &["defrag", "--data-dir", member.text()],
        &["dump-db", "--data-dir", member.text()],
        &["dump-log", "--data-dir", member.text()],
        &["hashkv", db.to_str().unwrap()],
    ] {
        let ran = etcdutl(&[arguments, &["--timeout", "1ms"]].concat());
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{arguments:?}");
        let in_use = format!(
            "data directory {} is in use by another process",
            member.text()
        );
        assert!(ran.err.contains(&in_use), "{}", ran.err);
    }
    server.stop().await.unwrap();
}

#[test]
fn a_directory_without_data_or_of_etcd_is_refused() {
    let member = Member::new();
    let db = member.db();
    let stat = format!("stat {}: no such file or directory", db.display());
    for command in ["check", "dump-db", "dump-log"] {
        let ran = etcdutl(&[command, "--data-dir", member.text()]);
        assert_eq!(
            (ran.code, ran.err),
            (1, format!("Error: {stat}\n")),
            "{command}"
        );
    }
    let ran = etcdutl(&["hashkv", db.to_str().unwrap()]);
    assert_eq!((ran.code, ran.err), (1, format!("Error: {stat}\n")));

    std::fs::create_dir_all(db.parent().unwrap()).unwrap();
    let bbolt = [&[0; 16][..], &0xed0c_daed_u32.to_le_bytes(), &[0; 4096]].concat();
    std::fs::write(&db, bbolt).unwrap();
    let ran = etcdutl(&["check", "--data-dir", member.text()]);
    let refusal = format!(
        "Error: {} was written by etcd, not by Ferrite\n",
        db.display()
    );
    assert_eq!((ran.code, ran.err), (1, refusal));
}
