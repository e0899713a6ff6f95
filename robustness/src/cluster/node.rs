//! A machine with a member on it: its disk, its clock, and the process while it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ferrite_api::Version;
use ferrite_api::types::MemberId;
use ferrite_disk::Disk;
use ferrite_disk::sim::{PowerLoss, SimDisk};
use ferrite_disk::wal::{Position, Record};
use ferrite_raft::log::{self, Logged};
use ferrite_server::bootstrap::{self, Origin, member_id};
use ferrite_server::member::{Options, Others, Published};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;

use super::log::Log;
use super::mutant::Mutant;
use super::plan::Plan;
use super::queue::Time;
use super::shell::Shell;
use crate::sim::{bootstrap_options, member_options};

/// The program of the version before.
const PREVIOUS: Version = Version::new(3, 6, 11);

/// Salt of the ids.
const TOKEN: &str = "simulation";

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It dies; what it has written is still there.
    Crash,
    /// The machine loses power.
    PowerLoss,
}

/// A machine.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: MemberId,
    pub(super) disk: SimDisk,
    pub(super) shell: Option<Shell>,
    /// Whether it has been, or is about to be, started for the first time.
    pub(super) born: bool,
    /// Whether its member was removed, and it knows.
    pub(super) retired: bool,
    /// How often it has started; messages and events of earlier lives mean nothing.
    pub(super) life: u64,
    booted: Time,
    /// How fast its clock runs, millionths.
    rate: u64,
    /// The process does not run before this time.
    pub(super) paused: Time,
    /// The disk is slow until this time.
    pub(super) slow: Time,
    /// The disk has no room left.
    full: bool,
    /// The log was damaged, and nobody has started since.
    pub(super) damaged: bool,
    /// It was, and what it held, which has not come back yet.
    pub(super) lost: Option<Log>,
    /// When the next turn is planned.
    pub(super) turn_at: Option<Time>,
    /// Who the other members are, as the process was told.
    pub(super) roster: Others,
    /// Members that it has heard of by their calls: it may lag behind and not know them otherwise.
    pub(super) remotes: BTreeSet<MemberId>,
    /// Who has told it that it was removed.
    pub(super) told_removed: BTreeSet<usize>,
    /// Which others it believes that it can reach.
    pub(super) reaches: BTreeSet<usize>,
    /// Everything handed out for the log, durable or not.
    pub(super) log: Log,
    /// What the log must have after a power loss.
    pub(super) promised: Log,
    /// The append that is not durable yet.
    pub(super) under_way: Vec<Record>,
    /// Who voted, as far as it was looked at.
    pub(super) voters: Vec<u64>,
    /// Entries applied, as far as they were looked at.
    pub(super) applied: u64,
    /// The store revision, as far as it was looked at.
    pub(super) revision: i64,
    bootstrap: bootstrap::Options,
    options: Options,
    mutant: Option<Mutant>,
}

/// The machines of the first members.
pub(super) fn machines(plan: &Plan, mutant: Option<Mutant>) -> Vec<Node> {
    let urls = |n: usize| vec![format!("http://m{n}:2380")];
    let all: BTreeMap<_, _> = (0..plan.members)
        .map(|n| (format!("m{n}"), urls(n)))
        .collect();
    let machine = |n: usize| {
        let mut node = Node::new(plan, n, member_id(&urls(n), TOKEN), mutant);
        node.born = true;
        if n < plan.previous {
            node.install(PREVIOUS);
        }
        node.join(Origin::New {
            name: format!("m{n}"),
            members: all.clone(),
            token: TOKEN.to_owned(),
        });
        node
    };
    (0..plan.members).map(machine).collect()
}

impl Node {
    /// A machine that has not been started.
    pub(super) fn new(plan: &Plan, n: usize, id: MemberId, mutant: Option<Mutant>) -> Self {
        let mut bootstrap = bootstrap_options();
        bootstrap.pre_vote = plan.pre_vote;
        bootstrap.entry_cache_bytes = plan.entry_cache;
        let mut options = member_options();
        options.name = format!("m{n}");
        options.client_urls = vec![format!("http://m{n}:2379")];
        options.checkpoint_ticks = plan.checkpoint_ticks;
        options.checkpoint.max_bytes = plan.checkpoint_bytes;
        options.checkpoint.remove_rows = plan.remove_rows;
        options.snapshot_count = plan.snapshot_count;
        options.catchup_entries = plan.catchup_entries;
        options.lessor.checkpoint_interval = plan.lease_checkpoints;
        options.strict_reconfig_check = plan.strict;
        Self {
            id,
            disk: SimDisk::new(plan.seed.wrapping_mul(31).wrapping_add(n as u64)),
            shell: None,
            born: false,
            retired: false,
            life: 0,
            booted: Time::ZERO,
            rate: plan.clock_rates[n % plan.clock_rates.len()],
            paused: Time::ZERO,
            slow: Time::ZERO,
            full: false,
            damaged: false,
            lost: None,
            turn_at: None,
            roster: Others {
                peers: Vec::new(),
                removed: Vec::new(),
            },
            remotes: BTreeSet::new(),
            told_removed: BTreeSet::new(),
            reaches: BTreeSet::new(),
            log: Log::default(),
            promised: Log::default(),
            under_way: Vec::new(),
            voters: Vec::new(),
            applied: 0,
            revision: 0,
            bootstrap,
            options,
            mutant,
        }
    }

    /// Says what the member begins with.
    pub(super) fn join(&mut self, origin: Origin) {
        self.bootstrap.origin = origin;
    }

    /// Has the program of a version from the next start on.
    pub(super) fn install(&mut self, release: Version) {
        self.bootstrap.release = release;
        self.options.release = release;
    }

    /// The version of its program.
    pub(super) fn release(&self) -> Version {
        self.options.release
    }

    /// Whether its transport knows this member.
    pub(super) fn knows(&self, id: MemberId) -> bool {
        self.roster.peers.iter().any(|peer| peer.id == id) || self.remotes.contains(&id)
    }

    /// What the process's clock shows.
    pub(super) fn clock(&self, now: Time) -> Duration {
        let real = (now - self.booted).as_micros() * u128::from(self.rate) / 1_000_000;
        Duration::from_micros(u64::try_from(real).unwrap_or(u64::MAX))
    }

    /// When the process's clock shows `clock`, or just after.
    pub(super) fn when(&self, clock: Duration) -> Time {
        let real = (clock.as_micros() * 1_000_000).div_ceil(u128::from(self.rate)) + 1;
        self.booted + Duration::from_micros(u64::try_from(real).unwrap_or(u64::MAX))
    }

    /// What the process shows to whoever serves clients.
    pub(super) fn published(&self) -> Option<&Arc<Published>> {
        self.shell.as_ref().map(|shell| &shell.published)
    }

    /// Starts the process.
    pub(super) fn boot(&mut self, now: Time, seed: u64) -> anyhow::Result<()> {
        self.life += 1;
        self.booted = now;
        self.paused = Time::ZERO;
        self.turn_at = None;
        self.roster = Others {
            peers: Vec::new(),
            removed: Vec::new(),
        };
        self.reaches.clear();
        self.remotes.clear();
        self.told_removed.clear();
        self.bootstrap.seed = seed;
        // Milliseconds, as in a real start; a later start comes later.
        let incarnation = 1_000_000 + now.as_millis() as u64 + self.life;
        let shell = Shell::boot(
            &self.disk,
            incarnation,
            &self.bootstrap,
            self.options.clone(),
            self.mutant,
        )?;
        let state = shell.member.state();
        if !shell.member.driver().status().recovering {
            self.lost = None;
        }
        self.applied = state.applied().get();
        self.revision = state.store().revision();
        self.voters
            .clone_from(&shell.member.driver().conf_state().voters);
        self.shell = Some(shell);
        Ok(())
    }

    /// Leaves the disk only so many more bytes; `None`: as many as it wants.
    pub(super) fn set_room(&mut self, bytes: Option<u64>) {
        self.full = bytes.is_some();
        let used = self.disk.used_bytes();
        self.disk.set_capacity(bytes.map(|bytes| used + bytes));
    }

    /// Whether the disk has no room left, or little.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Starts the process, and lets it die while it does.
    pub(super) fn boot_in_vain(&mut self, rng: &mut StdRng) {
        self.disk.start_recording();
        let started = Shell::boot(
            &self.disk,
            0,
            &self.bootstrap,
            self.options.clone(),
            self.mutant,
        );
        let mut done = self.disk.history();
        let at = rng.random_range(0..=done.len());
        self.disk.crash();
        drop(started);
        self.disk = match rng.random() {
            true => done.fork_at(at),
            false => done.power_loss_at(at, PowerLoss::Random(rng.random())),
        };
    }

    /// Ends the process, perhaps in the middle of what the disk was about to do. Whether it was.
    pub(super) fn end(&mut self, how: End, rng: &mut StdRng) -> bool {
        let Some(mut shell) = self.shell.take() else {
            return false;
        };
        let mut within = false;
        if rng.random_bool(0.5) {
            self.disk.start_recording();
            shell.begin_disk_work();
            let mut done = self.disk.history();
            let at = rng.random_range(0..=done.len());
            within = 0 < at && at < done.len();
            self.disk.crash();
            self.disk = done.fork_at(at);
        } else {
            self.disk.crash();
        }
        // What it would still write is not written any more.
        drop(shell);
        if how == End::PowerLoss {
            let policy = match rng.random_range(0..4) {
                0 => PowerLoss::LoseAll,
                1 => PowerLoss::KeepAll,
                _ => PowerLoss::Random(rng.random()),
            };
            self.disk = self.disk.power_loss(policy);
        }
        within
    }

    /// What the log on the disk holds, read from a copy.
    pub(super) fn read_log(&self) -> anyhow::Result<Log> {
        let mut found = Log::default();
        self.visit_log(&mut |_, logged| found.read(logged))?;
        Ok(found)
    }

    /// Shows the records of the log, if there is one.
    fn visit_log(&self, visit: &mut dyn FnMut(Position, Logged)) -> anyhow::Result<()> {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.fork());
        let dir = self.log_dir();
        if !log::exists(disk.as_ref(), &dir)? {
            return Ok(());
        }
        let options = log::Options {
            cache_bytes: self.bootstrap.entry_cache_bytes,
            wal: self.bootstrap.wal.clone(),
        };
        log::recover_watched(disk, &dir, &options, visit)?;
        Ok(())
    }

    fn log_dir(&self) -> PathBuf {
        self.bootstrap.data_dir.join("member/wal")
    }

    /// Damages a record that others follow, which cannot be taken for torn, or removes the whole log.
    /// The process is down.
    pub(super) fn damage_log(&mut self, rng: &mut StdRng) -> anyhow::Result<()> {
        let mut places = Vec::new();
        self.visit_log(&mut |position, _| places.push(position))?;
        let pairs = places.iter().zip(places.iter().skip(1));
        let followed = pairs.filter(|(place, next)| place.segment == next.segment);
        let dir = self.log_dir();
        match followed.choose(rng) {
            Some((place, next)) if rng.random_bool(0.8) => {
                let file = dir.join(format!("{:016x}.wal", place.segment));
                let offset = rng.random_range(place.offset..next.offset);
                self.disk.flip_bit(&file, offset, rng.random_range(0..8))?;
            }
            _ => {
                for entry in self.disk.list(&dir)? {
                    self.disk.remove(&dir.join(entry.name))?;
                }
                self.disk.sync_dir(&dir)?;
            }
        }
        self.damaged = true;
        self.lost = Some(self.promised.clone());
        Ok(())
    }
}
