//! The power fails at every single operation of a scripted run, and again at every operation of the recovery.

use std::ops::Range;

use ferrite_disk::sim::{History, PowerLoss, SimDisk};
use ferrite_disk::wal::{Options, Wal};

use crate::support::{append, arc, create, dir, head, open, options};

/// What must hold after a crash before operation `at`, until the next promise.
#[derive(Debug, Clone, Copy)]
struct Promise {
    at: u64,
    /// The log exists.
    created: bool,
    /// Entries below this are synced.
    synced: u64,
    /// Entries below this may be there.
    appended: u64,
    /// Entries from here on are not released.
    kept_from: u64,
}

/// A run with everything in it: batches of all shapes, syncs, cuts with and without spares, releases, marks, reopening after
/// a clean end and after a crash of the process.
struct Script {
    disk: SimDisk,
    options: Options,
    promises: Vec<Promise>,
    wal: Option<Wal>,
    next: u64,
    synced: u64,
    kept_from: u64,
    /// First entry of each segment: number and entry.
    begins: Vec<(u64, u64)>,
}

impl Script {
    fn new(options: Options) -> Script {
        let disk = SimDisk::recording(5);
        let mut script = Script {
            disk,
            options,
            promises: Vec::new(),
            wal: None,
            next: 0,
            synced: 0,
            kept_from: 0,
            begins: Vec::new(),
        };
        script.promise();
        script.wal = Some(create(&script.disk, script.options.clone()));
        script.promise();
        script
    }

    fn promise(&mut self) {
        self.promises.push(Promise {
            at: self.disk.op_count(),
            created: self.wal.is_some(),
            synced: self.synced,
            appended: self.next,
            kept_from: self.kept_from,
        });
    }

    fn wal(&mut self) -> &mut Wal {
        self.wal.as_mut().unwrap()
    }

    fn append(&mut self, lens: &[usize]) {
        let from = self.next;
        // From the first operation of the append on its records may be on the disk.
        self.next += lens.len() as u64;
        self.promise();
        let positions = append(self.wal(), from, 0, lens).unwrap();
        for (number, position) in (from..).zip(positions) {
            if self
                .begins
                .last()
                .is_none_or(|&(segment, _)| segment < position.segment)
            {
                self.begins.push((position.segment, number));
            }
        }
    }

    fn sync(&mut self) {
        self.wal().sync().unwrap();
        self.synced = self.next;
        self.promise();
    }

    fn release(&mut self, segments: u64) {
        let before = self.wal().segments().start + segments;
        // The newest segment with entries stays in any case.
        let kept = self.begins.iter().find(|(segment, _)| *segment >= before);
        self.kept_from = kept.or(self.begins.last()).unwrap().1;
        self.promise();
        self.wal().release_before(before).unwrap();
        // It synced the head of what is left, and with it everything.
        self.synced = self.next;
        self.promise();
    }

    fn reopen(&mut self) {
        self.wal = None;
        self.disk.crash();
        let opened = open(&self.disk, self.options.clone()).unwrap();
        assert_eq!(opened.numbers().end, self.next);
        self.wal = Some(opened.wal);
        // What was replayed is durable, synced before or not.
        self.synced = self.next;
        self.promise();
    }

    fn run(mut self) -> (History, Vec<Promise>) {
        self.append(&[20]);
        self.sync();
        self.append(&[300; 5]);
        self.append(&[40, 600, 40]);
        self.sync();
        self.append(&[900, 100, 900]);
        self.append(&[50; 10]);
        self.reopen();
        self.append(&[1500]);
        self.sync();
        self.wal().mark_synced().unwrap();
        self.append(&[1000, 1000]);
        self.release(1);
        self.append(&[700; 3]);
        self.append(&[700; 3]);
        self.sync();
        self.wal().prepare_spare(1).unwrap();
        self.append(&[9000, 20]);
        self.append(&[100]);
        self.release(2);
        self.append(&[100; 20]);
        self.reopen();
        self.append(&[1800]);
        self.append(&[1800]);
        self.wal().mark_synced().unwrap();
        self.sync();
        self.release(1);
        self.append(&[30; 3]);
        self.promise();
        (self.disk.history(), self.promises)
    }
}

fn promise_before(promises: &[Promise], k: usize) -> Promise {
    let past = promises.partition_point(|promise| promise.at <= k as u64);
    promises[past - 1]
}

/// The entries that a crash before operation `k` may show: at least, and at most.
fn check(numbers: &Range<u64>, promise: &Promise, context: &str) {
    assert!(
        promise.synced <= numbers.end && numbers.end <= promise.appended,
        "{context}: entries {numbers:?}, promised {promise:?}"
    );
    assert!(
        numbers.start <= promise.kept_from || numbers.is_empty(),
        "{context}: entries {numbers:?}, promised {promise:?}"
    );
}

/// Whether there is a log to open; before the creation has finished, there need not be.
fn exists(disk: &SimDisk, promise: &Promise, options: &Options, context: &str) -> bool {
    let exists = Wal::exists(disk, dir()).unwrap();
    assert!(exists || !promise.created, "{context}: no log");
    if !exists {
        // What is left of it is not in the way.
        Wal::create(arc(disk), dir(), options.clone(), &head(0)).unwrap();
    }
    exists
}

fn policies(k: usize, random: u64) -> impl Iterator<Item = PowerLoss> {
    let seeds = (0..random).map(move |i| PowerLoss::Random(1000 * k as u64 + i));
    [PowerLoss::LoseAll, PowerLoss::KeepAll]
        .into_iter()
        .chain(seeds)
}

fn scripts() -> Vec<Options> {
    let mut no_spares = options(4096);
    no_spares.spare_segments = 0;
    vec![options(4096), no_spares, options(8192)]
}

#[test]
fn synced_records_survive_a_power_loss_at_every_operation() {
    let mut cases = 0;
    let mut torn = 0;
    for options in scripts() {
        let (history, promises) = Script::new(options.clone()).run();
        assert!(history.len() > 60, "{} operations", history.len());
        for (k, fork) in history.clone() {
            let promise = promise_before(&promises, k);
            for policy in policies(k, 24) {
                let context = format!("before {k} {:?}, {policy:?}", history.op(k));
                let after = fork.power_loss(policy);
                if !exists(&after, &promise, &options, &context) {
                    continue;
                }
                let opened = open(&after, options.clone())
                    .unwrap_or_else(|error| panic!("{context}: {error}"));
                check(&opened.numbers(), &promise, &context);
                cases += 1;
                torn += u64::from(opened.report.torn.is_some());
            }
        }
    }
    assert!(cases > 5000, "{cases} cases");
    assert!(torn > 100, "only {torn} of {cases} cases had a torn tail");
}

#[test]
fn a_power_loss_at_every_operation_of_the_recovery_loses_nothing() {
    let mut cases = 0;
    let options = options(4096);
    let (history, promises) = Script::new(options.clone()).run();
    for (k, fork) in history.clone() {
        let promise = promise_before(&promises, k);
        for policy in policies(k, 4) {
            let first = fork.power_loss(policy);
            let context = format!("before {k} {:?}, {policy:?}", history.op(k));
            if !exists(&first, &promise, &options, &context) {
                continue;
            }
            first.start_recording();
            let mut opened = open(&first, options.clone()).unwrap();
            let found = opened.numbers();
            let recovered = first.history().len();
            // The same bytes as in the first life, so that a left-over of that life would fit behind them.
            append(&mut opened.wal, found.end, 0, &[300]).unwrap();
            opened.wal.sync().unwrap();
            let history = first.history();
            let end = history.len();
            for (j, fork) in history.clone() {
                for policy in policies(j, 3) {
                    let context =
                        format!("{context}, then before {j} {:?}, {policy:?}", history.op(j));
                    let opened = open(&fork.power_loss(policy), options.clone())
                        .unwrap_or_else(|error| panic!("{context}: {error}"));
                    let numbers = opened.numbers();
                    check(
                        &numbers,
                        &Promise {
                            appended: promise.appended.max(found.end + 1),
                            ..promise
                        },
                        &context,
                    );
                    if j >= recovered {
                        // Recovery made durable what it showed, and buried for ever what it dropped.
                        assert!(
                            found.end <= numbers.end,
                            "{context}: {numbers:?}, {found:?} before"
                        );
                        assert!(
                            numbers.end <= found.end + 1,
                            "{context}: {numbers:?}, {found:?} before"
                        );
                    }
                    if j == end {
                        assert_eq!(numbers.end, found.end + 1, "{context}");
                    }
                    cases += 1;
                }
            }
        }
    }
    assert!(cases > 10_000, "{cases} cases");
}

#[test]
fn a_left_over_of_a_lost_batch_never_follows_its_repetition() {
    // Three equal-sized entries in one unsynced batch, each in a page of its own; the middle one is lost.
    let mut seen = 0;
    for seed in 0..2000 {
        let disk = SimDisk::new(seed);
        let options = options(16384);
        let mut wal = create(&disk, options.clone());
        append(&mut wal, 0, 0, &[3500]).unwrap();
        wal.sync().unwrap();
        append(&mut wal, 1, 0, &[4000, 4000]).unwrap();
        let after = disk.power_loss(PowerLoss::Random(seed));
        let mut opened = open(&after, options.clone()).unwrap();
        let torn = opened.report.torn.take();
        if opened.numbers().end != 1 || !torn.is_some_and(|torn| torn.valid_after) {
            continue;
        }
        seen += 1;
        append(&mut opened.wal, 1, 0, &[4000]).unwrap();
        opened.wal.sync().unwrap();
        drop(opened);
        let again = open(&after, options.clone()).unwrap();
        assert_eq!(again.numbers(), 0..2, "seed {seed}");
        assert_eq!(again.report.torn, None, "seed {seed}");
    }
    assert!(
        seen > 20,
        "only {seen} of 2000 seeds left a valid record behind a torn one"
    );
}

#[test]
fn what_a_crashed_process_left_is_durable_once_the_log_is_open_again() {
    let options = options(4096);
    let (history, promises) = Script::new(options.clone()).run();
    let mut opened_logs = 0;
    for (k, crashed) in history.clone() {
        let promise = promise_before(&promises, k);
        let context = format!("before {k} {:?}", history.op(k));
        if !exists(&crashed, &promise, &options, &context) {
            continue;
        }
        let mut opened = open(&crashed, options.clone()).unwrap();
        assert_eq!(opened.report.torn, None, "{context}");
        let found = opened.numbers();
        let shown = open(&crashed.power_loss(PowerLoss::LoseAll), options.clone()).unwrap();
        assert_eq!(shown.numbers(), found, "{context}: right after opening");
        append(&mut opened.wal, found.end, 0, &[300]).unwrap();
        opened.wal.sync().unwrap();
        let shown = open(&crashed.power_loss(PowerLoss::LoseAll), options.clone()).unwrap();
        assert_eq!(
            shown.numbers().end,
            found.end + 1,
            "{context}: after a sync"
        );
        opened_logs += 1;
    }
    assert!(opened_logs > 60, "{opened_logs} logs");
}

#[test]
fn a_segment_that_has_no_head_yet_replaces_nothing() {
    let disk = SimDisk::recording(1);
    let mut wal = create(&disk, options(4096));
    append(&mut wal, 0, 0, &[2000]).unwrap();
    let before = disk.op_count();
    append(&mut wal, 1, 0, &[2000]).unwrap();
    let mut history = disk.history();
    let mut headless = 0;
    for k in before as usize..=history.len() {
        let after = history.power_loss_at(k, PowerLoss::LoseAll);
        let mut opened = open(&after, options(4096)).unwrap();
        if opened.wal.segments() != (1..3) {
            continue;
        }
        headless += 1;
        opened.wal.release_before(u64::MAX).unwrap();
        assert_eq!(opened.wal.segments(), 1..3);
        assert_eq!(opened.numbers(), 0..1);
        drop(opened);
        // The next batch brings the head, even if it fits into the segment without one.
        let mut opened = open(&after, options(4096)).unwrap();
        append(&mut opened.wal, 1, 0, &[10]).unwrap();
        opened.wal.release_before(u64::MAX).unwrap();
        assert_eq!(opened.wal.segments(), 2..3);
        let shown = open(&after.power_loss(PowerLoss::LoseAll), options(4096)).unwrap();
        assert_eq!(shown.numbers(), 1..2);
    }
    assert!(headless > 0);
}
