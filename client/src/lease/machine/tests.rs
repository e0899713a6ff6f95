//! The machine by hand on a clock of its own, and under random schedules.

use proptest::prelude::*;

use super::*;
use tonic::Status;

const SECOND: Duration = Duration::from_secs(1);

fn renewal(id: i64, ttl: i64) -> pb::LeaseKeepAliveResponse {
    pb::LeaseKeepAliveResponse {
        header: None,
        id,
        ttl,
    }
}

fn unavailable() -> Error {
    Error::from(Status::unavailable("gone"))
}

/// The leases of all requests that are due.
fn sent(machine: &mut Machine, now: Instant) -> Vec<i64> {
    let mut all = Vec::new();
    while let Some(request) = machine.next_request(now) {
        all.push(request.id);
    }
    assert!(!machine.has_request(now));
    all
}

/// How many renewals wait for a listener, and the error after them.
fn read(machine: &mut Machine, key: Key) -> (usize, Option<String>) {
    let mut renewals = 0;
    loop {
        match machine.take(key) {
            Next::Renewal(_) => renewals += 1,
            Next::Pending => return (renewals, None),
            Next::Ended(error) => return (renewals, Some(error.to_string())),
        }
    }
}

const LOST: &str = "lease keep alive: no answer within the time to live of the lease";

#[test]
fn a_lease_is_renewed_at_once_and_then_every_third_of_its_time() {
    let mut machine = Machine::default();
    let mut now = Instant::now();
    let key = machine.listen(now, 7, false);
    assert_eq!(sent(&mut machine, now), [7]);
    for _ in 0..3 {
        machine.received(now, renewal(7, 9));
        assert_eq!(machine.wake_at(), Some(now + 3 * SECOND));
        assert_eq!(sent(&mut machine, now + 2 * SECOND), [0i64; 0]);
        now += 3 * SECOND;
        assert_eq!(sent(&mut machine, now), [7]);
    }
    assert_eq!(read(&mut machine, key), (3, None));
}

#[test]
fn listeners_of_one_lease_share_its_renewals() {
    let mut machine = Machine::default();
    let now = Instant::now();
    let first = machine.listen(now, 7, false);
    let second = machine.listen(now, 7, false);
    assert_eq!(sent(&mut machine, now), [7]);
    machine.received(now, renewal(7, 9));
    assert_eq!(machine.take_woken(), BTreeSet::from([first, second]));
    assert_eq!(read(&mut machine, first), (1, None));
    assert_eq!(read(&mut machine, second), (1, None));
    machine.remove(first);
    assert!(!machine.is_idle());
    machine.remove(second);
    assert!(machine.is_idle());
    assert_eq!(machine.wake_at(), None);
}

#[test]
fn a_lease_that_has_ended_ends_its_listeners() {
    for ttl in [0, -1] {
        let mut machine = Machine::default();
        let now = Instant::now();
        let key = machine.listen(now, 7, false);
        sent(&mut machine, now);
        machine.received(now, renewal(7, ttl));
        let not_found = "etcdserver: requested lease not found".to_owned();
        assert_eq!(read(&mut machine, key), (0, Some(not_found)));
        assert!(machine.is_idle());
    }
}

#[test]
fn a_lease_counts_as_alive_from_when_the_request_was_sent() {
    let mut machine = Machine::default();
    let start = Instant::now();
    let key = machine.listen(start, 7, false);
    sent(&mut machine, start);
    // The answer takes two seconds to arrive.
    machine.received(start + 2 * SECOND, renewal(7, 9));
    machine.expire(start + 9 * SECOND - Duration::from_millis(1));
    assert_eq!(read(&mut machine, key), (1, None));
    machine.expire(start + 9 * SECOND);
    assert_eq!(read(&mut machine, key), (0, Some(LOST.to_owned())));
}

#[test]
fn the_reason_of_a_loss_is_kept() {
    let mut machine = Machine::default();
    let now = Instant::now();
    let key = machine.listen(now, 7, false);
    machine.broken(now, &unavailable());
    machine.expire(now + FIRST_ANSWER);
    let Next::Ended(Error::KeepAliveLost { last: Some(last) }) = machine.take(key) else {
        panic!("lost, for a reason");
    };
    assert_eq!(last.to_string(), unavailable().to_string());
}

#[test]
fn a_broken_stream_sends_again_what_was_not_answered_only() {
    let mut machine = Machine::default();
    let now = Instant::now();
    machine.listen(now, 1, false);
    machine.listen(now, 2, false);
    assert_eq!(sent(&mut machine, now), [1, 2]);
    machine.received(now, renewal(1, 9));
    machine.broken(now + SECOND, &unavailable());
    assert_eq!(sent(&mut machine, now + SECOND), [2]);
}

#[test]
fn a_server_that_does_not_answer_is_left() {
    let mut machine = Machine::default();
    let now = Instant::now();
    machine.listen(now, 1, false);
    sent(&mut machine, now);
    machine.received(now, renewal(1, 9));
    let due = now + 3 * SECOND;
    sent(&mut machine, due);
    assert!(!machine.is_stalled(due));
    assert_eq!(machine.wake_at(), Some(due + 3 * SECOND));
    assert!(machine.is_stalled(due + 3 * SECOND));
}

#[test]
fn renewals_that_nobody_reads_are_dropped_and_go_on() {
    let mut machine = Machine::default();
    let mut now = Instant::now();
    let key = machine.listen(now, 7, false);
    for _ in 0..40 {
        assert_eq!(sent(&mut machine, now), [7]);
        machine.received(now, renewal(7, 9));
        now += 3 * SECOND;
    }
    assert_eq!(read(&mut machine, key), (INBOX, None));
}

#[test]
fn without_a_leader_only_those_end_who_require_one() {
    let mut machine = Machine::default();
    let now = Instant::now();
    let strict = machine.listen(now, 7, true);
    let patient = machine.listen(now, 7, false);
    machine.broken(now, &Error::Etcd(EtcdError::NoLeader));
    let no_leader = "etcdserver: no leader".to_owned();
    assert_eq!(read(&mut machine, strict), (0, Some(no_leader)));
    assert_eq!(read(&mut machine, patient), (0, None));
    assert!(!machine.is_idle());
}

/// One step of a schedule, after so many milliseconds.
#[derive(Clone, Debug)]
enum Step {
    /// The server renews and answers what was sent.
    Answer,
    /// The answer reaches the machine.
    Arrive,
    Send,
    Break,
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let step = prop_oneof![
        3 => Just(Step::Answer),
        3 => Just(Step::Arrive),
        4 => Just(Step::Send),
        1 => Just(Step::Break),
    ];
    prop::collection::vec((0u64..1500, step), 1..80)
}

proptest! {
    /// Whenever the client believes that the lease lives, the server agrees.
    #[test]
    fn belief_never_outlives_the_lease(steps in steps(), ttl in 2i64..8) {
        let mut machine = Machine::default();
        let mut now = Instant::now();
        // Granted just now, and for as long as the machine assumes while it does not know.
        let ttl_seconds = Duration::from_secs(ttl.unsigned_abs());
        let mut expires = now + FIRST_ANSWER;
        machine.listen(now, 7, false);
        let (mut requests, mut answers) = (0, 0);
        for (pause, step) in steps {
            now += Duration::from_millis(pause);
            machine.expire(now);
            if machine.is_idle() {
                break;
            }
            prop_assert!(now < expires);
            match step {
                Step::Send => requests += sent(&mut machine, now).len(),
                Step::Answer if requests > 0 => {
                    requests -= 1;
                    answers += 1;
                    expires = expires.max(now + ttl_seconds);
                }
                Step::Arrive if answers > 0 => {
                    answers -= 1;
                    machine.received(now, renewal(7, ttl));
                }
                Step::Break => {
                    (requests, answers) = (0, 0);
                    machine.broken(now, &unavailable());
                }
                Step::Answer | Step::Arrive => {}
            }
            let wake = machine.wake_at().expect("the lease is kept");
            prop_assert!(wake <= expires);
        }
    }
}
