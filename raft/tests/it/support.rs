//! One member: a disk, a WAL, a driver, and the loop that carries effects out.

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ferrite_disk::Disk;
use ferrite_disk::sim::SimDisk;
use ferrite_disk::wal::{self, Position, Record, Wal};
use ferrite_raft::log::{Options, Recovered, create, exists, recover};
use ferrite_raft::{
    Append, Committed, ConfState, Config, Driver, EntryKind, Error, Leadership, Mark, Metadata,
    OutgoingSnapshot, Role, Snapshot, StepError, Ticket,
};
use protobuf::Message as _;
use raft::eraftpb::Message;

pub(crate) const DIR: &str = "data/wal";
pub(crate) const STATE: &str = "data/state";
/// A state that was received and is not in place.
pub(crate) const RECEIVED: &str = "data/received";

pub(crate) fn metadata(id: u64) -> Metadata {
    Metadata {
        cluster_id: 0xc1,
        member_id: id,
    }
}

/// Small segments: a few dozen entries switch.
pub(crate) fn options(cache_bytes: usize) -> Options {
    Options {
        cache_bytes,
        wal: wal::Options {
            segment_bytes: 4096,
            spare_segments: 1,
        },
    }
}

/// What a member has applied, and what of it is in the page file: here the whole list of payloads,
/// replaced atomically.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) payloads: Vec<Bytes>,
    pub(crate) conf: ConfState,
}

impl Applied {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.index.to_le_bytes().to_vec();
        bytes.extend(self.term.to_le_bytes());
        let conf = &self.conf;
        bytes.push(u8::from(conf.auto_leave));
        for list in [
            &conf.voters,
            &conf.learners,
            &conf.voters_outgoing,
            &conf.learners_next,
        ] {
            bytes.extend((list.len() as u32).to_le_bytes());
            list.iter().for_each(|id| bytes.extend(id.to_le_bytes()));
        }
        for payload in &self.payloads {
            bytes.extend((payload.len() as u32).to_le_bytes());
            bytes.extend(payload);
        }
        bytes
    }

    fn decode(mut bytes: &[u8]) -> Applied {
        let mut take = |n: usize| {
            let (head, rest) = bytes.split_at_checked(n)?;
            bytes = rest;
            Some(head)
        };
        let mut applied = Applied::default();
        applied.index = u64::from_le_bytes(take(8).unwrap().try_into().unwrap());
        applied.term = u64::from_le_bytes(take(8).unwrap().try_into().unwrap());
        let conf = &mut applied.conf;
        conf.auto_leave = take(1).unwrap() == [1];
        for list in [
            &mut conf.voters,
            &mut conf.learners,
            &mut conf.voters_outgoing,
            &mut conf.learners_next,
        ] {
            let len = u32::from_le_bytes(take(4).unwrap().try_into().unwrap());
            for _ in 0..len {
                list.push(u64::from_le_bytes(take(8).unwrap().try_into().unwrap()));
            }
        }
        while let Some(len) = take(4) {
            let len = u32::from_le_bytes(len.try_into().unwrap()) as usize;
            applied
                .payloads
                .push(Bytes::copy_from_slice(take(len).unwrap()));
        }
        applied
    }

    /// As consensus knows it.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            index: self.index,
            term: self.term,
            conf_state: self.conf.clone(),
        }
    }

    fn read(disk: &SimDisk, path: &str) -> Option<Applied> {
        let path = Path::new(path);
        let there = disk.exists(path).unwrap();
        there.then(|| Applied::decode(&disk.read(path).unwrap()))
    }

    /// Durably, all of it or nothing.
    fn write(&self, disk: &SimDisk, path: &str) {
        let unfinished = Path::new("data/unfinished");
        if disk.exists(unfinished).unwrap() {
            disk.remove(unfinished).unwrap();
        }
        let file = disk.create(unfinished).unwrap();
        file.write_at(&self.encode(), 0).unwrap();
        file.sync_data().unwrap();
        rename(disk, unfinished, Path::new(path));
    }
}

fn rename(disk: &SimDisk, from: &Path, to: &Path) {
    disk.rename(from, to).unwrap();
    disk.sync_dir(Path::new("data")).unwrap();
}

/// What a turn of the loop gave besides.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) sent: Vec<(u64, Bytes)>,
    pub(crate) committed: Vec<Committed>,
    pub(crate) leaderships: Vec<Leadership>,
    pub(crate) failure: Option<Error>,
    pub(crate) snapshots_wanted: Vec<u64>,
    pub(crate) snapshots: Vec<OutgoingSnapshot>,
    /// Snapshots put in the place of the state.
    pub(crate) installed: Vec<u64>,
    pub(crate) recovered: bool,
}

pub(crate) struct Member {
    pub(crate) disk: SimDisk,
    pub(crate) wal: Wal,
    pub(crate) driver: Driver,
    pub(crate) applied: Applied,
    /// The index that the page file is as of.
    pub(crate) checkpointed: u64,
    /// Written, not synced, not reported.
    pub(crate) unsynced: VecDeque<(Ticket, Vec<Position>)>,
    /// Whether one of them asks for a sync.
    must_sync: bool,
    /// To be put in the place of the state.
    pub(crate) install: Option<Snapshot>,
    /// Everything carried out, as text: for comparing runs.
    pub(crate) trace: Vec<String>,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.driver.fmt(f)
    }
}

/// How a member is started.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) id: u64,
    pub(crate) voters: Vec<u64>,
    pub(crate) learners: Vec<u64>,
    pub(crate) seed: u64,
    /// Where the log begins, and what the state is as of then.
    pub(crate) start: Mark,
    pub(crate) recovering: bool,
    pub(crate) options: Options,
    pub(crate) config: fn(&mut Config),
}

impl Setup {
    pub(crate) fn sole() -> Setup {
        Setup::of(1, &[1])
    }

    pub(crate) fn of(id: u64, voters: &[u64]) -> Setup {
        Setup {
            id,
            voters: voters.to_vec(),
            learners: Vec::new(),
            seed: id,
            start: Mark::default(),
            recovering: false,
            options: options(1 << 20),
            config: |_| {},
        }
    }

    pub(crate) fn cache(mut self, bytes: usize) -> Setup {
        self.options.cache_bytes = bytes;
        self
    }

    /// Starts, or starts again, on what is on the disk.
    pub(crate) fn start(&self, disk: &SimDisk) -> Result<Member, Error> {
        let Opened { log, wal, applied } = self.open(disk)?;
        let mut config = Config::new(self.id, applied.index, applied.conf.clone(), self.seed);
        config.recovering = self.recovering;
        (self.config)(&mut config);
        let driver = Driver::new(config, log)?;
        Ok(Member {
            disk: disk.clone(),
            wal,
            driver,
            checkpointed: applied.index,
            applied,
            unsynced: VecDeque::new(),
            must_sync: false,
            install: None,
            trace: Vec::new(),
        })
    }

    /// Turns a copy of the disk from earlier into one of a member that has lost everything since,
    /// except what it has promised: the term and the vote.
    pub(crate) fn lose_entries(&self, earlier: &SimDisk, term: u64, vote: u64) {
        let shared: Arc<dyn Disk> = Arc::new(earlier.clone());
        let found = recover(shared, Path::new(DIR), &self.options).unwrap();
        let (mut wal, state, mark) = (found.wal, found.hard_state, found.log.mark());
        let kept = record(3, &[term, vote, state.commit]);
        let head = || {
            vec![
                record(1, &[found.metadata.cluster_id, found.metadata.member_id]),
                record(3, &[state.term, state.vote, state.commit]),
                record(4, &[mark.index, mark.term]),
            ]
        };
        wal.append(&[kept], &mut || head()).unwrap();
        wal.sync().unwrap();
    }

    fn open(&self, disk: &SimDisk) -> Result<Opened, Error> {
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let dir = Path::new(DIR);
        // The data directory's own name is not the WAL's business.
        disk.create_dir(Path::new("data"))
            .expect("the disk can make directories");
        disk.sync_dir(Path::new("")).expect("the disk can sync");
        let found = exists(&*shared, dir).expect("the disk can be listed");
        let recovered = match found {
            true => recover(shared, dir, &self.options)?,
            false => create(
                shared,
                dir,
                &self.options,
                metadata(self.id),
                self.start,
                None,
            )?,
        };
        assert_eq!(recovered.metadata, metadata(self.id));
        let Recovered { log, wal, .. } = recovered;
        let mut applied = Applied::read(disk, STATE).unwrap_or_else(|| Applied {
            index: self.start.index,
            term: self.start.term,
            conf: ConfState::new(self.voters.clone(), self.learners.clone()),
            ..Applied::default()
        });
        if let Some(received) = Applied::read(disk, RECEIVED) {
            // The log restarted there, and it was not put in place.
            let unfinished = received.index == log.mark().index && applied.index < received.index;
            match unfinished {
                true => {
                    rename(disk, Path::new(RECEIVED), Path::new(STATE));
                    applied = received;
                }
                false => disk.remove(Path::new(RECEIVED)).unwrap(),
            }
        }
        Ok(Opened { log, wal, applied })
    }
}

struct Opened {
    log: ferrite_raft::RaftLog,
    wal: Wal,
    applied: Applied,
}

impl Member {
    /// Carries everything out, synchronously.
    pub(crate) fn run(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        while self.driver.has_effects() {
            self.turn(&mut outcome);
            self.sync();
            outcome.installed.extend(self.finish_install());
            if outcome.failure.is_some() {
                break;
            }
        }
        outcome
    }

    /// Carries one turn out, except for the sync.
    pub(crate) fn turn(&mut self, outcome: &mut Outcome) {
        let effects = self.driver.effects();
        self.trace.push(format!("{effects:?}"));
        outcome.sent.extend(effects.send);
        outcome.leaderships.extend(effects.leadership);
        outcome.snapshots_wanted.extend(effects.snapshots_wanted);
        outcome.snapshots.extend(effects.snapshots);
        outcome.recovered |= effects.recovered;
        if effects.install.is_some() {
            assert!(self.install.is_none() && effects.committed.is_empty());
            self.install = effects.install;
        }
        outcome.failure = effects.failure.or(outcome.failure.take());
        if let Some(append) = effects.append {
            self.write(append);
        }
        assert!(self.install.is_none() || effects.committed.is_empty());
        self.apply(&effects.committed);
        outcome.committed.extend(effects.committed);
    }

    fn write(&mut self, append: Append) {
        let positions = self
            .wal
            .append(&append.records, &mut || append.head())
            .unwrap();
        self.unsynced.push_back((append.ticket, positions));
        self.must_sync |= append.must_sync;
    }

    /// Syncs what was written, if that is asked for, and reports it.
    pub(crate) fn sync(&mut self) {
        if std::mem::take(&mut self.must_sync) {
            self.wal.sync().unwrap();
        }
        for (ticket, positions) in std::mem::take(&mut self.unsynced) {
            self.driver.persisted(ticket, &positions);
        }
    }

    fn apply(&mut self, committed: &[Committed]) {
        for entry in committed {
            assert_eq!(entry.index, self.applied.index + 1);
            (self.applied.index, self.applied.term) = (entry.index, entry.term);
            match &entry.kind {
                EntryKind::Normal if entry.data.is_empty() => {}
                EntryKind::Normal => self.applied.payloads.push(entry.data.clone()),
                EntryKind::ConfChange(change) => {
                    // A change that raft refuses is refused by every member alike.
                    if let Ok(conf) = self.driver.apply_conf_change(change) {
                        self.applied.conf = conf;
                    }
                }
            }
        }
        if !committed.is_empty() {
            self.driver.applied(self.applied.index);
        }
    }

    /// Makes what was applied durable in the page file.
    pub(crate) fn checkpoint(&mut self) {
        self.applied.write(&self.disk, STATE);
        self.checkpointed = self.applied.index;
    }

    /// Receives a snapshot, durably, and tells raft. Whether raft takes it.
    pub(crate) fn receive(&mut self, message: &Bytes, body: &Applied) -> Result<bool, StepError> {
        let snapshot = self.driver.check_snapshot(message)?;
        assert_eq!(snapshot, body.snapshot());
        if self.driver.status().installing {
            // The place is taken, and raft refuses.
            return self.driver.install_snapshot(message);
        }
        if self.driver.needs_snapshot(&snapshot) {
            body.write(&self.disk, RECEIVED);
        }
        let needed = self.driver.needs_snapshot(&snapshot);
        let taken = self.driver.install_snapshot(message)?;
        assert!(needed || !taken);
        if needed && !taken {
            self.disk.remove(Path::new(RECEIVED)).unwrap();
        }
        Ok(taken)
    }

    /// Puts a snapshot that is ready for it in the place of the state.
    pub(crate) fn finish_install(&mut self) -> Option<u64> {
        let snapshot = self.install.take()?;
        rename(&self.disk, Path::new(RECEIVED), Path::new(STATE));
        self.applied = Applied::read(&self.disk, STATE).unwrap();
        assert_eq!(self.applied.snapshot(), snapshot);
        self.checkpointed = snapshot.index;
        self.driver.installed(snapshot.index);
        assert_eq!(self.driver.conf_state(), &snapshot.conf_state);
        Some(snapshot.index)
    }

    /// Compacts, carries the mark out, and releases what is no longer needed.
    pub(crate) fn compact(&mut self, to: u64) -> Outcome {
        self.driver.compact(to);
        let outcome = self.run();
        self.wal
            .release_before(self.driver.releasable_before())
            .unwrap();
        outcome
    }

    /// Leads, as a sole voter does at boot.
    pub(crate) fn lead(&mut self) -> Outcome {
        self.driver.campaign();
        let outcome = self.run();
        assert_eq!(self.driver.status().role, Role::Leader);
        outcome
    }

    pub(crate) fn propose(&mut self, payload: impl Into<Bytes>) {
        self.driver.propose(payload.into()).unwrap();
    }
}

/// A record of numbers, as `log/record.rs` describes it.
pub(crate) fn record(kind: u8, numbers: &[u64]) -> Record {
    let payload: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    Record {
        kind,
        payload: payload.into(),
    }
}

pub(crate) fn message(bytes: &Bytes) -> Message {
    Message::parse_from_carllerche_bytes(bytes).unwrap()
}

pub(crate) fn encode(message: &Message) -> Bytes {
    message.write_to_bytes().unwrap().into()
}

/// A payload that says its number and has a length.
pub(crate) fn payload(number: u64, len: usize) -> Bytes {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(len.max(8), b'.');
    bytes.into()
}

/// For schedules.
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}
