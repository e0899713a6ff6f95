//! Snapshots from one member to another: what arrives is what was sent, as of one entry; or nothing.

mod backup;
mod crash;
mod damage;
mod equal;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb::alarm_request::AlarmAction;
use ferrite_api::pb::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, DeleteRangeRequest, InternalRaftRequest,
    LeaseCheckpoint, LeaseCheckpointRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest,
    RangeRequest,
};
use ferrite_api::pb::membershippb::ClusterVersionSetRequest;
use ferrite_api::types::MemberId;
use ferrite_disk::Disk;
use ferrite_disk::sim::SimDisk;
use ferrite_storage::checkpoint::{Policy, Reason};
use ferrite_storage::members;
use ferrite_storage::membership::MembershipAction;
use ferrite_storage::mvcc::hash::Hashing;
use ferrite_storage::snapshot::{Error, Export, Import, Received};
use ferrite_storage::state::State;

use crate::harness::{Harness, PATH, options};

/// The cluster of every [`Harness`].
const CLUSTER: u64 = 1;
/// The member that receives.
const MEMBER: u64 = 9;

fn put(key: &str, value: Bytes, lease: i64) -> InternalRaftRequest {
    InternalRaftRequest {
        put: Some(PutRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value,
            lease,
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn delete(key: &str, range_end: &str) -> InternalRaftRequest {
    InternalRaftRequest {
        delete_range: Some(DeleteRangeRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            range_end: Bytes::copy_from_slice(range_end.as_bytes()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn compact(revision: i64) -> InternalRaftRequest {
    InternalRaftRequest {
        compaction: Some(CompactionRequest {
            revision,
            physical: false,
        }),
        ..Default::default()
    }
}

fn grant(id: i64) -> InternalRaftRequest {
    InternalRaftRequest {
        lease_grant: Some(LeaseGrantRequest { id, ttl: 60 }),
        ..Default::default()
    }
}

fn revoke(id: i64) -> InternalRaftRequest {
    InternalRaftRequest {
        lease_revoke: Some(LeaseRevokeRequest { id }),
        ..Default::default()
    }
}

fn lease_checkpoint(id: i64, remaining_ttl: i64) -> InternalRaftRequest {
    let checkpoints = vec![LeaseCheckpoint { id, remaining_ttl }];
    InternalRaftRequest {
        lease_checkpoint: Some(LeaseCheckpointRequest { checkpoints }),
        ..Default::default()
    }
}

fn alarm(action: AlarmAction) -> InternalRaftRequest {
    InternalRaftRequest {
        alarm: Some(AlarmRequest {
            action: action as i32,
            member_id: 7,
            alarm: AlarmType::Nospace as i32,
        }),
        ..Default::default()
    }
}

fn version(ver: &str) -> InternalRaftRequest {
    let ver = ver.to_owned();
    InternalRaftRequest {
        cluster_version_set: Some(ClusterVersionSetRequest { ver }),
        ..Default::default()
    }
}

fn add(id: u64) -> MembershipAction {
    let urls = vec![format!("http://{id}")];
    MembershipAction::Add {
        member: members::unstarted(MemberId::new(id), urls),
    }
}

fn remove(id: u64) -> MembershipAction {
    let id = MemberId::new(id);
    MembershipAction::Remove { id }
}

/// The value of a put; long ones have many parts.
fn value(len: usize, seed: u64) -> Bytes {
    (0..len as u64)
        .map(|at| (seed.wrapping_mul(at + 1) >> 3) as u8)
        .collect()
}

/// A member with a little of everything, in the page file and beside it.
fn small() -> Harness {
    let mut member = Harness::new();
    for request in [
        version("3.7.0"),
        grant(5),
        grant(-6),
        put("a", value(10, 1), 5),
        put("b", value(3000, 2), 0),
        put("a", value(10, 3), 0),
        delete("b", ""),
        lease_checkpoint(-6, 17),
    ] {
        member.apply(request).unwrap();
    }
    member.checkpoint(10);
    member.change(add(8)).unwrap();
    member.change(add(9)).unwrap();
    member.change(remove(8)).unwrap();
    for request in [
        put("c", value(20, 4), -6),
        put("a", value(2, 5), 0),
        compact(4),
        alarm(AlarmAction::Activate),
        delete("a", "b"),
    ] {
        member.apply(request).unwrap();
    }
    member
}

fn all_pieces(mut export: Export) -> Result<Vec<Bytes>, Error> {
    let mut pieces = Vec::new();
    while let Some(piece) = export.next_piece()? {
        assert!(!piece.is_empty());
        pieces.push(piece);
    }
    assert!(export.next_piece()?.is_none());
    Ok(pieces)
}

fn stream(export: Export) -> Vec<u8> {
    all_pieces(export).unwrap().concat()
}

/// A disk with nothing but the directory of the page file.
fn empty_disk(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    let dir = Path::new(PATH).parent().unwrap();
    disk.create_dir(dir).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

fn as_disk(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

fn names(disk: &SimDisk) -> Vec<String> {
    let dir = Path::new(PATH).parent().unwrap();
    let entries = disk.list(dir).unwrap().into_iter();
    entries.map(|entry| entry.name).collect()
}

/// Receives a stream that comes in pieces of so many bytes.
fn received(disk: &SimDisk, stream: &[u8], piece: usize) -> Result<Received, Error> {
    let path = Path::new(PATH);
    let mut import = Import::begin(as_disk(disk), path, options(), MEMBER, CLUSTER)?;
    for piece in stream.chunks(piece) {
        import.piece(Bytes::copy_from_slice(piece))?;
    }
    import.finish()
}

/// Runs a job if one is due.
fn checkpoint(state: &mut State) -> bool {
    let policy = Policy::default();
    if let Some(hash) = state.next_hash() {
        state.finish_hash(hash.run()).unwrap();
    }
    match state.next_job(&policy, Reason::Aged) {
        Some(job) => {
            state.finish_job(job.run()).unwrap();
            true
        }
        None => false,
    }
}

/// Does everything that is due, until every row that is doomed is gone.
fn settle(state: &mut State) {
    while checkpoint(state) || state.prune_step(100) {}
    assert!(!state.compacting());
}

/// Two members show the same to everybody.
fn assert_equal(one: &State, other: &State) {
    assert_eq!(one.applied(), other.applied());
    assert_eq!(one.applied_term(), other.applied_term());
    assert_eq!(one.cluster_id(), other.cluster_id());
    assert_eq!(one.members(), other.members());
    assert_eq!(one.conf_state(), other.conf_state());
    assert_eq!(one.alarms(), other.alarms());
    assert_eq!(one.cluster_version(), other.cluster_version());
    assert_same_data(one, other);
}

/// Two members show the same keys and leases, at every revision.
fn assert_same_data(one: &State, other: &State) {
    let leases = |state: &State| {
        let leases = state.leases().iter().map(|(id, lease)| {
            let keys = state.leases().keys(id).map(<[u8]>::to_vec);
            (id, lease, keys.collect::<Vec<_>>())
        });
        leases.collect::<Vec<_>>()
    };
    assert_eq!(leases(one), leases(other));
    let (one, other) = (one.view(), other.view());
    assert_eq!(
        (one.revision, one.compacted),
        (other.revision, other.compacted)
    );
    for revision in one.compacted.max(1)..=one.revision {
        let all = RangeRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            revision,
            ..Default::default()
        };
        assert_eq!(one.range(&all).unwrap(), other.range(&all).unwrap());
        let [one, other] = [&one, &other].map(|view| {
            let hashing = Hashing::at(view.clone(), revision).unwrap();
            hashing.run().unwrap()
        });
        assert_eq!(one, other);
    }
}
