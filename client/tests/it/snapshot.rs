//! Snapshots in files.

use std::path::Path;

use ferrite_client::{Client, Error, SaveError};
use ferrite_fake::Fake;
use sha2::{Digest, Sha256};
use tonic::Status;

use crate::client_of;

/// A database of whole sectors, and its checksum.
fn database() -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..4096_u32).map(|index| index as u8).collect();
    let checksum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&checksum);
    bytes
}

async fn save(client: &Client, path: &Path) -> Result<u64, SaveError> {
    client.maintenance().snapshot().await?.save(path).await
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.expect("an entry").file_name();
    entries
        .map(|entry| name(entry).to_string_lossy().into_owned())
        .collect()
}

#[tokio::test]
async fn a_whole_snapshot_is_kept_and_replaces_an_older_one() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("backup.db");
    std::fs::write(&path, "older").expect("written");
    fake.set_snapshot(database());
    let bytes = save(&client, &path).await.expect("saved");
    assert_eq!(bytes, 4096 + 32);
    assert!(std::fs::read(&path).expect("a file") == database());
    assert_eq!(names(directory.path()), ["backup.db"]);
}

#[tokio::test]
async fn what_is_not_whole_leaves_the_older_one() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("backup.db");
    std::fs::write(&path, "older").expect("written");
    let mut cut = database();
    cut.truncate(4096);
    let mut flipped = database();
    flipped[100] ^= 1;
    for bytes in [Vec::new(), vec![0; 31], vec![0; 32], cut, flipped] {
        let sent = bytes.len() as u64;
        fake.set_snapshot(bytes);
        match save(&client, &path).await.expect_err("not whole") {
            SaveError::Cut { bytes } => assert!(bytes == sent && sent % 512 != 32),
            SaveError::Damaged { bytes } => assert!(bytes == sent && sent % 512 == 32),
            other => panic!("{other}"),
        }
        assert_eq!(std::fs::read(&path).expect("a file"), b"older");
        assert_eq!(names(directory.path()), ["backup.db"]);
    }
}

#[tokio::test]
async fn a_place_that_cannot_be_written_is_named() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    fake.set_snapshot(database());
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("missing").join("backup.db");
    let error = save(&client, &path).await.expect_err("no directory");
    assert!(error.to_string().contains("backup.db.part"), "{error}");
}

#[tokio::test]
async fn a_member_that_is_unavailable_is_asked_again() {
    let fake = Fake::start(1);
    let client = client_of(&[&fake]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("backup.db");
    fake.set_snapshot(database());
    fake.fail_with([Status::unavailable("later"), Status::unavailable("later")]);
    save(&client, &path).await.expect("the third time");
    fake.fail_with([Status::permission_denied("no")]);
    let error = save(&client, &path).await.expect_err("refused");
    assert!(
        matches!(error, SaveError::Call(Error::Status(_))),
        "{error}"
    );
}
