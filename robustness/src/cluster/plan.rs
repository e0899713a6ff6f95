//! What a seed means: the shape of the cluster, the load, the network, the disks, and which faults there are.
//! Each seed has a random subset of them, so that rare combinations come up.

use std::ops::Range;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::queue::Time;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A process dies; what it has written is still there.
    Crash,
    /// A machine loses power: what is not synced is lost, torn, or there.
    PowerLoss,
    /// All machines lose power at once.
    Blackout,
    /// A process stands still.
    Pause,
    /// A member is cut off from all others.
    Isolate,
    /// The members are cut into two parts.
    Split,
    /// Messages pass one way only.
    OneWay,
    /// A link goes down and up again and again.
    Flap,
    /// Every message takes long, for a while.
    Clog,
    /// A disk takes very long.
    SlowDisk,
    /// A disk has no room left.
    FullDisk,
    /// A process dies, and its log is damaged or gone.
    Rot,
    /// A page file is rebuilt.
    Defragment,
    /// Leadership is handed over.
    Transfer,
    /// A process dies, or a machine loses power, just after something important has happened there.
    Ambush,
}

impl Fault {
    const ALL: [Fault; 15] = [
        Fault::Crash,
        Fault::PowerLoss,
        Fault::Blackout,
        Fault::Pause,
        Fault::Isolate,
        Fault::Split,
        Fault::OneWay,
        Fault::Flap,
        Fault::Clog,
        Fault::SlowDisk,
        Fault::FullDisk,
        Fault::Rot,
        Fault::Defragment,
        Fault::Transfer,
        Fault::Ambush,
    ];
}

/// What a seed means.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Voters.
    pub members: usize,
    /// Clients.
    pub clients: usize,
    /// How long faults and load last.
    pub chaos: Time,
    /// Pause of a client between two operations, milliseconds.
    pub think: Range<u64>,
    /// Keys that the clients use.
    pub keys: u32,
    /// What a message takes, microseconds.
    pub delay: Range<u64>,
    /// Out of 1000 messages between members so many are lost.
    pub lost: u32,
    /// Out of 1000 messages between members so many take up to some seconds.
    pub late: u32,
    /// What a write to the log takes, microseconds.
    pub write: Range<u64>,
    /// What a sync of the log takes, microseconds.
    pub sync: Range<u64>,
    /// What a job takes, microseconds.
    pub job: Range<u64>,
    /// Faults that happen.
    pub faults: Vec<Fault>,
    /// Pause between faults, milliseconds.
    pub calm: Range<u64>,
    /// How fast each member's clock runs, millionths.
    pub clock_rates: Vec<u64>,
    /// Whether members come and go.
    pub membership: bool,
    /// Whether a change of the membership that could cost the quorum is refused.
    pub strict: bool,
    /// Ticks between checkpoints.
    pub checkpoint_ticks: u64,
    /// Bytes of recent rows that make a checkpoint due.
    pub checkpoint_bytes: usize,
    /// Rows that one step of a compaction removes.
    pub remove_rows: usize,
    /// Entries between two compactions of the raft log.
    pub snapshot_count: u64,
    /// Entries that these keep.
    pub catchup_entries: u64,
    /// Time between checkpoints of what is left of a lease.
    pub lease_checkpoints: Option<Time>,
    /// Whether campaigns ask first.
    pub pre_vote: bool,
    /// Bytes of entries that a member keeps in memory.
    pub entry_cache: usize,
    /// How many of the first members begin with the program of the version before.
    pub previous: usize,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x706c_616e);
        let rng = &mut rng;
        // Of its own, so that everything else is as it would be without.
        let mut upgrades = StdRng::seed_from_u64(seed ^ 0x6f6c_6465);
        let members = *pick(rng, &[3, 3, 3, 3, 5, 5, 1, 2, 4]);
        let drift = *pick(rng, &[0, 0, 1_000, 50_000, 300_000]);
        let base = *pick(rng, &[100, 500, 2_000, 10_000]);
        let sync = *pick(rng, &[100, 1_000, 10_000]);
        let calm = *pick(rng, &[200, 1_000, 3_000]);
        let faults = Fault::ALL.into_iter().filter(|_| rng.random_bool(0.4));
        let faults = faults.collect();
        Self {
            seed,
            members,
            clients: rng.random_range(2..7),
            chaos: Duration::from_millis(rng.random_range(10_000..30_000)),
            think: 1..*pick(rng, &[10, 50, 200]),
            keys: *pick(rng, &[4, 12, 40]),
            delay: base..base * rng.random_range(2..10),
            lost: *pick(rng, &[0, 0, 5, 50, 200]),
            late: *pick(rng, &[0, 0, 5, 50]),
            write: 10..200,
            sync: sync..sync * 4,
            job: 500..*pick(rng, &[2_000, 50_000, 500_000]),
            faults,
            calm: calm / 4..calm * 2,
            clock_rates: (0..members)
                .map(|_| 1_000_000 + rng.random_range(0..=2 * drift) - drift)
                .collect(),
            membership: rng.random_bool(0.35),
            strict: rng.random(),
            checkpoint_ticks: *pick(rng, &[3, 10, 50]),
            checkpoint_bytes: *pick(rng, &[2 << 10, 8 << 10, 64 << 10]),
            remove_rows: *pick(rng, &[1, 5, 100]),
            snapshot_count: *pick(rng, &[5, 5, 20, 100, 10_000]),
            catchup_entries: *pick(rng, &[0, 0, 5, 20]),
            lease_checkpoints: *pick(rng, &[None, None, Some(Duration::from_secs(1))]),
            pre_vote: rng.random_bool(0.8),
            entry_cache: *pick(rng, &[1 << 10, 4 << 10, 64 << 10]),
            previous: match upgrades.random_bool(0.3) {
                true => upgrades.random_range(1..=members),
                false => 0,
            },
        }
    }

    /// The fastest clock, millionths.
    pub fn fastest(&self) -> u64 {
        self.clock_rates.iter().copied().max().unwrap_or(1_000_000)
    }
}

fn pick<'a, T>(rng: &mut StdRng, from: &'a [T]) -> &'a T {
    from.choose(rng).expect("there is something to choose from")
}
