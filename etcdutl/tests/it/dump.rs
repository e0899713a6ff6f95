//! `dump-db` and `dump-log`.

use crate::support::{Member, damage, etcdutl};

#[tokio::test]
async fn the_page_file_is_shown_table_by_table() {
    let member = Member::filled(3).await;
    let dump = |arguments: &[&str]| {
        let ran = etcdutl(&[&["dump-db", "--data-dir", member.text()], arguments].concat());
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        ran.out
    };
    let tables = dump(&[]);
    for line in [
        "revisions        4 rows\n",
        "members          1 rows\n",
        "\n  revision             8\n",
        "\n  scheduled compaction 7\n",
    ] {
        assert!(tables.contains(line), "{line} is not in {tables}");
    }
    let rows = dump(&["revisions"]);
    assert_eq!(
        rows,
        "rev={Revision:{Main:5 Sub:0} tombstone:false}, value=[key \"key0\" | val \"new value of key0\" | created 2 | mod 5 | ver 2]\n\
         rev={Revision:{Main:6 Sub:0} tombstone:false}, value=[key \"key1\" | val \"new value of key1\" | created 3 | mod 6 | ver 2]\n\
         rev={Revision:{Main:7 Sub:0} tombstone:false}, value=[key \"key2\" | val \"new value of key2\" | created 4 | mod 7 | ver 2]\n\
         rev={Revision:{Main:8 Sub:0} tombstone:true}, value=[key \"key0\"]\n"
    );
    assert_eq!(dump(&["revisions", "--limit", "2"]).lines().count(), 2);
    assert_eq!(
        dump(&["cluster"]),
        "key=\"clusterVersion\", value=\"3.7.0\"\n"
    );
    let members = dump(&["members"]);
    assert!(members.starts_with("member ID="), "{members}");
    assert!(members.contains("learner=false\n"), "{members}");

    let ran = etcdutl(&["dump-db", "--data-dir", member.text(), "nothing"]);
    assert_eq!(
        (ran.code, ran.err.as_str()),
        (1, "Error: there is no table nothing\n")
    );
}

#[tokio::test]
async fn rows_before_damage_are_shown() {
    let member = Member::filled(300).await;
    damage(&member.db(), "new value of key290");
    let ran = etcdutl(&["dump-db", "--data-dir", member.text(), "revisions"]);
    assert_eq!(ran.code, 1);
    // With debug assertions, redb reads the whole tree when it opens a file.
    let (shown, table) = match cfg!(debug_assertions) {
        true => (false, "page tree"),
        false => (true, "revisions"),
    };
    assert_eq!(
        ran.out.contains("new value of key5\""),
        shown,
        "{}",
        ran.out
    );
    let named = format!("Error: page file: corrupt {table}: ");
    assert!(ran.err.starts_with(&named), "{}", ran.err);
}

#[tokio::test]
async fn the_log_is_shown_entry_by_entry() {
    let member = Member::filled(3).await;
    let dump = |arguments: &[&str]| {
        let ran = etcdutl(&[&["dump-log", "--data-dir", member.text()], arguments].concat());
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        ran.out
    };
    let all = dump(&[]);
    assert!(all.starts_with("term\t     index\ttype\tdata\n"), "{all}");
    let put = all
        .lines()
        .find(|line| line.contains("put:{key:\"key1\" value:\"new value of key1\"}"))
        .unwrap();
    let index = put.split('\t').nth(1).unwrap().trim();
    assert!(all.contains("delete_range:{key:\"key0\"}"), "{all}");
    assert!(
        all.contains("compaction:{revision:7 physical:true}"),
        "{all}"
    );
    assert!(all.contains("\nmember "), "{all}");

    let next = (index.parse::<u64>().unwrap() + 1).to_string();
    let one = dump(&["--start-index", index, "--end-index", &next]);
    let shown: Vec<&str> = one
        .lines()
        .take_while(|line| !line.is_empty())
        .skip(1)
        .collect();
    assert_eq!(shown, [put]);
    assert!(one.ends_with(", 1 shown\n"), "{one}");

    let raw = dump(&["--raw"]);
    let (_, number) = member.first_segment();
    let first = raw.lines().next().unwrap();
    let expected = format!("{number:016x}.wal\t       512\tmetadata member ");
    assert!(first.starts_with(&expected), "{first}");
    for record in ["hard state term ", "truncated index ", "entry "] {
        assert!(raw.contains(record), "{raw}");
    }
}

#[tokio::test]
async fn records_before_damage_are_shown() {
    let member = Member::filled(20).await;
    let (path, _) = member.first_segment();
    damage(&path, "new value of key7");
    let ran = etcdutl(&["dump-log", "--data-dir", member.text()]);
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("new value of key6"), "{}", ran.out);
    assert!(!ran.out.contains("new value of key8"), "{}", ran.out);
    assert!(
        ran.err
            .starts_with("Error: write-ahead log is corrupt: segment "),
        "{}",
        ran.err
    );
}
