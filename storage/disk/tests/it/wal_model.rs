//! Random runs against the simplest model of a log: a list.

use std::collections::BTreeMap;

use ferrite_disk::sim::{PowerLoss, SimDisk};
use ferrite_disk::wal::{Error, Options, Position};
use proptest::prelude::*;

use crate::support::{Opened, append, create, entry, open};

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<usize>),
    Sync,
    Mark,
    /// Releases all but so many segments.
    ReleaseAllBut(u64),
    PrepareSpare(u64),
    /// Ends the process, cleanly or not is the same, and opens with segments of so many pages.
    Reopen(u64),
    /// Loses the power and opens.
    PowerLoss(u64),
    /// The disk has room for so many more pages while this batch is appended.
    AppendOnFullDisk(u64, Vec<usize>),
    /// Reads everything back.
    Read,
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![8 => 0usize..200, 3 => 200usize..2000, 1 => 2000usize..20_000];
    let lens = prop::collection::vec(len, 1..10);
    prop_oneof![
        10 => lens.clone().prop_map(Step::Append),
        6 => Just(Step::Sync),
        1 => Just(Step::Mark),
        2 => (1u64..4).prop_map(Step::ReleaseAllBut),
        1 => (1u64..20_000).prop_map(Step::PrepareSpare),
        1 => (1u64..6).prop_map(Step::Reopen),
        2 => any::<u64>().prop_map(Step::PowerLoss),
        1 => (0u64..4, lens).prop_map(|(pages, lens)| Step::AppendOnFullDisk(pages, lens)),
        1 => Just(Step::Read),
    ]
}

/// What the log should hold.
#[derive(Default)]
struct Model {
    /// Every entry by number: life, length, position.
    entries: BTreeMap<u64, (u8, usize, Position)>,
    synced: u64,
    /// Rises with every power loss, so that entries dropped by one are told from their successors.
    life: u8,
}

impl Model {
    fn next(&self) -> u64 {
        self.entries
            .last_key_value()
            .map_or(self.synced, |(number, _)| number + 1)
    }

    fn appended(&mut self, lens: &[usize], positions: &[Position]) {
        for (&len, &position) in lens.iter().zip(positions) {
            self.entries
                .insert(self.next(), (self.life, len.max(9), position));
        }
    }

    /// Takes over what a reopened log shows, which must be what was appended, and at least what was synced.
    fn reopened(&mut self, opened: &Opened) -> Result<(), TestCaseError> {
        let end = opened.numbers().end;
        for shown in &opened.entries {
            let expected = self.entries.get(&shown.number);
            prop_assert_eq!(expected, Some(&(shown.life, shown.len, shown.position)));
        }
        if let Some((&oldest, _)) = self.entries.first_key_value() {
            let shown = opened.entries.first();
            prop_assert!(self.synced <= oldest || shown.is_some_and(|one| one.number == oldest));
        }
        // Unless what was synced has been released, and only the rest could show where the log ends.
        let any_synced = self.entries.range(..self.synced).next().is_some();
        prop_assert!(self.synced <= end || !any_synced);
        self.entries.split_off(&end.max(self.synced));
        self.synced = self.next();
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_log_is_a_list(
        steps in prop::collection::vec(step(), 1..60),
        pages in 1u64..6,
        spare_segments in 0usize..3,
    ) {
        let mut options = Options { segment_bytes: 4096 * pages, spare_segments };
        let mut disk = SimDisk::new(11);
        let mut wal = create(&disk, options.clone());
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Append(lens) => {
                    let positions = append(&mut wal, model.next(), model.life, &lens).unwrap();
                    prop_assert_eq!(positions.len(), lens.len());
                    model.appended(&lens, &positions);
                }
                Step::AppendOnFullDisk(pages, lens) => {
                    disk.set_capacity(Some(disk.used_bytes() + pages * 4096));
                    let end = wal.end();
                    match append(&mut wal, model.next(), model.life, &lens) {
                        Ok(positions) => model.appended(&lens, &positions),
                        Err(Error::NoSpace { .. }) => {
                            prop_assert_eq!(wal.end(), end);
                            // The cut began with a sync.
                            model.synced = model.next();
                        }
                        Err(error) => return Err(TestCaseError::fail(error.to_string())),
                    }
                    disk.set_capacity(None);
                }
                Step::Sync => {
                    wal.sync().unwrap();
                    model.synced = model.next();
                }
                Step::Mark => {
                    wal.mark_synced().unwrap();
                }
                Step::ReleaseAllBut(segments) => {
                    let before = wal.segments().end.saturating_sub(segments);
                    wal.release_before(before).unwrap();
                    let oldest = wal.segments().start;
                    if model.entries.values().any(|(_, _, at)| at.segment < oldest) {
                        model.synced = model.next();
                        model.entries.retain(|_, (_, _, at)| at.segment >= oldest);
                    }
                }
                Step::PrepareSpare(bytes) => {
                    wal.prepare_spare(bytes).unwrap();
                }
                Step::Reopen(pages) => {
                    options.segment_bytes = 4096 * pages;
                    disk.crash();
                    let next = model.next();
                    let opened = open(&disk, options.clone()).unwrap();
                    model.reopened(&opened)?;
                    prop_assert_eq!(model.next(), next, "a crash of the process lost something");
                    prop_assert_eq!(opened.report.torn, None);
                    wal = opened.wal;
                }
                Step::PowerLoss(seed) => {
                    disk = disk.power_loss(PowerLoss::Random(seed));
                    let opened = open(&disk, options.clone()).unwrap();
                    model.reopened(&opened)?;
                    model.life = model.life.wrapping_add(1);
                    wal = opened.wal;
                }
                Step::Read => {
                    let reader = wal.reader();
                    for (&number, &(life, len, position)) in &model.entries {
                        let (_, payload) = reader.read(position).unwrap();
                        prop_assert_eq!(payload, entry(number, life, len).payload);
                    }
                }
            }
        }
    }
}
