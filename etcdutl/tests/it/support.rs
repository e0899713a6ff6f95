//! A data directory with a history, and the program to look at it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_server::Server;
use ferrite_server::config::{Config, Url};
use tempfile::TempDir;

/// What a run of etcdutl has left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn etcdutl(arguments: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_etcdutl"))
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The data directory of one member.
pub(crate) struct Member {
    dir: TempDir,
}

impl Member {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// With a member in it that has put `keys` keys, each of them twice, deleted the first and
    /// compacted at the revision before that.
    pub(crate) async fn filled(keys: usize) -> Self {
        let member = Self::new();
        let server = member.start().await;
        for round in ["old", "new"] {
            for key in 0..keys {
                put(
                    &server,
                    &format!("key{key}"),
                    &format!("{round} value of key{key}"),
                )
                .await;
            }
        }
        let delete = pb::DeleteRangeRequest {
            key: Bytes::from_static(b"key0"),
            ..pb::DeleteRangeRequest::default()
        };
        let deleted = server.handle().delete_range(delete).await.unwrap();
        let compaction = pb::CompactionRequest {
            revision: deleted.header.unwrap().revision - 1,
            physical: true,
        };
        server.handle().compact(compaction).await.unwrap();
        server.stop().await.unwrap();
        member
    }

    /// Starts the member.
    pub(crate) async fn start(&self) -> Server {
        self.start_with_token("etcd-cluster").await
    }

    /// Starts the member; a new one gets its ids from the token.
    pub(crate) async fn start_with_token(&self, token: &str) -> Server {
        let any = vec![Url::parse("http://127.0.0.1:0").unwrap()];
        let config = Config {
            data_dir: self.dir.path().to_owned(),
            listen_client_urls: any.clone(),
            listen_peer_urls: any,
            initial_cluster_token: token.to_owned(),
            ..Config::default()
        };
        Server::start(config).await.unwrap()
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn text(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    pub(crate) fn db(&self) -> PathBuf {
        self.path().join("member/snap/db")
    }

    pub(crate) fn wal(&self) -> PathBuf {
        self.path().join("member/wal")
    }

    /// The oldest segment of the log, and its number.
    pub(crate) fn first_segment(&self) -> (PathBuf, u64) {
        let entries = std::fs::read_dir(self.wal()).unwrap();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "wal"));
        paths.sort();
        let path = paths.swap_remove(0);
        let number = path.file_stem().unwrap().to_str().unwrap();
        let number = u64::from_str_radix(number, 16).unwrap();
        (path, number)
    }

    /// Every file with its content.
    pub(crate) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut directories = vec![self.path().to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else {
                    let content = std::fs::read(&path).unwrap();
                    files.insert(path, content);
                }
            }
        }
        files
    }
}

pub(crate) async fn put(server: &Server, key: &str, value: &str) {
    let put = pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..pb::PutRequest::default()
    };
    server.handle().put(put).await.unwrap();
}

/// Flips a bit of every place in a file that holds `text`; there must be one.
pub(crate) fn damage(path: &Path, text: &str) {
    let mut bytes = std::fs::read(path).unwrap();
    let places: Vec<usize> = bytes
        .windows(text.len())
        .enumerate()
        .filter(|(_, window)| *window == text.as_bytes())
        .map(|(at, _)| at)
        .collect();
    assert!(!places.is_empty(), "{text} is not in {}", path.display());
    for at in places {
        bytes[at] ^= 1;
    }
    std::fs::write(path, bytes).unwrap();
}
