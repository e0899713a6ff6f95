//! `hashkv`: the hash that the member gives, in every format.

use ferrite_api::pb::etcdserverpb as pb;

use crate::support::{Member, etcdutl};

#[tokio::test]
async fn the_hash_of_an_empty_store_is_etcds() {
    let member = Member::new();
    member.start().await.stop().await.unwrap();
    let ran = etcdutl(&["hashkv", member.db().to_str().unwrap()]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert_eq!(ran.out, "1084519789, 1, -1\n");
}

#[tokio::test]
async fn the_hash_is_the_one_that_the_member_gives() {
    let member = Member::filled(20).await;
    let server = member.start().await;
    let ask = pb::HashKvRequest { revision: 0 };
    let hash = server.handle().hash_kv(ask).await.unwrap();
    server.stop().await.unwrap();
    let (hash, revision, compacted) = (hash.hash, hash.hash_revision, hash.compact_revision);
    assert_eq!((revision, compacted), (42, 41));

    let db = member.db();
    let db = db.to_str().unwrap();
    let before = member.files();
    for (format, expected) in [
        ("simple", format!("{hash}, 42, 41\n")),
        (
            "json",
            format!("{{\"hash\":{hash},\"hashRevision\":42,\"compactRevision\":41}}\n"),
        ),
        (
            "fields",
            format!("\"Hash\" : {hash}\n\"Hash revision\" : 42\n\"Compact revision\" : 41\n"),
        ),
    ] {
        let ran = etcdutl(&["hashkv", db, "-w", format]);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{format}");
        assert_eq!(ran.out, expected);
    }
    let table = etcdutl(&["hashkv", db, "--write-out=table"]).out;
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines[1].contains(" HASH REVISION │ COMPACT REVISION │"),
        "{table}"
    );
    assert!(
        lines[3].ends_with(" │            42 │               41 │"),
        "{table}"
    );
    assert!(member.files() == before, "hashkv has changed a file");
}

#[tokio::test]
async fn revisions_without_a_hash_and_formats_are_refused() {
    let member = Member::filled(20).await;
    let db = member.db();
    let db = db.to_str().unwrap();
    for (arguments, code, message) in [
        (
            &["--rev", "100"][..],
            1,
            "mvcc: required revision is a future revision",
        ),
        (
            &["--rev=40"],
            1,
            "mvcc: required revision has been compacted",
        ),
        (&["-wxml"], 4, "unsupported output format"),
    ] {
        let ran = etcdutl(&[&["hashkv", db], arguments].concat());
        assert_eq!((ran.code, ran.out.as_str()), (code, ""));
        assert_eq!(ran.err, format!("Error: {message}\n"));
    }
    let ran = etcdutl(&["hashkv", db, "-w", "protobuf"]);
    assert_eq!(ran.code, 4);
    let refusal = "Error: marshal unsupported for type etcdutl.HashKV ({";
    assert!(ran.err.starts_with(refusal), "{}", ran.err);
}

#[tokio::test]
async fn a_file_by_itself_needs_no_lock() {
    let member = Member::filled(3).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let copy = elsewhere.path().join("copy");
    std::fs::copy(member.db(), &copy).unwrap();
    let original = etcdutl(&["hashkv", member.db().to_str().unwrap()]);
    let copied = etcdutl(&["hashkv", copy.to_str().unwrap()]);
    assert_eq!((copied.code, copied.out), (0, original.out));
}
