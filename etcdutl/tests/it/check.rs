//! `check`: intact directories, and every kind of damage by its name.

use std::io::Write as _;

use serde_json::Value;

use crate::support::{Member, Ran, damage, etcdutl, put};

fn check(member: &Member) -> Ran {
    etcdutl(&["check", "--data-dir", member.text()])
}

/// The report as JSON; the exit code and stderr must agree with it.
fn report(member: &Member) -> Value {
    let ran = etcdutl(&["check", "--data-dir", member.text(), "-w", "json"]);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    let problems = report["problems"].as_array().unwrap().len();
    assert_eq!(report["intact"], problems == 0);
    match problems {
        0 => assert_eq!((ran.code, ran.err.as_str()), (0, "")),
        count => {
            let path = member.path().display();
            let refusal = format!("Error: {path} is damaged: {count} problem(s) found\n");
            assert_eq!((ran.code, ran.err), (1, refusal));
        }
    }
    report
}

#[tokio::test]
async fn an_intact_directory_is_intact_and_stays_as_it_is() {
    let member = Member::filled(20).await;
    let before = member.files();
    let ran = check(&member);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
    assert!(ran.out.ends_with("result     intact\n"), "{}", ran.out);
    let report = report(&member);
    // 20 survivors of the compaction, and the deletion.
    assert_eq!(report["pageFile"]["rows"], 21);
    assert_eq!(report["pageFile"]["revision"], 42);
    assert_eq!(report["pageFile"]["compactRevision"], 41);
    let (index, last) = (
        &report["pageFile"]["consistentIndex"],
        &report["log"]["lastIndex"],
    );
    assert!(index.as_u64().unwrap() <= last.as_u64().unwrap());
    assert_eq!(report["log"]["tornTail"], Value::Null);
    assert!(member.files() == before, "check has changed a file");
}

#[tokio::test]
async fn a_snapshot_that_was_received_counts_if_the_log_says_so() {
    let member = Member::filled(20).await;
    let install = member.db().with_file_name("db.install");
    std::fs::write(&install, "nobody looks at it").unwrap();
    assert_eq!(report(&member)["problems"], serde_json::json!([]));

    // Without a page file it would be needed.
    std::fs::rename(member.db(), &install).unwrap();
    std::fs::write(member.db(), "damaged").unwrap();
    let before = member.files();
    let problem = &report(&member)["problems"][0];
    assert_eq!(problem["place"], "page file");
    assert!(
        problem["what"]
            .as_str()
            .unwrap()
            .starts_with("a received snapshot: ")
    );
    assert!(member.files() == before, "check has changed a file");
}

#[tokio::test]
async fn damage_of_the_log_is_named_by_segment_and_offset() {
    let member = Member::filled(20).await;
    let (path, number) = member.first_segment();
    let mut bytes = std::fs::read(&path).unwrap();
    // In the payload of the first record behind the header of the segment.
    bytes[512 + 40] ^= 4;
    std::fs::write(&path, bytes).unwrap();
    let before = member.files();
    let report = report(&member);
    let problem = &report["problems"][0];
    assert_eq!(problem["place"], "log");
    assert_eq!(problem["segment"], number);
    assert_eq!(problem["offset"], 512);
    let text = check(&member).out;
    let named = format!("damaged    log, segment {number}, offset 512: write-ahead log is corrupt");
    assert!(text.contains(&named), "{text}");
    assert!(member.files() == before, "check has changed a file");
}

#[tokio::test]
async fn a_missing_log_is_named() {
    let member = Member::filled(5).await;
    std::fs::remove_dir_all(member.wal()).unwrap();
    let report = report(&member);
    assert_eq!(report["problems"][0]["place"], "log");
}

#[tokio::test]
async fn a_torn_end_of_the_log_is_no_damage() {
    let member = Member::filled(5).await;
    let (path, number) = member.first_segment();
    let ran = etcdutl(&["dump-log", "--data-dir", member.text(), "--raw"]);
    let last = ran.out.lines().last().unwrap();
    let offset: u64 = last.split('\t').nth(1).unwrap().trim().parse().unwrap();
    // The mark behind it says that it was synced, and has to go too.
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let len = file.metadata().unwrap().len();
    file.set_len(offset + 20).unwrap();
    file.set_len(len).unwrap();
    drop(file);
    let report = report(&member);
    assert_eq!(report["intact"], true);
    assert_eq!(report["log"]["tornTail"]["segment"], number);
    assert_eq!(report["log"]["tornTail"]["offset"], offset);
    assert!(check(&member).out.contains("note       a torn write of "));
}

#[tokio::test]
async fn damage_of_a_row_is_named_by_its_table() {
    let member = Member::filled(20).await;
    damage(&member.db(), "new value of key7");
    let report = report(&member);
    let problem = &report["problems"][0];
    assert_eq!(problem["place"], "page file");
    // With debug assertions, redb reads the whole tree when it opens a file.
    let table = match cfg!(debug_assertions) {
        true => "page tree",
        false => "revisions",
    };
    assert_eq!(problem["table"], table);
    let what = problem["what"].as_str().unwrap();
    assert!(
        what.starts_with("page at file offset ") && what.contains("checksum"),
        "{what}"
    );
}

#[tokio::test]
async fn a_damaged_superblock_and_a_cut_file_are_named() {
    let member = Member::filled(5).await;
    let whole = std::fs::read(member.db()).unwrap();
    let mut bytes = whole.clone();
    bytes[9] ^= 1;
    std::fs::write(member.db(), bytes).unwrap();
    assert_eq!(report(&member)["problems"][0]["table"], "superblock");
    std::fs::write(member.db(), &whole[..whole.len() - 100]).unwrap();
    assert_eq!(report(&member)["problems"][0]["table"], "superblock");
}

#[tokio::test]
async fn files_of_two_members_do_not_belong_together() {
    let (member, other) = (Member::filled(3).await, Member::new());
    let server = other.start_with_token("another-cluster").await;
    server.stop().await.unwrap();
    std::fs::remove_dir_all(member.wal()).unwrap();
    std::fs::rename(other.wal(), member.wal()).unwrap();
    let report = report(&member);
    let problem = &report["problems"][0];
    assert_eq!(problem["place"], "data directory");
    let what = problem["what"].as_str().unwrap();
    assert!(what.starts_with("the log belongs to member "), "{what}");
}

#[tokio::test]
async fn a_log_that_ends_before_the_page_file_is_named() {
    let member = Member::filled(3).await;
    let old: Vec<_> = member
        .files()
        .into_iter()
        .filter(|(path, _)| path.starts_with(member.wal()))
        .collect();
    let server = member.start().await;
    for n in 0..20 {
        put(&server, "later", &n.to_string()).await;
    }
    server.stop().await.unwrap();
    std::fs::remove_dir_all(member.wal()).unwrap();
    std::fs::create_dir(member.wal()).unwrap();
    for (path, content) in old {
        let mut file = std::fs::File::create(path).unwrap();
        file.write_all(&content).unwrap();
    }
    let report = report(&member);
    let problem = &report["problems"][0];
    assert_eq!(problem["place"], "data directory");
    let what = problem["what"].as_str().unwrap();
    assert!(
        what.starts_with("the page file is as of raft index "),
        "{what}"
    );
}

#[tokio::test]
async fn other_formats_are_refused() {
    let member = Member::filled(1).await;
    for format in ["table", "fields", "protobuf", "xml"] {
        let ran = etcdutl(&["check", "--data-dir", member.text(), "-w", format]);
        let refusal = "Error: unsupported output format\n";
        assert_eq!((ran.code, ran.err.as_str()), (4, refusal), "{format}");
    }
}
