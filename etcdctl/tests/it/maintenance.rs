//! Care of members: alarms, defragmentation, snapshots, leadership, membership, downgrades.

use std::fs;

use ferrite_fake::Fake;
use tonic::Status;

use crate::{MEMBER, check_refused, run, run_on};

#[test]
fn alarms_are_listed_and_ended() {
    let fake = Fake::start(MEMBER);
    assert_eq!(run_on(&fake, &["alarm", "list"]).out, "");
    fake.raise_alarm();
    let alarm = "memberID:42 alarm:NOSPACE\n";
    assert_eq!(run_on(&fake, &["alarm", "list"]).out, alarm);
    assert_eq!(run_on(&fake, &["alarm", "disarm"]).out, alarm);
    assert_eq!(run_on(&fake, &["alarm", "list"]).out, "");
    assert_eq!(
        run_on(&fake, &["alarm", "disarm", "-w", "json"]).out,
        "{}\n"
    );
    let message = "Error: alarm disarm command accepts no arguments";
    check_refused(&run(&["alarm", "disarm", "x"]), 128, message);
}

#[test]
fn every_endpoint_is_defragmented() {
    let fake = Fake::start(MEMBER);
    let endpoint = fake.endpoint();
    let ran = run_on(&fake, &["defrag"]);
    let finished = format!("Finished defragmenting etcd member[{endpoint}]. took ");
    assert!(ran.code == 0 && ran.out.starts_with(&finished), "{ran:?}");
    let ran = run_on(&fake, &["defrag", "--cluster"]);
    let finished = format!("Finished defragmenting etcd member[http://{endpoint}]. took ");
    assert!(ran.code == 0 && ran.out.starts_with(&finished), "{ran:?}");
    fake.fail_with([Status::internal("no")]);
    let ran = run_on(&fake, &["defrag"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    let failed = format!("Failed to defragment etcd member[{endpoint}]. took ");
    assert!(ran.err.contains(&failed), "{ran:?}");
    assert!(
        ran.err
            .ends_with(". (rpc error: code = Internal desc = no)\n"),
        "{ran:?}"
    );
}

#[test]
fn a_snapshot_is_whole_or_not_there() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("backup.db");
    let shown = path.display().to_string();
    let part = directory.path().join("backup.db.part");
    let fake = Fake::start(MEMBER);
    let database: Vec<u8> = (0..20_512u32).map(|index| index as u8).collect();

    // One byte too few.
    fake.set_snapshot(&database[1..]);
    let ran = run_on(&fake, &["snapshot", "save", &shown]);
    check_refused(&ran, 5, "Error: sha256 checksum not found [bytes: 20511]");
    assert!(!path.exists() && !part.exists());

    fake.set_snapshot(database.clone());
    let ran = run_on(&fake, &["snapshot", "save", &shown]);
    let saved = format!("Snapshot saved at {shown}\nServer version 3.7.0\n");
    assert_eq!((ran.code, ran.out), (0, saved));
    assert_eq!(fs::read(&path).expect("a file"), database);
    assert!(!part.exists());
    let messages: Vec<String> = ran
        .err
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(line["level"], "info");
            line["msg"].as_str().expect("a text").to_owned()
        })
        .collect();
    assert_eq!(
        messages,
        [
            "created temporary db file",
            "opened snapshot stream; downloading",
            "fetching snapshot",
            "completed snapshot read; closing",
            "fetched snapshot",
            "saved"
        ]
    );

    let nowhere = directory.path().join("no/backup.db").display().to_string();
    let ran = run_on(&fake, &["snapshot", "save", &nowhere]);
    let message = format!(
        "Error: could not open {nowhere}.part (open {nowhere}.part: no such file or directory)"
    );
    check_refused(&ran, 5, &message);
    let ran = run(&["snapshot", "save", "x", "--endpoints", "a:1,b:1"]);
    let message = "Error: snapshot must be requested to one selected node, not multiple [a:1 b:1]";
    check_refused(&ran, 5, message);
    let message = "Error: snapshot save expects one argument <filename>";
    check_refused(&run(&["snapshot", "save"]), 128, message);
}

#[test]
fn leadership_moves() {
    let fake = Fake::start(MEMBER);
    let ran = run_on(&fake, &["move-leader", "2b"]);
    assert_eq!(ran.out, "Leadership transferred from 2a to 2b\n");
    let message = "Error: move-leader command needs 1 argument";
    check_refused(&run(&["move-leader"]), 128, message);
    let message = "Error: strconv.ParseUint: parsing \"x\": invalid syntax";
    check_refused(&run(&["move-leader", "x"]), 128, message);
}

#[test]
fn members_come_and_go() {
    let fake = Fake::start(MEMBER);
    let urls = "--peer-urls=http://a:1,http://b:1";
    let ran = run_on(&fake, &["member", "add", "new", urls]);
    assert_eq!(
        ran.out,
        "Member               2b added to cluster                1\n\n\
         ETCD_NAME=\"new\"\n\
         ETCD_INITIAL_CLUSTER=\"default=http://peer:2380,new=http://a:1,new=http://b:1\"\n\
         ETCD_INITIAL_ADVERTISE_PEER_URLS=\"http://a:1,http://b:1\"\n\
         ETCD_INITIAL_CLUSTER_STATE=\"existing\"\n"
    );
    let ran = run_on(&fake, &["member", "add", "new", "--learner", urls]);
    let added = "Member               2b added as learner to cluster                1\n";
    assert!(ran.out.starts_with(added), "{ran:?}");
    for (args, done) in [
        (&["remove", "2b"][..], "removed from"),
        (&["update", "2b", urls], "updated in"),
        (&["promote", "2b"], "promoted in"),
    ] {
        let args: Vec<&str> = ["member"].iter().chain(args).copied().collect();
        let expected = format!("Member               2b {done} cluster                1\n");
        assert_eq!(run_on(&fake, &args).out, expected);
    }
}

#[test]
fn bad_arguments_about_members() {
    let hex = "(strconv.ParseUint: parsing \"x\": invalid syntax), expecting ID in Hex";
    for (args, message) in [
        (&["add"][..], "member name not provided".to_owned()),
        (&["add", "x"], "member peer urls not provided".to_owned()),
        (
            &["add", "x", "http://a:1"],
            "too many arguments, did you mean --peer-urls=http://a:1".to_owned(),
        ),
        (&["remove"], "member ID is not provided".to_owned()),
        (&["remove", "x"], format!("bad member ID arg {hex}")),
        (
            &["update", "2b"],
            "member peer urls not provided".to_owned(),
        ),
        (&["promote", "x"], format!("bad member ID arg {hex}")),
    ] {
        let args: Vec<&str> = ["member"].iter().chain(args).copied().collect();
        check_refused(&run(&args), 128, &format!("Error: {message}"));
    }
    let ran = run(&["member", "add", "x", "--peer-urls", "bogus"]);
    let message = "Error: URL scheme must be http, https, unix, or unixs: bogus";
    check_refused(&ran, 1, message);
}

#[test]
fn downgrades() {
    let fake = Fake::start(MEMBER);
    for (args, done) in [
        (&["validate", "3.6"][..], "validate"),
        (&["enable", "3.6"], "enable"),
        (&["cancel"], "cancel"),
    ] {
        let args: Vec<&str> = ["downgrade"].iter().chain(args).copied().collect();
        let expected = format!("Downgrade {done} success, cluster version 3.7\n");
        assert_eq!(run_on(&fake, &args).out, expected);
    }
    let message = "Error: TARGET_VERSION not provided";
    check_refused(&run(&["downgrade", "enable"]), 128, message);
    let message = "Error: too many arguments";
    check_refused(&run(&["downgrade", "validate", "a", "b"]), 128, message);
}
