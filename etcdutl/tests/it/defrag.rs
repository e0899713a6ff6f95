//! `defrag`: less space, the same content.

use ferrite_api::pb::etcdserverpb as pb;

use crate::support::{Member, etcdutl, put};

#[tokio::test]
async fn a_defragmented_directory_holds_the_same_in_less_space() {
    let member = Member::new();
    let server = member.start().await;
    let value = "v".repeat(10_000);
    for _ in 0..300 {
        put(&server, "key", &value).await;
    }
    let compaction = pb::CompactionRequest {
        revision: 301,
        physical: true,
    };
    server.handle().compact(compaction).await.unwrap();
    server.stop().await.unwrap();

    let db = member.db();
    let hash = etcdutl(&["hashkv", db.to_str().unwrap()]).out;
    let before = std::fs::metadata(&db).unwrap().len();
    let ran = etcdutl(&["defrag", "--data-dir", member.text()]);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{}", ran.err);
    let lines: Vec<&str> = ran.err.lines().collect();
    assert_eq!(lines.len(), 2, "{}", ran.err);
    let path = format!(
        "\t{{\"path\": \"{}\", \"current-db-size-bytes",
        db.display()
    );
    assert!(lines[0].contains(&format!(
        "\tinfo\tcommands/defrag.rs\tdefragmenting{path}\": "
    )));
    assert!(lines[1].contains(&format!(
        "\tfinished defragmenting directory{path}-diff\": -"
    )));
    assert!(lines[1].contains("\"took\": \""));
    let after = std::fs::metadata(&db).unwrap().len();
    assert!(after < before / 2, "{before} bytes before, {after} after");
    assert_eq!(etcdutl(&["hashkv", db.to_str().unwrap()]).out, hash);
    let ran = etcdutl(&["check", "--data-dir", member.text()]);
    assert_eq!(ran.code, 0, "{}", ran.out);

    let server = member.start().await;
    let get = pb::RangeRequest {
        key: "key".into(),
        ..pb::RangeRequest::default()
    };
    assert_eq!(server.handle().range(get).await.unwrap().count, 1);
    server.stop().await.unwrap();
}

#[test]
fn a_directory_without_data_is_refused() {
    let member = Member::new();
    let ran = etcdutl(&["defrag", "--data-dir", member.text()]);
    let refusal = format!(
        "Error: Failed to defragment etcd data[{}] (stat {}: no such file or directory)\n",
        member.text(),
        member.db().display()
    );
    assert_eq!((ran.code, ran.err), (1, refusal));
}

#[tokio::test]
async fn a_start_removes_what_a_crash_of_defrag_has_left() {
    let member = Member::filled(3).await;
    let remains = [".rebuild", ".rebuild.tmp"].map(|end| {
        let mut name = member.db().into_os_string();
        name.push(end);
        std::path::PathBuf::from(name)
    });
    for path in &remains {
        std::fs::write(path, "half a file").unwrap();
    }
    member.start().await.stop().await.unwrap();
    for path in &remains {
        assert!(!path.exists(), "{}", path.display());
    }
}
