//! `snapshot status`, `snapshot restore` and `migrate`, on snapshots of a member of Ferrite. What
//! etcd's own files become is seen by `robustness`' scenario `interchange`, which needs an etcd.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_server::Server;
use ferrite_server::config::{Config, Url};
use ferrite_server::handle::snapshot::Piece;
use tempfile::TempDir;

use crate::support::{Member, Ran, etcdutl, put};

const PEER: &str = "http://127.0.0.1:1";

async fn save(server: &Server) -> Vec<u8> {
    let (mut snapshot, mut file) = (server.handle().snapshot().await.unwrap(), Vec::new());
    while let Some(piece) = snapshot.next().await {
        match piece.unwrap() {
            Piece::Data(piece) => file.extend_from_slice(&piece),
            Piece::Checksum(sum) => file.extend_from_slice(&sum),
        }
    }
    file
}

/// A member's snapshot, the revision of which is 22, with 9 keys; HashKV at it.
struct Saved {
    dir: TempDir,
    hash: u32,
}

const REVISION: i64 = 22;

impl Saved {
    async fn new() -> Self {
        let member = Member::filled(10).await;
        let server = member.start().await;
        let hash = hash(&server).await;
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("snapshot"), save(&server).await).unwrap();
        server.stop().await.unwrap();
        Self { dir, hash }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Restores the file of this name to a directory of that name.
    fn restore(&self, file: &str, to: &str, flags: &[&str]) -> Ran {
        let (file, to) = (self.path(file), self.path(to));
        let [file, to] = [&file, &to].map(|path| path.to_str().unwrap());
        let cluster = format!("default={PEER}");
        let given = [
            "snapshot",
            "restore",
            file,
            "--data-dir",
            to,
            "--initial-cluster",
            &cluster,
        ];
        let given = [&given[..], &["--initial-advertise-peer-urls", PEER], flags].concat();
        etcdutl(&given)
    }

    fn refused(&self, file: &str, to: &str, flags: &[&str], text: &str) {
        let ran = self.restore(file, to, flags);
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{}", ran.err);
        let last = ran.err.lines().last().unwrap();
        assert!(last.starts_with(&format!("Error: {text}")), "{}", ran.err);
        assert!(!self.path(to).exists());
    }
}

async fn hash(server: &Server) -> u32 {
    let request = pb::HashKvRequest { revision: 0 };
    server.handle().hash_kv(request).await.unwrap().hash
}

/// Starts a member of this data directory.
async fn start(dir: &Path, wal_dir: Option<PathBuf>) -> Server {
    try_start(dir, wal_dir).await.unwrap()
}

async fn try_start(
    dir: &Path,
    wal_dir: Option<PathBuf>,
) -> Result<Server, ferrite_server::server::Error> {
    let any = vec![Url::parse("http://127.0.0.1:0").unwrap()];
    let config = Config {
        data_dir: dir.to_owned(),
        wal_dir,
        listen_client_urls: any.clone(),
        listen_peer_urls: any,
        ..Config::default()
    };
    Server::start(config).await
}

#[tokio::test]
async fn a_snapshot_becomes_a_member_with_the_same_history() {
    let saved = Saved::new().await;
    std::fs::create_dir(saved.path("empty")).unwrap();
    for (to, wal_dir) in [("new", None), ("empty", None), ("apart", Some("log"))] {
        let wal_dir = wal_dir.map(|name| saved.path(name));
        let flag = wal_dir.as_ref().map(|path| path.to_str().unwrap());
        let flags: Vec<&str> = flag.iter().flat_map(|path| ["--wal-dir", *path]).collect();
        let ran = saved.restore("snapshot", to, &flags);
        assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{}", ran.err);
        let lines = [
            "\trestoring snapshot\t{",
            "\tadded member\t{",
            "\trestored snapshot\t{",
        ];
        for (line, text) in ran.err.lines().zip(lines) {
            assert!(line.contains(text), "{}", ran.err);
        }
        let server = start(&saved.path(to), wal_dir).await;
        assert_eq!(
            (server.handle().revision(), hash(&server).await),
            (REVISION, saved.hash)
        );
        put(&server, "new", "1").await;
        assert_eq!(server.handle().revision(), REVISION + 1);
        server.stop().await.unwrap();
        // Never over what is there.
        let ran = saved.restore("snapshot", to, &[]);
        let text = "\" not empty or could not be read\n";
        assert!(ran.code == 1 && ran.err.ends_with(text), "{}", ran.err);
    }
    saved.refused(
        "snapshot",
        "other",
        &["--wal-dir", saved.path("log").to_str().unwrap()],
        "wal-dir \"",
    );
}

#[tokio::test]
async fn a_snapshot_has_the_hash_of_its_member() {
    let saved = Saved::new().await;
    let path = saved.path("snapshot");
    let hash = |flags: &[&str]| {
        let ran = etcdutl(&[&["hashkv", path.to_str().unwrap()], flags].concat());
        (ran.code, ran.out + &ran.err)
    };
    let line = format!("{}, {REVISION}, {}\n", saved.hash, REVISION - 1);
    assert_eq!(hash(&[]), (0, line));
    for (revision, text) in [("1", "has been compacted"), ("23", "is a future revision")] {
        let error = format!("Error: mvcc: required revision {text}\n");
        assert_eq!(hash(&["--rev", revision]), (1, error));
    }
}

#[tokio::test]
async fn a_raised_revision_is_compacted() {
    let saved = Saved::new().await;
    let ran = saved.restore(
        "snapshot",
        "new",
        &["--bump-revision", "1000", "--mark-compacted"],
    );
    assert_eq!(ran.code, 0, "{}", ran.err);
    let server = start(&saved.path("new"), None).await;
    assert_eq!(server.handle().revision(), REVISION + 1000);
    let old = pb::RangeRequest {
        key: Bytes::from_static(b"key1"),
        revision: REVISION,
        ..pb::RangeRequest::default()
    };
    let error = server.handle().list(old).await.err().unwrap();
    let text = "etcdserver: mvcc: required revision has been compacted";
    assert_eq!(error.message(), text);
    put(&server, "new", "1").await;
    assert_eq!(server.handle().revision(), REVISION + 1001);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_damaged_is_refused_and_leaves_nothing() {
    let saved = Saved::new().await;
    let whole = std::fs::read(saved.path("snapshot")).unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(saved.path(name), bytes).unwrap();
    let mut flipped = whole.clone();
    flipped[20_000] ^= 1;
    write("flipped", &flipped);
    write("cut", &whole[..whole.len() - 512]);
    write("bare", &whole[..whole.len() - 32]);
    write("text", &[b'x'; 8192]);
    let missing = "snapshot missing hash but --skip-hash-check=false";
    let skip = &["--skip-hash-check"][..];
    for (file, flags, text) in [
        ("flipped", &[][..], "expected sha256 ["),
        ("cut", &[], "expected sha256 ["),
        ("cut", skip, "file is cut: it has "),
        ("bare", &[], missing),
        ("text", skip, "invalid database"),
        ("none", &[], "open "),
        (
            "snapshot",
            &["--name", "other"],
            "couldn't find local name \"other\"",
        ),
    ] {
        saved.refused(file, "new", flags, text);
    }
    // Nor would what a killed one has left be an obstacle.
    std::fs::create_dir_all(saved.path("new").join("member.restoring/snap")).unwrap();
    std::fs::write(saved.path("new").join("member.restoring/snap/db"), "half").unwrap();
    // A member that began there would begin without what was to be restored.
    let refused = try_start(&saved.path("new"), None).await.unwrap_err();
    assert!(
        refused.to_string().contains("a restore was cut off here"),
        "{refused}"
    );
    let ran = saved.restore("bare", "new", skip);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let server = start(&saved.path("new"), None).await;
    assert_eq!(hash(&server).await, saved.hash);
    server.stop().await.unwrap();

    for file in ["flipped", "cut", "text", "none"] {
        let ran = etcdutl(&["snapshot", "status", saved.path(file).to_str().unwrap()]);
        // A flipped bit of a value is only seen in the hash.
        assert_eq!(
            ran.code,
            i32::from(file != "flipped"),
            "{file}: {}",
            ran.err
        );
    }
}

#[tokio::test]
async fn the_status_of_a_snapshot_in_every_format() {
    let saved = Saved::new().await;
    let path = saved.path("snapshot");
    let bytes = std::fs::metadata(&path).unwrap().len() - 32;
    let status = |format: &str| {
        let ran = etcdutl(&["snapshot", "status", path.to_str().unwrap(), "-w", format]);
        (ran.code, ran.out + &ran.err)
    };
    let (code, json) = status("json");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(code, 0);
    let hash = json["hash"].as_u64().unwrap();
    let rest = [&json["revision"], &json["totalKey"], &json["totalSize"]];
    let expected = [u64::try_from(REVISION).unwrap(), 9, bytes];
    assert_eq!(rest.map(|number| number.as_u64().unwrap()), expected);
    let (_, simple) = status("simple");
    let begin = format!("{hash:x}, {REVISION}, 9, ");
    assert!(
        simple.starts_with(&begin) && simple.ends_with(" kB, 3.7.0\n"),
        "{simple}"
    );
    let (_, fields) = status("fields");
    let expected = format!(
        "\"Hash\" : {hash}\n\"Revision\" : {REVISION}\n\"Keys\" : 9\n\"Size\" : {bytes}\n\
         \"Version\" : 3.7.0\n"
    );
    assert_eq!(fields, expected);
    let (_, table) = status("table");
    assert!(table.contains(" │ REVISION │ TOTAL KEYS │ "), "{table}");
    let (code, refusal) = status("protobuf");
    assert_eq!(code, 4);
    assert!(
        refusal.starts_with("Error: marshal unsupported for type snapshot.Status ({"),
        "{refusal}"
    );
}

#[tokio::test]
async fn a_directory_that_is_not_etcds_is_not_migrated() {
    let member = Member::filled(2).await;
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("new");
    let to = to.to_str().unwrap();
    let ran = etcdutl(&["migrate", "--from-etcd", member.text(), "--data-dir", to]);
    assert_eq!(ran.code, 1);
    assert_eq!(ran.err, "Error: invalid database\n");
    let none = dir.path().join("none");
    let ran = etcdutl(&[
        "migrate",
        "--from-etcd",
        none.to_str().unwrap(),
        "--data-dir",
        to,
    ]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.starts_with("Error: stat "), "{}", ran.err);
    assert!(!dir.path().join("new").exists());
}
