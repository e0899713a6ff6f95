//! A stream that is not what was sent is refused, and leaves nothing.

use super::*;
use ferrite_disk::sim::Fault;
use ferrite_storage::page;

/// Nothing of it is taken, and nothing is left of it.
fn assert_refused(stream: &[u8], context: &str) -> String {
    let disk = empty_disk(1);
    match received(&disk, stream, 1000) {
        Ok(received) => panic!("{context}: index {} was taken", received.index),
        Err(error @ Error::Stream { .. }) => {
            assert_eq!(names(&disk), [""; 0], "{context}");
            error.to_string()
        }
        Err(error) => panic!("{context}: {error}"),
    }
}

/// The frames of a stream, and what is before them.
fn frames(stream: &[u8]) -> (&[u8], Vec<&[u8]>) {
    let (preface, mut rest) = stream.split_at(12);
    let mut frames = Vec::new();
    while let Some(len) = rest.get(1..5) {
        let len = u32::from_le_bytes(len.try_into().unwrap()) as usize;
        let (frame, after) = rest.split_at(5 + len);
        frames.push(frame);
        rest = after;
    }
    (preface, frames)
}

#[test]
fn every_flipped_bit_is_noticed() {
    let sent = stream(small().state.export());
    assert!(received(&empty_disk(1), &sent, 7).is_ok());
    for at in 0..sent.len() {
        let mut stream = sent.clone();
        stream[at] ^= 1 << (at % 8);
        assert_refused(&stream, &format!("byte {at}"));
    }
}

#[test]
fn every_end_but_the_end_is_noticed() {
    let sent = stream(small().state.export());
    for len in 0..sent.len() {
        let error = assert_refused(&sent[..len], &format!("{len} bytes"));
        assert!(error.starts_with("snapshot stream: ends early"), "{error}");
    }
    for more in [&b"\0"[..], &sent] {
        let error = assert_refused(&[&sent, more].concat(), "more");
        assert_eq!(error, "snapshot stream: goes on after its end");
    }
}

#[test]
fn frames_that_are_lost_doubled_or_exchanged_are_noticed() {
    let sent = stream(small().state.export());
    let (preface, all) = frames(&sent);
    let joined = |frames: &[&[u8]]| [&[preface], frames].concat().concat();
    assert_eq!(joined(&all), sent);
    assert!(all.len() > 12, "{} frames", all.len());
    for at in 0..all.len() {
        let mut lost = all.clone();
        let frame = lost.remove(at);
        assert_refused(&joined(&lost), &format!("without frame {at}"));
        let mut doubled = all.clone();
        doubled.insert(at, frame);
        assert_refused(&joined(&doubled), &format!("frame {at} twice"));
        for other in at + 1..all.len() {
            let mut exchanged = all.clone();
            exchanged.swap(at, other);
            assert_refused(&joined(&exchanged), &format!("frames {at} and {other}"));
        }
    }
}

#[test]
fn what_is_wrong_is_named() {
    let sent = stream(small().state.export());
    let (preface, all) = frames(&sent);
    let with = |at: usize, frame: &[u8]| {
        let mut frames = all.clone();
        frames[at] = frame;
        [&[preface], &frames[..]].concat().concat()
    };
    let rows: Vec<usize> = (0..all.len()).filter(|at| all[*at][0] == 3).collect();
    let mut row = all[rows[1]].to_vec();
    *row.last_mut().unwrap() ^= 1;
    let error = assert_refused(&with(rows[1], &row), "a row");
    assert!(error.contains("row 4.0 has digest"), "{error}");
    let error = assert_refused(&with(rows[1], all[rows[2]]), "an order");
    assert!(error.contains("comes after row"), "{error}");
    let mut member = all[1].to_vec();
    *member.last_mut().unwrap() ^= 1;
    let error = assert_refused(&with(1, &member), "a member");
    assert!(error.contains("checksum"), "{error}");

    let disk = empty_disk(1);
    let other = Import::begin(as_disk(&disk), Path::new(PATH), options(), MEMBER, 2);
    let error = other.unwrap().piece(Bytes::from(sent)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "snapshot stream: is of cluster 1, this member belongs to cluster 2"
    );
    assert_eq!(names(&disk), [""; 0]);
}

#[test]
fn an_import_that_failed_stays_failed() {
    let mut sent = stream(small().state.export());
    let disk = empty_disk(1);
    let path = Path::new(PATH);
    let mut import = Import::begin(as_disk(&disk), path, options(), MEMBER, CLUSTER).unwrap();
    assert_eq!(names(&disk), ["db.receive"]);
    let good = Bytes::copy_from_slice(&sent);
    sent[0] = b'f';
    import.piece(Bytes::from(sent)).unwrap_err();
    assert_eq!(names(&disk), [""; 0]);
    assert!(import.piece(good).is_err());
    assert!(import.finish().is_err());
}

#[test]
fn a_failing_disk_leaves_the_old_state() {
    let member = small();
    let sent = stream(member.state.export());
    let operations = {
        let disk = member.disk.fork();
        let before = disk.op_count();
        received(&disk, &sent, 1000).unwrap();
        disk.op_count() - before
    };
    for number in 0..operations {
        let disk = member.disk.fork();
        disk.fail_op(disk.op_count() + number, Fault::Io);
        let failed = received(&disk, &sent, 1000);
        // What is done for a later time may fail.
        if let Err(error) = failed {
            assert!(matches!(error, Error::Storage(_)), "{error}");
        }
        disk.clear_faults();
        let path = Path::new(PATH);
        ferrite_storage::snapshot::settle(&as_disk(&disk), path, 0, &options()).unwrap();
        assert_eq!(names(&disk), ["db"], "operation {number}");
        let state = crate::harness::restored(&disk);
        assert_eq!(state.applied().get(), 8);
    }
}

#[test]
fn without_room_there_is_no_snapshot_and_no_harm() {
    let member = small();
    let sent = stream(member.state.export());
    let disk = member.disk.fork();
    disk.set_capacity(Some(disk.used_bytes() + (100 << 10)));
    let refused = received(&disk, &sent, 1000);
    let Err(Error::Storage(ferrite_storage::Error::Page(page::Error::NoSpace { .. }))) = refused
    else {
        panic!("{refused:?}")
    };
    assert_eq!(names(&disk), ["db"]);
}
