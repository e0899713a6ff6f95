//! A state over a simulated disk, driven by hand: apply, checkpoint, restart.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb::{InternalRaftRequest, RequestHeader};
use ferrite_api::pb::membershippb::Member;
use ferrite_api::types::{MemberId, RequestId};
use ferrite_disk::Disk;
use ferrite_disk::sim::SimDisk;
use ferrite_storage::apply::Applied;
use ferrite_storage::apply::outcome::Response;
use ferrite_storage::checkpoint::{Policy, Reason};
use ferrite_storage::members;
use ferrite_storage::membership::{MembershipAction, MembershipChange};
use ferrite_storage::mvcc::hash::KeyValueHash;
use ferrite_storage::page::{ConfState, Initial, MetaUpdate, Options, PageFile, TableWrite};
use ferrite_storage::state::State;
use prost::Message;

pub(crate) const PATH: &str = "/data/db";

/// The state, and the log that it was made from.
pub(crate) struct Harness {
    pub(crate) disk: SimDisk,
    pub(crate) state: State,
    log: Vec<Entry>,
    /// Hashes of the compactions so far.
    pub(crate) hashes: Vec<KeyValueHash>,
}

/// An entry of the log.
#[derive(Clone)]
enum Entry {
    Request(Bytes),
    Membership(Bytes),
}

/// Every member's setting.
pub(crate) const MAX_LEARNERS: usize = 1;

impl Harness {
    /// A member of a cluster of its own.
    pub(crate) fn new() -> Self {
        let member = MemberId::new(7);
        let conf_state = ConfState {
            voters: vec![7],
            ..Default::default()
        };
        let urls = vec!["http://p".to_owned()];
        let members = vec![members::row(&members::unstarted(member, urls))];
        Self::with(conf_state, members)
    }

    /// A member at index 0.
    pub(crate) fn with(conf_state: ConfState, members: Vec<TableWrite>) -> Self {
        let disk = SimDisk::new(1);
        disk.create_dir(Path::new("/data")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let initial = Initial {
            cluster_id: 1,
            member_id: 7,
            meta: MetaUpdate {
                consistent_index: Some(0),
                term: Some(0),
                conf_state: Some(conf_state),
                ..Default::default()
            },
            tables: members,
        };
        let as_disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let page = PageFile::create(&as_disk, Path::new(PATH), options(), &initial).unwrap();
        let state = State::restore(Arc::new(page)).unwrap();
        Self {
            disk,
            state,
            log: Vec::new(),
            hashes: Vec::new(),
        }
    }

    /// Applies one request as the next entry of the log.
    pub(crate) fn apply(
        &mut self,
        request: InternalRaftRequest,
    ) -> Result<Response, ferrite_api::Error> {
        self.apply_as("", 0, request)
    }

    /// As [`Harness::apply`], for a user who was known as of an auth revision.
    pub(crate) fn apply_as(
        &mut self,
        user: &str,
        auth_revision: u64,
        mut request: InternalRaftRequest,
    ) -> Result<Response, ferrite_api::Error> {
        let index = self.log.len() as u64 + 1;
        request.header = Some(RequestHeader {
            id: index,
            username: user.to_owned(),
            auth_revision,
        });
        let entry = Bytes::from(request.encode_to_vec());
        self.log.push(Entry::Request(entry.clone()));
        let Applied {
            request, result, ..
        } = self.state.apply(index, 1, &entry).unwrap().unwrap();
        assert_eq!(request.get(), index);
        result
    }

    /// Applies one change of the membership as the next entry of the log.
    pub(crate) fn change(
        &mut self,
        action: MembershipAction,
    ) -> Result<Response, ferrite_api::Error> {
        let index = self.log.len() as u64 + 1;
        let request = RequestId::new(index);
        let entry = MembershipChange { request, action }.encode();
        self.log.push(Entry::Membership(entry.clone()));
        let applied = apply_change(&mut self.state, index, &entry);
        assert_eq!(applied.request, request);
        applied.result
    }

    /// Runs one job if one is due, and prunes.
    pub(crate) fn checkpoint(&mut self, remove_rows: usize) -> bool {
        let policy = Policy {
            max_bytes: usize::MAX,
            remove_rows,
            ..Policy::default()
        };
        if let Some(hash) = self.state.next_hash() {
            let hash = self.state.finish_hash(hash.run()).unwrap();
            self.hashes
                .push(hash.expect("nothing removes rows under it"));
        }
        let Some(job) = self.state.next_job(&policy, Reason::Aged) else {
            return false;
        };
        self.state.finish_job(job.run()).unwrap();
        self.state.prune_step(2);
        true
    }

    /// A member that has applied the same log up to an index, and done nothing else.
    pub(crate) fn replayed(&self, upto: u64) -> Self {
        let mut other = Self::new();
        other.log = self.log[..upto as usize].to_vec();
        replay(&other.log, &mut other.state);
        other
    }

    /// Applies the rest of this log to another state.
    pub(crate) fn replay_to(&self, state: &mut State) {
        replay(&self.log, state);
    }

    /// Drops everything in memory, restores the page file, replays the log after it.
    pub(crate) fn restart(&mut self) {
        let replaced = Harness::new();
        let Harness {
            disk, state, log, ..
        } = std::mem::replace(self, replaced);
        drop(state);
        let mut state = restored(&disk);
        replay(&log, &mut state);
        *self = Harness {
            disk,
            state,
            log,
            hashes: Vec::new(),
        };
    }
}

/// Applies what follows in the log.
fn replay(log: &[Entry], state: &mut State) {
    for index in state.applied().get() + 1..=log.len() as u64 {
        match &log[index as usize - 1] {
            Entry::Request(entry) => drop(state.apply(index, 1, entry).unwrap()),
            Entry::Membership(entry) => drop(apply_change(state, index, entry)),
        }
    }
}

/// The state that the page file on a disk holds.
pub(crate) fn restored(disk: &SimDisk) -> State {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let page = PageFile::open(&disk, Path::new(PATH), options()).unwrap();
    State::restore(Arc::new(page)).unwrap()
}

fn apply_change(state: &mut State, index: u64, entry: &Bytes) -> Applied {
    let change = MembershipChange::decode(entry).unwrap();
    let applied = state.apply_membership(index, 1, &change, MAX_LEARNERS);
    if applied.result.is_ok() {
        // As Raft would have it.
        let ids = |members: &mut dyn Iterator<Item = &Member>| members.map(|at| at.id).collect();
        let conf_state = ConfState {
            voters: ids(&mut state.members().voters()),
            learners: ids(&mut state.members().learners()),
            ..Default::default()
        };
        state.set_conf_state(conf_state);
    }
    applied
}

pub(crate) fn options() -> Options {
    Options {
        cache_bytes: 1 << 20,
        ..Options::default()
    }
}
