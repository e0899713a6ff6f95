//! A state over a simulated disk, driven by hand: apply, checkpoint, restart.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb::{InternalRaftRequest, RequestHeader};
use ferrite_api::types::MemberId;
use ferrite_disk::Disk;
use ferrite_disk::sim::SimDisk;
use ferrite_storage::apply::Applied;
use ferrite_storage::apply::outcome::Response;
use ferrite_storage::checkpoint::{Policy, Reason};
use ferrite_storage::members;
use ferrite_storage::mvcc::hash::KeyValueHash;
use ferrite_storage::page::{ConfState, Initial, MetaUpdate, Options, PageFile};
use ferrite_storage::state::State;
use prost::Message;

const PATH: &str = "/data/db";

/// The state, and the log that it was made from.
pub(crate) struct Harness {
    disk: Arc<dyn Disk>,
    pub(crate) state: State,
    log: Vec<Bytes>,
    /// Hashes of the compactions so far.
    pub(crate) hashes: Vec<KeyValueHash>,
}

impl Harness {
    pub(crate) fn new() -> Self {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        disk.create_dir(Path::new("/data")).unwrap();
        let member = MemberId::new(7);
        let initial = Initial {
            cluster_id: 1,
            member_id: member.get(),
            meta: MetaUpdate {
                consistent_index: Some(0),
                term: Some(0),
                conf_state: Some(ConfState {
                    voters: vec![7],
                    ..Default::default()
                }),
                ..Default::default()
            },
            tables: vec![members::row(&members::unstarted(
                member,
                vec!["http://p".to_owned()],
            ))],
        };
        let page = PageFile::create(&disk, Path::new(PATH), options(), &initial).unwrap();
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
        mut request: InternalRaftRequest,
    ) -> Result<Response, ferrite_api::Error> {
        let index = self.log.len() as u64 + 1;
        request.header = Some(RequestHeader {
            id: index,
            ..Default::default()
        });
        let entry = Bytes::from(request.encode_to_vec());
        self.log.push(entry.clone());
        let Applied {
            request, result, ..
        } = self.state.apply(index, 1, &entry).unwrap().unwrap();
        assert_eq!(request.get(), index);
        result
    }

    /// Runs one job if one is due, and prunes.
    pub(crate) fn checkpoint(&mut self, remove_rows: usize) -> bool {
        let policy = Policy {
            max_bytes: usize::MAX,
            remove_rows,
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

    /// Drops everything in memory, restores the page file, replays the log after it.
    pub(crate) fn restart(&mut self) {
        let replaced = Harness::new();
        let Harness {
            disk, state, log, ..
        } = std::mem::replace(self, replaced);
        drop(state);
        let page = PageFile::open(&disk, Path::new(PATH), options()).unwrap();
        let mut state = State::restore(Arc::new(page)).unwrap();
        for index in state.applied().get() + 1..=log.len() as u64 {
            state.apply(index, 1, &log[index as usize - 1]).unwrap();
        }
        *self = Harness {
            disk,
            state,
            log,
            hashes: Vec::new(),
        };
    }
}

fn options() -> Options {
    Options {
        cache_bytes: 1 << 20,
        ..Options::default()
    }
}
