//! Snapshots for clients: a file of etcd's, from which the same state can be made.

use ferrite_storage::etcd::{self, Backup, Bump, CHECKSUM_BYTES, Database};
use ferrite_storage::founding::found;
use ferrite_storage::page::{Initial, PageFile};
use ferrite_storage::snapshot::{self, Limits};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::equal::{Step, step};
use super::*;

const SNAPSHOT: &str = "/data/snapshot";
const RESTORED: &str = "/data/db";

fn founding() -> Initial {
    let urls = vec!["http://localhost:2380".to_owned()];
    let members = [("default".to_owned(), urls)].into();
    found("default", &members, "etcd-cluster").unwrap()
}

/// The file as it is sent, with its checksum.
fn file(mut backup: Backup) -> Result<Vec<u8>, Error> {
    let announced = backup.begin()?;
    let mut file = Vec::new();
    while let Some(piece) = backup.next_piece()? {
        assert!(!piece.is_empty());
        file.extend_from_slice(&piece);
    }
    assert_eq!(file.len() as u64, announced);
    assert_eq!(backup.checksum(), <[u8; 32]>::from(Sha256::digest(&file)));
    file.extend_from_slice(&backup.checksum());
    Ok(file)
}

/// A disk that holds the file.
fn disk_with(file: &[u8]) -> SimDisk {
    let disk = empty_disk(2);
    let written = disk.create(Path::new(SNAPSHOT)).unwrap();
    written.write_at(file, 0).unwrap();
    disk
}

fn database(disk: &SimDisk) -> Result<Database, etcd::Error> {
    let file = disk.open(Path::new(SNAPSHOT)).unwrap();
    etcd::verify_checksum(file.as_ref(), &mut |_, _| {})?;
    Database::open(file)
}

fn restored(file: &[u8], bump: u64) -> Result<State, etcd::Error> {
    let disk = disk_with(file);
    let database = database(&disk)?;
    assert_eq!(database.faults()?, Vec::<String>::new());
    let page = etcd::restore(
        &database,
        &as_disk(&disk),
        Path::new(RESTORED),
        options(),
        &founding(),
        Bump { revisions: bump },
        &mut |_, _| {},
    )?;
    drop(page);
    let page = PageFile::open(&as_disk(&disk), Path::new(RESTORED), options())?;
    Ok(State::restore(Arc::new(page))?)
}

/// What a new cluster has of an old one.
fn assert_taken_over(new: &State, old: &State) {
    let founding = founding();
    assert_eq!(new.applied().get(), 1);
    assert_eq!(new.cluster_id().get(), founding.cluster_id);
    let names: Vec<_> = new.members().to_api().into_iter().map(|m| m.name).collect();
    assert_eq!(names, ["default"]);
    assert_eq!(new.members().removed().count(), 0);
    assert_eq!(new.cluster_version(), None);
    assert_eq!(new.alarms(), old.alarms());
    assert_same_data(new, old);
}

/// The file has the hashes of the state.
fn assert_same_hashes(file: &[u8], state: &State) {
    let disk = disk_with(file);
    let database = database(&disk).unwrap();
    let view = state.view();
    for revision in view.compacted.max(1)..=view.revision {
        let hash = Hashing::at(view.clone(), revision).unwrap().run().unwrap();
        assert_eq!(database.hash_kv(revision).unwrap(), hash);
        if revision == view.revision {
            assert_eq!(database.hash_kv(0).unwrap(), hash);
        }
    }
    let refused = |revision: i64| database.hash_kv(revision).unwrap_err().to_string();
    assert!(refused(view.revision + 1).contains("is a future revision"));
    if view.compacted > 1 {
        assert!(refused(view.compacted - 1).contains("has been compacted"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_is_restored_is_what_was_captured(
        steps in prop::collection::vec(step(), 1..120),
        piece_bytes in prop_oneof![Just(1usize), 1usize..100_000],
        step_rows in 1usize..6,
    ) {
        let limits = Limits { piece_bytes, step_rows, ..Limits::default() };
        let mut member = Harness::new();
        let mut sending: Option<(Backup, Vec<u8>)> = None;
        let mut files = Vec::new();
        // In the end another one, without anything beside it.
        for step in steps.into_iter().chain([Step::Export]).chain(vec![Step::Piece; 5000]) {
            match step {
                Step::Apply(request) => drop(member.apply(*request)),
                Step::Compact(offset) => {
                    let revision = member.state.store().revision() + offset;
                    drop(member.apply(compact(revision)));
                }
                Step::Change(action) => drop(member.change(action)),
                Step::Checkpoint(rows) => drop(member.checkpoint(rows)),
                Step::Export => {
                    sending.get_or_insert_with(|| {
                        (member.state.backup().with_limits(limits), Vec::new())
                    });
                }
                Step::Piece => {
                    let Some((mut backup, mut file)) = sending.take() else { continue };
                    match backup.next_piece() {
                        Ok(Some(piece)) => {
                            file.extend_from_slice(&piece);
                            sending = Some((backup, file));
                        }
                        Ok(None) => {
                            file.extend_from_slice(&backup.checksum());
                            files.push((backup.index(), file));
                        }
                        Err(snapshot::Error::Overtaken { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        }
        for (index, file) in files {
            let mut plain = member.replayed(index);
            let mut state = restored(&file, 0).unwrap();
            assert_same_hashes(&file, &plain.state);
            assert_taken_over(&state, &plain.state);
            settle(&mut plain.state);
            settle(&mut state);
            assert_eq!(state.digest(), plain.state.digest());
        }
    }

    #[test]
    fn damage_is_refused(at in any::<prop::sample::Index>(), bit in 0..8u8, cut in any::<bool>()) {
        let whole = file(small().state.backup()).unwrap();
        let mut bytes = whole.clone();
        let at = at.index(bytes.len());
        match cut {
            true => bytes.truncate(at),
            false => bytes[at] ^= 1 << bit,
        }
        assert!(restored(&bytes, 0).is_err());
    }
}

/// A compaction waits for a backup that gets on for longer than for others, but not for one that rests.
#[test]
fn a_compaction_waits_for_a_backup() {
    for rests in [false, true] {
        let mut member = Harness::new();
        for main in 0..50 {
            member.apply(put("k", value(100, main), 0)).unwrap();
        }
        member.checkpoint(1);
        let limits = Limits {
            piece_bytes: 1,
            step_rows: 1,
            ..Limits::default()
        };
        let mut backup = member.state.backup().with_limits(limits);
        backup.next_piece().unwrap().unwrap();
        member.apply(compact(40)).unwrap();
        let mut checkpoints = 0;
        if rests {
            backup.rest();
        }
        while member.state.removed_through() < 40 {
            // Something changes, or there would be no checkpoint.
            member.apply(put("other", value(1, 1), 0)).unwrap();
            member.checkpoint(1000);
            checkpoints += 1;
        }
        match rests {
            true => assert!(checkpoints < 20, "{checkpoints}"),
            false => assert!(checkpoints > 300, "{checkpoints}"),
        }
        // Small buckets come first.
        let end = loop {
            match backup.next_piece() {
                Ok(piece) => assert!(piece.is_some(), "rows are missing"),
                Err(error) => break error,
            }
        };
        assert!(matches!(end, snapshot::Error::Overtaken { .. }), "{end}");
    }
}

#[test]
fn a_revision_can_be_raised_so_that_everything_before_is_compacted() {
    let mut member = small();
    let whole = file(member.state.backup()).unwrap();
    let revision = member.state.store().revision();
    let mut state = restored(&whole, 1000).unwrap();
    assert_eq!(state.store().revision(), revision + 1000);
    assert_eq!(state.store().compacted(), revision + 1000);
    settle(&mut state);
    settle(&mut member.state);
    // What lives, lives as it was.
    let all = RangeRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        ..Default::default()
    };
    let kvs = |state: &State| state.view().range(&all).unwrap().kvs;
    assert_eq!(kvs(&state), kvs(&member.state));
    assert!(restored(&whole, u64::MAX).is_err());
    assert!(restored(&whole, i64::MAX as u64).is_err());
}

#[test]
fn the_sum_of_a_file_counts_keys_that_exist() {
    let mut member = small();
    let whole = file(member.state.backup()).unwrap();
    let disk = disk_with(&whole);
    let status = database(&disk).unwrap().status(&mut |_, _| {}).unwrap();
    assert_eq!(status.revision, member.state.store().revision());
    assert_eq!(status.total_key, member.state.store().index().len());
    assert_eq!(status.total_size, (whole.len() - CHECKSUM_BYTES) as u64);
    assert_eq!(status.version, "3.7.0");
    // Another hash for another content.
    member.apply(delete("c", "")).unwrap();
    let other = disk_with(&file(member.state.backup()).unwrap());
    let other = database(&other).unwrap().status(&mut |_, _| {}).unwrap();
    assert_ne!(other.hash, status.hash);
}
