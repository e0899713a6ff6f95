//! Hours of compaction on a clock of the test.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// A store whose revision grows by one in every `step`, and its compactor.
struct Clock {
    compactor: Compactor,
    now: Duration,
    step: Duration,
}

impl Clock {
    fn new(mode: AutoCompaction, step: Duration) -> Self {
        // Any moment will do as the origin.
        let now = 7 * MINUTE;
        Self {
            compactor: Compactor::new(mode, now, revision_at(now, step)),
            now,
            step,
        }
    }

    fn revision(&self) -> i64 {
        revision_at(self.now, self.step)
    }

    /// One round; the time that has passed since the start and the revision asked for.
    fn round(&mut self, leads: bool, succeeds: bool) -> Option<(Duration, i64)> {
        self.now += self.compactor.pause();
        let due = self.compactor.wake(self.now, self.revision(), leads);
        if let Some(revision) = due
            && succeeds
        {
            self.compactor.finished(self.now, revision);
        }
        self.compactor.rest(self.revision());
        due.map(|revision| (self.now - 7 * MINUTE, revision))
    }

    fn rounds(&mut self, rounds: u32) -> Vec<(Duration, i64)> {
        (0..rounds).filter_map(|_| self.round(true, true)).collect()
    }
}

fn revision_at(now: Duration, step: Duration) -> i64 {
    i64::try_from(now.as_millis() / step.as_millis()).unwrap()
}

fn minutes(revisions: &[(Duration, i64)]) -> Vec<(u64, i64)> {
    revisions
        .iter()
        .map(|(at, revision)| (at.as_secs() / 60, *revision))
        .collect()
}

fn periodic(period: Duration) -> Clock {
    Clock::new(AutoCompaction::Periodic(period), MINUTE)
}

#[test]
fn periods_up_to_an_hour_repeat_after_the_period() {
    let mut clock = periodic(10 * MINUTE);
    assert_eq!(clock.compactor.pause(), MINUTE);
    // First after the period, to where it began; then to the period and one pause ago.
    let expected = [(10, 7), (20, 16), (30, 26), (40, 36)];
    assert_eq!(minutes(&clock.rounds(49)), expected);
}

#[test]
fn longer_periods_repeat_after_an_hour() {
    let mut clock = periodic(120 * MINUTE);
    assert_eq!(clock.compactor.pause(), 6 * MINUTE);
    let expected = [(120, 7), (180, 61), (240, 121), (300, 181)];
    assert_eq!(minutes(&clock.rounds(50)), expected);
}

#[test]
fn a_period_that_tenths_of_an_hour_do_not_divide() {
    let mut clock = periodic(63 * MINUTE);
    // The first pause after the period, and a window that is shorter than the period and a pause.
    let expected = [(66, 7), (126, 67), (186, 127)];
    assert_eq!(minutes(&clock.rounds(31)), expected);
}

#[test]
fn a_store_that_does_not_change_is_compacted_once() {
    let mode = AutoCompaction::Periodic(10 * MINUTE);
    let mut compactor = Compactor::new(mode, Duration::ZERO, 5);
    let mut due = Vec::new();
    for minute in 1..100 {
        if let Some(revision) = compactor.wake(minute * MINUTE, 5, true) {
            due.push((minute, revision));
            compactor.finished(minute * MINUTE, revision);
        }
        compactor.rest(5);
    }
    assert_eq!(due, [(10, 5)]);
}

#[test]
fn failed_attempts_are_repeated_after_a_pause() {
    let mut clock = periodic(120 * MINUTE);
    let mut due = Vec::new();
    for round in 1..=50 {
        // Fails from the first attempt on until two hours and 18 minutes have passed.
        due.extend(clock.round(true, round > 22));
    }
    let expected = [
        (120, 7),
        (126, 7),
        (132, 13),
        (138, 19),
        (198, 79),
        (258, 139),
    ];
    assert_eq!(minutes(&due), expected);
}

#[test]
fn only_a_leader_compacts_and_a_new_one_knows_the_past() {
    let mut clock = periodic(10 * MINUTE);
    for _ in 0..35 {
        assert_eq!(clock.round(false, true), None);
    }
    assert_eq!(minutes(&[clock.round(true, true).unwrap()]), [(36, 32)]);
    let mut clock = Clock::new(AutoCompaction::Revision(5), MINUTE);
    for _ in 0..3 {
        assert_eq!(clock.round(false, true), None);
    }
    assert_eq!(minutes(&[clock.round(true, true).unwrap()]), [(20, 22)]);
}

#[test]
fn revisions_are_looked_at_every_five_minutes() {
    let mut clock = Clock::new(AutoCompaction::Revision(20), MINUTE);
    // Not at 12 - 20 and 17 - 20; the rest lags behind by 20.
    let expected = [(15, 2), (20, 7), (25, 12)];
    assert_eq!(minutes(&clock.rounds(5)), expected);
    // A failure is repeated, a success at the same revision is not.
    let Compactor::Revisions(revisions) = &mut clock.compactor else {
        unreachable!("made above")
    };
    assert_eq!(revisions.due(32), None);
    assert_eq!(revisions.due(33), Some(13));
    assert_eq!(revisions.due(33), Some(13));
    revisions.finished(13);
    assert_eq!(revisions.due(33), None);
}

#[test]
fn tiny_periods_do_not_spin() {
    let compactor = periodic(Duration::from_nanos(1)).compactor;
    assert_eq!(compactor.pause(), Duration::from_millis(1));
}
