//! Snapshots for clients that read, and for clients that do not.

use ferrite_storage::etcd::{Database, verify_checksum};

use super::*;
use crate::handle::readers::{AHEAD, PIECE};
use crate::handle::snapshot::{Piece, Snapshot};

const ROWS: usize = 3000;
const VALUE: usize = 1000;

async fn snapshot(store: &Store) -> Snapshot {
    let readers = &store.handle.inner.readers;
    Snapshot::of(store.state.backup(), readers).await.unwrap()
}

#[tokio::test]
async fn the_file_is_the_state_of_its_moment() {
    let mut store = Store::filled(ROWS, VALUE);
    store.put("beside", "the page file");
    let mut snapshot = snapshot(&store).await;
    assert_eq!(snapshot.version(), "3.7.0");
    let mut file = Vec::new();
    let mut sum = None;
    while let Some(piece) = snapshot.next().await {
        // The state goes on.
        store.put("later", "1");
        assert_eq!(sum, None, "nothing follows the checksum");
        match piece.unwrap() {
            Piece::Data(piece) => file.extend_from_slice(&piece),
            Piece::Checksum(found) => sum = Some(found),
        }
    }
    assert_eq!(file.len() as u64, snapshot.bytes());
    file.extend_from_slice(&sum.unwrap());
    let disk = SimDisk::new(1);
    let written = disk.create(Path::new("/snapshot")).unwrap();
    written.write_at(&file, 0).unwrap();
    verify_checksum(written.as_ref(), &mut |_, _| {}).unwrap();
    let database = Database::open(written).unwrap();
    assert_eq!(database.faults().unwrap(), Vec::<String>::new());
    let status = database.status(&mut |_, _| {}).unwrap();
    assert_eq!(
        (status.revision, status.total_key),
        (ROWS as i64 + 2, ROWS as u64 + 1)
    );
    until(|| !store.has_pins()).await;
}

#[tokio::test]
async fn who_does_not_read_costs_some_pieces_and_who_leaves_nothing() {
    let store = Store::filled(ROWS, VALUE);
    let mut snapshot = snapshot(&store).await;
    snapshot.next().await.unwrap().unwrap();
    let ahead = || store.handle.inner.readers.bytes_ahead();
    // A leaf of the file is written as a whole.
    let piece = (2 * PIECE) as u64;
    // The piece that was taken is replaced only if it went before the rest was read.
    until(|| ahead() >= ((AHEAD - 1) * PIECE) as u64).await;
    assert!(ahead() <= AHEAD as u64 * piece, "{}", ahead());
    assert!(store.has_pins());
    drop(snapshot);
    until(|| !store.has_pins()).await;
    assert_eq!(ahead(), 0);
}

#[tokio::test]
async fn a_compaction_that_does_not_wait_any_longer_ends_it() {
    let mut store = Store::filled(ROWS, VALUE);
    for number in 0..ROWS {
        store.put(key(number), "again");
    }
    let mut snapshot = snapshot(&store).await;
    store.compact(2 * ROWS as i64);
    store.finish_compaction();
    let end = loop {
        match snapshot.next().await.expect("it has an end") {
            Ok(Piece::Data(_)) => {}
            Ok(Piece::Checksum(_)) => panic!("rows are missing"),
            Err(error) => break error,
        }
    };
    assert_eq!(end.code(), tonic::Code::Aborted);
    assert!(end.message().contains("has overtaken it"), "{end:?}");
    assert!(snapshot.next().await.is_none());
}
