//! A member on a simulated disk: the production code from bootstrap to apply, driven by hand in one
//! thread. What its shell does with threads happens here inline and in order; what it sends to other
//! members is kept for whoever plays the network.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ferrite_api::Version;
use ferrite_api::pb::etcdserverpb::{InternalRaftRequest, RequestHeader};
use ferrite_api::types::MemberId;
use ferrite_disk::sim::SimDisk;
use ferrite_disk::wal::{self, Wal};
use ferrite_disk::{Disk, DiskLock};
use ferrite_raft::BallotFile;
use ferrite_server::bootstrap::{self, Origin};
use ferrite_server::lessor;
use ferrite_server::member::{
    Effects, Fatal, Incoming, Input, Member, Options, Outgoing, Published, Reply,
};
use ferrite_server::peer::{Message, Peer};
use ferrite_server::quota::Quota;
use ferrite_server::request_id::RequestIds;
use ferrite_storage::checkpoint::{CompactionHash, Job, Policy};
use ferrite_storage::membership::MembershipChange;
use ferrite_storage::page;
use ferrite_storage::snapshot::{self, Import};
use prost::Message as _;

/// What a tick stands for.
pub const TICK: Duration = Duration::from_millis(100);

/// Small sizes, so that a short script sees every event.
pub fn bootstrap_options() -> bootstrap::Options {
    bootstrap::Options {
        data_dir: PathBuf::from("/data/default.etcd"),
        wal_dir: None,
        origin: Origin::New {
            name: "default".to_owned(),
            members: BTreeMap::from([(
                "default".to_owned(),
                vec!["http://localhost:2380".to_owned()],
            )]),
            token: "etcd-cluster".to_owned(),
        },
        election_ticks: 10,
        pre_vote: true,
        seed: 1,
        page: page::Options {
            cache_bytes: 1 << 20,
            ..page::Options::default()
        },
        wal: wal::Options {
            segment_bytes: 16 << 10,
            spare_segments: 1,
        },
        entry_cache_bytes: 4 << 10,
        force_new_cluster: false,
        defrag_threshold: 0,
        release: Version::RELEASE,
    }
}

/// Likewise.
pub fn member_options() -> Options {
    Options {
        request_ticks: 70,
        election_ticks: 10,
        checkpoint_ticks: 3,
        checkpoint: Policy {
            max_bytes: 8 << 10,
            remove_rows: 5,
            rebuild_bytes: 1 << 10,
        },
        snapshot_count: 20,
        catchup_entries: 5,
        max_learners: 1,
        strict_reconfig_check: true,
        urgent_revocations: false,
        quota: Quota { bytes: -1 },
        name: "default".to_owned(),
        client_urls: vec!["http://localhost:2379".to_owned()],
        release: Version::RELEASE,
        version_ticks: 40,
        downgrade_check_ticks: 50,
        token_ttl: Duration::from_secs(300),
        lessor: lessor::Options {
            election_timeout: 10 * TICK,
            min_ttl: 1,
            retry: 70 * TICK,
            checkpoint_interval: None,
        },
    }
}

/// Why a simulated member ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not start.
    #[error(transparent)]
    Boot(#[from] bootstrap::Error),
    /// It could not go on.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

/// A member and its shell in one thread.
#[derive(Debug)]
pub struct SimMember {
    member: Member<u64>,
    published: Arc<Published>,
    wal: Wal,
    ballots: BallotFile,
    ids: RequestIds,
    /// What the member's clock shows.
    time: Duration,
    next_waiter: u64,
    replies: Vec<(u64, Reply)>,
    /// The other members, once the member has said who they are.
    peers: Vec<Peer>,
    sent: Vec<(MemberId, Message)>,
    snapshots: Vec<Outgoing>,
    disk: Arc<dyn Disk>,
    page_path: PathBuf,
    /// A job that was handed out; it runs after everything else of a step, as a thread would.
    job: Option<Job>,
    /// Likewise a hash.
    hash: Option<CompactionHash>,
    _lock: Box<dyn DiskLock>,
}

impl SimMember {
    /// Starts a member on `disk`, laying its data directory out if it is new. `incarnation` stands
    /// for the time of the start: later starts need larger ones.
    ///
    /// # Errors
    /// As a real member's start.
    pub fn boot(disk: &SimDisk, incarnation: u64) -> Result<Self, Error> {
        Self::boot_with(disk, incarnation, member_options())
    }

    /// As [`SimMember::boot`], with other knobs.
    ///
    /// # Errors
    /// As a real member's start.
    pub fn boot_with(disk: &SimDisk, incarnation: u64, options: Options) -> Result<Self, Error> {
        Self::boot_as(disk, incarnation, &bootstrap_options(), options)
    }

    /// As [`SimMember::boot_with`], as any member of any cluster.
    ///
    /// # Errors
    /// As a real member's start.
    pub fn boot_as(
        disk: &SimDisk,
        incarnation: u64,
        bootstrap: &bootstrap::Options,
        options: Options,
    ) -> Result<Self, Error> {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let restored = bootstrap::restore(&disk, bootstrap)?;
        let id = restored.state.member_id();
        // Ids of the member's own requests; the clients' are another range.
        let own = Arc::new(RequestIds::new(id, incarnation));
        let ids = RequestIds::new(MemberId::new(id.get() ^ 0xc11e), incarnation);
        let (member, published) = Member::new(restored.driver, restored.state, options, own);
        let mut sim = Self {
            member,
            published,
            wal: restored.wal,
            ballots: restored.ballots,
            ids,
            time: Duration::ZERO,
            next_waiter: 0,
            replies: Vec::new(),
            peers: Vec::new(),
            sent: Vec::new(),
            snapshots: Vec::new(),
            page_path: bootstrap::page_path(bootstrap),
            disk,
            job: None,
            hash: None,
            _lock: restored.lock,
        };
        sim.carry_out()?;
        Ok(sim)
    }

    /// Proposes a request. Its reply comes under the number returned.
    ///
    /// # Errors
    /// The member cannot go on.
    pub fn propose(&mut self, mut request: InternalRaftRequest) -> Result<u64, Error> {
        let id = self.ids.next();
        request.header = Some(RequestHeader {
            id: id.get(),
            ..RequestHeader::default()
        });
        let payload = Bytes::from(request.encode_to_vec());
        self.next_waiter += 1;
        let waiter = self.next_waiter;
        self.member
            .step(Input::Propose {
                id,
                payload,
                urgent: false,
                waiter,
            })
            .map_err(Error::from)?;
        Ok(waiter)
    }

    /// Proposes a change of the membership.
    ///
    /// # Errors
    /// The member cannot go on.
    pub fn change_members(&mut self, change: MembershipChange) -> Result<u64, Error> {
        self.next_waiter += 1;
        let waiter = self.next_waiter;
        self.member.step(Input::ChangeMembers { change, waiter })?;
        Ok(waiter)
    }

    /// Asks for a view that is fresh enough for a linearizable read.
    ///
    /// # Errors
    /// The member cannot go on.
    pub fn read(&mut self) -> Result<u64, Error> {
        self.next_waiter += 1;
        let waiter = self.next_waiter;
        let error = |error: ferrite_api::Error| Reply::Failed(error.into());
        match self.member.reads().read(waiter) {
            Ok(does) => {
                self.sent.extend(does.send);
                self.replies.extend(does.replies);
            }
            Err(refused) => self.replies.push((waiter, error(refused))),
        }
        Ok(waiter)
    }

    /// Hands messages of another member over.
    ///
    /// # Errors
    /// The member cannot go on.
    pub fn deliver(&mut self, from: MemberId, messages: Vec<Message>) -> Result<(), Error> {
        self.member.step(Input::Peer { from, messages })?;
        Ok(())
    }

    /// Says whether another member can be reached.
    ///
    /// # Errors
    /// The member cannot go on.
    pub fn reachable(&mut self, peer: MemberId, reachable: bool) -> Result<(), Error> {
        self.member.step(Input::Reachable { peer, reachable })?;
        Ok(())
    }

    /// Takes what is to be sent to other members.
    pub fn sent(&mut self) -> Vec<(MemberId, Message)> {
        std::mem::take(&mut self.sent)
    }

    /// Takes the snapshots that are to be sent to other members.
    pub fn snapshots(&mut self) -> Vec<Outgoing> {
        std::mem::take(&mut self.snapshots)
    }

    /// Takes a snapshot in that another member sends. Whether this one wanted it.
    ///
    /// # Errors
    /// The member cannot go on.
    pub fn receive(&mut self, outgoing: Outgoing) -> Result<bool, Error> {
        let Outgoing {
            message,
            mut export,
            ..
        } = outgoing;
        self.next_waiter += 1;
        let (offered, waiter) = (message.clone(), self.next_waiter);
        self.member.step(Input::SnapshotOffered {
            message: offered,
            waiter,
        })?;
        self.carry_out()?;
        if !self.takes(waiter) {
            return Ok(false);
        }
        let state = self.member.state();
        let (member, cluster) = (state.member_id().get(), state.cluster_id().get());
        let (disk, options) = (Arc::clone(&self.disk), bootstrap_options().page);
        let mut import =
            Import::begin(disk, &self.page_path, options, member, cluster).map_err(Fatal::from)?;
        while let Some(piece) = export.next_piece().map_err(Fatal::from)? {
            import.piece(piece).map_err(Fatal::from)?;
        }
        let received = Box::new(import.finish().map_err(Fatal::from)?);
        self.next_waiter += 1;
        let (snapshot, waiter) = (Incoming { message, received }, self.next_waiter);
        self.member
            .step(Input::SnapshotReceived { snapshot, waiter })?;
        self.carry_out()?;
        Ok(self.takes(waiter))
    }

    fn takes(&mut self, waiter: u64) -> bool {
        let replies = std::mem::take(&mut self.replies).into_iter();
        let (own, others): (Vec<_>, Vec<_>) = replies.partition(|(number, _)| *number == waiter);
        self.replies = others;
        matches!(&own[..], [(_, Reply::Done)])
    }

    /// Says what became of a snapshot.
    ///
    /// # Errors
    /// The member cannot go on.
    pub fn snapshot_sent(&mut self, to: MemberId, taken: bool) -> Result<(), Error> {
        self.member.step(Input::SnapshotSent { to, taken })?;
        Ok(())
    }

    /// The other members.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// Lets a heartbeat interval pass.
    ///
    /// # Errors
    /// The member cannot go on.
    pub fn tick(&mut self) -> Result<(), Error> {
        self.time += TICK;
        self.member.step(Input::Tick)?;
        self.carry_out()
    }

    /// Carries out everything that is to be done, the job last.
    ///
    /// # Errors
    /// The member cannot go on.
    pub fn carry_out(&mut self) -> Result<(), Error> {
        while self.carry_out_one_job()? {}
        Ok(())
    }

    /// As [`SimMember::carry_out`], up to the end of the first job. Whether there is more to do.
    ///
    /// # Errors
    /// The member cannot go on.
    pub fn carry_out_one_job(&mut self) -> Result<bool, Error> {
        self.member.advance(self.time);
        self.effects()?;
        if let Some(job) = self.job.take() {
            let done = job.run();
            self.member.step(Input::JobDone(done))?;
        } else if let Some(hash) = self.hash.take() {
            self.member.step(Input::HashDone(hash.run()))?;
        } else {
            return Ok(self.member.busy());
        }
        Ok(true)
    }

    /// Asks for a defragmentation.
    ///
    /// # Errors
    /// The member cannot go on.
    pub fn defragment(&mut self) -> Result<u64, Error> {
        self.next_waiter += 1;
        let (path, waiter) = (self.page_path.clone(), self.next_waiter);
        self.member.step(Input::Defragment { path, waiter })?;
        Ok(waiter)
    }

    fn effects(&mut self) -> Result<(), Error> {
        loop {
            let Effects {
                peers,
                send,
                snapshots,
                install,
                replies,
                job,
                hash,
                append,
                release_before,
                recovered,
            } = self.member.effects()?;
            if let Some(peers) = peers {
                self.peers = peers.peers;
            }
            self.sent.extend(send);
            self.snapshots.extend(snapshots);
            if install {
                snapshot::commit(&self.disk, &self.page_path).map_err(Fatal::from)?;
                self.member.installed();
            }
            self.replies.extend(replies);
            if job.is_some() {
                self.job = job;
            }
            if hash.is_some() {
                self.hash = hash;
            }
            if recovered {
                self.ballots.recovered().map_err(Fatal::from)?;
            }
            if let Some(segment) = release_before {
                self.wal.release_before(segment).map_err(Fatal::from)?;
            }
            let Some(append) = append else {
                match install {
                    true => continue,
                    false => return Ok(()),
                }
            };
            match self.wal.append(&append.records, &mut || append.head()) {
                Ok(positions) => {
                    if append.must_sync {
                        self.wal.sync().map_err(Fatal::from)?;
                    }
                    if let Some(promise) = append.promise {
                        self.ballots.promise(promise).map_err(Fatal::from)?;
                    }
                    self.member.appended(append.ticket, &positions);
                }
                Err(error) if error.is_no_space() => {
                    self.member.append_refused(append);
                    return Ok(());
                }
                Err(error) => return Err(Fatal::from(error).into()),
            }
        }
    }

    /// Takes the replies that have come.
    pub fn replies(&mut self) -> Vec<(u64, Reply)> {
        std::mem::take(&mut self.replies)
    }

    /// The member.
    pub fn member(&self) -> &Member<u64> {
        &self.member
    }

    /// What it publishes.
    pub fn published(&self) -> &Published {
        &self.published
    }

    /// The log.
    pub fn wal(&self) -> &Wal {
        &self.wal
    }
}
